"""The authority without its listeners: who gets which identity, what is revoked, and what the ledger says about it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from hauberk.adapters.state import StateDirectory
from hauberk.authority.authority import MAX_TOKEN_SECONDS, Authority
from hauberk.authority.registry import ENTRIES
from hauberk.core.clock import ManualClock
from hauberk.core.config import load
from hauberk.core.feed import REVOCATIONS, RevocationBody
from hauberk.core.ports import PeerCredentials, Put, Write
from hauberk.core.spiffe import SpiffeId
from hauberk.core.wire import Grant
from hauberk.crypto.keyring import Purpose
from hauberk.crypto.x509 import SvidInfo, WorkloadKey, parse_svid, verify_chain
from hauberk.errors import ConfigError, HauberkError, IdentityError, PolicyError, RecordsError
from hauberk.identity.registration import MAX_TTL, RegistrationEntry

DOMAIN = "example.org"
ADMIN = "uid:0"
ALLOW = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p-x, namespace: prod}
spec:
  rules:
  - from: [{source: {principals: [example.org/ns/prod/sa/front]}}]
"""


def opened(path: Path, clock: ManualClock | None = None, **settings: object) -> Authority:
    arguments = {"trust_domain": DOMAIN, "directory": str(path), **settings}
    return Authority(path, load(environ={}, arguments=arguments), clock=clock or ManualClock())


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    made = opened(tmp_path / "state")
    yield made
    made.close()


def clock_of(authority: Authority) -> ManualClock:
    assert isinstance(authority._clock, ManualClock)
    return authority._clock


def entry(name: str, *, account: str = "", namespace: str = "prod", ttl: float = 3600.0) -> RegistrationEntry:
    return RegistrationEntry(name=name, spiffe_id=SpiffeId.service(DOMAIN, namespace, account or name), ttl=ttl)


def csr(spiffe_id: SpiffeId | None = None) -> bytes:
    return WorkloadKey.generate().request(spiffe_id)


def joined(authority: Authority, name: str) -> SvidInfo:
    return parse_svid(authority.join(authority.token(name, ADMIN).secret, csr()).chain)


def renewed(authority: Authority, svid: SvidInfo) -> SvidInfo:
    return parse_svid(authority.renew(svid, csr()).chain)


def refused(code: str, call: Callable[..., object], *arguments: object, **more: object) -> HauberkError:
    with pytest.raises(HauberkError) as caught:
        call(*arguments, **more)
    assert caught.value.code == code
    return caught.value


def events(authority: Authority, kind: str) -> list[dict[str, object]]:
    return [msgspec.json.decode(found.meta) for found in authority.ledger.entries(kind=kind, limit=10_000)]


# first identities


