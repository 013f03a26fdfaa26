"""Proofs about subtrees (draft-ietf-plants-merkle-tree-certs section 4), to which ML-DSA-44 cosignatures extend.

A subtree is a range of leaves whose first is a multiple of the smallest power of two that is not below their number;
its hash is MTH of them. A tree of any size is the subtree that starts at 0, and for it both verifiers here say what
those of `crypto.merkle` say.
"""

from collections.abc import Sequence
from hmac import compare_digest

from hauberk.crypto.merkle import EMPTY_ROOT, HASH_BYTES, node_hash, verify_inclusion
from hauberk.errors import RecordsError


def _require(holds: bool, why: str) -> None:  # noqa: FBT001  # a condition is what this takes
    if not holds:
        raise RecordsError("HBK-712", why)


def require_subtree(leaves: range) -> None:
    """Check that these leaves are a subtree.

    Raises:
        RecordsError: HBK-712. Source: section 4.1.
    """
    width = 1 << max(leaves.stop - leaves.start - 1, 0).bit_length()  # `len` ends at 2**63
    fits = leaves.step == 1 and 0 <= leaves.start < leaves.stop and leaves.start % width == 0
    _require(fits, "not a subtree")


def verify_in_subtree(hashed: bytes, position: int, leaves: range, path: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with this hash is at `position` of the tree, in the subtree with this hash.

    Raises:
        RecordsError: HBK-712. Source: section 4.3.
    """
    require_subtree(leaves)
    verify_inclusion(hashed, position - leaves.start, leaves.stop - leaves.start, path, root)


def verify_subtree(leaves: range, size: int, hashed: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the subtree with this hash is part of the tree of `size` leaves.

    The empty subtree is part of every tree, so a proof of it says nothing about the tree.

    Args:
        leaves: of the subtree.
        size: of the tree.
        hashed: hash of the subtree.
        root: hash of the tree.
        proof: consistency proof of the two.

    Raises:
        RecordsError: HBK-712. Source: section 4.4.3.
    """
    _require(leaves.stop <= size, "the subtree is not in the tree")
    if 0 <= leaves.start == leaves.stop:
        _require(not proof and compare_digest(hashed, EMPTY_ROOT), "an empty subtree has its own hash, and no proof")
        return
    require_subtree(leaves)
    _require(all(len(part) == HASH_BYTES for part in proof), "a proof hash has the wrong length")
    first, at, last = leaves.start, leaves.stop - 1, size - 1
    while first != at and (at == last or at & 1):
        first, at, last = first >> 1, at >> 1, last >> 1
    path = [hashed, *proof] if first == at else list(proof)
    _require(bool(path), "the proof is empty")
    inner = outer = path[0]
    for part in path[1:]:
        _require(last != 0, "the proof is too long")
        if at & 1 or at == last:
            inner = node_hash(part, inner) if first < at else inner
            outer = node_hash(part, outer)
            while at and not at & 1:
                first, at, last = first >> 1, at >> 1, last >> 1
        else:
            outer = node_hash(outer, part)
        first, at, last = first >> 1, at >> 1, last >> 1
    _require(last == 0, "the proof is too short")
    _require(compare_digest(inner, hashed), "the proof does not lead to the subtree")
    _require(compare_digest(outer, root), "the proof does not lead to the root")
