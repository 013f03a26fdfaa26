"""A refusal is recorded before it is answered, under the incident id the answer names.

Waiting for a record takes up to a tenth of a second in a flood, so nobody who could keep others waiting does it: the
methods of the authority only submit the record and leave its receipt in the `Attempt`, and the endpoint waits for it in
the event loop, outside every pool of threads. Without an `Attempt` the method itself waits.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from hauberk.core.event import Receipt
from hauberk.core.ids import incident_id
from hauberk.errors import EdgeError, HauberkError, IdentityError, RecordsError

RECORD_SECONDS = 10.0  # what cannot be recorded by then is refused
_UNRECORDED = "HBK-703"  # what failed is the record itself
_Written = TypeVar("_Written")


class Attempt:
    """One request of somebody who may be refused.

    Args:
        address: pseudonym of where it comes from, or empty; unproven callers are told apart by it.
    """

    __slots__ = ("address", "incident", "receipt")

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.incident = incident_id()  # what a refused caller is told, and where it is found in the ledger
        self.receipt: Future[Receipt] | None = None  # of the refusal, once there is one

    async def settled(self, error: HauberkError) -> HauberkError:
        """Wait until the refusal is durable and return what to answer: `error`, or HBK-703 if it cannot be recorded."""
        if self.receipt is None:
            return error
        try:
            await asyncio.wait_for(asyncio.wrap_future(self.receipt), RECORD_SECONDS)
        except TimeoutError:
            return _too_long()
        except RecordsError as unrecorded:
            return unrecorded
        return error


class Refusals:
    """Within `with`, records what is refused: identities, records that are not the sender's, malformed requests.

    Args:
        record: takes an event without waiting.
        what: what was asked for.
        actor: by whom, as far as that is proven.
        attempt: gets the receipt; without one, leaving the block waits for it.
    """

    def __init__(
        self, record: Callable[..., Future[Receipt]], what: str, actor: str, attempt: Attempt | None = None
    ) -> None:
        self._record = record
        self._what = what
        self._actor = actor
        self._attempt = attempt

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Record what was refused, if anything was."""
        if isinstance(error, HauberkError):
            self.record(error)

    def record(self, error: HauberkError) -> None:
        """Record a refusal, unless it is another sort of failure.

        Raises:
            RecordsError: HBK-703 there is no `attempt` to leave the receipt in, and it could not be recorded.
        """
        if not isinstance(error, EdgeError | IdentityError | RecordsError) or error.code == _UNRECORDED:
            return
        kind = "identity.denied" if isinstance(error, IdentityError) else "records.denied"
        kind = "edge.denied" if isinstance(error, EdgeError) else kind
        attempt = self._attempt or Attempt()
        attempt.receipt = self._record(
            kind,
            outcome="deny",
            actor=self._actor,
            address=attempt.address,
            code=error.code,
            rule=self._what,
            incident=attempt.incident,
        )
        if self._attempt is None:
            in_time(attempt.receipt)


def in_time(written: Future[_Written]) -> _Written:
    """Wait for a record, but not for ever.

    Raises:
        RecordsError: HBK-703 it could not be recorded, or not in time.
    """
    try:
        return written.result(RECORD_SECONDS)
    except TimeoutError:
        raise _too_long() from None


def _too_long() -> RecordsError:
    return RecordsError("HBK-703", "recording took too long")
