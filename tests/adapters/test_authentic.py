"""Rows behind tags: what was not written with the key is refused, and without the tags it is believed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk.adapters.authentic import TAG_BYTES, AuthenticRows
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.memory import MemoryStore
from hauberk.core.ports import Put, Store, Write
from hauberk.crypto.keyring import Keyring
from hauberk.errors import Tampered

PAIR = (Put("entries", b"order", b"uid 1000"), Put("entries", b"other", b"uid 1001", expires=4e9))


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(FileKeySource(tmp_path_factory.mktemp("keys")))


@pytest.fixture
def inner() -> Store:
    return MemoryStore()


@pytest.fixture
def store(inner: Store, keyring: Keyring) -> AuthenticRows:
    made = AuthenticRows(inner, keyring)
    made.commit(Write(rows=PAIR))
    return made


def raw(inner: Store, key: bytes = b"order") -> bytes:
    row = inner.get("entries", key)
    assert row is not None
    return row.value


def refused(store: Store, space: str = "entries", key: bytes = b"order") -> None:
    with pytest.raises(Tampered) as caught:
        store.get(space, key)
    assert caught.value.code == "HBK-710"
    with pytest.raises(Tampered):
        list(store.scan(space))


def test_what_was_written_comes_back_and_is_stored_behind_a_tag(store: Store, inner: Store) -> None:
    assert [(row.key, row.value, row.expires) for row in store.scan("entries")] == [
        (b"order", b"uid 1000", None),
        (b"other", b"uid 1001", 4e9),
    ]
    assert raw(inner)[TAG_BYTES:] == b"uid 1000"


def test_a_row_written_without_the_key_is_refused_and_without_tags_believed(store: Store, inner: Store) -> None:
    inner.commit(Write(rows=(Put("entries", b"order", b"uid 666"),)))
    refused(store)
    assert raw(inner) == b"uid 666"


def test_a_row_of_another_key_space_or_expiry_is_refused(store: Store, inner: Store) -> None:
    inner.commit(Write(rows=(Put("entries", b"order", raw(inner, b"other"), expires=4e9),)))
    refused(store)
    inner.commit(Write(rows=(Put("elsewhere", b"other", raw(inner, b"other"), expires=4e9),)))
    refused(store, "elsewhere", b"other")
    inner.commit(Write(rows=(Put("entries", b"other", raw(inner, b"other"), expires=5e9),)))
    refused(store, key=b"other")


def test_a_tag_made_with_another_key_is_refused(inner: Store, store: Store, tmp_path: Path) -> None:
    stranger = AuthenticRows(inner, Keyring(FileKeySource(tmp_path / "keys")))
    stranger.commit(Write(rows=(Put("entries", b"order", b"uid 666"),)))
    refused(store)


@given(at=st.integers(0, 200), mask=st.integers(1, 255))
def test_any_flipped_byte_is_found(keyring: Keyring, at: int, mask: int) -> None:
    inner = MemoryStore()
    store = AuthenticRows(inner, keyring)
    store.commit(Write(rows=PAIR))
    spoiled = bytearray(raw(inner))
    spoiled[at % len(spoiled)] ^= mask
    inner.commit(Write(rows=(Put("entries", b"order", bytes(spoiled)),)))
    refused(store)


@pytest.mark.parametrize("value", [b"", b"short", "text", None])
def test_what_has_no_tag_at_all_is_refused(store: Store, inner: Store, value: object) -> None:
    inner.commit(Write(rows=(Put("entries", b"order", value),)))  # type: ignore[arg-type]
    refused(store)
