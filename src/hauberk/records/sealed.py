"""The sealed part of an entry, as it is stored: which keys, which fields, and what they commit to.

msgpack of

```
[[[key id 16, commitment 32], ...], [[path, number of the key, nonce 12 | ciphertext and tag], ...]]
```

The leaf's key commitment is SHA-256 of all `key id | commitment` of the entry, so nobody can come up with another key
later. See `records.keys` for what a value is bound to.
"""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

import msgspec

from hauberk.core.event import NO_KEY
from hauberk.errors import Tampered

Pairs = tuple[tuple[bytes, bytes], ...]
Fields = tuple[tuple[str, int, bytes], ...]
pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Pairs, Fields]).decode


def parts(*fields: bytes) -> bytes:
    """Return fields, each behind its length: no two lists of fields give the same bytes."""
    return b"".join(len(field).to_bytes(4) + field for field in fields)


@lru_cache(maxsize=1024)
def field(path: str, kind: str) -> bytes:
    """Return the part of the associated data that names a field of an event type."""
    return parts(path.encode(), kind.encode())


def unpack(sealed: bytes) -> tuple[Pairs, Fields]:
    """Return the keys and the fields of a sealed part; `()` and `()` of an empty one.

    Raises:
        Tampered: HBK-710 it is none.
    """
    if not sealed:
        return (), ()
    try:
        keys, fields = _decode(sealed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Tampered("the sealed part cannot be read", kind="unreadable") from None
    if any(not 0 <= number < len(keys) for _, number, _ in fields):
        raise Tampered("the sealed part names a key it does not have", kind="unreadable")
    return keys, fields


def commitment_of(keys: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the leaf's key commitment of these keys."""
    joined = b"".join(one + commitment for one, commitment in keys)
    return sha256(joined).digest() if joined else NO_KEY
