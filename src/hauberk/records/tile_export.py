"""A log written out as the files of c2sp.org/tlog-tiles, for any web server or any other implementation's verifier.

The checkpoint is written last and each file in one step, so that whoever reads meanwhile finds all that a checkpoint
needs. What is there already and complete never changes and is passed over, so the next export costs what was added. A
bundle of which entries were pruned is left out, as the specification allows; an export made before keeps it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from hauberk.core.event import LEAF_BYTES
from hauberk.core.ports import Store
from hauberk.crypto.merkle import HASH_BYTES
from hauberk.crypto.note import MAX_NOTE_BYTES, parse_checkpoint, parse_note
from hauberk.errors import RecordsError, Tampered
from hauberk.records.tile_paths import (
    CHECKPOINT,
    ENTRIES,
    MAX_BUNDLE_BYTES,
    WIDTH,
    Fetch,
    TilePath,
    encode_bundle,
    paths_of,
)

_FRAME = 2 + LEAF_BYTES  # bytes of one of our leaves in a bundle


class Exported(msgspec.Struct, frozen=True):
    """What an export did.

    Args:
        size: leaves of the log.
        written: files.
        pruned: bundles left out because entries of them were pruned.
    """

    size: int
    written: int
    pruned: int


def export_tiles(
    store: Store, log: str, directory: Path, *, progress: Callable[[int, int], None] | None = None
) -> Exported:
    """Write a log's checkpoint, tiles and entry bundles, or what was added since the last time.

    Args:
        store: where the log lives; only read.
        log: its key in the store.
        directory: made when it is not there.
        progress: told how many of how many leaves are written.

    Raises:
        RecordsError: HBK-707 there is no such log; HBK-703 a file cannot be written.
        Tampered: HBK-713 the directory holds a checkpoint of a longer log; HBK-710 a stored tile is too short.
    """
    head = store.head(log)
    if not head.size:
        raise RecordsError("HBK-707", "there is no entry of this log", log=log)
    written = pruned = 0
    try:
        _forward(directory / CHECKPOINT, head.size)
        for path in paths_of(head.size):
            target = directory / path.encode()
            if _there(target, path.width * (_FRAME if path.level == ENTRIES else HASH_BYTES)):
                continue
            if path.level == ENTRIES:
                data = _bundle(store, log, path)
            elif not (data := _tile(store, log, path)):
                raise Tampered("a stored tile is too short", position=path.index * WIDTH << 8 * path.level)
            written += bool(data)
            pruned += not data
            if data:
                _put(target, data)
            if progress is not None and path.level == ENTRIES:
                progress(path.index * WIDTH + path.width, head.size)
        _put(directory / CHECKPOINT, head.checkpoint)
    except OSError as error:
        raise RecordsError("HBK-703", "the export cannot be written", error=error.strerror) from error
    return Exported(head.size, written + 1, pruned)


def _forward(checkpoint: Path, size: int) -> None:
    """Refuse to put a shorter log over a longer one."""
    if not checkpoint.exists():
        return
    there = parse_checkpoint(parse_note(checkpoint.read_text("utf-8", "replace")).text)
    if there.size > size:
        raise Tampered("the directory holds a longer log", code="HBK-713", position=size, found=there.size)


def _there(target: Path, size: int) -> bool:
    return target.exists() and target.stat().st_size == size


def read_store(store: Store, log: str) -> Fetch:
    """Return what fetches a log's checkpoint, tiles and bundles from the store, as a server of them would."""

    def fetch(path: str) -> bytes:
        if path == CHECKPOINT:
            data = store.head(log).checkpoint
        else:
            name = TilePath.parse(path)
            data = _bundle(store, log, name) if name.level == ENTRIES else _tile(store, log, name)
        if not data:
            raise RecordsError("HBK-707", "there is no such file", path=path)
        return data

    return fetch


def _tile(store: Store, log: str, path: TilePath) -> bytes:
    """Return the tile, or nothing when the log is not that long."""
    data = store.tile(log, path.level, path.index)[: path.width * HASH_BYTES]
    return data if len(data) == path.width * HASH_BYTES else b""


def _bundle(store: Store, log: str, path: TilePath) -> bytes:
    """Return the bundle, or nothing when an entry of it was pruned or the log is not that long."""
    first = path.index * WIDTH
    entries = store.entries(log, after=first - 1, before=first + path.width, limit=path.width)
    leaves = [entry.leaf for entry in entries]
    return encode_bundle(leaves) if len(leaves) == path.width else b""


def _put(target: Path, data: bytes) -> None:
    """Write a file so that it is there as a whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(target)


def read_directory(directory: Path) -> Fetch:
    """Return what fetches the files of an export for `TileDirectory`. It reads nothing but paths of a log."""

    def fetch(path: str) -> bytes:
        if path != CHECKPOINT:
            TilePath.parse(path)
        try:
            with (directory / path).open("rb") as file:
                return file.read((MAX_NOTE_BYTES if path == CHECKPOINT else MAX_BUNDLE_BYTES) + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise RecordsError("HBK-707", "there is no such file", path=path) from None
        except OSError as error:
            raise RecordsError("HBK-706", "a file cannot be read", path=path, error=error.strerror) from error

    return fetch
