"""Receipts: files (c2sp.org/tlog-proof) that prove offline that one entry is in a log that witnesses have seen.

```
c2sp.org/tlog-proof@v1
extra AQAAGNdbhCPzAAAAAAAAAAAAAw==
index 2
Hqkik5SSjY8Gsb6KFKO44Vyhm9hN0AL3pA7FBEkjcAk=

example.org/ledger
3
...
```

After the first line: further data in base64, if there is any; the position; the audit path, the leaf's sibling first;
an empty line; the signed checkpoint. Whoever verifies has the event, that is its parts `meta`, `public` and `sealed`,
byte for byte. What the 154 bytes of the leaf hold beside them is in `extra`, big-endian:

```
format 1 | flags of the leaf 1 | withheld 1 | time ns 8 | stream version 8
| SHA-256(meta) 32 | SHA-256(public) 32 | SHA-256(sealed) 32, key commitment 32
```

The last line's fields are there only where the bit of `withheld` is set (1 meta, 2 public, 4 sealed): then the holder
may keep that part to itself, and nothing is proven of it. Nobody vouches for `extra` itself; what is wrong in it leads
to another leaf, which is not in the tree.
"""

import base64
import re
import struct
from collections.abc import Sequence
from enum import IntFlag
from hashlib import sha256
from typing import Protocol

import msgspec

from hauberk.core.event import NO_KEY, Entry, Leaf
from hauberk.crypto.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from hauberk.crypto.note import MAX_NOTE_BYTES, Verifier, unbase64
from hauberk.errors import RecordsError
from hauberk.records.log_policy import LogPolicy, Vouched, examine
from hauberk.records.sealed import commitment_of, unpack

HEADER = "c2sp.org/tlog-proof@v1"
SUFFIX = ".tlog-proof"
MAX_RECEIPT_BYTES = 2 * MAX_NOTE_BYTES  # its checkpoint, and as much before it
MAX_PATH = 64  # a tree of 64-bit size is no higher
EXTRA_FORMAT = 1
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})\Z")
_EXTRA = struct.Struct(">BBBQQ")
_CODE = "HBK-712"


class Part(IntFlag):
    """Parts of an entry that a receipt lets its holder withhold."""

    META = 1
    PUBLIC = 2
    SEALED = 4


NOTHING = Part(0)
_LENGTHS = {  # of the further data, by what is withheld
    bits: _EXTRA.size + HASH_BYTES * (bool(bits & Part.META) + bool(bits & Part.PUBLIC) + 2 * bool(bits & Part.SEALED))
    for bits in range(8)
}


