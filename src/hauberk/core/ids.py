"""Identifiers: UUIDv7 (RFC 9562 section 5.7) for events, short random ids for incidents."""

import os
import time
from collections.abc import Callable

_VERSION_BITS = (0x7 << 76) | (0x2 << 62)  # version 7, variant 2
_RANDOM_BITS = (1 << 80) - 1 & ~((0xF << 76) | (0x3 << 62))


def uuid7(*, now_ns: int | None = None, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Return 16 bytes that sort by time and whose 74 random bits nobody guesses.

    Args:
        now_ns: Unix time in nanoseconds, default the clock.
        random: source of randomness.
    """
    millis = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    return ((millis << 80) | (int.from_bytes(random(10)) & _RANDOM_BITS) | _VERSION_BITS).to_bytes(16)


def incident_id(random: Callable[[int], bytes] = os.urandom) -> str:
    """Return the 16 hex digits a caller may quote to support."""
    return random(8).hex()
