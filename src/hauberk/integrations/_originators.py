"""Events of originators as entries of a log. Behind `hauberk.integrations.eventsourcing`.

Versions of a stream in the ledger are dense and count from 1; versions of an originator may begin anywhere and leave
some out. Most streams are written in ascending order, and each entry says whether its stream was until then: of two
entries j < k of such a stream the originator's versions differ by at least k - j, which bounds where a version can be,
exactly where none was left out. A write expects the stream to be where its writer saw it, so what an entry says is true
and no version is written twice, whoever else writes.
"""

import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from heapq import merge
from itertools import islice
from threading import Event as Flag
from urllib.parse import quote
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK
from hauberk.core.event import Entry, Event, Private
from hauberk.core.ids import uuid7
from hauberk.core.ports import END, Check, Delete, Put
from hauberk.errors import Conflict, Tampered
from hauberk.integrations._place import Place
from hauberk.records.keys import Lost

ROOT = "/streams/eventsourcing"
CACHED = 10_000  # streams of which it is known where they are; the others are looked up
PAGE = 500  # entries read at a time
_HIDDEN = "~"  # before the pseudonym of an id that is text
_ORIGINATOR = "originator"  # path of that id, sealed
_JSON, _BASE64 = _KINDS = ("state", "base64")  # first part of a state's path: as it is, or what is no JSON as a text
_FIRST = frozenset({0, 1})  # versions with which most originators begin
_EMPTY = -1 << 63  # below every version


class Written(msgspec.Struct, frozen=True):
    """One event of an originator, as the library stores it."""

    originator: UUID | str
    version: int
    topic: str
    state: bytes


class _Clear(msgspec.Struct, frozen=True):
    """The clear part: the originator's version, and whether the stream was ascending up to here."""

    version: int
    ascending: bool

    @property
    def path(self) -> str:
        """The end of a state's path, which is part of the seal: so the clear part cannot be changed unseen."""
        return f"{self.version}.{'ascending' if self.ascending else 'any'}"


class _Tail(msgspec.Struct, frozen=True):
    """The end of a stream: its version in the ledger, and what its last entry says."""

    at: int = 0
    clear: _Clear = _Clear(_EMPTY, ascending=True)

    def followed(self, version: int) -> "_Tail":
        """Return the end once this version has been appended."""
        return _Tail(self.at + 1, _Clear(version, self.clear.ascending and version > self.clear.version))


_any = msgspec.json.Decoder().decode
_decode = msgspec.json.Decoder(_Clear).decode


def _clear(entry: Entry) -> _Clear:
    try:
        return _decode(entry.public)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Tampered("not an event of an originator", position=entry.position, kind="unreadable") from None


class Taken(Conflict):
    """An originator has a version already."""


