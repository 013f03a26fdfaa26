"""X.509-SVIDs and requests: what the standard wants, and every go-spiffe vector classified right."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.clock import ManualClock
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.x509 import CertificateAuthority, WorkloadKey, parse_svid, public_key_verify, verify_chain
from hauberk.errors import HauberkError, IdentityError
from hauberk.identity.bundle import TrustBundle
from tests.support.vectors import vectors

ME = SpiffeId.service("example.org", "prod", "me")
CLOCK = ManualClock()


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("example.org", clock=CLOCK)


def refused(code: str, call: object, *arguments: object, **more: object) -> None:
    with pytest.raises(HauberkError) as caught:
        call(*arguments, **more)  # type: ignore[operator]
    assert caught.value.code == code


def test_an_issued_svid_is_one_and_verifies_against_its_own_domain_only(authority: CertificateAuthority) -> None:
    key = WorkloadKey.generate()
    svid = authority.issue(key.request(ME), ME, clock=CLOCK)
    assert parse_svid(svid.pem).spiffe_id == ME
    bundles = {"example.org": [authority.root_der], "other.org": [CertificateAuthority.create("other.org").root_der]}
    assert verify_chain(svid.chain, bundles, at=CLOCK.time()).serial == svid.serial
    refused("HBK-209", verify_chain, svid.chain, {"other.org": [authority.root_der]}, at=CLOCK.time())
    refused("HBK-209", verify_chain, svid.chain, bundles, at=CLOCK.time() + 3601)
    refused("HBK-209", verify_chain, svid.chain, bundles, at=CLOCK.time() - 61)


def test_a_ca_of_another_domain_cannot_vouch_for_us(authority: CertificateAuthority) -> None:
    rogue = CertificateAuthority.create("example.org", clock=CLOCK)
    stolen = rogue.issue(WorkloadKey.generate().request(ME), ME, clock=CLOCK)
    bundles = {"example.org": [authority.root_der], "evil.org": [rogue.root_der]}
    refused("HBK-209", verify_chain, stolen.chain, bundles, at=CLOCK.time())


def test_with_one_merged_store_the_same_certificate_would_be_believed(authority: CertificateAuthority) -> None:
    rogue = CertificateAuthority.create("example.org", clock=CLOCK)
    stolen = rogue.issue(WorkloadKey.generate().request(ME), ME, clock=CLOCK)
    merged = {"example.org": [authority.root_der, rogue.root_der]}
    assert verify_chain(stolen.chain, merged, at=CLOCK.time()).spiffe_id == ME


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (SpiffeId.service("example.org", "prod", "boss"), "HBK-212"),
        (SpiffeId.parse("spiffe://example.org/ns/prod/sa/me/ns/prod/sa/boss"), "HBK-212"),
        (SpiffeId.service("other.org", "prod", "me"), "HBK-212"),
    ],
)
def test_a_request_for_another_id_is_refused(authority: CertificateAuthority, asked: SpiffeId, code: str) -> None:
    refused(code, authority.issue, WorkloadKey.generate().request(asked), ME, clock=CLOCK)


def test_ids_that_would_alias_another_namespace_are_never_issued(authority: CertificateAuthority) -> None:
    double = SpiffeId.parse("spiffe://example.org/ns/prod/sa/x/ns/prod/sa/boss")
    refused("HBK-201", authority.issue, WorkloadKey.generate().request(None), double, clock=CLOCK)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_typed_refusal(data: bytes) -> None:
    authority = CertificateAuthority.create("example.org", clock=CLOCK)
    refused("HBK-203", authority.issue, data, ME, clock=CLOCK)
    refused("HBK-202", parse_svid, [data])


def test_a_request_with_a_flipped_bit_is_refused(authority: CertificateAuthority) -> None:
    request = bytearray(WorkloadKey.generate().request(ME))
    request[-1] ^= 1
    refused("HBK-203", authority.issue, bytes(request), ME, clock=CLOCK)


def test_signatures_are_of_the_key_and_the_message() -> None:
    authority, key = CertificateAuthority.create("example.org"), WorkloadKey.generate()
    svid = authority.issue(key.request(ME), ME)
    public_key_verify(svid.leaf_der, b"message", key.sign(b"message"))
    refused("HBK-214", public_key_verify, svid.leaf_der, b"another", key.sign(b"message"))


def test_private_keys_show_and_travel_nowhere(authority: CertificateAuthority) -> None:
    key = WorkloadKey.generate()
    assert "PRIVATE" not in repr(key)
    for secret in (key, authority):
        with pytest.raises(TypeError):
            pickle.dumps(secret)


def _good(name: str) -> bool:
    return not name.startswith(("wrong", "bad", "corrupt", "malformed", "missing", "invalid", "empty"))


def test_every_go_spiffe_certificate_is_classified_right() -> None:
    files = [path for path in vectors("go-spiffe").rglob("*.pem") if "x509svid" in path.parts]
    certificates = [path for path in files if b"BEGIN CERTIFICATE" in path.read_bytes()]
    assert len(certificates) >= 5
    wrong = []
    for path in certificates:
        try:
            parse_svid(path.read_bytes())
            accepted = True
        except IdentityError:
            accepted = False
        if accepted is not _good(path.name):
            wrong.append((path.name, accepted))
    assert wrong == []


def test_every_go_spiffe_bundle_is_classified_right() -> None:
    files = [path for path in vectors("go-spiffe").rglob("*.json") if "spiffebundle" in path.parts]
    assert files
    wrong = []
    for path in files:
        try:
            TrustBundle.from_json("example.org", path.read_bytes())
            accepted = True
        except IdentityError:
            accepted = False
        good = path.name.startswith(("spiffebundle_valid", "valid"))
        if accepted is not good:
            wrong.append((path.name, accepted))
    assert wrong == []
