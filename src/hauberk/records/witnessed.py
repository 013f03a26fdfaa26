"""Entries whose receipt is good only once a quorum of witnesses has signed a head that covers them.

The entry itself is durable first, whatever the witnesses do. What happens when they are late is chosen once, and either
way somebody is told: whoever waits, or the log.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from typing import cast

from hauberk.core.event import Receipt
from hauberk.core.ports import Recorder
from hauberk.errors import HauberkError, NotCosigned
from hauberk.records.inbox import promise

Cosign = Callable[[int], "Future[str]"]
Report = Callable[[Receipt, str], None]
_log = logging.getLogger("hauberk.records")


class Uncosigned(StrEnum):
    """What happens when the quorum is not reached in time."""

    REFUSE = "refuse"  # whoever waits gets the error
    REPORT = "report"  # whoever waits gets the plain receipt; the log gets an entry that says so


class Witnessing:
    """Waits for witnesses.

    Args:
        recorder: a ledger with witnesses, whose `cosigned` fails in time; anything else cannot wait for any.
        uncosigned: what happens when they are late, or there are none.
        report: tells the log of an entry, and the code of the error.
    """

    def __init__(self, recorder: Recorder, uncosigned: Uncosigned, report: Report) -> None:
        self.cosign = cast("Cosign | None", getattr(recorder, "cosigned", None))
        self.uncosigned = Uncosigned(uncosigned)
        self.report = report

    def of(self, recorded: "Future[Receipt]") -> "Future[Receipt]":
        """Return a future of the same receipt that waits for the witnesses too."""
        waiting = _Waiting(self)
        recorded.add_done_callback(waiting.recorded)
        return waiting.done


class _Waiting:
    """One entry that waits: first for the commit, then for the quorum."""

    def __init__(self, owner: Witnessing) -> None:
        self.done: Future[Receipt] = promise()
        self._owner = owner
        self._receipt: Receipt

    def recorded(self, finished: "Future[Receipt]") -> None:
        """The entry is durable, or it never will be."""
        error = finished.exception()
        if error is not None:
            self.done.set_exception(error)
            return
        self._receipt = finished.result()
        try:
            self._ask().add_done_callback(self._signed)
        except HauberkError as refused:
            self._late(refused)

    def _ask(self) -> "Future[str]":
        position, cosign = self._receipt.position, self._owner.cosign
        if cosign is None or position is None:
            raise NotCosigned("no witness can be asked from here", position=position)
        return cosign(position + 1)

    def _signed(self, finished: "Future[str]") -> None:
        error = finished.exception()
        if error is None:
            self.done.set_result(self._receipt)
        elif isinstance(error, HauberkError):
            self._late(error)
        else:
            self.done.set_exception(error)

    def _late(self, error: HauberkError) -> None:
        if self._owner.uncosigned is Uncosigned.REFUSE:
            self.done.set_exception(error)
            return
        _log.warning("entry %s is recorded without its witnesses: %s", self._receipt.position, error.code)
        self._owner.report(self._receipt, error.code)
        self.done.set_result(self._receipt)
