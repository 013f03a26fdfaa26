"""What a producer says about an event, made fit to be kept for ever: JSON types only, bounded, and without secrets.

Nothing here raises because of what it is given, so no audit entry is lost for its details: what is too deep, too many
or too long is cut, what is no JSON type is named by its class, and both are counted. Values under names such as
`password`, `X-Api-Key` or `card_number`, and parts of texts that look like bearer tokens, JWTs or private keys, become
`[secret]` before anything else sees them. Names are compared without case, width, accents or separators, alone and
together with the name they stand under (`{"api": {"key": ..}}`), and letters of other alphabets that look like Latin
ones count as those.

That is as good as names and looks are: secrets under such names and of such shapes are found. A password in the middle
of a sentence, or under a name that says nothing, is a word like any other and stays; so do parts of texts whose
`password=` is written in look-alikes.

The result is JSON: a text is its characters between quotes, escaped, so nothing in it ends a record or a field.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import cast
from uuid import UUID

import msgspec

from hauberk.records.secrets import SECRET, hide, innocent, secret_name

AHEAD = 1_024  # characters behind a cut that are still looked at, so that no cut hides where a secret begins
CUT = "[cut]"  # at the end of what was cut
MORE = "[more]"  # in place of what was left out
_MAX_NAME = 128  # characters of a key
_MAX_BITS = 4_000  # of a number that is written out; Python itself writes 4,300 digits
_MOST = 6  # bytes of a character in JSON
_NUMBER = 24  # bytes of a number in JSON, about
_PLAIN = 1 << 53  # what every JSON reader takes
_INTEGERS = range(-(1 << 63), 1 << 64)  # what ours takes
_TOLD = frozenset({UUID, Decimal, IPv4Address, IPv6Address, type(Path()), PurePosixPath, PureWindowsPath})
_LABELS = ("name", "key", "Name", "Key")
_LABELLED = frozenset({"value", "Value"})
_SEQUENCES = (list, tuple, AbstractSet, deque)
_LISTS = (list, tuple)
_NAMED = (str, bytes)
_BYTES = (bytes, bytearray, memoryview)
_encode = msgspec.json.Encoder().encode

# Whatever mappings and sequences of other makes may raise while they are read; what was read by then is kept.
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, OSError)


class Bounds(msgspec.Struct, frozen=True):
    """How much is kept.

    Args:
        depth: of nesting; deeper than that nobody reads.
        values: in all.
        text: characters of one text; most log lines are shorter.
        size: bytes of the whole as JSON; a quarter of what an entry may hold.
    """

    depth: int = 8
    values: int = 256
    text: int = 2_000
    size: int = 16_384


BOUNDS = Bounds()


class Details(msgspec.Struct, frozen=True):
    """What may be kept.

    Args:
        data: JSON types.
        cut: how many values were cut, left out, or named by their class alone.
        hidden: how many secrets were replaced.
    """

    data: dict[str, object]
    cut: int = 0
    hidden: int = 0


NO_DETAILS = Details({})


def kept_details(details: Mapping[str, object] | None, bounds: Bounds = BOUNDS) -> Details:
    """Return what may be kept of some details.

    Args:
        details: any mapping; it is not changed.
        bounds: how much.
    """
    if details is None:
        return NO_DETAILS
    kept = _Kept(bounds)
    data = kept.mapping(cast("Mapping[object, object]", details), 0)
    return Details(cast("dict[str, object]", data), kept.cut, kept.hidden)


def kept_text(text: str, limit: int) -> tuple[str, int, int]:
    """Return a text without secrets and of at most `limit` characters and a mark; whether it was cut, 0 or 1; and how
    many secrets it held.
    """
    if len(text) <= limit and text.isascii() and innocent(text):
        return text, 0, 0
    kept = _Kept(Bounds(text=limit, size=_MOST * limit + 2))
    return kept.text(text, limit), kept.cut, kept.hidden


def kept_line(text: str, limit: int) -> str:
    """Return a text as `kept_text` does, with escapes for what would not stay on its line: for an id among others."""
    short = kept_text(text, limit)[0]
    if short.isprintable():
        return short
    return kept_text("".join(char if char.isprintable() else ascii(char)[1:-1] for char in short), limit)[0]


class _Kept:
    """Some details on their way in: what room is left, and what was taken away."""

    __slots__ = ("_bounds", "_size", "_values", "cut", "hidden")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._size = bounds.size  # bytes left
        self._values = bounds.values  # values left
        self.cut = 0
        self.hidden = 0

    def text(self, whole: str, limit: int) -> str:
        """Return a text without secrets that fits. Most do as they are."""
        length = len(whole)
        if length <= limit and length + 2 <= self._size and whole.isascii() and whole.isprintable() and innocent(whole):
            self._size -= length + 2  # quotes and backslashes count once; there is room for them
            return whole
        return self._changed(whole, limit)

    def _changed(self, whole: str, limit: int) -> str:
        text, hidden = hide(whole if len(whole) <= limit + AHEAD else whole[: limit + AHEAD])
        self.hidden += hidden
        short = text[:limit] if len(text) > limit else text
        if not short.isascii():
            short = short.encode("utf-8", "replace").decode()  # half a surrogate pair is no character
        size = len(_encode(short))
        if size > self._size:
            short = short[: max(self._size, 0) // _MOST]
            size = len(_encode(short))
        self._size -= size
        if len(short) == len(text) and len(whole) <= limit + AHEAD:
            return short
        self.cut += 1
        return short + CUT

    def value(self, value: object, depth: int, above: str = "") -> object:
        """Return a value as JSON types; `depth` is that of what holds it, `above` the name it stands under."""
        kind = type(value)
        if kind is str:
            return self.text(cast("str", value), self._bounds.text)
        if value is None or kind is bool or (kind is int and -_PLAIN < cast("int", value) < _PLAIN):
            self._size -= _NUMBER
            return value
        if kind is dict or isinstance(value, Mapping):
            return self.mapping(cast("Mapping[object, object]", value), depth + 1, above)
        if isinstance(value, _SEQUENCES):
            return self._sequence(value, depth + 1, above)
        return self._other(value, depth, above)

    def _other(self, value: object, depth: int, above: str) -> object:
        if isinstance(value, Enum):
            return self._class(value) if depth >= self._bounds.depth else self.value(value.value, depth + 1, above)
        if isinstance(value, int):
            return self._integer(int.__int__(value))
        if isinstance(value, float | timedelta):
            return self._float(float.__float__(value) if isinstance(value, float) else value.total_seconds())
        text = _told(value)
        return self._class(value) if text is None else self.text(text, self._bounds.text)

    def _integer(self, value: int) -> int | str:
        self._size -= _NUMBER
        if value in _INTEGERS:
            return value
        if value.bit_length() > _MAX_BITS:
            self.cut += 1
            return f"[{value.bit_length()} bits]"
        return self.text(str(value), self._bounds.text)

    def _float(self, value: float) -> float | str:
        self._size -= _NUMBER
        return value if value - value == 0 else str(value)  # JSON has no infinities

    def _class(self, value: object) -> str:
        """Name what is no JSON type; nothing of the object itself runs, or is shown."""
        self.cut += 1
        if isinstance(value, _BYTES):
            return f"[{len(value)} bytes]"
        return f"[{type(value).__name__[:_MAX_NAME]}]"

    def mapping(self, found: Mapping[object, object], depth: int, above: str = "") -> object:
        """Return a mapping whose keys are texts."""
        if depth > self._bounds.depth:
            return self._class(found)
        kept: dict[str, object] = {}
        try:
            for key, value in found.items():
                if self._full():
                    kept[MORE] = len(found) - len(kept)
                    break
                if type(key) is str and _plain(key) and key not in kept and not (above and _together(above, key)):
                    self._size -= len(key)
                    kept[key] = self.value(value, depth, key)
                else:
                    name = _name(key)
                    kept[self._key(name, kept)] = self._under(
                        _label(found) if name in _LABELLED else name, value, depth, above
                    )
        except _UNREADABLE as error:
            kept[self._key("[unreadable]", kept)] = type(error).__name__
            self.cut += 1
        return kept

    def _full(self) -> bool:
        """Count one more value, or what is left out now."""
        self._values -= 1
        full = self._values < 0 or self._size <= 0
        self.cut += full
        return full

    def _under(self, name: str, value: object, depth: int, above: str) -> object:
        """Return what may be kept under a name, which stands under another itself."""
        if (secret_name(name) or (above and _together(above, name))) and not _tells_nothing(name, value):
            self.hidden += 1
            self._size -= len(SECRET)
            return SECRET
        return self.value(value, depth, name)

    def _key(self, whole: str, taken: Mapping[str, object]) -> str:
        """Return a key that fits and is no other's."""
        name = self.text(whole, _MAX_NAME)
        while name in taken:
            self.cut += 1
            name += "~"
        return name

    def _sequence(self, found: Iterable[object], depth: int, above: str) -> object:
        if depth > self._bounds.depth:
            return self._class(found)
        kept: list[object] = []
        try:
            name = _paired(found)
            for value in found:
                if self._full():
                    kept.append(MORE)
                    break
                named = bool(kept and name)
                kept.append(self._under(name, value, depth, above) if named else self.value(value, depth, above))
        except _UNREADABLE as error:
            self.cut += 1
            kept.append(f"[unreadable] {type(error).__name__}")
        return kept


