"""The audit log: who did what to what, with which outcome, provable like everything else in the ledger.

```
audit = runtime.audit
audit.access(user, "/orders/17", "read")                                           # behind the bounded queue
receipt = await audit.access(user, "/orders/17", "refund", level="receipt")        # durable
with audit.action(user=user, resource="/orders/17", action="cancel") as entry:     # ok, or failed and by which class
    entry.details["lines"] = cancel(order)
```

Users, sessions and addresses are kept as keyed pseudonyms only; the resource in clear. Details are bounded and hold no
secrets, see `records.details`; what was cut or hidden is counted in the entry. An entry is JSON in a ledger of binary
leaves, so nothing that anybody wrote can make a second one, or another field.
"""

import asyncio
import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Protocol, cast

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.event import Event, Receipt
from hauberk.core.ids import uuid7
from hauberk.core.ports import Recorder
from hauberk.core.principal import Kind, Principal
from hauberk.errors import Malformed
from hauberk.records.action import Action
from hauberk.records.details import BOUNDS, NO_DETAILS, Bounds, kept_details, kept_line, kept_text
from hauberk.records.pending import Pending
from hauberk.records.turn import Append, InTurn, Taken, Turn
from hauberk.records.witnessed import Uncosigned, Witnessing

ROOT = "/audit"
MAX_RESOURCE = 1_000  # characters
MAX_ACTION = 64  # characters
MAX_REASON = 1_000  # characters
MAX_ID = 2_048  # characters of a SPIFFE id, and of any other
REMEMBERED = 16_384  # pseudonyms in memory: a keyed hash costs more than the rest of an entry
QUEUED = "queue"  # `Receipt.where` of what waits to be written
_KIND = re.compile(r"(?=.{1,115}\Z)[a-z][a-z0-9_-]{0,62}(?:\.[a-z0-9_-]{1,63}){0,3}\Z")
_IN_CLEAR = frozenset({Kind.WORKLOAD, Kind.LOCAL})  # these are programs, not people


class Outcome(StrEnum):
    """How something ended."""

    OK = "ok"
    DENIED = "denied"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ATTEMPTED = "attempted"  # recorded before it is known


class Level(StrEnum):
    """What has to be true of an entry before whoever waits for it goes on."""

    ASYNC = "async"  # it is in the bounded queue; a full one makes them wait
    RECEIPT = "receipt"  # it is durable
    COSIGNED = "cosigned"  # and witnesses have signed a head that covers it


_OUTCOMES = {one.value: one.value for one in Outcome}
_LEVELS = {one.value: one for one in Level}


class Hides(Protocol):
    """What turns a value into its pseudonym: `crypto.keyring.Pseudonyms`, or `records.epochs.PseudonymEpochs`."""

    def of(self, kind: str, value: str) -> str:
        """Return such as `user:k5uq2..`; empty for an empty value."""


