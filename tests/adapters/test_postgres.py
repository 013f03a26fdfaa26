"""What only the store on PostgreSQL has to show: what it insists on, what it survives, and what it leaves behind."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace

from hauberk.adapters import postgres_rows
from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.postgres_connect import STRICT, Connection, Target, Terms
from hauberk.adapters.postgres_schema import migrate
from hauberk.adapters.postgres_write import apply, finish
from hauberk.core.clock import ManualClock
from hauberk.core.ports import ABSENT_ROW, Check, Delete, Head, Put, Tile, Write
from hauberk.errors import Conflict, HauberkError, Malformed, OutcomeUnknown, RecordsError
from tests.core.refusal import refuses
from tests.records.made import ORIGIN, PATIENCE, STREAM, append, entry
from tests.support.postgres import address, administrator, database, execute, login
from tests.support.postgres_server import Server

KILLED_IN_A_TRANSACTION = """
import os, signal, sys
from hauberk.adapters import postgres_write
from hauberk.adapters.postgres import PostgresStore
from hauberk.core.ports import Put, Write
from tests.records.made import append, entry
store = PostgresStore(sys.argv[1])
store.commit(Write(append(entry(0)), rows=(Put("s", b"first", b"v"),)))
postgres_write.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from hauberk.adapters import postgres
postgres.finish = postgres_write.finish
store.commit(Write(append(*(entry(at) for at in range(1, 100))), rows=(Put("s", b"second", b"v"),)))
"""
SECRET = b"the-wrapped-key-of-somebody-who-was-erased"


@pytest.fixture
def dsn() -> Iterator[str]:
    with database() as lent:
        yield lent


@pytest.fixture
def store(dsn: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(dsn)) as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own, which may be killed. It lets its log go, and checks nothing but what tests make it check."""
    made = Server(wal_recycle="off")
    try:
        made.start()
        migrate(Target(made.dsn()))
        yield made
    finally:
        made.remove()


def setting(store: PostgresStore, name: str) -> object:
    return store._pool.run(
        lambda connection: connection.execute("SELECT current_setting(%s)", (name,)).fetchall()[0][0]
    )


# what it insists on


def test_a_commit_waits_for_the_disk_whatever_role_and_database_say() -> None:
    with login("hauberk_app") as name, database() as dsn:
        execute(
            administrator(),
            f"ALTER ROLE {name} SET synchronous_commit = off",
            f"ALTER ROLE {name} SET default_transaction_isolation = 'serializable'",
            f"ALTER ROLE {name} SET search_path = public",
        )
        lax = address(dsn, user=name, password="p", options="-c synchronous_commit=local")
        with closing(psycopg.connect(lax)) as plain:  # the twin
            assert plain.execute("SHOW synchronous_commit").fetchone() == ("local",)
        with closing(PostgresStore(lax)) as store:
            assert setting(store, "synchronous_commit") == "on"
            assert setting(store, "transaction_isolation") == "read committed"
            assert setting(store, "search_path") == "pg_catalog"
            assert setting(store, "statement_timeout") == "1min"
        execute(administrator(), f"ALTER ROLE {name} SET synchronous_commit = remote_apply")
        with closing(PostgresStore(address(dsn, user=name))) as store:
            assert setting(store, "synchronous_commit") == "remote_apply"  # stricter still


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
def test_a_server_that_may_lose_what_it_acknowledged_is_refused_unless_that_is_asked_for(
    server: Server, name: str
) -> None:
    execute(server.dsn(), f"ALTER SYSTEM SET {name} = off", "SELECT pg_reload_conf()")
    try:
        server.wait_for(name, "off")
        with refuses("HBK-706") as found:
            PostgresStore(server.dsn())
        assert found.value.context == {"off": name}
        PostgresStore(server.dsn(), terms=Terms(insecure_unsynced=True)).close()
        PostgresStore(server.dsn(), terms=Terms(readonly=True)).close()  # which acknowledges nothing
    finally:
        execute(server.dsn(), f"ALTER SYSTEM RESET {name}", "SELECT pg_reload_conf()")
        server.wait_for(name, "on")


