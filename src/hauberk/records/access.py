"""Reading the record is recorded: who read which streams of it, in which minute, and how much.

The first time in a minute is durable before anything is shown; how many entries it became is written when the minute is
over. So a reader who follows the record adds two entries a minute, whatever is read, and none at all by reading those:
they are in a stream of their own, reading which is not recorded.
"""

import threading
from concurrent.futures import Future
from datetime import UTC, datetime

import msgspec

from hauberk.core.event import Receipt
from hauberk.records.permission import Context, Permission
from hauberk.records.streams import READS

TYPE = "records.read"
COUNTED = "records.read.counted"
MOST = 4_096  # readers and streams of one minute that are counted apart; beyond it, counting starts afresh
MINUTE = 60  # seconds


class _Count(msgspec.Struct):
    """What one reader read of one stream in one minute."""

    who: Context
    what: str
    minute: str
    opened: "Future[Receipt]"
    entries: int = 0


class Reads:
    """Records reading. Thread-safe.

    Args:
        permission: knows how readers are called, and where records go.
    """

    def __init__(self, permission: Permission) -> None:
        self._permission = permission
        self._lock = threading.Lock()  # guards everything below
        self._minute = 0
        self._counts: dict[tuple[str, str], _Count] = {}

    def note(self, who: Context, what: str, entries: int) -> None:
        """Take note that somebody is about to be shown entries; returns once that is durable.

        Args:
            who: reads.
            what: stream or pattern, as it was asked for.
            entries: how many.

        Raises:
            RecordsError: HBK-703, HBK-706 it cannot be recorded, so nothing may be shown.
        """
        minute = int(self._permission.clock.time()) // MINUTE
        key = (who.name(self._permission.pseudonyms), what)
        with self._lock:
            over = self._over(minute)
            count = self._counts.get(key)
            if count is None or _failed(count.opened):
                count = self._counts[key] = self._begin(who, what, minute)
            count.entries += entries
        self._tell(over)
        count.opened.result()

    def _over(self, minute: int) -> list[_Count]:
        """Return the counts that end now; called with the lock held."""
        if minute == self._minute and len(self._counts) < MOST:
            return []
        self._minute = minute
        ended, self._counts = list(self._counts.values()), {}
        return ended

    def _begin(self, who: Context, what: str, minute: int) -> _Count:
        text = datetime.fromtimestamp(minute * MINUTE, UTC).strftime("%Y-%m-%dT%H:%MZ")
        event = self._permission.event(TYPE, READS, who, data={"stream": what, "minute": text})
        return _Count(who, what, text, self._permission.recorder.submit(event))

    def _tell(self, over: list[_Count]) -> None:
        for count in over:
            data = {"stream": count.what, "minute": count.minute, "entries": count.entries}
            self._permission.recorder.offer(self._permission.event(COUNTED, READS, count.who, data=data))

    def close(self) -> None:
        """Write the counts of the minute that has begun."""
        with self._lock:
            over, self._counts = list(self._counts.values()), {}
        self._tell(over)


def _failed(opened: "Future[Receipt]") -> bool:
    return opened.done() and opened.exception() is not None
