"""Who is registered, what was issued and which certificates are revoked, as rows of the store."""

import re
from collections.abc import Collection, Iterator

import msgspec

from hauberk.core.ports import ABSENT_ROW, Delete, Put, Row, Store, Write
from hauberk.crypto.x509 import SvidInfo
from hauberk.errors import Conflict, IdentityError
from hauberk.identity.jointoken import SPACE as TOKENS
from hauberk.identity.registration import MAX_TTL, RegistrationEntry

ENTRIES = "entries"
IDS = "entry-ids"  # SPIFFE id to name: two entries of one id would keep each other's certificates renewed
SVIDS = "svids"
REVOKED = "revoked-serials"
_SERIAL = re.compile(r"[0-9a-f]{1,40}\Z")  # RFC 5280 section 4.1.2.2: at most 20 bytes


class Issued(msgspec.Struct, frozen=True):
    """One SVID that is out there.

    Args:
        serial: lower-case hex.
        spiffe_id: whose.
        not_after: Unix seconds.
        issued: Unix seconds.
        parent: serial of the SVID it was the renewal of, or empty.
        root: SHA-256 of the root that signed it, hex.
    """

    serial: str
    spiffe_id: str
    not_after: float
    issued: float
    parent: str = ""
    root: str = ""


class _TokenRow(msgspec.Struct):
    entry: str


def each_row(store: Store, space: str) -> Iterator[Row]:
    """Yield every live row of a space, however many there are."""
    after = b""
    while page := list(store.scan(space, after=after)):
        yield from page
        after = page[-1].key


def parse_serial(text: str) -> str:
    """Read a serial as people copy it: in either case, with colons, with leading zeros.

    Raises:
        IdentityError: HBK-201, because a revocation that means nobody must not look like one that worked.
    """
    serial = text.replace(":", "").lower().lstrip("0")
    if not _SERIAL.match(serial):
        raise IdentityError("HBK-201", "neither a SPIFFE id nor the serial of a certificate", text=text[:80])
    return serial


class Registry:
    """Entries, issued SVIDs and revoked serials. Single writes are atomic; who reads before he writes holds a lock.

    Args:
        store: where rows are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def entries(self) -> list[RegistrationEntry]:
        """Return all entries by name."""
        return [RegistrationEntry.decode(row.value) for row in each_row(self._store, ENTRIES)]

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
        """Return the one entry of an id.

        Raises:
            IdentityError: HBK-205 there is none any more.
        """
        name = self._store.get(IDS, spiffe_id.encode())
        row = None if name is None else self._store.get(ENTRIES, name.value)
        if row is None:
            raise IdentityError("HBK-205", "the id is not registered any more", spiffe_id=spiffe_id)
        return RegistrationEntry.decode(row.value)

    def check_free(self, entry: RegistrationEntry) -> None:
        """Return if neither the name nor the id is taken.

        Raises:
            IdentityError: HBK-213.
        """
        if self._store.get(ENTRIES, entry.name.encode()) is not None:
            raise IdentityError("HBK-213", "there is an entry of that name", name=entry.name)
        holder = self._store.get(IDS, str(entry.spiffe_id).encode())
        if holder is not None:
            raise IdentityError("HBK-213", "another entry has that id", entry=holder.value.decode())

    def add(self, entry: RegistrationEntry) -> None:
        """Add an entry.

        Raises:
            IdentityError: HBK-213 not valid, or the name or the id is taken.
        """
        name = entry.validate().name.encode()
        rows = (
            Put(ENTRIES, name, entry.encode(), ABSENT_ROW),
            Put(IDS, str(entry.spiffe_id).encode(), name, ABSENT_ROW),
        )
        try:
            self._store.commit(Write(rows=rows))
        except Conflict:
            raise IdentityError("HBK-213", "the name or the id is taken", name=entry.name) from None

    def remove(self, name: str) -> RegistrationEntry:
        """Remove an entry and its join tokens, which a later entry of that name must not inherit; return it.

        Raises:
            IdentityError: HBK-213 there is none.
        """
        entry = self.entry(name)
        rows = [Delete(ENTRIES, name.encode()), Delete(IDS, str(entry.spiffe_id).encode())]
        tokens = ((row.key, msgspec.json.decode(row.value, type=_TokenRow)) for row in each_row(self._store, TOKENS))
        rows += [Delete(TOKENS, key) for key, token in tokens if token.entry == name]
        self._store.commit(Write(rows=rows))
        return entry

    def issued(self, svid: SvidInfo, at: float, *, root: str, parent: str = "") -> None:
        """Note an SVID until it expires."""
        row = Issued(svid.serial, str(svid.spiffe_id), svid.not_after, at, parent, root)
        put = Put(SVIDS, svid.serial.encode(), msgspec.json.encode(row), expires=svid.not_after)
        self._store.commit(Write(rows=(put,)))

    def svids(self) -> Iterator[Issued]:
        """Yield the SVIDs that have not expired."""
        for row in each_row(self._store, SVIDS):
            yield msgspec.json.decode(row.value, type=Issued)

    def family(self, serials: Collection[str]) -> frozenset[str]:
        """Return these serials and those of everything that was renewed from them, at any remove."""
        children: dict[str, list[str]] = {}
        for svid in self.svids():
            children.setdefault(svid.parent, []).append(svid.serial)
        found, fresh = set(serials), list(serials)
        while fresh:
            born = children.get(fresh.pop(), [])
            fresh += [serial for serial in born if serial not in found]
            found.update(born)
        return frozenset(found)

    def revoke(self, serials: Collection[str], at: float) -> None:
        """Note revoked serials, each until its certificate expires; one we know nothing of, as long as any can live."""
        rows = []
        for serial in serials:
            row = self._store.get(SVIDS, serial.encode())
            rows.append(Put(REVOKED, serial.encode(), b"", expires=at + MAX_TTL if row is None else row.expires))
        self._store.commit(Write(rows=rows))

    def restore(self, serials: Collection[str]) -> None:
        """Forget that these serials were revoked."""
        self._store.commit(Write(rows=[Delete(REVOKED, serial.encode()) for serial in serials]))

    def revoked(self) -> frozenset[str]:
        """Return the serials that are revoked and have not expired."""
        return frozenset(row.key.decode() for row in each_row(self._store, REVOKED))
