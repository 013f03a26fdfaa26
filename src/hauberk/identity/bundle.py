"""Trust bundles: the roots of one trust domain (SPIFFE Trust Domain and Bundle, sections 3 and 4).

A `BundleSet` keeps one bundle per domain and offers no way to get all roots in one list for verification: whoever
verifies has to say whose id it is first. The JSON form is a JWK set; `x509-svid` keys carry one certificate in `x5c`,
`jwt-svid` and `wit-svid` keys carry a `kid`, keys of any other use are ignored, as the standard asks.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated

import msgspec

from hauberk.core.spiffe import parse_trust_domain
from hauberk.crypto.x509 import check_root, from_pem, to_pem
from hauberk.errors import IdentityError

MAX_BUNDLE_BYTES = 4 * 1024 * 1024  # a domain in the middle of a rotation has two roots of about 1 KiB
_NO_KEYS: Mapping[str, Mapping[str, object]] = MappingProxyType({})
_Natural = Annotated[int, msgspec.Meta(ge=0)]
# RecursionError is what msgspec raises for brackets nested thousands deep.
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Jwk(msgspec.Struct):
    use: str = ""
    kid: str = ""
    x5c: tuple[str, ...] = ()


class _Document(msgspec.Struct):
    keys: tuple[msgspec.Raw, ...] | None = None
    spiffe_sequence: _Natural | None = None
    spiffe_refresh_hint: _Natural | None = None


class TrustBundle(msgspec.Struct, frozen=True):
    """The roots of one trust domain.

    Args:
        trust_domain: such as `example.org`.
        roots: CA certificates, DER. Empty means that nobody of that domain is trusted.
        sequence: rises with each change, or None when the publisher does not number.
        refresh_hint: seconds after which to fetch again, or None.
        jwt_keys: JWKs by key id, for tokens.
    """

    trust_domain: str
    roots: tuple[bytes, ...]
    sequence: int | None = None
    refresh_hint: int | None = None
    jwt_keys: Mapping[str, Mapping[str, object]] = _NO_KEYS

    @classmethod
    def of(cls, trust_domain: str, *roots: bytes) -> "TrustBundle":
        """Build one from DER roots.

        Raises:
            IdentityError: HBK-201 bad domain name, HBK-202 or HBK-208 not a CA certificate.
        """
        for root in roots:
            check_root(root)
        return cls(parse_trust_domain(trust_domain), tuple(dict.fromkeys(roots)))

    @classmethod
    def from_pem(cls, trust_domain: str, pem: bytes) -> "TrustBundle":
        """Build one from a PEM file of roots; an empty file is a bundle that trusts nobody.

        Raises:
            IdentityError: HBK-208 text that is no PEM, or blocks other than certificates; HBK-202 a corrupt one.
        """
        if len(pem) > MAX_BUNDLE_BYTES:
            raise IdentityError("HBK-208", "bundle too large", size=len(pem))
        found = from_pem(pem)
        if len(found) != pem.count(b"-----BEGIN ") or (pem.strip() and not found):
            raise IdentityError("HBK-208", "not a PEM file of certificates only")
        return cls.of(trust_domain, *found)

    @classmethod
    def from_json(cls, trust_domain: str, data: bytes) -> "TrustBundle":
        """Parse the SPIFFE bundle format.

        Raises:
            IdentityError: HBK-208 not that format, HBK-202 a corrupt certificate.
        """
        document, keys = _decode(data)
        roots = tuple(_root(key) for key, _ in keys if key.use == "x509-svid")
        tokens = {key.kid: _fields(raw) for key, raw in keys if key.use == "jwt-svid"}
        if any(not key.kid for key, _ in keys if key.use in {"jwt-svid", "wit-svid"}):
            raise IdentityError("HBK-208", "a token key has no kid")
        bundle = cls.of(trust_domain, *roots)
        return msgspec.structs.replace(
            bundle, sequence=document.spiffe_sequence, refresh_hint=document.spiffe_refresh_hint, jwt_keys=tokens
        )

    @property
    def pem(self) -> bytes:
        """The roots in PEM."""
        return to_pem(self.roots)


def parse_token_keys(data: bytes) -> Mapping[str, Mapping[str, object]]:
    """Parse a plain JWK set of token keys and return it by key id.

    Raises:
        IdentityError: HBK-208 not a JWK set, or a key without `kid`.
    """
    _, keys = _decode(data)
    if any(not key.kid for key, _ in keys):
        raise IdentityError("HBK-208", "a token key has no kid")
    return MappingProxyType({key.kid: _fields(raw) for key, raw in keys})


class BundleSet:
    """Bundles by trust domain, never merged. Immutable.

    Args:
        bundles: at most one per domain.
    """

    __slots__ = ("_bundles", "roots")

    def __init__(self, *bundles: TrustBundle) -> None:
        self._bundles = {bundle.trust_domain: bundle for bundle in bundles}
        if len(self._bundles) != len(bundles):
            raise IdentityError("HBK-208", "two bundles of one trust domain")
        self.roots: Mapping[str, tuple[bytes, ...]] = MappingProxyType(
            {domain: bundle.roots for domain, bundle in self._bundles.items()}
        )

    def get(self, trust_domain: str) -> TrustBundle | None:
        """Return that domain's bundle, or None."""
        return self._bundles.get(trust_domain)

    def with_bundle(self, bundle: TrustBundle) -> "BundleSet":
        """Return a set in which `bundle` stands for its domain."""
        return BundleSet(*({**self._bundles, bundle.trust_domain: bundle}).values())

    def without(self, trust_domain: str) -> "BundleSet":
        """Return a set that no longer knows that domain."""
        return BundleSet(*(bundle for domain, bundle in self._bundles.items() if domain != trust_domain))

    def __iter__(self) -> Iterator[TrustBundle]:
        return iter(self._bundles.values())

    def __len__(self) -> int:
        return len(self._bundles)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BundleSet) and self._bundles == other._bundles

    def __hash__(self) -> int:
        return hash(tuple(self.roots.items()))

    def __repr__(self) -> str:
        return f"BundleSet({', '.join(sorted(self._bundles))})"


def _decode(data: bytes) -> tuple[_Document, list[tuple[_Jwk, msgspec.Raw]]]:
    if len(data) > MAX_BUNDLE_BYTES:
        raise IdentityError("HBK-208", "bundle too large", size=len(data))
    try:
        document = msgspec.json.decode(data, type=_Document)
        keys = [(msgspec.json.decode(raw, type=_Jwk), raw) for raw in document.keys or ()]
    except _MALFORMED as bad:
        raise IdentityError("HBK-208", str(bad)[:200]) from None
    if document.keys is None:
        raise IdentityError("HBK-208", "the keys parameter is missing")
    return document, keys


def _root(key: _Jwk) -> bytes:
    if len(key.x5c) != 1:
        raise IdentityError("HBK-208", "expected one certificate in x5c", count=len(key.x5c))
    try:
        return msgspec.json.decode(msgspec.json.encode(key.x5c[0]), type=bytes)  # strict base64
    except msgspec.DecodeError:
        raise IdentityError("HBK-208", "x5c is not base64") from None


def _fields(raw: msgspec.Raw) -> Mapping[str, object]:
    try:
        return MappingProxyType(msgspec.json.decode(raw, type=dict[str, object]))
    except _MALFORMED as bad:
        raise IdentityError("HBK-208", str(bad)[:200]) from None
