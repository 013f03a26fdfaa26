"""Entries as people and programs outside see them: plain data."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from hauberk.core.event import Entry
from hauberk.errors import RecordsError
from hauberk.records._encode import TEXTS, decode_event
from hauberk.records.fold import FOLDED

WINDOW = 1_000  # entries at the end of a log that are looked at first
MAX_SHOWN = 200  # characters of a field in a line, bytes of what cannot be read


def entry_view(entry: Entry) -> Mapping[str, object]:
    """Return an entry as plain data; empty fields are left out.

    An entry that cannot be read shows what its columns say and the start of its bytes as `unreadable`, so that one odd
    producer cannot hide the entries of all others.
    """
    try:
        event = decode_event(entry.meta, entry.public)
    except (RecordsError, RecursionError):
        unreadable = {"meta": entry.meta[:MAX_SHOWN].hex(), "public": entry.public[:MAX_SHOWN].hex()}
        known = {"position": entry.position, "time": "-", "type": entry.type, "stream": entry.stream}
        return {**known, "id": entry.id.hex(), "unreadable": unreadable}
    view: dict[str, object] = {
        "position": entry.position,
        "time": _time(event.time_ns),
        "type": event.type,
        "stream": event.stream,
        "id": event.id.hex(),
    }
    for name in TEXTS:
        if value := getattr(event, name):
            view[name] = value
    if event.data:
        view["data"] = dict(event.data)
    return view


def _time(time_ns: int) -> str:
    """Return ISO 8601; a time no calendar has is shown as it was given, since a producer may claim anything."""
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{time_ns} ns"


def printable(value: object) -> str:
    """Return text that is safe on a terminal: no control or direction characters, no further lines, bounded."""
    text = str(value)[:MAX_SHOWN]
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def entry_line(view: Mapping[str, object]) -> str:
    """Return one line about an entry, for people. What producers wrote cannot forge a second one."""
    who = printable(view.get("actor") or view.get("address") or "-")
    what = " ".join(printable(view[name]) for name in ("outcome", "code", "rule") if name in view)
    return f"{view['position']:>7}  {view['time']}  {printable(view['type']):<24} {who}  {what}".rstrip()


def _tells(entry: Entry, incident: str) -> bool:
    """Tell whether an entry is about an incident: under its own id, or among those it counts.

    Quotes within a text are escaped in both parts, so no text a producer chose looks like the field.
    """
    quoted = f'"{incident}"'.encode()
    return b'"incident":' + quoted in entry.meta or (entry.type.endswith(FOLDED) and quoted in entry.public)


def last_entries(
    read: Callable[..., Iterable[Entry]],
    size: int,
    limit: int,
    *,
    stream: str | None = None,
    kind: str | None = None,
    incident: str | None = None,
) -> Sequence[Entry]:
    """Return the last entries of that sort, in order; looks at ever more of the end of the log.

    Args:
        read: `Store.entries` of one log.
        size: of the log.
        limit: how many at most.
        stream: only of this stream.
        kind: only of this type.
        incident: only those about this incident. A producer may write an id it was told into its own stream, so there
            can be several: the stream says whose word each is.
    """
    window = max(limit, WINDOW)
    while True:
        after = size - 1 - window
        entries = read(after=max(-1, after), stream=stream, kind=kind, limit=size)
        found = deque((entry for entry in entries if not incident or _tells(entry, incident)), limit)
        if len(found) == limit or after < 0:
            return list(found)
        window *= 4
