"""One write as a PostgreSQL transaction: its locks, what is checked under them, its statements, and its end.

Everything that is written goes in one statement (and COPY before it), whose parts the last one waits for. No pipeline
is used: psycopg ends one with a Flush message, after which PostgreSQL's `idle_in_transaction_session_timeout` does not
run until the next statement, and a process that was stopped just then would keep the head of the log for ever.
"""

from collections.abc import Mapping, Sequence
from select import POLLIN, POLLOUT, poll
from struct import Struct
from time import monotonic
from typing import LiteralString

import psycopg
from msgspec.structs import astuple
from psycopg.pq import ConnStatus, DiagnosticField
from psycopg.pq.abc import PGconn, PGresult
from psycopg.types.numeric import Int8

from hauberk.adapters._write import check_append, check_row
from hauberk.adapters.postgres_connect import Connection
from hauberk.core.event import Entry
from hauberk.core.ports import ABSENT_ROW, Append, Check, Delete, Head, Put, Write
from hauberk.errors import OutcomeUnknown, RecordsError

ROWS_LOCK = 0x6861756265726B01  # of `pg_advisory_xact_lock`: "hauberk" and 1
HEAD: LiteralString = "SELECT size, frontier, checkpoint, epoch FROM hauberk.head WHERE log = %s"
ENTRY: LiteralString = "position, id, stream, type, version, leaf, meta, public, sealed, statement"
_COLUMNS = ("log", *ENTRY.split(", "))
# Binary COPY: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_COUNT, _LENGTH, _NUMBER, _VERSION = Struct(">h"), Struct(">i"), Struct(">qi"), Struct(">iqi")
_PACKED_AT_ONCE = 250  # entries
_INSERT: LiteralString = (
    f"INSERT INTO hauberk.entry (log, {ENTRY}) SELECT %s, * FROM unnest(%s::int8[], %s::bytea[], %s::text[],"  # noqa: S608  # constants
    " %s::text[], %s::int8[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[])"
)
_VALUES = "unnest(%s::text[], %s::bytea[], %s::bytea[], %s::int8[], %s::float8[])"
_DELETE = (
    "DELETE FROM hauberk.row AS kept USING unnest(%s::text[], %s::bytea[]) AS gone (space, key)"
    " WHERE kept.space = gone.space AND kept.key = gone.key"
)
_UPDATE = (
    "UPDATE hauberk.row AS kept SET value = put.value, revision = put.revision, expires = put.expires"  # noqa: S608  # constants
    f" FROM {_VALUES} AS put (space, key, value, revision, expires) WHERE kept.space = put.space AND kept.key = put.key"
)
_MAKE = f"INSERT INTO hauberk.row SELECT * FROM {_VALUES} ON CONFLICT DO NOTHING"  # noqa: S608  # constants
_SEVERITY = DiagnosticField.SEVERITY_NONLOCALIZED
_COPY_FROM = 50  # entries; fewer go with everything else in one statement, COPY is a conversation of its own


class Raced(Exception):
    """Somebody made a head or row that was not there a moment ago. Inside this package only: the write is repeated."""


