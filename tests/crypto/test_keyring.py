"""Sealing, pseudonyms and keys: what is made for one purpose is nothing to another, and no secret shows itself."""

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.adapters.keys import EnvironmentKeySource
from hauberk.crypto.keyring import KEY_BYTES, NONCE_BYTES, Keyring, Pseudonyms, Purpose
from hauberk.crypto.signing import SigningKey
from hauberk.errors import ConfigError
from tests.core.refusal import refuses

ROOT_SECRET = bytes(range(100, 132))


class OneKey:
    """A key source of one constant secret."""

    def __init__(self, secret: bytes = ROOT_SECRET) -> None:
        self.secret = secret

    def key(self, name: str) -> bytes:
        assert name == "root"
        return self.secret


RING = Keyring(OneKey())
purposes = st.sampled_from(list(Purpose))


@settings(max_examples=80, deadline=None)
@given(purposes, st.binary(max_size=100), st.binary(max_size=40))
def test_what_is_sealed_opens_for_its_purpose_and_place(purpose: Purpose, plaintext: bytes, aad: bytes) -> None:
    sealed = RING.seal(purpose, plaintext, aad=aad)
    assert Keyring(OneKey()).open(purpose, sealed, aad=aad) == plaintext
    assert len(sealed) == 1 + NONCE_BYTES + len(plaintext) + 16
    assert len(plaintext) < 8 or plaintext not in sealed


@settings(max_examples=80, deadline=None)
@given(purposes, purposes, st.binary(max_size=20), st.binary(max_size=20))
def test_it_opens_for_no_other_purpose_place_or_root(one: Purpose, other: Purpose, aad: bytes, place: bytes) -> None:
    sealed = RING.seal(one, b"secret", aad=aad)
    if (one, aad) != (other, place):
        with refuses("HBK-904"):
            RING.open(other, sealed, aad=place)
    with refuses("HBK-904"):
        Keyring(OneKey(bytes(32))).open(one, sealed, aad=aad)


def test_purpose_and_place_do_not_run_into_each_other() -> None:
    """`ca-key` + `x` and `ca-keyx` + nothing would be one and the same without a length before each part."""
    sealed = RING.seal(Purpose.CA_KEY, b"secret", aad=b"ab")
    for place in (b"a", b"b", b"", b"ab\0", b"\0\0\0\x02ab"):
        with refuses("HBK-904"):
            RING.open(Purpose.CA_KEY, sealed, aad=place)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_touched_byte_opens(data: st.DataObject) -> None:
    sealed = bytearray(RING.seal(Purpose.LOG_KEY, b"secret", aad=b"place"))
    at, flip = data.draw(st.integers(0, len(sealed) - 1)), data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(sealed) - 1))
    with refuses("HBK-904"):
        RING.open(Purpose.LOG_KEY, bytes(sealed[:cut]), aad=b"place")
    sealed[at] ^= flip
    with refuses("HBK-904"):
        RING.open(Purpose.LOG_KEY, bytes(sealed), aad=b"place")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_is_a_typed_refusal(data: bytes) -> None:
    for sealed in (data, b"\x01" + data):
        with refuses("HBK-904"):
            RING.open(Purpose.FEED_KEY, sealed)


def test_each_sealing_has_a_nonce_of_its_own() -> None:
    nonces = {RING.seal(Purpose.CA_KEY, b"same")[1 : 1 + NONCE_BYTES] for _ in range(200)}
    assert len(nonces) == 200


def test_keys_of_different_purposes_and_of_the_root_are_all_different() -> None:
    macs = {RING.mac(purpose, b"data") for purpose in Purpose}
    assert len(macs) == len(Purpose)
    assert all(len(mac) == 32 for mac in macs)
    assert RING.pseudonym_key() != ROOT_SECRET
    assert Keyring(OneKey()).mac(Purpose.CA_KEY, b"data") == RING.mac(Purpose.CA_KEY, b"data")


def test_a_missing_or_short_root_is_refused_before_anything_is_sealed() -> None:
    for environ in ({}, {"HAUBERK_KEY_ROOT": "AAAA"}, {"HAUBERK_KEY_ROOT": "no base64!"}):
        with refuses("HBK-905"):
            Keyring(EnvironmentKeySource(environ=environ)).seal(Purpose.CA_KEY, b"secret")


@settings(max_examples=80, deadline=None)
@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_pseudonyms_are_equal_for_equal_values_only(one: str, other: str) -> None:
    names = RING.pseudonyms()
    assert (names.of("user", one) == names.of("user", other)) is (one == other)
    assert names.of("user", one) == Pseudonyms(RING.pseudonym_key()).of("user", one)
    assert names.of("user", one) != Pseudonyms.random().of("user", one)
    assert names.of("user", one).removeprefix("user:") != names.of("address", one).removeprefix("address:")
    assert len(names.of("user", one)) == len("user:") + 16


def test_kind_and_value_of_a_pseudonym_do_not_run_into_each_other() -> None:
    names = RING.pseudonyms()
    assert names.of("a", "bc").removeprefix("a:") != names.of("ab", "c").removeprefix("ab:")
    assert names.of("user", "") == ""
    assert names.of("user", "\ud800") != names.of("user", "\ud801")  # undecodable input is hidden like any other


def test_no_secret_shows_in_text_or_travels_by_pickle_or_copy() -> None:
    signing = SigningKey(bytes(range(32)))
    RING.mac(Purpose.CA_KEY, b"derive")
    secrets = [ROOT_SECRET, bytes(range(32)), *RING._keys.values()]
    for thing in (RING, RING.pseudonyms(), signing):
        shown = f"{thing!r} {thing}"
        for secret in secrets:
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                attempt(thing)


def test_a_refusal_names_the_purpose_to_operators_and_nothing_to_callers() -> None:
    with pytest.raises(ConfigError) as caught:
        RING.open(Purpose.CA_KEY, RING.seal(Purpose.LOG_KEY, bytes(KEY_BYTES)))
    assert "ca-key" in caught.value.diagnostics()
    assert "ca-key" not in f"{caught.value} {caught.value!r}"
    assert caught.value.__cause__ is None
