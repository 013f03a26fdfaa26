"""Signed batches: only what a workload of this trust domain signed, about its own streams, at a believable time."""

from collections.abc import Callable, Sequence
from hashlib import sha256

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hauberk.core.clock import ManualClock
from hauberk.core.event import Event, Private
from hauberk.crypto.x509 import WorkloadKey, public_key_verify
from hauberk.errors import HauberkError, Malformed, Oversized, RecordsError
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
from hauberk.records.statement import Signer
from hauberk.records.statement import message as batch_message
from tests.records.made import DOMAIN, NOW, STREAM, Producer, certificate_authority, event, events

AUTHORITY = certificate_authority()
ROGUE = certificate_authority()
PRODUCER = Producer(AUTHORITY)
ROOTS = {DOMAIN: (AUTHORITY.root_der,)}
SIGNED_AT = NOW * 10**9 + 10**9
HOUR = 3600 * 10**9


def decode(wire: bytes, now_ns: int = SIGNED_AT) -> tuple[Event, ...]:
    found = decode_batch(wire, ROOTS, now_ns=now_ns)
    assert own_stream(found.producer) == STREAM
    return found.events


def refused(wire: bytes, now_ns: int = SIGNED_AT) -> None:
    with pytest.raises(RecordsError) as found:
        decode_batch(wire, ROOTS, now_ns=now_ns)
    assert found.value.code == "HBK-705"


Parts = Sequence[tuple[bytes, bytes]]


def parts_of(wire: bytes) -> Parts:
    return msgspec.msgpack.decode(wire, type=Batch).parts


def sealed(
    parts: Parts,
    sign: Callable[[bytes], bytes] = PRODUCER.key.sign,
    chain: tuple[bytes, ...] = PRODUCER.chain,
    context: bytes = b"hauberk statement 1\n",
) -> bytes:
    """Sign the parts of events as a batch is signed."""
    digests = b"".join(sha256(part).digest() for meta, public in parts for part in (meta, public, b""))
    signature = sign(context + sha256(chain[0]).digest() + SIGNED_AT.to_bytes(8) + sha256(digests).digest())
    return msgspec.msgpack.encode((chain, SIGNED_AT, parts, signature))


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
    parts = parts_of(PRODUCER.sign(events(2)))
    decode(sealed(parts))  # the twin: with the right key the very same bytes are taken
    refused(sealed(parts, thief.sign))
    refused(sealed(parts, lambda _: b""))
    refused(sealed(parts, lambda _: bytes(72)))
    refused(sealed(parts, context=b"hauberk batch 1\n"))  # signed, but as something else


def test_what_is_kept_beside_the_entries_is_what_the_producer_signed() -> None:
    found = decode_batch(PRODUCER.sign(events(3)), ROOTS, now_ns=SIGNED_AT)
    said = found.signed.statement
    signer = Signer(chain=PRODUCER.chain)
    assert said.signer == sha256(PRODUCER.chain[0]).digest()
    assert signer.verify(said, said.digests, ROOTS) == found.producer
    with pytest.raises(HauberkError):
        signer.verify(said, said.digests[:-1] + b"x", ROOTS)


def test_an_event_that_others_would_read_differently_is_refused() -> None:
    meta, public = parts_of(PRODUCER.sign(events(1)))[0]
    decode(sealed([(meta, public)]))
    for other in (meta + b" ", b'{"actor":"x",' + meta[1:], meta[:-1] + b',"stream":"/authority/admin"}'):
        refused(sealed([(other, public)]))
    for other in (b"{} ", b'{"a":1,"a":2}', b'{"a":1.0e0}', b"[]", b""):
        refused(sealed([(meta, other)]))


def test_a_certificate_of_a_rogue_authority_is_refused() -> None:
    refused(Producer(ROGUE).sign(events(1)))
    with pytest.raises(RecordsError):
        decode_batch(PRODUCER.sign(events(1)), {}, now_ns=SIGNED_AT)


def test_the_chain_of_one_workload_with_the_key_of_another_is_refused() -> None:
    other = Producer(AUTHORITY, "order-service")
    refused(encode_batch(PRODUCER.chain, SIGNED_AT, events(1), other.key.sign))


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


@pytest.mark.parametrize(
    "below",
    [
        "/x\n2026 FORGED line",
        "/\x1b[2J",
        "/../order-service",
        "/..",
        "/.",
        "//",
        "/",
        "/\u202eevil",
        "/x\0",
        "/a/\u0430",
    ],
)
def test_a_stream_that_would_not_stay_on_its_line_or_in_its_place_is_refused(below: str) -> None:
    decode(PRODUCER.sign([event(stream=STREAM + "/orders/17-a.b~c:d+e=f")]))  # the twin
    decode(PRODUCER.sign([event(stream=STREAM.replace("/services", "/audit") + "/x")]))
    with pytest.raises(RecordsError) as found:
        decode(PRODUCER.sign([event(stream=STREAM + below)]))
    assert found.value.code in {"HBK-705", "HBK-716"}


@pytest.mark.parametrize(
    "kind",
    [
        "ledger.pruned", "ledger.recovered", "ledger.pruned.folded", "records.erased", "records.read",
        "producer.certified", "pseudonyms.begun", "authority.created", "admin.x", "identity.issued", "policy.applied",
        "untyped.x", "request.forged", "audit", "a\nb", "order.paid\n", "order", "Order.paid", "\x1b]0;x\x07", "",
        "order..paid",
    ],
)  # fmt: skip
def test_a_type_of_the_plane_itself_or_no_type_at_all_is_refused(kind: str) -> None:
    refused(PRODUCER.sign([event(type=kind)]))


