"""The feed: what must stay fresh at every service. Named, numbered resources in signed messages.

A message carries the feed's number and a digest over everything that is in force at that number. A snapshot has
`base` 0 and carries every resource; a delta has the number it builds on and carries what changed since; a heartbeat is
a delta with nothing in it. So a receiver sees a gap (the digest does not come out) and silence (no message).
"""

from collections.abc import Iterable
from hashlib import sha256

import msgspec

POLICIES = "policies"
BUNDLES = "bundles"
REVOCATIONS = "revocations"
RENEWAL = "renewal"
HEARTBEAT = 1.0  # seconds between two messages at most, while anybody listens
LIFETIME = 30.0  # seconds a message may be under way; an older one is a replay


class Resource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that is in force.

    Args:
        name: such as `policies`.
        number: the feed's number at which it last changed.
        body: JSON, its form depends on the name.
    """

    name: str
    number: int
    body: bytes


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the authority signs.

    Args:
        trust_domain: whose feed this is.
        base: number it builds on, 0 for a snapshot.
        number: number after it.
        issued: Unix seconds.
        digest: of everything in force at `number`, see `digest_of`.
        resources: what changed.
    """

    trust_domain: str
    base: int
    number: int
    issued: float
    digest: bytes
    resources: tuple[Resource, ...] = ()


def digest_of(resources: Iterable[Resource]) -> bytes:
    """Return 32 bytes that pin names, numbers and bodies of all resources in force."""
    digest = sha256(b"hauberk feed state 1\n")
    for resource in sorted(resources, key=lambda resource: resource.name):
        name = resource.name.encode()
        digest.update(len(name).to_bytes(2) + name + resource.number.to_bytes(8) + sha256(resource.body).digest())
    return digest.digest()


class PolicyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `policies`.

    Args:
        text: YAML documents.
        root_namespace: whose policies apply everywhere.
        aliases: other names of the trust domain.
    """

    text: str
    root_namespace: str
    aliases: tuple[str, ...] = ()


class BundleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `bundles`: roots by trust domain, DER."""

    roots: dict[str, tuple[bytes, ...]]


class RevocationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `revocations`: SPIFFE ids, and serials in lower-case hex."""

    ids: tuple[str, ...] = ()
    serials: tuple[str, ...] = ()


class RenewalBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `renewal`: SVIDs issued before this moment (Unix seconds) are to be renewed at once."""

    issued_before: float = 0.0
