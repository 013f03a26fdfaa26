"""Each constraint of the X509-SVID standard, broken alone in a certificate that is right otherwise, is refused."""

import base64
import warnings
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.clock import ManualClock
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.svid import MAX_CERTIFICATE_BYTES, MAX_CHAIN, load_der
from hauberk.crypto.x509 import (
    CertificateAuthority,
    WorkloadKey,
    check_root,
    from_pem,
    parse_svid,
    public_key_verify,
    to_pem,
    verify_chain,
)
from hauberk.errors import HauberkError
from tests.core.refusal import refuses
from tests.crypto.mint import ID, Form, Signer, authority, mint, new_key, request, uri_names, usage

CLOCK = ManualClock()
ME = SpiffeId.parse(ID)
ROOT = mint(authority())
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505  # to see it refused
BUNDLES = {"example.org": [ROOT.der]}


def verify(*chain: Signer, bundles: dict[str, list[bytes]] | None = None) -> None:
    verify_chain([signer.der for signer in chain], bundles or BUNDLES, at=CLOCK.time())


@pytest.mark.parametrize(
    "form",
    [
        Form(),
        Form(extended=()),
        Form(dns=["me.example.org"]),
        Form(subject="me", names_critical=False),
        Form(uses=("digital_signature", "key_agreement", "key_encipherment")),
        Form(ca=None),
        Form(key=ec.generate_private_key(ec.SECP384R1())),
        Form(key=rsa.generate_private_key(65537, 2048)),
        Form(key=ed25519.Ed25519PrivateKey.generate()),
        Form(uris=["spiffe://example.org/any/other/path"]),
    ],
)
def test_what_the_standard_allows_is_accepted(form: Form) -> None:
    if form.extended:  # web PKI validation wants it where the standard only recommends it
        verify(mint(form, ROOT))
    assert str(parse_svid([mint(form, ROOT).der]).spiffe_id) == form.uris[0]


