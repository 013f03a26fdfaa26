"""A small X.509 authority, workload keys and certificate requests (SPIFFE X509-SVID, RFC 5280, RFC 2986).

The authority of one trust domain signs leaves that name one service id and live an hour. A request proves possession
of its key and asks for nothing else: id, life and usage are the authority's decision. Private keys leave these objects
only through the methods named for it, and never through `repr` or pickle. What reads and validates chains is in
`crypto.svid` and is offered here too, so that users need one import.
"""

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.spiffe import SpiffeId, parse_trust_domain
from hauberk.crypto.svid import (
    RSA_MIN_BITS,
    UNREADABLE,
    SvidInfo,
    check_root,
    describe,
    fingerprint,
    from_pem,
    load_der,
    only_uri,
    parse_svid,
    public_key_verify,
    to_pem,
    verify_chain,
)
from hauberk.errors import ConfigError, IdentityError

__all__ = [
    "CertificateAuthority",
    "SvidInfo",
    "WorkloadKey",
    "check_root",
    "fingerprint",
    "from_pem",
    "make_csr",
    "parse_svid",
    "public_key_verify",
    "to_pem",
    "verify_chain",
]

LEAF_TTL = 3600.0  # seconds; short, so that a silent feed leaves a stolen key at most an hour
ROOT_TTL = 365 * 86_400.0  # seconds
BACKDATE = 60.0  # seconds a certificate starts in the past, so that a callee's slow clock does not refuse it
MAX_CSR_BYTES = 16_384  # a P-256 request has about 300
_LEAF_USES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
_DER = serialization.Encoding.DER
_PKCS8 = serialization.PrivateFormat.PKCS8
_PLAIN = serialization.NoEncryption()
_PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class WorkloadKey:
    """A workload's own P-256 key. It is made where it is used and never sent anywhere."""

    __slots__ = ("_key",)

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> "WorkloadKey":
        """Make a new key from the operating system's randomness."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> "WorkloadKey":
        """Read a PKCS #8 key.

        Raises:
            ConfigError: HBK-905 it is no plain EC key.
        """
        return cls(_ec_key(pem))

    def pem(self) -> bytes:
        """Return the secret key as PKCS #8 PEM, for `transport.contexts` and nobody else."""
        return self._key.private_bytes(serialization.Encoding.PEM, _PKCS8, _PLAIN)

    def sign(self, message: bytes) -> bytes:
        """Sign with ECDSA and SHA-256; the signature is DER (RFC 3279 section 2.2.3)."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    @property
    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo, DER; equals `SvidInfo.public_key` of an SVID issued for this key."""
        return self._key.public_key().public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def request(self, spiffe_id: SpiffeId | None) -> bytes:
        """Return a PKCS #10 request (RFC 2986) in DER, signed by this key; None asks for whatever id is ours."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        if spiffe_id is not None:
            builder = builder.add_extension(_uri_san(spiffe_id), critical=True)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(_DER)

    def __repr__(self) -> str:
        return "WorkloadKey(P-256)"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")


def make_csr(spiffe_id: SpiffeId, key: WorkloadKey) -> bytes:
    """Return a PKCS #10 request (RFC 2986) for this id, DER, signed by the key it is about."""
    return key.request(spiffe_id)


