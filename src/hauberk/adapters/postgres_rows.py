"""The rows of one write on PostgreSQL: their locks, what is expected of them, and the statements that change them.

A lock is of a whole space, and advisory: shared by those who only check rows of it, alone for whoever changes one. So a
check writes nothing, which a lock of a row would, and holds for a row that is absent, which no lock of a row could.
What is checked under these locks is so until the end of the transaction. Sweeping expired rows takes no lock; a row
that it takes away under somebody is noticed, and the write repeated.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

from hauberk.adapters._write import check_row
from hauberk.adapters.postgres_arrays import Blobs, Numbers, Texts, arrays
from hauberk.adapters.postgres_connect import Connection
from hauberk.core.ports import ANY, Check, Delete, Put

Part = tuple[str, str, list[object]]  # name, statement and values
_Place = tuple[str, bytes]  # space and key
_Change = Put | Delete | Check
_LOCKS = b"hauberk space 1\n"  # before the name of a space, when that is made the number of a lock
_VALUES = "unnest(%s, %s, %s, %s, %s::float8[])"
_DELETE = (
    "DELETE FROM hauberk.row AS kept USING unnest(%s, %s) AS gone (space, key)"
    " WHERE kept.space = gone.space AND kept.key = gone.key"
)
_UPDATE = (
    "UPDATE hauberk.row AS kept SET value = put.value, revision = put.revision, expires = put.expires"  # noqa: S608  # constants
    f" FROM {_VALUES} AS put (space, key, value, revision, expires) WHERE kept.space = put.space AND kept.key = put.key"
)
_MAKE = f"INSERT INTO hauberk.row SELECT * FROM {_VALUES} ON CONFLICT DO NOTHING"  # noqa: S608  # constants


class Raced(Exception):
    """A head or row came or went a moment ago. Inside this package only: the write is repeated."""


class Rows:
    """The rows of a write, locked and checked.

    Args:
        connection: in a transaction.
        rows: what to do with them.
        now: Unix seconds.

    Raises:
        Conflict: an expectation failed.
    """

    def __init__(self, connection: Connection, rows: Sequence[_Change], now: float) -> None:
        self._there: Mapping[_Place, tuple[int, float | None]] = {}  # revision and expiry
        self._changed: dict[_Place, tuple[Put | None, int]] = {}  # what each becomes, with its revision
        if not rows:
            return
        _lock(connection, rows)
        changes = [row for row in rows if not isinstance(row, Check)]
        places = {(row.space, row.key) for row in changes}
        checks = [row for row in rows if isinstance(row, Check) and (row.space, row.key) not in places]
        if checks:
            _check(connection, checks, now)
        if changes:
            self._there = _look(connection, places)
            self._change(rows if len(checks) + len(changes) < len(rows) else changes, places, now)

    def _change(self, rows: Sequence[_Change], places: set[_Place], now: float) -> None:
        """Find out what each row becomes; a write may touch one more than once."""
        for row in sorted(rows, key=lambda row: (row.space, row.key)):
            place = (row.space, row.key)
            if place not in places:
                continue
            if place in self._changed:
                old, revision = self._changed[place]
                expires = None if old is None else old.expires
            else:
                revision, expires = self._there.get(place, (0, None))
            check_row(row, 0 if expires is not None and expires <= now else revision)
            if isinstance(row, Put):
                self._changed[place] = (row, revision + 1)
            elif isinstance(row, Delete):
                self._changed[place] = (None, 0)

    @property
    def puts(self) -> int:
        """How many rows will have been written."""
        return sum(put is not None for put, _ in self._changed.values())

    def parts(self) -> list[Part]:
        """Return what deletes rows, changes those that are there, and makes those that are not."""
        gone = [place for place, (put, _) in self._changed.items() if put is None and place in self._there]
        puts = [
            (*place, put.value, revision, put.expires)
            for place, (put, revision) in self._changed.items()
            if put is not None
        ]
        parts = (
            ("gone", _DELETE, arrays(gone)),
            ("changed", _UPDATE, arrays([put for put in puts if put[:2] in self._there])),
            ("made", _MAKE, arrays([put for put in puts if put[:2] not in self._there])),
        )
        return [part for part in parts if part[2]]


def _lock(connection: Connection, rows: Sequence[_Change]) -> None:
    """Take the spaces in the order of their numbers; two that have the same number share a lock."""
    alone = dict.fromkeys((_number(space) for space in {row.space for row in rows}), False)
    alone |= dict.fromkeys((_number(row.space) for row in rows if not isinstance(row, Check)), True)
    wanted = sorted(alone.items())
    query = (
        "SELECT CASE WHEN alone THEN pg_advisory_xact_lock(number) ELSE pg_advisory_xact_lock_shared(number) END"
        " FROM unnest(%s, %s::bool[]) AS wanted (number, alone)"
    )
    connection.execute(query, (Numbers([number for number, _ in wanted]), [one for _, one in wanted]))


@lru_cache(1_024)
def _number(space: str) -> int:
    return int.from_bytes(sha256(_LOCKS + space.encode()).digest()[:8], signed=True)


def _check(connection: Connection, checks: Sequence[Check], now: float) -> None:
    """Compare where the rows are, and have only one told that differs.

    Raises:
        Conflict: there is one.
    """
    query = (
        "SELECT wanted.space, wanted.key, wanted.revision, coalesce(kept.revision, 0) FROM unnest(%s, %s, %s)"
        " AS wanted (space, key, revision) LEFT JOIN hauberk.row AS kept ON kept.space = wanted.space"
        " AND kept.key = wanted.key AND (kept.expires IS NULL OR kept.expires > %s)"
        " WHERE wanted.revision NOT IN (%s, coalesce(kept.revision, 0)) LIMIT 1"
    )
    values = (
        Texts([one.space for one in checks]),
        Blobs([one.key for one in checks]),
        Numbers([one.expected for one in checks]),
        now,
        ANY,
    )
    for space, key, expected, found in connection.execute(query, values, binary=True).fetchall():
        check_row(Check(space, key, expected), found)


def _look(connection: Connection, places: set[_Place]) -> Mapping[_Place, tuple[int, float | None]]:
    query = (
        "SELECT kept.space, kept.key, kept.revision, kept.expires FROM unnest(%s, %s) AS wanted (space, key)"
        " JOIN hauberk.row AS kept ON kept.space = wanted.space AND kept.key = wanted.key"
    )
    found = connection.execute(query, arrays(list(places)), binary=True).fetchall()
    return {(space, key): (revision, expires) for space, key, revision, expires in found}
