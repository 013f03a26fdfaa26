"""SPIFFE trust domains and ids, exactly as the SPIFFE-ID standard (section 2) writes them.

An id is `spiffe://TRUST-DOMAIN/PATH`: trust domain `[a-z0-9.-_]`, at most 255 bytes; path segments `[A-Za-z0-9.-_]`,
none empty, `.` or `..`, no trailing slash; at most 2048 bytes; no percent-encoding, port, user, query or fragment.
Service ids have the one path form `/ns/NAMESPACE/sa/ACCOUNT` that Istio uses; nothing else is issued, because policies
match `namespaces` anywhere in the path and a second `ns` or `sa` segment would alias another namespace.
"""

import re

import msgspec

from hauberk.errors import IdentityError

MAX_ID_BYTES = 2048  # SPIFFE-ID section 2.3
MAX_TRUST_DOMAIN_BYTES = 255  # SPIFFE-ID section 2.1
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")
_SERVICE = re.compile(r"/ns/([A-Za-z0-9._-]+)/sa/([A-Za-z0-9._-]+)\Z")


def parse_trust_domain(text: str) -> str:
    """Return `text` if it is a trust domain name, without scheme.

    Raises:
        IdentityError: HBK-201.
    """
    if len(text) > MAX_TRUST_DOMAIN_BYTES or not _TRUST_DOMAIN.match(text):
        raise IdentityError("HBK-201", "not a trust domain name", text=text[:80])
    return text


class SpiffeId(msgspec.Struct, frozen=True, order=True):
    """A parsed SPIFFE id.

    Args:
        trust_domain: such as `example.org`.
        path: empty, or `/segment/segment`.
    """

    trust_domain: str
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """Parse the URI form.

        Raises:
            IdentityError: HBK-201.
        """
        if not text.startswith("spiffe://") or len(text) > MAX_ID_BYTES:  # what is not ASCII is refused below
            raise IdentityError("HBK-201", "wrong scheme or too long", text=text[:80])
        name, slash, rest = text[9:].partition("/")
        parse_trust_domain(name)
        if not slash:
            return cls(name)
        for segment in rest.split("/"):
            if not _SEGMENT.match(segment) or segment in {".", ".."}:
                raise IdentityError("HBK-201", "bad path segment", text=text[:80])
        return cls(name, "/" + rest)

    @classmethod
    def service(cls, trust_domain: str, namespace: str, account: str) -> "SpiffeId":
        """Build the id of a service account.

        Raises:
            IdentityError: HBK-201, also when a part holds a slash and would make a path of another form.
        """
        named = cls.parse(f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}")
        if named.namespace is None:
            raise IdentityError("HBK-201", "not a service id", text=str(named)[:80])
        return named

    @property
    def namespace(self) -> str | None:
        """The namespace of a service id, else None."""
        match = _SERVICE.match(self.path)
        return match.group(1) if match else None

    @property
    def account(self) -> str | None:
        """The service account of a service id, else None."""
        match = _SERVICE.match(self.path)
        return match.group(2) if match else None

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"