@lru_cache(4_096)
def _plain(name: str) -> bool:
    """Tell whether a key can stay as it is, and what stands under it is no secret."""
    short = len(name) <= _MAX_NAME and name.isascii() and name.isprintable()
    return short and name not in _LABELLED and innocent(name) and not secret_name(name)


def _together(above: str, name: str) -> bool:
    """Tell whether a name is that of a secret only with the one it stands under: `{"api": {"key": ..}}`."""
    return secret_name(f"{above[:_MAX_NAME]}.{name[:_MAX_NAME]}")


def _label(found: Mapping[object, object]) -> str:
    """Return what names the value of `{"name": .., "value": ..}`, as headers and parameters are often written."""
    return next((label for name in _LABELS if isinstance(label := found.get(name), str)), "")


def _tells_nothing(name: str, value: object) -> bool:
    """Tell whether a value is no secret though its name says so: nothing, yes or no, and how many tokens."""
    if value is None or isinstance(value, bool):
        return True
    return isinstance(value, int | float) and "tokens" in name.lower()


def _told(value: object) -> str | None:
    """Return what some well-known types look like as text."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, datetime):
        return datetime.isoformat(value)  # not what a subclass makes of it
    if isinstance(value, date):
        return date.isoformat(value)
    if isinstance(value, time):
        return time.isoformat(value)
    return str(value) if type(value) in _TOLD else None


def _paired(found: Iterable[object]) -> str:
    """Return the name if this is a name and a value, such as a header; else nothing."""
    if isinstance(found, _LISTS) and len(found) == 2 and isinstance(found[0], _NAMED):  # noqa: PLR2004  # two
        return _name(found[0])
    return ""


def _name(key: object) -> str:
    """Return a key as text; those of headers may be bytes."""
    if isinstance(key, str):
        return key if type(key) is str else str.__str__(key)
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    if isinstance(key, int) and key in _INTEGERS:
        return str(int.__int__(key))
    return f"[{type(key).__name__}]"
