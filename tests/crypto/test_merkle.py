"""The tree against a literal RFC 6962, and against the vectors of transparency-dev/merkle."""

import base64
import json
from collections.abc import Callable
from functools import partial
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.crypto.merkle import Frontier, Tree, leaf_hash, node_hash, verify_consistency, verify_inclusion
from hauberk.errors import RecordsError
from tests.support.vectors import vectors


def naive_root(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def refused(attempt: Callable[[], object]) -> None:
    with pytest.raises(RecordsError) as caught:
        attempt()
    assert caught.value.code == "HBK-712"


leaves_of = st.lists(st.binary(max_size=4), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(leaves_of, st.data())
def test_root_and_proofs_agree_with_the_definition(leaves: list[bytes], data: st.DataObject) -> None:
    hashes = [leaf_hash(leaf) for leaf in leaves]
    frontier, size = Frontier(), len(leaves)
    frontier.extend(hashes)
    tree = Tree(lambda at: hashes[at])
    assert frontier.root() == tree.root(size) == naive_root(leaves)
    assert Frontier.decode(size, frontier.encode()).root() == frontier.root()
    position = data.draw(st.integers(0, size - 1))
    path = tree.inclusion(position, size)
    verify_inclusion(hashes[position], position, size, path, frontier.root())
    old = data.draw(st.integers(1, size))
    verify_consistency(old, size, naive_root(leaves[:old]), frontier.root(), tree.consistency(old, size))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40, unique=True), st.data())
def test_no_proof_holds_for_another_leaf_position_or_root(leaves: list[bytes], data: st.DataObject) -> None:
    hashes, size = [leaf_hash(leaf) for leaf in leaves], len(leaves)
    tree, root = Tree(lambda at: hashes[at]), naive_root(leaves)
    position = data.draw(st.integers(0, size - 1))
    path = tree.inclusion(position, size)
    leaf, verify = hashes[position], verify_inclusion
    attempts: list[Callable[[], None]] = [
        partial(verify, leaf_hash(b"other!"), position, size, path, root),
        partial(verify, leaf, position, size, [*path, bytes(32)], root),
        partial(verify, leaf, position, size, path, bytes(32)),
        partial(verify, leaf, size, size, path, root),
        partial(verify, leaf, -1, size, path, root),
        *(partial(verify, leaf, other, size, path, root) for other in range(size) if other != position),
        *(partial(verify, leaf, position, size, path[:at] + path[at + 1 :], root) for at in range(len(path))),
    ]
    for attempt in attempts:
        refused(attempt)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=5, max_size=6), min_size=2, max_size=24, unique=True), st.data())
def test_no_history_that_was_rewritten_is_consistent(leaves: list[bytes], data: st.DataObject) -> None:
    size = len(leaves)
    old, changed = data.draw(st.integers(1, size - 1)), data.draw(st.integers(0, size - 1))
    edited = [*leaves]
    edited[changed] = b"edit"
    hashes = [leaf_hash(leaf) for leaf in edited]
    proof = Tree(lambda at: hashes[at]).consistency(old, size)
    told, now = naive_root(leaves[:old]), naive_root(edited)
    if changed < old:
        refused(partial(verify_consistency, old, size, told, now, proof))
    else:
        verify_consistency(old, size, told, now, proof)
        refused(partial(verify_consistency, old, size, told, naive_root(leaves), proof))
    refused(partial(verify_consistency, old, size, told, now, [*proof, bytes(32)]))
    refused(partial(verify_consistency, size, old, now, told, proof))
    refused(partial(verify_consistency, 0, size, told, now, proof))


def test_an_inner_node_does_not_pass_as_a_leaf() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    root = node_hash(left, right)
    refused(partial(verify_inclusion, leaf_hash(left + right), 0, 1, [], root))
    assert sha256(left + right).digest() != root != leaf_hash(left + right)


def test_a_hash_of_another_length_is_refused_even_where_it_fits_itself() -> None:
    for short in (b"", b"x" * 31, b"x" * 33):
        refused(partial(verify_inclusion, short, 0, 1, [], short))
        refused(partial(verify_inclusion, leaf_hash(b""), 0, 2, [short], node_hash(leaf_hash(b""), short)))


def test_proofs_that_make_no_sense_are_not_made() -> None:
    tree = Tree(lambda _: bytes(32))
    for position, size in ((0, 0), (1, 1), (-1, 3)):
        refused(partial(tree.inclusion, position, size))
    for old, new in ((0, 3), (4, 3), (-1, 2)):
        refused(partial(tree.consistency, old, new))


@pytest.mark.parametrize(
    ("size", "roots"), [(1, []), (0, [bytes(32)]), (3, [bytes(32)]), (2, [bytes(31)]), (-1, []), (3, [bytes(33)] * 2)]
)
def test_a_frontier_that_does_not_fit_its_size_is_refused(size: int, roots: list[bytes]) -> None:
    with pytest.raises(RecordsError) as caught:
        Frontier(size, roots)
    assert caught.value.code == "HBK-711"
    with pytest.raises(RecordsError):
        Frontier.decode(1, bytes(32) + b"x")


def test_a_copy_of_a_frontier_grows_alone() -> None:
    first = Frontier()
    first.append(leaf_hash(b"a"))
    second, before = first.copy(), first.root()
    second.append(leaf_hash(b"b"))
    assert first.root() == before
    assert second.root() == naive_root([b"a", b"b"])
    assert Frontier().root() == naive_root([])


def test_noting_gives_the_roots_of_completed_subtrees() -> None:
    hashes = [leaf_hash(bytes([at % 256])) for at in range(512)]
    frontier = Frontier()
    noted = [root for hashed in hashes for root in frontier.append_noting(hashed, 8)]
    tree = Tree(lambda at: hashes[at])
    assert noted == [tree.subtree(0, 256), tree.subtree(256, 512)]


def _decoded(text: str | None) -> bytes:
    return base64.b64decode(text or "")


@pytest.mark.parametrize("kind", ["inclusion", "consistency"])
def test_the_published_vectors_are_all_classified_right(kind: str) -> None:
    files = sorted(vectors("merkle", "testdata", kind).rglob("*.json"))
    assert len(files) > 50
    wrong = []
    for path in files:
        case = json.loads(path.read_text("utf-8"))
        proof = [_decoded(step) for step in case.get("proof") or []]
        try:
            if kind == "inclusion":
                arguments = (
                    _decoded(case["leafHash"]),
                    case["leafIdx"],
                    case["treeSize"],
                    proof,
                    _decoded(case["root"]),
                )
                verify_inclusion(*arguments)
            else:
                roots = _decoded(case["root1"]), _decoded(case["root2"])
                verify_consistency(case["size1"], case["size2"], *roots, proof)
            refused = False
        except RecordsError:
            refused = True
        if refused is not bool(case["wantErr"]):
            wrong.append(path.name)
    assert wrong == []