@pytest.mark.parametrize(
    "kind",
    [
        "order.paid.v1", "request.allowed", "request.failed", "policy.denied", "records.denied", "edge.denied",
        "transport.denied", "identity.denied.folded", "denied.folded", "audit.access", "audit.access.folded",
    ],
)  # fmt: skip
def test_what_a_service_records_is_taken(kind: str) -> None:
    decode(PRODUCER.sign([event(type=kind)]))


def with_text(field: str, text: str) -> Event:
    fields: dict[str, object] = {field: text}
    return msgspec.structs.replace(event(), **fields)


@pytest.mark.parametrize(
    "field", ["actor", "address", "code", "rule", "incident", "session", "correlation", "causation"]
)
def test_who_did_what_is_told_on_one_line(field: str) -> None:
    decode(PRODUCER.sign([with_text(field, "Jürgen 7")]))
    for text in ("a\n2026 FORGED", "\x1b[2J", "\u202eevil", "a\u2028b"):
        refused(PRODUCER.sign([with_text(field, text)]))


@pytest.mark.parametrize(
    ("field", "most"), [("stream", 512), ("type", 128), ("actor", 2_048), ("rule", 2_100), ("correlation", 2_100)]
)
def test_no_text_of_an_event_is_longer_than_an_index_or_a_reader_takes(field: str, most: int) -> None:
    start = {"stream": STREAM + "/", "type": "order."}.get(field, "")
    decode(PRODUCER.sign([with_text(field, start.ljust(most, "a"))]))
    with pytest.raises(Oversized):
        PRODUCER.sign([with_text(field, start.ljust(most + 1, "a"))])
    with pytest.raises(Oversized):
        PRODUCER.sign([with_text(field, start + "\u00fc" * (most + 1))])


@pytest.mark.parametrize("size", [0, 15, 17, 10_000])
def test_an_event_id_of_another_length_is_refused(size: int) -> None:
    refused(PRODUCER.sign([event(id=bytes(size))]))


def test_the_number_of_events_and_of_bytes_is_bounded() -> None:
    decode(PRODUCER.sign(events(MAX_EVENTS)))
    refused(PRODUCER.sign([]))
    refused(PRODUCER.sign(events(MAX_EVENTS + 1)))
    refused(PRODUCER.sign([event(data={"x": "y" * 60_000}) for _ in range(MAX_BATCH_BYTES // 60_000 + 1)]))
    refused(encode_batch((), SIGNED_AT, events(1), PRODUCER.key.sign))


@pytest.mark.parametrize(
    "data",
    [{"x": object()}, {"x": "\ud800"}],
    ids=["no JSON type", "a lone surrogate"],
)
def test_what_cannot_be_encoded_is_refused_with_a_code(data: dict[str, object]) -> None:
    with pytest.raises(RecordsError) as found:
        PRODUCER.sign([event(data=data)])
    assert found.value.code == "HBK-716"


def test_values_that_have_to_be_sealed_are_not_handed_over() -> None:
    with pytest.raises(Malformed):
        PRODUCER.sign([event(private=(Private("email", "cust-9", b'"a@b"'),))])


def test_unknown_fields_of_a_batch_are_refused() -> None:
    chain, time_ns, made, signature = msgspec.msgpack.decode(PRODUCER.sign(events(1)))
    decode(msgspec.msgpack.encode((chain, time_ns, made, signature)))
    refused(msgspec.msgpack.encode((chain, time_ns, made, signature, "more")))
    refused(msgspec.msgpack.encode((chain, time_ns, made)))
    refused(msgspec.msgpack.encode({"chain": chain, "time_ns": time_ns, "parts": made, "signature": signature}))


def test_a_batch_without_a_bottom_is_refused_with_a_code() -> None:
    deep = b"\x91" * 100_000 + b"\xc0"
    refused(deep)
    refused(msgspec.msgpack.encode((deep, b"")))
    meta, _ = parts_of(PRODUCER.sign(events(1)))[0]
    refused(sealed([(meta, b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}")]))


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
    refused(msgspec.msgpack.encode(value))
    refused(msgspec.msgpack.encode((PRODUCER.chain, SIGNED_AT, value, b"")))


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # certificates with odd bytes
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
@example(20, 128)
@example(415, 1)  # the unused bits of the certificate's own signature, which no verifier looks at
def test_any_changed_byte_is_noticed(at: int, mask: int) -> None:
    wire = bytearray(WIRE)
    wire[at % len(wire)] ^= mask
    refused(bytes(wire))


WIRE = PRODUCER.sign(events(2))


def test_a_signature_is_of_one_certificate_even_where_another_holds_the_same_key() -> None:
    again = Producer(AUTHORITY)
    again.svid = AUTHORITY.issue(
        PRODUCER.key.request(PRODUCER.svid.spiffe_id), PRODUCER.svid.spiffe_id, ttl=3600.0, clock=ManualClock(NOW)
    )
    batch = msgspec.msgpack.decode(PRODUCER.sign(events(1)), type=Batch)
    exchanged = msgspec.msgpack.encode(msgspec.structs.replace(batch, chain=again.svid.chain))
    assert again.svid.public_key == PRODUCER.svid.public_key
    refused(exchanged)
    without = batch_message(b"", batch.time_ns, batch.digests)  # the twin: a signature that names no certificate
    public_key_verify(again.svid.leaf_der, without, PRODUCER.key.sign(without))
