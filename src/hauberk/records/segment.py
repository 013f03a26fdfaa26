"""Archived segments: 256 neighbouring entries in one file that anybody can verify alone.

A segment covers exactly one complete tile of the log's tree. The file is msgpack of

```
[ "hauberk segment 1", log, number, signed checkpoint, [path...], tile 256 * 32 bytes, [entry...] ]
```

An entry is the array of its ten fields. The tile holds the leaf hash of every position, also of those whose entries
were pruned before; each entry that is there has to hash to its place in it, and the path leads from the root of the
tile to the root of the checkpoint, which the log signed. So nothing in the file has to be believed but the log's key.

A statement is not hashed into the tree. Here each has to stand where the flags of the leaves say there is one, and the
entries that lack theirs can only be the first of the segment, which go on a run of the segment before. Whether the
signatures hold is for whoever restores them, who has the log's producers.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from hauberk.core.event import Entry, Leaf
from hauberk.core.ports import Store
from hauberk.crypto.merkle import HASH_BYTES, Tree, leaf_hash, verify_inclusion
from hauberk.crypto.note import Checkpoint, parse_checkpoint, parse_note
from hauberk.crypto.signing import VerifyKey
from hauberk.errors import RecordsError
from hauberk.records._encode import decode_event
from hauberk.records._tiles import StoredTree
from hauberk.records.heads import split_name
from hauberk.records.mark import read_mark
from hauberk.records.runs import runs_of
from hauberk.records.tile_paths import WIDTH, WIDTH_BITS, hashes_of

FORMAT = "hauberk segment 1"
MAX_BYTES = WIDTH * 4 * 65_536  # of a file: 256 entries, each of at most three parts and a statement


class Segment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a file holds; see the module. `note` is the signed checkpoint.

    Args:
        format: `hauberk segment 1`.
        log: name of the log.
        number: position of the first entry, divided by 256.
        note: the signed checkpoint that the path leads to.
        path: from the tile's root upwards.
        tile: leaf hashes.
        entries: those that are there, in order, each the array of its fields.
    """

    format: str
    log: str
    number: int
    note: str
    path: tuple[bytes, ...]
    tile: bytes
    entries: tuple["_Row", ...]

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        return msgspec.msgpack.encode(self)

    def with_entries_of(self, other: "Segment") -> "Segment":
        """Return this segment with what only the other one still has."""
        rows = {row[0]: row for row in (*other.entries, *self.entries)}
        return msgspec.structs.replace(self, entries=tuple(rows[at] for at in sorted(rows)))

    def unpacked(self) -> list[Entry]:
        """Return the entries."""
        return [Entry(*row) for row in self.entries]


_Row = tuple[int, bytes, str, str, int, bytes, bytes, bytes, bytes, bytes]
_decode = msgspec.msgpack.Decoder(Segment).decode


def make_segment(store: Store, log: str, number: int, note: str) -> Segment:
    """Return a segment as the store has it.

    Args:
        store: where the log lives.
        log: its name.
        number: of the segment.
        note: a signed checkpoint that covers it whole.

    Raises:
        RecordsError: HBK-707 a tile is missing, HBK-712 the checkpoint does not cover it.
    """
    first = number * WIDTH
    path = StoredTree(store, log).inclusion(first, parse_checkpoint(parse_note(note).text).size)[WIDTH_BITS:]
    entries = store.entries(log, after=first - 1, before=first + WIDTH, limit=WIDTH)
    rows = tuple(msgspec.structs.astuple(entry) for entry in entries)
    return Segment(FORMAT, log, number, note, tuple(path), store.tile(log, 0, number), rows)


def _bad(why: str) -> RecordsError:
    return RecordsError("HBK-725", why)


def read_segment(data: bytes, log: str, key: VerifyKey) -> Segment:
    """Return a segment that is of this log and untouched.

    Args:
        data: of the file.
        log: name of the log, in whatever epoch.
        key: of the log.

    Raises:
        RecordsError: HBK-725 it is not.
    """
    if len(data) > MAX_BYTES:
        raise _bad("the file is too large")
    try:
        found = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _bad("not a segment") from None
    if found.format != FORMAT or found.log != log or len(found.tile) != WIDTH * HASH_BYTES or found.number < 0:
        raise _bad("not a segment of this log")
    _check_tile(found, _checkpoint(found.note, log, key))
    for entry in found.unpacked():
        _check_entry(found, entry)
    positions = [row[0] for row in found.entries]
    if positions != sorted(set(positions)):
        raise _bad("entries are out of order")
    _check_runs(found)
    return found


def _checkpoint(note: str, log: str, key: VerifyKey) -> Checkpoint:
    try:
        checkpoint = read_mark(note, key)
    except RecordsError:
        raise _bad("the checkpoint is not signed by the log") from None
    if log not in {checkpoint.origin, split_name(checkpoint.origin)[0]}:
        raise _bad("the checkpoint is of another log")
    return checkpoint


def _check_tile(segment: Segment, checkpoint: Checkpoint) -> None:
    """The tile has to be in the signed tree, at its own place: its first leaf is, by a path through the tile's root."""
    hashes = hashes_of(segment.tile)
    inside = Tree(hashes.__getitem__).inclusion(0, WIDTH)
    try:
        verify_inclusion(hashes[0], segment.number * WIDTH, checkpoint.size, [*inside, *segment.path], checkpoint.root)
    except RecordsError:
        raise _bad("the tile is not in the signed tree") from None


def _check_entry(segment: Segment, entry: Entry) -> None:
    """An entry has to hash to its place in the tile, and its parts and columns have to be those of its leaf."""
    at = entry.position - segment.number * WIDTH
    if not 0 <= at < WIDTH or leaf_hash(entry.leaf) != segment.tile[at * HASH_BYTES : (at + 1) * HASH_BYTES]:
        raise _bad("an entry is not in the signed tree")
    try:
        leaf, event = Leaf.decode(entry.leaf), decode_event(entry.meta, entry.public)
    except (ValueError, RecordsError):
        raise _bad("an entry cannot be read") from None
    parts = (sha256(entry.meta).digest(), sha256(entry.public).digest(), sha256(entry.sealed).digest())
    if parts != (leaf.meta, leaf.public, leaf.sealed) or (leaf.position, leaf.version) != (
        entry.position,
        entry.version,
    ):
        raise _bad("an entry is not what its leaf says")
    if (event.id, event.stream, event.type) != (entry.id, entry.stream, entry.type):
        raise _bad("an entry is not what its leaf says")


def _check_runs(segment: Segment) -> None:
    """Every statement has to be there and where it belongs, and to cover entries that are there, or come behind."""
    first, last = segment.number * WIDTH, (segment.number + 1) * WIDTH - 1
    try:
        runs = list(runs_of(segment.unpacked()))
    except RecordsError:
        raise _bad("a statement cannot be read") from None
    for run in runs:
        begun_before = run.statement is None and run.first == first > 0
        goes_on = run.entries[-1].position == last and len(run.entries) < run.count
        if not (run.fits or begun_before) or not (run.whole or begun_before or goes_on):
            raise _bad("a producer's statement was changed or taken away")


def digest_of(segments: Sequence[bytes]) -> str:
    """Return the digest of an archive: SHA-256 hex of the concatenated SHA-256 of its files, in order."""
    return sha256(b"".join(segments)).hexdigest()
