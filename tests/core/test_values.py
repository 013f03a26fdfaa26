"""The small values everything is built on: decisions, calls, clocks, identifiers, leaves."""

import threading
import uuid
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.call import Call, Headers, Workload
from hauberk.core.clock import SYSTEM_CLOCK, ManualClock
from hauberk.core.decision import Basis, Decision, Layer, Verdict
from hauberk.core.event import ABSENT, LEAF_BYTES, NO_KEY, Leaf, encode_leaf
from hauberk.core.ids import incident_id, uuid7
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.errors import Denied
from tests.core.refusal import refuses

ALLOW = Decision(Verdict.ALLOW, Layer.POLICY)
DENY = Decision(Verdict.DENY, Layer.POLICY, "HBK-300", "ns[a]-policy[b]-rule[0]", Basis("ab", 3), "because")
ME = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/prod/sa/me")


@pytest.mark.parametrize("decision", [ALLOW, DENY])
def test_a_decision_has_no_truth_value(decision: Decision) -> None:
    for use in (bool, lambda it: not it, lambda it: it and 1, lambda it: 1 if it else 2, lambda it: all([it])):
        with pytest.raises(TypeError, match="no truth value"):
            use(decision)


def test_enforcing_an_allow_goes_on_and_a_denial_raises_with_its_ground_for_operators_only() -> None:
    ALLOW.enforce()
    with pytest.raises(Denied) as caught:
        DENY.enforce()
    assert (caught.value.code, caught.value.detail) == ("HBK-300", "because")
    assert caught.value.context == {"rule": "ns[a]-policy[b]-rule[0]", "layer": "policy"}
    assert "because" not in f"{caught.value} {caught.value!r}"


def test_a_denial_without_code_is_still_a_denial() -> None:
    with refuses("HBK-300"):
        Decision(Verdict.DENY, Layer.EDGE).enforce()


def test_audits_never_change_a_verdict() -> None:
    Decision(Verdict.ALLOW, Layer.POLICY, audits=("ns[a]-policy[b]-rule[0]",)).enforce()


@pytest.mark.parametrize("value", [ALLOW, Call(), ME, Workload(), Basis(), Leaf(0, 0, 1, ABSENT, ABSENT)])
def test_values_cannot_be_changed_once_made(value: object) -> None:
    with pytest.raises(AttributeError):
        value.verdict = Verdict.ALLOW  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], "x")  # type: ignore[attr-defined]


def test_what_is_not_http_is_a_call_too() -> None:
    target = Workload("prod", "ledger")
    call = Call.action(ME, "append", "/streams/order-17", target=target, clock=ManualClock(42.0))
    assert (call.peer, call.user) == (ME, ANONYMOUS)
    assert (call.method, call.path, call.target, call.time) == ("append", "/streams/order-17", target, 42.0)
    assert (call.host, call.port, call.headers.get("host")) == ("", 0, None)
    assert Call.action(ME, "decrypt", "/keys/a").time > 1_700_000_000


def test_a_call_that_says_nothing_is_anonymous() -> None:
    assert (Call().peer, Call().user) == (ANONYMOUS, ANONYMOUS)
    assert ANONYMOUS.proof.method == "none"


def test_headers_are_looked_up_in_any_case_and_joined_in_order() -> None:
    headers = Headers([(b"x-a", b"1"), (b"host", b"h"), (b"x-a", b"2"), (b"x-empty", b"")])
    assert (headers.get("X-A"), headers.get("host"), headers.get("x-empty"), headers.get("x")) == ("1,2", "h", "", None)
    assert "1" not in repr(headers)


def test_a_manual_clock_moves_only_when_told_to() -> None:
    clock = ManualClock(10.0)
    assert (clock.time(), clock.time_ns(), clock.monotonic()) == (10.0, 10_000_000_000, 10.0)
    clock.advance(2.5)
    assert (clock.time(), clock.time_ns(), clock.monotonic()) == (12.5, 12_500_000_000, 12.5)


