"""Reading and validating X.509-SVIDs (SPIFFE X509-SVID sections 2 to 5, RFC 5280 section 6).

A leaf names exactly one SPIFFE id in its URI SAN, may sign handshakes and nothing else, and chains to a root of the
trust domain that its id names. `verify_chain` is given the bundles of all known domains and uses exactly one of them:
a root of domain B can never vouch for an id of domain A. Path building, signatures, validity and name constraints are
`cryptography.x509.verification` with its web PKI rules; what SPIFFE asks beyond them is checked here. Not here:
revocation (the feed carries it), files, sockets. Users import these names from `hauberk.crypto.x509`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from hauberk.core.spiffe import SpiffeId
from hauberk.errors import IdentityError

MAX_CHAIN = 5  # certificates a peer may send; our own authority sends one
MAX_CERTIFICATE_BYTES = 65_536  # a P-256 certificate has about 500, one with RSA 4096 about 2,000
RSA_MIN_BITS = 2048  # CA/Browser Forum baseline requirements, section 6.1.5
_CURVES = ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1  # section 6.1.5 too
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_CERTIFICATE = re.compile(_BEGIN + rb"[^-]+-----END CERTIFICATE-----")  # no base64 holds a dash: one pass, no way back
_LEAF_USES = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})
_DER = serialization.Encoding.DER
UNREADABLE = (  # what parsing X.509 raises, eagerly or later
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)
_Value = TypeVar("_Value", bound=x509.ExtensionType)


class SvidInfo(msgspec.Struct, frozen=True):
    """What a chain of certificates says, all of it public.

    Args:
        spiffe_id: the one id of the leaf.
        serial: of the leaf, lower-case hex.
        not_before: Unix seconds.
        not_after: Unix seconds.
        leaf_der: the leaf.
        chain: DER, leaf first, root left out.
        public_key: the leaf's SubjectPublicKeyInfo, DER.
    """

    spiffe_id: SpiffeId
    serial: str
    not_before: float
    not_after: float
    leaf_der: bytes
    chain: tuple[bytes, ...]
    public_key: bytes

    @property
    def pem(self) -> bytes:
        """The chain in PEM, leaf first."""
        return to_pem(self.chain)

    def __repr__(self) -> str:
        return f"SvidInfo({self.spiffe_id}, serial={self.serial})"


def parse_svid(chain: bytes | Sequence[bytes]) -> SvidInfo:
    """Read a chain and hold it against the X509-SVID standard; says nothing about who signed it.

    Args:
        chain: PEM text (blocks other than certificates are skipped), or DER certificates, leaf first.

    Raises:
        IdentityError: HBK-202, or HBK-201 when its URI is no SPIFFE id.
    """
    ders = from_pem(chain) if isinstance(chain, bytes) else tuple(chain)
    if not 1 <= len(ders) <= MAX_CHAIN:
        raise IdentityError("HBK-202", "wrong number of certificates", count=len(ders))
    leaf, *others = [load_der(der) for der in ders]
    _check_leaf(leaf)
    for certificate in others:
        _check_intermediate(certificate)
    return describe(leaf, ders)


def verify_chain(chain_der: Sequence[bytes], bundles: Mapping[str, Sequence[bytes]], *, at: float) -> SvidInfo:
    """Validate a peer's chain against the roots of the one trust domain its id names (X509-SVID section 5).

    Args:
        chain_der: what the peer sent, DER, leaf first.
        bundles: roots by trust domain, DER.
        at: Unix seconds at which everything has to be valid.

    Raises:
        IdentityError: HBK-202 no SVID, HBK-209 does not chain to its own domain, or not valid at that time.
    """
    info = parse_svid(chain_der)
    roots = bundles.get(info.spiffe_id.trust_domain, ())
    if not roots:
        raise IdentityError("HBK-209", "no bundle of that trust domain", spiffe_id=str(info.spiffe_id))
    store = verification.Store([load_der(root) for root in roots])
    builder = verification.PolicyBuilder().store(store).max_chain_depth(MAX_CHAIN).time(datetime.fromtimestamp(at, UTC))
    leaf, *others = [load_der(der) for der in info.chain]
    try:
        builder.build_client_verifier().verify(leaf, others)
    except verification.VerificationError as bad:
        raise IdentityError("HBK-209", str(bad)[:200], spiffe_id=str(info.spiffe_id)) from None
    return info


def public_key_verify(leaf_der: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature made with the key of a leaf: ECDSA with SHA-256 (DER), or Ed25519.

    Raises:
        IdentityError: HBK-214 wrong signature, HBK-202 unusable certificate.
    """
    key = load_der(leaf_der).public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            raise IdentityError("HBK-202", "a key of this type signs nothing here")
    except InvalidSignature:
        raise IdentityError("HBK-214", "signature does not fit") from None


def fingerprint(root_der: bytes) -> str:
    """Return the SHA-256 of a certificate's DER in lower-case hex."""
    return sha256(root_der).hexdigest()


