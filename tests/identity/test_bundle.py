"""Trust bundles in JSON and PEM: the go-spiffe vectors classified right, and domains that are never merged."""

import base64

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.clock import ManualClock
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.x509 import CertificateAuthority, WorkloadKey, verify_chain
from hauberk.errors import IdentityError
from hauberk.identity import bundle
from hauberk.identity.bundle import BundleSet, TrustBundle, parse_token_keys
from tests.core.refusal import refuses
from tests.crypto.mint import Form, authority, mint
from tests.support.vectors import vectors

CLOCK = ManualClock()
OURS = CertificateAuthority.create("example.org", clock=CLOCK)
THEIRS = CertificateAuthority.create("partner.org", clock=CLOCK)


def jwks(*keys: dict[str, object], **more: object) -> bytes:
    return msgspec.json.encode({"keys": keys, **more})


def root_key(der: bytes = OURS.root_der) -> dict[str, object]:
    return {"use": "x509-svid", "kty": "EC", "x5c": [base64.b64encode(der).decode()]}


PEM_VECTORS = {
    "empty.pem": None,  # a bundle that trusts nobody
    "cert.pem": "HBK-208",  # go-spiffe takes it, but it is no CA and could vouch for nothing
    "certs.pem": "HBK-208",
    "corrupted.pem": "HBK-202",
    "key.pem": "HBK-208",
    "not-pem.pem": "HBK-208",
}
JSON_VECTORS = {
    "spiffebundle_valid_1.json": (None, 1),
    "spiffebundle_valid_2.json": (None, 6),
    "spiffebundle_valid_with_wit.json": (None, 2),
    "spiffebundle_missing_kid.json": ("HBK-208", 0),
    "spiffebundle_multiple_x509.json": ("HBK-208", 0),
    "spiffebundle_no_keys.json": ("HBK-208", 0),
}
TOKEN_VECTORS = {"jwks_valid_1.json": 1, "jwks_valid_2.json": 2, "jwks_missing_kid.json": None}


def test_every_published_pem_bundle_is_classified_right() -> None:
    folder = vectors("go-spiffe", "bundle", "x509bundle", "testdata")
    assert {path.name for path in folder.iterdir()} == set(PEM_VECTORS)
    for name, code in PEM_VECTORS.items():
        pem = (folder / name).read_bytes()
        if code is None:
            assert TrustBundle.from_pem("domain.test", pem).roots == ()
        else:
            with refuses(code):
                TrustBundle.from_pem("domain.test", pem)


def test_every_published_json_bundle_is_classified_right() -> None:
    folder = vectors("go-spiffe", "bundle", "spiffebundle", "testdata")
    assert {path.name for path in folder.iterdir()} == set(JSON_VECTORS)
    for name, (code, tokens) in JSON_VECTORS.items():
        data = (folder / name).read_bytes()
        if code is None:
            found = TrustBundle.from_json("domain.test", data)
            assert (len(found.roots), len(found.jwt_keys)) == (1, tokens)
            assert TrustBundle.from_pem("domain.test", found.pem).roots == found.roots
        else:
            with refuses(code):
                TrustBundle.from_json("domain.test", data)


@pytest.mark.parametrize("kind", ["bundle/jwtbundle", "exp/bundle/witbundle"])
def test_every_published_set_of_token_keys_is_classified_right(kind: str) -> None:
    folder = vectors("go-spiffe", *kind.split("/"), "testdata")
    assert {path.name for path in folder.iterdir()} == set(TOKEN_VECTORS)
    for name, count in TOKEN_VECTORS.items():
        data = (folder / name).read_bytes()
        if count is None:
            with refuses("HBK-208"):
                parse_token_keys(data)
        else:
            assert len(parse_token_keys(data)) == count


def test_numbers_keys_of_other_uses_and_unknown_fields_are_read_as_the_standard_asks() -> None:
    found = TrustBundle.from_json(
        "example.org",
        jwks(
            root_key(), {"use": "other", "kty": "x"}, {"kty": "no use"}, spiffe_sequence=7, spiffe_refresh_hint=60, x=1
        ),
    )
    assert (found.roots, found.sequence, found.refresh_hint) == ((OURS.root_der,), 7, 60)
    plain = TrustBundle.from_json("example.org", jwks())
    assert (plain.roots, plain.sequence, plain.refresh_hint) == ((), None, None)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "HBK-208"),
        (b"null", "HBK-208"),
        (b"[]", "HBK-208"),
        (b"{}", "HBK-208"),
        (b'{"keys": null}', "HBK-208"),
        (b'{"keys": {}}', "HBK-208"),
        (b'{"keys": [1]}', "HBK-208"),
        (b'{"keys": ["\xff"]}', "HBK-208"),
        (b'{"keys":' + b"[" * 100_000, "HBK-208"),
        (b'{"unknown":' + b"[" * 100_000, "HBK-208"),
        (b'{"keys":[{"use":"jwt-svid","kid":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}", "HBK-208"),
        (jwks(spiffe_sequence=-1), "HBK-208"),
        (jwks(spiffe_refresh_hint=-1), "HBK-208"),
        (jwks(spiffe_sequence="1"), "HBK-208"),
        (jwks(spiffe_sequence=1.5), "HBK-208"),
        (jwks({"use": "x509-svid"}), "HBK-208"),
        (jwks({"use": "x509-svid", "x5c": []}), "HBK-208"),
        (jwks({"use": "x509-svid", "x5c": [1]}), "HBK-208"),
        (jwks({"use": "x509-svid", "x5c": ["not base64!"]}), "HBK-208"),
        (jwks({"use": "x509-svid", "x5c": ["AAAA"]}), "HBK-202"),
        (jwks({"use": "jwt-svid"}), "HBK-208"),
        (jwks({"use": "wit-svid", "kid": ""}), "HBK-208"),
        (jwks({"use": "jwt-svid", "kid": 1}), "HBK-208"),
        (jwks(root_key(mint(Form()).der)), "HBK-208"),
        (jwks(root_key(mint(authority(["spiffe://example.org/ns/a/sa/b"])).der)), "HBK-202"),
    ],
)
def test_what_is_no_bundle_is_refused_as_a_whole(data: bytes, code: str) -> None:
    with refuses(code):
        TrustBundle.from_json("example.org", data)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.text('{}[]":,keysx5cuse1', max_size=80).map(str.encode)))