@pytest.mark.parametrize("query", ["", "?sslmode=disable", "?sslmode=prefer", "?sslmode=require", "?hostaddr=10.0.0.1"])
def test_another_machine_is_talked_to_over_verified_tls_only(query: str) -> None:
    mode = query.partition("sslmode=")[2]
    if mode:
        with refuses("HBK-901"):
            Target(f"postgresql://db.example.org/x{query}")
    else:
        parameters = Target(f"postgresql://db.example.org/x{query}")._parameters
        assert (parameters["sslmode"], parameters["sslrootcert"]) == ("verify-full", "system")
        assert parameters["gssencmode"] == "disable"
    lax = Target(f"postgresql://db.example.org/x{query}", Terms(insecure_plaintext=True))
    assert lax._parameters.get("sslmode") == (mode or None)


@pytest.mark.parametrize("name", ["127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example"])
def test_a_name_that_begins_like_this_machine_is_another(name: str) -> None:
    assert Target(f"postgresql://{name}/x")._parameters["sslmode"] == "verify-full"
    assert name.startswith(("127.", "localhost"))  # which is all that a look at its beginning would tell


@pytest.mark.parametrize("place", ["", "localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"])
def test_this_machine_needs_no_tls(place: str) -> None:
    assert "sslmode" not in Target(f"postgresql://{place}/x")._parameters


