"""Which identities are revoked: by SPIFFE id, until it is restored, or by certificate, until it would have expired."""

from collections.abc import Iterable

import msgspec

from hauberk.core.spiffe import SpiffeId
from hauberk.errors import IdentityError

_NONE: frozenset[str] = frozenset()


class Revocations(msgspec.Struct, frozen=True):
    """An immutable list.

    Args:
        ids: SPIFFE ids, every certificate of them.
        serials: of single certificates, lower-case hex.
    """

    ids: frozenset[str] = _NONE
    serials: frozenset[str] = _NONE

    @classmethod
    def of(cls, ids: Iterable[str] = (), serials: Iterable[str] = ()) -> "Revocations":
        """Build a list.

        Raises:
            IdentityError: HBK-201 one is no SPIFFE id.
        """
        return cls(
            frozenset(str(SpiffeId.parse(text)) for text in ids), frozenset(serial.lower() for serial in serials)
        )

    def covers(self, spiffe_id: str, serial: str) -> bool:
        """Tell whether this id or this certificate is revoked."""
        return spiffe_id in self.ids or serial in self.serials

    def refuse(self, spiffe_id: str, serial: str) -> None:
        """Return if neither is revoked.

        Raises:
            IdentityError: HBK-206.
        """
        if self.covers(spiffe_id, serial):
            raise IdentityError("HBK-206", "revoked", spiffe_id=spiffe_id, serial=serial)


NO_REVOCATIONS = Revocations()
