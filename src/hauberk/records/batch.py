"""Signed batches: how a service hands its events to the authority, so that nobody else can have made them.

The wire form is msgpack of `[payload, signature]`; the payload is msgpack of `Batch`, the signature covers
`hauberk batch 1`, a newline and the payload and is made with the service's SVID key. The chain travels along and is
verified at the batch's own time, so a batch from the spool is still good when the certificate has expired since.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from hauberk.core.event import Event
from hauberk.crypto.x509 import SvidInfo, public_key_verify, verify_chain
from hauberk.errors import HauberkError, RecordsError

MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_EVENTS = 2_000
MAX_AGE_NS = 30 * 86_400 * 10**9  # a spool older than a month is looked at by people
MAX_AHEAD_NS = 300 * 10**9  # clocks differ
_END_OF_TIME_NS = 1 << 63  # the year 2262
_CONTEXT = b"hauberk batch 1\n"


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What is signed.

    Args:
        chain: the producer's certificates, DER, leaf first.
        time_ns: when it was signed, Unix nanoseconds.
        events: in order.
    """

    chain: tuple[bytes, ...]
    time_ns: int
    events: tuple[Event, ...]


def _plain(value: object) -> object:
    if isinstance(value, Mapping):  # read-only views are data too
        return dict(value)
    raise TypeError(type(value).__name__)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_decode_envelope = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode
_decode_batch = msgspec.msgpack.Decoder(Batch).decode


def encode_batch(batch: Batch, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the wire form.

    Raises:
        RecordsError: HBK-705 an event holds something that is no JSON type.
    """
    try:
        payload = _encoder.encode(batch)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RecordsError("HBK-705", "the data of an event holds JSON types only") from error
    return _encoder.encode((payload, sign(_CONTEXT + payload)))


def decode_batch(
    data: bytes, roots: Mapping[str, Sequence[bytes]], *, now_ns: int
) -> tuple[SvidInfo, tuple[Event, ...]]:
    """Verify a batch and return who made it and what is in it.

    Args:
        data: wire form.
        roots: by trust domain, DER.
        now_ns: Unix nanoseconds.

    Raises:
        RecordsError: HBK-705 malformed, too large, too old, forged, or of other streams than the producer's own.
    """
    if len(data) > MAX_BATCH_BYTES:
        raise RecordsError("HBK-705", "the batch is too large", bytes=len(data))
    try:
        payload, signature = _decode_envelope(data)
        batch = _decode_batch(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RecordsError("HBK-705", "not a batch") from None
    if not batch.chain or not 0 < len(batch.events) <= MAX_EVENTS:
        raise RecordsError("HBK-705", "no chain, or a wrong number of events", events=len(batch.events))
    if not now_ns - MAX_AGE_NS <= batch.time_ns <= now_ns + MAX_AHEAD_NS:
        raise RecordsError("HBK-705", "the time of the batch is out of range")
    try:
        producer = verify_chain(batch.chain, roots, at=batch.time_ns / 1e9)
        public_key_verify(producer.leaf_der, _CONTEXT + payload, signature)
    except HauberkError as error:
        raise RecordsError("HBK-705", "not signed by a workload of this trust domain") from error
    _check_streams(producer, batch.events)
    return producer, batch.events


def own_stream(producer: SvidInfo) -> str:
    """Return the stream under which a service may write."""
    return f"/services/{producer.spiffe_id.namespace}/{producer.spiffe_id.account}"


def _check_streams(producer: SvidInfo, events: Sequence[Event]) -> None:
    own = own_stream(producer)
    for event in events:
        if event.stream != own and not event.stream.startswith(own + "/"):
            raise RecordsError("HBK-705", "a service writes its own streams only", stream=event.stream[:200])
        if not 0 <= event.time_ns < _END_OF_TIME_NS:
            raise RecordsError("HBK-705", "the time of an event is out of range")
        if len(event.id) != 16:  # noqa: PLR2004  # bytes of a UUID
            raise RecordsError("HBK-705", "an event id has 16 bytes")
