"""An old database is noticed by what was kept outside it; a new epoch names both histories."""

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.adapters.mark import PLACE_BYTES, FileMark, read_mark_file
from hauberk.adapters.sqlite import SqliteStore
from hauberk.crypto.note import Checkpoint, encode_key, sign_checkpoint, verify_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import ConfigError, HauberkError, RecordsError, Tampered
from hauberk.records.ledger import Ledger
from hauberk.records.mark import read_mark
from hauberk.records.recover import RECOVERED, Recovery, recover
from tests.records.made import ORIGIN, PATIENCE, events

KEY = SigningKey.generate()


def note(size: int, key: SigningKey = KEY, origin: str = ORIGIN) -> str:
    return sign_checkpoint(Checkpoint(origin, size, bytes(32)), key)


class House:
    """A database with a mark beside it, and a copy of the database from before."""

    def __init__(self, directory: Path) -> None:
        self.database, self.place, self.copy = directory / "log.db", directory / "mark", directory / "copy.db"

    def write(self, count: int, *, marked: bool = True) -> str:
        """Append, and return the checkpoint."""
        store = SqliteStore(self.database)
        mark = FileMark(self.place)
        try:
            ledger = Ledger(store, KEY, ORIGIN, mark=mark if marked else None)
            if count:
                ledger.append_batch(events(count)).result(PATIENCE)
            ledger.close()
            return ledger.checkpoint()
        finally:
            mark.close()
            store.close()

    def recovered(self, known: str = "") -> Recovery:
        store, mark = SqliteStore(self.database), FileMark(self.place)
        try:
            return recover(store, KEY, ORIGIN, mark, actor="uid:0", known=known)
        finally:
            mark.close()
            store.close()


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    made.write(300)
    shutil.copy(made.database, made.copy)
    made.write(10)
    return made


def test_a_database_that_was_put_back_is_refused_and_nothing_is_signed(house: House) -> None:
    shutil.copy(house.copy, house.database)
    with pytest.raises(Tampered) as found:
        house.write(1)
    assert (found.value.code, found.value.context["position"]) == ("HBK-713", 300)


def test_without_the_mark_the_same_database_signs_a_second_history(house: House) -> None:
    shutil.copy(house.copy, house.database)
    first = house.write(10, marked=False)
    assert verify_checkpoint(first, ORIGIN, KEY.public).size == 310  # as the first history had, with another root


def test_a_rewritten_history_of_the_same_length_is_refused(house: House) -> None:
    shutil.copy(house.copy, house.database)
    house.write(10, marked=False)
    with pytest.raises(Tampered) as found:
        house.write(0)
    assert found.value.context["kind"] == "rewritten"


def test_a_mark_that_is_gone_or_of_another_log_is_refused(house: House) -> None:
    house.place.unlink()
    with pytest.raises(Tampered):
        house.write(1)
    mark = FileMark(house.place)
    mark.write(note(1, SigningKey.generate()))
    mark.close()
    with pytest.raises(Tampered):
        house.write(1)


def test_a_mark_behind_the_database_is_normal(house: House) -> None:
    old = house.place.read_bytes()
    house.write(5)
    house.place.write_bytes(old)
    house.write(5)


def test_recovery_names_both_histories_and_what_is_lost_and_goes_on_under_another_name(house: House) -> None:
    shutil.copy(house.copy, house.database)
    done = house.recovered()
    assert done.lost == (300, 309)
    assert done.origin == f"{ORIGIN}/epoch-1"
    found, known = (verify_checkpoint(text, ORIGIN, KEY.public) for text in (done.found, done.known))
    assert (found.size, known.size) == (300, 310)
    after = house.write(3)
    assert verify_checkpoint(after, f"{ORIGIN}/epoch-1", KEY.public).size == 304
    store = SqliteStore(house.database)
    (entry,) = store.entries(ORIGIN, kind=RECOVERED)
    assert entry.position == 300
    store.close()
    with pytest.raises(RecordsError):
        verify_checkpoint(after, ORIGIN, KEY.public)  # no proof of one epoch is taken for one of another


