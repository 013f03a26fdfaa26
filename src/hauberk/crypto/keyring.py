"""Keys by purpose: sealing, message authentication and pseudonyms from one root secret that callers never see.

Each purpose has its own key, HKDF-SHA256 (RFC 5869) of the root secret with the purpose as `info`, so what is made for
one can never be opened as another. Sealed bytes are `version 1 | nonce 12 | AES-256-GCM ciphertext and tag`; the
purpose and the caller's `aad` are authenticated in an injective encoding (length before each part).
"""

import hmac
import os
import threading
from base64 import b32encode
from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hauberk.core.ports import KeySource
from hauberk.errors import ConfigError

ROOT = "root"  # what the key source is asked for
KEY_BYTES = 32
NONCE_BYTES = 12  # random; far below 2**32 messages per purpose (NIST SP 800-38D section 8.3)
PSEUDONYM_BYTES = 10  # 80 bits: no collision among a billion people, short enough to read
_VERSION = b"\x01"


class Purpose(StrEnum):
    """What a key is for. A new use gets a new line here."""

    CA_KEY = "ca-key"
    LOG_KEY = "log-key"
    FEED_KEY = "feed-key"
    PSEUDONYM = "pseudonym"
    PSEUDONYM_EPOCH = "pseudonym-epoch"  # seals the keys of later epochs; PSEUDONYM itself is handed to services
    ROW = "row"  # authentication only
    TENANT_KEY = "tenant-key"
    SUBJECT = "subject"  # authentication only: finds a subject's keys without naming it
    PRODUCER_KEY = "producer-key"
    WITNESS_KEY = "witness-key"


def _lengths(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4) + part for part in parts)


class Pseudonyms:
    """Keyed pseudonyms of user ids and addresses. The same value gives the same pseudonym under the same key.

    Args:
        key: 32 secret bytes.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def random(cls) -> "Pseudonyms":
        """Pseudonyms that nobody can link after this process has ended."""
        return cls(os.urandom(KEY_BYTES))

    def of(self, kind: str, value: str) -> str:
        """Return such as `address:k5uq2..`; empty for an empty value.

        Args:
            kind: what is hidden, such as `address`; part of the computation.
            value: what to hide.
        """
        if not value:
            return ""
        hidden = value.encode("utf-8", "surrogatepass")  # what came in undecodable is hidden too, not an error
        digest = hmac.digest(self._key, _lengths(kind.encode(), hidden), sha256)
        return f"{kind}:{b32encode(digest[:PSEUDONYM_BYTES]).decode().lower()}"

    def __repr__(self) -> str:
        return "Pseudonyms()"

    def __reduce__(self) -> str:
        raise TypeError("a secret key is not pickled")


class Keyring:
    """Seals and authenticates. Thread-safe; derived keys stay inside.

    Args:
        source: where the root secret is.
        random: source of nonces.
    """

    def __init__(self, source: KeySource, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._random = random
        self._lock = threading.Lock()  # held while a key is derived: the source may have to make the first one
        self._keys: dict[Purpose, bytes] = {}

    def _key(self, purpose: Purpose) -> bytes:
        key = self._keys.get(purpose)
        if key is None:
            with self._lock:
                info = b"hauberk/1/" + purpose.value.encode()
                key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._source.key(ROOT))
                self._keys[purpose] = key
        return key

    def seal(self, purpose: Purpose, plaintext: bytes, *, aad: bytes = b"") -> bytes:
        """Encrypt and authenticate.

        Args:
            purpose: which key.
            plaintext: what to hide.
            aad: where it belongs; has to be given again to open it.
        """
        nonce = self._random(NONCE_BYTES)
        sealed = AESGCM(self._key(purpose)).encrypt(nonce, plaintext, _lengths(purpose.value.encode(), aad))
        return _VERSION + nonce + sealed

    def open(self, purpose: Purpose, sealed: bytes, *, aad: bytes = b"") -> bytes:
        """Undo `seal`.

        Raises:
            ConfigError: HBK-904 wrong key, purpose or place, or the bytes were changed.
        """
        body = len(_VERSION) + NONCE_BYTES
        if sealed[:1] != _VERSION or len(sealed) <= body:
            raise ConfigError("HBK-904", "not sealed by this version")
        try:
            return AESGCM(self._key(purpose)).decrypt(
                sealed[1:body], sealed[body:], _lengths(purpose.value.encode(), aad)
            )
        except InvalidTag:
            raise ConfigError("HBK-904", "does not open", purpose=purpose.value) from None

    def mac(self, purpose: Purpose, data: bytes) -> bytes:
        """Return HMAC-SHA256 under the purpose's key, 32 bytes."""
        return hmac.digest(self._key(purpose), data, sha256)

    def pseudonyms(self) -> Pseudonyms:
        """Return the pseudonyms of this keyring."""
        return Pseudonyms(self.pseudonym_key())

    def pseudonym_key(self) -> bytes:
        """Return the key of the pseudonyms, which an authority hands to its services so that all agree."""
        return self._key(Purpose.PSEUDONYM)

    def __repr__(self) -> str:
        return "Keyring()"

    def __reduce__(self) -> str:
        raise TypeError("secret keys are not pickled")
