"""Appending: typed events become events of the ledger, all of one call or none of them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import NoReturn

import msgspec
from msgspec.structs import replace

from hauberk.core.decision import Decision, Verdict
from hauberk.core.event import Event as Envelope
from hauberk.core.event import Receipt
from hauberk.core.ports import ANY, Check, Delete, Put, Store
from hauberk.errors import Conflict, HauberkError, IdTaken, Malformed, UnknownType
from hauberk.records._encode import Meta
from hauberk.records.inbox import chained, promise
from hauberk.records.job import encoded
from hauberk.records.ledger import Ledger, Proof, same
from hauberk.records.pending import Pending
from hauberk.records.permission import Context, Permission
from hauberk.records.shape import shape_of
from hauberk.records.streams import own_stream_of, shown_stream
from hauberk.records.typed import Event

NO_STREAM = 0  # expectation: the stream does not exist
ID_BYTES = 16
_decode_meta = msgspec.json.Decoder(Meta).decode


class Batch(msgspec.Struct, frozen=True):
    """Events for one stream.

    Args:
        stream: its name, such as `order-17`.
        events: in order.
        expected: the version the stream has now, `NO_STREAM`, or `ANY`.
        ids: of the events, 16 bytes each; made when absent. With ids of its own a caller may try again at any time.
    """

    stream: str
    events: Sequence[Event]
    expected: int = ANY
    ids: Sequence[bytes] = ()


class Appended:
    """Where events are now.

    Args:
        ledger: where they are.
        receipts: of the events, in order.
    """

    __slots__ = ("_ledger", "ids", "positions")

    def __init__(self, ledger: Ledger, receipts: Sequence[Receipt]) -> None:
        self._ledger = ledger
        self.ids = tuple(receipt.event for receipt in receipts)
        self.positions = tuple(at for receipt in receipts if (at := receipt.position) is not None)

    @property
    def position(self) -> int:
        """The position of the last event."""
        return self.positions[-1]

    @property
    def version(self) -> int:
        """The version of the last event in its stream, read from the ledger."""
        at = self.position
        return next(self._ledger.entries(after=at - 1, before=at + 1, limit=1)).version

    def proof(self, index: int = -1) -> Proof:
        """Return the proof that one of the events, by default the last, is in the ledger."""
        return self._ledger.proof(self.positions[index])

    def __repr__(self) -> str:
        return f"Appended({list(self.positions)})"


class Appender:
    """Writes events for those who may. Thread-safe.

    Args:
        ledger: where they go.
        store: where the ledger lives.
        permission: who may append where.
        wake: called with a position once that is durable, from the ledger's thread.
    """

    def __init__(self, ledger: Ledger, store: Store, permission: Permission, wake: Callable[[int], None]) -> None:
        self._ledger = ledger
        self._store = store
        self._permission = permission
        self._wake = wake

    def append(
        self, batches: Sequence[Batch], who: Context, rows: Sequence[Put | Delete | Check] = ()
    ) -> Pending[Appended]:
        """Append batches and write rows, in one commit.

        Raises:
            Malformed: HBK-716 an event or a name cannot be stored, or there is nothing to append.
            Oversized: HBK-715.
            UnknownSubject: HBK-717.
            UnknownType: HBK-714 the class of an event has no type.
        """
        events: list[Envelope] = []
        expected: dict[str, int] = {}
        for batch in batches:
            stream = own_stream_of(batch.stream)
            decision = self._permission.decide(who, "append", stream)
            if decision.verdict is not Verdict.ALLOW:
                recorded = self._permission.record(who, "append", stream, decision)
                return Pending(chained(recorded, partial(_refuse, decision)))
            if batch.expected != ANY and expected.setdefault(stream, batch.expected) != batch.expected:
                raise Malformed("a stream has one version", stream=shown_stream(stream))
            events.extend(self._envelopes(batch, stream, who, decision.basis.digest))
        if not events or any(version < 0 for version in expected.values()):
            raise Malformed("there is nothing to append, or no such version")
        if len({event.id for event in events}) < len(events):
            raise Malformed("each event has an id of its own")
        receipts = self._ledger.append_batch(events, expected=expected, rows=rows)
        if any(batch.ids for batch in batches):
            receipts = self._repeated(receipts, events)
        return Pending(chained(receipts, self._appended))

    def _appended(self, receipts: list[Receipt]) -> Appended:
        found = Appended(self._ledger, receipts)
        self._wake(max(found.positions))
        return found

    def _envelopes(self, batch: Batch, stream: str, who: Context, digest: str) -> list[Envelope]:
        ids: Sequence[bytes | None] = batch.ids or (None,) * len(batch.events)
        if len(ids) != len(batch.events) or any(one is not None and len(one) != ID_BYTES for one in ids):
            raise Malformed("there is one id of 16 bytes for each event", stream=shown_stream(stream))
        return [self._envelope(event, stream, who, digest, one) for event, one in zip(batch.events, ids, strict=True)]

    def _envelope(self, event: Event, stream: str, who: Context, digest: str, given: bytes | None) -> Envelope:
        shape = shape_of(type(event))
        if not shape.kind:
            raise UnknownType("the class of the event has no type", type=type(event).__name__)
        data, private = shape.store(event)
        made = self._permission.event(shape.kind, stream, who, data=data, id=given)
        return replace(made, private=private, alone=shape.alone, digest=digest)

    # trying again

    def _repeated(self, receipts: "Future[list[Receipt]]", events: list[Envelope]) -> "Future[list[Receipt]]":
        """Answer an append that was made before, at another time or from another version, as it was answered then."""
        settled: Future[list[Receipt]] = promise()

        def settle(finished: "Future[list[Receipt]]") -> None:
            error = finished.exception()
            try:
                if isinstance(error, IdTaken | Conflict):
                    settled.set_result(self._earlier(events, error))
                elif error is not None:
                    settled.set_exception(error)
                else:
                    settled.set_result(finished.result())
            except HauberkError as refused:
                settled.set_exception(refused)

        receipts.add_done_callback(settle)
        return settled

    def _earlier(self, events: list[Envelope], error: HauberkError) -> list[Receipt]:
        """Return the receipts of events that are all in the ledger.

        Raises:
            HauberkError: `error`, when they are not, or others have their ids.
        """
        known = self._store.find(self._ledger.log, [event.id for event in events])
        if len(known) < len(events) or not all(self._is(known[event.id], event) for event in events):
            raise error
        return [Receipt(event.id, known[event.id]) for event in events]

    def _is(self, position: int, event: Envelope) -> bool:
        """Tell whether an entry is this event, but for the time and on what ground it was taken."""
        stored = next(self._ledger.entries(after=position - 1, before=position + 1, limit=1), None)
        if stored is None or (stored.stream, stored.type) != (event.stream, event.type):
            return False
        pair = encoded((event,))[0]
        pair.meta = stored.meta
        return _decode_meta(stored.meta).actor == event.actor and same(stored, pair, self._ledger.keys)


def _refuse(decision: Decision, _recorded: Receipt) -> NoReturn:
    """Refuse, now that it is recorded; what cannot be recorded fails for that reason.

    Raises:
        Denied: HBK-300.
    """
    decision.enforce()
    raise AssertionError  # it was a refusal
