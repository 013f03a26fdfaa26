"""Who is registered and what was issued, as rows of the store."""

from collections.abc import Iterator

import msgspec

from hauberk.core.ports import ABSENT_ROW, Delete, Put, Store, Write
from hauberk.crypto.x509 import SvidInfo
from hauberk.errors import Conflict, IdentityError
from hauberk.identity.registration import RegistrationEntry

ENTRIES = "entries"
SVIDS = "svids"


class Issued(msgspec.Struct, frozen=True):
    """One SVID that is out there.

    Args:
        serial: lower-case hex.
        spiffe_id: whose.
        not_after: Unix seconds.
        issued: Unix seconds.
    """

    serial: str
    spiffe_id: str
    not_after: float
    issued: float


class Registry:
    """Entries and issued SVIDs.

    Args:
        store: where rows are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def entries(self) -> list[RegistrationEntry]:
        """Return all entries by name."""
        return [RegistrationEntry.decode(row.value) for row in self._store.scan(ENTRIES, limit=100_000)]

    def entry(self, name: str) -> RegistrationEntry:
        """Return one entry.

        Raises:
            IdentityError: HBK-213 there is none.
        """
        row = self._store.get(ENTRIES, name.encode())
        if row is None:
            raise IdentityError("HBK-213", "no such entry", name=name[:80])
        return RegistrationEntry.decode(row.value)

    def entry_of(self, spiffe_id: str) -> RegistrationEntry:
        """Return the entry of an id.

        Raises:
            IdentityError: HBK-205 there is none any more.
        """
        for entry in self.entries():
            if str(entry.spiffe_id) == spiffe_id:
                return entry
        raise IdentityError("HBK-205", "the id is not registered any more", spiffe_id=spiffe_id)

    def add(self, entry: RegistrationEntry) -> None:
        """Add an entry.

        Raises:
            IdentityError: HBK-213 the name is taken.
        """
        entry.validate()
        try:
            self._store.commit(Write(rows=(Put(ENTRIES, entry.name.encode(), entry.encode(), ABSENT_ROW),)))
        except Conflict:
            raise IdentityError("HBK-213", "there is an entry of that name", name=entry.name) from None

    def remove(self, name: str) -> RegistrationEntry:
        """Remove an entry and return it.

        Raises:
            IdentityError: HBK-213 there is none.
        """
        entry = self.entry(name)
        self._store.commit(Write(rows=(Delete(ENTRIES, name.encode()),)))
        return entry

    def issued(self, svid: SvidInfo, at: float) -> None:
        """Note an SVID until it expires."""
        row = Issued(svid.serial, str(svid.spiffe_id), svid.not_after, at)
        put = Put(SVIDS, svid.serial.encode(), msgspec.json.encode(row), expires=svid.not_after)
        self._store.commit(Write(rows=(put,)))

    def svids(self) -> Iterator[Issued]:
        """Yield the SVIDs that have not expired."""
        after = b""
        while page := list(self._store.scan(SVIDS, after=after)):
            for row in page:
                yield msgspec.json.decode(row.value, type=Issued)
            after = page[-1].key