RACES = (Raced, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_Part = tuple[str, str, list[object]]  # name, statement and values
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
    connection.execute("BEGIN")
    if append is not None:
        _lock_head(connection, append)
    there = _lock_rows(connection, rows)
    changed = _changed(rows, there, now)
    parts = _row_parts(changed, there)
    if append is not None:
        if len(append.entries) >= _COPY_FROM:
            _copy(connection, append.log, append.entries)
        parts += _log_parts(append)
    number, made = _write(connection, parts)
    if made < sum(put is not None and place not in there for place, (put, _) in changed.items()):
        raise Raced
    return number


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


def _lock_head(connection: Connection, append: Append) -> None:
    """Take the head of the log, which nobody else moves from now on, and check it."""
    there = connection.execute(HEAD + " FOR UPDATE", (append.log,), binary=True).fetchone()
    check_append(append, Head(*there) if there else Head())
    if there is None:
        _begin_log(connection, append.log)


def _lock_rows(connection: Connection, rows: Sequence[Put | Delete | Check]) -> _There:
    """Take the rows that are there, in key order, and return them."""
    places = sorted({(row.space, row.key) for row in rows})
    if not places:
        return {}
    relies = any(row.expected == ABSENT_ROW and not isinstance(row, Put) for row in rows)
    lock: LiteralString = "pg_advisory_xact_lock" if relies else "pg_advisory_xact_lock_shared"
    connection.execute(f"SELECT {lock}(%s)", (Int8(ROWS_LOCK),))
    query = (
        "SELECT kept.space, kept.key, kept.revision, kept.expires FROM unnest(%s::text[], %s::bytea[])"
        " AS wanted (space, key) JOIN hauberk.row AS kept ON kept.space = wanted.space AND kept.key = wanted.key"
        " ORDER BY kept.space, kept.key FOR UPDATE OF kept"
    )
    found = connection.execute(query, _arrays(places), binary=True).fetchall()
    return {(space, key): (revision, expires) for space, key, revision, expires in found}


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


def _write(connection: Connection, parts: Sequence[_Part]) -> tuple[int, int]:
    """Run the parts as one statement, the revision last, and return that and how many new rows were made."""
    names = [name for name, _, _ in parts]
    ctes = "".join(f"{name} AS ({query} RETURNING 1), " for name, query, _ in parts)
    # The order of the parts does not matter; that the one row everybody changes comes last does, or writers could
    # wait for each other in a circle. It comes last because it reads what the others did.
    done = "".join(f" AND (SELECT count(*) FROM {name}) IS NOT NULL" for name in names)  # noqa: S608  # constants
    made = "(SELECT count(*) FROM made)" if "made" in names else "0"
    query = (
        f"WITH {ctes}bumped AS (UPDATE hauberk.revision SET number = number + 1 WHERE one = 1{done} RETURNING number)"  # noqa: S608  # constants
        f" SELECT number, {made} FROM bumped"
    )
    values = [value for _, _, part in parts for value in part]
    number, count = connection.execute(query, values, binary=True).fetchall()[0]
    return int(number), int(count)


def _row_parts(changed: Mapping[_Place, tuple[Put | None, int]], there: _There) -> list[_Part]:
    """Return what deletes rows, changes those that are there, and makes those that are not."""
    gone = [place for place, (put, _) in changed.items() if put is None and place in there]
    puts = [(*place, put.value, revision, put.expires) for place, (put, revision) in changed.items() if put is not None]
    parts = (
        ("gone", _DELETE, _arrays(gone)),
        ("changed", _UPDATE, _arrays([put for put in puts if put[:2] in there])),
        ("made", _MAKE, _arrays([put for put in puts if put[:2] not in there])),
    )
    return [part for part in parts if part[2]]


def _log_parts(append: Append) -> list[_Part]:
    """Return what moves the head, writes tiles, and entries where they are too few for COPY."""
    head, log = append.head, append.log
    query = "UPDATE hauberk.head SET size = %s, frontier = %s, checkpoint = %s, epoch = %s WHERE log = %s"
    parts: list[_Part] = [("head", query, [Int8(head.size), head.frontier, head.checkpoint, Int8(head.epoch), log])]
    if append.tiles:
        query = (
            "INSERT INTO hauberk.tile SELECT %s, * FROM unnest(%s::int8[], %s::int8[], %s::bytea[])"
            " ON CONFLICT (log, level, number) DO UPDATE SET data = excluded.data"
        )
        parts.append(("tiles", query, [log, *_arrays([astuple(tile) for tile in append.tiles])]))
    if 0 < len(append.entries) < _COPY_FROM:
        parts.append(("entries", _INSERT, [log, *_arrays([astuple(entry) for entry in append.entries])]))
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
    values = [log, *_arrays([astuple(entry) for entry in entries])]
    return connection.execute(_INSERT + " ON CONFLICT DO NOTHING", values).rowcount


def _arrays(rows: Sequence[Sequence[object]]) -> list[object]:
    """Turn rows into columns, whole numbers always of the same width: each width would be a statement of its own."""
    return [[Int8(value) if type(value) is int else value for value in column] for column in zip(*rows, strict=True)]
