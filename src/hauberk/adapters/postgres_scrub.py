"""Getting rid of what was deleted, as far as PostgreSQL lets anybody.

A deleted row stays in the table's file until that is rewritten, and what was ever written is in the write-ahead log. So
the file of the rows is rewritten (`VACUUM FULL`: meanwhile nobody reads or writes rows), the log is switched, and a
checkpoint lets its older segments go. That is done, and `scrub` says True, only where it leaves nothing:

* the login may do it: owner of the table, or `MAINTAIN`; `pg_checkpoint`; EXECUTE on `pg_switch_wal()` and
  `pg_ls_waldir()`;
* the server deletes segments instead of writing over them later: `wal_recycle = off`, `wal_keep_size = 0`;
* nothing copies the log elsewhere: no archiving, no replication slot, no standby;
* and no transaction still sees what was deleted.

Anywhere else it is a plain VACUUM where the login may do that, and the answer is False: what is left goes as the space
and the segments are written over. Backups, and the bodies of pruned entries, are not looked at.
"""

import re
from contextlib import closing, suppress
from typing import LiteralString

import psycopg

from hauberk.adapters.postgres_connect import Connection, Target, mapped

LOCK_SECONDS = 2.0  # whoever reads the rows for longer is not waited for
_OURS: LiteralString = """
SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'hauberk.row'::regclass
"""
_MAINTAIN: LiteralString = "SELECT has_table_privilege('hauberk.row', 'MAINTAIN')"
_HAS_MAINTAIN = 170_000
_WITHIN_REACH: LiteralString = """
SELECT pg_has_role('pg_checkpoint', 'USAGE') AND has_function_privilege('pg_switch_wal()', 'EXECUTE')
  AND has_function_privilege('pg_ls_waldir()', 'EXECUTE')
  AND current_setting('wal_recycle') = 'off' AND current_setting('wal_keep_size') = '0'
  AND current_setting('archive_mode') = 'off'
  AND NOT EXISTS (SELECT FROM pg_replication_slots) AND NOT EXISTS (SELECT FROM pg_stat_replication)
"""
_KEPT = re.compile(r"\d+")  # first number of the detail: row versions that had to stay


def scrub(connection: Connection) -> bool:
    """Get rid of what was deleted, and tell whether nothing of it is left.

    Args:
        connection: used for nothing else afterwards.
    """
    may = _is(connection, _OURS) or (connection.info.server_version >= _HAS_MAINTAIN and _is(connection, _MAINTAIN))
    if not may:
        return False
    connection.execute("SELECT set_config('statement_timeout', '0', false)")
    if not _is(connection, _WITHIN_REACH):
        connection.execute("VACUUM (SKIP_LOCKED) hauberk.row")
        return False
    connection.execute("SELECT set_config('lock_timeout', %s, false)", (str(int(LOCK_SECONDS * 1000)),))
    with suppress(psycopg.errors.LockNotAvailable):
        return _rewrite(connection) and _let_go(connection)
    return False


def scrub_target(target: Target) -> bool:
    """Do it with a connection of its own.

    Raises:
        RecordsError: HBK-703 the server cannot be reached.
    """
    with mapped(target.password), closing(target.connect()) as connection:
        return scrub(connection)


def _is(connection: Connection, question: LiteralString) -> bool:
    return bool(connection.execute(question).fetchall()[0][0])


def _rewrite(connection: Connection) -> bool:
    """Rewrite the table and tell whether nothing deleted was copied, which is what somebody may still see."""
    details: list[str] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        details.extend([notice.message_detail] if notice.message_detail else ())

    connection.add_notice_handler(listen)
    connection.execute("VACUUM (FULL, VERBOSE) hauberk.row")
    kept = [_KEPT.search(detail) for detail in details]
    return bool(kept) and all(number is not None and number.group() == "0" for number in kept)


def _let_go(connection: Connection) -> bool:
    """Begin a new segment of the log, let the older ones go, and tell whether they went."""
    first = connection.execute("SELECT pg_walfile_name(pg_switch_wal() + 1)").fetchall()[0][0]
    connection.execute("CHECKPOINT")
    query = "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND name < %s"
    return not connection.execute(query, (first,)).fetchall()[0][0]