def from_pem(pem: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a PEM text as DER, in order; other blocks are skipped.

    Raises:
        IdentityError: HBK-202 a certificate block is corrupt.
    """
    blocks = _CERTIFICATE.findall(pem)
    if len(blocks) != pem.count(_BEGIN):  # a cut-off block passed over would change who is trusted
        raise IdentityError("HBK-202", "a certificate block does not end")
    try:
        found = [x509.load_pem_x509_certificate(block) for block in blocks]
    except (ValueError, x509.InvalidVersion) as bad:
        raise IdentityError("HBK-202", str(bad)[:200]) from None
    return tuple(certificate.public_bytes(_DER) for certificate in found)


def to_pem(chain: Sequence[bytes]) -> bytes:
    """Return DER certificates as PEM, in the order given.

    Raises:
        IdentityError: HBK-202 one is no certificate.
    """
    return b"".join(load_der(der).public_bytes(serialization.Encoding.PEM) for der in chain)


def check_root(der: bytes) -> None:
    """Return if this certificate may sign others (RFC 5280 sections 4.2.1.3 and 4.2.1.9, X509-SVID section 3.2).

    Raises:
        IdentityError: HBK-208 it may not, HBK-202 it is no certificate or names a workload.
    """
    root = load_der(der)
    constraints, usage = _extension(root, x509.BasicConstraints), _extension(root, x509.KeyUsage)
    if constraints is None or not constraints.value.ca:
        raise IdentityError("HBK-208", "a root is no CA certificate")
    if usage is not None and not usage.value.key_cert_sign:
        raise IdentityError("HBK-208", "a root may not sign certificates")
    _check_signer_name(root)


def load_der(der: bytes) -> x509.Certificate:
    """Parse one certificate, its names, key and extensions included.

    Raises:
        IdentityError: HBK-202.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise IdentityError("HBK-202", "certificate too long", size=len(der))
    try:
        certificate = x509.load_der_x509_certificate(der)
        serial = certificate.serial_number
        # These are parsed lazily; a malformed one has to surface here.
        _ = list(certificate.extensions), list(certificate.subject), certificate.public_key()
    except UNREADABLE as bad:
        raise IdentityError("HBK-202", str(bad)[:200]) from None
    if serial <= 0:  # RFC 5280 section 4.1.2.2
        raise IdentityError("HBK-202", "the serial number is not positive")
    return certificate


def only_uri(certificate: x509.Certificate) -> SpiffeId:
    """Return the id of a certificate's one URI SAN (X509-SVID section 2).

    Raises:
        IdentityError: HBK-202 none or several, HBK-201 it is no SPIFFE id.
    """
    names = _extension(certificate, x509.SubjectAlternativeName)
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else []
    if len(uris) != 1:
        raise IdentityError("HBK-202", "exactly one URI name is needed", count=len(uris))
    return SpiffeId.parse(uris[0])


def describe(leaf: x509.Certificate, chain: tuple[bytes, ...]) -> SvidInfo:
    """Put what a leaf says into plain values.

    Raises:
        IdentityError: HBK-202 or HBK-201, see `only_uri`.
    """
    public = leaf.public_key().public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    start, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    return SvidInfo(only_uri(leaf), f"{leaf.serial_number:x}", start, end, chain[0], chain, public)


def _extension(certificate: x509.Certificate, kind: type[_Value]) -> x509.Extension[_Value] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _usage(certificate: x509.Certificate) -> x509.KeyUsage:
    found = _extension(certificate, x509.KeyUsage)
    if found is None or not found.critical:
        raise IdentityError("HBK-202", "key usage is missing or not critical")
    return found.value


def _check_leaf(leaf: x509.Certificate) -> None:
    """X509-SVID sections 3.2 (constraints), 4.3 (key usage), 4.4 (extended key usage), 2 (path of a leaf)."""
    usage, constraints = _usage(leaf), _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise IdentityError("HBK-202", "the leaf is a CA")
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise IdentityError("HBK-202", "the leaf's key usage is wrong")
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if extended is not None and not _LEAF_USES.issubset(extended.value):
        raise IdentityError("HBK-202", "extended key usage lacks server or client authentication")
    names = _extension(leaf, x509.SubjectAlternativeName)
    if names is not None and not names.critical and not list(leaf.subject):  # RFC 5280 section 4.2.1.6
        raise IdentityError("HBK-202", "subject is empty and its alternative name is not critical")
    if not _strong(leaf.public_key()):  # path validation looks at the keys of issuers only
        raise IdentityError("HBK-202", "the leaf's key is weak, or of an unknown kind")
    if not only_uri(leaf).path:
        raise IdentityError("HBK-202", "the leaf names a trust domain, not a workload")


def _strong(key: object) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= RSA_MIN_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, ed25519.Ed25519PublicKey)


def _check_intermediate(certificate: x509.Certificate) -> None:
    """X509-SVID sections 3.2, 4.1 and 4.3: a signing certificate is a CA, may sign, and names no workload."""
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.value.ca:
        raise IdentityError("HBK-202", "an intermediate is no CA")
    if not _usage(certificate).key_cert_sign:
        raise IdentityError("HBK-202", "an intermediate may not sign certificates")
    _check_signer_name(certificate)


def _check_signer_name(certificate: x509.Certificate) -> None:
    """X509-SVID section 3.2: a signing certificate need not be an SVID, but if it has an id that has no path."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    for uri in names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else ():
        if uri.lower().startswith("spiffe:") and SpiffeId.parse(uri).path:
            raise IdentityError("HBK-202", "a signing certificate names a workload")
