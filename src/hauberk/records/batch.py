"""Signed batches: how a service hands its events to the authority, so that nobody else can have made them.

The wire form is msgpack of `[chain, time ns, [[meta, public], ...], signature]`. The clear parts are the very bytes
that will be stored; the signature is a statement about their digests (`records.statement`), made with the service's
SVID key, and is kept beside the entries: who reads the ledger years later can check it as the authority does now. The
chain is verified at the batch's own time, so one from the spool is still good when its certificate has expired.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import msgspec

from hauberk.core.decision import Layer
from hauberk.core.event import ABSENT, Event
from hauberk.crypto.x509 import SvidInfo, public_key_verify, verify_chain
from hauberk.errors import HauberkError, Malformed, RecordsError
from hauberk.records._encode import TEXTS, decode_event, encode_event
from hauberk.records.fold import FOLDED
from hauberk.records.job import Pair, Signed
from hauberk.records.statement import Producer, Statement, message
from hauberk.records.typed import RESERVED

MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_EVENTS = 2_000
MAX_AGE_NS = 30 * 86_400 * 10**9  # a spool older than a month is looked at by people
MAX_AHEAD_NS = 300 * 10**9  # clocks differ
_END_OF_TIME_NS = 1 << 63  # the year 2262
_BELOW = re.compile(
    r"(/[A-Za-z0-9][A-Za-z0-9._~:+=-]*)*\Z"
)  # what follows a service's own stream; see `records.streams`
_TYPE = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+\Z")  # as of typed events
# What the runtime of a service records; every other type of these names is the plane's own.
_RECORDED = frozenset({"request.allowed", "request.failed", *(f"{layer.value}.denied" for layer in Layer)})
_AUDIT = "audit."


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What travels.

    Args:
        chain: the producer's certificates, DER, leaf first.
        time_ns: when it was signed, Unix nanoseconds.
        parts: `meta` and `public` of each event, in order.
        signature: of the statement about them.
    """

    chain: tuple[bytes, ...]
    time_ns: int
    parts: tuple[tuple[bytes, bytes], ...]
    signature: bytes

    @property
    def digests(self) -> bytes:
        """What the statement covers; nothing is sealed on its way."""
        return b"".join(sha256(meta).digest() + sha256(public).digest() + ABSENT for meta, public in self.parts)


class Received(msgspec.Struct, frozen=True):
    """A batch that was verified.

    Args:
        producer: who made it.
        pairs: its events, decoded and as they were signed.
        signed: the statement, to be kept with them.
    """

    producer: SvidInfo
    pairs: tuple[Pair, ...]
    signed: Signed

    @property
    def events(self) -> tuple[Event, ...]:
        """The events."""
        return tuple(pair.event for pair in self.pairs)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Batch).decode


def encode_batch(
    chain: tuple[bytes, ...], time_ns: int, events: Sequence[Event], sign: Callable[[bytes], bytes]
) -> bytes:
    """Return the wire form.

    Raises:
        RecordsError: HBK-715, HBK-716 an event cannot be stored, or holds what has to be sealed where it is recorded.
    """
    if any(event.private for event in events):
        raise Malformed("private values are recorded in an event store, which has the keys to seal them")
    batch = Batch(chain, time_ns, tuple(encode_event(event) for event in events), b"")
    return _encode(msgspec.structs.replace(batch, signature=sign(message(_fingerprint(chain), time_ns, batch.digests))))


def batch_events(data: bytes) -> tuple[Event, ...]:
    """Return the events of a batch of our own, unverified.

    Raises:
        RecordsError: HBK-705 malformed.
    """
    return tuple(pair.event for pair in _pairs(_parsed(data)))


def _fingerprint(chain: Sequence[bytes]) -> bytes:
    """Return what the statement says about who signs; a batch without a chain is refused where it arrives."""
    return sha256(chain[0]).digest() if chain else b""


def _parsed(data: bytes) -> Batch:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RecordsError("HBK-705", "not a batch") from None


def _pairs(batch: Batch) -> tuple[Pair, ...]:
    try:
        return tuple(Pair(decode_event(meta, public), meta, public) for meta, public in batch.parts)
    except Malformed as error:
        raise RecordsError("HBK-705", "an event cannot be read") from error


def decode_batch(data: bytes, roots: Mapping[str, Sequence[bytes]], *, now_ns: int) -> Received:
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
    batch = _parsed(data)
    if not batch.chain or not 0 < len(batch.parts) <= MAX_EVENTS:
        raise RecordsError("HBK-705", "no chain, or a wrong number of events", events=len(batch.parts))
    if not max(0, now_ns - MAX_AGE_NS) <= batch.time_ns <= now_ns + MAX_AHEAD_NS:
        raise RecordsError("HBK-705", "the time of the batch is out of range")
    digests = batch.digests
    try:
        producer = verify_chain(batch.chain, roots, at=batch.time_ns / 1e9)
        signed = message(_fingerprint(batch.chain), batch.time_ns, digests)
        public_key_verify(producer.leaf_der, signed, batch.signature)
    except HauberkError as error:
        raise RecordsError("HBK-705", "not signed by a workload of this trust domain") from error
    pairs = _pairs(batch)
    _check_events(producer, pairs)
    who = Producer.of_chain(batch.chain, _cannot_sign)
    statement = Statement(who.fingerprint, batch.time_ns, len(pairs), digests, batch.signature)
    return Received(producer, pairs, Signed(who, statement))


def _cannot_sign(_message: bytes) -> bytes:
    raise RecordsError("HBK-705", "a producer's key is with the producer")


def own_stream(producer: SvidInfo) -> str:
    """Return the stream under which a service may write; the same below `/audit` is its audit log."""
    return f"/services/{producer.spiffe_id.namespace}/{producer.spiffe_id.account}"


def _check_events(producer: SvidInfo, pairs: Sequence[Pair]) -> None:
    own = own_stream(producer)
    mine = (own, own.replace("/services", "/audit", 1))
    for pair in pairs:
        event = pair.event
        if not any(event.stream.startswith(one) and _BELOW.match(event.stream, len(one)) for one in mine):
            raise RecordsError("HBK-705", "a service writes its own streams only", stream=event.stream[:200])
        _check_words(event)
        if not 0 <= event.time_ns < _END_OF_TIME_NS:
            raise RecordsError("HBK-705", "the time of an event is out of range")
        if len(event.id) != 16:  # noqa: PLR2004  # bytes of a UUID
            raise RecordsError("HBK-705", "an event id has 16 bytes")
        if _again(event) != (pair.meta, pair.public):  # what reads differently elsewhere is not taken
            raise RecordsError("HBK-705", "an event is not written as it is read")


def _check_words(event: Event) -> None:
    """Refuse what would pass for a record of the plane, and what would not stay on its line wherever it is shown.

    Raises:
        RecordsError: HBK-705.
    """
    kind = event.type.removesuffix(FOLDED)
    own = kind.partition(".")[0] in RESERVED and kind not in _RECORDED and not kind.startswith(_AUDIT)
    if own or not _TYPE.match(event.type):
        raise RecordsError("HBK-705", "not a type that a service may record", type=event.type[:200])
    if not "".join(getattr(event, name) for name in TEXTS).isprintable():
        raise RecordsError("HBK-705", "who did what is told in printable characters", type=event.type)


def _again(event: Event) -> tuple[bytes, bytes]:
    try:
        return encode_event(event)
    except RecordsError as error:
        raise RecordsError("HBK-705", "an event cannot be stored") from error
