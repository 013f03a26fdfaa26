"""The rows of one write on PostgreSQL: their locks, what is expected of them, and the statements that change them.

Rows that are changed are read first; those that are only checked are compared where they are, in the statement that
writes, as that is one question less.

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

# One of the rows that are only checked whose revision is another than expected.
DIFFERING = (
    "SELECT wanted.space, wanted.key, wanted.revision, coalesce(kept.revision, 0) FROM unnest(%s, %s, %s)"
    " AS wanted (space, key, revision) LEFT JOIN hauberk.row AS kept ON kept.space = wanted.space"
    " AND kept.key = wanted.key AND (kept.expires IS NULL OR kept.expires > %s)"
    " WHERE wanted.revision NOT IN (%s, coalesce(kept.revision, 0)) LIMIT 1"
)


class Raced(Exception):
    """A head or row came or went a moment ago. Inside this package only: the write is repeated."""


class Rows:
    """The rows of a write.

    Args:
        rows: what to do with them.
    """

    def __init__(self, rows: Sequence[_Change]) -> None:
        changes = [row for row in rows if not isinstance(row, Check)]
        places = {(row.space, row.key) for row in changes}
        self._places = places
        self._rows = [row for row in rows if (row.space, row.key) in places]  # with checks of what is changed too
        self._checks = [row for row in rows if isinstance(row, Check) and (row.space, row.key) not in places]
        self._there: Mapping[_Place, tuple[int, float | None]] = {}  # revision and expiry
        self._changed: dict[_Place, tuple[Put | None, int]] = {}  # what each becomes, with its revision

    def locks(self) -> list[object]:
        """Return the numbers of the spaces, ascending, and which of them to take alone; nothing when there are none.

        Two spaces of one number share a lock.
        """
        alone = {_number(row.space): False for row in self._checks}
        alone |= {_number(row.space): True for row in self._rows}
        numbers = sorted(alone)
        return [Numbers(numbers), [alone[number] for number in numbers]] if numbers else []

    def look(self, connection: Connection, now: float) -> None:
        """Read the rows that are changed, which are locked, and find out what each becomes.

        Raises:
            Conflict: an expectation failed.
        """
        if self._places:
            self._there = _look(connection, self._places)
            self._change(now)

    def _change(self, now: float) -> None:
        for row in sorted(self._rows, key=lambda row: (row.space, row.key)):  # a write may touch one more than once
            place = (row.space, row.key)
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

    def differing(self, now: float) -> list[object]:
        """Return the values of `DIFFERING`, or nothing when there is nothing to check."""
        checks = self._checks
        if not checks:
            return []
        spaces, keys = Texts([one.space for one in checks]), Blobs([one.key for one in checks])
        return [spaces, keys, Numbers([one.expected for one in checks]), now, ANY]

    @staticmethod
    def refuse(space: str, key: bytes, expected: int, found: int) -> None:
        """Refuse what `DIFFERING` has found.

        Raises:
            Conflict: with the revision that is there.
        """
        check_row(Check(space, key, expected), found)


@lru_cache(1_024)
def _number(space: str) -> int:
    return int.from_bytes(sha256(_LOCKS + space.encode()).digest()[:8], signed=True)


def _look(connection: Connection, places: set[_Place]) -> Mapping[_Place, tuple[int, float | None]]:
    query = (
        "SELECT kept.space, kept.key, kept.revision, kept.expires FROM unnest(%s, %s) AS wanted (space, key)"
        " JOIN hauberk.row AS kept ON kept.space = wanted.space AND kept.key = wanted.key"
    )
    found = connection.execute(query, arrays(list(places)), binary=True).fetchall()
    return {(space, key): (revision, expires) for space, key, revision, expires in found}
