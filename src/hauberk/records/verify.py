"""Offline verification of a ledger from public material: the stored entries and the log's verifier key, nothing else.

Walks the log once in order and recomputes everything a leaf covers: digests of the parts, position, stream version, the
facts of `meta` that are also columns, uniqueness of event ids, the stored leaf hashes, and finally the root, which must
be the one in the signed checkpoint. The first thing that does not fit is named by its position. A log that is shorter
than a checkpoint known from before was truncated or rolled back, even when its own head was signed again.
"""

from hashlib import sha256

import msgspec

from hauberk.core.event import Entry, Leaf
from hauberk.core.ports import Head, Store
from hauberk.crypto.merkle import HASH_BYTES, Frontier, leaf_hash
from hauberk.crypto.note import Checkpoint, decode_key, verify_checkpoint
from hauberk.errors import RecordsError, Tampered
from hauberk.records._encode import decode_event
from hauberk.records._tiles import WIDTH, TileWriter

PAGE = 5_000  # entries read at once


class VerifyReport(msgspec.Struct, frozen=True):
    """What was verified.

    Args:
        origin: the log.
        size: how many entries, all of them checked.
        root: hex of the root hash.
        streams: how many streams.
    """

    origin: str
    size: int
    root: str
    streams: int


class _Walk:
    """The state of one pass over a log."""

    def __init__(self, store: Store, origin: str, known: Checkpoint | None) -> None:
        self.frontier = Frontier()
        self.size = 0
        self._store = store
        self._origin = origin
        self._tile = b""
        self._hashes: list[bytes] = []  # of leaves that are not in the frontier yet
        self._tiles = TileWriter()
        self._versions: dict[str, int] = {}
        self._seen: set[bytes] = set()
        self._known = known

    @property
    def streams(self) -> int:
        return len(self._versions)

    def take(self, entry: Entry) -> None:
        """Check one entry against its leaf and against all before it.

        Raises:
            Tampered: with its position.
        """
        at = self.size
        if entry.position != at:
            raise Tampered("an entry is missing", position=at)
        if any(not isinstance(part, bytes) for part in (entry.id, entry.leaf, entry.meta, entry.public, entry.sealed)):
            raise Tampered("an entry holds something that is no bytes", position=at)
        try:
            leaf = Leaf.decode(entry.leaf)
            event = decode_event(entry.meta, entry.public)
        except (ValueError, RecordsError) as error:
            raise Tampered("an entry cannot be read", position=at) from error
        expected = self._versions.get(entry.stream, 0) + 1
        facts = {
            "the leaf is of another position": leaf.position == at,
            "the meta part was changed": leaf.meta == sha256(entry.meta).digest(),
            "the public part was changed": leaf.public == sha256(entry.public).digest(),
            "the sealed part was changed": leaf.sealed == sha256(entry.sealed).digest(),
            "the stream version is out of order": leaf.version == entry.version == expected,
            "a column differs from the meta part": (event.id, event.stream, event.type)
            == (entry.id, entry.stream, entry.type),
            "an event was replayed": entry.id not in self._seen,
            "the leaf has unknown flags": leaf.flags == 0,
        }
        for why, holds in facts.items():
            if not holds:
                raise Tampered(why, position=at)
        self._seen.add(entry.id)
        self._versions[entry.stream] = expected
        self._append(at, leaf_hash(entry.leaf))
        if self._known is not None and self.size == self._known.size:
            self.meet(self._known, "the log differs from the known checkpoint")

    def _append(self, at: int, hashed: bytes) -> None:
        """Add a leaf hash after comparing it with the stored tile, which tells *which* leaf was rewritten."""
        number, offset = divmod(at, WIDTH)
        if offset == 0:
            self._tile = self._stored(0, number, at)
        if self._tile[offset * HASH_BYTES : (offset + 1) * HASH_BYTES] != hashed:
            raise Tampered("the leaf differs from the tree", position=at)
        self._hashes.append(hashed)
        self.size += 1
        if offset == WIDTH - 1:
            self.grow()

    def _stored(self, level: int, number: int, position: int) -> bytes:
        try:
            found = self._store.tile(self._origin, level, number)
        except RecordsError as error:
            raise Tampered("a tile is missing", position=position) from error
        if not isinstance(found, bytes):
            raise Tampered("a tile holds something that is no bytes", position=position)
        return found

    def grow(self) -> None:
        """Bring the frontier up to what was taken, and compare the tiles above the leaves.

        A tile may hold more than expected when the log grew meanwhile; that is for the next reader to check.

        Raises:
            Tampered: HBK-710 with the first position a wrong tile stands for.
        """
        self._tiles.extend(self._hashes, self.frontier)
        self._hashes = []
        for tile in self._tiles.take():
            first = tile.index << 8 * (tile.level + 1)
            if tile.level and not self._stored(tile.level, tile.index, first).startswith(tile.data):
                raise Tampered("a tile differs from the leaves below it", position=first)

    def meet(self, checkpoint: Checkpoint, why: str) -> None:
        """Compare the root so far with a checkpoint's.

        Raises:
            Tampered: HBK-710.
        """
        self.grow()
        if checkpoint.root != self.frontier.root():
            raise Tampered(why, position=checkpoint.size - 1)


