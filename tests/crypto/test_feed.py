"""Feed messages: signed as a whole, opened only by the right key, and never with a field nobody knows."""

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.feed import (
    BundleBody,
    Message,
    PolicyBody,
    RenewalBody,
    Resource,
    RevocationBody,
    digest_of,
)
from hauberk.crypto import feed
from hauberk.crypto.feed import open_message, sign_message
from hauberk.crypto.signing import SigningKey
from hauberk.errors import PolicyError
from tests.core.refusal import refuses

KEY = SigningKey(bytes(range(32)))
numbers = st.integers(0, 2**63 - 1)
resources = st.lists(st.builds(Resource, st.text(max_size=20), numbers, st.binary(max_size=50)), max_size=4)
messages = st.builds(
    Message,
    st.text(max_size=20),
    numbers,
    numbers,
    st.floats(0, 4e9),
    st.binary(min_size=32, max_size=32),
    resources.map(tuple),
)


def signed(payload: bytes, context: bytes = b"hauberk feed 1\n") -> bytes:
    return msgspec.msgpack.encode((payload, KEY.sign(context + payload)))


@settings(max_examples=80, deadline=None)
@given(messages)
def test_a_message_comes_back_as_it_was_signed(message: Message) -> None:
    assert open_message(sign_message(message, KEY), KEY.public) == message


@settings(max_examples=150, deadline=None)
@given(messages, st.data())
def test_no_touched_byte_and_no_other_key_opens(message: Message, data: st.DataObject) -> None:
    wire = bytearray(sign_message(message, KEY))
    with refuses("HBK-305"):
        open_message(bytes(wire), SigningKey(bytes(32)).public)
    with refuses("HBK-305"):
        open_message(bytes(wire[: data.draw(st.integers(0, len(wire) - 1))]), KEY.public)
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PolicyError) as caught:
        open_message(bytes(wire), KEY.public)
    assert caught.value.code == "HBK-305"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_typed_refusal_signed_or_not(data: bytes) -> None:
    for wire in (data, signed(data)):
        with refuses("HBK-305"):
            open_message(wire, KEY.public)


def test_brackets_nested_thousands_deep_are_a_typed_refusal() -> None:
    for data in (b"\x91" * 100_000, b"\x92" + b"\x91" * 100_000):
        for wire in (data, signed(data)):
            with refuses("HBK-305"):
                open_message(wire, KEY.public)


def test_a_genuine_message_with_a_field_nobody_knows_is_refused() -> None:
    plain: dict[str, object] = msgspec.to_builtins(Message("example.org", 0, 1, 0.0, bytes(32)), builtin_types=(bytes,))
    assert open_message(signed(msgspec.msgpack.encode(plain)), KEY.public).number == 1
    resource = {"name": "policies", "number": 1, "body": b"{}", "enforce": False}
    for extra in ({"urgent": True}, {"resources": [resource]}):
        with refuses("HBK-305"):
            open_message(signed(msgspec.msgpack.encode(plain | extra)), KEY.public)


def test_a_signature_made_for_something_else_is_not_one_over_the_feed() -> None:
    payload = msgspec.msgpack.encode(Message("example.org", 0, 1, 0.0, bytes(32)))
    for context in (b"", b"hauberk feed 2\n", b"hauberk batch 1\n"):
        with refuses("HBK-305"):
            open_message(signed(payload, context), KEY.public)


def test_an_oversized_message_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = sign_message(Message("example.org", 0, 1, 0.0, bytes(32)), KEY)
    monkeypatch.setattr(feed, "MAX_WIRE_BYTES", len(wire) - 1)
    with refuses("HBK-305"):
        open_message(wire, KEY.public)


@settings(max_examples=80, deadline=None)
@given(resources, st.randoms(use_true_random=False))
def test_the_digest_pins_names_numbers_and_bodies_but_not_their_order(found: list[Resource], random: Random) -> None:
    found = list({resource.name: resource for resource in found}.values())
    shuffled = [*found]
    random.shuffle(shuffled)
    assert digest_of(found) == digest_of(shuffled)
    for at, resource in enumerate(found):
        for other in (
            Resource(resource.name + "x", resource.number, resource.body),
            Resource(resource.name, resource.number ^ 1, resource.body),
            Resource(resource.name, resource.number, resource.body + b"x"),
        ):
            assert digest_of([*found[:at], other, *found[at + 1 :]]) != digest_of(found)
        assert digest_of(found[:at] + found[at + 1 :]) != digest_of(found)


@pytest.mark.parametrize("body", [Message, Resource, PolicyBody, BundleBody, RevocationBody, RenewalBody])
def test_every_form_of_the_feed_refuses_unknown_fields(body: type[msgspec.Struct]) -> None:
    assert body.__struct_config__.forbid_unknown_fields
