"""One write as a PostgreSQL transaction: its locks, what is checked under them, its statements, and its end.

The statements travel in as few round trips as there are decisions between them: one to lock and look, one to write
(COPY takes one of its own), one to commit.
"""

from collections.abc import Mapping, Sequence
from select import POLLIN, POLLOUT, poll
from time import monotonic
from typing import LiteralString

import psycopg
from msgspec.structs import astuple
from psycopg.pq import ConnStatus, DiagnosticField
from psycopg.pq.abc import PGconn, PGresult
from psycopg.types.numeric import Int8

from hauberk.adapters._write import check_append, check_row
from hauberk.adapters.postgres_connect import Connection, Cursor
from hauberk.core.event import Entry
from hauberk.core.ports import ABSENT_ROW, Append, Check, Delete, Head, Put, Write
from hauberk.errors import OutcomeUnknown, RecordsError

ROWS_LOCK = 0x6861756265726B01  # of `pg_advisory_xact_lock`: "hauberk" and 1
HEAD: LiteralString = "SELECT size, frontier, checkpoint, epoch FROM hauberk.head WHERE log = %s"
ENTRY: LiteralString = "position, id, stream, type, version, leaf, meta, public, sealed, statement"
_TYPES = ("text", "int8", "bytea", "text", "text", "int8", "bytea", "bytea", "bytea", "bytea", "bytea")
_SEVERITY = DiagnosticField.SEVERITY_NONLOCALIZED
_COPY_FROM = 50  # entries; fewer are as fast in a statement, which travels with the others


class Raced(Exception):
    """Somebody made a head or row that was not there a moment ago. Inside this package only: the write is repeated."""


