"""Identifiers: UUIDv7 (RFC 9562 section 5.7) for events, short random ids for incidents."""

import os
import time
from collections import deque
from collections.abc import Callable

_VERSION_BITS = (0x7 << 76) | (0x2 << 62)  # version 7, variant 2
_RANDOM_BITS = (1 << 80) - 1 & ~((0xF << 76) | (0x3 << 62))


_POOLED = 256  # ids' worth of randomness fetched at once
_ID_BYTES = 10
_pool: deque[bytes] = deque()  # each part is handed out once; popping is atomic


def _fetch_once(size: int) -> bytes:
    """Return operating system randomness from a small pool.

    `os.urandom` lets go of the interpreter lock; once an event, beside a busy event loop, that costs far more than the
    randomness. A forked child starts with an empty pool.
    """
    if size != _ID_BYTES:
        return os.urandom(size)
    while True:
        try:
            return _pool.pop()
        except IndexError:
            fresh = os.urandom(_ID_BYTES * _POOLED)
            _pool.extend(fresh[at : at + _ID_BYTES] for at in range(0, len(fresh), _ID_BYTES))


os.register_at_fork(after_in_child=_pool.clear)


def uuid7(*, now_ns: int | None = None, random: Callable[[int], bytes] | None = None) -> bytes:
    """Return 16 bytes that sort by time and whose 74 random bits nobody guesses.

    Args:
        now_ns: Unix time in nanoseconds, default the clock.
        random: source of randomness, default the operating system's, fetched for many ids at once.
    """
    random = _fetch_once if random is None else random
    millis = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    return ((millis << 80) | (int.from_bytes(random(_ID_BYTES)) & _RANDOM_BITS) | _VERSION_BITS).to_bytes(16)


def incident_id(random: Callable[[int], bytes] = os.urandom) -> str:
    """Return the 16 hex digits a caller may quote to support."""
    return random(8).hex()
