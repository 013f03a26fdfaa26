"""One contract for every bus."""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk.adapters import local_bus
from hauberk.adapters.local_bus import LocalBus, matches
from hauberk.adapters.postgres_bus import PostgresBus
from hauberk.core.ports import Bus
from tests.records.made import PATIENCE
from tests.support.postgres import administrator

ADAPTERS: dict[str, Callable[[], Bus]] = {"local": LocalBus, "postgres": lambda: PostgresBus(administrator())}


@pytest.fixture(params=ADAPTERS)
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    made = ADAPTERS[request.param]()
    yield made
    made.close()


class Ear:
    """A subscriber that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._changed = threading.Condition()

    def __call__(self, subject: str, data: bytes) -> None:
        with self._changed:
            self.heard.append((subject, data))
            self._changed.notify_all()

    def wait(self, count: int) -> list[tuple[str, bytes]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= count, PATIENCE)
            return self.heard


def test_messages_arrive_in_order_per_subject_whoever_publishes_at_the_same_time(bus: Bus) -> None:
    ear = Ear()
    bus.subscribe("s.>", ear)

    def publish(number: int) -> None:
        for at in range(500):
            bus.publish(f"s.{number}", b"%d" % at)

    publishers = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for publisher in publishers:
        publisher.start()
    heard = ear.wait(2000)
    for publisher in publishers:
        publisher.join(PATIENCE)
    for number in range(4):
        assert [int(data) for subject, data in heard if subject == f"s.{number}"] == list(range(500))


def test_every_present_subscriber_gets_a_message_and_nobody_gets_one_from_before(bus: Bus) -> None:
    bus.publish("a", b"too early")
    ears = [Ear() for _ in range(3)]
    for ear in ears:
        bus.subscribe("a", ear)
    bus.publish("a", b"now")
    assert [ear.wait(1) for ear in ears] == [[("a", b"now")]] * 3


def test_one_subscription_delivers_from_one_thread(bus: Bus) -> None:
    threads: set[int] = set()
    ear = Ear()

    def deliver(subject: str, data: bytes) -> None:
        threads.add(threading.get_ident())
        ear(subject, data)

    bus.subscribe(">", deliver)
    for number in range(50):
        bus.publish(f"s{number}", b"")
    ear.wait(50)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), AttributeError("x"), ZeroDivisionError(), AssertionError(), MemoryError(), StopIteration()],
)
def test_a_subscriber_that_raises_loses_that_message_is_reported_once_and_disturbs_nobody(
    bus: Bus, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    ear, calm = Ear(), Ear()

    def deliver(subject: str, data: bytes) -> None:
        if data == b"bad":
            raise error
        ear(subject, data)

    with caplog.at_level(logging.WARNING, "hauberk.bus"):
        bus.subscribe("a", deliver)
        bus.subscribe("a", calm)
        for data in (b"bad", b"bad", b"good"):
            bus.publish("a", data)
        assert ear.wait(1) == [("a", b"good")]
    assert len(calm.wait(3)) == 3
    assert len(caplog.records) == 1
    assert type(error).__name__ in caplog.messages[0]


def test_a_slow_subscriber_slows_nobody_and_keeps_the_newest(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_bus, "QUEUE", 10)
    entered, go_on = threading.Event(), threading.Event()
    slow, fast = Ear(), Ear()

    def deliver(subject: str, data: bytes) -> None:
        entered.set()
        assert go_on.wait(PATIENCE)
        slow(subject, data)

    bus.subscribe("a", deliver)
    bus.publish("a", b"0")
    assert entered.wait(PATIENCE)
    bus.subscribe("a", fast)
    with caplog.at_level(logging.WARNING, "hauberk.bus"):
        for number in range(1, 101):
            bus.publish("a", b"%d" % number)
            fast.wait(number)
    go_on.set()
    heard = [int(data) for _, data in slow.wait(11)]
    assert heard == [0, *range(91, 101)]
    assert len(caplog.records) == 1


def test_after_close_returned_nothing_is_delivered(bus: Bus) -> None:
    entered, go_on = threading.Event(), threading.Event()
    ear = Ear()

    def deliver(subject: str, data: bytes) -> None:
        entered.set()
        assert go_on.wait(PATIENCE)
        ear(subject, data)

    subscription = bus.subscribe("a", deliver)
    for number in range(5):
        bus.publish("a", b"%d" % number)
    assert entered.wait(PATIENCE)
    closing = threading.Thread(target=subscription.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()  # it waits for the message in progress
    go_on.set()
    closing.join(PATIENCE)
    assert ear.heard == [("a", b"0")]
    bus.publish("a", b"late")
    subscription.close()
    assert ear.heard == [("a", b"0")]


def test_a_subscriber_may_close_itself(bus: Bus) -> None:
    ear = Ear()
    done = threading.Event()

    def deliver(subject: str, data: bytes) -> None:
        ear(subject, data)
        subscription.close()
        done.set()

    subscription = bus.subscribe("a", deliver)
    bus.publish("a", b"1")
    bus.publish("a", b"2")
    assert done.wait(PATIENCE)
    bus.close()
    assert ear.heard == [("a", b"1")]


def test_closing_the_bus_closes_every_subscription_and_leaves_no_thread(bus: Bus) -> None:
    before = set(threading.enumerate())
    for number in range(5):
        bus.subscribe(f"s.{number}", Ear())
    bus.close()
    bus.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.>", "a.b", True),
        ("*.>", "a", False),
        ("a.*.c", "a.b.c", True),
        ("a*", "ab", False),
        ("a.>.c", "a.b.c", False),
    ],
)
def test_patterns_are_tokens_stars_and_a_final_rest(pattern: str, subject: str, *, fits: bool) -> None:
    assert matches(pattern, subject) is fits


tokens = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=4)


@given(tokens, st.lists(st.sampled_from("abc"), min_size=1, max_size=5), st.booleans())
def test_patterns_agree_with_their_definition(pattern: list[str], subject: list[str], rest: bool) -> None:  # noqa: FBT001  # drawn
    def fits(want: list[str], have: list[str]) -> bool:
        if not want:
            return bool(have) if rest else not have
        return bool(have) and want[0] in {"*", have[0]} and fits(want[1:], have[1:])

    text = ".".join([*pattern, ">"] if rest else pattern)
    assert matches(text, ".".join(subject)) is fits(pattern, subject)
