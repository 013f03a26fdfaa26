"""Clocks. Whatever reads the time takes one of these, so that tests never sleep."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time and monotonic time. Implementations are thread-safe."""

    def time(self) -> float:
        """Return Unix time in seconds."""

    def time_ns(self) -> int:
        """Return Unix time in nanoseconds."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""


class SystemClock:
    """The machine's own clocks."""

    def time(self) -> float:
        """Return Unix time in seconds."""
        return time.time()

    def time_ns(self) -> int:
        """Return Unix time in nanoseconds."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to.

    Args:
        now: Unix time in seconds to start at.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def time(self) -> float:
        """Return Unix time in seconds."""
        return self.now

    def time_ns(self) -> int:
        """Return Unix time in nanoseconds."""
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        """Return the same seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`."""
        self.now += seconds


SYSTEM_CLOCK = SystemClock()
