"""The event store: typed events in streams, for those who may.

```
store = EventStore(ledger, rows, policy=runtime, pseudonyms=runtime.pseudonyms, target=runtime.workload)
done = await store.append("order-17", [OrderPlaced(...)], expected=NO_STREAM, actor=call)
async for item in store.read("order-17", actor=call): ...
await store.erase("customer-9", actor=call, reason="Art. 17 GDPR")
```

Under it is the ledger, so whatever is appended is durable, signed and provable when `append` returns, and nothing else
can be read: each entry is looked up in the signed tree before it is shown, see `records.signed_tree`. That something is
missing, because whoever has the database deleted or hid it, is for `hauberk ledger verify` to find. Who may do what is
decided by the policies, see `records.permission`; private values are sealed under the key of the person they are about,
see `records.keys`. Methods that write return a `Pending`: await it, or ask for its `result()`. What is wrong with an
event is raised at once, before anything is written.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from msgspec.structs import replace

from hauberk.core.call import HERE, Workload
from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.event import Event as Envelope
from hauberk.core.event import Receipt
from hauberk.core.ports import ANY, Authorizer, Bus, Check, Delete, Draft, Put, Recorder, Store
from hauberk.crypto.keyring import Pseudonyms
from hauberk.errors import ConfigError, HauberkError, Malformed, RecordsError
from hauberk.records.access import Reads
from hauberk.records.appending import Appended, Appender, Batch
from hauberk.records.bell import Bells
from hauberk.records.cursor import Cursor
from hauberk.records.erasure import COPIES, Certificate, Erasure
from hauberk.records.evidence import Evidence
from hauberk.records.fold import Folder
from hauberk.records.ledger import Ledger
from hauberk.records.pending import Pending
from hauberk.records.permission import Actor, Context, Permission
from hauberk.records.reading import Query, Reader, Reading, kinds_of
from hauberk.records.snapshot import Snapshot, read_snapshot, snapshot_event, snapshots_of
from hauberk.records.streams import own_stream_of, patterns
from hauberk.records.subscription import Subscription
from hauberk.records.typed import Event

if TYPE_CHECKING:
    from concurrent.futures import Future

POLL = 0.5  # seconds after which a subscription looks for itself; what a lost notification costs
GREW = "records.appended"  # subject on the bus: a position, decimal
WORKERS = 4  # threads for what has to wait: erasures, snapshots
E = TypeVar("E", bound=Event)
T = TypeVar("T")
Unknown = Literal["raise", "keep"]


class _Lent:
    """A ledger as a recorder that does not close it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def submit(self, event: Envelope) -> "Future[Receipt]":
        """Take an event; see `core.ports.Recorder`."""
        return self._ledger.submit(event)

    def offer(self, event: Envelope | Draft) -> "Future[Receipt] | None":
        """Take an event without waiting; see `core.ports.Recorder`."""
        return self._ledger.offer(event)

    def close(self, timeout: float = 10.0) -> None:
        """Leave it open."""