def _signed(note: bytes, origin: str, key_text: str) -> Checkpoint:
    name, key = decode_key(key_text)
    if name != origin:
        raise RecordsError("HBK-711", "the key is of another log")
    return verify_checkpoint(note.decode("utf-8", "replace"), origin, key)


def _walked(walk: _Walk, store: Store, origin: str, head: Head) -> int:
    """Take every entry under `head`, and return how many there are; more than that is no growth while it stands."""
    while page := _page(store, origin, walk.size):
        for entry in page:
            if walk.size == head.size:
                return walk.size + (store.head(origin) == head)
            walk.take(entry)
    return walk.size


def _page(store: Store, origin: str, size: int) -> list[Entry]:
    try:
        return list(store.entries(origin, after=size - 1, limit=PAGE))
    except RecordsError as error:
        raise Tampered("entries cannot be read from here on", position=size) from error


def verify_store(store: Store, key_text: str, *, known: str = "") -> VerifyReport:
    """Verify the whole log that `key_text` names.

    Args:
        store: where it lives; only read.
        key_text: the log's verifier key, `NAME+HASH+KEY`.
        known: a signed checkpoint from before, to find rollback and truncation by the signer itself.

    Raises:
        Tampered: HBK-710 with `position`, the first that is wrong (0 where there is nothing at all of that log);
            HBK-713 when the log is shorter than `known`.
        RecordsError: HBK-711 when a key or checkpoint is malformed.
    """
    origin, _ = decode_key(key_text)
    head = store.head(origin)
    earlier = _signed(known.encode(), origin, key_text) if known else None
    walk = _Walk(store, origin, earlier)
    size = _walked(walk, store, origin, head)
    if earlier is not None and size < earlier.size:
        raise Tampered("the log is shorter than the known checkpoint", code="HBK-713", position=size)
    if not head.size and not size:
        # A log is made with its first entry, so there is none here: it was wiped, or the key is that of another one.
        raise Tampered("there is no entry of this log here", position=0, log=origin)
    try:
        signed = _signed(head.checkpoint, origin, key_text)
    except RecordsError as error:
        raise Tampered("the checkpoint is not signed by this key", position=0) from error
    if not signed.size == head.size == size:
        raise Tampered("the log and its checkpoint differ in size", position=min(signed.size, size))
    walk.meet(signed, "the entries do not lead to the signed root")
    if head.frontier != walk.frontier.encode():
        raise Tampered("the stored frontier is not that of the entries", position=size - 1)
    return VerifyReport(origin, size, walk.frontier.root().hex(), walk.streams)
