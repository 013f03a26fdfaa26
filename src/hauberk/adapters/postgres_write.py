"""One write as a PostgreSQL transaction: its locks, what is checked under them, its statements, and its end.

Locks are taken in one order, so that no two writers wait for each other in a circle: the head of the log, the spaces of
the rows (see `adapters.postgres_rows`), and last the revision, which everybody changes.

Everything that is written goes in one statement (and COPY before it), whose parts the last one waits for. No pipeline
is used: psycopg ends one with a Flush message, after which PostgreSQL's `idle_in_transaction_session_timeout` does not
run until the next statement, and a process that was stopped just then would keep the head of the log for ever.
"""

from collections.abc import Sequence
from select import POLLIN, POLLOUT, poll
from struct import Struct
from time import monotonic
from typing import Any, LiteralString

import psycopg
from msgspec.structs import astuple
from psycopg.pq import ConnStatus, DiagnosticField
from psycopg.pq.abc import PGconn, PGresult
from psycopg.types.numeric import Int8

from hauberk.adapters._write import check_append
from hauberk.adapters.postgres_arrays import arrays
from hauberk.adapters.postgres_connect import Connection
from hauberk.adapters.postgres_rows import DIFFERING, Part, Raced, Rows
from hauberk.core.event import Entry
from hauberk.core.ports import Append, Head, Write
from hauberk.errors import OutcomeUnknown, RecordsError

HEAD: LiteralString = "SELECT size, frontier, checkpoint, epoch FROM hauberk.head WHERE log = %s"
ENTRY: LiteralString = "position, id, stream, type, version, leaf, meta, public, sealed, statement"
_COLUMNS = ("log", *ENTRY.split(", "))
# Binary COPY: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_COUNT, _LENGTH, _NUMBER, _VERSION = Struct(">h"), Struct(">i"), Struct(">qi"), Struct(">iqi")
_PACKED_AT_ONCE = 250  # entries
_INSERT: LiteralString = f"INSERT INTO hauberk.entry (log, {ENTRY}) SELECT %s, * FROM unnest({', '.join(['%s'] * 10)})"  # noqa: S608  # constants
_LOCK_SPACES = (
    "SELECT CASE WHEN alone THEN pg_advisory_xact_lock(number) ELSE pg_advisory_xact_lock_shared(number) END AS taken"
    " FROM unnest(%s, %s::bool[]) AS wanted (number, alone)"
)
_SEVERITY = DiagnosticField.SEVERITY_NONLOCALIZED
_COPY_FROM = 50  # entries; fewer go with everything else in one statement, COPY is a conversation of its own


