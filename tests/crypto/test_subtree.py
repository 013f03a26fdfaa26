"""Proofs about subtrees: every one of a small tree holds, none holds for anything else."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.crypto.merkle import EMPTY_ROOT, Tree, leaf_hash, verify_consistency
from hauberk.crypto.subtree import require_subtree, verify_in_subtree, verify_subtree
from hauberk.errors import RecordsError
from tests.core.refusal import refuses

HASHES = [leaf_hash(bytes((at,))) for at in range(40)]
TREE = Tree(lambda at: HASHES[at])


def is_subtree(start: int, end: int) -> bool:
    try:
        require_subtree(range(start, end))
    except RecordsError:
        return False
    return True


SUBTREES = [(start, end) for start in range(20) for end in range(start + 1, 20) if is_subtree(start, end)]


def proof(start: int, end: int, size: int) -> list[bytes]:
    """The subtree consistency proof, by its definition (section 4.4.1)."""

    def within(start: int, end: int, first: int, last: int, *, known: bool) -> list[bytes]:
        if (start, end) == (first, last):
            return [] if known else [TREE.subtree(first, last)]
        middle = first + (1 << (last - first - 1).bit_length() - 1)
        if end <= middle:
            return [*within(start, end, first, middle, known=known), TREE.subtree(middle, last)]
        if start >= middle:
            return [*within(start, end, middle, last, known=known), TREE.subtree(first, middle)]
        return [*within(middle, end, middle, last, known=False), TREE.subtree(first, middle)]

    return within(start, end, 0, size, known=True)


def test_a_subtree_starts_at_a_multiple_of_its_width() -> None:
    assert {(0, 1), (0, 13), (4, 8), (8, 13), (13, 14), (16, 19)} <= set(SUBTREES)
    for start, end in ((1, 3), (2, 5), (4, 9), (3, 3), (5, 4), (-2, 0)):
        with refuses("HBK-712"):
            require_subtree(range(start, end))


def test_every_leaf_of_every_subtree_is_in_it_and_in_no_other_place() -> None:
    for start, end in SUBTREES:
        root = TREE.subtree(start, end)
        inner = Tree(lambda at, start=start: HASHES[start + at])  # type: ignore[misc]  # the loop's own start
        for position in range(start, end):
            path = inner.inclusion(position - start, end - start)
            verify_in_subtree(HASHES[position], position, range(start, end), path, root)
            for other in {position - 1, position + 1, start - 1, end}:
                with refuses("HBK-712"):
                    verify_in_subtree(HASHES[position], other, range(start, end), path, root)


def test_every_subtree_is_part_of_every_tree_around_it() -> None:
    for start, end in SUBTREES:
        for size in range(end, 24):
            found = proof(start, end, size)
            verify_subtree(range(start, end), size, TREE.subtree(start, end), TREE.root(size), found)
            if start == 0:
                assert found == TREE.consistency(end, size)
                verify_consistency(end, size, TREE.root(end), TREE.root(size), found)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_other_subtree_tree_or_proof_passes(data: st.DataObject) -> None:
    start, end = data.draw(st.sampled_from(SUBTREES))
    size = data.draw(st.integers(end, 24))
    hashed, root, path = TREE.subtree(start, end), TREE.root(size), proof(start, end, size)
    forged: Sequence[tuple[bytes, bytes, list[bytes]]] = [
        (bytes(32), root, path),
        (hashed, bytes(32), path),
        (hashed, root, [*path, bytes(32)]),
        *((hashed, root, path[:at] + path[at + 1 :]) for at in range(len(path))),
        *((hashed, root, [*path[:at], bytes(32), *path[at + 1 :]]) for at in range(len(path))),
        *((hashed, root, [*path[:at], path[at][:31], *path[at + 1 :]]) for at in range(len(path))),
    ]
    for one, other, changed in forged:
        with refuses("HBK-712"):
            verify_subtree(range(start, end), size, one, other, changed)
    other_start, other_end = data.draw(st.sampled_from(SUBTREES))
    if (other_start, other_end) != (start, end):
        with refuses("HBK-712"):
            verify_subtree(range(other_start, other_end), size, hashed, root, path)


def test_the_empty_subtree_says_nothing_and_a_subtree_beyond_the_tree_is_refused() -> None:
    nothing = range(3, 3)
    verify_subtree(nothing, 5, EMPTY_ROOT, bytes(32), [])
    for size, hashed, proof in ((2, EMPTY_ROOT, []), (5, bytes(32), []), (5, EMPTY_ROOT, [bytes(32)])):
        with refuses("HBK-712"):
            verify_subtree(nothing, size, hashed, bytes(32), proof)
    for leaves in (range(4), range(-1, -1), range(0, 4, 2)):
        with refuses("HBK-712"):
            verify_subtree(leaves, 3, TREE.root(3), TREE.root(3), [])
