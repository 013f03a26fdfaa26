"""A person's key while it seals: what one process leased of its budget, and the revision its row has."""

from hauberk.crypto.datakey import DataKey
from hauberk.records.sealed import commitment_of, parts


class Live:
    """A key in use.

    Args:
        one: its id.
        key: itself.
        left: messages that remain of this process's lease.
        leased: messages that were leased in all, as the row says.
        revision: of the row.
    """

    __slots__ = ("commitment", "id", "key", "leased", "left", "pair", "part", "revision")

    def __init__(self, one: bytes, key: DataKey, left: int, leased: int, revision: int) -> None:
        self.id = one
        self.key = key
        self.left = left
        self.leased = leased
        self.revision = revision
        self.pair = (one, key.commitment)
        self.part = parts(one)  # of the associated data
        self.commitment = commitment_of((self.pair,))  # of an entry with this key alone

    def copy(self) -> "Live":
        """Return an independent copy."""
        made = object.__new__(Live)
        for name in Live.__slots__:
            setattr(made, name, getattr(self, name))
        return made