class Entries:
    """One log of one application.

    Args:
        place: where it is.
        application: whose.
        purpose: which of its logs.

    Raises:
        Tampered: HBK-710, HBK-713.
    """

    def __init__(self, place: Place, application: str, purpose: str) -> None:
        self.ledger = place.ledger(application, purpose)
        self._keys = place.keys
        self._application = application
        self._prefix = f"{ROOT}/{quote(application, safe='')}/{quote(purpose, safe='')}/"
        self._flags = place.flags(self.ledger.log)
        self._lock = threading.Lock()  # guards _writing
        self._writing: WeakValueDictionary[str, threading.Lock] = (
            WeakValueDictionary()
        )  # by stream, while somebody does
        self._tails: dict[str, _Tail] = {}  # as this process saw them last; a write says so, so an old one does no harm
        self._firsts: dict[str, int] = {}  # by how much versions differ in a stream's first entry, which never changes

    def subject(self, originator: UUID | str) -> str:
        """Return the name of the subject under whose key an originator is sealed."""
        return f"{self._application}/{originator}"

    def _stream(self, originator: UUID | str) -> str:
        if isinstance(originator, UUID):
            return f"{self._prefix}{originator}"
        return f"{self._prefix}{_HIDDEN}{self._keys.subject_row(self.subject(originator)).hex()}"

    # writing

    def write(self, events: Sequence[Written], rows: Sequence[Put | Delete | Check] = ()) -> list[int]:
        """Append events, all or none, and return their notification ids.

        Raises:
            Taken: HBK-701 an originator has one of the versions already.
            Conflict: HBK-701 a row is not as expected.
            RecordsError: HBK-703, HBK-706, HBK-715 to HBK-718.
        """
        if not events and not rows:
            return []
        with self._alone({self._stream(one.originator) for one in events}):
            while True:
                tails, made = self._plan(events)
                expected = {stream: first.at for stream, (first, _) in tails.items()}
                try:
                    receipts = self.ledger.append_batch(made, expected=expected, rows=rows).result()
                except Conflict as error:
                    if error.context.get("what") != "stream":
                        raise
                    self._tails.update((stream, self._look(stream)) for stream in tails)
                else:
                    self._tails.update((stream, last) for stream, (_, last) in tails.items())
                    return [at.position + 1 for at in receipts if at.position is not None]

    @contextmanager
    def _alone(self, streams: AbstractSet[str]) -> Iterator[None]:
        """Let one thread at a time write each of these: who comes second need not try in order to learn it."""
        with ExitStack() as held:
            with self._lock:
                if len(self._tails) > CACHED:
                    self._tails.clear()
                locks = [self._writing.setdefault(stream, threading.Lock()) for stream in sorted(streams)]
            for lock in locks:
                held.enter_context(lock)
            yield

    def _plan(self, events: Sequence[Written]) -> tuple[dict[str, tuple[_Tail, _Tail]], list[Event]]:
        """Return where each stream is now and will be, and the events to append."""
        tails: dict[str, tuple[_Tail, _Tail]] = {}
        mine: dict[str, set[int]] = {}  # versions of this write, by stream
        made = []
        now = SYSTEM_CLOCK.time_ns()
        for one in events:
            stream = self._stream(one.originator)
            if stream not in tails:
                known = self._tails.get(stream) or (_Tail() if one.version in _FIRST else self._look(stream))
                tails[stream], mine[stream] = (known, known), set()
            first, last = tails[stream]
            following = last.followed(one.version)
            if not following.clear.ascending and self._taken(stream, one.version, last, mine[stream]):
                raise Taken("the originator has this version already", what="version", version=one.version)
            mine[stream].add(one.version)
            tails[stream] = first, following
            made.append(self._event(one, stream, following.clear, now))
        return tails, made

    def _taken(self, stream: str, version: int, last: _Tail, mine: AbstractSet[int]) -> bool:
        if version == last.clear.version or version in mine:
            return True
        near = self._ordered(stream, version - 1, version, desc=False)
        return any(_clear(entry).version == version for entry in near)

    def _event(self, one: Written, stream: str, clear: _Clear, now: int) -> Event:
        subject = self.subject(one.originator)
        kind, value = _packed(one.state)
        private = [Private(f"{kind}.{clear.path}", subject, value)]
        if isinstance(one.originator, str):
            private.append(Private(_ORIGINATOR, subject, one.originator.encode()))
        data = {"version": clear.version, "ascending": clear.ascending}
        return Event(
            id=uuid7(now_ns=now), type=one.topic, stream=stream, time_ns=now, data=data, private=tuple(private)
        )

    def _look(self, stream: str) -> _Tail:
        """Return where a stream is."""
        last = next(self.ledger.stream(stream, limit=1, backward=True), None)
        return _Tail() if last is None else _Tail(last.version, _clear(last))

    # reading

    def read(
        self,
        originator: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> list[Written]:
        """Return events of one originator by version, without those that were erased.

        Raises:
            Tampered: HBK-710 one does not open in its place.
        """
        low, high = _EMPTY if gt is None else gt, -_EMPTY if lte is None else lte
        entries = self._ordered(self._stream(originator), low, high, desc=desc)
        opened = (self._open(entry) for entry in entries if low < _clear(entry).version <= high)
        return list(islice((one for one in opened if one is not None), limit))

    def _ordered(self, stream: str, low: int, high: int, *, desc: bool) -> Iterator[Entry]:
        """Yield, by version, at least the entries whose versions are above `low` and not above `high`."""
        tail = self._look(stream)
        if not tail.clear.ascending:
            entries = self.ledger.stream(stream, below=tail.at + 1, limit=END)
            return iter(sorted(entries, key=lambda entry: _clear(entry).version, reverse=desc))
        above = max(0, tail.at - max(0, tail.clear.version - low))
        below = tail.at + 1
        if high < tail.clear.version:
            below = min(below, high - self._first(stream) + 1)
        return self._pages(stream, above, below, desc=desc)

    def _first(self, stream: str) -> int:
        """Return by how much the originator's version exceeds the ledger's in the first entry of a stream."""
        if stream not in self._firsts:
            if len(self._firsts) > CACHED:
                self._firsts.clear()
            first = next(self.ledger.stream(stream, limit=1))
            self._firsts[stream] = _clear(first).version - first.version
        return self._firsts[stream]

    def _pages(self, stream: str, above: int, below: int, *, desc: bool) -> Iterator[Entry]:
        while page := list(self.ledger.stream(stream, above=above, below=below, limit=PAGE, backward=desc)):
            yield from page
            if len(page) < PAGE:
                return
            above, below = (above, page[-1].version) if desc else (page[-1].version, below)

    def follow(self, *, after: int, before: int | None, limit: int, topics: Sequence[str]) -> list[tuple[int, Written]]:
        """Return positions and events between two positions, oldest first, without those that were erased.

        Raises:
            Tampered: HBK-710 one does not open in its place.
        """
        end = END if before is None else before
        found: list[tuple[int, Written]] = []
        while len(found) < limit:
            wanted = limit - len(found)
            page = self._page(after, end, wanted, topics)
            opened = ((entry.position, self._open(entry)) for entry in page if entry.stream.startswith(self._prefix))
            found.extend((at, one) for at, one in opened if one is not None)
            if len(page) < wanted:
                break
            after = page[-1].position
        return found

    def _page(self, after: int, before: int, limit: int, topics: Sequence[str]) -> list[Entry]:
        """Return the next entries of any of these types, of all when there are none."""
        pages = [
            self.ledger.entries(after=after, before=before, kind=topic, limit=limit)
            for topic in dict.fromkeys(topics) or (None,)
        ]
        return list(islice(merge(*map(list, pages), key=lambda entry: entry.position), limit))

    def last(self) -> int | None:
        """Return the position of the last event."""
        before = END
        while page := list(self.ledger.entries(before=before, limit=PAGE, backward=True)):
            for entry in page:
                if entry.stream.startswith(self._prefix):
                    return entry.position
            before = page[-1].position
        return None

    def _open(self, entry: Entry) -> Written | None:
        """Return the event of an entry, None when it was erased.

        Raises:
            Tampered: HBK-710 it does not open in this place, or is not what its clear part says.
        """
        clear, opened = _clear(entry), self._keys.open(entry)
        if any(isinstance(value, Lost) for value in opened.values()):
            return None
        found = {path: value for path, value in opened.items() if isinstance(value, bytes)}
        name = found.get(_ORIGINATOR)
        try:
            originator = UUID(entry.stream.removeprefix(self._prefix)) if name is None else name.decode()
        except ValueError:
            raise Tampered("no originator", position=entry.position, kind="unreadable") from None
        if self._stream(originator) == entry.stream:
            for kind in _KINDS:
                state = found.get(f"{kind}.{clear.path}")
                if state is not None:
                    return Written(originator, clear.version, entry.type, _unpacked(kind, state))
        raise Tampered("the clear part is not what was sealed", position=entry.position, kind="edited")

    # telling others in this process

    def notify(self) -> None:
        """Something has been recorded."""
        for flag in tuple(self._flags):
            flag.set()

    def listen(self, flag: Flag) -> None:
        """Set a flag from now on whenever this process records something."""
        self._flags.add(flag)

    def unlisten(self, flag: Flag) -> None:
        """Set it no more."""
        self._flags.discard(flag)


def _packed(state: bytes) -> tuple[str, bytes]:
    """Return what is sealed, JSON in any case, and which kind that is."""
    try:
        _any(state)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _BASE64, b'"' + b64encode(state) + b'"'
    return _JSON, state


def _unpacked(kind: str, sealed: bytes) -> bytes:
    return sealed if kind == _JSON else b64decode(sealed[1:-1])
