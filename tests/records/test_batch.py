"""Signed batches: only what a workload of this trust domain signed, about its own streams, at a believable time."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hauberk.core.event import Event
from hauberk.crypto.x509 import WorkloadKey
from hauberk.errors import RecordsError
from hauberk.records.batch import (
    MAX_AGE_NS,
    MAX_AHEAD_NS,
    MAX_BATCH_BYTES,
    MAX_EVENTS,
    Batch,
    decode_batch,
    encode_batch,
    own_stream,
)
from tests.records.made import DOMAIN, NOW, STREAM, Producer, certificate_authority, event, events

AUTHORITY = certificate_authority()
ROGUE = certificate_authority()
PRODUCER = Producer(AUTHORITY)
ROOTS = {DOMAIN: (AUTHORITY.root_der,)}
SIGNED_AT = NOW * 10**9 + 10**9
HOUR = 3600 * 10**9


def decode(wire: bytes, now_ns: int = SIGNED_AT) -> tuple[Event, ...]:
    producer, found = decode_batch(wire, ROOTS, now_ns=now_ns)
    assert own_stream(producer) == STREAM
    return found


def refused(wire: bytes, now_ns: int = SIGNED_AT) -> None:
    with pytest.raises(RecordsError) as found:
        decode_batch(wire, ROOTS, now_ns=now_ns)
    assert found.value.code == "HBK-705"


def payload_of(wire: bytes) -> bytes:
    payload, _ = msgspec.msgpack.decode(wire, type=tuple[bytes, bytes])
    return payload


def sealed(payload: bytes, sign: Callable[[bytes], bytes] = PRODUCER.key.sign) -> bytes:
    """Sign a payload as a batch is signed."""
    return msgspec.msgpack.encode((payload, sign(b"hauberk batch 1\n" + payload)))


def test_what_a_workload_signed_comes_out_as_it_went_in() -> None:
    made = [*events(3), event(stream=STREAM + "/orders", actor="a", outcome="deny", code="HBK-300", data={})]
    assert list(decode(PRODUCER.sign(made))) == made


def test_a_batch_from_the_spool_is_good_after_its_certificate_has_expired_but_not_for_ever() -> None:
    wire = PRODUCER.sign(events(1))
    decode(wire, SIGNED_AT + 24 * HOUR)
    decode(wire, SIGNED_AT + MAX_AGE_NS)
    refused(wire, SIGNED_AT + MAX_AGE_NS + 1)


def test_a_batch_may_be_ahead_by_what_clocks_differ_and_no_more() -> None:
    wire = PRODUCER.sign(events(1))
    decode(wire, SIGNED_AT - MAX_AHEAD_NS)
    refused(wire, SIGNED_AT - MAX_AHEAD_NS - 1)


def test_a_time_at_which_the_certificate_was_not_valid_is_refused() -> None:
    for time_ns in (SIGNED_AT + 2 * HOUR, SIGNED_AT - 2 * HOUR, 0, -1):
        refused(PRODUCER.sign(events(1), time_ns=time_ns), max(time_ns, SIGNED_AT))


def test_a_forged_signature_is_refused() -> None:
    thief = WorkloadKey.generate()
    payload = payload_of(PRODUCER.sign(events(2)))
    decode(sealed(payload))  # the twin: with the right key the very same bytes are taken
    refused(sealed(payload, thief.sign))
    refused(sealed(payload, lambda _: b""))
    refused(sealed(payload, lambda _: bytes(72)))
    refused(msgspec.msgpack.encode((payload, PRODUCER.key.sign(payload))))  # signed, but not as a batch


def test_a_certificate_of_a_rogue_authority_is_refused() -> None:
    refused(Producer(ROGUE).sign(events(1)))
    with pytest.raises(RecordsError):
        decode_batch(PRODUCER.sign(events(1)), {}, now_ns=SIGNED_AT)


def test_the_chain_of_one_workload_with_the_key_of_another_is_refused() -> None:
    other = Producer(AUTHORITY, "order-service")
    refused(encode_batch(Batch(PRODUCER.chain, SIGNED_AT, tuple(events(1))), other.key.sign))


@pytest.mark.parametrize(
    "stream",
    [
        "/services/production/order-service",
        "/services/production/payment-service-2",
        "/services/production",
        "/authority/identity",
        "",
        STREAM.upper(),
        "x" + STREAM,
    ],
)
def test_a_stream_of_somebody_else_is_refused(stream: str) -> None:
    refused(PRODUCER.sign([*events(2), event(stream=stream)]))


@pytest.mark.parametrize("size", [0, 15, 17, 10_000])
def test_an_event_id_of_another_length_is_refused(size: int) -> None:
    refused(PRODUCER.sign([event(id=bytes(size))]))


def test_the_number_of_events_and_of_bytes_is_bounded() -> None:
    decode(PRODUCER.sign(events(MAX_EVENTS)))
    refused(PRODUCER.sign([]))
    refused(PRODUCER.sign(events(MAX_EVENTS + 1)))
    refused(PRODUCER.sign([event(data={"x": "y" * MAX_BATCH_BYTES})]))
    refused(encode_batch(Batch((), SIGNED_AT, tuple(events(1))), PRODUCER.key.sign))


@pytest.mark.parametrize(
    "data",
    [{"x": object()}, {"x": "\ud800"}, {"x": 2**70}],
    ids=["no JSON type", "a lone surrogate", "a number of more than 64 bits"],
)
def test_what_cannot_be_encoded_is_refused_with_a_code(data: dict[str, object]) -> None:
    with pytest.raises(RecordsError) as found:
        PRODUCER.sign([event(data=data)])
    assert found.value.code == "HBK-705"


def test_unknown_fields_of_a_batch_are_refused() -> None:
    chain, time_ns, made = msgspec.msgpack.decode(payload_of(PRODUCER.sign(events(1))))
    decode(sealed(msgspec.msgpack.encode((chain, time_ns, made))))
    refused(sealed(msgspec.msgpack.encode((chain, time_ns, made, "more"))))
    refused(sealed(msgspec.msgpack.encode((chain, time_ns))))
    refused(sealed(msgspec.msgpack.encode({"chain": chain, "time_ns": time_ns, "events": made})))


def test_a_batch_without_a_bottom_is_refused_with_a_code() -> None:
    deep = b"\x91" * 100_000 + b"\xc0"
    refused(deep)
    refused(msgspec.msgpack.encode((deep, b"")))
    _, time_ns, made = msgspec.msgpack.decode(payload_of(PRODUCER.sign(events(1))))
    made[0]["data"] = {"deep": msgspec.Raw(deep)}
    refused(sealed(msgspec.msgpack.encode((PRODUCER.chain, time_ns, made))))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
@example(b"")
@example(b"\x92\xc4\x00\xc4\x00")
def test_garbage_is_refused_with_a_code(wire: bytes) -> None:
    refused(wire)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(plain)
def test_well_formed_msgpack_that_is_no_batch_is_refused_with_a_code_however_it_is_signed(value: object) -> None:
    refused(sealed(msgspec.msgpack.encode(value)))
    refused(msgspec.msgpack.encode(value))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, mask: int) -> None:
    wire = bytearray(WIRE)
    wire[at % len(wire)] ^= mask
    refused(bytes(wire))


WIRE = PRODUCER.sign(events(2))
