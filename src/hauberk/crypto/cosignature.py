r"""Cosignatures of checkpoints (c2sp.org/tlog-cosignature): what a witness says about the head of somebody's log.

A cosignature is a signature line of a note. Its value is a time in seconds, 8 bytes big-endian, before a signature:

* type 0x04, Ed25519, 64 bytes, of the text `cosignature/v1`, `time N`, then the whole text of the checkpoint;
* type 0x06, ML-DSA-44 (FIPS 204), 2420 bytes, of `"subtree/v1\n\0" || len(name) 1 || name || time 8 || len(origin) 1
  || origin || start 8 || end 8 || root 32`, where start is 0 and end is the size of the tree. It leaves extension lines
  out.

The statement is: this is the largest tree of that log the cosigner has seen by that time, and it is consistent with
everything it saw before. A log may sign its own checkpoints with type 0x06 as well, beside its Ed25519 key; the time of
such a signature may be 0, which states none.

```
example.org/ledger
3
Wqx3HImawpLnS/Gv4ubjAvi1WIOy0b8Ze0amvqbavKk=

— w.example/w1 KqhQWQAAAABkGFDL6VlVZoo2inOdrzIt6zZmPn0f+FuLQaBPVtt5ll8s4uatGHFGNyL4zT1KRuQqhL+WcOji/j58OOUivYhcf36DCw==
```

The seed of the Ed25519 key is the bytes 0 to 31, the time 1679315147.
"""

import struct
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from hauberk.crypto.note import (
    Signature,
    decode_vkey,
    encode_vkey,
    is_name,
    key_hash,
    parse_checkpoint,
    parse_signature,
)
from hauberk.crypto.signing import SEED_BYTES, SigningKey, VerifyKey
from hauberk.errors import RecordsError

MAX_TIME = (1 << 63) - 1  # seconds since the epoch
MAX_NAME_BYTES = 255  # of a cosigner and of an origin, in what ML-DSA-44 signs: their length is one byte
_TIME = struct.Struct(">Q")
_RANGE = struct.Struct(">QQ32s")
_ML_DSA_LABEL = b"subtree/v1\n\0"
_ML_DSA_BYTES = 1312


class Algorithm(StrEnum):
    """How a cosigner signs."""

    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"

    @property
    def kind(self) -> bytes:
        """The type byte in verifier keys."""
        return b"\x04" if self is Algorithm.ED25519 else b"\x06"


_OF_KIND = {algorithm.kind: algorithm for algorithm in Algorithm}


def _bad(why: str) -> RecordsError:
    return RecordsError("HBK-711", why)


def _string(text: str) -> bytes:
    data = text.encode()
    if not 0 < len(data) <= MAX_NAME_BYTES:
        raise _bad("a name or origin has 1 to 255 bytes here")
    return bytes((len(data),)) + data


def _message(algorithm: Algorithm, name: str, text: str, time: int) -> bytes:
    """Return the bytes a cosigner signs."""
    checkpoint = parse_checkpoint(text)
    if not 0 <= time <= MAX_TIME:
        raise _bad("the time of a cosignature is out of range")
    if algorithm is Algorithm.ED25519:
        return f"cosignature/v1\ntime {time}\n{text}".encode()
    tree = _RANGE.pack(0, checkpoint.size, checkpoint.root)
    return _ML_DSA_LABEL + _string(name) + _TIME.pack(time) + _string(checkpoint.origin) + tree


