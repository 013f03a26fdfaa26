"""Retention: old entries leave the database by class of their type, and only after they are safe somewhere else.

Segments of 256 entries are sealed once their tile is complete. `archive` writes sealed segments to a directory,
`prune` deletes entries of some types below a position: it first reads back every file it needs and refuses when an
entry it would delete is not there, then records `ledger.pruned` (stream `/records/retention`: minimum position, types,
number and digest of those files), and only then deletes. Tiles stay, so every proof of every other entry stays, and
`restore` can put an entry back exactly as it was. Nothing is ever destroyed by a rotation; destroying is what erasure
is for.

Statements of producers, certificates of erasure, legal holds and the ledger's own entries are never pruned, nor is the
last entry of a stream.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import msgspec

from hauberk.core.event import Entry, Event, Leaf
from hauberk.core.ports import Store
from hauberk.crypto.note import decode_key
from hauberk.errors import ConfigError, RecordsError
from hauberk.records.ledger import Ledger
from hauberk.records.permission import Actor, Context, Permission
from hauberk.records.segment import MAX_BYTES, Segment, digest_of, make_segment, read_segment
from hauberk.records.streams import RETENTION
from hauberk.records.tile_paths import WIDTH

ARCHIVED = "ledger.archived"
PRUNED = "ledger.pruned"
RESTORED = "ledger.restored"
SUFFIX = ".segment"
PAGE = 1_000  # entries looked at at once
DAY = 86_400 * 10**9  # nanoseconds
_KEPT_FAMILIES = ("ledger.", "producer.")
_KEPT = frozenset({"records.erased", "records.scrubbed", "records.held", "records.lifted"})
_NO_CLASSES: Mapping[str, str] = MappingProxyType({})


class Archive(msgspec.Struct, frozen=True):
    """Segments that were written.

    Args:
        files: one for each, in order.
        first: number of the first.
        digest: of all of them; see `records.segment.digest_of`.
    """

    files: tuple[Path, ...]
    first: int
    digest: str


class Pruned(msgspec.Struct, frozen=True):
    """What was pruned.

    Args:
        minimum: entries of those types below this position are in the archive only.
        types: which.
        entries: how many left the database.
        position: of the `ledger.pruned` entry.
    """

    minimum: int
    types: tuple[str, ...]
    entries: int
    position: int


def name_of(number: int) -> str:
    """Return the file name of a segment."""
    return f"{number:012d}{SUFFIX}"


class Retention:
    """Archives, prunes and restores; every call blocks until it is done. Thread-safe.

    Args:
        ledger: whose entries.
        store: where they live.
        permission: who may; `archive`, `prune` and `restore` on `/records/retention`.
        days: how long entries of a class stay in the database.
        classes: the class of each type; a type without one stays for ever.

    Raises:
        ConfigError: HBK-901 a type has a class that there is not, or may never be pruned.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        permission: Permission,
        *,
        days: Mapping[str, int] = MappingProxyType({}),
        classes: Mapping[str, str] = _NO_CLASSES,
    ) -> None:
        for kind, named in classes.items():
            if named not in days or days[named] < 0:
                raise ConfigError("HBK-901", "a type has a retention class that is not defined", type=kind, name=named)
            _check_prunable((kind,))
        self._ledger = ledger
        self._store = store
        self._permission = permission
        self._days = dict(days)
        self._classes = dict(classes)

    # archiving

    @property
    def sealed(self) -> int:
        """How many segments are complete."""
        return self._ledger.head().size // WIDTH

    def archive(self, directory: Path, actor: Actor, *, first: int | None = None) -> Archive:
        """Write the sealed segments to files, each whole or not at all.

        Args:
            directory: made when absent, for the owner alone.
            actor: who asks for it.
            first: number of the first segment; by default the first that has no file yet. A file that is there already
                is verified, and keeps what only it has.

        Raises:
            Denied: HBK-300.
            RecordsError: HBK-703 a file cannot be written, HBK-725 one that is there is of another log or damaged.
        """
        who = Context.of(actor)
        self._permission.enforce(who, "archive", RETENTION)
        head = self._ledger.head()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            start = _first_missing(directory) if first is None else first
            numbers = range(start, head.size // WIDTH)
            written = [
                self._written(directory / name_of(number), number, head.checkpoint.decode()) for number in numbers
            ]
            _sync(directory)
        except OSError as error:
            raise RecordsError("HBK-703", "a segment cannot be written", path=str(directory)) from error
        found = Archive(tuple(directory / name_of(number) for number in numbers), start, digest_of(written))
        if written:
            self._record(ARCHIVED, who, first=start, segments=len(written), archive=found.digest)
        return found

    def _written(self, path: Path, number: int, note: str) -> bytes:
        """Write a segment and return the digest of its file."""
        segment = make_segment(self._store, self._ledger.log, number, note)
        if path.exists():
            segment = segment.with_entries_of(self._read(_file(path)))
        data = segment.encode()
        temporary = path.with_suffix(".part")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return sha256(data).digest()

    def _read(self, data: bytes) -> Segment:
        return read_segment(data, self._ledger.log, decode_key(self._ledger.verifier)[1])

    # pruning

    def prune(self, *, before: int, types: Sequence[str], directory: Path, actor: Actor) -> Pruned:
        """Delete entries of these types below a position that are archived, once that is recorded.

        Args:
            before: a position, counted in whole segments.
            types: of the entries.
            directory: where they are archived.
            actor: who asks for it.

        Raises:
            Denied: HBK-300.
            ConfigError: HBK-901 a type that may never be pruned.
            RecordsError: HBK-725 the archive does not hold an entry that would be deleted; HBK-703.
        """
        who = Context.of(actor)
        self._permission.enforce(who, "prune", RETENTION)
        _check_prunable(types)
        if before % WIDTH or not 0 < before <= self.sealed * WIDTH:
            raise RecordsError("HBK-725", "only sealed segments are pruned", before=before)
        digests = list(self._checked(before, types, directory))
        data = {"minimum": before, "types": sorted(types), "segments": len(digests), "archive": digest_of(digests)}
        position = self._record(PRUNED, who, **data)
        gone = self._store.prune(self._ledger.log, below=before, kinds=tuple(types))
        self._store.scrub()
        return Pruned(before, tuple(sorted(types)), gone, position)

    def _checked(self, before: int, types: Sequence[str], directory: Path) -> Iterator[bytes]:
        """Yield the digest of each file that is needed; every entry that would go has to be there, byte for byte."""
        number, kept = -1, dict[int, object]()
        for entry in self._doomed(before, types):
            if entry.position // WIDTH != number:
                number = entry.position // WIDTH
                data = _file(directory / name_of(number))
                kept = {row[0]: row for row in self._read(data).entries}
                yield sha256(data).digest()
            if kept.get(entry.position) != msgspec.structs.astuple(entry):
                raise RecordsError("HBK-725", "the archive does not hold an entry", position=entry.position)

    def _doomed(self, before: int, types: Sequence[str]) -> Iterator[Entry]:
        """Yield what would be deleted, and the last entries of streams, which stay; in order."""
        kind = types[0] if len(types) == 1 else None
        after = -1
        while page := list(self._ledger.entries(after=after, before=before, kind=kind, limit=PAGE)):
            yield from (entry for entry in page if entry.type in types)
            after = page[-1].position

    def due(self, now_ns: int | None = None) -> Mapping[int, tuple[str, ...]]:
        """Return, for each position below which something has been kept long enough, the types of which that is true.

        Args:
            now_ns: Unix nanoseconds, by default the clock's.
        """
        now = self._permission.clock.time_ns() if now_ns is None else now_ns
        found: dict[int, tuple[str, ...]] = {}
        for name, days in self._days.items():
            types = tuple(sorted(kind for kind, named in self._classes.items() if named == name))
            before = self._older(now - days * DAY) if types else 0
            if before:
                found[before] = (*found.get(before, ()), *types)
        return found

    def _older(self, time_ns: int) -> int:
        """Return the position below which all is older than a time, rounded down to whole sealed segments."""
        low, high = 0, self.sealed
        while low < high:
            middle = (low + high) // 2
            last = next(self._ledger.entries(after=middle * WIDTH + WIDTH - 2, limit=1))
            if Leaf.decode(last.leaf).time_ns < time_ns:
                low = middle + 1
            else:
                high = middle
        return low * WIDTH

    def rotate(self, directory: Path, actor: Actor) -> Sequence[Pruned]:
        """Archive what is sealed, and prune what has been kept long enough by its class.

        Raises:
            HauberkError: as `archive` and `prune`.
        """
        due = self.due()
        if not due:
            return ()
        self.archive(directory, actor)
        return [
            self.prune(before=before, types=types, directory=directory, actor=actor)
            for before, types in sorted(due.items())
        ]

    # restoring

    def restore(self, file: Path, actor: Actor) -> int:
        """Put back the entries of an archived segment, once each is verified, and return how many came.

        Raises:
            Denied: HBK-300.
            RecordsError: HBK-725 the file is not a segment of this log, or differs from its tree; HBK-703.
        """
        who = Context.of(actor)
        self._permission.enforce(who, "restore", RETENTION)
        data = _file(file)
        segment = self._read(data)
        entries = segment.unpacked()
        if self._store.tile(self._ledger.log, 0, segment.number) != segment.tile:
            raise RecordsError("HBK-725", "the segment differs from the tree of the log", number=segment.number)
        self._record(RESTORED, who, number=segment.number, digest=sha256(data).hexdigest())
        return self._store.restore(self._ledger.log, entries)

    def _record(self, kind: str, who: Context, **data: object) -> int:
        event: Event = self._permission.event(kind, RETENTION, who, data=data)
        position = self._ledger.submit(event).result().position
        return -1 if position is None else position


def _first_missing(directory: Path) -> int:
    """Return the number behind the archived segments that follow one another from the first on."""
    there = {path.name for path in directory.iterdir()}
    number = 0
    while name_of(number) in there:
        number += 1
    return number


def _check_prunable(types: Iterable[str]) -> None:
    for kind in types:
        if kind in _KEPT or kind.startswith(_KEPT_FAMILIES):
            raise ConfigError("HBK-901", "entries of this type are never pruned", type=kind)


def _file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecordsError("HBK-725", "the file is too large", path=str(path))
        return path.read_bytes()
    except OSError as error:
        raise RecordsError("HBK-725", "the segment cannot be read", path=str(path)) from error


def _sync(directory: Path) -> None:
    """Make the names of new files durable."""
    found = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(found)
    finally:
        os.close(found)


def entries_of(files: Iterable[Path], log: str, key_text: str) -> Iterable[Entry]:
    """Yield the entries of archived segments, each verified, without any store.

    Args:
        files: of segments.
        log: name of the log.
        key_text: its verifier key.

    Raises:
        RecordsError: HBK-725.
    """
    key = decode_key(key_text)[1]
    for path in files:
        yield from read_segment(_file(path), log, key).unpacked()
