"""Entries as people and programs outside see them: plain data."""

from collections.abc import Mapping
from datetime import UTC, datetime

from hauberk.core.event import Entry
from hauberk.records._encode import decode_event


def entry_view(entry: Entry) -> Mapping[str, object]:
    """Return an entry as plain data; empty fields are left out.

    Raises:
        RecordsError: HBK-705 when its bytes are not those of an event.
    """
    event = decode_event(entry.meta, entry.public)
    view: dict[str, object] = {
        "position": entry.position,
        "time": datetime.fromtimestamp(event.time_ns / 1e9, UTC).isoformat(timespec="milliseconds"),
        "type": event.type,
        "stream": event.stream,
        "id": event.id.hex(),
    }
    for name in ("actor", "address", "outcome", "code", "rule", "digest", "incident"):
        if value := getattr(event, name):
            view[name] = value
    if event.data:
        view["data"] = dict(event.data)
    return view


def entry_line(view: Mapping[str, object]) -> str:
    """Return one line about an entry, for people."""
    who = view.get("actor") or view.get("address") or "-"
    what = " ".join(str(view[name]) for name in ("outcome", "code", "rule") if name in view)
    return f"{view['position']:>7}  {view['time']}  {view['type']:<24} {who}  {what}".rstrip()
