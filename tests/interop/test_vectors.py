"""Vectors of transparency-dev: every Merkle proof of `merkle`, the signed log of `tessera`, read as our readers do."""

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hauberk.crypto.merkle import EMPTY_ROOT, Frontier, leaf_hash, verify_consistency, verify_inclusion
from hauberk.crypto.note import LogKey
from hauberk.crypto.subtree import verify_in_subtree, verify_subtree
from hauberk.errors import RecordsError
from hauberk.records.log_policy import LogPolicy, TrustedLog, verify_checkpoint_under
from hauberk.records.tile_export import read_directory
from hauberk.records.tile_paths import CHECKPOINT, Fetch, TileDirectory, frontier_of
from tests.core.refusal import refuses
from tests.support.vectors import vectors

TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
COUNTS = {"inclusion": 98, "consistency": 98, "subtreeinclusion": 204, "subtreeconsistency": 118}
Case = Mapping[str, object]


def data(case: Case, name: str) -> bytes:
    return base64.b64decode(str(case.get(name) or ""))


def number(case: Case, name: str) -> int:
    found = case.get(name, 0)
    assert isinstance(found, int)
    return found


def proof(case: Case) -> list[bytes]:
    found = case.get("proof") or []
    assert isinstance(found, list)
    return [base64.b64decode(part) for part in found]


def inclusion(case: Case) -> None:
    place = number(case, "leafIdx"), number(case, "treeSize")
    verify_inclusion(data(case, "leafHash"), *place, proof(case), data(case, "root"))


def consistency(case: Case) -> None:
    sizes = number(case, "size1"), number(case, "size2")
    verify_consistency(*sizes, data(case, "root1"), data(case, "root2"), proof(case))


def subtree_inclusion(case: Case) -> None:
    leaves = range(number(case, "start"), number(case, "end"))
    verify_in_subtree(data(case, "leafHash"), number(case, "leafIdx"), leaves, proof(case), data(case, "root"))


def subtree_consistency(case: Case) -> None:
    leaves = range(number(case, "start"), number(case, "end"))
    verify_subtree(leaves, number(case, "size"), data(case, "root1"), data(case, "root2"), proof(case))


VERIFIERS: Mapping[str, Callable[[Case], None]] = {
    "inclusion": inclusion,
    "consistency": consistency,
    "subtreeinclusion": subtree_inclusion,
    "subtreeconsistency": subtree_consistency,
}


@pytest.mark.parametrize("kind", COUNTS)
def test_every_proof_is_classified_as_its_author_says(kind: str) -> None:
    files = sorted(vectors("merkle", "testdata", kind).rglob("*.json"))
    outcomes: Counter[bool] = Counter()
    wrong = []
    for path in files:
        case = json.loads(path.read_text("utf-8"))
        try:
            VERIFIERS[kind](case)
            refused = False
        except RecordsError as error:
            assert error.code == "HBK-712"  # noqa: PT017  # one of two outcomes
            refused = True
        outcomes[refused] += 1
        if refused is not bool(case["wantErr"]):
            wrong.append(case["desc"])
    assert wrong == []
    assert sum(outcomes.values()) == COUNTS[kind]
    assert outcomes[True] > 0 < outcomes[False]


def at_size(log: Path, size: int) -> Fetch:
    """Fetch as if the log had this size: its checkpoints are files side by side."""
    files = read_directory(log)

    def fetch(path: str) -> bytes:
        return (log / f"{CHECKPOINT}.{size}").read_bytes() if path == CHECKPOINT else files(path)

    return fetch


def test_a_real_log_is_verified_at_each_of_its_sizes_from_its_files() -> None:
    log = vectors("tessera", "testdata", "log")
    policy = LogPolicy([TrustedLog(LogKey.parse(TESSERA_KEY))])
    sizes = 0
    for size in range(16):
        directory = TileDirectory(at_size(log, size))
        checkpoint = verify_checkpoint_under(directory.checkpoint(), policy)
        hashes = list(directory.leaf_hashes(size))
        assert [leaf_hash(leaf) for leaf in directory.leaves(size)] == hashes
        frontier = Frontier()
        frontier.extend(hashes)
        assert (checkpoint.size, checkpoint.root) == (size, frontier.root()) == (len(hashes), checkpoint.root)
        tree = directory.tree(size)
        assert frontier_of(tree, size).root() == checkpoint.root
        for position in range(size):
            verify_inclusion(hashes[position], position, size, tree.inclusion(position, size), checkpoint.root)
        sizes += 1
    latest = verify_checkpoint_under(TileDirectory(read_directory(log)).checkpoint(), policy)
    assert (sizes, latest.size, latest.root == EMPTY_ROOT) == (16, 15, False)


def test_the_sizes_of_a_real_log_are_one_history() -> None:
    log = vectors("tessera", "testdata", "log")
    policy = LogPolicy([TrustedLog(LogKey.parse(TESSERA_KEY))])
    now = TileDirectory(at_size(log, 15))
    root = verify_checkpoint_under(now.checkpoint(), policy).root
    for size in range(1, 16):
        old = verify_checkpoint_under(TileDirectory(at_size(log, size)).checkpoint(), policy)
        verify_consistency(size, 15, old.root, root, now.tree(15).consistency(size, 15))
        with refuses("HBK-712"):
            verify_consistency(size, 15, bytes(32), root, now.tree(15).consistency(size, 15))