def test_a_join_token_is_good_for_one_identity_once(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    token = authority.token("shop", ADMIN)
    grant = authority.join(token.secret, csr())
    svid = verify_chain(grant.chain, grant.roots, at=clock_of(authority).time())
    assert str(svid.spiffe_id) == "spiffe://example.org/ns/prod/sa/shop"
    refused("HBK-204", authority.join, token.secret, csr())
    assert len(events(authority, "identity.issued")) == 1
    assert [event["code"] for event in events(authority, "identity.denied")] == ["HBK-204"]


def test_an_expired_token_is_refused(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    token = authority.token("shop", ADMIN, 60)
    clock_of(authority).advance(60)
    refused("HBK-204", authority.join, token.secret, csr())


@pytest.mark.parametrize("ttl", [0.0, -5.0, MAX_TOKEN_SECONDS + 1, float("inf"), float("nan")])
def test_a_token_never_lives_longer_than_a_day_nor_not_at_all(authority: Authority, ttl: float) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    refused("HBK-204", authority.token, "shop", ADMIN, ttl)


def test_of_eight_callers_with_one_token_exactly_one_wins(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    secret, start = authority.token("shop", ADMIN).secret, threading.Barrier(8)

    def race(_: int) -> str:
        request = csr()
        start.wait()
        try:
            authority.join(secret, request)
        except IdentityError as error:
            return error.code
        return "won"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(race, range(8))) == ["HBK-204"] * 7 + ["won"]


def test_the_tokens_of_a_removed_entry_die_with_it(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    token = authority.token("shop", ADMIN)
    authority.remove_entry("shop", ADMIN)
    authority.add_entry(entry("shop", account="vault"), ADMIN)  # the name again, for another identity
    refused("HBK-204", authority.join, token.secret, csr())


ME = SpiffeId.service(DOMAIN, "prod", "vault")
WRONG = {
    "garbage": (b"not a request", "HBK-203"),
    "a broken signature": (csr()[:-3] + b"abc", "HBK-203"),
    "another id": (csr(ME), "HBK-212"),
    "far too long": (b"x" * 20_000, "HBK-203"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_request_is_refused_and_recorded(authority: Authority, kind: str) -> None:
    request, code = WRONG[kind]
    authority.add_entry(entry("shop"), ADMIN)
    refused(code, authority.join, authority.token("shop", ADMIN).secret, request)
    (event,) = events(authority, "identity.denied")
    assert (event["code"], event["rule"]) == (code, "join")


def test_a_process_that_is_gone_is_not_attested(authority: Authority) -> None:
    refused("HBK-207", authority.attest, PeerCredentials(2**22 - 1, 0, 0), csr(), None)
    assert [event["code"] for event in events(authority, "identity.denied")] == ["HBK-207"]


# entries


@pytest.mark.parametrize("again", [entry("shop", account="other"), entry("copy", account="shop")])
def test_neither_a_name_nor_an_id_can_be_registered_twice(authority: Authority, again: RegistrationEntry) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    refused("HBK-213", authority.add_entry, again, ADMIN)
    assert len(events(authority, "admin.entry.added")) == 1


def test_an_id_is_free_again_once_its_entry_is_removed(authority: Authority) -> None:
    authority.add_entry(entry("old", account="shop"), ADMIN)
    authority.remove_entry("old", ADMIN)
    authority.add_entry(entry("new", account="shop"), ADMIN)
    assert [found.name for found in authority.registry.entries()] == ["new"]


def test_of_eight_administrators_who_register_one_id_exactly_one_does(authority: Authority) -> None:
    start = threading.Barrier(8)

    def race(number: int) -> str:
        start.wait()
        try:
            authority.add_entry(entry(f"shop-{number}", account="shop"), ADMIN)
        except IdentityError as error:
            return error.code
        return "won"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(race, range(8))) == ["HBK-213"] * 7 + ["won"]
    assert len(events(authority, "admin.entry.added")) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        entry("authority", namespace="hauberk-system"),
        RegistrationEntry(name="far", spiffe_id=SpiffeId.service("other.test", "prod", "far")),
    ],
)
def test_ids_that_are_not_the_authoritys_to_give_are_refused(authority: Authority, wrong: RegistrationEntry) -> None:
    refused("HBK-201", authority.add_entry, wrong, ADMIN)


def test_more_entries_than_one_page_of_the_store_are_all_there(authority: Authority) -> None:
    rows = [Put(ENTRIES, f"s-{at:04}".encode(), entry(f"s-{at:04}").encode()) for at in range(1_005)]
    authority.store.commit(Write(rows=rows))
    assert len(authority.registry.entries()) == 1_005
    assert authority.status()["entries"] == 1_005


# renewal


def test_a_renewal_keeps_the_id_and_changes_the_key(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    first = joined(authority, "shop")
    second = renewed(authority, first)
    assert second.spiffe_id == first.spiffe_id
    assert second.public_key != first.public_key
    *_, last = authority.ledger.entries(kind="identity.issued")
    assert msgspec.json.decode(last.public)["by"] == "renewal"
    assert msgspec.json.decode(last.public)["serial"] == second.serial


def test_a_removed_entry_gets_no_further_certificate(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    svid = joined(authority, "shop")
    authority.remove_entry("shop", ADMIN)
    refused("HBK-205", authority.renew, svid, csr())


def test_a_revoked_certificate_renews_nothing(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    svid = joined(authority, "shop")
    authority.revoke(ADMIN, serials=[svid.serial])
    refused("HBK-206", authority.renew, svid, csr())
    joined(authority, "shop")  # the identity itself is not revoked


def test_a_revoked_identity_gets_no_certificate_in_any_way(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    svid, token = joined(authority, "shop"), authority.token("shop", ADMIN)
    authority.revoke(ADMIN, ids=[str(svid.spiffe_id)])
    refused("HBK-206", authority.renew, svid, csr())
    refused("HBK-206", authority.join, token.secret, csr())
    authority.revoke(ADMIN, ids=[str(svid.spiffe_id)], restore=True)
    renewed(authority, svid)


# revocation


def test_no_revocation_is_lost_when_administrators_act_at_once(authority: Authority) -> None:
    start = threading.Barrier(8)
    ids = [f"spiffe://example.org/ns/prod/sa/s-{number}" for number in range(8)]

    def revoke(spiffe_id: str) -> None:
        start.wait()
        authority.revoke(ADMIN, ids=[spiffe_id])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(revoke, ids))
    assert authority.revocations.ids == frozenset(ids)


def test_whatever_was_renewed_from_a_revoked_certificate_goes_with_it(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    stolen, own = joined(authority, "shop"), joined(authority, "shop")
    child = renewed(authority, renewed(authority, stolen))
    authority.revoke(ADMIN, serials=[stolen.serial])
    refused("HBK-206", authority.renew, child, csr())
    renewed(authority, own)
    authority.revoke(ADMIN, serials=[stolen.serial], restore=True)
    assert authority.revocations.serials == frozenset()


def test_a_thief_who_renews_while_he_is_revoked_keeps_nothing(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    first = joined(authority, "shop")
    chain = [first]
    revoked = threading.Event()

    def renew() -> None:
        while True:
            try:
                chain.append(renewed(authority, chain[-1]))
            except IdentityError:
                return
            revoked.wait(0.001)

    thief = threading.Thread(target=renew)
    thief.start()
    while len(chain) < 3:
        revoked.wait(0.001)
    authority.revoke(ADMIN, serials=[first.serial])
    thief.join(20)
    assert not thief.is_alive()
    assert {svid.serial for svid in chain} <= authority.revocations.serials


def test_a_revoked_serial_is_forgotten_once_its_certificate_has_expired(authority: Authority) -> None:
    authority.add_entry(entry("shop", ttl=600), ADMIN)
    first, clock = joined(authority, "shop"), clock_of(authority)
    authority.revoke(ADMIN, serials=[first.serial])
    clock.advance(601)
    second = joined(authority, "shop")
    authority.revoke(ADMIN, serials=[second.serial])
    assert authority.revocations.serials == {second.serial}


def test_a_revoked_serial_nobody_knows_is_kept_as_long_as_any_certificate_lives(authority: Authority) -> None:
    authority.revoke(ADMIN, serials=["00:AB:cd"])
    assert authority.revocations.serials == {"abcd"}
    clock_of(authority).advance(MAX_TTL - 1)
    authority.revoke(ADMIN, serials=["1"])
    assert authority.revocations.serials == {"abcd", "1"}
    clock_of(authority).advance(2)
    authority.revoke(ADMIN, serials=["2"])
    assert authority.revocations.serials == {"1", "2"}


@pytest.mark.parametrize("text", ["shop", "", "0", "xyz", "ab" * 30, "production/shop"])
def test_a_revocation_that_means_nobody_is_an_error(authority: Authority, text: str) -> None:
    refused("HBK-201", authority.revoke, ADMIN, serials=[text])
    assert events(authority, "admin.revoked") == []


def test_revocations_survive_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    first = opened(tmp_path, clock)
    first.add_entry(entry("shop"), ADMIN)
    svid = joined(first, "shop")
    first.revoke(ADMIN, ids=["spiffe://example.org/ns/prod/sa/evil"], serials=[svid.serial])
    number = first.publisher.number
    first.close()
    second = opened(tmp_path, clock)
    assert second.revocations.serials == {svid.serial}
    assert second.revocations.ids == {"spiffe://example.org/ns/prod/sa/evil"}
    assert second.publisher.number == number
    second.close()


def test_a_revocation_on_file_that_was_not_published_yet_is_at_the_next_start(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.registry.revoke(["abc"], first._clock.time())  # killed between the row and the feed
    first.close()
    second = opened(tmp_path)
    found = second.publisher.get(REVOCATIONS)
    assert found is not None
    assert msgspec.json.decode(found.body, type=RevocationBody).serials == ("abc",)
    second.close()


# what cannot be recorded is not done


class Broken:
    """A recorder whose disk is full."""

    def submit(self, _event: object) -> object:
        raise RecordsError("HBK-703", "the disk is full")

    def close(self) -> None:
        """Nothing to write."""


def test_what_cannot_be_recorded_is_not_done(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    token, svid = authority.token("shop", ADMIN), joined(authority, "shop")
    before = (authority.publisher.number, authority.policies.current().digest, authority.revocations)
    with monkeypatch.context() as patch:
        patch.setattr(authority.recorder, "submit", Broken().submit)
        for call in (
            lambda: authority.add_entry(entry("other"), ADMIN),
            lambda: authority.remove_entry("shop", ADMIN),
            lambda: authority.token("shop", ADMIN),
            lambda: authority.revoke(ADMIN, ids=[str(svid.spiffe_id)]),
            lambda: authority.renew_all(ADMIN),
            lambda: authority.apply_policies([("f", ALLOW)], ADMIN, force=True, replace=False),
            lambda: authority.remove_policy("AuthorizationPolicy", "hauberk-system", "allow-nothing", ADMIN),
            lambda: authority.rotate_root("prepare", ADMIN),
            lambda: authority.join(token.secret, csr()),
            lambda: authority.renew(svid, csr()),
        ):
            refused("HBK-703", call)
    assert (authority.publisher.number, authority.policies.current().digest, authority.revocations) == before
    assert [found.name for found in authority.registry.entries()] == ["shop"]
    assert authority.roots.step == "settled"


# policies


def test_a_push_is_recorded_under_the_number_and_digest_it_gets(authority: Authority) -> None:
    applied = authority.apply_policies([("f.yaml", ALLOW)], ADMIN, force=True, replace=False)
    (found,) = authority.ledger.entries(kind="policy.applied")
    assert msgspec.json.decode(found.public)["revision"] == applied.revision == authority.publisher.number
    assert msgspec.json.decode(found.meta)["digest"] == applied.digest == authority.policies.current().digest


def test_pushes_at_once_lose_nothing_and_get_numbers_of_their_own(authority: Authority) -> None:
    start = threading.Barrier(6)

    def push(number: int) -> int:
        start.wait()
        text = ALLOW.replace("p-x", f"p-{number}")
        return authority.apply_policies([("f", text)], ADMIN, force=True, replace=False).revision

    with ThreadPoolExecutor(6) as pool:
        revisions = list(pool.map(push, range(6)))
    assert len(set(revisions)) == 6
    assert {f"p-{number}" for number in range(6)} <= {it.name for it in authority.policies.current().documents}


@pytest.mark.parametrize(
    "text", [ALLOW.replace("principals", "principalz"), "kind: [", ALLOW.replace("rules", "rulez"), "a: 1"]
)
def test_a_refused_push_changes_nothing_and_is_recorded(authority: Authority, text: str) -> None:
    before = authority.publisher.number
    with pytest.raises(PolicyError):
        authority.apply_policies([("typo.yaml", text)], ADMIN, force=True, replace=True)
    assert authority.publisher.number == before
    (event,) = events(authority, "policy.refused")
    assert event["outcome"] == "deny"


def test_removing_a_policy_that_is_not_there_is_refused(authority: Authority) -> None:
    refused("HBK-301", authority.remove_policy, "AuthorizationPolicy", "prod", "nothing", ADMIN)


# the start


def stopped(path: Path) -> Path:
    opened(path).close()
    return path


@pytest.mark.parametrize("name", ["ca.sealed", "log.sealed", "feed.sealed", "keys/root", "hauberk.db"])
def test_it_does_not_start_without_a_file_it_owns(tmp_path: Path, name: str) -> None:
    (stopped(tmp_path) / "private" / name).unlink()
    with pytest.raises(HauberkError) as caught:
        opened(tmp_path)
    assert caught.value.code in {"HBK-210", "HBK-905"}


@pytest.mark.parametrize("name", ["ca.sealed", "log.sealed", "keys/root", "hauberk.db"])
@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_it_does_not_start_with_a_file_others_can_read(tmp_path: Path, name: str, mode: int) -> None:
    (stopped(tmp_path) / "private" / name).chmod(mode)
    with pytest.raises(HauberkError) as caught:
        opened(tmp_path)
    assert caught.value.code in {"HBK-210", "HBK-905"}


def test_it_does_not_start_when_others_can_enter_its_directory(tmp_path: Path) -> None:
    (stopped(tmp_path) / "private").chmod(0o755)
    refused("HBK-210", opened, tmp_path)


def test_it_does_not_start_as_another_trust_domain(tmp_path: Path) -> None:
    stopped(tmp_path)
    refused("HBK-210", opened, tmp_path, trust_domain="other.test")


def test_it_does_not_start_with_a_sealed_key_that_was_changed(tmp_path: Path) -> None:
    path = stopped(tmp_path) / "private" / "ca.sealed"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused("HBK-210", opened, tmp_path)


def test_it_does_not_start_with_the_sealed_key_of_another_purpose(tmp_path: Path) -> None:
    private = stopped(tmp_path) / "private"
    (private / "ca.sealed").write_bytes((private / "log.sealed").read_bytes())
    refused("HBK-210", opened, tmp_path)


def test_two_of_them_never_share_a_directory(authority: Authority) -> None:
    refused("HBK-906", opened, authority.state.path)


def test_a_start_that_was_refused_leaves_the_directory_free(tmp_path: Path) -> None:
    stopped(tmp_path)
    refused("HBK-210", opened, tmp_path, trust_domain="other.test")
    opened(tmp_path).close()


def test_a_second_start_is_the_same_authority(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.add_entry(entry("shop"), ADMIN)
    known = (first.roots.signer, first.ledger.verifier, first.feed_key.public, first.publisher.number)
    svid = joined(first, "shop")
    first.close()
    second = opened(tmp_path)
    assert (second.roots.signer, second.ledger.verifier, second.feed_key.public, second.publisher.number) == known
    renewed(second, svid)
    second.close()


def test_no_private_file_is_open_to_anybody_else(authority: Authority) -> None:
    private = authority.state.private
    assert private.stat().st_mode & 0o777 == 0o700
    for path in private.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_no_secret_lies_on_disk_in_the_clear(authority: Authority) -> None:
    secrets = [authority.ca.key_der(), authority.feed_key.seed()]
    for path in authority.state.path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret in data for secret in secrets), path


# the root


def test_a_rotation_of_the_root_is_three_recorded_steps(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    old, before = authority.roots.signer, joined(authority, "shop")
    assert authority.rotate_root("prepare", ADMIN)["signer"] == old
    both = authority.bundles.roots
    activated = authority.rotate_root("activate", ADMIN)
    assert activated["signer"] != old
    after = renewed(authority, before)
    now = clock_of(authority).time()
    for svid in (before, after):
        verify_chain(svid.chain, both, at=now)
        verify_chain(svid.chain, authority.bundles.roots, at=now)
    clock_of(authority).advance(10)
    assert authority.rotate_root("finish", ADMIN)["trusted"] == [activated["signer"]]
    verify_chain(after.chain, authority.bundles.roots, at=now)
    refused("HBK-209", verify_chain, before.chain, authority.bundles.roots, at=now)
    recorded = [kind for kind in ("prepare", "activate", "finish") if events(authority, f"admin.root.{kind}")]
    assert recorded == ["prepare", "activate", "finish"]


@pytest.mark.parametrize(
    ("taken", "wrong"),
    [
        ([], "activate"),
        ([], "finish"),
        (["prepare"], "prepare"),
        (["prepare"], "finish"),
        (["prepare", "activate"], "activate"),
        (["prepare", "activate"], "prepare"),
        ([], "explode"),
    ],
)
def test_steps_come_in_their_order_or_not_at_all(authority: Authority, taken: list[str], wrong: str) -> None:
    for step in taken:
        authority.rotate_root(step, ADMIN)
    refused("HBK-906", authority.rotate_root, wrong, ADMIN, force=True)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_rotation_goes_on_where_it_was_after_a_restart(tmp_path: Path, steps: int) -> None:
    order, clock = ["prepare", "activate", "finish"], ManualClock()
    for step in order[:steps]:
        one = opened(tmp_path, clock)
        one.rotate_root(step, ADMIN, force=True)
        known = one.rotation()
        one.close()
        again = opened(tmp_path, clock)
        assert {**again.rotation(), "number": 0} == {**known, "number": 0}
        again.close()


def test_a_step_that_was_killed_before_it_was_published_is_published_at_the_next_start(tmp_path: Path) -> None:
    first = opened(tmp_path)
    number = first.publisher.number
    first.roots.prepare()  # durable, and then the process dies
    first.close()
    second = opened(tmp_path)
    assert second.publisher.number == number + 1
    assert len(second.bundles.roots[DOMAIN]) == 2
    second.close()


def test_a_half_written_step_does_not_count(tmp_path: Path) -> None:
    first = opened(tmp_path)
    signer = first.roots.signer
    (first.state.private / "ca.part").write_bytes(b"half of a")
    first.close()
    second = opened(tmp_path)
    assert (second.roots.signer, second.roots.step) == (signer, "settled")
    second.rotate_root("prepare", ADMIN)
    assert not (second.state.private / "ca.part").exists()
    second.close()


def test_the_old_key_is_gone_once_the_new_root_signs(authority: Authority) -> None:
    old = authority.ca.key_der()
    authority.rotate_root("prepare", ADMIN)
    authority.rotate_root("activate", ADMIN)
    sealed = (authority.state.private / "ca.sealed").read_bytes()
    plain = authority.state.keyring.open(Purpose.CA_KEY, sealed, aad=f"{DOMAIN}/ca".encode())
    assert old not in plain
    assert authority.ca.key_der() in plain


def test_the_next_root_is_not_used_by_somebody_who_follows_and_does_not_have_it(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    svid = joined(authority, "shop")
    authority.audience.heard(svid, authority.publisher.number)
    authority.rotate_root("prepare", ADMIN)
    error = refused("HBK-906", authority.rotate_root, "activate", ADMIN)
    assert error.context["waiting"] == [str(svid.spiffe_id)]
    authority.audience.heard(svid, authority.publisher.number)
    authority.rotate_root("activate", ADMIN)


def test_the_old_root_stays_while_somebody_who_follows_hangs_on_it(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    svid, clock = joined(authority, "shop"), clock_of(authority)
    authority.rotate_root("prepare", ADMIN)
    authority.audience.heard(svid, authority.publisher.number)
    authority.rotate_root("activate", ADMIN)
    refused("HBK-906", authority.rotate_root, "finish", ADMIN)
    renewed(authority, svid)
    assert "seconds" in refused("HBK-906", authority.rotate_root, "finish", ADMIN).context
    clock.advance(10)
    authority.rotate_root("finish", ADMIN)


def test_whoever_has_been_silent_for_long_holds_nobody_up(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    authority.audience.heard(joined(authority, "shop"), 1)
    authority.rotate_root("prepare", ADMIN)
    clock_of(authority).advance(31)
    authority.rotate_root("activate", ADMIN)


def test_records_signed_under_a_root_that_is_gone_are_still_taken(authority: Authority) -> None:
    old = authority.ca.root_der
    for step in ("prepare", "activate", "finish"):
        authority.rotate_root(step, ADMIN, force=True)
    assert old in authority.roots.for_records[DOMAIN]
    assert old not in authority.bundles.roots[DOMAIN]


def test_a_grant_carries_both_roots_while_there_are_two(authority: Authority) -> None:
    authority.add_entry(entry("shop"), ADMIN)
    authority.rotate_root("prepare", ADMIN)
    grant: Grant = authority.join(authority.token("shop", ADMIN).secret, csr())
    assert grant.roots[DOMAIN] == authority.bundles.roots[DOMAIN]
    assert len(grant.roots[DOMAIN]) == 2


def test_a_state_directory_of_an_embedded_runtime_is_no_authoritys(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path, DOMAIN)
    state.complete()
    state.close()
    with pytest.raises((IdentityError, ConfigError)):
        opened(tmp_path)