class TlogProof(msgspec.Struct, frozen=True):
    """The file, taken apart. Nothing of it is to be believed before it was verified.

    Args:
        index: position of the entry.
        path: hashes, the leaf's sibling first.
        checkpoint: signed note, as it was.
        extra: further data; empty when there is none.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: str
    extra: bytes = b""

    def encode(self) -> str:
        """Return the file."""
        extra = f"extra {_base64(self.extra)}\n" if self.extra else ""
        path = "".join(f"{_base64(part)}\n" for part in self.path)
        return f"{HEADER}\n{extra}index {self.index}\n{path}\n{self.checkpoint}"

    @classmethod
    def parse(cls, text: str) -> "TlogProof":
        """Parse a file.

        Raises:
            RecordsError: HBK-712.
        """
        if len(text) > MAX_RECEIPT_BYTES:
            raise _bad("the receipt is too long")
        head, blank, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        if not blank or lines[0] != HEADER or not checkpoint:
            raise _bad("not a receipt")
        extra, at = b"", 1
        if len(lines) > 1 and lines[1].startswith("extra "):
            extra, at = _decoded(lines[1][len("extra ") :]), 2
        index = _INDEX.match(lines[at]) if len(lines) > at else None
        if index is None or (at > 1 and not extra):
            raise _bad("there is no index, or an extra line without data")
        path = tuple(_decoded(line) for line in lines[at + 1 :])
        if len(path) > MAX_PATH or any(len(part) != HASH_BYTES for part in path):
            raise _bad("the path is no list of hashes")
        return cls(int(index.group(1)), path, checkpoint, extra)


class _Proof(Protocol):
    """What `Ledger.proof` gives."""

    @property
    def position(self) -> int: ...
    @property
    def leaf(self) -> bytes: ...
    @property
    def path(self) -> Sequence[bytes]: ...
    @property
    def checkpoint(self) -> str: ...


class Shown(msgspec.Struct, frozen=True):
    """The parts of an event that are shown to a verifier, byte for byte as they are stored.

    Args:
        meta: who, what, when; None when it is withheld.
        public: further facts; None when they are withheld.
        sealed: ciphertext, empty when nothing was sealed; None when it is withheld.
    """

    meta: bytes | None
    public: bytes | None
    sealed: bytes | None = b""

    @classmethod
    def of(cls, entry: Entry) -> "Shown":
        """Return all parts of an entry."""
        return cls(entry.meta, entry.public, entry.sealed)


class Proven(msgspec.Struct, frozen=True):
    """What a receipt proves.

    Args:
        leaf: position, time, stream version, and digests of what was shown or withheld.
        vouched: the checkpoint it is under, and who cosigned that.
        withheld: parts that were not shown: nothing is proven of them but their digests.
    """

    leaf: Leaf
    vouched: Vouched
    withheld: Part


def write_receipt(proof: _Proof, *, withheld: Part = NOTHING, checkpoint: str = "") -> str:
    """Return the receipt of an entry.

    Args:
        proof: from `Ledger.proof`.
        withheld: parts the holder may keep to itself; each makes the receipt 43 or 86 characters longer.
        checkpoint: the same checkpoint with cosignatures, in place of the proof's.

    Raises:
        RecordsError: HBK-712 the leaf is none of ours.
    """
    try:
        leaf = Leaf.decode(proof.leaf)
    except ValueError:
        raise _bad("the leaf cannot be read") from None
    digests = {Part.META: leaf.meta, Part.PUBLIC: leaf.public, Part.SEALED: leaf.sealed + leaf.key}
    extra = _EXTRA.pack(EXTRA_FORMAT, leaf.flags, withheld, leaf.time_ns, leaf.version)
    extra += b"".join(digest for part, digest in digests.items() if part in withheld)
    return TlogProof(proof.position, tuple(proof.path), checkpoint or proof.checkpoint, extra).encode()


def verify_receipt(text: str, shown: Shown, policy: LogPolicy, *, logs: Sequence[Verifier] = ()) -> Proven:
    """Check that an event is in a log, under a checkpoint for which a policy holds.

    Args:
        text: of the receipt.
        shown: the event.
        policy: which logs and witnesses to believe.
        logs: further logs to accept, for a policy that lists none.

    Raises:
        RecordsError: HBK-712 with the reason: the receipt is malformed, a part is neither shown nor withheld, or this
            event is not in the tree; HBK-711 or HBK-723 as in `log_policy.examine`.
    """
    proof = TlogProof.parse(text)
    leaf = _leaf(proof, shown)
    vouched = examine(proof.checkpoint, policy, logs=logs)
    tree = vouched.checkpoint
    verify_inclusion(leaf_hash(leaf.encode()), proof.index, tree.size, proof.path, tree.root)
    parts = {Part.META: shown.meta, Part.PUBLIC: shown.public, Part.SEALED: shown.sealed}
    return Proven(leaf, vouched, Part(sum(part for part, data in parts.items() if data is None)))


def _leaf(proof: TlogProof, shown: Shown) -> Leaf:
    """Build the leaf this event has if the receipt is right."""
    extra = proof.extra
    if len(extra) < _EXTRA.size:
        raise _bad("the receipt does not say what the leaf is made of")
    kind, flags, withheld, time_ns, version = _EXTRA.unpack_from(extra)
    if kind != EXTRA_FORMAT or withheld not in _LENGTHS:
        raise _bad("the receipt is of another format")
    if len(extra) != _LENGTHS[withheld]:
        raise _bad("the receipt does not say what the leaf is made of")
    digests = extra[_EXTRA.size :]
    meta, digests = _digest(shown.meta, digests, withheld & Part.META)
    public, digests = _digest(shown.public, digests, withheld & Part.PUBLIC)
    sealed, digests = _digest(shown.sealed, digests, withheld & Part.SEALED)
    key = digests or _key(shown.sealed or b"")
    return Leaf(proof.index, time_ns, version, meta, public, sealed, key, flags)


def _digest(part: bytes | None, digests: bytes, withheld: int) -> tuple[bytes, bytes]:
    """Return the digest of a part, and what is left of those in the receipt."""
    if part is None and not withheld:
        raise _bad("a part of the event is not shown, and the receipt does not make up for it")
    shown = b"" if part is None else sha256(part).digest()
    if not withheld:
        return shown, digests
    if shown and shown != digests[:HASH_BYTES]:
        raise _bad("the event shown is another one")
    return digests[:HASH_BYTES], digests[HASH_BYTES:]


def _key(sealed: bytes) -> bytes:
    if not sealed:
        return NO_KEY
    try:
        return commitment_of(unpack(sealed)[0])
    except RecordsError:
        raise _bad("the sealed part cannot be read") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    try:
        return unbase64(text)
    except RecordsError:
        raise _bad("the receipt holds something that is not base64") from None


def _bad(why: str) -> RecordsError:
    return RecordsError(_CODE, why)
