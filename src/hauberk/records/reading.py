"""Reading events: pages of entries, turned into what this reader may see, forwards or backwards.

Each page asks again whether reading and decrypting are still allowed, so a right ends in the middle of a long read too.
An entry is shown only if it is in the tree under the signed head, see `records.signed_tree`. What may not be decrypted
is `Redacted`, what nobody can decrypt any more `Erased`; neither is an error.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Generic, TypeVar

import msgspec

from hauberk.core.event import Entry, Leaf
from hauberk.core.ports import END, Store
from hauberk.crypto.note import decode_key
from hauberk.errors import Malformed, RecordsError, Tampered, UnknownType
from hauberk.records._encode import Meta
from hauberk.records.access import Reads
from hauberk.records.hidden import Erased, Redacted
from hauberk.records.keys import Lost, SubjectKeys
from hauberk.records.ledger import Ledger, Proof
from hauberk.records.permission import Context, Permission
from hauberk.records.shape import shape_of
from hauberk.records.signed_tree import SignedTree
from hauberk.records.streams import STREAMS, Pattern, is_recorded, shown_stream
from hauberk.records.typed import Event, Untyped, class_of
from hauberk.records.upcasting import build, chain, sources, upcasted

PAGE = 256  # entries fetched at once: a few hundred kilobytes at most, a millisecond or two
CERTIFICATES = 4_096  # positions of certificates kept in memory
E = TypeVar("E", bound=Event)
_decode_meta = msgspec.json.Decoder(Meta).decode
_decode_data = msgspec.json.Decoder(dict[str, Any]).decode
_decode_any = msgspec.json.Decoder().decode


class Recorded(msgspec.Struct, Generic[E], frozen=True, kw_only=True, gc=False):
    """An event as it was recorded.

    Args:
        event: what happened.
        position: in the ledger, from 0.
        version: in its stream, from 1.
        stream: its name.
        type: under which it was stored; an older one than that of `event` where that was upcast.
        id: UUIDv7, 16 bytes.
        time_ns: when, Unix nanoseconds, by the clock of whoever appended it.
        actor: a workload's SPIFFE id, or the pseudonym of a person.
        address: pseudonym of the address, or empty.
        session: pseudonym of the session, or empty.
        correlation: id of the activity it is part of, or empty.
        causation: id of what led to it, or empty.
        digest: of the policy set that allowed it, or empty.
        keys: by private path, the hex id of the key it is sealed under; equal ids are one person's.
    """

    event: E
    position: int
    version: int
    stream: str
    type: str
    id: bytes
    time_ns: int
    actor: str
    address: str
    session: str
    correlation: str
    causation: str
    digest: str
    keys: Mapping[str, str]
    _ledger: Ledger

    @property
    def time(self) -> datetime:
        """When, to the microsecond, in UTC."""
        return datetime.fromtimestamp(self.time_ns // 1000 / 1e6, UTC)

    def proof(self) -> Proof:
        """Return the proof that it is in the ledger.

        Raises:
            RecordsError: HBK-707 it was pruned since.
        """
        return self._ledger.proof(self.position)

    def __repr__(self) -> str:
        return f"Recorded({self.event!r}, position={self.position}, stream={self.stream!r}, version={self.version})"


class Failed(msgspec.Struct, frozen=True):
    """In place of an event that cannot be shown; whoever comes to it raises the error."""

    position: int
    error: RecordsError


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What is read.

    Args:
        streams: any of these.
        kinds: stored types, None for all.
        verb: what it is called before the policies.
        who: reads.
        strict: an unknown type of an application's stream is an error.
    """

    streams: tuple[Pattern, ...]
    kinds: frozenset[str] | None
    verb: str
    who: Context
    strict: bool = True

    @property
    def exact(self) -> str:
        """The stored name of the one stream that is read, empty when there are several."""
        return self.streams[0].exact if len(self.streams) == 1 else ""

    @property
    def kind(self) -> str | None:
        """The one type that is read, None when there are several."""
        return next(iter(self.kinds)) if self.kinds is not None and len(self.kinds) == 1 else None

    def asked(self, stream: str) -> str | None:
        """Return the name or pattern through which a stream is read, None when it is not."""
        return next((one.path for one in self.streams if one.covers(stream)), None)


