"""What travels between authority, services and the command line, in JSON unless said otherwise. Bytes are base64.

An unknown field is an error on both sides: whoever sends one means something that the reader would pass over.
What carries a secret shows nothing in `repr()`.
"""

from collections.abc import Mapping

import msgspec


class JoinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/join`: a token's secret and a PKCS #10 request in DER."""

    secret: bytes
    csr: bytes

    def __repr__(self) -> str:
        return "JoinRequest()"


class AttestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/attest` over the workload socket: a PKCS #10 request in DER; `entry` chooses among several."""

    csr: bytes
    entry: str | None = None


class HandoverRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/handover` over the workload socket."""

    entry: str | None = None


class RenewRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/renew` over mutual TLS: a PKCS #10 request in DER."""

    csr: bytes


class TokenReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A join token's text."""

    token: str

    def __repr__(self) -> str:
        return "TokenReply()"


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a workload gets for its request. Nothing in it is secret but the pseudonym key.

    Args:
        chain: SVID, DER, leaf first.
        roots: by trust domain, DER.
        labels: of its entry.
        feed_key: Ed25519 public key of the feed, 32 bytes.
        pseudonym_key: 32 bytes; all services of the domain use the same.
        address: `HOST:PORT` of the authority.
        root_namespace: of policies.
        aliases: other names of the trust domain.
    """

    chain: tuple[bytes, ...]
    roots: dict[str, tuple[bytes, ...]]
    labels: dict[str, str]
    feed_key: bytes
    pseudonym_key: bytes
    address: str
    root_namespace: str
    aliases: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Grant(address={self.address!r})"


class BatchReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/records` (msgpack batch in the body): positions in the ledger, in order."""

    positions: tuple[int, ...]


class EntryForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /admin/entries`."""

    name: str
    namespace: str
    account: str
    selectors: tuple[str, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    ttl: float | None = None


class TokenForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /admin/tokens`; `ttl` in seconds."""

    entry: str
    ttl: float | None = None


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a push."""

    name: str
    text: str


class PolicyForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /admin/policies`."""

    files: tuple[PolicyFile, ...]
    force: bool = False
    replace: bool = False


class PolicyName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /admin/policies/remove`."""

    kind: str
    namespace: str
    name: str


class RevokeForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /admin/revocations`; `restore` takes revocations back."""

    ids: tuple[str, ...] = ()
    serials: tuple[str, ...] = ()
    restore: bool = False


class RotationForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /admin/roots`: `prepare`, `activate` or `finish`; `force` although somebody is cut off."""

    step: str
    force: bool = False
