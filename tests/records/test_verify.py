"""Tampering with the stored log, and what offline verification says about it, from public material alone."""
# ruff: noqa: S608  # statements here are made of constants

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hauberk.adapters.audited import AuditedFile
from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.event import Event
from hauberk.crypto.merkle import Frontier, leaf_hash
from hauberk.crypto.note import Checkpoint, encode_key, sign_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError, Tampered
from hauberk.records.verify import Kind, VerifyReport, verify_store
from tests.records.made import ORIGIN, STREAM, Book, event

SIGNER = SigningKey(b"log signing key of these tests..")
KEY = encode_key(ORIGIN, SIGNER.public)
SIZE = 300  # more than one tile
BAD = 137  # the position most attacks aim at


def mixed(count: int) -> list[Event]:
    return [event(number, stream=f"{STREAM}/{number % 3}") for number in range(count)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of `SIZE` entries, written in batches of several sizes, closed properly."""
    book = Book(tmp_path_factory.mktemp("original"), SIGNER)
    made = mixed(SIZE)
    for start, end in ((0, 1), (1, 8), (8, 260), (260, SIZE)):
        book.write(*made[start:end])
    book.close()
    return single(book.path)


def single(path: Path) -> Path:
    """Make the database one file, whatever waits beside it."""
    sql(path, "PRAGMA journal_mode=DELETE")
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    copy = tmp_path / "log.db"
    copy.write_bytes(original.read_bytes())
    return copy


def verify(path: Path, key: str = KEY, known: str = "") -> VerifyReport:
    store = open_readonly(path)
    try:
        return verify_store(store, key, known=known)
    finally:
        store.close()


def found(path: Path, key: str = KEY, known: str = "") -> Tampered:
    with pytest.raises(Tampered) as caught:
        verify(path, key, known)
    return caught.value


def quickly(path: Path) -> Tampered:
    """What is found in pages of plain rows, as the command line reads."""
    with closing(AuditedFile(path)) as store, pytest.raises(Tampered) as caught:
        verify_store(store, KEY)
    return caught.value


def sql(path: Path, *statements: str | tuple[str, Sequence[Any]]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        text, values = (statement, ()) if isinstance(statement, str) else statement
        connection.execute(text, values)
    connection.close()


def checkpoint(path: Path) -> str:
    store = open_readonly(path)
    try:
        return store.head(ORIGIN).checkpoint.decode()
    finally:
        store.close()


def rebuilt(directory: Path, made: Sequence[Event], signer: SigningKey = SIGNER) -> Path:
    """Another log, written from the start: what an operator who has the key can make."""
    directory.mkdir()
    book = Book(directory, signer)
    book.write(*made)
    book.close()
    return book.path


def test_an_honest_log_is_verified_with_public_material_alone(path: Path) -> None:
    before = path.read_bytes()
    report = verify(path)
    assert (report.origin, report.size, report.streams) == (ORIGIN, SIZE, 3)
    assert path.read_bytes() == before
    verify(path, known=checkpoint(path))


def test_a_database_without_the_log_is_never_verified(path: Path, tmp_path: Path) -> None:
    SqliteStore(tmp_path / "empty.db").close()
    assert found(tmp_path / "empty.db").detail == "there is no entry of this log here"
    other = encode_key("example.com/ledger", SIGNER.public)
    assert found(path, other).context["log"] == "example.com/ledger"
    sql(path, "DELETE FROM entry", "DELETE FROM tile", "DELETE FROM head", "DELETE FROM row")
    assert found(path).code == "HBK-710"


Attack = Callable[[Path], None]


def edit(column: str, value: str) -> Attack:
    return lambda path: sql(path, f"UPDATE entry SET {column} = {value} WHERE position = {BAD}")


def reorder(path: Path) -> None:
    swap = "UPDATE entry SET position = {} WHERE position = {}"
    sql(path, swap.format(-1, BAD), swap.format(BAD, BAD + 5), swap.format(BAD + 5, -1))


def replay(path: Path) -> None:
    """The same event once more, under a new id column so that the unique index lets it in."""
    sql(
        path,
        f"INSERT INTO entry SELECT log, {SIZE}, randomblob(16), stream, type, version + 1000, leaf, meta, public,"
        f" sealed, statement FROM entry WHERE position = {BAD}",
    )


def replay_in_place(path: Path) -> None:
    """An entry replaced by an earlier one of the same stream, id and all."""
    sql(path, "DROP INDEX entry_id", f"DELETE FROM entry WHERE position = {BAD}")
    sql(
        path,
        f"INSERT INTO entry SELECT log, {BAD}, id, stream, type, version + 1000, leaf, meta, public, sealed, statement"
        f" FROM entry WHERE position = {BAD - 3}",
    )


ATTACKS: dict[str, tuple[Attack, int]] = {
    "the facts are edited": (edit("public", """CAST('{"number":0}' AS BLOB)"""), BAD),
    "who did it is edited": (edit("meta", "CAST(replace(CAST(meta AS TEXT), 'paid', 'lost') AS BLOB)"), BAD),
    "sealed bytes are put in": (edit("sealed", "x'00'"), BAD),
    "the leaf is edited": (edit("leaf", "zeroblob(154)"), BAD),
    "the leaf is cut short": (edit("leaf", "substr(leaf, 1, 153)"), BAD),
    "the column of the type is edited": (edit("type", "'order.lost'"), BAD),
    "the column of the stream is edited": (edit("stream", "'/services/other'"), BAD),
    "the column of the id is edited": (edit("id", "zeroblob(16)"), BAD),
    "the column of the version is edited": (edit("version", "version + 1000"), BAD),
    "the column of the version is another number type": (edit("version", "version + 0.5"), BAD),
    "an entry becomes text": (edit("public", "CAST(public AS TEXT)"), BAD),
    "an entry becomes nothing": (edit("meta", "NULL"), BAD),
    "an entry is deleted": (lambda path: sql(path, f"DELETE FROM entry WHERE position = {BAD}"), BAD),
    "the first entry is deleted": (lambda path: sql(path, "DELETE FROM entry WHERE position = 0"), 0),
    "an entry moves to another log": (edit("log", "'other'"), BAD),
    "a gap is closed": (
        lambda path: sql(
            path,
            f"DELETE FROM entry WHERE position = {BAD}",
            f"UPDATE entry SET position = position - 1 WHERE position > {BAD}",
        ),
        BAD,
    ),
    "two entries change places": (reorder, BAD),
    "an entry is replayed at the end": (replay, SIZE),
    "an entry is replayed in place of another": (replay_in_place, BAD),
    "the end is cut off": (lambda path: sql(path, f"DELETE FROM entry WHERE position >= {BAD}"), BAD),
    "everything is deleted but the head": (lambda path: sql(path, "DELETE FROM entry"), 0),
    "the head is deleted": (lambda path: sql(path, "DELETE FROM head"), 0),
    "the end is cut off and the head is made to fit": (
        lambda path: sql(path, f"DELETE FROM entry WHERE position >= {BAD}", f"UPDATE head SET size = {BAD}"),
        BAD,
    ),
    "the checkpoint is emptied": (lambda path: sql(path, "UPDATE head SET checkpoint = x''"), 0),
    "a leaf hash is edited": (
        lambda path: sql(
            path,
            f"UPDATE tile SET data = CAST(substr(data, 1, {BAD * 32}) || zeroblob(32) ||"
            f" substr(data, {BAD * 32 + 33}) AS BLOB) WHERE level = 0 AND number = 0",
        ),
        BAD,
    ),
    "a tile is deleted": (lambda path: sql(path, "DELETE FROM tile WHERE level = 0 AND number = 1"), 256),
    "a tile is cut short": (
        lambda path: sql(path, "UPDATE tile SET data = substr(data, 1, 320) WHERE level = 0 AND number = 0"),
        10,
    ),
}

KINDS = {
    "the facts are edited": "edited",
    "who did it is edited": "edited",
    "sealed bytes are put in": "edited",
    "the leaf is edited": "unreadable",
    "the leaf is cut short": "unreadable",
    "the column of the type is edited": "edited",
    "the column of the stream is edited": "relocated",
    "the column of the id is edited": "edited",
    "the column of the version is edited": "edited",
    "the column of the version is another number type": "edited",
    "an entry becomes text": "unreadable",
    "an entry becomes nothing": "unreadable",
    "an entry is deleted": "deleted",
    "the first entry is deleted": "deleted",
    "an entry moves to another log": "deleted",
    "a gap is closed": "deleted",
    "two entries change places": "reordered",
    "an entry is replayed at the end": "replayed",
    "an entry is replayed in place of another": "replayed",
    "the end is cut off": "truncated",
    "everything is deleted but the head": "truncated",
    "the head is deleted": "deleted",
    "the end is cut off and the head is made to fit": "truncated",
    "the checkpoint is emptied": "deleted",
    "a leaf hash is edited": "edited",
    "a tile is deleted": "tile",
    "a tile is cut short": "tile",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_tampering_is_found_with_the_first_bad_position(path: Path, name: str) -> None:
    attack, position = ATTACKS[name]
    verify(path)
    attack(path)
    error = found(path)
    assert (error.context["position"], error.context["kind"]) == (position, KINDS[name])
    assert error.code == "HBK-710"
    assert quickly(path).context == error.context


def test_a_rolled_back_log_is_found_by_a_checkpoint_from_before(path: Path, tmp_path: Path) -> None:
    """An older copy is a perfectly good log. Only whoever kept a later checkpoint can tell."""
    late = checkpoint(path)
    older = rebuilt(tmp_path / "older", mixed(100))
    verify(older)  # the twin: without the checkpoint nothing is wrong with it
    error = found(older, known=late)
    assert (error.code, error.context["position"], error.context["kind"]) == ("HBK-713", 100, "rolled-back")


def test_a_truncated_log_whose_head_was_signed_again_is_found_by_a_checkpoint_from_before(path: Path) -> None:
    late = checkpoint(path)
    store = open_readonly(path)
    frontier = Frontier()
    frontier.extend(leaf_hash(entry.leaf) for entry in store.entries(ORIGIN, limit=BAD))
    store.close()
    note = sign_checkpoint(Checkpoint(ORIGIN, BAD, frontier.root()), SIGNER).encode()
    sql(
        path,
        f"DELETE FROM entry WHERE position >= {BAD}",
        "DELETE FROM tile WHERE number > 0 OR level > 0",
        f"UPDATE tile SET data = substr(data, 1, {BAD * 32})",
        ("UPDATE head SET size = ?, frontier = ?, checkpoint = ?", (BAD, frontier.encode(), note)),
    )
    verify(path)  # the twin: without the checkpoint nothing is wrong with it
    error = found(path, known=late)
    assert (error.code, error.context["position"]) == ("HBK-713", BAD)


def test_history_rewritten_by_the_signer_is_found_by_a_checkpoint_from_before(path: Path, tmp_path: Path) -> None:
    """The operator has the key, writes another past of the same length and signs it: a perfectly good log."""
    late = checkpoint(path)
    other = rebuilt(tmp_path / "other", mixed(SIZE))
    verify(other)
    error = found(other, known=late)
    assert (error.code, error.context["position"]) == ("HBK-710", SIZE - 1)
    assert error.context["kind"] == "rewritten"
    longer = rebuilt(tmp_path / "longer", mixed(SIZE + 20))
    assert found(longer, known=late).context["position"] == SIZE - 1


def test_a_log_signed_with_another_key_is_found(tmp_path: Path) -> None:
    thief = SigningKey.generate()
    forged = rebuilt(tmp_path / "forged", mixed(20), thief)
    verify(forged, encode_key(ORIGIN, thief.public))
    assert found(forged).context["position"] == 0


def test_a_checkpoint_of_another_log_or_key_is_no_checkpoint_from_before(path: Path, tmp_path: Path) -> None:
    foreign = checkpoint(rebuilt(tmp_path / "foreign", mixed(3), SigningKey.generate()))
    for known in (foreign, "junk"):
        with pytest.raises(RecordsError) as caught:
            verify(path, known=known)
        assert caught.value.code == "HBK-711"


@pytest.mark.parametrize("key", ["", "junk", "a+b+c", KEY.replace("example.org", "example.com"), KEY[:-2] + "AA"])
def test_what_is_no_key_of_this_log_is_refused(path: Path, key: str) -> None:
    with pytest.raises(RecordsError) as caught:
        verify(path, key)
    assert caught.value.code == "HBK-711"


def test_verification_of_a_log_that_grows_meanwhile_raises_no_alarm(tmp_path: Path) -> None:
    book = Book(tmp_path, SIGNER)
    book.write(*mixed(50))
    grow = book.store.entries
    more = iter(range(3))

    def growing(*args: Any, **named: Any) -> Any:  # noqa: ANN401  # what the store takes
        """A page is read, and right then somebody appends."""
        page = list(grow(*args, **named))
        if next(more, None) is not None:
            book.write(*mixed(7))
        return iter(page)

    book.store.entries = growing  # type: ignore[method-assign]
    assert verify_store(book.store, KEY).size >= 50
    book.close()


# every byte of every column

TABLES = {
    "entry": ("log", "position", "id", "stream", "type", "version", "leaf", "meta", "public"),
    "tile": ("log", "level", "number", "data"),
    "head": ("log", "size", "frontier", "checkpoint"),
}
COLUMNS = [(table, column) for table, columns in TABLES.items() for column in columns]


def flip(path: Path, table: str, column: str, *, row: int, at: int, mask: int) -> None:
    """Change one byte of one stored value, whatever its type."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    keys = {"entry": ("log", "position"), "tile": ("log", "level", "number"), "head": ("log",)}[table]
    rows = connection.execute(f"SELECT {', '.join(keys)} FROM {table} ORDER BY {', '.join(keys)}").fetchall()
    where, values = " AND ".join(f"{key} = ?" for key in keys), rows[row % len(rows)]
    kind, old = connection.execute(
        f"SELECT typeof({column}), CAST({column} AS BLOB) FROM {table} WHERE {where}",
        values,
    ).fetchone()
    if kind == "integer":
        new: object = int(old) ^ (mask << (at % 6) * 8)
        text = "?"
    else:
        raw = bytearray(old)
        raw[at % len(raw)] ^= mask
        new, text = bytes(raw), "CAST(? AS TEXT)" if kind == "text" else "?"
    connection.execute(f"UPDATE OR REPLACE {table} SET {column} = {text} WHERE {where}", (new, *values))
    connection.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    book = Book(tmp_path_factory.mktemp("small"), SIGNER)
    made = mixed(258)
    book.write(*made)
    book.close()
    return single(book.path).read_bytes()


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=[f"{table}.{column}" for table, column in COLUMNS])
def test_any_flipped_byte_of_any_column_is_found(
    small: bytes, tmp_path_factory: pytest.TempPathFactory, table: str, column: str
) -> None:
    path = tmp_path_factory.mktemp("flip") / "log.db"

    @settings(max_examples=12, deadline=None, phases=[Phase.generate])  # examples are as small as they can be
    @given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 255))
    def flipped(row: int, at: int, mask: int) -> None:
        path.write_bytes(small)
        flip(path, table, column, row=row, at=at, mask=mask)
        error = found(path)
        assert isinstance(error.context["position"], int)
        assert error.context["kind"] in set(Kind)
        assert quickly(path).context == error.context

    flipped()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE head SET checkpoint = CAST(checkpoint AS TEXT)",
        "UPDATE head SET checkpoint = NULL",
        "UPDATE head SET frontier = NULL",
        "UPDATE head SET size = 'many'",
        "UPDATE head SET epoch = NULL",
        "UPDATE tile SET data = NULL",
        "UPDATE tile SET data = 'text'",
        "UPDATE entry SET leaf = NULL",
        "UPDATE entry SET meta = CAST(meta AS TEXT)",
        "UPDATE entry SET position = 'first' WHERE position = 3",
    ],
)
def test_values_of_another_type_are_tampering_like_any_other(path: Path, change: str) -> None:
    sql(path, change)
    assert isinstance(found(path).context["position"], int)
