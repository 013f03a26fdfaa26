"""Ed25519 signatures (RFC 8032) with keys that show nothing in `repr()`."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hauberk.errors import RecordsError

SEED_BYTES = 32
PUBLIC_BYTES = 32


class VerifyKey:
    """A public key.

    Args:
        raw: 32 bytes.

    Raises:
        RecordsError: HBK-711 when that is no key.
    """

    __slots__ = ("_key", "raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != PUBLIC_BYTES:
            raise RecordsError("HBK-711", "a public key has 32 bytes")
        self.raw = raw
        self._key = Ed25519PublicKey.from_public_bytes(raw)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check a signature.

        Raises:
            RecordsError: HBK-711.
        """
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise RecordsError("HBK-711", "the signature is wrong") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"VerifyKey({self.raw.hex()[:8]}..)"


class SigningKey:
    """A private key. Callers never need its bytes except to seal them.

    Args:
        seed: 32 secret bytes.
    """

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise RecordsError("HBK-711", "a private key has 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = VerifyKey(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return self._key.sign(message)

    def seed(self) -> bytes:
        """Return the secret bytes, to be sealed at once."""
        return self._key.private_bytes_raw()

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")

    def __repr__(self) -> str:
        return f"SigningKey(public {self.public.raw.hex()[:8]}..)"