def test_the_environment_and_service_files_do_not_lead_to_another_machine_unseen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGHOST", "db.example.org")
    assert Target("postgresql:///x")._parameters["sslmode"] == "verify-full"
    assert "sslmode" not in Target("postgresql://localhost/x")._parameters
    monkeypatch.delenv("PGHOST")
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert Target("postgresql://db.example.org/x")._parameters["sslmode"] == "verify-full"
    services = tmp_path / "services"
    services.write_text("[elsewhere]\nhost=db.example.org\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    with refuses("HBK-901"):
        Target("postgresql:///x?service=elsewhere")


def test_a_database_in_another_encoding_is_refused() -> None:
    with database(empty=True) as lent:
        execute(administrator(), "CREATE DATABASE hauberk_latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            with refuses("HBK-706"):
                PostgresStore(address(lent, dbname="hauberk_latin"))
        finally:
            execute(administrator(), "DROP DATABASE hauberk_latin WITH (FORCE)")


# what it says


@pytest.mark.parametrize(
    "query", ["dbname=no_such_database", "user=no_such_user", "host=%2Fno%2Fsuch%2Fplace", "port=nonsense"]
)
def test_neither_the_store_nor_an_error_of_it_tells_the_password(dsn: str, query: str) -> None:
    secret = "hunter2hunter2"
    known = address(dsn, password=secret)
    with closing(PostgresStore(known)) as store:
        told = [repr(store), repr(store._target), repr(store._pool)]
    with pytest.raises(HauberkError) as found:
        PostgresStore(f"{known}{'&' if '?' in known else '?'}{query}")
    error: BaseException | None = found.value
    while error is not None:
        told += [str(error), repr(error), getattr(error, "detail", ""), repr(getattr(error, "context", ""))]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert secret not in "".join(told)


def test_a_text_that_postgresql_cannot_hold_is_that_events_own_fault(store: PostgresStore) -> None:
    for write in (
        Write(append(replace(entry(0), stream="/a\0b"))),
        Write(rows=(Put("a\0b", b"k", b"v"),)),
        Write(append(*(replace(entry(at), type=f"a\0{at}") for at in range(60)))),
    ):
        with pytest.raises(Malformed):
            store.commit(write)
    with pytest.raises(Malformed):
        store.get("\ud800", b"k")
    assert store.head(ORIGIN) == Head()
    store.commit(Write(append(entry(0))))


def test_without_the_tables_it_says_so(dsn: str) -> None:
    with database(empty=True) as bare, refuses("HBK-724"):
        PostgresStore(bare)
    execute(dsn, "DROP TABLE hauberk.row")
    with closing(PostgresStore(dsn)) as store, refuses("HBK-703"):
        store.get("s", b"k")


def test_an_auditors_store_never_writes(store: PostgresStore, dsn: str) -> None:
    store.commit(Write(append(entry(0))))
    with closing(PostgresStore(dsn, terms=Terms(readonly=True))) as auditor:
        assert auditor.head(ORIGIN).size == 1
        calls: list[Callable[[], object]] = [
            lambda: auditor.commit(Write(append(entry(1)))),
            lambda: auditor.prune(ORIGIN, [0]),
            lambda: auditor.restore(ORIGIN, [entry(0)]),
        ]
        for call in calls:
            with refuses("HBK-706"):
                call()
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):  # nor would the session have let it
            auditor._pool.run(lambda connection: connection.execute("DELETE FROM hauberk.row"))


# other writers


def test_a_new_log_is_begun_by_exactly_one_of_those_who_try(dsn: str) -> None:
    stores = [PostgresStore(dsn) for _ in range(3)]
    won: list[int] = []
    lost: list[object] = []
    ready = threading.Barrier(6)

    def begin(number: int, log: str) -> None:
        ready.wait(PATIENCE)
        try:
            stores[number % 3].commit(Write(append(entry(0, stream=f"/{number}"), log=log)))
        except Conflict as error:
            lost.append(error.context["what"])
        else:
            won.append(number)

    for turn in range(5):
        threads = [threading.Thread(target=begin, args=(number, f"log {turn}")) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert (len(won), lost) == (turn + 1, ["head"] * 5 * (turn + 1))
        assert len(list(stores[0].entries(f"log {turn}"))) == 1
    for store in stores:
        store.close()


def test_writers_of_many_rows_in_any_order_never_wait_in_a_circle(dsn: str) -> None:
    stores = [PostgresStore(dsn, connections=2) for _ in range(2)]
    failed: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for turn in range(30):
                keys = [b"%d" % ((turn * 7 + number * 13 + at * (number + 1)) % 10) for at in range(6)]
                changes = [Delete("s", key) if at == 5 else Put("s", key, b"v") for at, key in enumerate(keys)]
                stores[number % 2].commit(Write(rows=changes))
        except RecordsError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failed == []
    for store in stores:
        store.close()


def test_of_writers_on_one_head_that_check_and_change_rows_too_each_gets_on_and_none_undoes_another(dsn: str) -> None:
    stores = [PostgresStore(dsn) for _ in range(2)]
    stores[0].commit(Write(rows=[Put("keys", b"%d" % at, b"v") for at in range(5)]))
    failed: list[BaseException] = []

    def write(number: int) -> None:
        store = stores[number % 2]
        for turn in range(15):
            checks = [Check("keys", b"%d" % at, 1) for at in range(5)]
            counted = store.get("count", b"k")
            put = Put("count", b"k", b"%d" % turn, expected=counted.revision if counted else ABSENT_ROW)
            while True:
                size = store.head(ORIGIN).size
                try:
                    store.commit(Write(append(entry(size, stream=f"/{number}", version=turn + 1)), (*checks, put)))
                    break
                except Conflict as error:
                    if error.context["what"] == "row":
                        put = replace(put, expected=error.context["found"])
                except RecordsError as error:
                    failed.append(error)
                    return

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert failed == []
    assert [one.position for one in stores[0].entries(ORIGIN)] == list(range(60))
    row = stores[0].get("count", b"k")
    assert row is not None
    assert row.revision == 60
    for store in stores:
        store.close()


def test_of_rows_made_at_the_same_time_the_later_one_is_a_change_and_never_lost(dsn: str) -> None:
    with closing(PostgresStore(dsn)) as store:
        threads = [
            threading.Thread(
                target=lambda: [store.commit(Write(rows=(Put("s", b"%d" % at, b"v"),))) for at in range(40)]
            )
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert [row.revision for row in store.scan("s")] == [3] * 40


def test_a_row_that_is_swept_away_under_a_write_is_written_all_the_same(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    with closing(PostgresStore(dsn, now=clock.time)) as store:
        store.commit(Write(rows=(Put("s", b"k", b"old", expires=clock.time() + 1),)))
        clock.advance(5)
        real = postgres_rows._look

        def look(connection: Connection, places: set[tuple[str, bytes]]) -> object:
            found = real(connection, places)
            execute(dsn, "DELETE FROM hauberk.row WHERE space = 's'")  # as a sweep of another process would
            return found

        monkeypatch.setattr(postgres_rows, "_look", look)
        store.commit(Write(rows=(Put("s", b"k", b"new", ABSENT_ROW),)))
        row = store.get("s", b"k")
        assert row is not None
        assert row.value == b"new"


def test_a_process_killed_in_the_middle_of_a_write_leaves_nothing_of_it(dsn: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_TRANSACTION, dsn], check=False, timeout=30, cwd=Path(__file__).parents[2]
    )
    assert child.returncode == -9
    with closing(PostgresStore(dsn)) as store:
        assert [one.position for one in store.entries(ORIGIN)] == [0]
        assert [row.key for row in store.scan("s")] == [b"first"]
        store.commit(Write(append(entry(1))))


def hold_the_head(connection: Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT FROM hauberk.head WHERE log = %s FOR UPDATE", (ORIGIN,))


@pytest.mark.parametrize("size", [1, 60])
def test_a_writer_that_stopped_before_its_commit_is_ended_and_the_next_one_goes_on(
    store: PostgresStore, dsn: str, size: int
) -> None:
    store.commit(Write(append(entry(0), entry(1))))
    with closing(Target(dsn, replace(STRICT, idle_seconds=0.3)).connect()) as stopped:
        for turn in range(2):  # the second time its statements are prepared already
            last = 2 + turn * size
            apply(stopped, Write(append(*(entry(last + at) for at in range(size))), (Put("s", b"k", b"v"),)), 0.0)
            if not turn:
                finish(stopped, PATIENCE)
        store.commit(Write(append(entry(last)), rows=(Put("s", b"k", b"w"),)))  # waits for the server to end it
        with pytest.raises(psycopg.Error, match="idle-in-transaction"):
            stopped.execute("SELECT 1")
    assert store.head(ORIGIN).size == size + 3


def test_the_twin_after_a_pipeline_the_server_may_not_end_it(store: PostgresStore, dsn: str) -> None:
    store.commit(Write(append(entry(0))))
    for turn in range(20):  # whether the flush comes before the timer of the server is a race
        with (
            closing(Target(dsn, replace(STRICT, idle_seconds=0.05)).connect()) as stopped,
            closing(PostgresStore(dsn, terms=Terms(lock_seconds=0.5))) as other,
        ):
            with stopped.pipeline():
                hold_the_head(stopped)
            try:
                other.commit(Write(append(entry(1 + turn))))
            except RecordsError as error:  # it waited ten times as long
                stopped.execute("SELECT 1")
                code = error.code
                break
    else:
        pytest.fail("the server ended every one")
    assert code == "HBK-703"


def test_a_lock_is_waited_for_and_then_given_up_and_nothing_was_written(dsn: str) -> None:
    with (
        closing(PostgresStore(dsn, terms=Terms(lock_seconds=0.1))) as store,
        closing(Target(dsn).connect()) as other,
    ):
        store.commit(Write(append(entry(0))))
        hold_the_head(other)
        with refuses("HBK-703"):
            store.commit(Write(append(entry(1)), rows=(Put("s", b"k", b"v"),)))
        assert store.get("s", b"k") is None
        other.execute("ROLLBACK")
        store.commit(Write(append(entry(1))))


def test_there_are_never_more_connections_than_allowed_and_who_needs_one_waits(dsn: str) -> None:
    name = "hauberk_counted"
    with closing(PostgresStore(address(dsn, application_name=name), connections=2)) as store:
        store.commit(Write(rows=[Put("s", b"%d" % at, b"v") for at in range(50)]))
        threads = [threading.Thread(target=lambda: list(store.scan("s"))) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        readers = [store.scan("s", limit=10) for _ in range(5)]
        assert [next(reader).key for reader in readers] == [b"0"] * 5  # none of them holds a connection
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        assert store._pool.run(lambda connection: connection.execute(query, (name,)).fetchall()[0][0]) <= 2
    with closing(PostgresStore(dsn, connections=1, terms=Terms(lock_seconds=0.1))) as store:

        def nested(_: Connection) -> None:
            with refuses("HBK-703"):
                store.head(ORIGIN)

        store._pool.run(nested)


def test_no_statement_reads_a_whole_table_however_full_it_was_when_it_was_planned(dsn: str) -> None:
    query = "SELECT relname FROM pg_stat_user_tables WHERE seq_scan > 0 AND relname IN ('entry', 'tile', 'row', 'head')"
    with closing(psycopg.connect(dsn, autocommit=True)) as plain, closing(PostgresStore(dsn, connections=1)) as store:
        for table in ("entry", "tile", "row", "head"):  # what making the tables has read
            plain.execute(f"SELECT pg_stat_reset_single_table_counters('hauberk.{table}'::regclass)".encode())
        for turn in range(8):  # planned while everything is empty, and again once there is something
            first = turn * 70
            rows = [Put("s", b"%d %d" % (turn, at), b"v", expires=1e12) for at in range(50)]
            tiles = (Tile(0, turn, b"h" * 32),)
            store.commit(Write(replace(append(*(entry(first + at) for at in range(70))), tiles=tiles), rows=rows))
            checks = [Check("s", row.key, 1) for row in rows[1:]]
            store.commit(Write(rows=[*checks, Delete("s", rows[0].key), Put("s", b"k", b"v")]))
            for one in ({}, {"kind": "order.paid"}, {"stream": STREAM}, {"backward": True, "before": 30}):
                list(store.entries(ORIGIN, after=first, limit=5, **one))
            list(store.stream(ORIGIN, STREAM, above=first, limit=5))
            store.find(ORIGIN, [entry(0).id])
            store.versions(ORIGIN, [STREAM, "/none"])
            store.tile(ORIGIN, 0, turn)
            store.get("s", b"k")
            list(store.scan("s", b"1", limit=5))
        store.prune(ORIGIN, range(10))
        store._pool.run(lambda connection: connection.execute("SELECT pg_stat_force_next_flush()"))
        store.head(ORIGIN)
        assert plain.execute("SELECT n_tup_ins > 500 FROM pg_stat_user_tables WHERE relname = 'entry'").fetchall() == [
            (True,)
        ]
        assert plain.execute(query).fetchall() == []


# what it survives


def test_what_was_acknowledged_survives_a_crash_of_the_server_and_the_store_goes_on_by_itself(server: Server) -> None:
    with closing(PostgresStore(server.dsn())) as store:
        store.commit(Write(append(entry(0)), rows=(Put("crash", b"k", b"v", ABSENT_ROW),)))
        server.crash()
        for _ in range(2):
            with refuses("HBK-703"):
                store.head(ORIGIN)
        server.start()
        assert store.head(ORIGIN).size == 1
        store.commit(Write(append(entry(1))))
        server.crash()
        server.start()
        store.commit(Write(append(entry(2))))
        assert [one.position for one in store.entries(ORIGIN)] == [0, 1, 2]


def test_connections_that_an_administrator_ends_are_replaced_and_nobody_notices(store: PostgresStore, dsn: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    for turn in range(3):
        store.commit(Write(append(entry(turn))))
        execute(
            administrator(),
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",  # noqa: S608  # ours
        )
    assert store.head(ORIGIN).size == 3


def test_a_commit_that_is_on_no_standby_though_it_should_be_is_not_acknowledged(server: Server) -> None:
    terms = Terms(statement_seconds=0.3)
    with closing(PostgresStore(server.dsn(), terms=terms)) as store:
        execute(server.dsn(), "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
        try:
            server.wait_for("synchronous_standby_names", "nobody")
            with pytest.raises(OutcomeUnknown):
                store.commit(Write(append(entry(0), log="standby")))
        finally:
            execute(server.dsn(), "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
            server.wait_for("synchronous_standby_names", "")
        assert store.head("standby").size == 1  # which it does have, itself
        store.commit(Write(append(entry(1), log="standby")))


def test_a_wait_for_a_standby_that_somebody_ends_is_no_acknowledgement_either(server: Server) -> None:
    with closing(PostgresStore(address(server.dsn(), application_name="waiting"))) as store:
        execute(server.dsn(), "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
        ended: list[BaseException] = []

        def write() -> None:
            try:
                store.commit(Write(append(entry(0), log="canceled")))
            except RecordsError as error:
                ended.append(error)

        try:
            server.wait_for("synchronous_standby_names", "nobody")
            writer = threading.Thread(target=write)
            writer.start()
            cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            with closing(psycopg.connect(server.dsn(), autocommit=True)) as other:
                until = time.monotonic() + PATIENCE
                while not other.execute(cancel).fetchall():
                    assert time.monotonic() < until
            writer.join(PATIENCE)
        finally:
            execute(server.dsn(), "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
            server.wait_for("synchronous_standby_names", "")
        assert [type(error) for error in ended] == [OutcomeUnknown]
        assert store.head("canceled").size == 1


# what it leaves behind


def test_expired_rows_are_swept_away_and_nothing_else(dsn: str) -> None:
    clock = ManualClock()
    with closing(PostgresStore(dsn, now=clock.time)) as store:
        lasting = [Put("s", b"kept", b""), Put("s", b"later", b"", expires=clock.time() + 10_000)]
        gone = [Put("s", b"%d" % at, b"", expires=clock.time() + at) for at in range(1, 50)]
        store.commit(Write(rows=[*lasting, *gone]))
        clock.advance(1_000)
        store.commit(Write(rows=(Put("s", b"new", b""),)))
    with closing(psycopg.connect(dsn)) as plain:
        rows = plain.execute("SELECT key FROM hauberk.row ORDER BY key").fetchall()
    assert rows == [(b"kept",), (b"later",), (b"new",)]


def test_a_sweep_that_fails_does_not_undo_what_was_acknowledged(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(PostgresStore(dsn)) as store, closing(Target(dsn).connect()) as other:

        def fail(*_: object) -> None:
            raise RecordsError("HBK-703", "the sweep fails")

        real = store._run
        monkeypatch.setattr(store, "_run", fail)
        store.commit(Write(rows=(Put("s", b"k", b"v"), Put("s", b"gone", b"v", expires=1.0))))
        monkeypatch.setattr(store, "_run", real)
        assert store.get("s", b"k") is not None
        assert other.execute("SELECT count(*) FROM hauberk.row").fetchall() == [(2,)]


def holding(server: Server) -> list[str]:
    """Return the files of the server that hold the secret."""
    return [path.name for path in server.data.rglob("*") if path.is_file() and SECRET in path.read_bytes()]


def test_after_a_scrub_what_was_deleted_is_in_no_file_of_the_server(server: Server) -> None:
    with closing(PostgresStore(server.dsn())) as store:
        store.commit(Write(rows=[Put("keys", b"%d" % at, b"another") for at in range(100)]))
        store.commit(Write(rows=(Put("keys", b"k", SECRET),)))
        execute(server.dsn(), "ANALYZE", "CHECKPOINT")
        store.commit(Write(rows=(Delete("keys", b"k"),)))
        assert len(holding(server)) >= 2  # the table and the log: deleting is not enough
        assert store.scrub()
        assert holding(server) == []
        assert len(list(store.scan("keys"))) == 100


def test_a_scrub_says_so_when_a_reader_still_sees_what_was_deleted(server: Server) -> None:
    with closing(PostgresStore(server.dsn())) as store, closing(psycopg.connect(server.dsn())) as reader:
        store.commit(Write(rows=(Put("keys", b"r", SECRET),)))
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1 FROM pg_class")
        store.commit(Write(rows=(Delete("keys", b"r"),)))
        assert not store.scrub()
        assert holding(server) != []
        reader.rollback()
        assert store.scrub()
        assert holding(server) == []


def test_a_scrub_says_so_where_the_log_stays_or_goes_elsewhere(server: Server) -> None:
    with closing(PostgresStore(server.dsn())) as store:
        assert store.scrub()
        execute(server.dsn(), "SELECT pg_create_physical_replication_slot('standby', true)")
        assert not store.scrub()
        execute(server.dsn(), "SELECT pg_drop_replication_slot('standby')")
        execute(server.dsn(), "ALTER SYSTEM SET wal_recycle = on", "SELECT pg_reload_conf()")
    with ExitStack() as lent:
        name = lent.enter_context(login("hauberk_app"))
        app = lent.enter_context(closing(PostgresStore(address(lent.enter_context(database()), user=name))))
        assert not app.scrub()  # it may not


def test_a_tile_never_changes_what_it_held(store: PostgresStore) -> None:
    store.commit(Write(replace(append(entry(0)), tiles=(Tile(0, 0, b"a" * 32),))))
    with refuses("HBK-706"):
        store.commit(Write(replace(append(entry(1)), tiles=(Tile(0, 0, b"b" * 64),))))
    assert store.tile(ORIGIN, 0, 0) == b"a" * 32
    assert store.head(ORIGIN).size == 1