class EventStore:
    """Typed events over one ledger. Thread-safe; close it before the ledger.

    Args:
        ledger: where events go.
        rows: the store the ledger lives in; behind `adapters.authentic.AuthenticRows`, or a database writer could move
            a cursor; deleting one or putting an old one back is left to them.
        policy: decides; a `Runtime`, or an engine.
        pseudonyms: how people, sessions and addresses appear in clear.
        target: the workload whose policies these are.
        bus: wakes subscriptions and drops keys in other processes; correct without, only later.
        recorder: where denials and reads go; by default the ledger, behind a folder of floods.
        clock: time source.
        poll: seconds after which a subscription looks for itself.
        copies: what holds copies of the database here, in words; part of each certificate of erasure.
    """

    def __init__(
        self,
        ledger: Ledger,
        rows: Store,
        *,
        policy: Authorizer,
        pseudonyms: Pseudonyms,
        target: Workload = HERE,
        bus: Bus | None = None,
        recorder: Recorder | None = None,
        clock: Clock = SYSTEM_CLOCK,
        poll: float = POLL,
        copies: Sequence[str] = COPIES,
    ) -> None:
        self.ledger = ledger
        self._rows = rows
        self._bus = bus
        self._poll = poll
        self._folder = None
        if recorder is None:
            recorder = self._folder = Folder(_Lent(ledger), clock=clock)
        self.permission = Permission(policy, recorder, pseudonyms, target=target, clock=clock)
        self._reads = Reads(self.permission)
        self._reader = Reader(ledger, rows, self.permission, self._reads)
        self._bells = Bells()
        self._listening = bus.subscribe(GREW, lambda _subject, _data: self._bells.ring()) if bus is not None else None
        self._appender = Appender(ledger, rows, self.permission, self._grew)
        evidence = Evidence(rows, ledger.log, self._reader.checked)
        self._erasure = (
            Erasure(ledger, rows, ledger.keys, self.permission, evidence, bus=bus, wake=self._grew, copies=copies)
            if ledger.keys
            else None
        )
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="event store")

    def _grew(self, position: int) -> None:
        self._bells.ring()
        if self._bus is not None:
            with suppress(HauberkError):  # what is recorded is recorded; others find it when they look themselves
                self._bus.publish(GREW, str(position).encode())

    # writing

    def append(
        self, stream: str, events: Sequence[Event], *, actor: Actor, expected: int = ANY, ids: Sequence[bytes] = ()
    ) -> Pending[Appended]:
        """Append events to a stream, all or none.

        Args:
            stream: its name, such as `order-17`.
            events: in order.
            actor: who does it: the call being served, a context, or a principal.
            expected: the version the stream has now, `NO_STREAM`, or `ANY`.
            ids: of the events, 16 bytes each; made when absent. With ids of its own a caller may try again after a
                failure, whatever became of the first attempt: the events are recorded once.

        Raises:
            Malformed: HBK-716 an event or a name cannot be stored.
            Oversized: HBK-715 an event is larger than a record may be.
            UnknownSubject: HBK-717 a private value is nobody's.
            UnknownType: HBK-714 the class of an event has no type.
            Denied: HBK-300, when waited for, as everything below.
            Conflict: HBK-701 the stream has another version; `context["found"]`.
            IdTaken: HBK-718 an id stands for another event.
            RecordsError: HBK-703 the disk fails, HBK-706 the ledger is closed.
        """
        return self.append_many([Batch(stream, events, expected, ids)], actor=actor)

    def append_many(
        self, batches: Sequence[Batch], *, actor: Actor, rows: Sequence[Put | Delete | Check] = ()
    ) -> Pending[Appended]:
        """Append events to several streams, and write rows, all or nothing.

        Raises:
            HauberkError: as `append`.
        """
        return self._appender.append(batches, Context.of(actor), rows)

    # reading

    @overload
    def read(
        self, stream: str | Sequence[str] = "*", *, actor: Actor, type: type[E], from_: int | None = None,
        backwards: bool = False, limit: int | None = None, unknown: Unknown = "raise",
    ) -> Reading[E]: ...  # fmt: skip

    @overload
    def read(
        self, stream: str | Sequence[str] = "*", *, actor: Actor,
        type: str | tuple["type[Event] | str", ...] | None = None, from_: int | None = None,
        backwards: bool = False, limit: int | None = None, unknown: Unknown = "raise",
    ) -> Reading[Any]: ...  # fmt: skip

    def read(
        self,
        stream: str | Sequence[str] = "*",
        *,
        actor: Actor,
        type: Any = None,  # noqa: A002  # see the overloads
        from_: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
        unknown: Unknown = "raise",
    ) -> Reading[Any]:
        """Return events, to be gone through with `for` or `async for`.

        Args:
            stream: a name, a pattern such as `order-*`, or several; `*` is every stream of the application, `/*` all.
            actor: who reads.
            type: only events of this class, older ones that become it included; or its name, or several.
            from_: the version to begin at when it is one stream, else the position; itself included.
            backwards: newest first.
            limit: events at most.
            unknown: what to do where no class is registered for an event of the application: `raise` `UnknownType`, or
                `keep` it as `Untyped`.

        Raises:
            Malformed: HBK-716 not a name or pattern.
            Denied: HBK-300, when gone through, as everything below.
            UnknownType: HBK-714.
            Tampered: HBK-710 an entry is not what was recorded.
        """
        return Reading(
            self._reader,
            self._query(stream, type, "read", actor, unknown),
            start=from_,
            backwards=backwards,
            limit=limit,
        )

    def _query(self, stream: str | Sequence[str], types: Any, verb: str, actor: Actor, unknown: Unknown) -> Query:  # noqa: ANN401  # as `read` takes them
        return Query(
            streams=patterns(stream), kinds=kinds_of(types), verb=verb, who=Context.of(actor), strict=unknown == "raise"
        )

    @property
    def size(self) -> int:
        """How many entries the ledger has: the position of the next event."""
        return self.ledger.head().size

    def subscribe(
        self,
        stream: str | Sequence[str] = "*",
        *,
        actor: Actor,
        type: "type[Event] | str | tuple[type[Event] | str, ...] | None" = None,  # noqa: A002  # as in `read`
        from_: int = 0,
        name: str = "",
        unknown: Unknown = "raise",
    ) -> Subscription[Any]:
        """Return a subscription: events from a position on, and then each new one.

        Args:
            stream: as in `read`.
            actor: who subscribes.
            type: as in `read`.
            from_: position to begin at; `store.size` for only what is still to come.
            name: of the durable cursor, which goes on where it was acknowledged last. A newer subscription of the same
                actor and name takes the cursor over.
            unknown: as in `read`.

        Raises:
            Malformed: HBK-716 not a name or pattern.
            Denied: HBK-300, when gone through, as everything below; also when the right ends, HBK-206 when whoever
                subscribed is revoked.
            RecordsError: HBK-703, HBK-706 the cursor cannot be read or taken over.
        """
        query = self._query(stream, type, "subscribe", actor, unknown)

        def cursor() -> Cursor:
            owner = query.who.name(self.permission.pseudonyms)
            return Cursor(self.ledger, self._rows, owner, name, from_)

        return Subscription(
            self._reader, query, start=from_, cursor=cursor if name else None, bell=self._bells.bell(), poll=self._poll
        )

    # snapshots

    def save_snapshot(
        self, stream: str, version: int, state: object, *, actor: Actor, subject: str = ""
    ) -> Pending[Receipt]:
        """Save what a stream has come to.

        Args:
            stream: its name.
            version: of the stream that the state is of.
            state: an event class's instance, sealed field by field; or plain JSON types.
            actor: who saves it; needs `append`.
            subject: whose all of a plain state is; then it is sealed whole.

        Raises:
            Malformed: HBK-716 the state cannot be stored; when waited for, the stream has no such version.
            Oversized: HBK-715 it is larger than a record may be.
            UnknownSubject: HBK-717.
            UnknownType: HBK-714 the class of the state has no type.
            Denied: HBK-300, when waited for.
        """
        who, stored = Context.of(actor), own_stream_of(stream)
        event = snapshot_event(self._reader, stored, version, state, subject=subject, who=who)

        def save() -> Receipt:
            decision = self.permission.enforce(who, "append", stored)
            if not 0 < version <= self._rows.versions(self.ledger.log, (stored,)).get(stored, 0):
                raise Malformed("the stream has no such version", version=version)
            return self.ledger.submit(replace(event, digest=decision.basis.digest)).result()

        return self._working(save)

    def snapshot(self, stream: str, *, actor: Actor) -> Pending[Snapshot | None]:
        """Return the latest snapshot of a stream, None when there is none.

        Raises:
            Malformed: HBK-716 not a name.
            Denied: HBK-300, when waited for, as everything below; `read` is needed.
            UnknownType: HBK-714 no class is registered for the state.
        """
        who, stored = Context.of(actor), own_stream_of(stream)

        def load() -> Snapshot | None:
            self.permission.enforce(who, "read", stored)
            found = next(self.ledger.stream(snapshots_of(stored), limit=1, backward=True), None)
            return None if found is None else read_snapshot(self._reader, found, stored, who)

        return self._working(load)

    # people

    def erase(self, subject: str, *, actor: Actor, reason: str) -> Pending[Certificate]:
        """Destroy the keys of a subject, so that nothing private of it can ever be read again; see `records.erasure`.

        Args:
            subject: as in the fields marked `Subject`.
            actor: who does it; needs `erase` on `/subjects`.
            reason: one line, kept in clear for ever: name nobody in it.

        Raises:
            ConfigError: HBK-901 this store has no keys.
            Denied: HBK-300, when waited for, as everything below.
            HeldBack: HBK-719 a legal hold forbids it; `context["reason"]`.
            UnknownSubject: HBK-717 nothing of it is kept.
            Malformed: HBK-716 the reason is none.
        """
        erasure, who = self._erasing(), Context.of(actor)
        return self._working(lambda: erasure.erase(subject, who, reason))

    def hold(self, subject: str, *, actor: Actor, reason: str) -> Pending[Receipt]:
        """Forbid erasing a subject until the hold is lifted; needs `hold` on `/subjects`.

        Raises:
            HauberkError: as `erase`.
        """
        erasure, who = self._erasing(), Context.of(actor)
        return self._working(lambda: erasure.hold(subject, who, reason))

    def lift(self, subject: str, *, actor: Actor, reason: str) -> Pending[Receipt]:
        """Allow erasing a subject again; needs `hold` on `/subjects`.

        Raises:
            HauberkError: as `erase`.
        """
        erasure, who = self._erasing(), Context.of(actor)
        return self._working(lambda: erasure.lift(subject, who, reason))

    def _erasing(self) -> Erasure:
        if self._erasure is None:
            raise ConfigError("HBK-901", "a ledger without keys of subjects has nobody to erase")
        return self._erasure

    def _working(self, work: Callable[[], T]) -> Pending[T]:
        try:
            return Pending(self._workers.submit(work))
        except RuntimeError:
            return Pending.failed(RecordsError("HBK-706", "the event store is closed"))

    def close(self) -> None:
        """End subscriptions, write what was counted and release threads; the ledger stays open. Twice is fine."""
        self._bells.end()
        self._workers.shutdown()
        if self._listening is not None:
            self._listening.close()
        if self._erasure is not None:
            self._erasure.close()
        self._reads.close()
        if self._folder is not None:
            self._folder.close()

    def __repr__(self) -> str:
        return f"EventStore({self.ledger.log})"
