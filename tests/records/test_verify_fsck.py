"""What follows from something else in a store, compared with it; and made again only where the log signed it."""

from contextlib import closing
from pathlib import Path

import pytest

from hauberk.adapters.audited import AuditedFile, rebuild
from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.ports import Put, Write
from hauberk.errors import Conflict, RecordsError
from hauberk.records.keys import ERASED, KEY
from hauberk.records.verify import verify_store
from hauberk.records.verify.fsck import Derived, check_keys, check_log
from tests.records.forger import rewrite
from tests.records.made import ORIGIN
from tests.records.test_verify import KEY as VERIFIER
from tests.records.test_verify import SIGNER, mixed, rebuilt, single, sql
from tests.records.test_verify_declared import pruned_log

SIZE = 600


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return single(rebuilt(tmp_path_factory.mktemp("log") / "log", mixed(SIZE))).read_bytes()


@pytest.fixture
def path(original: bytes, tmp_path: Path) -> Path:
    copy = tmp_path / "log.db"
    copy.write_bytes(original)
    return copy


def check(path: Path, key: str | None = VERIFIER) -> Derived:
    with closing(AuditedFile(path)) as store:
        return check_log(store, ORIGIN, key)


def rules(path: Path) -> list[str]:
    return [one.rule for one in check(path).findings]


def test_a_sound_log_has_no_findings_and_agrees(path: Path) -> None:
    found = check(path)
    assert (found.findings, found.tiles, found.agrees) == ((), (), True)
    assert not check(path, None).agrees  # without the key nobody can tell


def test_pruned_entries_are_no_finding(tmp_path: Path) -> None:
    assert rules(pruned_log(tmp_path)) == []


def repair(path: Path) -> None:
    found = check(path)
    assert found.agrees
    with closing(open_readonly(path)) as store:
        head = store.head(ORIGIN)
    rebuild(path, ORIGIN, found.tiles, type(head)(head.size, found.frontier, head.checkpoint, head.epoch))


DERIVED = {
    "UPDATE tile SET data = zeroblob(length(data)) WHERE level = 0 AND number = 1": ["tile"],
    "DELETE FROM tile WHERE level = 0 AND number = 0": ["tile"],
    "UPDATE tile SET data = zeroblob(length(data)) WHERE level = 1": ["tile"],
    "UPDATE tile SET data = 'text' WHERE level = 0 AND number = 2": ["tile"],
    "UPDATE head SET frontier = zeroblob(length(frontier))": ["frontier"],
    "DELETE FROM tile": ["tile"] * 4,
}


@pytest.mark.parametrize("statement", DERIVED)
def test_what_is_derived_is_named_and_made_again(path: Path, statement: str) -> None:
    sql(path, statement)
    assert rules(path) == DERIVED[statement]
    with closing(open_readonly(path)) as store, pytest.raises(RecordsError):
        verify_store(store, VERIFIER)
    repair(path)
    assert rules(path) == []
    with closing(open_readonly(path)) as store:
        assert verify_store(store, VERIFIER).size == SIZE


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE entry SET leaf = zeroblob(154) WHERE position = 9", "root"),
        ("UPDATE entry SET leaf = NULL WHERE position = 9", "unreadable"),
        ("DELETE FROM entry WHERE position = 9", "entry-missing"),
        ("DELETE FROM entry WHERE position > 590", "entry-missing"),
        ("UPDATE head SET checkpoint = x''", "head"),
        ("UPDATE head SET size = 599", "head"),
    ],
)
def test_what_is_not_derived_is_named_and_never_made_again(path: Path, statement: str, expected: str) -> None:
    sql(path, statement)
    found = check(path)
    assert expected in [one.rule for one in found.findings]
    assert not found.agrees or not found.tiles


def test_nothing_is_written_over_a_head_that_moved(path: Path) -> None:
    found = check(path)
    with closing(open_readonly(path)) as store:
        head = store.head(ORIGIN)
    moved = type(head)(head.size - 1, found.frontier, head.checkpoint, head.epoch)
    with pytest.raises(Conflict):
        rebuild(path, ORIGIN, found.tiles, moved)
    assert rules(path) == []


def test_a_statement_that_does_not_hold_is_named(tmp_path: Path) -> None:
    path = rebuilt(tmp_path / "log", mixed(20))
    rewrite(path, SIGNER, lambda entries: entries)
    assert rules(path) == []
    sql(path, "UPDATE entry SET statement = x'c1' WHERE position = 7")
    assert rules(path) == ["statement"]


def test_a_key_of_another_log_is_refused(path: Path) -> None:
    with pytest.raises(RecordsError) as caught:
        check(path, VERIFIER.replace("example.org", "example.com"))
    assert caught.value.code == "HBK-711"


def test_a_key_that_was_erased_and_is_still_there_is_named(path: Path) -> None:
    store = SqliteStore(path)
    name = b"k" * 16
    store.commit(Write(rows=[Put(ERASED, name, b"certificate"), Put(ERASED, b"o" * 16, b"certificate")]))
    assert check_keys(store) == []
    store.commit(Write(rows=[Put(KEY, name, b"wrapped")]))
    (found,) = check_keys(store)
    assert (found.rule, name.hex() in found.message) == ("erased-key", True)
    store.close()


# the engine


def test_the_engine_looks_at_its_own_pages_and_indexes(path: Path) -> None:
    with closing(AuditedFile(path)) as store:
        assert (store.integrity(), store.strays()) == ([], [])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    with closing(AuditedFile(path)) as store:
        assert store.integrity()


def test_rows_that_belong_to_nothing_are_named(path: Path) -> None:
    sql(
        path,
        "UPDATE entry SET log = 'other' WHERE position = 3",
        "INSERT INTO tile VALUES ('example.org/ledger', 0, 9, x'00'), ('gone', 0, 0, x'00')",
    )
    with closing(AuditedFile(path)) as store:
        found = store.strays()
    assert len(found) == 3
    assert any("tile 0/9" in one for one in found)


def test_an_auditor_writes_nothing_and_reads_one_moment(tmp_path: Path) -> None:
    path = rebuilt(tmp_path / "log", mixed(5))
    with closing(AuditedFile(path)) as store:
        with pytest.raises(RecordsError):
            store.commit(Write(rows=[Put("space", b"key", b"value")]))
        size = store.head(ORIGIN).size
        writer = SqliteStore(path)
        writer.commit(Write(rows=[Put("space", b"key", b"value")]))
        writer.close()
        assert store.get("space", b"key") is None
        assert store.head(ORIGIN).size == size
    with pytest.raises(RecordsError) as caught:
        store.head(ORIGIN)
    assert caught.value.code == "HBK-706"


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordsError):
        AuditedFile(tmp_path / "missing.db")
    (tmp_path / "junk.db").write_bytes(b"junk" * 100)
    with pytest.raises(RecordsError):
        AuditedFile(tmp_path / "junk.db")
