"""Retention: old entries leave the database by class of their type, and only after they are safe somewhere else.

Segments of 256 entries are sealed once their tile is complete. `archive` writes sealed segments to a directory,
`prune` deletes entries of some types below a position: it first reads back every file it needs and refuses when an
entry it would delete is not there, then records `ledger.pruned` (stream `/records/retention`: exactly which positions,
types, number and digest of those files), and only then deletes. Tiles stay, so every proof of every other entry stays,
and `restore` can put an entry back exactly as it was. Nothing is ever destroyed by a rotation; destroying is what
erasure is for.

Introductions of producers, certificates of erasure, legal holds and the ledger's own entries are never pruned, nor is
the last entry of a stream. Entries that were signed together go together, or stay until all of them may go; see
`records.runs`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import msgspec

from hauberk.core.event import Entry, Event, Leaf
from hauberk.core.ports import END, Store
from hauberk.crypto.note import decode_key
from hauberk.errors import ConfigError, RecordsError, Tampered
from hauberk.records.ledger import Ledger
from hauberk.records.permission import Actor, Context, Permission
from hauberk.records.positions import Positions
from hauberk.records.runs import Run, is_signed, runs_of
from hauberk.records.segment import MAX_BYTES, Segment, digest_of, make_segment, read_segment
from hauberk.records.statement import STREAM as PRODUCERS
from hauberk.records.statement import Signer, signers_in
from hauberk.records.streams import RETENTION
from hauberk.records.tile_paths import WIDTH

ARCHIVED = "ledger.archived"
PRUNED = "ledger.pruned"
RESTORED = "ledger.restored"
SUFFIX = ".segment"
PAGE = 1_000  # entries looked at at once
RECORDED = 1_000  # segments in one `ledger.pruned`, whose data has at most 65,535 bytes
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
        minimum: entries that went are below this position.
        types: of them.
        entries: how many left the database.
        position: of the last `ledger.pruned` entry about it.
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
            Tampered: HBK-710 a statement does not hold.
        """
        who = Context.of(actor)
        self._permission.enforce(who, "prune", RETENTION)
        _check_prunable(types)
        if before % WIDTH or not 0 < before <= self.sealed * WIDTH:
            raise RecordsError("HBK-725", "only sealed segments are pruned", before=before)
        doomed = self._doomed(before, frozenset(types))
        digests = list(self._checked(doomed, directory))
        facts = {"minimum": before, "types": sorted(types), "segments": len(digests), "archive": digest_of(digests)}
        position = self._record_pruned(doomed, who, facts)
        gone = self._store.prune(self._ledger.log, list(doomed))
        self._store.scrub()
        return Pruned(before, tuple(sorted(types)), gone, position)

    def _doomed(self, before: int, types: AbstractSet[str]) -> Positions:
        """Return what may go: entries of these types, not the last of their stream, and only whole runs.

        Raises:
            Tampered: HBK-710 a statement does not hold, so that it could not be restored.
        """
        signers, doomed = self._signers(), Positions()
        for run in runs_of(self._goers(before, types)):
            if run.whole and run.fits:
                run.check(signers)
                for entry in run.entries:
                    doomed.add(entry.position)
        return doomed

    def _goers(self, before: int, types: AbstractSet[str]) -> Iterator[Entry]:
        """Yield the entries below a position that might go by themselves, in order."""
        after, log = -1, self._ledger.log
        while page := list(self._ledger.entries(after=after, before=before, limit=PAGE)):
            named = [entry for entry in page if entry.type in types]
            last = self._store.versions(log, sorted({entry.stream for entry in named}))
            yield from (entry for entry in named if entry.version < last[entry.stream])
            after = page[-1].position

    def _signers(self) -> Mapping[bytes, Signer]:
        """Return the producers that the log introduces."""
        return signers_in(self._ledger.stream(PRODUCERS, limit=END))

    def _checked(self, doomed: Positions, directory: Path) -> Iterator[bytes]:
        """Yield the digest of each file that is needed; every entry that would go has to be there, byte for byte."""
        for number in doomed.segments:
            data = _file(directory / name_of(number))
            kept = {row[0]: row for row in self._read(data).entries}
            first = number * WIDTH
            here = self._ledger.entries(after=first - 1, before=first + WIDTH, limit=WIDTH)
            for entry in here:
                if entry.position in doomed and kept.get(entry.position) != msgspec.structs.astuple(entry):
                    raise RecordsError("HBK-725", "the archive does not hold an entry", position=entry.position)
            yield sha256(data).digest()

    def _record_pruned(self, doomed: Positions, who: Context, facts: Mapping[str, object]) -> int:
        """Record exactly what goes, all of it before anything does, and return the position of the last entry."""
        parts = [*doomed.parts(RECORDED)] or [(0, ())]
        told = [
            {**facts, "count": _counted(bitmaps), "first": first, "bitmaps": list(bitmaps)} for first, bitmaps in parts
        ]
        events = [self._permission.event(PRUNED, RETENTION, who, data=data) for data in told]
        position = self._ledger.append_batch(events).result()[-1].position
        return -1 if position is None else position

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

        Entries of other segments that were signed together with some of these come too: their files have to be in the
        same directory.

        Raises:
            Denied: HBK-300.
            RecordsError: HBK-725 the file is not a segment of this log, or differs from its tree; HBK-703.
        """
        who = Context.of(actor)
        self._permission.enforce(who, "restore", RETENTION)
        data = _file(file)
        segment = self._segment(data)
        entries = self._together(segment, file.parent)
        self._record(RESTORED, who, number=segment.number, digest=sha256(data).hexdigest())
        return self._store.restore(self._ledger.log, entries)

    def _segment(self, data: bytes) -> Segment:
        segment = self._read(data)
        if self._store.tile(self._ledger.log, 0, segment.number) != segment.tile:
            raise RecordsError("HBK-725", "the segment differs from the tree of the log", number=segment.number)
        return segment

    def _together(self, segment: Segment, directory: Path) -> list[Entry]:
        """Return the entries of a segment, and those beyond it that were signed together with its first or last.

        Raises:
            RecordsError: HBK-725 a statement does not hold, or a segment beside this one is needed and not there.
        """
        entries, beside = segment.unpacked(), dict[int, Entry]()
        while entries and is_signed(entries[0]) and not entries[0].statement and entries[0].position:
            entries.insert(0, self._neighbour(entries[0].position - 1, directory, beside))
        signers = self._signers()
        for run in list(runs_of(entries)):
            while run.signed and len(run.entries) < run.count:
                run.entries.append(self._neighbour(run.entries[-1].position + 1, directory, beside))
                entries.append(run.entries[-1])
            _check_run(run, signers)
        return entries

    def _neighbour(self, position: int, directory: Path, beside: dict[int, Entry]) -> Entry:
        """Return an entry from the store, or from the segment in the same directory."""
        found = next(self._ledger.entries(after=position - 1, before=position + 1, limit=1), None)
        if found is None and position not in beside:
            segment = self._segment(_file(directory / name_of(position // WIDTH)))
            beside.update({entry.position: entry for entry in segment.unpacked()})
        found = found or beside.get(position)
        if found is None or not is_signed(found):
            raise RecordsError("HBK-725", "an entry that was signed together with others is gone", position=position)
        return found

    def _record(self, kind: str, who: Context, **data: object) -> int:
        event: Event = self._permission.event(kind, RETENTION, who, data=data)
        position = self._ledger.submit(event).result().position
        return -1 if position is None else position


def _counted(bitmaps: Sequence[str]) -> int:
    found = Positions()
    found.take(0, bitmaps, below=len(bitmaps) * WIDTH)
    return len(found)


def _check_run(run: Run, signers: Mapping[bytes, Signer]) -> None:
    try:
        if not (run.whole and run.fits):
            raise RecordsError("HBK-725", "a producer's statement was changed or taken away", position=run.first)
        run.check(signers)
    except Tampered as error:
        raise RecordsError("HBK-725", error.detail, position=run.first) from error


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
