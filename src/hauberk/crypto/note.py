"""C2SP signed notes and checkpoints (c2sp.org/signed-note, c2sp.org/tlog-checkpoint).

A checkpoint is three lines: origin, tree size in decimal, root hash in base64. A signed note is a text that ends in a
newline, a blank line, and one line per signature:

```
example.org/ledger
3
Wqx3HImawpLnS/Gv4ubjAvi1WIOy0b8Ze0amvqbavKk=

— example.org/ledger X1txbfjA/ha6et6+76nfE2LChine62DJAe1ncZGvyNHSBC9p2qfwOwuJADkOvmlkHy6ZQvl0Ge8U8C4hR6pBNqhISAo=
```

The leaves are `one`, `two`, `three`, the seed of the key is the bytes 0 to 31. The signature is base64 of a 4-byte key
id and the 64-byte Ed25519 signature of the text. A verifier key is written `NAME+HASH+BASE64(0x01 || public key)`; the
hash is the first four bytes of `SHA-256(NAME || 0x0A || 0x01 || key)`.
"""

import base64
import binascii
import re
from hashlib import sha256

import msgspec

from hauberk.crypto.signing import SigningKey, VerifyKey
from hauberk.errors import RecordsError

ED25519 = b"\x01"
MAX_NOTE_BYTES = 65_536  # far above any checkpoint with a hundred cosignatures
MAX_SIGNATURES = 100
KEY_ID_BYTES = 4
_DASH = "— "
_NAME = re.compile(r"[^\s+]+\Z")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z")


class Checkpoint(msgspec.Struct, frozen=True):
    """The signed head of a log.

    Args:
        origin: the log's name.
        size: number of leaves.
        root: 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def _bad(why: str) -> RecordsError:
    return RecordsError("HBK-711", why)


def _unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("not base64") from None
    if base64.b64encode(data).decode() != text:
        raise _bad("base64 is not canonical")
    return data


def key_id(name: str, key: VerifyKey) -> bytes:
    """Return the four bytes that name a key in signatures."""
    return sha256(name.encode() + b"\n" + ED25519 + key.raw).digest()[:KEY_ID_BYTES]


def encode_key(name: str, key: VerifyKey) -> str:
    """Return the text form of a verifier key."""
    return f"{name}+{key_id(name, key).hex()}+{base64.b64encode(ED25519 + key.raw).decode()}"


def decode_key(text: str) -> tuple[str, VerifyKey]:
    """Parse the text form of a verifier key.

    Raises:
        RecordsError: HBK-711.
    """
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or not _NAME.match(parts[0]):  # noqa: PLR2004  # name, hash, key
        raise _bad("a verifier key is NAME+HASH+KEY")
    raw = _unbase64(parts[2])
    if raw[:1] != ED25519:
        raise _bad("not an Ed25519 key")
    key = VerifyKey(raw[1:])
    if key_id(parts[0], key).hex() != parts[1]:
        raise _bad("the key does not fit its hash")
    return parts[0], key


def sign(text: str, name: str, key: SigningKey) -> str:
    """Return the signed note of `text`, which must end in a newline.

    Raises:
        RecordsError: HBK-711 the text or the name would not come back out of the note as they went in.
    """
    if not text.endswith("\n") or _control(text) or not _NAME.match(name):
        raise _bad("not a text or name that can be signed")
    signature = base64.b64encode(key_id(name, key.public) + key.sign(text.encode())).decode()
    return f"{text}\n{_DASH}{name} {signature}\n"


def _control(text: str) -> bool:
    """Tell whether there is anything but UTF-8 text in lines."""
    return any((char < " " and char != "\n") or "\ud800" <= char <= "\udfff" for char in text)


def _split(note: str) -> tuple[str, list[str]]:
    if len(note) > MAX_NOTE_BYTES or _control(note) or len(note.encode()) > MAX_NOTE_BYTES:
        raise _bad("too long, or control characters")
    text, blank, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    if not blank or lines.pop() != "" or not 0 < len(lines) <= MAX_SIGNATURES:
        raise _bad("no signatures")
    return text + "\n", lines


def verify(note: str, name: str, key: VerifyKey) -> str:
    """Return the text of a note that this key signed; signatures of others are ignored.

    Raises:
        RecordsError: HBK-711.
    """
    text, lines = _split(note)
    verified = False
    for line in lines:
        signer, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space or not _NAME.match(signer):
            raise _bad("a signature line is malformed")
        signature = _unbase64(encoded)
        if len(signature) <= KEY_ID_BYTES:
            raise _bad("a signature line is malformed")
        if signer == name and signature[:KEY_ID_BYTES] == key_id(name, key):
            key.verify(text.encode(), signature[KEY_ID_BYTES:])
            verified = True
    if not verified:
        raise _bad("not signed by this key")
    return text


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the text of a checkpoint; further lines are extensions and are ignored.

    Raises:
        RecordsError: HBK-711.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() != "" or not all(lines) or not _SIZE.match(lines[1]):  # noqa: PLR2004  # three lines, then the end
        raise _bad("not a checkpoint")
    root = _unbase64(lines[2])
    if len(root) != sha256().digest_size:
        raise _bad("a root hash has 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root)


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> str:
    """Return the signed note; the signer's name is the origin."""
    return sign(checkpoint.text(), checkpoint.origin, key)


def verify_checkpoint(note: str, origin: str, key: VerifyKey) -> Checkpoint:
    """Return the checkpoint of a note signed by the log itself.

    Raises:
        RecordsError: HBK-711, also when the origin is another log's.
    """
    checkpoint = parse_checkpoint(verify(note, origin, key))
    if checkpoint.origin != origin:
        raise _bad("the checkpoint is of another log")
    return checkpoint