def test_the_lost_history_is_not_taken_back_after_a_recovery(house: House) -> None:
    lost = house.database.read_bytes()
    shutil.copy(house.copy, house.database)
    house.recovered()
    house.database.write_bytes(lost)
    with pytest.raises(Tampered):
        house.write(1)


def test_when_the_mark_was_put_back_too_a_witness_says_what_is_lost(house: House) -> None:
    shutil.copy(house.place, house.copy.with_suffix(".mark"))
    known = house.write(5)
    shutil.copy(house.copy, house.database)
    shutil.copy(house.copy.with_suffix(".mark"), house.place)
    done = house.recovered(known)
    assert (done.lost, done.known) == ((300, 314), known)
    for other in ("", "no note", note(400, SigningKey.generate())):
        with pytest.raises(HauberkError):
            house.recovered(other)


def test_where_nothing_is_wrong_there_is_nothing_to_recover(house: House) -> None:
    with pytest.raises(ConfigError) as found:
        house.recovered()
    assert found.value.code == "HBK-906"
    house.write(1)


# the file


def test_the_newest_note_is_read_back_whatever_became_of_the_one_before(tmp_path: Path) -> None:
    mark = FileMark(tmp_path / "mark")
    assert mark.read() == ""
    for size in range(1, 6):
        mark.write(note(size))
        assert FileMark(tmp_path / "mark").read() == note(size)
    mark.close()


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 3 * PLACE_BYTES - 1), bit=st.integers(0, 7))
def test_a_torn_write_leaves_the_note_before_it(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("mark") / "mark"
    mark = FileMark(path)
    for size in (1, 2, 3):
        mark.write(note(size))
    mark.close()
    data = bytearray(path.read_bytes().ljust(3 * PLACE_BYTES, b"\0"))
    data[at] ^= 1 << bit
    path.write_bytes(data)
    again = FileMark(path)
    assert read_mark(again.read(), KEY.public).size in {2, 3}
    again.write(note(9))
    assert read_mark(again.read(), KEY.public).size == 9
    again.close()


def test_a_mark_others_may_write_or_that_is_a_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    path.write_bytes(b"")
    path.chmod(0o666)
    with pytest.raises(RecordsError):
        FileMark(path)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(RecordsError):
        FileMark(tmp_path / "link")


def test_a_note_signed_under_another_name_is_no_mark() -> None:
    text = sign_checkpoint(Checkpoint("other", 1, bytes(32)), KEY)
    forged = text.replace("other\n1", f"{ORIGIN}\n1", 1)
    with pytest.raises(RecordsError):
        read_mark(forged, KEY.public)
    assert encode_key("other", KEY.public)


def test_a_mark_that_could_not_be_raised_is_told_to_the_operator_and_is_raised_with_the_next_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Until then whoever puts the old database back finds a mark that is just as old."""
    house = House(tmp_path)
    house.write(3)
    store, mark = SqliteStore(house.database), FileMark(house.place)
    ledger = Ledger(store, KEY, ORIGIN, mark=mark)
    here, full = mark._fd, os.open("/dev/full", os.O_RDWR)
    mark._fd = full
    ledger.append_batch(events(1)).result(PATIENCE)
    assert "the high-water mark could not be raised: HBK-703" in caplog.text
    assert read_mark(read_mark_file(house.place), KEY.public).size == 3
    mark._fd = here
    os.close(full)
    ledger.append_batch(events(1)).result(PATIENCE)
    assert read_mark(read_mark_file(house.place), KEY.public).size == 5
    ledger.close()
    mark.close()
    store.close()


def test_a_note_longer_than_its_place_is_refused_and_leaves_the_newest(tmp_path: Path) -> None:
    with closing(FileMark(tmp_path / "mark")) as mark:
        for size in (1, 2, 3):
            mark.write(note(size))
        with pytest.raises(RecordsError) as caught:
            mark.write(note(4) + "x" * PLACE_BYTES)
        assert caught.value.code == "HBK-703"
        assert mark.read() == note(3)
    assert read_mark_file(tmp_path / "mark") == note(3)