def test_garbage_is_a_typed_refusal(data: bytes) -> None:
    with refuses("HBK-208"):
        TrustBundle.from_json("example.org", data if b'"keys"' not in data else b"")
    if data.strip():
        with pytest.raises(IdentityError) as caught:
            TrustBundle.from_pem("example.org", data)
        assert caught.value.code in {"HBK-202", "HBK-208"}
    with refuses("HBK-208"):
        parse_token_keys(data if b'"keys"' not in data else b"")


def test_a_pem_file_with_anything_but_whole_certificates_is_refused() -> None:
    key = WorkloadKey.generate().pem()
    for pem in (key, OURS.root_pem + key, key + OURS.root_pem, b"text only"):
        with refuses("HBK-208"):
            TrustBundle.from_pem("example.org", pem)
    for pem in (OURS.root_pem[:-30], OURS.root_pem + OURS.root_pem[:100]):
        with refuses("HBK-202"):
            TrustBundle.from_pem("example.org", pem)
    assert TrustBundle.from_pem("example.org", b"# ours\n" + OURS.root_pem).roots == (OURS.root_der,)


def test_oversized_bundles_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BUNDLE_BYTES", 1000)
    with refuses("HBK-208"):
        TrustBundle.from_json("example.org", jwks() + b" " * 1000)
    with refuses("HBK-208"):
        TrustBundle.from_pem("example.org", OURS.root_pem * 3)
    with refuses("HBK-208"):
        parse_token_keys(jwks() + b" " * 1000)


def test_a_bundle_has_a_valid_domain_and_each_root_once() -> None:
    assert TrustBundle.of("example.org", OURS.root_der, OURS.root_der).roots == (OURS.root_der,)
    for domain in ("", "Example.org", "spiffe://example.org"):
        with refuses("HBK-201"):
            TrustBundle.of(domain)
    with refuses("HBK-202"):
        TrustBundle.of("example.org", b"garbage")


def test_a_set_keeps_domains_apart_and_replaces_whole_bundles() -> None:
    ours, theirs = TrustBundle.of("example.org", OURS.root_der), TrustBundle.of("partner.org", THEIRS.root_der)
    both = BundleSet(ours, theirs)
    assert both.roots == {"example.org": (OURS.root_der,), "partner.org": (THEIRS.root_der,)}
    assert (both.get("example.org"), both.get("unknown.org"), len(both)) == (ours, None, 2)
    assert list(both) == [ours, theirs]
    swapped = both.with_bundle(TrustBundle.of("example.org", THEIRS.root_der))
    assert swapped.roots["example.org"] == (THEIRS.root_der,)
    assert both.roots["example.org"] == (OURS.root_der,)
    assert swapped != both == BundleSet(ours, theirs)
    assert hash(both) == hash(BundleSet(ours, theirs))
    assert dict(both.without("partner.org").roots) == {"example.org": (OURS.root_der,)}
    assert "BEGIN" not in repr(both)
    with pytest.raises(TypeError):
        both.roots["example.org"] = ()  # type: ignore[index]
    with refuses("HBK-208"):
        BundleSet(ours, ours)


def test_a_federated_partner_cannot_vouch_for_us_and_a_merged_set_would_let_it() -> None:
    me = SpiffeId.service("example.org", "prod", "me")
    forger = CertificateAuthority.create("example.org", clock=CLOCK)  # what a partner makes of its own accord
    forged = forger.issue(WorkloadKey.generate().request(None), me, clock=CLOCK)
    ours = TrustBundle.of("example.org", OURS.root_der)
    apart = BundleSet(ours, TrustBundle.of("partner.org", forger.root_der))
    with refuses("HBK-209"):
        verify_chain(forged.chain, apart.roots, at=CLOCK.time())
    merged = apart.with_bundle(TrustBundle.of("example.org", *ours.roots, forger.root_der))
    assert verify_chain(forged.chain, merged.roots, at=CLOCK.time()).spiffe_id == me


def test_a_domain_that_is_dropped_is_trusted_no_more() -> None:
    peer = SpiffeId.service("partner.org", "prod", "peer")
    svid = THEIRS.issue(WorkloadKey.generate().request(None), peer, clock=CLOCK)
    bundles = BundleSet(TrustBundle.of("partner.org", THEIRS.root_der))
    assert verify_chain(svid.chain, bundles.roots, at=CLOCK.time()).spiffe_id == peer
    with refuses("HBK-209"):
        verify_chain(svid.chain, bundles.without("partner.org").roots, at=CLOCK.time())
