"""Waking whoever waits for new events, in a thread or in a coroutine, without a thread for each of them."""

import asyncio
import threading
import weakref
from contextlib import suppress


class Bell:
    """Rung by anybody, heard by one. A ring that nobody waits for is heard by the next who does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _sleeper
        self._rung = threading.Event()
        self._sleeper: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self.over = False  # there will be nothing new any more

    def end(self) -> None:
        """Wake who waits, for the last time."""
        self.over = True
        self.ring()

    def ring(self) -> None:
        """Wake who waits; from any thread, never blocks."""
        with self._lock:
            self._rung.set()
            sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            loop, future = sleeper
            with suppress(RuntimeError):  # its loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(_wake, future)

    def hear(self, timeout: float) -> None:
        """Wait for a ring, at most `timeout` seconds."""
        self._rung.wait(timeout)
        self._rung.clear()

    async def heard(self, timeout: float) -> None:  # noqa: ASYNC109  # polling goes on after it, it is no deadline
        """Wait for a ring, at most `timeout` seconds."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            if not self._rung.is_set():
                self._sleeper = (loop, future)
            else:
                future.set_result(None)
        with suppress(TimeoutError):
            await asyncio.wait_for(future, timeout)
        with self._lock:
            self._sleeper = None
            self._rung.clear()


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class Bells:
    """All bells of one store. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _bells and _over
        self._bells: weakref.WeakSet[Bell] = weakref.WeakSet()
        self._over = False

    def bell(self) -> Bell:
        """Return a new one; forgotten when nobody holds it any more."""
        made = Bell()
        with self._lock:
            self._bells.add(made)
            made.over = self._over
        return made

    def ring(self) -> None:
        """Ring all of them."""
        with self._lock:
            bells = list(self._bells)
        for bell in bells:
            bell.ring()

    def end(self) -> None:
        """Ring all of them for the last time, and whatever is made from now on is over already."""
        with self._lock:
            self._over = True
            bells = list(self._bells)
        for bell in bells:
            bell.end()