RACES = (Raced, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_Place = tuple[str, bytes]  # space and key
_There = Mapping[_Place, tuple[int, float | None]]  # revision and expiry of each row that is there


def apply(connection: Connection, write: Write, now: float) -> int:
    """Do everything of a write but its COMMIT and return the store's revision.

    Raises:
        Conflict: an expectation failed.
        Raced: the same again may succeed.
    """
    append = write.append
    rows = sorted(write.rows, key=lambda row: (row.space, row.key))
    there = _locked(connection, append, rows)
    changed = _changed(rows, there, now)
    copied = append is not None and len(append.entries) >= _COPY_FROM
    if append is not None and copied:
        _copy(connection, append.log, append.entries)
    with connection.pipeline():
        if append is not None:
            _put_head(connection, append.log, append.head)
            if not copied:
                insert(connection, append.log, append.entries)
            _put_tiles(connection, append)
        made = _put_rows(connection, changed, there)
        number = connection.execute("UPDATE hauberk.revision SET number = number + 1 RETURNING number")
    if made is not None and made[0].rowcount < made[1]:
        raise Raced
    return int(number.fetchall()[0][0])


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


def _locked(connection: Connection, append: Append | None, rows: Sequence[Put | Delete | Check]) -> _There:
    """Begin, lock head and rows, check the head, and return what rows there are."""
    head = found = None
    places = sorted({(row.space, row.key) for row in rows})
    with connection.pipeline():
        connection.execute("BEGIN")
        if append is not None:
            head = connection.execute(HEAD + " FOR UPDATE", (append.log,), binary=True)
        if places:
            relies = any(row.expected == ABSENT_ROW and not isinstance(row, Put) for row in rows)
            lock: LiteralString = "pg_advisory_xact_lock" if relies else "pg_advisory_xact_lock_shared"
            connection.execute(f"SELECT {lock}(%s)", (Int8(ROWS_LOCK),))
            found = _lock_rows(connection, places)
    if append is not None and head is not None:
        there = head.fetchone()
        check_append(append, Head(*there) if there else Head())
        if there is None:
            _begin_log(connection, append.log)
    return {(space, key): (revision, expires) for space, key, revision, expires in found or ()}


def _lock_rows(connection: Connection, places: Sequence[_Place]) -> Cursor:
    query = (
        "SELECT kept.space, kept.key, kept.revision, kept.expires FROM unnest(%s::text[], %s::bytea[])"
        " AS wanted (space, key) JOIN hauberk.row AS kept ON kept.space = wanted.space AND kept.key = wanted.key"
        " ORDER BY kept.space, kept.key FOR UPDATE OF kept"
    )
    return connection.execute(query, _columns(places), binary=True)


def _begin_log(connection: Connection, log: str) -> None:
    """Make the head of a new log, so that whoever else begins it waits, and then finds it."""
    query = "INSERT INTO hauberk.head VALUES (%s, 0, '', '', 0) ON CONFLICT DO NOTHING"
    if not connection.execute(query, (log,)).rowcount:
        raise Raced


def _changed(
    rows: Sequence[Put | Delete | Check], there: _There, now: float
) -> Mapping[_Place, tuple[Put | None, int]]:
    """Return what each row becomes, with its revision; a write may touch one more than once.

    Raises:
        Conflict: an expectation failed.
    """
    changed: dict[_Place, tuple[Put | None, int]] = {}
    for row in rows:
        place = (row.space, row.key)
        if place in changed:
            old, revision = changed[place]
            expires = old.expires if old is not None else None
        else:
            revision, expires = there.get(place, (0, None))
        check_row(row, 0 if expires is not None and expires <= now else revision)
        if isinstance(row, Put):
            changed[place] = (row, revision + 1)
        elif isinstance(row, Delete):
            changed[place] = (None, 0)
    return changed


def _put_rows(
    connection: Connection, changed: Mapping[_Place, tuple[Put | None, int]], there: _There
) -> tuple[Cursor, int] | None:
    """Write rows; of those that were not there, return how many came and how many should have."""
    gone = [place for place, (put, _) in changed.items() if put is None and place in there]
    puts = [(*place, put.value, revision, put.expires) for place, (put, revision) in changed.items() if put is not None]
    new = [put for put in puts if put[:2] not in there]
    old = [put for put in puts if put[:2] in there]
    values: LiteralString = "unnest(%s::text[], %s::bytea[], %s::bytea[], %s::int8[], %s::float8[])"
    if gone:
        query = (
            "DELETE FROM hauberk.row AS kept USING unnest(%s::text[], %s::bytea[]) AS gone (space, key)"
            " WHERE kept.space = gone.space AND kept.key = gone.key"
        )
        connection.execute(query, _columns(gone))
    if old:
        query = (
            "UPDATE hauberk.row AS kept SET value = new.value, revision = new.revision, expires = new.expires"  # noqa: S608  # constants
            f" FROM {values} AS new (space, key, value, revision, expires)"
            " WHERE kept.space = new.space AND kept.key = new.key"
        )
        connection.execute(query, _columns(old))
    if new:
        query = f"INSERT INTO hauberk.row SELECT * FROM {values} ON CONFLICT DO NOTHING"  # noqa: S608  # constants
        return connection.execute(query, _columns(new)), len(new)
    return None


def _put_head(connection: Connection, log: str, head: Head) -> None:
    query = "UPDATE hauberk.head SET size = %s, frontier = %s, checkpoint = %s, epoch = %s WHERE log = %s"
    connection.execute(query, (Int8(head.size), head.frontier, head.checkpoint, Int8(head.epoch), log))


def _put_tiles(connection: Connection, append: Append) -> None:
    if append.tiles:
        query = (
            "INSERT INTO hauberk.tile SELECT %s, * FROM unnest(%s::int8[], %s::int8[], %s::bytea[])"
            " ON CONFLICT (log, level, number) DO UPDATE SET data = excluded.data"
        )
        connection.execute(query, (append.log, *_columns([astuple(tile) for tile in append.tiles])))


def _copy(connection: Connection, log: str, entries: Sequence[Entry]) -> None:
    query = f"COPY hauberk.entry (log, {ENTRY}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        copy.set_types(_TYPES)
        for entry in entries:
            copy.write_row((log, *astuple(entry)))


def insert(connection: Connection, log: str, entries: Sequence[Entry], rest: LiteralString = "") -> Cursor:
    """Insert entries with one statement."""
    query = (
        f"INSERT INTO hauberk.entry (log, {ENTRY}) SELECT %s, * FROM unnest(%s::int8[], %s::bytea[], %s::text[],"  # noqa: S608  # constants
        " %s::text[], %s::int8[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[])"
    )
    columns = _columns([astuple(entry) for entry in entries], len(_TYPES) - 1)
    return connection.execute(query + rest, (log, *columns))


def _columns(rows: Sequence[Sequence[object]], count: int = 0) -> list[list[object]]:
    """Turn rows into columns, whole numbers always of the same width: each width would be a statement of its own."""
    columns = [[Int8(value) if type(value) is int else value for value in column] for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(count)]