BROKEN = {
    "two URI names": (Form(uris=[ID, "spiffe://example.org/ns/prod/sa/boss"]), "HBK-202"),
    "the same URI name twice": (Form(uris=[ID, ID]), "HBK-202"),
    "a second URI name of another scheme": (Form(uris=[ID, "https://example.org/"]), "HBK-202"),
    "no URI name": (Form(uris=[], dns=["me.example.org"]), "HBK-202"),
    "no alternative name at all": (Form(uris=[], subject="me"), "HBK-202"),
    "a URI that is no SPIFFE id": (Form(uris=["https://example.org/ns/prod/sa/me"]), "HBK-201"),
    "a SPIFFE id with a port": (Form(uris=["spiffe://example.org:1/ns/prod/sa/me"]), "HBK-201"),
    "a SPIFFE id with an escape": (Form(uris=["spiffe://example.org/ns/prod/sa/m%65"]), "HBK-201"),
    "a SPIFFE id with dots": (Form(uris=["spiffe://example.org/ns/prod/../sa/me"]), "HBK-201"),
    "a trust domain without path": (Form(uris=["spiffe://example.org"]), "HBK-202"),
    "a CA as leaf": (Form(ca=True), "HBK-202"),
    "keyCertSign": (Form(uses=("digital_signature", "key_cert_sign")), "HBK-202"),
    "cRLSign": (Form(uses=("digital_signature", "crl_sign")), "HBK-202"),
    "no digitalSignature": (Form(uses=("key_agreement",)), "HBK-202"),
    "no key usage": (Form(uses=None), "HBK-202"),
    "key usage that is not critical": (Form(uses_critical=False), "HBK-202"),
    "server authentication only": (Form(extended=[ExtendedKeyUsageOID.SERVER_AUTH]), "HBK-202"),
    "client authentication only": (Form(extended=[ExtendedKeyUsageOID.CLIENT_AUTH]), "HBK-202"),
    "any extended key usage": (Form(extended=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), "HBK-202"),
    "empty subject and a name that is not critical": (Form(names_critical=False), "HBK-202"),
    "expired": (Form(start=-7200, end=-1), "HBK-209"),
    "not yet valid": (Form(start=1, end=7200), "HBK-209"),
    "RSA of 1024 bits": (Form(key=WEAK), "HBK-202"),
    "a curve without standing": (Form(key=ec.generate_private_key(ec.SECP256K1())), "HBK-202"),
    "a curve of 192 bits": (Form(key=ec.generate_private_key(ec.SECP192R1())), "HBK-202"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_leaf_that_breaks_one_rule_is_refused(what: str) -> None:
    form, code = BROKEN[what]
    leaf = mint(form, ROOT)
    with refuses(code):
        verify(leaf)
    if code != "HBK-209":  # a matter of the certificate alone, so already refused when it is read
        with refuses(code):
            parse_svid([leaf.der])


def test_an_intermediate_that_keeps_the_rules_is_followed() -> None:
    for uris in (["spiffe://example.org"], [], ["spiffe://parent.example"], ["https://ca.example.org/"]):
        middle = mint(authority(uris, subject="middle"), ROOT)
        verify(mint(Form(), middle), middle)


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (authority(["spiffe://example.org/ns/prod/sa/ca"], subject="m"), "HBK-202"),
        (authority(["spiffe://example.org", "spiffe://example.org/x"], subject="m"), "HBK-202"),
        (authority(["spiffe://example.org:1"], subject="m"), "HBK-201"),
        (authority(["SPIFFE://example.org/x"], subject="m"), "HBK-201"),
        (authority(subject="m", ca=False), "HBK-202"),
        (authority(subject="m", ca=None), "HBK-202"),
        (authority(subject="m", uses=("digital_signature",)), "HBK-202"),
        (authority(subject="m", uses=None), "HBK-202"),
        (authority(subject="m", uses_critical=False), "HBK-202"),
        (authority(subject="m", end=-1.0), "HBK-209"),
        (authority(subject="m", key=WEAK), "HBK-209"),
    ],
)
def test_an_intermediate_that_breaks_one_rule_is_refused(form: Form, code: str) -> None:
    middle = mint(form, ROOT)
    with refuses(code):
        verify(mint(Form(), middle), middle)


def test_a_path_length_is_kept() -> None:
    short = mint(authority(path_length=0, subject="short"))
    middle = mint(authority(subject="m"), short)
    with refuses("HBK-209"):
        verify(mint(Form(), middle), middle, bundles={"example.org": [short.der]})


def test_a_leaf_cannot_sign_another_leaf() -> None:
    stolen = mint(Form(), ROOT)
    forged = mint(Form(uris=["spiffe://example.org/ns/prod/sa/boss"]), stolen)
    for chain in ((forged,), (forged, stolen)):
        with pytest.raises(HauberkError) as caught:
            verify(*chain)
        assert caught.value.code in {"HBK-202", "HBK-209"}


def test_a_rogue_root_with_the_same_name_is_not_believed() -> None:
    rogue = mint(authority())
    with refuses("HBK-209"):
        verify(mint(Form(), rogue))
    with refuses("HBK-209"):
        verify(mint(Form(), rogue), rogue)
    with refuses("HBK-209"):
        verify(mint(Form(), rogue), ROOT)


def test_a_root_without_its_domain_in_the_bundles_vouches_for_nobody() -> None:
    with refuses("HBK-209"):
        verify(mint(Form(), ROOT), bundles={"other.org": [ROOT.der]})
    with refuses("HBK-209"):
        verify(mint(Form(), ROOT), bundles={"example.org": []})


def test_the_ca_of_another_domain_cannot_make_our_ids_though_both_are_trusted() -> None:
    partner = mint(authority(["spiffe://partner.org"], subject="partner"))
    forged = mint(Form(), partner)
    with refuses("HBK-209"):
        verify(forged, bundles={"example.org": [ROOT.der], "partner.org": [partner.der]})
    with refuses("HBK-209"):  # nor by sending its own root along
        verify(forged, partner, bundles={"example.org": [ROOT.der], "partner.org": [partner.der]})