class _MlDsaPublic:
    """An ML-DSA-44 public key with the face of `VerifyKey`."""

    __slots__ = ("_key", "raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != _ML_DSA_BYTES:
            raise _bad("an ML-DSA-44 public key has 1312 bytes")
        self.raw = raw
        self._key = MLDSA44PublicKey.from_public_bytes(raw)

    def verify(self, message: bytes, signature: bytes) -> None:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise _bad("the signature is wrong") from None


class Cosigner:
    """The public key of a cosigner. Implements `crypto.note.Verifier`.

    Args:
        name: such as `witness.example/w1`.
        algorithm: how it signs.
        raw: 32 bytes of an Ed25519 key or 1312 of an ML-DSA-44 key.

    Raises:
        RecordsError: HBK-711 when that is no name or key.
    """

    __slots__ = ("_key", "algorithm", "key_id", "name")

    def __init__(self, name: str, algorithm: Algorithm, raw: bytes) -> None:
        if not is_name(name) or len(name.encode()) > MAX_NAME_BYTES:
            raise _bad("not a name of a cosigner")
        self.name = name
        self.algorithm = algorithm
        self._key = VerifyKey(raw) if algorithm is Algorithm.ED25519 else _MlDsaPublic(raw)
        self.key_id = key_hash(name, algorithm.kind, raw)

    @classmethod
    def parse(cls, vkey: str) -> "Cosigner":
        """Parse a verifier key of type 0x04 or 0x06.

        Raises:
            RecordsError: HBK-711.
        """
        name, kind, raw = decode_vkey(vkey)
        if kind not in _OF_KIND:
            raise _bad("not a key that cosigns")
        return cls(name, _OF_KIND[kind], raw)

    @property
    def raw(self) -> bytes:
        """The bytes of the public key."""
        return self._key.raw

    @property
    def vkey(self) -> str:
        """The text form of the verifier key."""
        return encode_vkey(self.name, self.algorithm.kind, self.raw)

    def check(self, text: str, value: bytes) -> int:
        """Check the value of a signature over the text of a checkpoint and return its time.

        Raises:
            RecordsError: HBK-711.
        """
        if len(value) <= _TIME.size:
            raise _bad("a cosignature is too short")
        time = int.from_bytes(value[: _TIME.size])
        self._key.verify(_message(self.algorithm, self.name, text, time), value[_TIME.size :])
        return time

    def verify(self, text: str, line: str) -> int:
        """Check one signature line over the text of a checkpoint.

        Args:
            text: the three lines, and extension lines if there are any, without signatures.
            line: from the em dash on; its newline may be left out.

        Returns:
            When it was made, in seconds since the epoch. 0 states no time, which a witness must not do.

        Raises:
            RecordsError: HBK-711, also when the line is of another key.
        """
        signature = parse_signature(line)
        if signature.name != self.name or signature.key_id != self.key_id:
            raise _bad("the signature is of another key")
        return self.check(text, signature.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cosigner) and other.vkey == self.vkey

    def __hash__(self) -> int:
        return hash((self.name, self.key_id))

    def __repr__(self) -> str:
        return f"Cosigner({self.name!r}, {self.algorithm}, {self.key_id.hex()})"


class CosignerKey:
    """The private key of a cosigner. Shows nothing in `repr()`.

    A key signs under one name only: what an Ed25519 cosigner signs does not say who it is.

    Args:
        name: such as `witness.example/w1`.
        algorithm: how it signs; C2SP prefers ML-DSA-44 for new deployments.
        seed: 32 secret bytes.

    Raises:
        RecordsError: HBK-711 when that is no name or seed.
    """

    __slots__ = ("_key", "_seed", "public")

    def __init__(self, name: str, algorithm: Algorithm, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise _bad("a private key has 32 bytes")
        self._seed = seed
        self._key = SigningKey(seed) if algorithm is Algorithm.ED25519 else MLDSA44PrivateKey.from_seed_bytes(seed)
        raw = self._key.public.raw if isinstance(self._key, SigningKey) else self._key.public_key().public_bytes_raw()
        self.public = Cosigner(name, algorithm, raw)

    @classmethod
    def generate(cls, name: str, algorithm: Algorithm = Algorithm.ML_DSA_44) -> "CosignerKey":
        """Make a new key."""
        return cls(name, algorithm, SigningKey.generate().seed())

    @property
    def name(self) -> str:
        """Of the cosigner."""
        return self.public.name

    @property
    def verifier(self) -> str:
        """The text form of the verifier key."""
        return self.public.vkey

    def seed(self) -> bytes:
        """Return the secret bytes, to be sealed at once."""
        return self._seed

    def cosign(self, text: str, time: int) -> str:
        """Return the signature line over the text of a checkpoint, from the em dash to its newline.

        Args:
            text: the three lines, and extension lines if there are any, without signatures.
            time: seconds since the epoch; 0 states none, which only a log signing for itself may do.

        Raises:
            RecordsError: HBK-711 the text is no checkpoint or the time is out of range.
        """
        public = self.public
        made = self._key.sign(_message(public.algorithm, public.name, text, time))
        return Signature(public.name, public.key_id, _TIME.pack(time) + made).line()

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")

    def __repr__(self) -> str:
        return f"CosignerKey({self.name!r}, {self.public.algorithm}, {self.public.key_id.hex()})"
