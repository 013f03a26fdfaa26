"""CloudEvents 1.0 (github.com/cloudevents/spec, v1.0.2), structured mode in JSON: recorded events out, others' in.

```
{"specversion":"1.0","id":"0199f3c2-...","source":"/example.org/ledger","type":"shop.order.placed.v1","subject":"order-17",
 "time":"2026-11-25T01:13:33.123456789Z","partitionkey":"order-17","correlationid":"c1","datacontenttype":"application/json",
 "data":{"order":"17","customer":"ann","total":3}}
```

`subject` and `partitionkey` are the stream; `correlationid` and `causationid` are the official extension. A private
field is in `data` only if it was shown to whoever exports; else its name is in the extension `redacted` or `erased`.
Import is strict: what is not a CloudEvent, or not exactly an event of a known class, is refused.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from hauberk.errors import Malformed, Oversized, RecordsError, UnknownType
from hauberk.records.hidden import Erased, Redacted
from hauberk.records.reading import Recorded
from hauberk.records.sealed import parts
from hauberk.records.shape import shape_of
from hauberk.records.streams import own_stream_of, shown_stream
from hauberk.records.typed import Event, Untyped, class_of

MAX_BYTES = 262_144  # of a CloudEvent; the specification asks for at least 64 KiB
_ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_REFERENCE = re.compile(r"[!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]+")  # RFC 3986 appendix A, its characters
_JSON = re.compile(r"application/([a-z0-9.+-]+\+)?json(\s*;.*)?", re.IGNORECASE)
_REQUIRED = ("id", "source", "specversion", "type")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff﷐-﷯￾￿]")
_encode = msgspec.json.Encoder().encode


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A CloudEvent that may be appended: `store.append(it.stream, [it.event], ids=[it.event_id], actor=...)`.

    Args:
        event: of the class its type names.
        id: as its source gave it.
        source: who made it.
        stream: its partition key, else its subject, else empty.
        time: when, by its source's clock, None where it does not say.
        extensions: all other attributes.
    """

    event: Event
    id: str
    source: str
    stream: str
    time: datetime | None
    extensions: Mapping[str, object]

    @property
    def event_id(self) -> bytes:
        """The same 16 bytes each time it comes: of a UUID its own, else 16 bytes of SHA-256 of source and id."""
        try:
            found = UUID(self.id)
        except ValueError:
            found = None
        if found is not None and str(found) == self.id:
            return found.bytes
        return sha256(parts(self.source.encode(), self.id.encode())).digest()[:16]


def to_cloudevent(item: Recorded[Any], *, source: str, schema: str = "") -> dict[str, object]:
    """Return a recorded event as the JSON object of a CloudEvent.

    Args:
        item: as its exporter may see it.
        source: a URI-reference that names this log, such as `/example.org/ledger`.
        schema: `dataschema`, a URI; left out when empty.
    """
    event = item.event
    fields = dict(event.data) if isinstance(event, Untyped) else msgspec.structs.asdict(event)
    found: dict[str, object] = {
        "specversion": "1.0",
        "id": str(UUID(bytes=item.id)),
        "source": source,
        "type": item.type if isinstance(event, Untyped) else type(event).__event_type__,
        "subject": item.stream,
        "time": _rfc3339(item.time_ns),
        "partitionkey": item.stream,
    }
    extra = {
        "dataschema": schema,
        "correlationid": item.correlation,
        "causationid": item.causation,
        "redacted": _names(fields, Redacted),
        "erased": _names(fields, Erased),
    }
    found |= {name: value for name, value in extra.items() if value}
    shown = {name: value for name, value in fields.items() if not isinstance(value, Redacted | Erased)}
    return found | {"datacontenttype": "application/json", "data": msgspec.to_builtins(shown)}


def encode_cloudevents(items: Sequence[Recorded[Any]], *, source: str) -> bytes:
    """Return recorded events as JSON lines, each a CloudEvent."""
    return b"".join(_encode(to_cloudevent(item, source=source)) + b"\n" for item in items)


