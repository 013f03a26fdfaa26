"""Statements: what a producer signed about its own entries, so that not even the log's operator can forge its word.

A statement covers a run of neighbouring entries and is kept on the first of them, msgpack of

```
[fingerprint of the signer 32, time ns, number of entries, digests, signature]
```

What is signed is `hauberk statement 1`, a newline, the fingerprint, the time in 8 bytes and SHA-256 of the digests: for
each event the 96 bytes `SHA-256(meta) | SHA-256(public) | SHA-256(sealed)`, which are the bytes 26 to 122 of its leaf.
`digests` is empty where the run is exactly what was signed; a batch of which some events were recorded before keeps the
whole list there. Entries covered by a statement have bit 0 of their leaf's flags, so no statement is taken away unseen.

Who signs is in the log before it signs: an entry `producer.certified` of stream `/records/producers` holds the chain of
an SVID, or the public Ed25519 key of an embedded runtime, and the fingerprint: SHA-256 of the leaf certificate or key.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256

import msgspec

from hauberk.core.event import Entry
from hauberk.crypto.signing import SigningKey, VerifyKey
from hauberk.crypto.svid import SvidInfo, public_key_verify, verify_chain
from hauberk.errors import HauberkError, RecordsError, Tampered

STREAM = "/records/producers"
CERTIFIED = "producer.certified"
DIGESTS = slice(26, 122)  # of a leaf
DIGEST_BYTES = 96
_CONTEXT = b"hauberk statement 1\n"
_encode = msgspec.msgpack.Encoder().encode


class Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """See the module for the layout."""

    signer: bytes
    time_ns: int
    count: int
    digests: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Return the bytes that are kept."""
        return _encode(self)


_decode = msgspec.msgpack.Decoder(Statement).decode


def message(signer: bytes, time_ns: int, digests: bytes) -> bytes:
    """Return what is signed about the digests of some events. The fingerprint makes the certificate part of it."""
    return _CONTEXT + signer + time_ns.to_bytes(8, signed=True) + sha256(digests).digest()


class Producer(msgspec.Struct, frozen=True):
    """Who signs here. `sign` keeps the key.

    Args:
        fingerprint: 32 bytes.
        certificate: data of the entry that introduces it.
        sign: returns the signature of a message.
    """

    fingerprint: bytes
    certificate: Mapping[str, object]
    sign: Callable[[bytes], bytes]

    @classmethod
    def of_key(cls, key: SigningKey) -> "Producer":
        """Return the producer that signs with a key of its own, as an embedded runtime does."""
        raw = key.public.raw
        return cls(sha256(raw).digest(), _introduced(sha256(raw).digest(), key=_text(raw)), key.sign)

    @classmethod
    def of_chain(cls, chain: Sequence[bytes], sign: Callable[[bytes], bytes]) -> "Producer":
        """Return the producer that signs with the key of an SVID; `chain` is DER, leaf first."""
        fingerprint = sha256(chain[0]).digest()
        return cls(fingerprint, _introduced(fingerprint, chain=[_text(one) for one in chain]), sign)

    def state(self, time_ns: int, leaves: Iterable[bytes]) -> bytes:
        """Return the statement about a run of entries, given their leaves."""
        digests = [leaf[DIGESTS] for leaf in leaves]
        signature = self.sign(message(self.fingerprint, time_ns, b"".join(digests)))
        return Statement(self.fingerprint, time_ns, len(digests), b"", signature).encode()

    def __repr__(self) -> str:
        return f"Producer({self.fingerprint.hex()[:8]}..)"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _introduced(fingerprint: bytes, **what: object) -> Mapping[str, object]:
    return {"fingerprint": fingerprint.hex(), **what}