def kinds_of(types: "type[Event] | str | tuple[type[Event] | str, ...] | None") -> frozenset[str] | None:
    """Return the stored types that are read as one of these.

    Raises:
        UnknownType: HBK-714 one is a class without a type.
    """
    if types is None:
        return None
    names = [
        one if isinstance(one, str) else one.__event_type__ for one in (types if isinstance(types, tuple) else (types,))
    ]
    if not all(names):
        raise UnknownType("a class without a type is no type of events")
    return sources(names)


class Reader:
    """Turns entries into what somebody may see. Thread-safe.

    Args:
        ledger: what is read.
        store: where it lives.
        permission: who may see what.
        reads: records the reading of the record.
    """

    def __init__(self, ledger: Ledger, store: Store, permission: Permission, reads: Reads) -> None:
        self.ledger = ledger
        self.permission = permission
        self._store = store
        self._reads = reads
        self._tree = SignedTree(store, ledger.log, decode_key(ledger.verifier)[1])
        self._certificates: OrderedDict[bytes, int] = OrderedDict()  # position by event id; the store is asked again

    def enforce(self, query: Query) -> None:
        """Refuse who may not read these streams at all.

        Raises:
            Denied: HBK-300.
        """
        for one in query.streams:
            self.permission.enforce(query.who, query.verb, one.path)

    def shown(self, query: Query, entries: list[Entry], limit: int = END) -> list[Recorded[Any] | Failed]:
        """Return what the reader sees of some entries, at most `limit`; reading the record is recorded before.

        It ends with the first that cannot be shown, so that whatever comes before that one is.
        """
        counts: dict[str, int] = {}
        kept: list[Entry] = []
        for entry in entries:
            asked = query.asked(entry.stream)
            if asked is None or (query.kinds is not None and entry.type not in query.kinds):
                continue
            if asked != entry.stream and not self.permission.allows(query.who, query.verb, entry.stream):
                continue
            if len(kept) == limit:
                break
            kept.append(entry)
            if is_recorded(entry.stream):
                counts[asked] = counts.get(asked, 0) + 1
        for asked, count in counts.items():
            self._reads.note(query.who, asked, count)
        return self._recorded(query, kept)

    def _recorded(self, query: Query, entries: list[Entry]) -> list[Recorded[Any] | Failed]:
        found: list[Recorded[Any] | Failed] = []
        for entry in entries:
            try:
                found.append(self.recorded(query, entry))
            except RecordsError as error:
                found.append(Failed(entry.position, error))
                break
        return found

    def recorded(self, query: Query, entry: Entry) -> Recorded[Any]:
        """Return one event as the reader sees it.

        Raises:
            UnknownType: HBK-714.
            Malformed: HBK-716 it is not what its class says.
            Tampered: HBK-710 it is not what was recorded.
        """
        meta = self.checked(entry)
        keys = SubjectKeys.owners(entry) if entry.sealed else {}
        opened = self.opened(query.who, entry, keys, entry.stream)
        return Recorded(
            event=self._event(query, entry, opened), position=entry.position, version=entry.version,
            stream=shown_stream(entry.stream), type=entry.type, id=entry.id, time_ns=meta.time, actor=meta.actor,
            address=meta.address, session=meta.session, correlation=meta.correlation, causation=meta.causation,
            digest=meta.digest, keys=keys, _ledger=self.ledger,
        )  # fmt: skip

    def checked(self, entry: Entry) -> Meta:
        """Return the meta part of an entry that is in the signed tree, with the parts that its leaf covers.

        Raises:
            Tampered: HBK-710 it is not what was recorded; `position`, and `kind`.
        """
        try:
            leaf = Leaf.decode(entry.leaf)
            meta = _decode_meta(entry.meta)
            found = (sha256(entry.meta).digest(), sha256(entry.public).digest(), sha256(entry.sealed).digest())
            place = (entry.stream, entry.type, entry.id.hex())
        except (ValueError, TypeError, AttributeError, RecursionError) as error:  # a column may hold another type
            raise Tampered("an entry cannot be read", position=entry.position, kind="unreadable") from error
        if found != (leaf.meta, leaf.public, leaf.sealed) or (leaf.position, leaf.version) != (
            entry.position,
            entry.version,
        ):
            raise Tampered("an entry is not what its leaf says", position=entry.position, kind="edited")
        if (meta.stream, meta.type, meta.id) != place:
            raise Tampered("an entry is not what its leaf says", position=entry.position, kind="relocated")
        self._tree.check(entry)
        return meta

    def opened(self, who: Context, entry: Entry, keys: Mapping[str, str], asked: str) -> Mapping[str, object]:
        """Return the private values of an entry: JSON bytes, `Redacted` or `Erased`.

        Args:
            who: reads.
            entry: as stored.
            keys: by path, hex key id.
            asked: the stream for which decryption has to be allowed.
        """
        if not keys:
            return {}
        if self.ledger.keys is None or not self.permission.allows(who, "decrypt", asked):
            return {path: Redacted(key) for path, key in keys.items()}
        return {
            path: Erased(value.key, self._certificate(value.certificate)) if isinstance(value, Lost) else value
            for path, value in self.ledger.keys.open(entry).items()
        }

    def _certificate(self, event: bytes) -> int | None:
        """Return the position of a certificate of erasure."""
        position = self._certificates.get(event)
        if position is None:
            position = self._store.find(self.ledger.log, (event,)).get(event)
            if position is not None:
                self._certificates[event] = position
                while len(self._certificates) > CERTIFICATES:
                    self._certificates.popitem(last=False)
        return position

    def _event(self, query: Query, entry: Entry, opened: Mapping[str, object]) -> Event:
        return typed(entry.type, entry.public, opened, strict=query.strict and entry.stream.startswith(STREAMS))


