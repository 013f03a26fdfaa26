"""Join tokens: how a workload gets its first SVID where the kernel cannot attest it.

The text is `hbkjoin1.` and base64url without padding (RFC 4648 section 5) of
`secret 32 | SHA-256 of the root certificate 32 | HOST:PORT`. The fingerprint makes the first contact not blind: the
workload refuses an authority whose root is another. The store keeps the SHA-256 of the secret as a row's key, so a
stolen database redeems nothing. Redeeming removes the row with an expectation on its revision, so of two racing
redemptions exactly one wins; expired, replayed and made-up tokens are refused with the same words.
"""

import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from hashlib import sha256

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.ports import ABSENT_ROW, Delete, Put, Store, Write
from hauberk.errors import Conflict, IdentityError

SPACE = "join-tokens"
TTL = 600.0  # seconds; long enough to paste it into another terminal
SECRET_BYTES = 32
_PREFIX = "hbkjoin1."
_FIXED = 2 * SECRET_BYTES
_MAX_TEXT = 512  # a host name has at most 253 bytes
_ADDRESS = re.compile(
    r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})\Z"
)  # nothing else may be in a URL
_MAX_PORT = 65_535


class JoinToken:
    """What the workload is given.

    Args:
        address: `HOST:PORT` of the authority.
        root_fingerprint: SHA-256 of its root certificate's DER, hex.
        secret: 32 bytes.
    """

    __slots__ = ("address", "root_fingerprint", "secret")

    def __init__(self, address: str, root_fingerprint: str, secret: bytes) -> None:
        self.address = address
        self.root_fingerprint = root_fingerprint
        self.secret = secret

    @classmethod
    def create(cls, address: str, root_fingerprint: str, *, random: Callable[[int], bytes] = os.urandom) -> "JoinToken":
        """Make a new one."""
        return cls(address, root_fingerprint, random(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> "JoinToken":
        """Read the text form.

        Raises:
            IdentityError: HBK-204.
        """
        body = text.strip().removeprefix(_PREFIX)
        if len(text) > _MAX_TEXT or len(body) == len(text.strip()):
            raise IdentityError("HBK-204", "not a join token")
        try:
            raw = urlsafe_b64decode(body + "=" * (-len(body) % 4))
            address = _ADDRESS.match(raw[_FIXED:].decode("ascii"))
        except (Base64Error, ValueError):
            raise IdentityError("HBK-204", "not a join token") from None
        if address is None or not 0 < int(address.group(1)) <= _MAX_PORT:
            raise IdentityError("HBK-204", "not a join token")
        token = cls(address.group(), raw[SECRET_BYTES:_FIXED].hex(), raw[:SECRET_BYTES])
        if token.text() != text.strip():  # the decoder passes over what is not its alphabet
            raise IdentityError("HBK-204", "not a join token")
        return token

    def text(self) -> str:
        """Return the text form, which is a secret."""
        raw = self.secret + bytes.fromhex(self.root_fingerprint) + self.address.encode("ascii")
        return _PREFIX + urlsafe_b64encode(raw).decode().rstrip("=")

    @property
    def digest(self) -> bytes:
        """The row's key: SHA-256 of the secret, 32 bytes. Not secret."""
        return sha256(self.secret).digest()

    def __repr__(self) -> str:
        return f"JoinToken({self.address!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JoinToken) and (self.digest, self.address, self.root_fingerprint) == (
            other.digest,
            other.address,
            other.root_fingerprint,
        )

    def __hash__(self) -> int:
        return hash(self.digest)


class _Grant(msgspec.Struct, forbid_unknown_fields=True):
    entry: str
    expires: float


def grant(token: JoinToken, entry: str, *, ttl: float = TTL, clock: Clock = SYSTEM_CLOCK) -> Put:
    """Return the row that makes `token` good for one identity.

    Args:
        token: the token.
        entry: name of a registration entry.
        ttl: seconds it is good for.
        clock: what "now" is.
    """
    expires = clock.time() + ttl
    return Put(SPACE, token.digest, msgspec.json.encode(_Grant(entry, expires)), ABSENT_ROW, expires)


def redemption(store: Store, secret: bytes, *, clock: Clock = SYSTEM_CLOCK) -> tuple[str, Delete]:
    """Look a token up and return its entry's name and the removal that redeems it; nothing is written yet.

    For whoever commits the removal together with other rows. A `Conflict` of that commit means somebody was faster.

    Raises:
        IdentityError: HBK-204 unknown, used or expired.
    """
    key = sha256(secret).digest()
    row = store.get(SPACE, key)
    if row is None:
        raise IdentityError("HBK-204", "unknown, used or expired")
    try:
        found = msgspec.json.decode(row.value, type=_Grant)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise IdentityError("HBK-204", "what is stored is no grant") from None
    if found.expires <= clock.time():
        raise IdentityError("HBK-204", "expired", entry=found.entry)
    return found.entry, Delete(SPACE, key, row.revision)


def redeem(store: Store, secret: bytes, *, clock: Clock = SYSTEM_CLOCK) -> str:
    """Use a token up and return the name of its registration entry. Of any number of racing calls one succeeds.

    Args:
        store: where `grant` was committed.
        secret: what the workload presents.
        clock: what "now" is.

    Raises:
        IdentityError: HBK-204 unknown, used or expired.
    """
    entry, removal = redemption(store, secret, clock=clock)
    try:
        store.commit(Write(rows=(removal,)))
    except Conflict:
        raise IdentityError("HBK-204", "used by somebody faster", entry=entry) from None
    return entry
