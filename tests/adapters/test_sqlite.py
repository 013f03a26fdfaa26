"""What only the store on disk has to show: what it leaves open, and what a crash leaves of a write."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.clock import ManualClock
from hauberk.core.ports import Put, Write
from hauberk.errors import RecordsError
from tests.records.made import ORIGIN, PATIENCE, append, entry

KILLED_IN_A_TRANSACTION = """
import os, signal, sys
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.clock import ManualClock
from hauberk.core.ports import Put, Write
from tests.records.made import append, entry
store = SqliteStore(sys.argv[1])
store.commit(Write(append(entry(0)), rows=(Put("s", b"first", b"v"),)))
store._row = lambda row: os.kill(os.getpid(), signal.SIGKILL)
store.commit(Write(append(entry(1)), rows=(Put("s", b"second", b"v"),)))
"""


def test_a_process_killed_in_the_middle_of_a_write_leaves_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    child = subprocess.run([sys.executable, "-c", KILLED_IN_A_TRANSACTION, str(path)], check=False, timeout=30)
    assert child.returncode == -9
    store = SqliteStore(path)
    assert [one.position for one in store.entries(ORIGIN)] == [0]
    assert store.head(ORIGIN).size == 1
    assert [row.key for row in store.scan("s")] == [b"first"]
    store.commit(Write(append(entry(1))))
    store.close()


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open descriptors are counted in /proc")
def test_threads_that_come_and_go_leave_no_connections_behind(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    store.commit(Write(rows=(Put("s", b"k", b"v"),)))

    def read() -> None:
        thread = threading.Thread(target=store.get, args=("s", b"k"))
        thread.start()
        thread.join(PATIENCE)

    read()
    before = descriptors()
    for _ in range(20):
        read()
    after = descriptors()
    store.close()
    assert after <= before + 6


def test_a_database_that_breaks_under_a_reader_is_reported_with_a_code(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    store.commit(Write(append(*(entry(at) for at in range(200)))))
    store.close()
    broken = SqliteStore(path)
    data = bytearray(path.read_bytes())
    data[4096 : len(data) - 4096] = os.urandom(len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(RecordsError) as found:
        list(broken.entries(ORIGIN))
    assert found.value.code == "HBK-703"
    broken.close()


def test_a_locked_database_is_waited_for_and_then_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hauberk.adapters.sqlite.BUSY_SECONDS", 0.05)
    store = SqliteStore(tmp_path / "s.db")
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RecordsError) as found:
        store.commit(Write(rows=(Put("s", b"k", b"v"),)))
    assert found.value.code == "HBK-703"
    other.execute("ROLLBACK")
    other.close()
    store.commit(Write(rows=(Put("s", b"k", b"v"),)))
    store.close()


def test_a_closed_store_is_one_file_that_can_be_copied_whole(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    store.commit(Write(append(entry(0))))
    assert store.head(ORIGIN).size == 1  # a reader has been there too
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["s.db"]


def test_expired_rows_are_swept_away_and_nothing_else(tmp_path: Path) -> None:
    clock = ManualClock()
    store = SqliteStore(tmp_path / "s.db", now=clock.time)
    lasting = [Put("s", b"kept", b""), Put("s", b"later", b"", expires=clock.time() + 10_000)]
    gone = [Put("s", b"%d" % at, b"", expires=clock.time() + at) for at in range(1, 50)]
    store.commit(Write(rows=[*lasting, *gone]))
    clock.advance(1_000)
    store.commit(Write(rows=(Put("s", b"new", b""),)))
    store.close()
    database = sqlite3.connect(tmp_path / "s.db")
    assert database.execute("SELECT key FROM row ORDER BY key").fetchall() == [(b"kept",), (b"later",), (b"new",)]
    database.close()


@pytest.mark.parametrize("version", [0, 1, 3])
def test_tables_of_another_release_are_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "store.db"
    SqliteStore(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(RecordsError) as found:
        SqliteStore(path)
    assert found.value.code == "HBK-724"


def test_several_processes_may_start_on_one_new_file_at_once(tmp_path: Path) -> None:
    made: list[SqliteStore] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        made.append(SqliteStore(tmp_path / "store.db"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    for store in made:
        store.close()