def test_with_the_two_bundles_merged_the_same_forgery_is_believed() -> None:
    partner = mint(authority(["spiffe://partner.org"], subject="partner"))
    verify(mint(Form(), partner), bundles={"example.org": [ROOT.der, partner.der]})


def test_a_root_rotates_while_leaves_of_both_are_valid() -> None:
    fresh = mint(authority())
    both = {"example.org": [ROOT.der, fresh.der]}
    verify(mint(Form(), ROOT), bundles=both)
    verify(mint(Form(), fresh), bundles=both)
    with refuses("HBK-209"):
        verify(mint(Form(), ROOT), bundles={"example.org": [fresh.der]})


def test_the_number_and_size_of_certificates_are_bounded() -> None:
    leaf = mint(Form(), ROOT)
    with refuses("HBK-202"):
        parse_svid([])
    with refuses("HBK-202"):
        parse_svid([leaf.der] + [ROOT.der] * MAX_CHAIN)
    fat = mint(Form(dns=[f"{at:060}.example.org" for at in range(MAX_CERTIFICATE_BYTES // 60)]), ROOT)
    with refuses("HBK-202"):
        parse_svid([fat.der])


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (Form(), "HBK-208"),
        (authority(ca=None), "HBK-208"),
        (authority(uses=("digital_signature",)), "HBK-208"),
        (authority(["spiffe://example.org/ns/prod/sa/me"]), "HBK-202"),
        (authority(["spiffe://example.org:1"]), "HBK-201"),
    ],
)
def test_what_may_not_sign_is_no_root(form: Form, code: str) -> None:
    with refuses(code):
        check_root(mint(form).der)


def test_a_root_without_key_usage_or_id_is_one() -> None:
    for form in (authority(), authority(uses=None), authority([])):
        check_root(mint(form).der)


def test_a_certificate_block_that_does_not_end_is_not_passed_over() -> None:
    chain = to_pem([mint(Form(), ROOT).der, ROOT.der])
    assert len(from_pem(chain)) == 2
    for cut in (chain[:-40], chain.replace(b"-----END", b"----END", 1), chain[:200] + chain[-400:]):
        with refuses("HBK-202"):
            from_pem(cut)
    assert from_pem(b"") == from_pem(b"no PEM at all") == ()


def test_a_flood_of_opening_lines_costs_one_pass() -> None:
    """Were each opening line searched to the end of the text, this would take minutes."""
    with refuses("HBK-202"):
        from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n" * 60_000)


def code_of(attempt: Callable[[], object]) -> str:
    """Return the code of the refusal, empty when there is none; any other error is the caller's."""
    try:
        attempt()
    except HauberkError as refused:
        return refused.code
    return ""


def _changed(data: bytes) -> list[bytes]:
    """Every byte changed in four ways."""
    return [
        data[:at] + bytes([byte]) + data[at + 1 :]
        for at, was in enumerate(data)
        for byte in {0, 0xFF, was ^ 1, was ^ 0x80} - {was}
    ]


def test_no_changed_byte_of_a_certificate_is_believed_or_escapes_as_another_error() -> None:
    leaf = mint(Form(), ROOT)
    body = leaf.certificate.tbs_certificate_bytes
    for der in _changed(leaf.der):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # serial numbers below one
            pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
            attempts: list[Callable[[], object]] = [
                lambda der=der: check_root(der),  # type: ignore[misc]
                lambda pem=pem: parse_svid(pem),  # type: ignore[misc]
                lambda der=der: public_key_verify(der, b"message", b"signature"),  # type: ignore[misc]
            ]
            assert {code_of(attempt) for attempt in attempts} <= {"", "HBK-201", "HBK-202", "HBK-208", "HBK-214"}
            code = code_of(lambda der=der: verify_chain([der], BUNDLES, at=CLOCK.time()))  # type: ignore[misc]
            # Only the wrapping around an untouched, signed body may have a second spelling.
            assert code in {"HBK-201", "HBK-202", "HBK-209"} or load_der(der).tbs_certificate_bytes == body


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_garbage_is_a_typed_refusal(data: bytes, armoured: bool) -> None:  # noqa: FBT001  # drawn by name
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----\n"
    with refuses("HBK-202"):
        parse_svid(text if armoured else [data])
    with refuses("HBK-202"):
        check_root(data)


# requests


@pytest.fixture(scope="module")
def ca() -> CertificateAuthority:
    return CertificateAuthority.create("example.org", clock=CLOCK)


def test_a_request_that_names_nobody_gets_what_the_authority_decides(ca: CertificateAuthority) -> None:
    svid = ca.issue(WorkloadKey.generate().request(None), ME, clock=CLOCK)
    assert parse_svid(svid.pem) == svid
    verify_chain(svid.chain, {"example.org": [ca.root_der]}, at=CLOCK.time())


def test_whatever_else_a_request_asks_for_is_not_in_the_certificate(ca: CertificateAuthority) -> None:
    greedy = request(
        uri_names(ID),
        x509.BasicConstraints(ca=True, path_length=None),
        usage("digital_signature", "key_cert_sign"),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
        subject="administrator",
    )
    svid = ca.issue(greedy, ME, clock=CLOCK)
    leaf, other = load_der(svid.leaf_der), load_der(ca.issue(request(), ME, clock=CLOCK).leaf_der)
    assert [(it.oid, it.critical) for it in leaf.extensions] == [(it.oid, it.critical) for it in other.extensions]
    assert not list(leaf.subject)
    assert parse_svid(svid.chain).spiffe_id == ME


@pytest.mark.parametrize(
    "uris",
    [
        ["spiffe://example.org/ns/prod/sa/boss"],
        [ID, "spiffe://example.org/ns/prod/sa/boss"],
        ["spiffe://example.org/ns/prod/sa/me/ns/core/sa/boss"],
        ["spiffe://example.org/ns/prod/ns/core/sa/me"],
        ["spiffe://other.org/ns/prod/sa/me"],
        ["SPIFFE://example.org/ns/prod/sa/me"],
        ["https://example.org/"],
    ],
)
def test_a_request_for_any_other_name_is_refused(ca: CertificateAuthority, uris: list[str]) -> None:
    with refuses("HBK-212"):
        ca.issue(request(uri_names(*uris)), ME, clock=CLOCK)


def test_a_name_of_another_kind_beside_the_right_one_is_refused(ca: CertificateAuthority) -> None:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(ID), x509.DNSName("bank.example")])
    with refuses("HBK-212"):
        ca.issue(request(names), ME, clock=CLOCK)