def parse_statement(data: bytes) -> Statement:
    """Parse what is kept on an entry.

    Raises:
        RecordsError: HBK-712 it is no statement.
    """
    try:
        found = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RecordsError("HBK-712", "not a statement") from None
    if found.count < 1 or not 0 <= found.time_ns < 1 << 63 or len(found.digests) % DIGEST_BYTES:
        raise RecordsError("HBK-712", "not a statement")
    return found


class Signer(msgspec.Struct, frozen=True):
    """Who made a statement, as the log introduced it: either a key or a chain."""

    key: bytes = b""
    chain: tuple[bytes, ...] = ()

    def verify(self, statement: Statement, digests: bytes, roots: Mapping[str, Sequence[bytes]]) -> SvidInfo | None:
        """Check the signature, and the chain at the statement's own time; return whose SVID it is, None for a key.

        Args:
            statement: what was signed.
            digests: of its events.
            roots: by trust domain, DER; without any the chain is taken at its word.

        Raises:
            RecordsError: HBK-711 the signature is wrong.
            IdentityError: HBK-2xx the chain is not valid at that time.
        """
        signed = message(statement.signer, statement.time_ns, digests)
        if self.key:
            VerifyKey(self.key).verify(signed, statement.signature)
            return None
        producer = verify_chain(self.chain, roots, at=statement.time_ns / 1e9) if roots else None
        public_key_verify(self.chain[0], signed, statement.signature)
        return producer


class _Certificate(msgspec.Struct):
    fingerprint: str
    key: str = ""
    chain: tuple[str, ...] = ()


def read_signer(data: bytes) -> tuple[bytes, Signer]:
    """Return fingerprint and signer from the public part of a `producer.certified` entry.

    Raises:
        RecordsError: HBK-712 it is none, or the fingerprint is another key's.
    """
    try:
        found = msgspec.json.decode(data, type=_Certificate)
        key = base64.b64decode(found.key, validate=True)
        chain = tuple(base64.b64decode(one, validate=True) for one in found.chain)
        fingerprint = bytes.fromhex(found.fingerprint)
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
        raise RecordsError("HBK-712", "not the certificate of a producer") from None
    if bool(key) == bool(chain) or sha256(key or chain[0]).digest() != fingerprint:
        raise RecordsError("HBK-712", "the fingerprint is of another key")
    return fingerprint, Signer(key, chain)


def signers_in(entries: Iterable[Entry]) -> dict[bytes, Signer]:
    """Return the producers that the entries of their stream introduce, by fingerprint.

    Raises:
        RecordsError: HBK-712 one introduces none.
    """
    return dict(read_signer(entry.public) for entry in entries)


def check_statement(
    statement: Statement,
    leaves: Sequence[bytes],
    signers: Mapping[bytes, Signer],
    roots: Mapping[str, Sequence[bytes]],
    *,
    position: int,
) -> SvidInfo | None:
    """Check a statement against the leaves it covers.

    Args:
        statement: parsed.
        leaves: of the entries it covers, in order, as many as it says.
        signers: introduced by the log before this position.
        roots: by trust domain, DER.
        position: of the first entry.

    Returns:
        Whose SVID signed, verified; None where a plain key did, or there are no roots to verify with.

    Raises:
        Tampered: HBK-710 with kind `forged-signature`.
    """
    digests = b"".join(leaf[DIGESTS] for leaf in leaves)
    listed = statement.digests
    signer = signers.get(statement.signer)
    try:
        if signer is None or len(leaves) != statement.count:
            raise RecordsError("HBK-712", "the signer was never introduced, or entries are missing")
        if listed:
            known = {listed[at : at + DIGEST_BYTES] for at in range(0, len(listed), DIGEST_BYTES)}
            if any(leaf[DIGESTS] not in known for leaf in leaves):
                raise RecordsError("HBK-712", "the statement does not name the entry")
        return signer.verify(statement, listed or digests, roots)
    except HauberkError as error:
        raise Tampered(
            f"the producer's statement does not hold: {error.detail or error.public}",
            position=position,
            kind="forged-signature",
        ) from None
