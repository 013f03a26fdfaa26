"""The tables of a release: numbered migrations, forward only, each recorded with the digest of what was run.

A migration is a file `NNNN_name.sql` beside this module. All that are missing run in one transaction under an advisory
lock, so several migrators at once do it once, and one that is killed has done nothing. At start a store compares what
the database has recorded with what this release brings and refuses to go on unless both are the same.
"""

import re
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from hashlib import sha256
from importlib.resources import files

import msgspec

from hauberk.adapters.postgres_connect import Connection, Target, mapped
from hauberk.errors import RecordsError

MIGRATION_LOCK = 0x6861756265726B02  # of `pg_advisory_xact_lock`: "hauberk" and 2
_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_BOOTSTRAP = """
CREATE TABLE IF NOT EXISTS hauberk.migration (
  number integer PRIMARY KEY, name text NOT NULL, digest bytea NOT NULL, applied timestamptz NOT NULL DEFAULT now())
"""


class Migration(msgspec.Struct, frozen=True):
    """One step.

    Args:
        number: from 1, without gaps.
        name: what it brings.
        sql: what is run.
    """

    number: int
    name: str
    sql: str

    @property
    def digest(self) -> bytes:
        """SHA-256 of what is run."""
        return sha256(self.sql.encode()).digest()


@cache
def migrations() -> Sequence[Migration]:
    """Return what this release brings, in order."""
    found = {_NAME.fullmatch(path.name): path for path in files("hauberk.adapters").joinpath("sql").iterdir()}
    made = [Migration(int(name[1]), name[2], path.read_text("utf-8")) for name, path in found.items() if name]
    return sorted(made, key=lambda one: one.number)


def roles_sql() -> str:
    """Return who may do what, as SQL that is safe to run again."""
    return files("hauberk.adapters").joinpath("sql").joinpath("roles.sql").read_text("utf-8")


def check_schema(connection: Connection) -> None:
    """Return if the tables are those of this release.

    Raises:
        RecordsError: HBK-724 they are missing, older, newer, or were made by something else.
    """
    if not _recorded(connection):
        raise RecordsError("HBK-724", "the database has no tables of ours")
    rows = connection.execute("SELECT number, digest FROM hauberk.migration ORDER BY number").fetchall()
    _compare({int(number): bytes(digest) for number, digest in rows}, whole=True)


def _recorded(connection: Connection) -> bool:
    rows = connection.execute("SELECT to_regclass('hauberk.migration') IS NOT NULL").fetchall()
    return bool(rows[0][0])


def _compare(recorded: dict[int, bytes], *, whole: bool) -> Sequence[Migration]:
    """Return the migrations that have not been run.

    Raises:
        RecordsError: HBK-724 others were run, or when `whole` is wanted, some are missing.
    """
    known = migrations()
    if extra := sorted(recorded.keys() - {one.number for one in known}):
        raise RecordsError("HBK-724", "the tables are of a newer release", number=extra[-1])
    for one in known:
        if recorded.get(one.number, one.digest) != one.digest:
            raise RecordsError("HBK-724", "a migration was run that is not the one of this release", number=one.number)
    missing = [one for one in known if one.number not in recorded]
    if missing and missing[0].number <= max(recorded, default=0):
        raise RecordsError("HBK-724", "a migration before the last one was not run", number=missing[0].number)
    if missing and whole:
        raise RecordsError("HBK-724", "the tables are of an older release", number=missing[0].number)
    return missing


def migrate(target: Target, *, roles: bool = True) -> list[int]:
    """Bring the tables of a database up to this release and return the numbers of what was run.

    Args:
        target: the login will own the tables, and makes the roles.
        roles: make the roles too, and grant them what they may do.

    Raises:
        RecordsError: HBK-703 the server cannot be reached, HBK-706 this login may not do that, HBK-724 the tables are
            of a newer release.
    """
    with mapped(target.password):
        connection = target.connect()
        with closing(connection), connection.transaction():
            connection.execute("SET LOCAL lock_timeout = 0")
            connection.execute("SET LOCAL statement_timeout = 0")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            done = _run_missing(connection)
            if roles:
                connection.execute(roles_sql(), prepare=False)
        return done


def _run_missing(connection: Connection) -> list[int]:
    schema = connection.execute("SELECT to_regnamespace('hauberk') IS NOT NULL").fetchall()[0][0]
    if schema and not _recorded(connection):
        raise RecordsError("HBK-724", "there is a schema `hauberk` that is not ours")
    if not schema:
        connection.execute("CREATE SCHEMA hauberk")
        connection.execute(_BOOTSTRAP)
    rows = connection.execute("SELECT number, digest FROM hauberk.migration").fetchall()
    missing = _compare({int(number): bytes(digest) for number, digest in rows}, whole=False)
    for one in missing:
        connection.execute(one.sql, prepare=False)
        query = "INSERT INTO hauberk.migration (number, name, digest) VALUES (%s, %s, %s)"
        connection.execute(query, (one.number, one.name, one.digest))
    return [one.number for one in missing]
