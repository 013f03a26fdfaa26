"""From an event to the exact bytes that are stored and hashed. JSON, so that an auditor can read a row with any tool.

`meta` holds who, what, when and on what ground; `public` holds the further facts. Worked example of `meta`:

```
{"id":"0192..","type":"policy.denied","stream":"/services/production/payment-service","time":1790000000000000000,
 "actor":"spiffe://example.org/ns/production/sa/evil","outcome":"deny","code":"HBK-300","rule":"","digest":"ab12.."}
```
"""

import msgspec

from hauberk.core.event import Event
from hauberk.errors import RecordsError

MAX_PART_BYTES = 65_535  # a record is a fact, not a document
_encode = msgspec.json.Encoder().encode
_EMPTY = b"{}"


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


_decode_meta = msgspec.json.Decoder(Meta).decode
_decode_data = msgspec.json.Decoder(dict[str, object]).decode


def encode_event(event: Event) -> tuple[bytes, bytes]:
    """Return `meta` and `public` of an event.

    Raises:
        RecordsError: HBK-705 when it cannot be encoded or is too large.
    """
    meta = _encode(
        Meta(
            event.id.hex(), event.type, event.stream, event.time_ns, event.actor, event.address, event.outcome,
            event.code, event.rule, event.digest, event.incident,
        )
    )  # fmt: skip
    try:
        public = _encode(event.data) if event.data else _EMPTY
    except TypeError as error:
        raise RecordsError("HBK-705", "the data of an event holds JSON types only") from error
    if len(meta) > MAX_PART_BYTES or len(public) > MAX_PART_BYTES:
        raise RecordsError("HBK-705", "the event is too large", bytes=max(len(meta), len(public)))
    return meta, public


def decode_event(meta: bytes, public: bytes) -> Event:
    """Rebuild the event.

    Raises:
        RecordsError: HBK-705 when these are not the bytes of an event.
    """
    try:
        found, data = _decode_meta(meta), _decode_data(public)
        identity = bytes.fromhex(found.id)
    except (msgspec.DecodeError, ValueError) as error:
        raise RecordsError("HBK-705", "not an event") from error
    return Event(
        id=identity, type=found.type, stream=found.stream, time_ns=found.time, actor=found.actor,
        address=found.address, outcome=found.outcome, code=found.code, rule=found.rule, digest=found.digest,
        incident=found.incident, data=data,
    )  # fmt: skip
