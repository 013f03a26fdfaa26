"""The Merkle tree of RFC 6962 section 2.1: hashes, frontier, inclusion and consistency proofs.

Leaf hash `SHA-256(0x00 || leaf)`, node hash `SHA-256(0x01 || left || right)`; the two prefixes stop a node from passing
as a leaf. A `Frontier` holds the roots of the complete subtrees of a growing tree and nothing else. Proof verification
follows RFC 9162 sections 2.1.3.2 and 2.1.4.2 and raises; it never returns a truth value.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest

from hauberk.errors import RecordsError

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: one root per set bit of its size, largest subtree first.

    Args:
        size: number of leaves so far.
        roots: their subtree roots.

    Raises:
        RecordsError: HBK-711 when the number of roots does not fit the size.
    """

    __slots__ = ("_roots", "size")

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        if size < 0 or len(roots) != size.bit_count() or any(len(root) != HASH_BYTES for root in roots):
            raise RecordsError("HBK-711", "the frontier does not fit the tree size", size=size)
        self.size = size
        self._roots = list(roots)

    @classmethod
    def decode(cls, size: int, data: bytes) -> "Frontier":
        """Parse the concatenated roots.

        Raises:
            RecordsError: HBK-711.
        """
        return cls(size, [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)])

    def encode(self) -> bytes:
        """Return the roots, concatenated."""
        return b"".join(self._roots)

    def copy(self) -> "Frontier":
        """Return an independent copy."""
        return Frontier(self.size, self._roots)

    def append(self, hashed: bytes) -> None:
        """Add one leaf by its hash."""
        self.extend((hashed,))

    def extend(self, hashes: Iterable[bytes]) -> None:
        """Add many leaves by their hashes."""
        roots, size = self._roots, self.size
        for leaf in hashes:
            hashed, rest = leaf, size
            while rest & 1:
                hashed = sha256(b"\x01" + roots.pop() + hashed).digest()
                rest >>= 1
            roots.append(hashed)
            size += 1
        self.size = size

    def append_noting(self, hashed: bytes, height: int) -> list[bytes]:
        """Add one leaf and return the roots of the subtrees it completes at multiples of `height`, lowest first."""
        roots, rest, level = self._roots, self.size, 0
        found = []
        while rest & 1:
            hashed = sha256(b"\x01" + roots.pop() + hashed).digest()
            rest >>= 1
            level += 1
            if level % height == 0:
                found.append(hashed)
        roots.append(hashed)
        self.size += 1
        return found

    def root(self) -> bytes:
        """Return the root of the tree."""
        if not self._roots:
            return EMPTY_ROOT
        root = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            root = node_hash(left, root)
        return root


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1


class Tree:
    """A tree whose leaf hashes are read on demand; subtree roots are remembered.

    Args:
        leaf_at: returns the leaf hash of a position.
    """

    def __init__(self, leaf_at: Callable[[int], bytes]) -> None:
        self._leaf_at = leaf_at
        self._complete: dict[tuple[int, int], bytes] = {}

    def subtree(self, start: int, end: int) -> bytes:
        """Return MTH of the leaves in [start, end)."""
        if end - start == 1:
            return self._leaf_at(start)
        known = self._complete.get((start, end))
        if known is not None:
            return known
        middle = start + _split(end - start)
        found = node_hash(self.subtree(start, middle), self.subtree(middle, end))
        if (end - start).bit_count() == 1:
            self._complete[start, end] = found
        return found

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` leaves."""
        return self.subtree(0, size) if size else EMPTY_ROOT

    def inclusion(self, position: int, size: int) -> list[bytes]:
        """Return the audit path of a position in the tree of `size` leaves (RFC 6962 section 2.1.1).

        Raises:
            RecordsError: HBK-712 when the position is not in the tree.
        """
        if not 0 <= position < size:
            raise RecordsError("HBK-712", "the position is not in the tree", position=position, size=size)
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if position < middle:
                path.append(self.subtree(middle, end))
                end = middle
            else:
                path.append(self.subtree(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the tree of `old` leaves is a prefix of that of `new` (RFC 6962 section 2.1.2).

        Raises:
            RecordsError: HBK-712 when the sizes make no proof.
        """
        if not 0 < old <= new:
            raise RecordsError("HBK-712", "no proof between these sizes", old=old, new=new)
        return self._subproof(old, 0, new, complete=True)

    def _subproof(self, old: int, start: int, end: int, *, complete: bool) -> list[bytes]:
        size = end - start
        if old == size:
            return [] if complete else [self.subtree(start, end)]
        half = _split(size)
        if old <= half:
            return [*self._subproof(old, start, start + half, complete=complete), self.subtree(start + half, end)]
        rest = self._subproof(old - half, start + half, end, complete=False)
        return [*rest, self.subtree(start, start + half)]


def _require(holds: bool, why: str) -> None:  # noqa: FBT001  # a condition is what this takes
    if not holds:
        raise RecordsError("HBK-712", why)


def verify_inclusion(hashed: bytes, position: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with this hash is at `position` of the tree of `size` leaves with this root.

    Raises:
        RecordsError: HBK-712. Source: RFC 9162 section 2.1.3.2.
    """
    _require(len(root) == HASH_BYTES, "a leaf hash or root has the wrong length")
    _require(compare_digest(inclusion_root(hashed, position, size, path), root), "the proof does not lead to the root")


def inclusion_root(hashed: bytes, position: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root of the tree of `size` leaves in which the leaf with this hash is at `position`, by its path.

    Raises:
        RecordsError: HBK-712 the path is none of such a leaf. Source: RFC 9162 section 2.1.3.2.
    """
    _require(0 <= position < size, "the position is not in the tree")
    _require(len(hashed) == HASH_BYTES, "a leaf hash or root has the wrong length")
    at, last, value = position, size - 1, hashed
    for sibling in path:
        _require(last != 0, "the proof is too long")
        _require(len(sibling) == HASH_BYTES, "a proof hash has the wrong length")
        if at & 1 or at == last:
            value = node_hash(sibling, value)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        at, last = at >> 1, last >> 1
    _require(last == 0, "the proof is too short")
    return value


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the first `old` leaves of the new tree are the old tree.

    Raises:
        RecordsError: HBK-712. Source: RFC 9162 section 2.1.4.2.
    """
    _require(0 < old <= new, "no proof between these sizes")
    _require(all(len(part) == HASH_BYTES for part in proof), "a proof hash has the wrong length")
    if old == new:
        _require(not proof and compare_digest(old_root, new_root), "equal sizes need equal roots and no proof")
        return
    path = list(proof) if old.bit_count() != 1 else [old_root, *proof]
    _require(bool(path), "the proof is empty")
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for part in path[1:]:
        _require(last != 0, "the proof is too long")
        if at & 1 or at == last:
            first, second = node_hash(part, first), node_hash(part, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, part)
        at, last = at >> 1, last >> 1
    _require(last == 0, "the proof is too short")
    _require(compare_digest(first, old_root), "the proof does not lead to the old root")
    _require(compare_digest(second, new_root), "the proof does not lead to the new root")
