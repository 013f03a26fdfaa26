"""What whoever has the database and the log's key can make: any history, perfect in itself."""

import sqlite3
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from msgspec.structs import astuple, replace

from hauberk.core.event import Entry, Leaf
from hauberk.crypto.merkle import leaf_hash
from hauberk.crypto.note import Checkpoint, sign_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.records._encode import decode_event
from hauberk.records.verify.edge import Edge
from tests.records.made import ORIGIN

Change = Callable[[list[Entry]], Sequence[Entry]]


def leafed(entry: Entry, position: int, version: int, /, **fields: object) -> Entry:
    """An entry at a position, its leaf and columns made from its parts."""
    old = Leaf.decode(entry.leaf)
    facts = {
        "position": position,
        "version": version,
        "meta": sha256(entry.meta).digest(),
        "public": sha256(entry.public).digest(),
        "sealed": sha256(entry.sealed).digest(),
    }
    event = decode_event(entry.meta, entry.public)
    leaf = replace(old, **{**facts, **fields}).encode()
    return replace(
        entry, position=position, version=version, leaf=leaf, id=event.id, stream=event.stream, type=event.type
    )


def renumbered(entries: Sequence[Entry]) -> list[Entry]:
    """The entries at their new positions, versions counted anew."""
    versions: dict[str, int] = {}
    made = []
    for position, entry in enumerate(entries):
        stream = decode_event(entry.meta, entry.public).stream
        versions[stream] = versions.get(stream, 0) + 1
        made.append(leafed(entry, position, versions[stream]))
    return made


def entries_of(path: Path, log: str = ORIGIN) -> list[Entry]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT * FROM entry WHERE log = ? ORDER BY position", (log,)).fetchall()
    connection.close()
    return [Entry(*row[1:]) for row in rows]


def write(path: Path, entries: Sequence[Entry], signer: SigningKey, *, epoch: int = 0, log: str = ORIGIN) -> str:
    """Put these entries in the place of all, with tiles, frontier and a signed checkpoint that fit; return the note."""
    edge, tiles = Edge(), []
    hashes = [leaf_hash(entry.leaf) for entry in entries]
    while hashes:
        room = edge.room
        edge.extend(hashes[:room])
        hashes = hashes[room:]
        tiles += edge.finished()
    tiles += edge.unfinished()
    origin = f"{log}/epoch-{epoch}" if epoch else log
    note = sign_checkpoint(Checkpoint(origin, edge.size, edge.root()), signer)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    for table in ("entry", "tile", "head"):
        connection.execute(f"DELETE FROM {table} WHERE log = ?", (log,))  # noqa: S608  # constants
    places = ",".join("?" * 11)
    rows = [(log, *astuple(entry)) for entry in entries]
    connection.executemany(f"INSERT INTO entry VALUES ({places})", rows)  # noqa: S608  # places
    connection.executemany("INSERT INTO tile VALUES (?, ?, ?, ?)", [(log, *astuple(tile)) for tile in tiles])
    head = (log, edge.size, edge.frontier().encode(), note.encode(), epoch)
    connection.execute("INSERT INTO head VALUES (?, ?, ?, ?, ?)", head)
    connection.execute("COMMIT")
    connection.close()
    return note


def rewrite(path: Path, signer: SigningKey, change: Change, *, epoch: int = 0) -> str:
    """Change the history and sign it; return the note."""
    return write(path, change(entries_of(path)), signer, epoch=epoch)
