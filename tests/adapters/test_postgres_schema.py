"""Migrations: forward only, once however many run them, and nothing is opened whose tables are of another release."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from hauberk.adapters import postgres_schema as module
from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.postgres_connect import Target
from hauberk.adapters.postgres_schema import Migration, migrate, migrations
from hauberk.cli._group import cli
from hauberk.core.ports import Delete, Put, Write
from hauberk.errors import HauberkError
from tests.core.refusal import refuses
from tests.records.made import append, entry
from tests.support.postgres import address, database, execute, login

KILLED = """
import os, signal, sys
from hauberk.adapters import postgres_schema as module
from hauberk.adapters.postgres_connect import Target
module.roles_sql = lambda: os.kill(os.getpid(), signal.SIGKILL)
module.migrate(Target(sys.argv[1]))
"""
MIGRATOR = """
import sys
from hauberk.adapters.postgres_connect import Target
from hauberk.adapters.postgres_schema import migrate
sys.stdin.readline()
print(len(migrate(Target(sys.argv[1]))))
"""
NEXT = Migration(len(migrations()) + 1, "next", "CREATE TABLE hauberk.next (one integer)")


@pytest.fixture
def bare() -> Iterator[str]:
    with database(empty=True) as dsn:
        yield dsn


@pytest.fixture
def full() -> Iterator[str]:
    with database() as dsn:
        yield dsn


def opens(dsn: str) -> None:
    PostgresStore(dsn).close()


def recorded(dsn: str) -> list[int]:
    with closing(psycopg.connect(dsn)) as connection:
        return [
            number for (number,) in connection.execute("SELECT number FROM hauberk.migration ORDER BY 1").fetchall()
        ]


def test_migrations_are_numbered_without_gaps_and_shipped_with_the_package() -> None:
    assert [one.number for one in migrations()] == list(range(1, len(migrations()) + 1))
    assert all(one.name and one.sql for one in migrations())


def test_migrating_runs_what_is_missing_once(bare: str) -> None:
    everything = [one.number for one in migrations()]
    assert migrate(Target(bare)) == everything
    assert migrate(Target(bare)) == []
    assert recorded(bare) == everything
    opens(bare)


def test_a_migration_keeps_what_is_there_and_an_older_release_refuses_what_came_after_it(
    full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(PostgresStore(full)) as store:
        store.commit(Write(append(entry(0))))
    with monkeypatch.context() as newer:
        newer.setattr(module, "migrations", lambda: [*migrations(), NEXT])
        with refuses("HBK-724") as found:  # a newer release on older tables
            opens(full)
        assert "older" in found.value.detail
        assert migrate(Target(full)) == [NEXT.number]
        with closing(PostgresStore(full)) as store:
            assert [one.position for one in store.entries("example.org/ledger")] == [0]
    for call in (opens, lambda dsn: migrate(Target(dsn))):  # this release on newer tables
        with refuses("HBK-724") as found:
            call(full)
        assert "newer" in found.value.detail


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE hauberk.migration SET digest = '\\x00'",
        "DELETE FROM hauberk.migration",
        "INSERT INTO hauberk.migration (number, name, digest) VALUES (99, 'later', '')",
    ],
)
def test_what_was_made_by_something_else_is_refused(full: str, change: str) -> None:
    execute(full, change)
    with refuses("HBK-724"):
        opens(full)


def test_a_migration_in_the_middle_that_was_left_out_is_not_run_afterwards(
    full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "migrations", lambda: [*migrations(), NEXT])
    migrate(Target(full))
    execute(full, "DELETE FROM hauberk.migration WHERE number = 1")
    with refuses("HBK-724"):
        migrate(Target(full))


def test_a_schema_of_that_name_that_is_somebody_elses_is_left_alone(bare: str) -> None:
    execute(bare, "CREATE SCHEMA hauberk", "CREATE TABLE hauberk.entry (theirs text)")
    with refuses("HBK-724"):
        migrate(Target(bare))
    execute(bare, "SELECT theirs FROM hauberk.entry")


def test_a_migration_that_fails_or_is_killed_has_done_nothing(bare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(module, "migrations", lambda: [*migrations(), Migration(NEXT.number, "broken", "SELECT 1/0")])
        with pytest.raises(HauberkError):
            migrate(Target(bare))
    child = subprocess.run([sys.executable, "-c", KILLED, bare], check=False, timeout=30, cwd=Path(__file__).parents[2])
    assert child.returncode == -9
    with closing(psycopg.connect(bare)) as connection:
        assert connection.execute("SELECT to_regnamespace('hauberk')").fetchone() == (None,)
    assert migrate(Target(bare)) == [one.number for one in migrations()]


def test_of_several_that_migrate_at_once_one_does_and_all_succeed(bare: str) -> None:
    command = [sys.executable, "-c", MIGRATOR, bare]
    children = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    told = sorted(child.communicate(timeout=30)[0].strip() for child in children)
    assert [child.returncode for child in children] == [0, 0, 0]
    assert told == ["0", "0", str(len(migrations()))]
    opens(bare)


def test_a_login_that_may_not_make_tables_is_told_so(bare: str) -> None:
    with login() as name, refuses("HBK-706"):
        migrate(Target(address(bare, user=name)))


def test_without_roles_the_tables_work_for_their_owner(bare: str) -> None:
    with login() as name:
        dsn = address(bare, user=name)
        execute(bare, f"GRANT CREATE ON DATABASE {psycopg.conninfo.conninfo_to_dict(bare)['dbname']} TO {name}")
        migrate(Target(dsn), roles=False)
        with closing(PostgresStore(dsn)) as store:
            store.commit(Write(append(entry(0)), rows=(Put("s", b"k", b"v"), Delete("s", b"l"))))
        execute(bare, "DROP SCHEMA hauberk CASCADE")


# the command line


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner(env=environ).invoke(cli, ["database", *arguments], catch_exceptions=True)


def test_the_command_line_migrates_checks_and_scrubs(bare: str) -> None:
    assert run("check", "--dsn", bare).exit_code == 1
    assert "no tables" in run("check", "--dsn", bare).output
    assert run("migrate", "--dsn", bare).output == f"ran {len(migrations())} migrations, up to {len(migrations())}\n"
    assert "nothing to do" in run("migrate", HAUBERK_STORE="env:ELSEWHERE", ELSEWHERE=bare).output
    checked = run("check", "--dsn", "env:DATABASE", DATABASE=bare)
    assert (checked.exit_code, "this login is a superuser" in checked.output) == (0, True)
    assert run("scrub", "--dsn", bare).exit_code == 1  # the server writes over its log some time later
    execute(bare, "GRANT UPDATE ON hauberk.entry TO hauberk_app")
    assert "error: hauberk_app may UPDATE entry" in run("check", "--dsn", bare).output
    assert "nothing to do" in run("migrate", "--dsn", bare).output  # and sets the privileges again
    assert run("check", "--dsn", bare).exit_code == 0


def test_the_command_line_prints_roles_that_can_be_run_as_they_are(full: str) -> None:
    printed = run("roles")
    assert printed.exit_code == 0
    execute(full, "REVOKE ALL ON ALL TABLES IN SCHEMA hauberk FROM hauberk_app")
    with closing(psycopg.connect(full, autocommit=True)) as connection:
        connection.execute(printed.output.encode())
    with login("hauberk_app") as name:
        opens(address(full, user=name))


def test_the_command_line_refuses_what_is_no_database_without_repeating_it() -> None:
    assert run("check", "--dsn", "mysql://me:hunter2@db/x").exit_code == 2
    assert "hunter2" not in run("check", "--dsn", "postgresql://me:hunt@er2@db/x").output
    result = run("migrate", "--dsn", "sqlite:")
    assert isinstance(result.exception, HauberkError)
    assert result.exception.code == "HBK-901"
