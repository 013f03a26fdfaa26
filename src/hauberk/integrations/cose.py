"""Receipts as COSE (RFC 9942), for those who check them with SCITT tools: the same tree and key, another envelope.

```
18([ << {1: -8, 4: key id, 15: {1: log, 2: event id}, 395: 1} >>,     / EdDSA, claims (RFC 9597), RFC9162_SHA256 /
     {396: {-1: [ << [ tree size, position, [ hash, ... ] ] >> ]}},   / inclusion proof, the leaf's sibling first /
     null,                                                            / the root: whoever verifies computes it /
     signature ])
```

The signature covers the root alone, so another size of the same shape verifies too; a checkpoint signs its size.

The leaf is the 154 bytes of the entry; with `core.event.Leaf` the parts can be compared with it. A receipt is made only
of a proof that leads to a checkpoint this very key has signed, so it vouches for nothing new. A tree of one leaf has no
path, and RFC 9942 section 5.2 knows no empty one: ask again once there is a second entry.

Needs `hauberk[cose]`.
"""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import msgspec

from hauberk.core.event import Leaf
from hauberk.crypto.merkle import HASH_BYTES, inclusion_root, leaf_hash, verify_inclusion
from hauberk.crypto.signing import SigningKey, VerifyKey
from hauberk.errors import ConfigError, RecordsError
from hauberk.records.ledger import Ledger, Proof
from hauberk.records.mark import read_mark

MAX_BYTES = 16_384  # of a receipt: 64 hashes, and room for other people's headers
MAX_PATH = 64  # a tree of 64-bit size is no higher
EDDSA, ED25519 = -8, -19  # what we write, which everybody reads; and its newer name (RFC 9864)
_ALG, _KID, _CLAIMS, _VDS, _VDP = 1, 4, 15, 395, 396
_ISSUER, _SUBJECT = 1, 2
_RFC9162_SHA256, _INCLUSION = 1, -1
_SIGN1 = 18
_KEY_ID_BYTES = 8


class CoseReceipt(msgspec.Struct, frozen=True):
    """What a receipt proves.

    Args:
        log: who signed, as the receipt says; what counts is the key.
        subject: the event id, hex, as the receipt says.
        size: of the tree, as the receipt says.
        position: of the entry in it, as its leaf says too.
        root: of the tree.
    """

    log: str
    subject: str
    size: int
    position: int
    root: bytes


def key_id(key: VerifyKey) -> bytes:
    """Return what names a key in receipts: the first bytes of the SHA-256 of its 32."""
    return sha256(key.raw).digest()[:_KEY_ID_BYTES]


def write_receipt(proof: Proof, event: bytes, key: SigningKey) -> bytes:
    """Return the receipt of an entry.

    Args:
        proof: that it is in the log, as `Ledger.proof` returns it.
        event: its id.
        key: of the log.

    Raises:
        RecordsError: HBK-711 the checkpoint is not signed by this key; HBK-712 the proof does not lead to it, or the
            tree has one leaf only.
        ConfigError: HBK-907 the extra is not installed.
    """
    cose, cbor2 = _libraries()
    signed = read_mark(proof.checkpoint, key.public)
    verify_inclusion(leaf_hash(proof.leaf), proof.position, signed.size, proof.path, signed.root)
    if not proof.path:
        raise RecordsError("HBK-712", "a tree of one entry has no path: ask again later", size=signed.size)
    protected = {
        _ALG: EDDSA, _KID: key_id(key.public), _CLAIMS: {_ISSUER: signed.origin, _SUBJECT: event.hex()},
        _VDS: _RFC9162_SHA256,
    }  # fmt: skip
    inclusion = cbor2.dumps([signed.size, proof.position, list(proof.path)])
    tag = cose.COSE.new().encode_and_sign(
        signed.root, _signer(key), protected, {_VDP: {_INCLUSION: [inclusion]}}, out="cbor2/CBORTag"
    )
    head, unprotected, _root, signature = tag.value
    receipt: bytes = cbor2.dumps(cbor2.CBORTag(_SIGN1, [head, unprotected, None, signature]))
    return receipt


def cose_receipt(ledger: Ledger, position: int, key: SigningKey) -> dict[str, str]:
    """Return the receipt of an entry and the leaf it proves, as plain data: base64 and hex.

    Raises:
        RecordsError: HBK-712 there is no such entry, or it is the only one; HBK-707 it was pruned.
        ConfigError: HBK-907 the extra is not installed.
    """
    proof = ledger.proof(position)
    [entry] = ledger.entries(after=position - 1, before=position + 1, limit=1)
    receipt = write_receipt(proof, entry.id, key)
    return {"receipt": base64.b64encode(receipt).decode(), "leaf": proof.leaf.hex()}


