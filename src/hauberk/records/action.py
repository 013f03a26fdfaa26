"""One action under way: a context that records how its body ended, and of an error no more than its class."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Self

from hauberk.core.event import Receipt
from hauberk.errors import Denied, HauberkError
from hauberk.records.pending import Pending

Write = Callable[[str, str, Mapping[str, object]], Pending[Receipt]]
_REFUSALS = (Denied, PermissionError)
_CANCELLED = (asyncio.CancelledError, CancelledError, KeyboardInterrupt, GeneratorExit)


class Action:
    """Made by `AuditLog.action`. What the body knows goes into its attributes.

    Args:
        write: records outcome, reason and details.
        reason: why it is done; may be set later.
        details: further facts; add to them in the body.
    """

    def __init__(self, write: Write, reason: str, details: Mapping[str, object] | None) -> None:
        self._write = write
        self.reason = reason
        self.details: dict[str, object] = dict(details or {})
        self.outcome = "ok"  # unless the body says otherwise, or fails
        self.receipt: Receipt | None = None  # once it is recorded

    def _ended(self, kind: type[BaseException] | None) -> Pending[Receipt]:
        if kind is not None:
            self.outcome = _outcome(kind)
            self.details["error"] = kind.__name__
        return self._write(self.outcome, self.reason, self.details)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            self.receipt = self._ended(kind).result()
        except HauberkError as unrecorded:
            _report(error, unrecorded)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            self.receipt = await self._ended(kind)
        except HauberkError as unrecorded:
            _report(error, unrecorded)


def _outcome(kind: type[BaseException]) -> str:
    if issubclass(kind, _REFUSALS):
        return "denied"
    return "cancelled" if issubclass(kind, _CANCELLED) else "failed"


def _report(error: BaseException | None, unrecorded: HauberkError) -> None:
    """Raise that it was not recorded, or tell it with the error of the body, which is what the caller has to see."""
    if error is None:
        raise unrecorded
    error.add_note(f"and it could not be recorded: {unrecorded}")