RACES = (Raced, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


def apply(connection: Connection, write: Write, now: float) -> int:
    """Do everything of a write but its COMMIT and return the store's revision.

    Raises:
        Conflict: an expectation failed.
        Raced: the same again may succeed.
    """
    append, rows = write.append, Rows(write.rows)
    connection.execute("BEGIN")
    _lock(connection, append, rows)
    rows.look(connection, now)
    parts = rows.parts()
    if append is not None:
        if len(append.entries) >= _COPY_FROM:
            _copy(connection, append.log, append.entries)
        parts += _log_parts(append)
    number, written, *differing = _write(connection, parts, rows.differing(now))
    if differing and differing[0] is not None:
        rows.refuse(*differing)
    if written < rows.puts:
        raise Raced
    return int(number)


def finish(connection: Connection, seconds: float) -> None:
    """Commit.

    Args:
        connection: in a transaction.
        seconds: how long it may take; no timeout of the server's ends the wait for a standby.

    Raises:
        OutcomeUnknown: the connection was lost, or the server has it on its own disk and on no standby.
        RecordsError: HBK-703 the server rolled it back.
    """
    warnings: list[str] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        warnings.append(notice.message_primary or "")

    connection.add_notice_handler(listen)
    try:
        ended = _end(connection.pgconn, monotonic() + seconds)
    except (psycopg.Error, TimeoutError) as error:
        connection.close()
        raise OutcomeUnknown("the connection was lost during the commit") from error
    finally:
        connection.remove_notice_handler(listen)
    if ended.command_status != b"COMMIT":
        raise RecordsError("HBK-703", "the server rolled the transaction back", why=ended.error_message.decode())
    if warnings:
        raise OutcomeUnknown("the commit is not known to be where it should be", why=warnings[0])


def _end(line: PGconn, until: float) -> PGresult:
    """Send COMMIT as one message and return the answer.

    Raises:
        psycopg.OperationalError: the connection was lost.
        TimeoutError: there is no answer by then.
    """
    line.send_query(b"COMMIT")
    readable, writable = poll(), poll()
    readable.register(line.socket, POLLIN)
    writable.register(line.socket, POLLIN | POLLOUT)
    while line.flush() or line.is_busy():
        if not (writable if line.flush() else readable).poll(max(0.0, until - monotonic()) * 1000):
            raise TimeoutError
        line.consume_input()
    ended = line.get_result()
    while line.get_result() is not None:
        pass
    # A server that ends the session, or itself, may have written the commit before.
    if ended is None or line.status != ConnStatus.OK or ended.error_field(_SEVERITY) in {b"FATAL", b"PANIC"}:
        raise psycopg.OperationalError("the connection has ended")
    return ended


def _lock(connection: Connection, append: Append | None, rows: Rows) -> None:
    """Take the head of the log, check it, and take the spaces of the rows."""
    locks = rows.locks()
    if append is None:
        if locks:
            connection.execute(_LOCK_SPACES, locks)  # a statement later sees what was written before it got them
        return
    if locks:
        query = (
            f"WITH head AS MATERIALIZED ({HEAD} FOR UPDATE), spaces AS MATERIALIZED ({_LOCK_SPACES}"  # noqa: S608  # constants
            " WHERE (SELECT count(*) FROM head) IS NOT NULL) SELECT head.* FROM (SELECT count(taken) FROM spaces)"
            " AS all_ LEFT JOIN head ON true"
        )
    else:
        query = HEAD + " FOR UPDATE"
    there = connection.execute(query, (append.log, *locks), binary=True).fetchone()
    new = there is None or there[0] is None
    check_append(append, Head() if there is None or new else Head(*there))
    if new:
        _begin_log(connection, append.log)


def _begin_log(connection: Connection, log: str) -> None:
    """Make the head of a new log, so that whoever else begins it waits, and then finds it."""
    query = "INSERT INTO hauberk.head VALUES (%s, 0, '', '', 0) ON CONFLICT DO NOTHING"
    if not connection.execute(query, (log,)).rowcount:
        raise Raced


def _write(connection: Connection, parts: Sequence[Part], differing: list[object]) -> Sequence[Any]:
    """Run the parts as one statement, the revision last.

    Returns:
        The revision, how many rows were written, and, when asked for, what `DIFFERING` found or nulls.
    """
    # The order of the parts does not matter; that the one row everybody changes comes last does. It comes last because
    # it reads what the others did.
    ctes = "".join(f"{name} AS ({query} RETURNING 1), " for name, query, _ in parts)
    done = "".join(f" AND (SELECT count(*) FROM {name}) IS NOT NULL" for name, _, _ in parts)  # noqa: S608  # constants
    puts = " + ".join(f"(SELECT count(*) FROM {name})" for name, _, _ in parts if name in {"changed", "made"})  # noqa: S608  # constants
    query = (
        f"WITH {ctes}bumped AS (UPDATE hauberk.revision SET number = number + 1 WHERE one = 1{done} RETURNING number)"  # noqa: S608  # constants
        f" SELECT * FROM (SELECT number, {puts or 0} FROM bumped) AS done"
    )
    values = [value for _, _, part in parts for value in part]
    if differing:
        query += f" LEFT JOIN ({DIFFERING}) AS differing ON true"
    found = connection.execute(query, [*values, *differing], binary=True).fetchall()
    return found[0]


def _log_parts(append: Append) -> list[Part]:
    """Return what moves the head, writes tiles, and entries where they are too few for COPY."""
    head, log = append.head, append.log
    query = "UPDATE hauberk.head SET size = %s, frontier = %s, checkpoint = %s, epoch = %s WHERE log = %s"
    parts: list[Part] = [("head", query, [Int8(head.size), head.frontier, head.checkpoint, Int8(head.epoch), log])]
    if append.tiles:
        query = (
            "INSERT INTO hauberk.tile SELECT %s, * FROM unnest(%s, %s, %s)"
            " ON CONFLICT (log, level, number) DO UPDATE SET data = excluded.data"
        )
        parts.append(("tiles", query, [log, *arrays([astuple(tile) for tile in append.tiles])]))
    if 0 < len(append.entries) < _COPY_FROM:
        parts.append(("entries", _INSERT, [log, *arrays([astuple(entry) for entry in append.entries])]))
    return parts


def _copy(connection: Connection, log: str, entries: Sequence[Entry]) -> None:
    """Insert entries by binary COPY. The server works on the first of them while the others are packed."""
    query = f"COPY hauberk.entry (log, {ENTRY}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        copy.write(_SIGNATURE)
        for at in range(0, len(entries), _PACKED_AT_ONCE):
            copy.write(packed(log, entries[at : at + _PACKED_AT_ONCE]))
        copy.write(_TRAILER)


def packed(log: str, entries: Sequence[Entry]) -> bytes:
    """Return entries in the binary COPY format: a row is the number of its fields, then each field behind its length.

    psycopg packs rows too, in twice the time: it looks up how to for every value.
    """
    name = log.encode()
    first = _COUNT.pack(len(_COLUMNS)) + _LENGTH.pack(len(name)) + name + _LENGTH.pack(8)
    length, number = _LENGTH.pack, _NUMBER.pack
    parts: list[bytes] = []
    for one in entries:
        stream, kind = one.stream.encode(), one.type.encode()
        parts += (
            first, number(one.position, len(one.id)), one.id, length(len(stream)), stream, length(len(kind)), kind,
            _VERSION.pack(8, one.version, len(one.leaf)), one.leaf, length(len(one.meta)), one.meta,
            length(len(one.public)), one.public, length(len(one.sealed)), one.sealed,
            length(len(one.statement)), one.statement,
        )  # fmt: skip
    return b"".join(parts)


def insert_missing(connection: Connection, log: str, entries: Sequence[Entry]) -> int:
    """Insert the entries that are not there and return how many those were."""
    if not entries:
        return 0
    values = [log, *arrays([astuple(entry) for entry in entries])]
    return connection.execute(_INSERT + " ON CONFLICT DO NOTHING", values).rowcount
