"""Event (what a caller gives), entry (what is stored) and leaf (what is hashed into the tree).

The leaf is 154 bytes, big-endian; bit 0 of the flags says that a producer's statement covers the entry:

```
format 1 | flags 1 | position 8 | time ns 8 | stream version 8
| SHA-256(meta) 32 | SHA-256(public) 32 | SHA-256(sealed) 32 | key commitment 32
```

`meta` and `public` are kept as the exact bytes that were hashed. Position and version in the leaf stop relocation and
replay. `sealed` is ciphertext, so destroying its key, or the bytes, leaves every proof valid.
"""

import struct
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType

import msgspec

_NOTHING: Mapping[str, object] = MappingProxyType({})
_LEAF = struct.Struct(">BBQQQ32s32s32s32s")
LEAF_BYTES = _LEAF.size
LEAF_FORMAT = 1
ABSENT = sha256(b"").digest()  # digest of an empty part
NO_KEY = bytes(32)  # key commitment when nothing is sealed
SIGNED = 1  # flag: a producer signed the digests of this entry, see `records.statement`


class Private(msgspec.Struct, frozen=True, gc=False):
    """One value that is stored only under the key of the person it is about. It shows nothing in `repr()`.

    Args:
        path: of the field, such as `email`; part of what the seal is bound to.
        subject: whose it is, such as a customer's id; never stored in clear.
        value: the exact bytes to seal, JSON.
    """

    path: str
    subject: str
    value: bytes

    def __repr__(self) -> str:
        return f"Private({self.path!r})"


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # thousands wait in queues, none in a cycle
    """What a caller wants remembered.

    Args:
        id: UUIDv7, 16 bytes; writing the same id twice stores it once.
        type: such as `policy.denied` or `identity.issued`; dotted, lower-case.
        stream: such as `/services/production/payment-service`.
        time_ns: Unix nanoseconds.
        actor: a workload's SPIFFE id, or a pseudonym; never a plain user id or address.
        address: pseudonym of the address, or empty.
        outcome: `allow`, `deny`, `ok`, `failed`.
        code: `HBK-###` or empty.
        rule: policy rule id or empty.
        digest: hash of the policy set or empty.
        incident: incident id or empty.
        session: pseudonym of the session, or empty.
        correlation: id of the activity this is part of, or empty.
        causation: id of the event or call that led to this one, or empty.
        data: further clear facts; JSON types only.
        private: what is sealed under the keys of those it is about.
        alone: the producer signs this event by itself, not only as part of a batch; not stored.
    """

    id: bytes
    type: str
    stream: str
    time_ns: int
    actor: str = ""
    address: str = ""
    outcome: str = ""
    code: str = ""
    rule: str = ""
    digest: str = ""
    incident: str = ""
    session: str = ""
    correlation: str = ""
    causation: str = ""
    data: Mapping[str, object] = _NOTHING
    private: tuple[Private, ...] = ()
    alone: bool = False


class Leaf(msgspec.Struct, frozen=True):
    """The fixed header of one entry; see the module for the layout."""

    position: int
    time_ns: int
    version: int
    meta: bytes
    public: bytes
    sealed: bytes = ABSENT
    key: bytes = NO_KEY
    flags: int = 0

    def encode(self) -> bytes:
        """Return the 154 bytes."""
        return encode_leaf(
            self.position, self.time_ns, self.version, self.meta, self.public, self.sealed, self.key, self.flags
        )

    @classmethod
    def decode(cls, data: bytes) -> "Leaf":
        """Parse 154 bytes.

        Raises:
            ValueError: wrong length or format.
        """
        if len(data) != LEAF_BYTES or data[0] != LEAF_FORMAT:
            raise ValueError("not a leaf of format 1")
        _, flags, position, time_ns, version, meta, public, sealed, key = _LEAF.unpack(data)
        return cls(position, time_ns, version, meta, public, sealed, key, flags)


def encode_leaf(  # noqa: PLR0917  # one argument per field of a fixed binary layout, on the hottest path
    position: int,
    time_ns: int,
    version: int,
    meta: bytes,
    public: bytes,
    sealed: bytes = ABSENT,
    key: bytes = NO_KEY,
    flags: int = 0,
) -> bytes:
    """Return the 154 bytes of a leaf; `meta`, `public` and `sealed` are SHA-256 digests."""
    return _LEAF.pack(LEAF_FORMAT, flags, position, time_ns, version, meta, public, sealed, key)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What is stored at one position.

    Args:
        position: from 0, dense.
        id: event id, 16 bytes.
        stream: its stream.
        type: its type.
        version: from 1, dense within the stream.
        leaf: 154 bytes.
        meta: exact bytes hashed into the leaf.
        public: exact bytes hashed into the leaf.
        sealed: ciphertext, empty when there is none.
        statement: what the producer signed, on the first entry of those it covers; see `records.statement`.
    """

    position: int
    id: bytes
    stream: str
    type: str
    version: int
    leaf: bytes
    meta: bytes
    public: bytes
    sealed: bytes = b""
    statement: bytes = b""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Where an event is safe now.

    Args:
        event: event id, 16 bytes.
        position: in the ledger, or None while it is in the spool.
        where: `ledger`, `spool`, or `nowhere` (only with an `insecure_` setting).
    """

    event: bytes
    position: int | None
    where: str = "ledger"