def _names(fields: Mapping[str, object], kind: type) -> str:
    return ",".join(sorted(name for name, value in fields.items() if isinstance(value, kind)))


def _rfc3339(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def from_cloudevent(data: bytes | str) -> Imported:
    """Return a CloudEvent in structured JSON as an event that may be appended.

    Raises:
        Malformed: HBK-716 it is no CloudEvent, or its data are not exactly the fields of its class.
        Oversized: HBK-715.
        UnknownType: HBK-714 no class is registered for its type.
    """
    found = _parsed(data)
    attributes = {name: value for name, value in found.items() if name not in {"data", "data_base64"}}
    _check_attributes(attributes)
    kind = attributes.pop("type")
    cls = class_of(kind)
    if cls is None:
        raise UnknownType("no class is registered for this type", type=kind)
    if "data_base64" in found or not isinstance(found.get("data"), dict):
        raise Malformed("the data of an event are a JSON object", type=kind)
    if not _JSON.fullmatch(attributes.pop("datacontenttype", "application/json")):
        raise Malformed("the data of an event are JSON", type=kind)
    event = _event(cls, found["data"])
    subject, key = attributes.pop("subject", ""), attributes.pop("partitionkey", "")
    del attributes["specversion"]
    return Imported(
        event=event, id=attributes.pop("id"), source=attributes.pop("source"), stream=_stream(key or subject),
        time=_time(attributes.pop("time", None)), extensions=attributes,
    )  # fmt: skip


def _parsed(data: bytes | str) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise Oversized("the CloudEvent is too large", bytes=len(data))
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Malformed("not a CloudEvent: no JSON, or a name twice") from error
    if not isinstance(found, dict):
        raise Malformed("not a CloudEvent")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _no_number(text: str) -> object:
    raise ValueError(text)


def _check_attributes(attributes: Mapping[str, object]) -> None:
    """Refuse attributes that the specification's section "Context Attributes" does not allow."""
    for name, value in attributes.items():
        if not _ATTRIBUTE.fullmatch(name):
            raise Malformed("an attribute has a name of lower-case letters and digits, at most 20", name=name[:40])
        text = isinstance(value, str)
        known = name in _REQUIRED or name in {"subject", "time", "dataschema", "datacontenttype", "partitionkey"}
        integer = isinstance(value, int) and -(1 << 31) <= value < 1 << 31
        if (isinstance(value, str) and _CONTROL.search(value)) or not (text or (integer and not known)):
            raise Malformed("an attribute is a string without control characters", name=name)
        if known and not value:
            raise Malformed("an attribute is empty", name=name)
    if any(name not in attributes for name in _REQUIRED) or attributes["specversion"] != "1.0":
        raise Malformed("a CloudEvent has id, source, type and specversion 1.0")
    if not _REFERENCE.fullmatch(str(attributes["source"])):
        raise Malformed("the source is no URI-reference")


def _time(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value.upper() if _TIME.fullmatch(value) else "")
    except ValueError:
        raise Malformed("the time is no RFC 3339 timestamp") from None


def _stream(name: str) -> str:
    try:
        return shown_stream(own_stream_of(name)) if name else ""
    except RecordsError:
        return ""  # the partition key of another system need not be a name of ours


def _event(cls: type[Event], fields: Mapping[str, object]) -> Event:
    shape = shape_of(cls)
    strange = fields.keys() - set(shape.clear) - shape.hidden.keys()
    if strange:
        raise Malformed("the event has a field that its class has not", type=shape.kind)
    try:
        public = _encode({name: value for name, value in fields.items() if name not in shape.hidden})
        private = {name: _encode(fields[name]) for name in fields.keys() & shape.hidden.keys()}
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Malformed("the event cannot be read", type=shape.kind) from error
    return shape.read(public, private)
