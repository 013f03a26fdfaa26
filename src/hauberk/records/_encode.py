"""From an event to the exact bytes that are stored and hashed. JSON, so that an auditor can read a row with any tool.

`meta` holds who, what, when and on what ground; `public` holds the further facts. Worked example of `meta`:

```
{"id":"0192..","type":"policy.denied","stream":"/services/production/payment-service","time":1790000000000000000,
 "actor":"spiffe://example.org/ns/production/sa/evil","outcome":"deny","code":"HBK-300","rule":"","digest":"ab12.."}
```
"""

from collections.abc import Iterable

import msgspec

from hauberk.core.event import Event
from hauberk.errors import Malformed, Oversized

MAX_PART_BYTES = 65_535  # a record is a fact, not a document
MAX_STREAM = 512  # bytes; with `MAX_TYPE` this is what a database keeps in an index, whose rows are small
MAX_TYPE = 128  # bytes
MAX_ACTOR = 2_048  # bytes of a SPIFFE id
MAX_FIELD = 2_100  # characters of any other text of `meta`: ids have at most 2,048, and a mark where they were cut
MAX_DEPTH = 64  # of nested data; far below where any reader's own limit could be
_LONGEST_NUMBER = 1_000  # digits; Python itself reads 4,300
_encode = msgspec.json.Encoder().encode
_WIDEST = 4  # bytes of a character
_EMPTY = b"{}"


TEXTS = (
    "actor", "address", "outcome", "code", "rule", "digest", "incident", "session", "correlation", "causation",
)  # fmt: skip  # of an event, beside its stream and type


class Meta(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The wire form of an event without its data; empty fields are left out."""

    id: str
    type: str
    stream: str
    time: int
    actor: str = ""
    address: str = ""
    outcome: str = ""
    code: str = ""
    rule: str = ""
    digest: str = ""
    incident: str = ""
    session: str = ""
    correlation: str = ""
    causation: str = ""


_decode_meta = msgspec.json.Decoder(Meta).decode
_decode_data = msgspec.json.Decoder(dict[str, object]).decode


def encode_event(event: Event) -> tuple[bytes, bytes]:
    """Return `meta` and `public` of an event.

    Raises:
        Malformed: HBK-716 when it cannot be encoded, or not be read again.
        Oversized: HBK-715 when a part is larger than a record may be.
    """
    try:
        meta = _encode(
            Meta(
                event.id.hex(), event.type, event.stream, event.time_ns, event.actor, event.address, event.outcome,
                event.code, event.rule, event.digest, event.incident, event.session, event.correlation, event.causation,
            )
        )  # fmt: skip
        public = _encode(event.data) if event.data else _EMPTY
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Malformed("the data of an event holds JSON types only") from error
    if len(meta) > MAX_STREAM or len(event.type) * _WIDEST > MAX_TYPE:  # else no text of it can be too long
        _check_lengths(event)
    if "\0" in event.stream or "\0" in event.type:  # which no database takes as text
        raise Malformed("the stream or type of an event holds a NUL")
    private = sum(len(one.value) for one in event.private) if event.private else 0
    if len(meta) > MAX_PART_BYTES or len(public) > MAX_PART_BYTES or private > MAX_PART_BYTES:
        raise Oversized("a part of the event is too large", bytes=max(len(meta), len(public), private))
    size = len(public)
    if size > MAX_DEPTH and (size > _LONGEST_NUMBER or public.count(b"{") + public.count(b"[") > MAX_DEPTH):
        _check_readable(public)
    return meta, public


def _check_lengths(event: Event) -> None:
    """Refuse texts of `meta` that are too long; an index does not take them all, and no reader wants them.

    Raises:
        Oversized: HBK-715.
    """
    for what, size, most in (
        ("stream", len(event.stream.encode()), MAX_STREAM),
        ("type", len(event.type.encode()), MAX_TYPE),
        ("actor", len(event.actor.encode()), MAX_ACTOR),
        *((name, len(getattr(event, name)), MAX_FIELD) for name in TEXTS[1:]),
    ):
        if size > most:
            raise Oversized(f"the {what} of the event is too long", bytes=size, most=most)


def _check_readable(public: bytes) -> None:
    """Refuse what an auditor's reader could choke on, though ours might not: a deep nesting, or an endless number.

    Raises:
        Malformed: HBK-716.
    """
    try:
        level: list[object] = [_decode_data(public)]
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Malformed("the data of an event cannot be read again") from error
    for _ in range(MAX_DEPTH + 1):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return
    raise Malformed("the data of an event is nested too deep", depth=MAX_DEPTH)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def decode_event(meta: bytes, public: bytes) -> Event:
    """Rebuild the event.

    Raises:
        Malformed: HBK-716 when these are not the bytes of an event.
    """
    try:
        found, data = _decode_meta(meta), _decode_data(public)
        identity = bytes.fromhex(found.id)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Malformed("not an event") from error
    return Event(
        id=identity, type=found.type, stream=found.stream, time_ns=found.time, actor=found.actor,
        address=found.address, outcome=found.outcome, code=found.code, rule=found.rule, digest=found.digest,
        incident=found.incident, session=found.session, correlation=found.correlation, causation=found.causation,
        data=data,
    )  # fmt: skip