def typed(kind: str, public: bytes, opened: Mapping[str, object], *, strict: bool) -> Event:
    """Return the event of its parts, in its newest form.

    Args:
        kind: as it was stored.
        public: the clear part.
        opened: by path, JSON bytes, `Redacted` or `Erased`.
        strict: without a class for it there is no event.

    Raises:
        UnknownType: HBK-714.
        Malformed: HBK-716.
    """
    versions = chain(kind)
    cls = class_of(versions[-1])
    if cls is None:
        if strict:
            raise UnknownType("no class is registered for this type", type=versions[-1])
        return _untyped(kind, public, opened)
    shape = shape_of(cls)
    if len(versions) == 1:
        return shape.read(public, opened)
    event: Event = build(shape, *upcasted(kind, public, opened.keys()), opened)
    return event


def _untyped(kind: str, public: bytes, opened: Mapping[str, object]) -> Untyped:
    try:
        private = {path: _decode_any(one) if isinstance(one, bytes) else one for path, one in opened.items()}
        return Untyped(data=_decode_data(public) | private)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed("what is stored is no event", type=kind) from error


class Reading(Generic[E]):
    """Events that were read: `for` and `async for` both go through them, each anew from the start.

    Args:
        reader: turns entries into events.
        query: what is read.
        start: first version of one stream, or first position; backwards it is the last one.
        backwards: newest first.
        limit: events at most.
    """

    def __init__(self, reader: Reader, query: Query, *, start: int | None, backwards: bool, limit: int | None) -> None:
        self._reader = reader
        self._query = query
        self._start = start
        self._backwards = backwards
        self._limit = END if limit is None else limit

    def __iter__(self) -> Iterator[Recorded[E]]:
        left, at = self._limit, self._first()
        while at is not None and left > 0:
            page, at = self._page(at, left)
            for one in page:
                yield _taken(one)
            left -= len(page)

    async def __aiter__(self) -> AsyncIterator[Recorded[E]]:
        left, at = self._limit, self._first()
        while at is not None and left > 0:
            page, at = await asyncio.to_thread(self._page, at, left)
            for one in page:
                yield _taken(one)
            left -= len(page)

    def _first(self) -> int | None:
        """Return the bound that the first page begins beyond."""
        if self._start is None:
            return END if self._backwards else -1
        return self._start + 1 if self._backwards else self._start - 1

    def _page(self, at: int, left: int) -> tuple[list[Recorded[E] | Failed], int | None]:
        """Return a page of at most `left`, and the bound that the next one begins beyond; None at the end."""
        self._reader.enforce(self._query)
        whole = self._query.exact and self._query.kinds is None  # every entry fetched is one that is shown
        size = min(PAGE, left) if whole else PAGE
        entries = self._fetched(at, size)
        after = None
        if len(entries) == size:
            after = entries[-1].version if self._query.exact else entries[-1].position
        return self._reader.shown(self._query, entries, left), after

    def _fetched(self, at: int, size: int) -> list[Entry]:
        query, ledger, back = self._query, self._reader.ledger, self._backwards
        low, high = (-1, at) if back else (at, END)
        if query.exact:
            return list(ledger.stream(query.exact, above=low, below=high, limit=size, backward=back))
        return list(ledger.entries(after=low, before=high, kind=query.kind, limit=size, backward=back))


def _taken(one: Recorded[E] | Failed) -> Recorded[E]:
    if isinstance(one, Failed):
        raise one.error
    return one