def verify_receipt(receipt: bytes, leaf: bytes, key: VerifyKey) -> CoseReceipt:
    """Check that a leaf is in a tree whose root this key has signed.

    Args:
        receipt: as it came.
        leaf: the 154 bytes of the entry.
        key: of the log; never take it from the receipt.

    Raises:
        RecordsError: HBK-712 it does not prove that.
        ConfigError: HBK-907 the extra is not installed.
    """
    cose, cbor2 = _libraries()
    if len(receipt) > MAX_BYTES:
        raise _bad("too long")
    with _mapped(cose, cbor2):
        tag = cbor2.loads(receipt)
        head, unprotected = _parts(tag, cbor2.CBORTag)
        protected = cbor2.loads(head)
        size, position, path = _inclusion(unprotected, cbor2)
        _check_head(protected)
        if _at(leaf) != position:
            raise _bad("the leaf is of another position")
        root = inclusion_root(leaf_hash(leaf), position, size, path)
        cose.COSE.new().decode(receipt, [_verifier(cose, key, protected)], detached_payload=root)
        claims = protected.get(_CLAIMS, {})
        return CoseReceipt(str(claims.get(_ISSUER, "")), str(claims.get(_SUBJECT, "")), size, position, root)


def _at(leaf: bytes) -> int:
    return Leaf.decode(leaf).position


def _parts(tag: Any, kind: type) -> tuple[bytes, dict[Any, Any]]:  # noqa: ANN401  # whatever CBOR holds
    if not isinstance(tag, kind) or tag.tag != _SIGN1:  # type: ignore[attr-defined]  # a CBORTag
        raise _bad("not a COSE_Sign1")
    value: Any = tag.value  # type: ignore[attr-defined]  # a CBORTag
    if not isinstance(value, list) or len(value) != 4:  # noqa: PLR2004  # RFC 9052 section 4.2
        raise _bad("not a COSE_Sign1")
    head, unprotected, payload, _ = value
    if payload is not None:
        raise _bad("the root is not to be in it: whoever verifies computes it")
    if not isinstance(head, bytes) or not isinstance(unprotected, dict):
        raise _bad("not a COSE_Sign1")
    return head, unprotected


def _check_head(protected: object) -> None:
    """Both parameters have to be where the signature covers them."""
    if not isinstance(protected, dict) or protected.get(_VDS) != _RFC9162_SHA256:
        raise _bad("not a receipt of an RFC 9162 tree")
    if protected.get(_ALG) not in {EDDSA, ED25519} or not isinstance(protected.get(_CLAIMS, {}), dict):
        raise _bad("not signed with Ed25519")


def _inclusion(unprotected: dict[Any, Any], cbor2: Any) -> tuple[int, int, Sequence[bytes]]:  # noqa: ANN401  # a module
    proofs = unprotected.get(_VDP)
    found = proofs.get(_INCLUSION) if isinstance(proofs, dict) else None
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], bytes):
        raise _bad("one inclusion proof is needed")
    value = cbor2.loads(found[0])
    if not isinstance(value, list) or len(value) != 3:  # noqa: PLR2004  # RFC 9942 section 5.2
        raise _bad("not an inclusion proof")
    size, position, path = value
    if (
        type(size) is not int
        or type(position) is not int
        or not isinstance(path, list)
        or not 0 < len(path) <= MAX_PATH
    ):
        raise _bad("not an inclusion proof")
    if any(not isinstance(step, bytes) or len(step) != HASH_BYTES for step in path):
        raise _bad("not an inclusion proof")
    return size, position, path


def _signer(key: SigningKey) -> Any:  # noqa: ANN401  # of a library without types
    """Return the log's key as the library takes one; the secret bytes stay where they are."""
    from cwt.cose_key_interface import COSEKeyInterface  # noqa: PLC0415  # an extra

    class LogKey(COSEKeyInterface):
        def sign(self, msg: bytes) -> bytes:
            return key.sign(msg)

    return LogKey({1: 1, 2: key_id(key.public), 3: EDDSA, 4: [1, 2]})


def _verifier(cose: Any, key: VerifyKey, protected: dict[Any, Any]) -> Any:  # noqa: ANN401  # of a library without types
    named = {2: protected[_KID]} if isinstance(protected.get(_KID), bytes) else {}
    return cose.COSEKey.new({1: 1, 3: protected[_ALG], 4: [2], -1: 6, -2: key.raw, **named})


def _libraries() -> tuple[Any, Any]:
    try:
        import cbor2  # noqa: PLC0415  # an extra
        import cwt  # noqa: PLC0415  # an extra
    except ImportError:
        raise ConfigError("HBK-907", "install hauberk[cose]") from None
    return cwt, cbor2


@contextmanager
def _mapped(cose: Any, cbor2: Any) -> Iterator[None]:  # noqa: ANN401  # modules
    """Keep the library's exceptions inside."""
    try:
        yield
    except RecordsError as error:
        raise _bad(error.detail) from error
    except (cose.CWTError, cbor2.CBORError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise _bad("the signature or the form is wrong") from error


def _bad(why: str) -> RecordsError:
    return RecordsError("HBK-712", why)
