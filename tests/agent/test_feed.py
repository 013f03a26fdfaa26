"""The feed as a service sees it: what it takes, what it refuses, and what it says about silence."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.adapters.memory import MemoryStore
from hauberk.agent.feed import SLACK, FeedState
from hauberk.authority.publisher import KEPT, Publisher
from hauberk.core.clock import ManualClock
from hauberk.core.feed import LIFETIME, Message, Resource, RevocationBody, digest_of
from hauberk.crypto.feed import sign_message
from hauberk.crypto.signing import SigningKey
from hauberk.errors import PolicyError

KEY = SigningKey.generate()
DOMAIN = "example.org"


class Ends:
    """A publisher and a state that follows it, on one clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(now=self.clock.time)
        self.publisher = Publisher(self.store, KEY, DOMAIN, clock=self.clock)
        self.state = FeedState(KEY.public, DOMAIN, clock=self.clock)

    def put(self, name: str = "a", text: str = "x") -> int:
        return self.publisher.put(name, RevocationBody((text,)))

    def poll(self) -> tuple[str, ...]:
        return tuple(found.name for found in self.state.apply(self.publisher.message(self.state.after)))

    def message(self, **changes: object) -> bytes:
        """What the authority would send now, changed and signed by it."""
        resources = tuple(found for name in ("a", "b", "c") if (found := self.publisher.get(name)) is not None)
        fields = {
            "trust_domain": DOMAIN,
            "base": 0,
            "number": self.publisher.number,
            "issued": self.clock.time(),
            "digest": digest_of(resources),
            "resources": resources,
            **changes,
        }
        return sign_message(Message(**fields), KEY)  # type: ignore[arg-type]

    def refused(self, code: str, wire: bytes) -> None:
        before = (self.state.number, self.state.get("a"))
        with pytest.raises(PolicyError) as caught:
            self.state.apply(wire)
        assert caught.value.code == code
        assert (self.state.number, self.state.get("a")) == before


@pytest.fixture
def ends() -> Ends:
    made = Ends()
    made.put()
    made.poll()
    return made


def test_first_a_snapshot_then_deltas_then_heartbeats(ends: Ends) -> None:
    assert ends.state.number == 1
    ends.put("b")
    wire = ends.publisher.message(1)
    assert [found.name for found in ends.state.apply(wire)] == ["b"]
    assert ends.poll() == ()
    assert ends.state.number == 2


def test_whoever_is_too_far_behind_gets_a_snapshot(ends: Ends) -> None:
    for number in range(KEPT + 2):
        ends.put(text=str(number))
    assert ends.poll() == ("a",)
    assert ends.state.number == ends.publisher.number


def test_a_gap_is_noticed_and_healed_by_a_snapshot(ends: Ends) -> None:
    ends.put("b")
    ends.put("c")
    ends.refused("HBK-305", ends.publisher.message(2))  # a delta on what we never had
    assert ends.state.after == 0
    assert ends.poll() == ("b", "c")
    assert ends.state.after == ends.publisher.number == 3


def test_a_delta_that_leaves_something_out_is_refused_and_healed(ends: Ends) -> None:
    ends.put("b")
    ends.refused("HBK-305", ends.message(base=1, resources=()))
    assert ends.poll() == ("b",)


def test_silence_is_visible_as_age(ends: Ends) -> None:
    assert ends.state.age() == 0
    ends.clock.advance(17.5)
    assert ends.state.age() == 17.5
    ends.poll()
    assert ends.state.age() == 0


def test_a_message_that_does_not_count_is_no_sign_of_life(ends: Ends) -> None:
    ends.clock.advance(5)
    ends.refused("HBK-305", b"garbage")
    assert ends.state.age() == 5


def test_a_message_of_another_signer_is_refused(ends: Ends) -> None:
    forged = Publisher(ends.store, SigningKey.generate(), DOMAIN, clock=ends.clock)
    ends.refused("HBK-305", forged.message(0))


def test_a_message_of_another_trust_domain_is_refused(ends: Ends) -> None:
    ends.refused("HBK-305", ends.message(trust_domain="other.test"))


def test_an_older_number_is_refused_however_well_it_is_signed(ends: Ends) -> None:
    old = ends.message()
    ends.put()
    ends.poll()
    ends.refused("HBK-304", old)
    ends.refused("HBK-304", ends.message(number=1))


def test_an_old_message_is_refused_as_a_replay(ends: Ends) -> None:
    fresh = FeedState(KEY.public, DOMAIN, clock=ends.clock)
    old = ends.message()
    ends.clock.advance(LIFETIME + SLACK + 1)
    with pytest.raises(PolicyError) as caught:
        fresh.apply(old)
    assert caught.value.code == "HBK-305"


def test_a_heartbeat_from_before_is_refused_although_its_number_is_ours(ends: Ends) -> None:
    earlier = ends.publisher.message(1)
    ends.clock.advance(1)
    ends.poll()
    ends.refused("HBK-304", earlier)


def test_a_message_from_the_future_is_refused(ends: Ends) -> None:
    ends.refused("HBK-305", ends.message(issued=ends.clock.time() + SLACK + 1))


def test_an_unknown_field_is_refused_in_message_and_resource(ends: Ends) -> None:
    message = Message(DOMAIN, 0, 1, ends.clock.time(), bytes(32), (Resource("a", 1, b""),))
    for place in ("message", "resource"):
        data = msgspec.to_builtins(message, builtin_types=(bytes,))
        (data if place == "message" else data["resources"][0])["polciies"] = 1
        payload = msgspec.msgpack.encode(data)
        ends.refused("HBK-305", msgspec.msgpack.encode((payload, KEY.sign(b"hauberk feed 1\n" + payload))))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_message_with_one_byte_changed_is_never_taken(data: st.DataObject) -> None:
    ends = Ends()
    ends.put()
    wire = bytearray(ends.publisher.message(0))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PolicyError):
        ends.state.apply(bytes(wire))
    assert ends.state.number == 0


@given(st.lists(st.tuples(st.sampled_from(["put a", "put b", "poll", "lose", "restart", "gap"]), st.text(max_size=3))))
@settings(max_examples=80, deadline=None)
def test_whatever_happens_on_the_way_a_poll_brings_exactly_what_is_in_force(steps: list[tuple[str, str]]) -> None:
    ends = Ends()
    for step, text in steps:
        ends.clock.advance(1)
        if step.startswith("put"):
            ends.put(step[-1], text)
        elif step == "poll":
            ends.poll()
        elif step == "lose":
            ends.publisher.message(ends.state.after)
        elif step == "restart":
            ends.publisher = Publisher(ends.store, KEY, DOMAIN, clock=ends.clock)
        else:
            ends.state._gap = True
    ends.clock.advance(1)
    ends.poll()
    assert ends.state.number == ends.publisher.number
    for name in ("a", "b"):
        assert ends.state.get(name) == ends.publisher.get(name)


def test_numbers_go_on_after_a_restart_of_the_publisher(ends: Ends) -> None:
    ends.put("b")
    again = Publisher(ends.store, KEY, DOMAIN, clock=ends.clock)
    assert again.number == 2
    assert again.put("c", RevocationBody()) == 3


def test_whoever_listens_hears_each_change_until_he_forgets(ends: Ends) -> None:
    heard: list[int] = []
    forget = ends.publisher.listen(lambda: heard.append(ends.publisher.number))
    ends.put()
    forget()
    ends.put()
    assert heard == [2]
