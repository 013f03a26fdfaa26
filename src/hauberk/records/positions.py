"""Sets of positions of a log, 256 bits for each segment: what a pruning records, and what a verification allows.

Position `p` is bit `p % 8`, counted from the lowest, of byte `p % 256 // 8` of the 32 bytes of segment `p // 256`.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence

from hauberk.records.tile_paths import WIDTH

BYTES = WIDTH // 8  # of a segment's bits
_ALL = (1 << WIDTH) - 1


class Positions:
    """A set of positions that grows."""

    __slots__ = ("_bits",)

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}  # by number of the segment; the lowest bit is its first position

    def add(self, position: int, count: int = 1) -> None:
        """Add neighbouring positions, all of one segment."""
        number, at = divmod(position, WIDTH)
        self._bits[number] = self._bits.get(number, 0) | ((1 << count) - 1) << at & _ALL

    def take(self, first: int, bitmaps: Sequence[str], *, below: int) -> None:
        """Add what a pruning records, but nothing of a segment that is not whole below a position.

        Args:
            first: number of the first segment.
            bitmaps: base64 of the bits of each.
            below: the position.

        Raises:
            ValueError: that is no such record, and nothing was added.
        """
        if first < 0:
            raise ValueError("segments are counted from 0")
        try:
            found = [base64.b64decode(text, validate=True) for text in bitmaps]
        except binascii.Error as error:
            raise ValueError("not base64") from error
        if any(len(bits) != BYTES for bits in found):
            raise ValueError("a bitmap has another length")
        for number, bits in enumerate(found, first):
            if (number + 1) * WIDTH <= below:
                self._bits[number] = self._bits.get(number, 0) | int.from_bytes(bits, "little")

    def parts(self, most: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield the number of a first segment and the base64 of the bits of each from there on, at most so many."""
        numbers = self.segments
        while numbers:
            first = numbers[0]
            here = [number for number in numbers[:most] if number < first + most]
            texts = (self._bits.get(number, 0).to_bytes(BYTES, "little") for number in range(first, here[-1] + 1))
            yield first, tuple(base64.b64encode(bits).decode() for bits in texts)
            numbers = numbers[len(here) :]

    def lacking(self, start: int, stop: int) -> int | None:
        """Return the first position from `start` on and below `stop` that is not in the set."""
        while start < stop:
            number, at = divmod(start, WIDTH)
            free = ~self._bits.get(number, 0) & _ALL & -(1 << at)
            if free:
                found = number * WIDTH + (free & -free).bit_length() - 1
                return found if found < stop else None
            start = (number + 1) * WIDTH
        return None

    def outside(self, other: "Positions") -> int | None:
        """Return the first position that is not in another set."""
        for number in self.segments:
            free = self._bits[number] & ~other._bits.get(number, 0)  # noqa: SLF001  # of this class
            if free:
                return number * WIDTH + (free & -free).bit_length() - 1
        return None

    @property
    def segments(self) -> list[int]:
        """Numbers of the segments that have any, in order."""
        return sorted(number for number, bits in self._bits.items() if bits)

    def of(self, number: int) -> list[int]:
        """Return the positions of one segment, in order."""
        bits = self._bits.get(number, 0)
        return [number * WIDTH + at for at in range(WIDTH) if bits >> at & 1]

    def __contains__(self, position: int) -> bool:
        return bool(self._bits.get(position // WIDTH, 0) >> position % WIDTH & 1)

    def __iter__(self) -> Iterator[int]:
        for number in self.segments:
            yield from self.of(number)

    def __len__(self) -> int:
        return sum(bits.bit_count() for bits in self._bits.values())
