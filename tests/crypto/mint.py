"""Certificates and requests that an honest authority would never make, each wrong in one chosen way."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
NOW = datetime.fromtimestamp(1_800_000_000, UTC)  # where core.clock.ManualClock starts
DER = serialization.Encoding.DER
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
ID = "spiffe://example.org/ns/prod/sa/me"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def usage(*allowed: str) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in allowed for name in names})


@dataclass
class Signer:
    """A key and the certificate that goes with it."""

    key: Private
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(DER)


@dataclass(kw_only=True)
class Form:
    """What to put into a certificate; the defaults make a correct leaf.

    Args:
        uris: of the alternative name; empty for none.
        dns: DNS names beside them.
        names_critical: whether the alternative name is.
        subject: common name, empty for an empty subject.
        ca: basic constraints; None leaves them out.
        path_length: of a CA.
        uses: key usage; None leaves it out.
        uses_critical: whether it is.
        extended: extended key usage; empty leaves it out.
        start: seconds from now.
        end: seconds from now.
    """

    uris: Sequence[str] = (ID,)
    dns: Sequence[str] = ()
    names_critical: bool = True
    subject: str = ""
    ca: bool | None = False
    path_length: int | None = None
    uses: Sequence[str] | None = ("digital_signature",)
    uses_critical: bool = True
    extended: Sequence[x509.ObjectIdentifier] = BOTH
    start: float = -60.0
    end: float = 3600.0
    key: Private = field(default_factory=new_key)


def authority(uris: Sequence[str] = ("spiffe://example.org",), *, subject: str = "root", **more: object) -> Form:
    form = Form(uris=uris, subject=subject, ca=True, uses=("key_cert_sign", "crl_sign"), extended=(), end=86_400.0)
    form.names_critical = False
    for name, value in more.items():
        setattr(form, name, value)
    return form


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def mint(form: Form, by: Signer | None = None) -> Signer:
    """Return the certificate, signed by `by` or by itself."""
    issuer = by.certificate.subject if by else _name(form.subject)
    signer: Private = by.key if by else form.key
    public = form.key.public_key()
    builder = x509.CertificateBuilder(issuer, _name(form.subject), public, x509.random_serial_number())
    builder = builder.not_valid_before(NOW + timedelta(seconds=form.start))
    builder = builder.not_valid_after(NOW + timedelta(seconds=form.end))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    if by:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.certificate.public_key())  # type: ignore[arg-type]
        builder = builder.add_extension(identifier, critical=False)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in form.uris]
    names += [x509.DNSName(name) for name in form.dns]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=form.names_critical)
    if form.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(form.ca, form.path_length), critical=True)
    if form.uses is not None:
        builder = builder.add_extension(usage(*form.uses), critical=form.uses_critical)
    if form.extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(form.extended), critical=False)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Signer(form.key, builder.sign(signer, algorithm))


def request(*extensions: x509.ExtensionType, key: Private | None = None, subject: str = "") -> bytes:
    """Return a PKCS #10 request with any extensions, DER."""
    key = key or new_key()
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(subject))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(DER)


def uri_names(*uris: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
