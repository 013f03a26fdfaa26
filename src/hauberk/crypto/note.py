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
hash is the first four bytes of `SHA-256(NAME || 0x0A || 0x01 || key)`. Keys of other types sign other bytes, see
`crypto.cosignature`; to a note every signature is a name, a key id and a value.

Whoever reads a note passes over the lines of keys it does not know, and refuses the whole note when a line under a key
it knows does not verify.
"""

import base64
import binascii
import re
from hashlib import sha256
from typing import Protocol

import msgspec

from hauberk.crypto.signing import SigningKey, VerifyKey
from hauberk.errors import RecordsError

ED25519 = b"\x01"
MAX_NOTE_BYTES = 524_288  # above a checkpoint with a hundred ML-DSA-44 cosignatures of 3.3 KB; C2SP asks for 16
MAX_SIGNATURES = 100
KEY_ID_BYTES = 4
_CHECKPOINT_LINES = 3
_DASH = "— "
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")  # and lone surrogates, which are no UTF-8
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


class Signature(msgspec.Struct, frozen=True):
    """One signature line.

    Args:
        name: of the key.
        key_id: 4 bytes; with the name it stands for one key and one way of signing.
        value: what that key made of the text.
    """

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """Return the line as it stands in a note: em dash, name, base64, newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"


class Note(msgspec.Struct, frozen=True):
    """A note taken apart. Nothing of it is to be believed before a signature was checked.

    Args:
        text: what was signed, with its last newline.
        signatures: in their order.
    """

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> str:
        """Return the note."""
        return f"{self.text}\n{''.join(signature.line() for signature in self.signatures)}"


class Verifier(Protocol):
    """A public key that a reader of notes trusts: `LogKey` or `crypto.cosignature.Cosigner`."""

    @property
    def name(self) -> str:
        """Of the key."""

    @property
    def key_id(self) -> bytes:
        """Four bytes, see `key_hash`."""

    def check(self, text: str, value: bytes) -> int:
        """Check the value of a signature and return its time, 0 where it states none.

        Raises:
            RecordsError: HBK-711.
        """


def _bad(why: str) -> RecordsError:
    return RecordsError("HBK-711", why)


def unbase64(text: str) -> bytes:
    """Decode the one base64 spelling of some bytes (RFC 4648 section 4, padded).

    Raises:
        RecordsError: HBK-711.
    """
    try:
        data = binascii.a2b_base64(text)  # lenient; whatever it passes over does not come back below
    except ValueError:
        raise _bad("not base64") from None
    if binascii.b2a_base64(data, newline=False).decode() != text:
        raise _bad("not base64, or not the canonical spelling")
    return data


def key_hash(name: str, kind: bytes, raw: bytes) -> bytes:
    """Return the four bytes that name a key of this type in signatures."""
    return sha256(name.encode() + b"\n" + kind + raw).digest()[:KEY_ID_BYTES]


def key_id(name: str, key: VerifyKey) -> bytes:
    """Return the four bytes that name an Ed25519 key in signatures."""
    return key_hash(name, ED25519, key.raw)


def encode_vkey(name: str, kind: bytes, raw: bytes) -> str:
    """Return the text form of a verifier key of any type."""
    return f"{name}+{key_hash(name, kind, raw).hex()}+{base64.b64encode(kind + raw).decode()}"


def decode_vkey(text: str) -> tuple[str, bytes, bytes]:
    """Parse the text form of a verifier key of any type into name, type byte and key.

    Raises:
        RecordsError: HBK-711.
    """
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or not is_name(parts[0]):  # noqa: PLR2004  # name, hash, key
        raise _bad("a verifier key is NAME+HASH+KEY")
    material = unbase64(parts[2])
    kind, raw = material[:1], material[1:]
    if key_hash(parts[0], kind, raw).hex() != parts[1]:
        raise _bad("the key does not fit its hash")
    return parts[0], kind, raw


def encode_key(name: str, key: VerifyKey) -> str:
    """Return the text form of an Ed25519 verifier key."""
    return encode_vkey(name, ED25519, key.raw)


def decode_key(text: str) -> tuple[str, VerifyKey]:
    """Parse the text form of an Ed25519 verifier key.

    Raises:
        RecordsError: HBK-711.
    """
    name, kind, raw = decode_vkey(text)
    if kind != ED25519:
        raise _bad("not an Ed25519 key")
    return name, VerifyKey(raw)


