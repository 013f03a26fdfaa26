"""Getting rid of what was deleted, as far as PostgreSQL lets anybody.

A deleted row stays in the table's file until that is rewritten, and what was ever written is in the write-ahead log. So
the file of the rows is rewritten (`VACUUM FULL`, which nobody can read the rows during), the log is switched, and a
checkpoint lets its older segments go. `scrub` says True only when it saw all of that happen:

* the login may do it: owner of the table or `MAINTAIN`; `pg_checkpoint`; `pg_monitor`; EXECUTE on `pg_switch_wal()`;
* no transaction still sees what was deleted;
* the server deletes segments instead of writing over them later: `wal_recycle = off`, and no `wal_keep_size`;
* nothing copies the log elsewhere: no archiving, no replication slot, no standby.

Otherwise it does what it may and says False: what is left goes with the recycled segments, the archive, the standby.
Backups are out of sight here. A key that is gone from the live table cannot be used by anybody who has no such copy.
"""

import re
from contextlib import suppress

import psycopg

from hauberk.adapters.postgres_connect import Connection

LOCK_SECONDS = 2.0  # whoever reads the rows for longer is not waited for
_ELSEWHERE = """
SELECT current_setting('archive_mode') <> 'off' OR current_setting('wal_recycle') <> 'off'
  OR EXISTS (SELECT FROM pg_catalog.pg_replication_slots) OR EXISTS (SELECT FROM pg_catalog.pg_stat_replication)
"""
_KEPT = re.compile(r"\d+")  # first number of the detail: row versions that had to stay


def scrub(connection: Connection) -> bool:
    """Rewrite the rows' file, let the log's older segments go, and tell whether nothing is left.

    Args:
        connection: used for nothing else afterwards.
    """
    with suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable):
        rewritten = _rewrite(connection)
        elsewhere = bool(connection.execute(_ELSEWHERE).fetchall()[0][0])
        return _let_go(connection) and rewritten and not elsewhere
    return False


def _rewrite(connection: Connection) -> bool:
    """Rewrite the table; what was deleted is not copied unless somebody may still see it."""
    said: list[psycopg.errors.Diagnostic] = []
    connection.add_notice_handler(said.append)
    connection.execute("SELECT set_config('statement_timeout', '0', false)")
    connection.execute("SELECT set_config('lock_timeout', %s, false)", (str(int(LOCK_SECONDS * 1000)),))
    connection.execute("VACUUM (FULL, VERBOSE) hauberk.row")
    kept = [_KEPT.search(one.message_detail) for one in said if one.message_detail]
    refused = any(one.severity_nonlocalized == "WARNING" for one in said)
    return bool(kept) and not refused and all(one is not None and one.group() == "0" for one in kept)


def _let_go(connection: Connection) -> bool:
    """Begin a new segment of the log, let the older ones go, and tell whether they went."""
    first = connection.execute("SELECT pg_walfile_name(pg_switch_wal() + 1)").fetchall()[0][0]
    connection.execute("CHECKPOINT")
    query = "SELECT count(*) FROM pg_catalog.pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND name < %s"
    return not connection.execute(query, (first,)).fetchall()[0][0]
