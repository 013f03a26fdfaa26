"""Verification of a log as it is served: checkpoint, tiles and bundles of leaves, by anybody who has its key.

Bundles hold leaves, and no event: this checks the signature, the quorum of witnesses, the tree, and that every leaf is
one of this log at its own position. Whether an event is the one of its leaf, a receipt tells, or the database.
"""

from collections.abc import Callable
from hashlib import sha256

from hauberk.core.event import SIGNED, Leaf
from hauberk.core.ports import Head
from hauberk.crypto.merkle import HASH_BYTES
from hauberk.crypto.note import Checkpoint, decode_key
from hauberk.errors import RecordsError, Tampered
from hauberk.records.heads import split_name
from hauberk.records.tile_paths import WIDTH, TileDirectory, hashes_of
from hauberk.records.verify.anchors import (
    NO_ANCHORS,
    Anchor,
    Anchors,
    Named,
    differing,
    read_anchors,
    shorter,
)
from hauberk.records.verify.edge import Edge
from hauberk.records.verify.report import Kind, VerifyReport, tampered

_ABSENT = "HBK-707"


def verify_tiles(
    directory: TileDirectory,
    key_text: str,
    *,
    anchors: Anchors = NO_ANCHORS,
    told: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Verify a log from its files.

    Args:
        directory: reads them.
        key_text: the log's verifier key, of the log or of the epoch it is in.
        anchors: what the auditor has from elsewhere.
        told: called now and then with how many leaves are done, and of how many.

    Returns:
        A report in which `pruned` counts the leaves whose bundles are not served, and `streams` is 0.

    Raises:
        Tampered: HBK-710 with the first bad position and the kind; HBK-713 when the log is shorter than an anchor.
        NotCosigned: HBK-720 the policy's quorum of witnesses is missing.
        RecordsError: HBK-711 when a key or checkpoint is malformed, or of another log or epoch; HBK-902 and others of
            the reader.
    """
    note = directory.checkpoint()
    named = _named(key_text, note)
    signed, epoch = _signed(named, note)
    pinned = read_anchors(named, anchors, Head(signed.size, b"", note.encode(), epoch))
    walk = _Walk(directory, signed, epoch, pinned)
    while walk.edge.size < signed.size:
        walk.tile()
        if told is not None:
            told(walk.edge.size, signed.size)
    walk.finish()
    met = tuple(anchor.met for anchor in pinned)
    return VerifyReport(signed.origin, signed.size, signed.root.hex(), 0, pruned=walk.pruned, anchors=met)


def _named(key_text: str, note: str) -> Named:
    """Return the log a key is of; its name may end in an epoch."""
    name, key = decode_key(key_text)
    log, epoch = split_name(name)
    if epoch is None or note.partition("\n")[0].startswith(f"{name}/"):
        return Named(name, key, None)
    return Named(log, key, epoch)


def _signed(named: Named, note: str) -> tuple[Checkpoint, int]:
    try:
        signed, epoch = named.signed(note)
    except RecordsError as error:
        raise tampered(Kind.RESIGNED, "the checkpoint is not signed by this key", 0) from error
    if named.epoch is not None and epoch < named.epoch:
        raise tampered(Kind.ROLLED_BACK, "the key is of a later epoch than the log is in", signed.size, epoch=epoch)
    if named.epoch is not None and epoch > named.epoch:
        why = f"the key is of epoch {named.epoch}, and the log is in epoch {epoch}: take the key of that epoch"
        raise RecordsError("HBK-711", why, kind=Kind.WRONG_KEY.value)
    return signed, epoch


class _Walk:
    """One pass over the tiles of level 0."""

    def __init__(self, directory: TileDirectory, signed: Checkpoint, epoch: int, anchors: list[Anchor]) -> None:
        self.edge = Edge()
        self.pruned = 0
        self._directory = directory
        self._signed = signed
        self._epoch = epoch
        self._anchors = anchors[::-1]

    def tile(self) -> None:
        """Take the next tile of leaf hashes, and its bundle."""
        first = self.edge.size
        data = self._read(0, first // WIDTH, first)
        hashes = hashes_of(data)
        self._check_leaves(first, hashes)
        while hashes:
            self._meet()
            count = min(len(hashes), self._anchors[-1].size - self.edge.size) if self._anchors else len(hashes)
            self.edge.extend(hashes[:count])
            hashes = hashes[count:]
        self._meet()
        for tile in self.edge.finished():
            if tile.level:
                self._compare(tile.level, tile.index, tile.data)

    def _read(self, level: int, index: int, position: int) -> bytes:
        try:
            return self._directory.tile(level, index, self._signed.size)
        except Tampered:
            raise
        except RecordsError as error:
            if error.code not in {_ABSENT, "HBK-712"}:
                raise
            raise tampered(Kind.TILE, "a tile is missing or cut short", position, level=level) from error

    def _check_leaves(self, first: int, hashes: list[bytes]) -> None:
        try:
            leaves = self._directory.bundle(first // WIDTH, self._signed.size)
        except RecordsError as error:
            if error.code == _ABSENT:
                self.pruned += len(hashes)
                return
            if error.code != "HBK-712":
                raise
            raise tampered(Kind.UNREADABLE, "a bundle of leaves cannot be read", first) from error
        for at, (leaf, hashed) in enumerate(zip(leaves, hashes, strict=True), first):
            if sha256(b"\x00" + leaf).digest() != hashed:
                raise tampered(Kind.EDITED, "the leaf differs from the tree", at)
            _check_leaf(leaf, at)

    def _compare(self, level: int, index: int, data: bytes) -> None:
        first = index * WIDTH << 8 * level
        stored = self._read(level, index, first)
        for at in range(0, len(data), HASH_BYTES):
            if stored[at : at + HASH_BYTES] != data[at : at + HASH_BYTES]:
                position = first + (at // HASH_BYTES << 8 * level)
                raise tampered(Kind.TILE, "a tile differs from the leaves below it", position)

    def _meet(self) -> None:
        while self._anchors and self._anchors[-1].size <= self.edge.size:
            anchor = self._anchors.pop()
            if anchor.epoch > self._epoch or anchor.checkpoint.root != self.edge.root():
                raise differing(anchor)

    def finish(self) -> None:
        """Compare what is not complete, the anchors, and the root."""
        self._meet()
        if self._anchors:
            raise shorter(self._anchors[-1], self.edge.size)
        for tile in self.edge.unfinished():
            if tile.level:
                self._compare(tile.level, tile.index, tile.data)
        if self.edge.root() != self._signed.root:
            raise tampered(Kind.REWRITTEN, "the leaves do not lead to the signed root", self.edge.size - 1)


def _check_leaf(data: bytes, at: int) -> None:
    try:
        leaf = Leaf.decode(data)
    except ValueError as error:
        raise tampered(Kind.UNREADABLE, "a leaf cannot be read", at) from error
    if leaf.position != at:
        raise tampered(Kind.RELOCATED, "the leaf is of another position", at)
    if leaf.flags & ~SIGNED:
        raise tampered(Kind.UNREADABLE, "the leaf has unknown flags", at)
