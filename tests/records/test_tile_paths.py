"""A log as files: names with one spelling, contents of one size, and a directory that proves what the store proves."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.adapters.memory import MemoryStore
from hauberk.core.ports import Append, Head, Write
from hauberk.crypto.merkle import HASH_BYTES, Frontier, Tree, leaf_hash, verify_consistency, verify_inclusion
from hauberk.crypto.note import Checkpoint, sign_checkpoint, verify_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError, Tampered
from hauberk.records._tiles import TileWriter, load_writer
from hauberk.records.tile_export import Exported, export_tiles, read_directory, read_store
from hauberk.records.tile_paths import (
    CHECKPOINT,
    ENTRIES,
    MAX_BUNDLE_BYTES,
    WIDTH,
    TileDirectory,
    TilePath,
    decode_bundle,
    encode_bundle,
    frontier_of,
    paths_of,
)
from tests.core.refusal import refuses
from tests.records.made import ORIGIN, entry

SIGNER = SigningKey(bytes(range(32)))


def grow(store: MemoryStore, size: int) -> None:
    """Append entries until the log has `size`, as the ledger would."""
    head = store.head(ORIGIN)
    frontier = Frontier.decode(head.size, head.frontier)
    writer: TileWriter = load_writer(store, ORIGIN, head.size)
    entries = [entry(at) for at in range(head.size, size)]
    writer.extend([leaf_hash(one.leaf) for one in entries], frontier)
    note = sign_checkpoint(Checkpoint(ORIGIN, size, frontier.root()), SIGNER).encode()
    store.commit(
        Write(Append(ORIGIN, head.size, entries, Head(size, frontier.encode(), note, head.epoch), writer.take()))
    )


def filled(size: int) -> MemoryStore:
    store = MemoryStore()
    grow(store, size)
    return store


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return filled(1000)


@pytest.mark.parametrize(
    ("path", "level", "index", "width"),
    [
        ("tile/0/000", 0, 0, 256),
        ("tile/0/000.p/1", 0, 0, 1),
        ("tile/0/x001/x234/067", 0, 1_234_067, 256),
        ("tile/63/999.p/255", 63, 999, 255),
        ("tile/1/x001/000", 1, 1000, 256),
        ("tile/entries/x001/x234/067.p/112", ENTRIES, 1_234_067, 112),
        ("tile/entries/273.p/112", ENTRIES, 273, 112),
    ],
)
def test_the_names_of_the_specification(path: str, level: int, index: int, width: int) -> None:
    assert TilePath.parse(path) == TilePath(level, index, width)
    assert TilePath(level, index, width).encode() == path


@settings(max_examples=200, deadline=None)
@given(st.integers(-1, 63), st.integers(0, 10**20), st.integers(1, 256))
def test_every_name_comes_back(level: int, index: int, width: int) -> None:
    path = TilePath(level, index, width)
    assert TilePath.parse(path.encode()) == path


@pytest.mark.parametrize(
    "path",
    [
        "/tile/0/000",
        "tile/0/000/",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/x/000",
        "tile/entries",
        "tile/8/0/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/1000",
        "tile/0/001/000",
        "tile/0/x000/000",
        "tile/0/x000",
        "tile/0/x001/x000",
        "tile/0/X001/000",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/1000",
        "tile/0/000.P/1",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/000\n",
        "tile/0/../../checkpoint",
        "tile/0/000%2e",
        "",
        CHECKPOINT,
    ],
)
def test_what_is_no_name_is_absent(path: str) -> None:
    with refuses("HBK-707"):
        TilePath.parse(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_name_is_absent_or_the_one_spelling_of_another(data: st.DataObject) -> None:
    path = TilePath(data.draw(st.integers(-1, 63)), data.draw(st.integers(0, 10**9)), data.draw(st.integers(1, 256)))
    text = path.encode()
    at = data.draw(st.integers(0, len(text)))
    changed = text[:at] + data.draw(st.text("0123x/.p-e \n", max_size=2)) + text[at + data.draw(st.integers(0, 2)) :]
    try:
        assert TilePath.parse(changed).encode() == changed
    except RecordsError as refused:
        assert refused.code == "HBK-707"  # noqa: PT017  # one of two outcomes


def test_the_tiles_of_70000_leaves_are_those_the_specification_counts() -> None:
    by_level: dict[int, list[TilePath]] = {}
    for path in paths_of(70_000):
        by_level.setdefault(path.level, []).append(path)
    shape = {level: [len(paths), paths[-1].width] for level, paths in by_level.items()}
    assert shape == {ENTRIES: [274, 112], 0: [274, 112], 1: [2, 17], 2: [1, 1]}
    assert [(path.level, path.width) for path in paths_of(256)] == [(ENTRIES, 256), (0, 256), (1, 1)]
    assert list(paths_of(0)) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200_000), st.integers(0, 3_000))
def test_what_is_new_is_what_was_not_there_or_not_complete(old: int, more: int) -> None:
    new = set(paths_of(old + more, old))
    assert new >= set(paths_of(old + more)) - set(paths_of(old))
    assert new - set(paths_of(old + more)) == set()
    if more > 3:
        assert len(new) < more // 64 + 12


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=20))
def test_every_bundle_comes_back_and_a_cut_one_does_not(leaves: list[bytes]) -> None:
    data = encode_bundle(leaves)
    assert decode_bundle(data) == leaves
    whole = {0}
    for leaf in leaves:
        whole.add(max(whole) + 2 + len(leaf))
    for at in range(min(len(data), 400)):
        if at not in whole:
            with refuses("HBK-712"):
                decode_bundle(data[:at])


def test_a_leaf_that_is_too_long_for_its_length_is_not_bundled() -> None:
    assert len(encode_bundle([bytes(65_535)] * 256)) == MAX_BUNDLE_BYTES
    with refuses("HBK-712"):
        encode_bundle([bytes(65_536)])


def test_an_export_proves_what_the_store_proves(store: MemoryStore, tmp_path: Path) -> None:
    assert export_tiles(store, ORIGIN, tmp_path).size == 1000
    assert (tmp_path / "tile/0/000").stat().st_size == WIDTH * HASH_BYTES
    assert (tmp_path / "tile/0/003.p/232").stat().st_size == 232 * HASH_BYTES
    assert (tmp_path / "tile/entries/003.p/232").stat().st_size == 232 * 156
    assert (tmp_path / "tile/1/000.p/3").stat().st_size == 3 * HASH_BYTES
    for fetch in (read_directory(tmp_path), read_store(store, ORIGIN)):
        log = TileDirectory(fetch)
        signed = verify_checkpoint(log.checkpoint(), ORIGIN, SIGNER.public)
        leaves = [one.leaf for one in store.entries(ORIGIN, limit=1000)]
        hashes = list(log.leaf_hashes(signed.size))
        assert list(log.leaves(signed.size)) == leaves
        assert hashes == [leaf_hash(leaf) for leaf in leaves]
        naive = Tree(lambda at, hashes=hashes: hashes[at])  # type: ignore[misc]  # the loop's own hashes
        tree = log.tree(signed.size)
        assert tree.root(1000) == naive.root(1000) == signed.root
        assert tree.inclusion(777, 1000) == naive.inclusion(777, 1000)
        verify_inclusion(hashes[777], 777, 1000, tree.inclusion(777, 1000), signed.root)
        verify_consistency(300, 1000, naive.root(300), signed.root, tree.consistency(300, 1000))
        for size in (0, 1, 255, 256, 257, 512, 999, 1000):
            frontier = frontier_of(tree, size)
            assert (frontier.size, frontier.root()) == (size, naive.root(size))
        for start in (0, 1, 255, 256, 700, 999, 1000):
            assert list(log.leaf_hashes(1000, start)) == hashes[start:]
            assert list(log.leaves(1000, start)) == leaves[start:]


def test_an_export_costs_what_was_added_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    store = filled(600)
    first = export_tiles(store, ORIGIN, tmp_path)
    assert first == Exported(600, 8, 0)  # three tiles and bundles, one tile above, the checkpoint
    assert export_tiles(store, ORIGIN, tmp_path).written == 1
    before = (tmp_path / "tile/0/000").stat()
    grow(store, 900)
    told: list[tuple[int, int]] = []
    assert export_tiles(store, ORIGIN, tmp_path, progress=lambda *step: told.append(step)).written == 6
    after = (tmp_path / "tile/0/000").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert told == [(768, 900), (900, 900)]
    log = TileDirectory(read_directory(tmp_path))
    assert log.tree(900).root(900) == verify_checkpoint(log.checkpoint(), ORIGIN, SIGNER.public).root
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_an_export_that_was_cut_off_is_mended_by_the_next(store: MemoryStore, tmp_path: Path) -> None:
    export_tiles(store, ORIGIN, tmp_path)
    (tmp_path / "tile/0/001").write_bytes(b"cut off")
    (tmp_path / "tile/entries/002").unlink()
    assert export_tiles(store, ORIGIN, tmp_path).written == 3
    log = TileDirectory(read_directory(tmp_path))
    assert log.tree(1000).inclusion(300, 1000)
    assert len(list(log.leaves(1000))) == 1000


def test_a_shorter_log_is_not_put_over_a_longer_one(tmp_path: Path) -> None:
    """The attack that succeeds without the check: a restored backup published over what readers have seen."""
    export_tiles(filled(300), ORIGIN, tmp_path)
    with pytest.raises(Tampered) as caught:
        export_tiles(filled(299), ORIGIN, tmp_path)
    assert (caught.value.code, caught.value.context["found"]) == ("HBK-713", 300)
    (tmp_path / CHECKPOINT).unlink()
    assert export_tiles(filled(299), ORIGIN, tmp_path).size == 299


def test_a_bundle_of_pruned_entries_is_left_out_and_an_older_export_keeps_it(tmp_path: Path) -> None:
    store = filled(600)
    export_tiles(store, ORIGIN, tmp_path / "before")
    assert store.prune(ORIGIN, range(300))
    for directory, missing in (("before", 0), ("after", 2)):
        assert export_tiles(store, ORIGIN, tmp_path / directory).pruned == missing
        log = TileDirectory(read_directory(tmp_path / directory))
        assert len(list(log.leaf_hashes(600))) == 600
        assert log.tree(600).inclusion(5, 600)
        if missing:
            with refuses("HBK-707"):
                list(log.leaves(600))
            assert len(list(log.leaves(600, 512))) == 88
        else:
            assert len(list(log.leaves(600))) == 600


def test_a_log_that_is_not_there_is_not_exported(tmp_path: Path) -> None:
    with refuses("HBK-707"):
        export_tiles(MemoryStore(), ORIGIN, tmp_path)
    (tmp_path / "file").write_text("")
    with refuses("HBK-703"):
        export_tiles(filled(1), ORIGIN, tmp_path / "file")


def test_a_directory_gives_nothing_but_paths_of_a_log(store: MemoryStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    export_tiles(store, ORIGIN, tmp_path / "log")
    for fetch in (read_directory(tmp_path / "log"), read_store(store, ORIGIN)):
        assert fetch(CHECKPOINT)
        for path in ("../secret", "tile/0/../../../secret", str(tmp_path / "secret"), "tile", "", "tile/0/004"):
            with refuses("HBK-707"):
                fetch(path)
    (tmp_path / "log" / CHECKPOINT).unlink()
    (tmp_path / "log" / CHECKPOINT).mkdir()
    with refuses("HBK-706"):
        read_directory(tmp_path / "log")(CHECKPOINT)


def served(files: Mapping[str, bytes]) -> TileDirectory:
    def fetch(path: str) -> bytes:
        if path not in files:
            raise RecordsError("HBK-707")
        return files[path]

    return TileDirectory(fetch)


def test_a_complete_tile_takes_the_place_of_a_partial_one_that_is_gone(store: MemoryStore) -> None:
    tile = store.tile(ORIGIN, 0, 0)
    leaves = [one.leaf for one in store.entries(ORIGIN, limit=256)]
    log = served({"tile/0/000": tile, "tile/entries/000": encode_bundle(leaves)})
    assert log.tile(0, 0, 100) == tile[: 100 * HASH_BYTES]
    assert log.bundle(0, 100) == leaves[:100]
    for level in (1, 63):
        with refuses("HBK-707"):
            log.tile(level, 0, 100)
    with refuses("HBK-707"):
        log.tile(0, 1, 256)
    with refuses("HBK-707"):
        log.bundle(1, 300)


def test_only_what_is_absent_is_looked_for_elsewhere() -> None:
    asked = []

    def fetch(path: str) -> bytes:
        asked.append(path)
        raise RecordsError("HBK-706")

    with refuses("HBK-706"):
        TileDirectory(fetch).tile(0, 0, 100)
    assert asked == ["tile/0/000.p/100"]


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(32), bytes(95), bytes(97), bytes(8192)])
def test_a_tile_of_another_size_than_its_name_says_is_refused(data: bytes) -> None:
    with refuses("HBK-712"):
        served({"tile/0/000.p/3": data}).tile(0, 0, 3)
    with refuses("HBK-712"):
        served({"tile/0/000": bytes(8191)}).tile(0, 0, 3)


@pytest.mark.parametrize("leaves", [[], [b"a"] * 2, [b"a"] * 4, [b"a"] * 256])
def test_a_bundle_of_another_size_than_its_name_says_is_refused(leaves: list[bytes]) -> None:
    with refuses("HBK-712"):
        served({"tile/entries/000.p/3": encode_bundle(leaves)}).bundle(0, 3)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_a_checkpoint_or_bundle_of_any_bytes_is_a_typed_refusal_or_text(data: bytes) -> None:
    log = served({CHECKPOINT: data, "tile/entries/000.p/3": data, "tile/0/000.p/3": data})
    try:
        assert log.checkpoint().encode() == data
    except RecordsError as refused:
        assert refused.code == "HBK-711"  # noqa: PT017  # one of two outcomes
    try:
        assert encode_bundle(log.bundle(0, 3)) == data
    except RecordsError as refused:
        assert refused.code == "HBK-712"  # noqa: PT017  # one of two outcomes
    if len(data) != 96:
        with refuses("HBK-712"):
            log.tile(0, 0, 3)


def test_an_endless_checkpoint_is_refused() -> None:
    with refuses("HBK-711"):
        served({CHECKPOINT: b"x" * 600_000}).checkpoint()


def test_a_store_whose_tile_was_cut_is_not_exported(tmp_path: Path) -> None:
    store = filled(300)
    store._tiles[ORIGIN, 0, 0] = store._tiles[ORIGIN, 0, 0][:-1]
    with pytest.raises(Tampered):
        export_tiles(store, ORIGIN, tmp_path)
    with refuses("HBK-707"):
        read_store(store, ORIGIN)("tile/0/000")
