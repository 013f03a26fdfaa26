"""Who follows the feed and how far. In memory only: a service that lives asks again within a second or two."""

import threading
from collections.abc import Iterator

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.crypto.x509 import SvidInfo

SILENT = 30.0  # seconds after which whoever has not asked is taken to be gone; heartbeats come each second


class Following(msgspec.Struct, frozen=True):
    """One certificate that follows.

    Args:
        serial: lower-case hex.
        spiffe_id: whose.
        number: of the feed, in force there.
        at: monotonic seconds of the last poll.
    """

    serial: str
    spiffe_id: str
    number: int
    at: float


class Audience:
    """The services that follow, one line per certificate. Thread-safe.

    Args:
        clock: time source.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards _lines
        self._lines: dict[str, Following] = {}
        self._swept = clock.monotonic()

    def heard(self, peer: SvidInfo, number: int) -> None:
        """Note that `peer` has everything up to `number` in force."""
        now = self._clock.monotonic()
        with self._lock:
            self._lines[peer.serial] = Following(peer.serial, str(peer.spiffe_id), number, now)
            if now - self._swept > SILENT:
                self._swept = now
                self._lines = {key: line for key, line in self._lines.items() if now - line.at <= SILENT}

    def present(self) -> Iterator[Following]:
        """Yield whoever asked lately, by id."""
        with self._lock:
            lines = sorted(self._lines.values(), key=lambda line: (line.spiffe_id, line.serial))
        now = self._clock.monotonic()
        return (line for line in lines if now - line.at <= SILENT)
