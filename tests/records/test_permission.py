"""Who may do what to which stream: decided by policies, remembered while they are in force, recorded when refused."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from msgspec.structs import replace

from hauberk.core.call import Address, Call
from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.event import Event as Envelope
from hauberk.core.event import Receipt
from hauberk.core.ports import Authorizer
from hauberk.core.principal import Kind, Principal, Proof
from hauberk.crypto.keyring import Pseudonyms
from hauberk.errors import Denied, RecordsError
from hauberk.records import access, reading
from hauberk.records._encode import decode_event
from hauberk.records.access import COUNTED, MINUTE
from hauberk.records.access import TYPE as READ
from hauberk.records.appending import Appender, Batch
from hauberk.records.hidden import Redacted
from hauberk.records.permission import KEPT, Context, Permission
from hauberk.records.streams import DENIED, READS
from hauberk.records.typed import Untyped
from tests.records.made import PATIENCE, Shelf
from tests.records.made import event as plain_event
from tests.records.shop import (
    ANN,
    CLERK,
    NOBODY,
    OWNER,
    PACKER,
    POLICIES,
    STRANGER,
    TARGET,
    InForce,
    OrderPlaced,
    Shop,
    placed,
    workload,
)

PSEUDONYMS = Pseudonyms(b"p" * 32)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


def records(shop: Shop, stream: str) -> list[Envelope]:
    return [decode_event(entry.meta, entry.public) for entry in shop.entries(stream)]


# what is asked


def test_everything_is_a_call_that_policies_can_tell_apart(shop: Shop) -> None:
    context = Context(peer=OWNER, user=ANN, address=Address("10.0.0.9"))
    shop.append("order-1", placed(1), actor=context)
    list(shop.store.read("order-1", actor=context))
    list(shop.store.read("order-*", actor=context))
    shop.store.erase("ann", actor=context, reason="asked").result(PATIENCE)
    asked = [(call.method, call.path) for call in shop.policy.asked]
    assert asked == [
        ("append", "/streams/order-1"),
        ("read", "/streams/order-1"),
        ("decrypt", "/streams/order-1"),
        ("read", "/streams/order-*"),
        ("erase", "/subjects"),
    ]
    for call in shop.policy.asked:
        assert (call.peer, call.user, call.address, call.target) == (OWNER, ANN, Address("10.0.0.9"), TARGET)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda shop, who: shop.append("order-1", placed(1), actor=who),
        lambda shop, who: shop.read("order-1", actor=who),
        lambda shop, who: shop.read("*", actor=who),
        lambda shop, who: shop.read("/*", actor=who),
        lambda shop, who: next(iter(shop.store.subscribe("order-1", actor=who))),
        lambda shop, who: next(iter(shop.store.subscribe("order-1", name="n", actor=who))),
        lambda shop, who: shop.store.erase("ann", actor=who, reason="r").result(PATIENCE),
        lambda shop, who: shop.store.hold("ann", actor=who, reason="r").result(PATIENCE),
        lambda shop, who: shop.store.lift("ann", actor=who, reason="r").result(PATIENCE),
        lambda shop, who: shop.store.save_snapshot("order-1", 1, {}, actor=who).result(PATIENCE),
        lambda shop, who: shop.store.snapshot("order-1", actor=who).result(PATIENCE),
        lambda shop, who: shop.retention().archive(Path("/nowhere"), who),
        lambda shop, who: shop.retention().prune(before=256, types=["a.b"], directory=Path("/nowhere"), actor=who),
        lambda shop, who: shop.retention().restore(Path("/nowhere"), who),
    ],
    ids=["append", "read", "read-all", "read-everything", "subscribe", "subscribe-named", "erase", "hold", "lift",
         "save-snapshot", "snapshot", "archive", "prune", "restore"],
)  # fmt: skip
def test_what_no_policy_allows_is_denied_and_that_is_recorded(
    shop: Shop, attempt: Callable[[Shop, Principal], object]
) -> None:
    shop.append("order-1", placed(1))
    with pytest.raises(Denied):
        attempt(shop, STRANGER)
    [entry] = shop.entries(DENIED)
    assert entry.position == shop.store.size - 1 == 1
    assert STRANGER.id.encode() in entry.meta
    assert b'"HBK-300"' in entry.meta
    shop.policy.apply(NOBODY)  # nobody means the owner too
    with pytest.raises(Denied):
        attempt(shop, OWNER)


def test_rights_are_per_verb_and_stream(shop: Shop) -> None:
    shop.append("order-1", placed(1), actor=CLERK)
    for attempt in (
        lambda: shop.append("cart-1", placed(1), actor=CLERK),
        lambda: shop.read("cart-1", actor=CLERK),
        lambda: shop.read("*", actor=CLERK),
        lambda: shop.read("order-1", actor=PACKER),
        lambda: shop.append("order-1", placed(1), actor=PACKER),
    ):
        with pytest.raises(Denied):
            attempt()


def test_the_user_counts_as_policies_say(shop: Shop) -> None:
    shop.append("mine-ann", placed(1))
    front = workload("front")
    assert len(shop.read("mine-ann", actor=Context(peer=front, user=ANN))) == 1
    for user in (Principal(Kind.USER, ANN.id, {"role": "seller"}), Principal(Kind.USER, ANN.id)):
        with pytest.raises(Denied):
            shop.read("mine-ann", actor=Context(peer=front, user=user))


def test_of_a_pattern_only_the_streams_that_may_be_read_are_shown(shop: Shop) -> None:
    policies = (
        POLICIES
        + """---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: secret, namespace: production}