class CertificateAuthority:
    """The signer of one trust domain. Whoever makes one decides where its key is kept.

    Args:
        key: the P-256 signing key.
        root: its self-signed certificate.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, root: x509.Certificate) -> None:
        self._key = key
        self._root = root
        self.trust_domain = only_uri(root).trust_domain
        self.root_der = root.public_bytes(_DER)

    @classmethod
    def create(cls, trust_domain: str, *, ttl: float = ROOT_TTL, clock: Clock = SYSTEM_CLOCK) -> "CertificateAuthority":
        """Make a key and its root certificate, itself an SVID without path (X509-SVID section 3.1).

        Args:
            trust_domain: such as `example.org`.
            ttl: life of the root, in seconds.
            clock: what "now" is.

        Raises:
            IdentityError: HBK-201 no trust domain name.
        """
        uri = SpiffeId(parse_trust_domain(trust_domain))
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, trust_domain[:64])])  # RFC 5280 ub-common-name
        builder = _certificate(name, name, key.public_key(), clock.time() - BACKDATE, clock.time() + ttl)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(ca=True), critical=True)
        builder = builder.add_extension(_uri_san(uri), critical=False)
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def load(cls, key: bytes, cert: bytes) -> "CertificateAuthority":
        """Take up an authority made earlier.

        Args:
            key: PKCS #8, DER or PEM.
            cert: the root, DER or PEM.

        Raises:
            ConfigError: HBK-905 the key is unusable or belongs to another certificate.
            IdentityError: HBK-202 the certificate is unusable.
        """
        private = _ec_key(key)
        root = load_der(from_pem(cert)[0] if cert.startswith(b"-----BEGIN CERTIFICATE") else cert)
        check_root(root.public_bytes(_DER))
        if private.public_key() != root.public_key():
            raise ConfigError("HBK-905", "the CA key belongs to another certificate")
        return cls(private, root)

    @property
    def root_pem(self) -> bytes:
        """The root certificate in PEM."""
        return to_pem([self.root_der])

    @property
    def not_after(self) -> float:
        """When the root ends, Unix seconds."""
        return self._root.not_valid_after_utc.timestamp()

    def key_der(self) -> bytes:
        """Return the secret signing key as PKCS #8 DER, for sealing and nothing else."""
        return self._key.private_bytes(_DER, _PKCS8, _PLAIN)

    def issue(
        self, csr_der: bytes, spiffe_id: SpiffeId, *, ttl: float = LEAF_TTL, clock: Clock = SYSTEM_CLOCK
    ) -> SvidInfo:
        """Turn a request into an SVID; of the request only its key is taken over.

        Args:
            csr_der: PKCS #10, DER; if it names anything, it must be exactly `spiffe_id`.
            spiffe_id: a service id of this trust domain.
            ttl: life in seconds; never beyond the root's own end.
            clock: what "now" is.

        Raises:
            IdentityError: HBK-203 bad request, HBK-212 it names another id, HBK-201 not a service id of this domain.
        """
        if spiffe_id.trust_domain != self.trust_domain or spiffe_id.namespace is None:
            raise IdentityError("HBK-201", "not a service id of this trust domain", spiffe_id=str(spiffe_id))
        key = _checked_request(csr_der, spiffe_id)
        end = min(clock.time() + ttl, self.not_after)
        builder = _certificate(x509.Name([]), self._root.subject, key, clock.time() - BACKDATE, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(_LEAF_USES), critical=False)
        builder = builder.add_extension(_uri_san(spiffe_id), critical=True)  # because the subject is empty
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        leaf = builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())
        return describe(leaf, (leaf.public_bytes(_DER),))

    def __repr__(self) -> str:
        return f"CertificateAuthority({self.trust_domain!r})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: _PublicKey, start: float, end: float
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer_name=issuer, subject_name=subject, public_key=key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(_moment(start)).not_valid_after(_moment(max(start, end)))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _uri_san(spiffe_id: SpiffeId) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _checked_request(csr_der: bytes, spiffe_id: SpiffeId) -> _PublicKey:
    if len(csr_der) > MAX_CSR_BYTES:
        raise IdentityError("HBK-203", "request too long", size=len(csr_der))
    try:
        request = x509.load_der_x509_csr(csr_der)
        signed, key, extensions = request.is_signature_valid, request.public_key(), list(request.extensions)
    except UNREADABLE as bad:
        raise IdentityError("HBK-203", str(bad)[:200]) from None
    if not signed:
        raise IdentityError("HBK-203", "not signed by its own key")
    wanted = _uri_san(spiffe_id)
    if any(isinstance(it.value, x509.SubjectAlternativeName) and it.value != wanted for it in extensions):
        raise IdentityError("HBK-212", "the request names something else", spiffe_id=str(spiffe_id))
    return _acceptable(key)


def _acceptable(key: object) -> _PublicKey:
    """Only what every TLS stack takes later, so that a bad key is refused when it is asked for."""
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_MIN_BITS:
        return key
    raise IdentityError("HBK-203", "key type or size is not accepted")


def _ec_key(data: bytes) -> ec.EllipticCurvePrivateKey:
    load = serialization.load_pem_private_key if data.startswith(b"-----") else serialization.load_der_private_key
    try:
        key = load(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        raise ConfigError("HBK-905", "not a plain PKCS #8 key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("HBK-905", "not an EC key")
    return key