class AuditLog:
    """Writes audit entries. Thread-safe; the recorder stays open when this is closed.

    Args:
        recorder: where they go: a ledger, or the way to one.
        pseudonyms: how users, sessions and addresses appear.
        service: whose audit log it is; that of `production/orders` is the stream `/audit/production/orders`.
        bounds: of the details of one entry.
        uncosigned: what happens to entries of level `cosigned` when witnesses are late.
        clock: time source.
    """

    def __init__(
        self,
        recorder: Recorder,
        pseudonyms: Hides,
        service: str = "default/default",
        *,
        bounds: Bounds = BOUNDS,
        uncosigned: Uncosigned = Uncosigned.REFUSE,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.stream = f"{ROOT}/{service}"
        self._recorder = recorder
        self._append = cast("Append | None", getattr(recorder, "append_batch", None))
        self._witnessing = Witnessing(recorder, uncosigned, self._uncosigned)
        self._hide = lru_cache(REMEMBERED)(pseudonyms.of) if not hasattr(pseudonyms, "every") else pseudonyms.of
        self._bounds = bounds
        self._clock = clock
        self._turns: dict[asyncio.AbstractEventLoop, Turn] = {}  # each loop's thread uses its own

    def access(
        self,
        user: str | Principal,
        resource: str,
        action: str,
        outcome: str = "ok",
        *,
        level: str = "async",
        session: str = "",
        address: str = "",
        reason: str = "",
        details: Mapping[str, object] | None = None,
    ) -> Pending[Receipt]:
        """Record that somebody had access to something, or tried to.

        Args:
            user: who; a workload's SPIFFE id stays in clear, a person becomes a pseudonym.
            resource: what; in clear, so name it by an id and not by whose it is.
            action: such as `read`.
            outcome: one of `Outcome`.
            level: one of `Level`.
            session: of the user; becomes a pseudonym.
            address: where from; becomes a pseudonym.
            reason: why it was done, or refused.
            details: further facts; see `records.details`.

        Raises:
            Malformed: HBK-716 the outcome or level is none, or a text is no text.
        """
        return self.record(
            "access", user=user, resource=resource, action=action, outcome=outcome, level=level, session=session,
            address=address, reason=reason, details=details,
        )  # fmt: skip

    def record(
        self,
        kind: str,
        *,
        user: str | Principal = "",
        resource: str = "",
        action: str = "",
        outcome: str = "ok",
        level: str = "async",
        session: str = "",
        address: str = "",
        reason: str = "",
        details: Mapping[str, object] | None = None,
        correlation: str = "",
        code: str = "",
    ) -> Pending[Receipt]:
        """Record anything that an auditor may ask for, such as a login or an export.

        Args:
            kind: such as `login`; the entry's type is `audit.login`.
            user: as in `access`, like all that follow.
            resource: what it was done to.
            action: what was done.
            outcome: one of `Outcome`.
            level: one of `Level`.
            session: becomes a pseudonym.
            address: becomes a pseudonym.
            reason: why.
            details: further facts.
            correlation: id of the activity this is part of.
            code: of an error, such as `HBK-300`.

        Raises:
            Malformed: HBK-716 the outcome, level or kind is none, or a text is no text.
        """
        wanted, ended = _LEVELS.get(level), _OUTCOMES.get(outcome)
        if wanted is None or ended is None or not _is_kind(kind):
            raise Malformed("no such outcome, level or kind of entry", outcome=outcome, level=level, kind=kind)
        now = self._clock.time_ns()
        try:
            event = Event(
                id=uuid7(now_ns=now),
                type=f"audit.{kind}",
                stream=self.stream,
                time_ns=now,
                actor=self.actor(user) if user else "",
                address=self._hide("address", address) if address else "",
                session=self._hide("session", session) if session else "",
                outcome=ended,
                code=kept_line(code, MAX_ID) if code else "",
                correlation=kept_line(correlation, MAX_ID) if correlation else "",
                data=self._data(resource, action, reason, details),
            )
        except (TypeError, AttributeError) as error:
            raise Malformed("an audit entry is made of texts", why=type(error).__name__) from None
        return self._write(event, wanted)

    def actor(self, user: str | Principal) -> str:
        """Return how somebody appears in the record."""
        if isinstance(user, Principal):
            return kept_line(user.id, MAX_ID) if user.kind in _IN_CLEAR else self._hide("user", user.id)
        return self._hide("user", user)

    def _data(self, resource: str, action: str, reason: str, details: Mapping[str, object] | None) -> dict[str, object]:
        data: dict[str, object] = {}
        data["resource"], cut, hidden = kept_text(resource, MAX_RESOURCE)
        data["action"], shorter, secrets = kept_text(action, MAX_ACTION)
        cut, hidden = cut + shorter, hidden + secrets
        if reason:
            data["reason"], shorter, secrets = kept_text(reason, MAX_REASON)
            cut, hidden = cut + shorter, hidden + secrets
        kept = NO_DETAILS if details is None else kept_details(details, self._bounds)
        if kept.data:
            data["details"] = kept.data
        if cut or kept.cut:
            data["cut"] = cut + kept.cut
        if hidden or kept.hidden:
            data["hidden"] = hidden + kept.hidden
        return data

    # writing

    def _write(self, event: Event, level: Level) -> Pending[Receipt]:
        if level is Level.ASYNC:
            full = self._recorder.offer(event)
            return Taken(Receipt(event.id, None, QUEUED)) if full is None else Pending(full)
        if level is Level.COSIGNED:
            return Pending(self._witnessing.of(self._recorder.submit(event)))
        loop = _running_loop()
        if loop is None or self._append is None:
            return Pending(self._recorder.submit(event))
        turn = self._turns.get(loop)
        index = None if turn is None else turn.add(event)
        if turn is None or index is None:
            if turn is not None:
                turn.send()  # full: it need not wait for the end
            index, turn = 0, Turn(loop, self._append, event)
            self._turns[loop] = turn
            loop.call_soon(self._end, loop, turn)
        return InTurn(turn, index)

    def _end(self, loop: asyncio.AbstractEventLoop, turn: Turn) -> None:
        if self._turns.get(loop) is turn:
            del self._turns[loop]
        turn.send()

    def _uncosigned(self, receipt: Receipt, code: str) -> None:
        """Say in the log itself that witnesses did not confirm an entry in time."""
        told = {"entry": receipt.event.hex(), "position": receipt.position}
        self.record("uncosigned", outcome=Outcome.FAILED, code=code, details=told)

    def action(
        self,
        *,
        user: str | Principal,
        resource: str,
        action: str,
        level: str = "receipt",
        session: str = "",
        address: str = "",
        reason: str = "",
        details: Mapping[str, object] | None = None,
    ) -> Action:
        """Return a context, for `with` and for `async with`, that records how its body ended; see `access`.

        An error is recorded as `failed` (`denied` when it is a refusal, `cancelled` when the task was) with the name
        of its class and nothing of what it says, and goes on its way.
        """

        def write(outcome: str, reason: str, details: Mapping[str, object]) -> Pending[Receipt]:
            return self.access(
                user, resource, action, outcome, level=level, session=session, address=address, reason=reason,
                details=details,
            )  # fmt: skip

        return Action(write, reason, details)

    def flush(self, timeout: float = 10.0) -> None:
        """Hand over what an event loop has not come to yet, and wait until everything taken so far is durable.

        Raises:
            RecordsError: it could not be recorded.
            TimeoutError: it is not durable yet.
        """
        self.close()
        if self._append is not None:
            self._append(()).result(timeout)

    def close(self) -> None:
        """Hand over what an event loop has not come to yet; before the recorder is closed, which writes it."""
        for loop, turn in list(self._turns.items()):
            self._end(loop, turn)


@lru_cache(1_024)
def _is_kind(kind: str) -> bool:
    return bool(_KIND.match(kind))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