spec:
  action: DENY
  rules:
  - from: [{source: {principals: [example.org/ns/production/sa/clerk]}}]
    to: [{operation: {paths: ["/streams/order-secret-*"]}}]
"""
    )
    shop.policy.apply(policies)
    shop.append("order-1", placed(1))
    shop.append("order-secret-1", placed(2))
    shop.append("cart-1", placed(3))
    shown = [item.stream for item in shop.store.read("order-*", actor=CLERK)]
    assert shown == ["order-1"]
    assert [item.stream for item in shop.store.read("order-*", actor=OWNER)] == ["order-1", "order-secret-1"]


# decrypting


def test_a_reader_without_decrypt_gets_redacted_values_and_the_clear_rest(shop: Shop) -> None:
    shop.append("order-1", placed(1, customer="ann"), placed(2, customer="ann"), placed(3, customer="bob"))
    events = [event for event in shop.read("order-1", actor=CLERK) if isinstance(event, OrderPlaced)]
    assert [event.total for event in events] == [1, 2, 3]
    assert all(isinstance(event.email, Redacted) for event in events)
    assert events[0].customer == events[1].customer != events[2].customer
    [item, *_] = shop.store.read("order-1", actor=CLERK)
    assert "ann" not in repr(item) + str(item.event.email)


def test_a_reader_whose_right_to_decrypt_ends_sees_less_from_then_on(shop: Shop) -> None:
    shop.append("order-1", *(placed(number) for number in range(2 * reading.PAGE)))
    items = iter(shop.store.read("order-1", actor=OWNER))
    assert isinstance(next(items).event.email, str)
    shop.policy.apply(POLICIES.replace("sa/owner", "sa/nobody").replace("sa/clerk", "sa/owner"))
    rest = [item.event.email for item in items]
    assert isinstance(rest[-1], Redacted)


# remembering


def permission(policy: Authorizer, kept: int = KEPT) -> Permission:
    return Permission(policy, Shelf(), PSEUDONYMS, target=TARGET, kept=kept)


def test_an_answer_is_asked_for_once_until_other_policies_are_in_force() -> None:
    policy = InForce()
    asked = permission(policy)
    for _ in range(3):
        assert asked.allows(Context.of(CLERK), "read", "/streams/order-1")
    assert len(policy.asked) == 1
    policy.apply(NOBODY)
    assert not asked.allows(Context.of(CLERK), "read", "/streams/order-1")
    policy.apply(POLICIES)
    assert asked.allows(Context.of(CLERK), "read", "/streams/order-1")
    assert len(policy.asked) == 3


@pytest.mark.parametrize(
    "other",
    [
        Context(peer=PACKER, user=ANN),
        Context(peer=CLERK),
        Context(peer=CLERK, user=Principal(Kind.USER, ANN.id, {"role": "seller"})),
        Context(peer=CLERK, user=Principal(Kind.USER, ANN.id)),
        Context(peer=CLERK, user=ANN, address=Address("10.0.0.9")),
        Context(peer=CLERK, user=ANN, address=Address(forwarded="10.0.0.9")),
        Context(peer=Principal(Kind.LOCAL, CLERK.id), user=ANN),
    ],
)
def test_an_answer_is_remembered_for_exactly_whom_it_was_about(other: Context) -> None:
    policy = InForce()
    asked = permission(policy)
    asked.decide(Context(peer=CLERK, user=ANN), "read", "/streams/order-1")
    asked.decide(other, "read", "/streams/order-1")
    assert len(policy.asked) == 2
    asked.decide(replace(other, session="s", correlation="c"), "read", "/streams/order-1")
    assert len(policy.asked) == 2


def test_without_the_claims_in_the_key_a_seller_is_answered_like_a_buyer(monkeypatch: pytest.MonkeyPatch) -> None:
    seller = Context(peer=CLERK, user=Principal(Kind.USER, ANN.id, {"role": "seller"}))
    buyer = Context(peer=CLERK, user=ANN)
    asked = permission(InForce())
    assert asked.allows(buyer, "read", "/streams/mine-1")
    assert not asked.allows(seller, "read", "/streams/mine-1")
    monkeypatch.setattr(Permission, "_key", staticmethod(lambda who, verb, path: (who.user.id, verb, path)))
    asked = permission(InForce())
    assert asked.allows(buyer, "read", "/streams/mine-1")
    assert asked.allows(seller, "read", "/streams/mine-1")


def test_claims_that_cannot_be_compared_are_asked_about_each_time() -> None:
    policy = InForce()
    asked = permission(policy)
    odd = Context(user=Principal(Kind.USER, "x", {"role": "buyer", "odd": object()}))
    for _ in range(2):
        assert asked.allows(odd, "read", "/streams/mine-1")
    assert len(policy.asked) == 2


def test_answers_in_memory_are_bounded() -> None:
    asked = permission(InForce(), kept=10)
    for number in range(100):
        asked.decide(Context.of(CLERK), "read", f"/streams/order-{number}")
    assert len(asked._known[1]) <= 10


def test_who_decides_and_may_change_without_saying_so_is_asked_each_time() -> None:
    class Moody:
        answer = Verdict.ALLOW

        def decide(self, _call: Call) -> Decision:
            return Decision(self.answer, Layer.POLICY)

    moody = Moody()
    asked = permission(moody)
    assert asked.allows(Context(), "read", "/x")
    moody.answer = Verdict.DENY
    assert not asked.allows(Context(), "read", "/x")


# denials


def test_a_flood_of_denials_becomes_a_few_entries_that_count_it(shop: Shop) -> None:
    futures = [shop.store.append("order-1", [placed(1)], actor=STRANGER) for _ in range(200)]
    for future in futures:
        with pytest.raises(Denied):
            future.result(PATIENCE)
    entries = shop.entries(DENIED)
    assert len(entries) < 20
    counted = [event.data["count"] for event in records(shop, DENIED) if event.type.endswith(".folded")]
    assert sum(int(str(one)) for one in counted) + len(entries) - len(counted) == 200


def test_who_was_refused_learns_it_only_once_it_is_recorded(shop: Shop) -> None:
    shelf = Shelf(answering=False)
    asked = Permission(InForce(), shelf, PSEUDONYMS)
    appender = Appender(shop.ledger, shop.rows, asked, lambda _: None)
    pending = appender.append([Batch("order-1", [placed(1)])], Context.of(STRANGER))
    assert not pending.done()
    shelf.answer()
    with pytest.raises(Denied):
        pending.result(PATIENCE)


# reading the record is recorded


@pytest.fixture
def audited(shop: Shop) -> Shop:
    for number in range(3):
        shop.ledger.submit(plain_event(number, type="audit.access", stream="/audit/orders")).result(PATIENCE)
    return shop


def test_reading_the_record_is_recorded_before_it_is_shown(audited: Shop) -> None:
    items = iter(audited.store.read("/audit/orders", actor=Context(peer=OWNER, user=ANN)))
    first = next(items)
    assert isinstance(first.event, Untyped)
    [entry] = audited.entries(READS)
    assert entry.type == READ
    assert b"/audit/orders" in entry.public
    assert audited.pseudonyms.of("user", ANN.id).encode() in entry.meta


def test_many_reads_of_one_minute_are_one_entry_and_a_count(audited: Shop) -> None:
    for _ in range(50):
        audited.read("/audit/orders")
        audited.read("/audit/*", limit=2)
    assert [event.type for event in records(audited, READS)] == [READ, READ]
    audited.clock.advance(MINUTE)
    audited.read("/audit/orders")
    audited.again()
    counts = {str(event.data["stream"]): event.data for event in records(audited, READS) if event.type == COUNTED}
    assert counts["/audit/*"]["entries"] == 100
    assert [event.type for event in records(audited, READS)].count(READ) == 3


def test_reading_who_read_is_not_recorded_so_the_record_does_not_feed_on_itself(audited: Shop) -> None:
    audited.read("/audit/orders")
    size = audited.store.size
    for _ in range(3):
        audited.clock.advance(MINUTE)
        audited.read(READS)
    assert audited.store.size == size


def test_without_that_exception_each_read_makes_something_to_read(
    audited: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "is_recorded", lambda stream: stream.startswith(("/audit/", "/records/")))
    audited.read("/audit/orders")
    sizes = []
    for _ in range(3):
        audited.clock.advance(MINUTE)
        audited.read(READS)
        sizes.append(audited.store.size)
    assert sizes == sorted(set(sizes))


def test_what_cannot_be_recorded_is_not_shown(audited: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_event: Envelope) -> "Future[Receipt]":
        future: Future[Receipt] = Future()
        future.set_exception(RecordsError("HBK-703"))
        return future

    with monkeypatch.context() as patch:
        patch.setattr(audited.store.permission.recorder, "submit", failing)
        with pytest.raises(RecordsError):
            audited.read("/audit/orders")
    assert len(audited.read("/audit/orders")) == 3


def test_readers_that_are_counted_are_bounded(audited: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST", 4)
    for number in range(10):
        audited.read("/audit/*", actor=Context(peer=OWNER, user=Principal(Kind.USER, f"u{number}")))
    assert len(audited.store._reads._counts) <= 4
    assert [event.type for event in records(audited, READS)].count(READ) == 10


def test_reading_what_the_application_did_is_not_recorded(shop: Shop) -> None:
    shop.append("order-1", placed(1))
    shop.read("/*")
    assert shop.store.size == 1


# who is not who it was any more


def proven(**detail: object) -> Principal:
    return replace(OWNER, proof=Proof("mtls", detail))


@pytest.mark.parametrize("where", ["peer", "user", "via"])
def test_a_proof_that_has_expired_allows_nothing_whatever_was_allowed_before(shop: Shop, where: str) -> None:
    short = proven(serial="4f", expires=shop.clock.time() + 60)
    who = {
        "peer": Context(peer=short),
        "user": Context(peer=OWNER, user=replace(ANN, proof=short.proof)),
        "via": Context(peer=replace(OWNER, via=(short,))),
    }[where]
    shop.append("order-1", placed(1), actor=who)
    shop.clock.advance(60)
    for attempt in (
        lambda: shop.append("order-1", placed(2), actor=who),
        lambda: shop.read("order-1", actor=who),
        lambda: shop.store.erase("ann", actor=who, reason="asked").result(PATIENCE),
    ):
        with pytest.raises(Denied):
            attempt()
    assert shop.store.size == 1 + len(shop.entries(DENIED))


@pytest.mark.parametrize("expires", ["soon", float("nan"), [], 0])
def test_an_end_that_is_no_time_is_over(shop: Shop, expires: object) -> None:
    with pytest.raises(Denied):
        shop.append("order-1", placed(1), actor=proven(expires=expires))


@pytest.mark.parametrize("detail", [{}, {"serial": "4f"}, {"expires": None}, {"expires": 1e12}])
def test_a_proof_without_an_end_has_none(shop: Shop, detail: dict[str, object]) -> None:
    shop.append("order-1", placed(1), actor=proven(**detail))


def test_answers_are_kept_apart_by_certificate_and_by_who_stands_behind(shop: Shop) -> None:
    first = Context(peer=proven(serial="1"))
    for who in (
        first,
        Context(peer=proven(serial="2")),
        Context(peer=OWNER, user=replace(ANN, via=(CLERK,))),
        Context(peer=replace(OWNER, via=(ANN,)), user=CLERK),
        Context(peer=OWNER, user=ANN),
        first,
    ):
        shop.store.permission.decide(who, "read", "/streams/order-1")
    assert len(shop.policy.asked) == 5