@pytest.mark.parametrize(
    "spiffe_id",
    [
        "spiffe://other.org/ns/prod/sa/me",
        "spiffe://example.org",
        "spiffe://example.org/me",
        "spiffe://example.org/ns/prod/sa/me/ns/core/sa/boss",
        "spiffe://example.org/ns/prod/sa/me/extra",
    ],
)
def test_only_service_ids_of_its_own_domain_are_issued(ca: CertificateAuthority, spiffe_id: str) -> None:
    with refuses("HBK-201"):
        ca.issue(request(), SpiffeId.parse(spiffe_id), clock=CLOCK)


@pytest.mark.parametrize(
    "key",
    [
        WEAK,
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_a_key_that_could_not_be_used_later_is_refused_at_once(
    ca: CertificateAuthority, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
) -> None:
    with refuses("HBK-203"):
        ca.issue(request(key=key), ME, clock=CLOCK)


def test_an_oversized_request_is_refused_unread(ca: CertificateAuthority) -> None:
    with refuses("HBK-203"):
        ca.issue(request(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(20_000))), ME, clock=CLOCK)


def test_no_changed_byte_of_a_request_is_believed_or_escapes_as_another_error(ca: CertificateAuthority) -> None:
    csr = request(uri_names(ID))
    body = x509.load_der_x509_csr(csr).tbs_certrequest_bytes
    for der in _changed(csr):
        code = code_of(lambda der=der: ca.issue(der, ME, clock=CLOCK))  # type: ignore[misc]
        assert code == "HBK-203" or x509.load_der_x509_csr(der).tbs_certrequest_bytes == body


def test_a_request_signed_by_another_key_is_refused(ca: CertificateAuthority) -> None:
    """Whoever could get a certificate for a key that is not theirs could pass another's messages off as their own."""
    mine, victim = request(), request()
    body = x509.load_der_x509_csr(victim).tbs_certrequest_bytes
    swapped = mine.replace(x509.load_der_x509_csr(mine).tbs_certrequest_bytes, body)
    assert body in swapped
    with refuses("HBK-203"):
        ca.issue(swapped, ME, clock=CLOCK)


def test_life_is_what_was_asked_but_never_beyond_the_root() -> None:
    clock = ManualClock()
    ca = CertificateAuthority.create("example.org", ttl=1000, clock=clock)
    svid = ca.issue(request(), ME, ttl=600, clock=clock)
    assert (svid.not_before, svid.not_after) == (clock.time() - 60, clock.time() + 600)
    assert ca.issue(request(), ME, ttl=9_999, clock=clock).not_after == ca.not_after == clock.time() + 1000


# authorities and keys


def test_an_authority_is_taken_up_with_its_own_key_only(ca: CertificateAuthority) -> None:
    for cert in (ca.root_der, ca.root_pem):
        assert CertificateAuthority.load(ca.key_der(), cert).trust_domain == "example.org"
    with refuses("HBK-905"):
        CertificateAuthority.load(WorkloadKey.generate().pem(), ca.root_der)
    for key in (b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with refuses("HBK-905"):
            CertificateAuthority.load(key, ca.root_der)
    for cert in (b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n", ca.root_pem[:-40]):
        with refuses("HBK-202"):
            CertificateAuthority.load(ca.key_der(), cert)


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (Form(), "HBK-208"),
        (authority([]), "HBK-202"),
        (authority(["spiffe://example.org", "spiffe://other.org"]), "HBK-202"),
        (authority(["spiffe://example.org/ns/prod/sa/ca"]), "HBK-202"),
    ],
)
def test_an_authority_has_a_root_that_names_one_trust_domain(form: Form, code: str) -> None:
    made = mint(form)
    key = WorkloadKey(made.key).pem()  # type: ignore[arg-type]
    with refuses(code):
        CertificateAuthority.load(key, made.der)


def test_a_trust_domain_that_is_none_has_no_authority() -> None:
    for name in ("", "Example.org", "spiffe://example.org", "a" * 256):
        with refuses("HBK-201"):
            CertificateAuthority.create(name)
    assert CertificateAuthority.create("a" * 255, clock=CLOCK).trust_domain == "a" * 255


def test_keys_of_another_type_or_under_a_password_are_refused() -> None:
    key = WorkloadKey.generate()
    assert WorkloadKey.from_pem(key.pem()).public_key == key.public_key
    other = ed25519.Ed25519PrivateKey.generate().private_bytes_raw()
    for pem in (b"", other, key.pem()[:60]):
        with refuses("HBK-905"):
            WorkloadKey.from_pem(pem)


def test_a_signature_is_checked_with_the_leafs_key_whatever_the_bytes() -> None:
    leaf = mint(Form(key=new_key()), ROOT)
    for signature in (b"", b"garbage", bytes(64)):
        with refuses("HBK-214"):
            public_key_verify(leaf.der, b"message", signature)
    rsa_leaf = mint(Form(key=rsa.generate_private_key(65537, 2048)), ROOT)
    with refuses("HBK-202"):
        public_key_verify(rsa_leaf.der, b"message", b"")
