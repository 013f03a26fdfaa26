"""The tree against a literal RFC 6962, and against the vectors of transparency-dev/merkle."""

import base64
import json
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.crypto.merkle import Frontier, Tree, leaf_hash, verify_consistency, verify_inclusion
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
@given(leaves_of, st.data())
def test_no_proof_holds_for_another_leaf_position_or_root(leaves: list[bytes], data: st.DataObject) -> None:
    hashes, size = [leaf_hash(leaf) for leaf in leaves], len(leaves)
    tree, root = Tree(lambda at: hashes[at]), naive_root(leaves)
    position = data.draw(st.integers(0, size - 1))
    path = tree.inclusion(position, size)
    for wrong in (
        lambda: verify_inclusion(leaf_hash(b"other!"), position, size, path, root),
        lambda: verify_inclusion(hashes[position], position, size, [*path, bytes(32)], root),
        lambda: verify_inclusion(hashes[position], position, size, path, bytes(32)),
        lambda: verify_inclusion(hashes[position], size, size, path, root),
        lambda: verify_inclusion(hashes[position], -1, size, path, root),
    ):
        with pytest.raises(RecordsError):
            wrong()


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
