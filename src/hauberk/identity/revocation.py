"""Which identities are revoked: by SPIFFE id, until it is restored, or by certificate, until it would have expired."""

import re
from collections.abc import Iterable

import msgspec

from hauberk.core.spiffe import SpiffeId
from hauberk.errors import IdentityError

_NONE: frozenset[str] = frozenset()
_SERIAL = re.compile(r"[0-9A-Fa-f]{1,64}\Z")  # RFC 5280 section 4.1.2.2 allows 40 digits


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

        Args:
            ids: SPIFFE ids.
            serials: hex as any tool prints it: either case, leading zeros, `0x` or colons.

        Raises:
            IdentityError: HBK-201 one is no SPIFFE id, HBK-215 one is no serial number.
        """
        return cls(frozenset(str(SpiffeId.parse(text)) for text in ids), frozenset(map(_serial, serials)))

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


def _serial(text: str) -> str:
    """The one spelling that certificates are compared in; another one would revoke nothing and say nothing."""
    digits = text.strip().removeprefix("0x").removeprefix("0X").replace(":", "")
    if not _SERIAL.match(digits) or int(digits, 16) == 0:
        raise IdentityError("HBK-215", "not hex", serial=text[:80])
    return f"{int(digits, 16):x}"


NO_REVOCATIONS = Revocations()
