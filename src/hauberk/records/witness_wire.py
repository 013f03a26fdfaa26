"""The wire form of `add-checkpoint` (c2sp.org/tlog-witness): what a log sends a witness, and what it gets back.

A request is the size the witness is believed to have cosigned last, at most 63 lines of a consistency proof from that
size, an empty line, and the new checkpoint:

```
old 1
qxq38Hx8j+Dv9LpvqlPH5EEukaWZFT6KpOAb7s5beCU=
Zx8UbF5HHooag6PCFM5LqQe486WIjRTMjNPOdbsS75Q=

example.org/ledger
3
Wqx3HImawpLnS/Gv4ubjAvi1WIOy0b8Ze0amvqbavKk=

— example.org/ledger X1txbfjA/ha6et6+76nfE2LChine62DJAe1ncZGvyNHSBC9p2qfwOwuJADkOvmlkHy6ZQvl0Ge8U8C4hR6pBNqhISAo=
```

The leaves and the key are those of `crypto.note`. The answer is one signature line for each key of the witness; with
status 409 it is the size that was cosigned last, in decimal, and its type is `text/x.tlog.size`.
"""

import base64
import re
from hashlib import sha256

import msgspec

from hauberk.crypto.merkle import HASH_BYTES
from hauberk.crypto.note import Signature, parse_signature, unbase64
from hauberk.errors import RecordsError

MAX_PROOF = 63  # lines; a proof between trees of 64-bit sizes needs no more
MAX_BODY_BYTES = 131_072  # twice a checkpoint with the 16 ML-DSA-44 signatures that must be taken, and a proof
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})\Z")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n\Z")


class Request(msgspec.Struct, frozen=True):
    """The body of `add-checkpoint`.

    Args:
        old: size of the checkpoint that the witness is believed to have cosigned last.
        proof: hashes.
        note: the checkpoint with its signatures.
    """

    old: int
    proof: tuple[bytes, ...]
    note: str

    def encode(self) -> bytes:
        """Return the body."""
        lines = "".join(base64.b64encode(part).decode() + "\n" for part in self.proof)
        return f"old {self.old}\n{lines}\n{self.note}".encode()


class Answer(msgspec.Struct, frozen=True):
    """What a request gets: an HTTP status, a body and its type."""

    status: int
    body: bytes
    kind: str = TEXT_TYPE


def _bad(why: str) -> RecordsError:
    return RecordsError("HBK-711", why)


def parse_request(body: bytes) -> Request:
    """Parse the body of `add-checkpoint`; the note is not looked into.

    Raises:
        RecordsError: HBK-711.
    """
    if len(body) > MAX_BODY_BYTES:
        raise _bad("the request is too long")
    head, blank, note = body.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
        text = note.decode()
    except UnicodeDecodeError:
        raise _bad("the request is not text") from None
    old = _OLD.match(first)
    if not blank or old is None or len(lines) > MAX_PROOF:
        raise _bad("a request is an old size, at most 63 hashes, an empty line and a checkpoint")
    proof = tuple(unbase64(line) for line in lines)
    if any(len(part) != HASH_BYTES for part in proof):
        raise _bad("a proof hash has 32 bytes")
    return Request(int(old[1]), proof, text)


def parse_size(body: bytes) -> int:
    """Parse the body of a 409.

    Raises:
        RecordsError: HBK-711.
    """
    found = _SIZE.match(body)
    if found is None:
        raise _bad("not a tree size")
    return int(found[1])


def parse_cosignatures(body: bytes) -> tuple[Signature, ...]:
    """Parse the body of a 200: signature lines, of which none was checked yet.

    Raises:
        RecordsError: HBK-711.
    """
    try:
        lines = body.decode().split("\n")
    except UnicodeDecodeError:
        raise _bad("the answer is not text") from None
    if len(lines) < 2 or lines.pop() != "":  # noqa: PLR2004  # a line and what follows its end
        raise _bad("an answer is one or more signature lines")
    return tuple(parse_signature(line) for line in lines)


def origin_hash(origin: str) -> str:
    """Return the name of a log in the monitor's path: SHA-256 in lower-case hex."""
    return sha256(origin.encode()).hexdigest()