class LogKey:
    """An Ed25519 key of type 0x01, which signs the text itself: how a log signs its checkpoints.

    Args:
        name: the log's origin.
        key: its public key.
    """

    __slots__ = ("key", "key_id", "name")

    def __init__(self, name: str, key: VerifyKey) -> None:
        self.name = name
        self.key = key
        self.key_id = key_id(name, key)

    @classmethod
    def parse(cls, vkey: str) -> "LogKey":
        """Parse the text form.

        Raises:
            RecordsError: HBK-711.
        """
        return cls(*decode_key(vkey))

    @property
    def raw(self) -> bytes:
        """The bytes of the public key."""
        return self.key.raw

    @property
    def vkey(self) -> str:
        """The text form."""
        return encode_key(self.name, self.key)

    def check(self, text: str, value: bytes) -> int:
        """Check a signature; it states no time, so this returns 0.

        Raises:
            RecordsError: HBK-711.
        """
        self.key.verify(text.encode(), value)
        return 0

    def __repr__(self) -> str:
        return f"LogKey({self.name!r}, {self.key_id.hex()})"


def sign(text: str, name: str, key: SigningKey) -> str:
    """Return the signed note of `text`, which must end in a newline.

    Raises:
        RecordsError: HBK-711 the text or the name would not come back out of the note as they went in.
    """
    if not text.endswith("\n") or _control(text) or not is_name(name):
        raise _bad("not a text or name that can be signed")
    return f"{text}\n{Signature(name, key_id(name, key.public), key.sign(text.encode())).line()}"


def is_name(name: str) -> bool:
    """Tell whether this can be the name of a key: UTF-8, not empty, no spaces, no plus, no control characters."""
    return _NAME.match(name) is not None and not _control(name)


def _control(text: str) -> bool:
    """Tell whether there is anything but UTF-8 text in lines."""
    return _CONTROL.search(text) is not None


def parse_signature(line: str) -> Signature:
    """Parse one signature line; its newline may be left out.

    Raises:
        RecordsError: HBK-711.
    """
    signer, space, encoded = line.removesuffix("\n").removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not is_name(signer):
        raise _bad("a signature line is malformed")
    signature = unbase64(encoded)
    if len(signature) <= KEY_ID_BYTES:
        raise _bad("a signature line is malformed")
    return Signature(signer, signature[:KEY_ID_BYTES], signature[KEY_ID_BYTES:])


def parse_note(note: str) -> Note:
    """Take a note apart; no signature is checked.

    Raises:
        RecordsError: HBK-711.
    """
    if len(note) > MAX_NOTE_BYTES or _control(note) or len(note.encode()) > MAX_NOTE_BYTES:
        raise _bad("too long, or control characters")
    text, blank, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    if not blank or lines.pop() != "" or not 0 < len(lines) <= MAX_SIGNATURES:
        raise _bad("no signatures, or too many")
    return Note(text + "\n", tuple(parse_signature(line) for line in lines))


def add_signature(note: str, line: str) -> str:
    """Return the note with one more signature line at its end, which takes the place of an older one by the same key.

    Neither is checked here: whoever adds the line of a witness has verified it.

    Raises:
        RecordsError: HBK-711 either is malformed, or there would be too many.
    """
    parsed, added = parse_note(note), parse_signature(line)
    kept = [old for old in parsed.signatures if (old.name, old.key_id) != (added.name, added.key_id)]
    if len(kept) == MAX_SIGNATURES:
        raise _bad("no room for another signature")
    return Note(parsed.text, (*kept, added)).encode()


def signed_by(note: Note, key: Verifier) -> int | None:
    """Return when this key signed the note (0 where its signatures state no time), or None if it did not.

    Raises:
        RecordsError: HBK-711 there is a line under the name and id of this key that does not verify.
    """
    times = [
        key.check(note.text, signature.value)
        for signature in note.signatures
        if signature.key_id == key.key_id and signature.name == key.name
    ]
    return max(times, default=None)


def verify(note: str, name: str, key: VerifyKey) -> str:
    """Return the text of a note that this key signed; signatures of others are ignored.

    Raises:
        RecordsError: HBK-711.
    """
    parsed = parse_note(note)
    if signed_by(parsed, LogKey(name, key)) is None:
        raise _bad("not signed by this key")
    return parsed.text


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the text of a checkpoint; further lines are extensions and are ignored.

    Raises:
        RecordsError: HBK-711.
    """
    lines = text.split("\n")
    if _control(text) or len(lines) < _CHECKPOINT_LINES + 1 or lines.pop() != "" or not all(lines):
        raise _bad("not a checkpoint")
    if not _SIZE.match(lines[1]):
        raise _bad("the size of a checkpoint is a decimal number")
    root = unbase64(lines[2])
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