def test_the_system_clock_never_goes_back() -> None:
    first, second = SYSTEM_CLOCK.monotonic(), SYSTEM_CLOCK.monotonic()
    assert second >= first
    assert abs(SYSTEM_CLOCK.time_ns() / 1e9 - SYSTEM_CLOCK.time()) < 60


@settings(max_examples=100, deadline=None)
@given(st.integers(0, (1 << 48) * 1_000_000 - 1), st.binary(min_size=10, max_size=10))
def test_event_ids_are_uuids_of_version_7(now_ns: int, random: bytes) -> None:
    made = uuid7(now_ns=now_ns, random=lambda _: random)
    parsed = uuid.UUID(bytes=made)
    assert len(made) == 16
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert int.from_bytes(made[:6]) == now_ns // 1_000_000
    kept = int.from_bytes(made[6:]) & ~((0xF << 76) | (0x3 << 62))
    assert kept == int.from_bytes(random) & ~((0xF << 76) | (0x3 << 62))


def test_event_ids_sort_by_time_and_do_not_repeat() -> None:
    ids = [uuid7(now_ns=at * 1_000_000) for at in range(500)]
    assert ids == sorted(ids)
    now = [uuid7(now_ns=0) for _ in range(2000)]
    assert len(set(now)) == len(now)


def test_incident_ids_are_short_hex_and_do_not_repeat() -> None:
    made = {incident_id() for _ in range(500)}
    assert len(made) == 500
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in made)
    assert incident_id(lambda size: b"\x01" * size) == "01" * 8


digests = st.binary(min_size=32, max_size=32)
longs = st.integers(0, 2**64 - 1)
leaves = st.builds(Leaf, longs, longs, longs, digests, digests, digests, digests, st.integers(0, 255))


def test_a_leaf_is_laid_out_as_documented() -> None:
    meta, public, sealed, key = (sha256(name).digest() for name in (b"meta", b"public", b"sealed", b"key"))
    data = encode_leaf(1, 2, 3, meta, public, sealed, key)
    assert data == (b"\x01\x00" + (1).to_bytes(8) + (2).to_bytes(8) + (3).to_bytes(8) + meta + public + sealed + key)
    assert len(data) == LEAF_BYTES == 154
    assert encode_leaf(1, 2, 3, meta, public) == data[:90] + sha256(b"").digest() + bytes(32)
    assert (sha256(b"").digest(), bytes(32)) == (ABSENT, NO_KEY)


@settings(max_examples=100, deadline=None)
@given(leaves)
def test_every_leaf_survives_a_round_trip(leaf: Leaf) -> None:
    data = leaf.encode()
    assert Leaf.decode(data) == leaf
    assert Leaf.decode(data).encode() == data
    if leaf.flags == 0:
        assert data == encode_leaf(
            leaf.position, leaf.time_ns, leaf.version, leaf.meta, leaf.public, leaf.sealed, leaf.key
        )


@settings(max_examples=100, deadline=None)
@given(leaves, st.integers(0, LEAF_BYTES - 1), st.integers(1, 255))
def test_no_byte_of_a_leaf_is_ignored(leaf: Leaf, at: int, flip: int) -> None:
    data = bytearray(leaf.encode())
    data[at] ^= flip
    if at == 0:
        with pytest.raises(ValueError, match="format 1"):
            Leaf.decode(bytes(data))
    else:
        assert Leaf.decode(bytes(data)) != leaf


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400).filter(lambda data: len(data) != LEAF_BYTES))
def test_a_leaf_of_another_length_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a leaf"):
        Leaf.decode(data)


def test_event_ids_made_in_threads_do_not_repeat() -> None:
    made: list[bytes] = []
    threads = [threading.Thread(target=lambda: made.extend(uuid7() for _ in range(500))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == len(made) == 4000
