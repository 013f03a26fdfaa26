"""Entries of one page against their leaves, a column at a time.

`fitting` accepts a page, or does not; it never says why. Whatever it does not accept is looked at entry by entry by
`check_entry`, which is the rule: the quick way accepts nothing that this would refuse.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import sha256
from itertools import repeat

import msgspec

from hauberk.core.event import ABSENT, LEAF_BYTES, NO_KEY, SIGNED, Entry, Leaf
from hauberk.errors import RecordsError
from hauberk.records._encode import Meta, decode_event
from hauberk.records.sealed import commitment_of, unpack
from hauberk.records.verify.hashing import hash_each
from hauberk.records.verify.report import Kind, tampered

Elsewhere = Callable[[int], bytes | None]
Row = tuple[int, bytes, str, str, int, bytes, bytes, bytes, bytes, bytes]  # the fields of an entry, in their order
_POSITION, _VERSION = 2, 18  # where these begin in a leaf, 8 bytes each
_BODY = slice(26, None)  # of a leaf: digests and key commitment
_NOTHING_SEALED = ABSENT + NO_KEY
_EMPTY = {b""}
_FLAGS = b"\x00\x01"  # the values of a leaf's flags that are known
_read_public = msgspec.json.Decoder(dict[str, object]).decode


class _Meta(Meta, frozen=True, forbid_unknown_fields=True, gc=False):
    """The same, for thousands that are made and forgotten."""


_read_meta = msgspec.json.Decoder(_Meta).decode
_MISFITS = (TypeError, ValueError, AttributeError, struct.error, RecursionError, RecordsError)


class Page:
    """The columns of neighbouring entries.

    Args:
        rows: at least one.

    Raises:
        ValueError: a row has another number of fields.
    """

    __slots__ = (
        "ids", "leaves", "metas", "positions", "publics", "rows", "sealed", "statements", "streams", "types",
        "versions",
    )  # fmt: skip

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        (
            self.positions, self.ids, self.streams, self.types, self.versions, self.leaves, self.metas, self.publics,
            self.sealed, self.statements,
        ) = zip(*rows, strict=True)  # fmt: skip

    def entry(self, index: int) -> Entry:
        """Return one of them."""
        return Entry(*self.rows[index])

    @property
    def flags(self) -> bytes:
        """One byte for each entry; only of a page that fits."""
        return b"".join(self.leaves)[1::LEAF_BYTES]


def fitting(page: Page, at: int, seen: AbstractSet[bytes], versions: Mapping[str, int]) -> Mapping[str, int] | None:
    """Return the new versions of the page's streams if every entry is exactly what the rule asks, else None.

    Args:
        page: the entries.
        at: position of the first.
        seen: ids of all entries before.
        versions: of all streams before; 0 for those there are not.
    """
    try:
        if not (_headed(page, at) and _digested(page) and _read(page) and _new(page, seen)):
            return None
    except _MISFITS:
        return None
    return _following(page, versions)


def _headed(page: Page, at: int) -> bool:
    """Compare format, flags, position and version of all leaves at once: every 154th byte is the same of another."""
    count = len(page.leaves)
    joined = b"".join(page.leaves)
    if page.positions != tuple(range(at, at + count)) or len(joined) != count * LEAF_BYTES:
        return False
    positions, versions = struct.pack(f">{count}Q", *page.positions), struct.pack(f">{count}Q", *page.versions)
    return (
        joined[::LEAF_BYTES] == b"\x01" * count
        and not joined[1::LEAF_BYTES].strip(_FLAGS)
        and all(joined[_POSITION + k :: LEAF_BYTES] == positions[k::8] for k in range(8))
        and all(joined[_VERSION + k :: LEAF_BYTES] == versions[k::8] for k in range(8))
    )


def _digested(page: Page) -> bool:
    """Compare the digests and the key commitment. With this a leaf has its length: the body is all there is behind."""
    sealed = set(page.sealed)
    if sealed != _EMPTY and set(map(type, sealed)) != {bytes}:
        return False
    tails = repeat(_NOTHING_SEALED) if sealed == _EMPTY else map(_tail, page.sealed)
    parts = zip(hash_each(page.metas), hash_each(page.publics), tails)  # noqa: B905  # one of them may have no end
    return [meta + public + tail for meta, public, tail in parts] == [leaf[_BODY] for leaf in page.leaves]


def _tail(sealed: bytes) -> bytes:
    return sha256(sealed).digest() + commitment_of(unpack(sealed)[0]) if sealed else _NOTHING_SEALED


def _read(page: Page) -> bool:
    """Read the JSON, and compare what is also a column."""
    metas = list(map(_read_meta, page.metas))
    for public in page.publics:
        _read_public(public)
    return (
        [meta.id for meta in metas] == list(map(bytes.hex, page.ids))
        and tuple([meta.stream for meta in metas]) == page.streams
        and tuple([meta.type for meta in metas]) == page.types
        and set(map(type, page.statements)) == {bytes}
    )


def _new(page: Page, seen: AbstractSet[bytes]) -> bool:
    return len(set(page.ids)) == len(page.ids) and seen.isdisjoint(page.ids)


def _following(page: Page, versions: Mapping[str, int]) -> Mapping[str, int] | None:
    ahead: dict[str, int] = {}
    for stream, version in zip(page.streams, page.versions, strict=True):
        if version != (ahead[stream] if stream in ahead else versions[stream]) + 1:
            return None
        ahead[stream] = version
    return ahead


def check_entry(entry: Entry, at: int, seen: AbstractSet[bytes], elsewhere: Elsewhere) -> None:
    """Check one entry against its leaf and its place. The stream's version is left to the caller.

    Args:
        entry: as the store has it.
        at: the position that comes next.
        seen: ids of all entries before.
        elsewhere: returns the leaf that is stored at another position, or None; only to tell what was done.

    Raises:
        Tampered: HBK-710.
    """
    parts = (entry.id, entry.leaf, entry.meta, entry.public, entry.sealed, entry.statement)
    if any(not isinstance(part, bytes) for part in parts):
        raise tampered(Kind.UNREADABLE, "an entry holds something that is no bytes", at)
    try:
        leaf = Leaf.decode(entry.leaf)
        event = decode_event(entry.meta, entry.public)
    except (ValueError, RecordsError) as error:
        raise tampered(Kind.UNREADABLE, "an entry cannot be read", at) from error
    if leaf.position != at:
        raise tampered(_moved(leaf, entry.id in seen, at, elsewhere), "the leaf is of another position", at)
    facts = {
        "the meta part was changed": leaf.meta == sha256(entry.meta).digest(),
        "the public part was changed": leaf.public == sha256(entry.public).digest(),
        "the sealed part was changed": leaf.sealed == sha256(entry.sealed).digest(),
        "the version differs from the leaf's": leaf.version == entry.version and type(entry.version) is int,
    }
    for why, holds in facts.items():
        if not holds:
            raise tampered(Kind.EDITED, why, at)
    if (event.id, event.stream, event.type) != (entry.id, entry.stream, entry.type):
        kind = Kind.EDITED if event.stream == entry.stream else Kind.RELOCATED
        raise tampered(kind, "a column differs from the meta part", at)
    if entry.id in seen:
        raise tampered(Kind.REPLAYED, "an event was replayed", at)
    if leaf.flags & ~SIGNED:
        raise tampered(Kind.UNREADABLE, "the leaf has unknown flags", at)
    _check_key(entry, leaf)


def _check_key(entry: Entry, leaf: Leaf) -> None:
    try:
        commitment = commitment_of(unpack(entry.sealed)[0])
    except RecordsError as error:
        raise tampered(Kind.UNREADABLE, "the sealed part cannot be read", leaf.position) from error
    if commitment != leaf.key:
        raise tampered(Kind.EDITED, "the leaf commits to other keys than the sealed part names", leaf.position)


def _moved(leaf: Leaf, again: bool, at: int, elsewhere: Elsewhere) -> Kind:  # noqa: FBT001  # a fact of the entry
    """Tell how a leaf came to a position that is not its own."""
    if leaf.position < at:
        return Kind.REPLAYED if again else Kind.RELOCATED
    other = elsewhere(leaf.position)
    if other is None:
        return Kind.DELETED
    there = position_of(other)
    if there == at:
        return Kind.REORDERED
    return Kind.DELETED if there - leaf.position == leaf.position - at else Kind.RELOCATED


def position_of(leaf: bytes) -> int:
    """Return the position that a leaf says it has; -1 of something that is none."""
    try:
        return Leaf.decode(leaf).position
    except (TypeError, ValueError):
        return -1
