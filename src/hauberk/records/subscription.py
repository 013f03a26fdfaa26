"""Subscriptions: all events from a position on, and then each new one as it comes.

Delivery is at least once: `ack` moves the durable cursor of a named subscription behind an event and everything before
it, and after a restart delivery goes on from there. New events are noticed by a notification, and by looking again
where one was lost. When the right to subscribe ends, so does the subscription, with `Denied`: whenever other policies
or revocations are in force it is asked for again before the next event is handed over, and at the latest when the
proof of who subscribed has expired. When the store is closed it just ends.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic

from hauberk.errors import HauberkError, RecordsError
from hauberk.records.bell import Bell
from hauberk.records.cursor import Cursor
from hauberk.records.pending import Pending
from hauberk.records.reading import PAGE, E, Failed, Query, Reader, Recorded


class Subscription(Generic[E]):
    """Made by `EventStore.subscribe`. `for` and `async for` wait for what comes; one of them at a time.

    Args:
        reader: turns entries into events.
        query: what is subscribed to.
        start: position to begin at.
        cursor: opens the durable one when delivery begins, None for a subscription without a name.
        bell: rung when there may be something new.
        poll: seconds after which to look, rung or not.
    """

    def __init__(
        self,
        reader: Reader,
        query: Query,
        *,
        start: int,
        cursor: Callable[[], Cursor] | None,
        bell: Bell,
        poll: float,
    ) -> None:
        self._reader = reader
        self._query = query
        self._at = start  # everything before was fetched
        self._open = cursor
        self._cursor: Cursor | None = None
        self._bell = bell
        self._poll = poll
        self._fetched: deque[Recorded[E] | Failed] = deque()
        self._moment: object = None  # what was in force when _fetched was
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it has ended: it was closed, its right ended, or the store was closed."""
        return self._closed or self._bell.over

    @property
    def position(self) -> int:
        """Where delivery would go on after a restart; without a name, where it goes on now."""
        if self._cursor is not None:
            return self._cursor.position
        return self._fetched[0].position if self._fetched else self._at

    def __iter__(self) -> Iterator[Recorded[E]]:
        while not self.closed:
            if (item := self._next()) is not None:
                yield item
            elif not self.closed:
                self._bell.hear(self._poll)

    async def __aiter__(self) -> AsyncIterator[Recorded[E]]:
        while not self.closed:
            item = self._ready()
            if item is None:
                item = await asyncio.to_thread(self._next)
            if item is not None:
                yield item
            elif not self.closed:
                await self._bell.heard(self._poll)

    def ack(self, item: Recorded[E]) -> Pending[None]:
        """Say that an event, and all before it, need not be delivered again.

        Raises:
            RecordsError: HBK-706 the subscription has no name.
            Conflict: HBK-701, when waited for: a newer subscription of this name has taken over.
        """
        if self._cursor is None:
            raise RecordsError("HBK-706", "only a subscription with a name has a cursor, once it delivers")
        return Pending(self._cursor.move(item.position + 1))

    def close(self) -> None:
        """End it; whoever waits for the next event gets none. From any thread."""
        self._closed = True
        self._bell.ring()

    def _ready(self) -> Recorded[E] | None:
        """Return the next event that was fetched under what is in force now."""
        permission = self._reader.permission
        if not self._fetched or self._moment is None or self._moment != permission.moment:
            return None
        return None if permission.expired(self._query.who) else self._taken()

    def _taken(self) -> Recorded[E]:
        item = self._fetched.popleft()
        if isinstance(item, Failed):  # looked at again by whoever goes on: the class may be there by then
            self._at = item.position
            raise item.error
        return item

    def _next(self) -> Recorded[E] | None:
        """Return the next event there is, or None; it may take a few reads.

        Raises:
            Denied: HBK-300 the right to subscribe has ended.
            RecordsError: HBK-710, HBK-714, HBK-716 the next event cannot be shown.
        """
        item = self._ready()
        if item is not None:
            return item
        if self._open is not None and self._cursor is None:
            self._enforce()
            self._cursor = self._open()
            self._at = self._cursor.position
        if self._fetched:  # other policies, perhaps: what was fetched is looked at again
            self._at = self._fetched[0].position
            self._fetched.clear()
        self._fetch()
        return self._taken() if self._fetched else None

    def _fetch(self) -> None:
        """Fetch until there is something to deliver, or nothing more to look at."""
        query, ledger = self._query, self._reader.ledger
        while not self._fetched and not self.closed:
            self._moment = self._reader.permission.moment
            self._enforce()
            size = ledger.head().size
            if self._at >= size:
                return
            entries = list(
                ledger.entries(after=self._at - 1, before=size, stream=query.exact or None, kind=query.kind, limit=PAGE)
            )
            self._fetched.extend(self._reader.shown(query, entries))
            self._at = entries[-1].position + 1 if len(entries) == PAGE else size

    def _enforce(self) -> None:
        try:
            self._reader.enforce(self._query)
        except HauberkError:
            self._closed = True
            raise
