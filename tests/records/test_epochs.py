"""Epochs of pseudonyms: keys that change, queries over all of them, and a key that is destroyed."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import key_source
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.ports import Put, Store, Write
from hauberk.crypto.keyring import Keyring, Pseudonyms
from hauberk.errors import ConfigError, Conflict, RecordsError, Tampered
from hauberk.records.audit import AuditLog
from hauberk.records.epochs import SPACE, PseudonymEpochs
from tests.records.made import Shelf

USER = "alice@example.org"


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(key_source("", tmp_path / "keys", create=True))


@pytest.fixture
def store(tmp_path: Path, keyring: Keyring) -> Iterator[Store]:
    opened = AuthenticRows(SqliteStore(tmp_path / "log.db"), keyring)
    yield opened
    opened.close()


def test_the_first_epoch_is_the_keyring_s_own(store: Store, keyring: Keyring) -> None:
    epochs = PseudonymEpochs(store, keyring)
    assert epochs.live == (0,)
    assert epochs.of("user", USER) == keyring.pseudonyms().of("user", USER)
    assert epochs.every("user", USER) == (epochs.of("user", USER),)
    assert epochs.every("user", "") == ()


def test_a_new_epoch_gives_new_pseudonyms_and_the_old_ones_are_found_too(store: Store, keyring: Keyring) -> None:
    epochs, shelf = PseudonymEpochs(store, keyring), Shelf()
    audit = AuditLog(shelf, epochs)
    audit.access(USER, "/x", "read")
    assert epochs.rotate() == 1
    audit.access(USER, "/x", "read")  # the log follows by itself
    before, after = (event.actor for event in shelf.taken)
    assert before != after
    assert epochs.every("user", USER) == (after, before)
    assert PseudonymEpochs(store, keyring).every("user", USER) == (after, before)  # after a restart


def test_services_are_handed_the_key_of_the_latest(store: Store, keyring: Keyring) -> None:
    epochs = PseudonymEpochs(store, keyring)
    assert epochs.key() == keyring.pseudonym_key()
    epochs.rotate()
    assert epochs.key() != keyring.pseudonym_key()
    latest = epochs.latest()
    assert latest.of("user", USER) == Pseudonyms(epochs.key()).of("user", USER) == epochs.of("user", USER)
    epochs.rotate()
    assert latest.of("user", USER) != epochs.of("user", USER)
    assert epochs.key().hex() not in repr(epochs)
    with pytest.raises(TypeError):
        pickle.dumps(epochs)


def test_a_retired_epoch_s_pseudonyms_cannot_be_computed_again(store: Store, keyring: Keyring, tmp_path: Path) -> None:
    epochs = PseudonymEpochs(store, keyring)
    epochs.rotate()
    lost = epochs.of("user", USER)
    assert epochs.rotate() == 2
    row = store.get(SPACE, (1).to_bytes(4))
    assert row is not None
    assert row.value in b"".join(path.read_bytes() for path in tmp_path.glob("log.db*"))
    assert epochs.retire(1)
    assert lost not in epochs.every("user", USER)
    assert epochs.live == (2, 0)
    assert row.value not in b"".join(path.read_bytes() for path in tmp_path.glob("log.db*"))
    assert epochs.rotate() == 3  # its number is not used again


def test_the_first_epoch_can_be_forgotten(store: Store, keyring: Keyring) -> None:
    epochs = PseudonymEpochs(store, keyring)
    first = epochs.of("user", USER)
    epochs.rotate()
    epochs.retire(0)
    assert first not in epochs.every("user", USER)
    assert PseudonymEpochs(store, keyring).live == (1,)


@pytest.mark.parametrize("number", [0, 7, -1])
def test_only_a_live_epoch_that_is_not_in_use_is_retired(store: Store, keyring: Keyring, number: int) -> None:
    with pytest.raises(ConfigError, match="HBK-906"):
        PseudonymEpochs(store, keyring).retire(number)


def test_two_that_begin_an_epoch_at_once_do_not_begin_the_same(store: Store, keyring: Keyring) -> None:
    late = PseudonymEpochs(
        store, keyring, random=lambda size: (PseudonymEpochs(store, keyring).rotate(), bytes(size))[1]
    )
    with pytest.raises(Conflict):
        late.rotate()
    late.reload()
    assert list(late.live) == [1, 0]
    assert PseudonymEpochs(store, keyring).rotate() == 2
    late.reload()
    assert list(late.live) == [2, 1, 0]


def test_a_database_writer_can_put_no_key_of_his_own_there(tmp_path: Path, keyring: Keyring) -> None:
    bare = SqliteStore(tmp_path / "log.db")
    tagged = AuthenticRows(bare, keyring)
    PseudonymEpochs(tagged, keyring).rotate()
    moved = tagged.get(SPACE, (1).to_bytes(4))
    assert moved is not None
    tagged.commit(Write(rows=[Put(SPACE, (2).to_bytes(4), moved.value)]))  # even with the tags' key
    with pytest.raises(ConfigError, match="HBK-904"):
        PseudonymEpochs(tagged, keyring)
    bare.commit(Write(rows=[Put(SPACE, (2).to_bytes(4), b"k" * 32)]))
    with pytest.raises(Tampered):
        PseudonymEpochs(tagged, keyring)
    bare.close()


def test_without_tags_and_seals_he_could(tmp_path: Path) -> None:
    bare = SqliteStore(tmp_path / "log.db")
    bare.commit(Write(rows=[Put(SPACE, (1).to_bytes(4), b"k" * 32)]))
    [row] = bare.scan(SPACE)
    assert Pseudonyms(row.value).of("user", USER) == Pseudonyms(b"k" * 32).of("user", USER)  # he can undo those
    bare.close()


def test_all_epochs_gone_is_an_error_and_not_a_log_without_pseudonyms(store: Store, keyring: Keyring) -> None:
    store.commit(Write(rows=[Put(SPACE, (0).to_bytes(4), b"")]))
    with pytest.raises(RecordsError, match="HBK-706"):
        PseudonymEpochs(store, keyring)
