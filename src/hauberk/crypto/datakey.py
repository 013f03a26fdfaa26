"""Keys of one person's data: AES-256-GCM with a commitment, wrapped with AES-KW (RFC 3394, NIST SP 800-38F).

GCM does not commit to its key: whoever knows two keys can make one ciphertext that opens under both to different texts.
So each sealed value goes with a commitment, `HMAC-SHA256(key, "hauberk key commitment 1")`, and is opened only with
the key that commitment is of. A wrapped key is 40 bytes; it opens only under the key that wrapped it.
"""

import hmac
import os
from collections.abc import Callable
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from hauberk.errors import ConfigError

KEY_BYTES = 32
NONCE_BYTES = 12  # random: NIST SP 800-38D section 8.2.2
WRAPPED_BYTES = 40
MAX_MESSAGES = 1 << 32  # with random nonces, NIST SP 800-38D section 8.3
_COMMITMENT = b"hauberk key commitment 1"


class DataKey:
    """One key. Thread-safe; shows nothing in `repr()`.

    Args:
        raw: 32 secret bytes.
    """

    __slots__ = ("_aead", "_raw", "commitment")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._aead = AESGCM(raw)
        self.commitment = hmac.digest(raw, _COMMITMENT, sha256)

    @classmethod
    def generate(cls, random: Callable[[int], bytes] = os.urandom) -> "DataKey":
        """Make a new key."""
        return cls(random(KEY_BYTES))

    @classmethod
    def unwrap(cls, wrapped: bytes, wrapping: bytes) -> "DataKey":
        """Undo `wrap`.

        Raises:
            ConfigError: HBK-904 the wrapping key is another one, or the bytes were changed.
        """
        try:
            return cls(aes_key_unwrap(wrapping, wrapped))
        except (InvalidUnwrap, ValueError):
            raise ConfigError("HBK-904", "a data key does not open") from None

    def wrap(self, wrapping: bytes) -> bytes:
        """Return the 40 bytes that are kept; `wrapping` has 32 bytes."""
        return aes_key_wrap(wrapping, self._raw)

    def seal(self, plaintext: bytes, aad: bytes, nonce: bytes) -> bytes:
        """Return `nonce 12 | ciphertext and tag`."""
        return nonce + self._aead.encrypt(nonce, plaintext, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Undo `seal`.

        Raises:
            ConfigError: HBK-904 another key or place, or the bytes were changed.
        """
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
        except (InvalidTag, ValueError):
            raise ConfigError("HBK-904", "does not open") from None

    def __repr__(self) -> str:
        return "DataKey()"

    def __reduce__(self) -> str:
        raise TypeError("a secret key is not pickled")
