"""Our tree against pymerkle's, which shares no code with it: the same roots, the same paths, the same history."""

import random

import pytest
from pymerkle import InmemoryTree, verify_consistency, verify_inclusion

from hauberk.core.event import LEAF_BYTES
from hauberk.crypto import merkle
from hauberk.crypto.merkle import Frontier, Tree, leaf_hash
from hauberk.records._tiles import TileWriter
from hauberk.records.tile_paths import WIDTH, TiledTree, frontier_of

SIZE = 700  # three tiles, the last of them partial
LEAVES = [random.Random(at).randbytes(LEAF_BYTES) for at in range(SIZE)]  # noqa: S311  # made up, and the same each time
HASHES = [leaf_hash(leaf) for leaf in LEAVES]
SIZES = [1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 513, SIZE]


@pytest.fixture(scope="module")
def theirs() -> InmemoryTree:
    return InmemoryTree.init_from_entries(LEAVES, algorithm="sha256")


@pytest.fixture(scope="module")
def tiled() -> TiledTree:
    """Our tree as a reader of tiles has it."""
    writer, frontier = TileWriter(), Frontier()
    writer.extend(HASHES, frontier)
    tiles = {(tile.level, tile.index): tile.data for tile in writer.take()}
    assert len(tiles[0, 2]) == (SIZE - 2 * WIDTH) * 32
    return TiledTree(lambda level, index: tiles[level, index])


def test_roots_of_all_sizes_are_the_same(theirs: InmemoryTree, tiled: TiledTree) -> None:
    frontier, plain = Frontier(), Tree(lambda at: HASHES[at])
    for size in range(1, SIZE + 1):
        frontier.append(HASHES[size - 1])
        assert theirs.get_root(size) == frontier.root() == plain.root(size) == tiled.root(size)
        assert frontier_of(tiled, size).encode() == frontier.encode()


@pytest.mark.parametrize("size", SIZES)
def test_paths_of_all_leaves_are_the_same_and_each_side_takes_the_others(
    size: int, theirs: InmemoryTree, tiled: TiledTree
) -> None:
    root = tiled.root(size)
    for position in range(size):
        proof = theirs.prove_inclusion(position + 1, size)
        path = tiled.inclusion(position, size)
        assert proof.path == [HASHES[position], *path]
        merkle.verify_inclusion(HASHES[position], position, size, proof.path[1:], root)
        verify_inclusion(HASHES[position], root, proof)


@pytest.mark.parametrize("size", SIZES)
def test_all_histories_hold_on_both_sides(size: int, theirs: InmemoryTree, tiled: TiledTree) -> None:
    root = tiled.root(size)
    for old in range(1, size + 1, 1 if size < 300 else 7):
        merkle.verify_consistency(old, size, theirs.get_root(old), root, tiled.consistency(old, size))
        verify_consistency(tiled.root(old), root, theirs.prove_consistency(old, size))
