"""The identity a process has right now: one value at a time, never another id, and nobody left behind."""

import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.clock import ManualClock
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.x509 import CertificateAuthority, SvidInfo, WorkloadKey
from hauberk.identity.bundle import BundleSet, TrustBundle
from hauberk.identity.source import HALF_LIFE, JITTER, Material, SvidSource, renew_at
from tests.core.refusal import refuses

CLOCK = ManualClock()
CA = CertificateAuthority.create("example.org", clock=CLOCK)
ME = SpiffeId.service("example.org", "prod", "me")
BUNDLES = BundleSet(TrustBundle.of("example.org", CA.root_der))
DEADLINE = 30.0  # seconds; only a deadlock takes that long


def identity(spiffe_id: SpiffeId = ME) -> tuple[WorkloadKey, SvidInfo]:
    key = WorkloadKey.generate()
    return key, CA.issue(key.request(None), spiffe_id, clock=CLOCK)


def source() -> SvidSource:
    return SvidSource(*identity(), BUNDLES)


def test_what_is_given_is_exchanged_and_the_rest_is_kept() -> None:
    held = source()
    first = held.current()
    assert held.current() is first
    key, svid = identity()
    second = held.update(key=key, svid=svid)
    assert held.current() is second
    assert (second.key, second.svid, second.bundles) == (key, svid, BUNDLES)
    third = held.update(bundles=BundleSet())
    assert (third.key, third.svid, len(third.bundles), dict(third.roots)) == (key, svid, 0, {})
    assert held.spiffe_id == ME


def test_a_key_that_is_not_the_chains_is_refused_and_nothing_changes() -> None:
    held = source()
    before, (key, svid) = held.current(), identity()
    for change in ({"key": key}, {"svid": svid}):
        with refuses("HBK-105"):
            held.update(**change)
        assert held.current() is before
    with refuses("HBK-105"):
        SvidSource(key, identity()[1], BUNDLES)


@pytest.mark.parametrize(
    "other", [SpiffeId.service("example.org", "prod", "boss"), SpiffeId.service("example.org", "root", "me")]
)
def test_a_renewal_never_makes_somebody_else_of_us(other: SpiffeId) -> None:
    held = source()
    told: list[Material] = []
    held.on_change(told.append)
    before, (key, svid) = held.current(), identity(other)
    with refuses("HBK-105"):
        held.update(key=key, svid=svid)
    assert held.current() is before
    assert told == []


def test_callbacks_are_told_until_they_are_forgotten() -> None:
    held = source()
    one: list[Material] = []
    other: list[Material] = []
    forget = held.on_change(one.append)
    held.on_change(other.append)
    first = held.update(bundles=BundleSet())
    forget()
    forget()
    second = held.update(bundles=BUNDLES)
    assert (one, other) == ([first], [first, second])


def test_readers_in_other_threads_never_see_a_new_chain_with_an_old_key() -> None:
    held, stop = source(), threading.Event()
    torn: list[Material] = []

    def read() -> None:
        while not stop.is_set():
            seen = held.current()
            if seen.key.public_key != seen.svid.public_key:
                torn.append(seen)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    for _ in range(20):
        key, svid = identity()
        held.update(key=key, svid=svid)
    stop.set()
    for thread in readers:
        thread.join(DEADLINE)
    assert torn == []


def test_the_last_thing_told_is_what_is_current_though_many_threads_update() -> None:
    """Were callbacks run side by side, a slow one could hand out an older moment last: a root withdrawn since."""
    held = source()
    told: list[Material] = []
    slow, overtaken = threading.Event(), threading.Event()

    def listen(material: Material) -> None:
        if not told and not slow.is_set():
            slow.set()
            overtaken.wait(0.3)  # seconds a second update has to overtake us, were it let; nobody sleeps if it does
        told.append(material)

    held.on_change(listen)

    def second_update() -> None:
        slow.wait(DEADLINE)
        held.update(bundles=BundleSet())
        overtaken.set()

    second = threading.Thread(target=second_update)
    second.start()
    first = held.update(bundles=BundleSet(TrustBundle.of("example.org", CA.root_der), TrustBundle.of("partner.org")))
    second.join(DEADLINE)
    assert told[0] is first
    assert told[-1] is held.current()
    assert len(held.current().bundles) == 0


def test_no_update_is_lost_and_all_are_told_in_the_order_they_happened() -> None:
    held = source()
    told: list[Material] = []
    held.on_change(told.append)
    made: list[Material] = []

    def work() -> None:
        for _ in range(10):
            key, svid = identity()
            made.append(held.update(key=key, svid=svid))
            made.append(held.update(bundles=BundleSet(*BUNDLES)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(told) == len(made) == 80
    assert {id(material) for material in told} == {id(material) for material in made}
    assert told[-1] is held.current()


def test_a_callback_that_updates_again_leaves_everybody_with_the_newest() -> None:
    held = source()
    seen: list[Material] = []

    def again(material: Material) -> None:
        if len(material.bundles):
            held.update(bundles=BundleSet())

    held.on_change(again)
    held.on_change(seen.append)
    held.update(bundles=BundleSet(TrustBundle.of("partner.org")))
    assert seen[-1] is held.current()
    assert len(held.current().bundles) == 0


def test_an_identity_shows_and_travels_nowhere() -> None:
    held = source()
    assert "PRIVATE" not in f"{held!r} {held.current()!r}"
    assert held.current().svid.leaf_der.hex() not in repr(held.current())
    for secret in (held, held.current()):
        with pytest.raises(TypeError):
            pickle.dumps(secret)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.floats(1e9, 2e9), st.floats(60, 86_400))
def test_renewal_is_at_half_life_a_tenth_of_it_earlier_or_later(random: float, start: float, life: float) -> None:
    plain = SvidInfo(ME, "1", start, start + life, b"", (), b"")
    at = renew_at(plain, lambda: random)
    slack = 1e-6 * start
    assert start + life * (HALF_LIFE - JITTER) - slack <= at <= start + life * (HALF_LIFE + JITTER) + slack


def test_renewal_times_of_a_fleet_are_spread_between_the_bounds() -> None:
    svid = SvidInfo(ME, "1", 1000.0, 2000.0, b"", (), b"")
    assert [renew_at(svid, lambda value=value: value) for value in (0.0, 0.5, 1.0)] == [1400.0, 1500.0, 1600.0]  # type: ignore[misc]
    times = [renew_at(svid) for _ in range(300)]
    assert all(1400.0 <= at <= 1600.0 for at in times)
    assert max(times) - min(times) > 100.0
