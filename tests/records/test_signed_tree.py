"""The signed tree: every entry of it is found there, and nothing else is, whatever was done to the database."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.adapters.memory import MemoryStore
from hauberk.core.event import Entry
from hauberk.core.ports import Head
from hauberk.crypto.merkle import Frontier, leaf_hash
from hauberk.crypto.note import Checkpoint, sign_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError, Tampered
from hauberk.records.heads import origin_of
from hauberk.records.ledger import Ledger
from hauberk.records.signed_tree import SignedTree
from hauberk.records.tile_paths import WIDTH
from tests.records.made import ORIGIN, PATIENCE, entry, events

KEY = SigningKey(bytes(range(32)))
LARGE = WIDTH * WIDTH + 2 * WIDTH + 3  # a full tile of level 1, and unfinished ones of levels 0, 1 and 2


class Counting(MemoryStore):
    """A store that counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = self.tiles = 0

    def head(self, log: str) -> Head:
        self.heads += 1
        return super().head(log)

    def tile(self, log: str, level: int, index: int) -> bytes:
        self.tiles += 1
        return super().tile(log, level, index)


def grown(store: MemoryStore, *sizes: int) -> list[Entry]:
    with closing(Ledger(store, KEY, ORIGIN)) as ledger:
        for size in sizes:
            ledger.append_batch(events(size)).result(PATIENCE)
    return [one for one in store._logs[ORIGIN] if one is not None]


def tree(store: MemoryStore, tiles: int = 1024) -> SignedTree:
    return SignedTree(store, ORIGIN, KEY.public, tiles)


def refused(checked: SignedTree, one: Entry) -> str:
    with pytest.raises(Tampered) as caught:
        checked.check(one)
    assert caught.value.code == "HBK-710"
    return str(caught.value.context["kind"])


@pytest.fixture(scope="module")
def large() -> MemoryStore:
    store = MemoryStore()
    grown(store, *[5_000] * (LARGE // 5_000), LARGE % 5_000)
    return store


def copy(store: MemoryStore) -> MemoryStore:
    made = MemoryStore()
    made._heads, made._tiles = dict(store._heads), dict(store._tiles)
    made._logs = {log: list(entries) for log, entries in store._logs.items()}
    return made


EDGES = [0, 1, 255, 256, 511, WIDTH * WIDTH - 1, WIDTH * WIDTH, LARGE - 4, LARGE - 3, LARGE - 1]


@pytest.mark.parametrize("at", EDGES)
def test_an_entry_is_found_and_another_in_its_place_is_not(large: MemoryStore, at: int) -> None:
    one = large._logs[ORIGIN][at]
    assert one is not None
    checked = tree(large)
    checked.check(one)
    assert refused(checked, entry(at)) == "rewritten"
    assert refused(tree(large), entry(at)) == "rewritten"


def test_all_entries_are_found_even_with_few_tiles_in_memory(large: MemoryStore) -> None:
    checked = tree(large, tiles=2)
    for at in [*range(0, LARGE, 97), *range(LARGE - 1, -1, -101)]:
        one = large._logs[ORIGIN][at]
        assert one is not None
        checked.check(one)
    assert len(checked._tiles) <= 2


@pytest.mark.parametrize("at", EDGES)
@pytest.mark.parametrize("climb", range(4))
def test_a_tile_that_was_changed_to_fit_is_found(large: MemoryStore, at: int, climb: int) -> None:
    """A writer without the key mends the tree as high up as they like; the head they cannot sign."""
    store = copy(large)
    forged, index = entry(at), at
    hashed = leaf_hash(forged.leaf)
    for level in range(climb):
        place, number = index % WIDTH, index // WIDTH
        tile = store._tiles.get((ORIGIN, level, number), b"")
        if len(tile) <= place * 32:
            break
        tile = store._tiles[ORIGIN, level, number] = tile[: place * 32] + hashed + tile[(place + 1) * 32 :]
        index = number
        hashed = root_of(tile)
    assert refused(tree(store), forged) == ("tile" if climb else "rewritten")


def root_of(tile: bytes) -> bytes:
    frontier = Frontier()
    frontier.extend(tile[start : start + 32] for start in range(0, len(tile), 32))
    return frontier.root()


@pytest.mark.parametrize("cut", [b"", b"x", b"x" * 32])
def test_a_tile_that_is_gone_or_short_is_found(cut: bytes) -> None:
    store = MemoryStore()
    one = grown(store, 300)[0]
    store._tiles[ORIGIN, 0, 0] = cut
    assert refused(tree(store), one) == "tile"
    del store._tiles[ORIGIN, 0, 0]
    assert refused(tree(store), one) == "tile"


def test_an_entry_behind_the_signed_end_is_not_in_the_log() -> None:
    store = MemoryStore()
    grown(store, 5)
    checked = tree(store)
    for at in (5, 6, 255, 256, 10**12, -1):
        assert refused(checked, replace(entry(0), position=at)) == "appended"


def made_head(size: int, frontier: bytes, root: bytes, key: SigningKey, epoch: int = 0) -> Head:
    note = sign_checkpoint(Checkpoint(origin_of(ORIGIN, epoch), size, root), key)
    return Head(size, frontier, note.encode(), epoch)


def forged_head(store: MemoryStore, key: SigningKey) -> Entry:
    """Append an entry with tiles and frontier that fit, under a head signed with some key; return the entry."""
    head = store._heads[ORIGIN]
    more = entry(head.size)
    frontier = Frontier.decode(head.size, head.frontier)
    frontier.append(leaf_hash(more.leaf))
    store._tiles[ORIGIN, 0, 0] += leaf_hash(more.leaf)
    store._heads[ORIGIN] = made_head(frontier.size, frontier.encode(), frontier.root(), key)
    return more


def test_a_head_that_somebody_else_signed_is_not_believed() -> None:
    store = MemoryStore()
    grown(store, 5)
    assert refused(tree(store), forged_head(store, SigningKey.generate())) == "re-signed"


def test_with_the_logs_key_the_same_head_is_the_log() -> None:
    store = MemoryStore()
    grown(store, 5)
    tree(store).check(forged_head(store, KEY))


@pytest.mark.parametrize("change", [{"size": 6}, {"frontier": b""}, {"checkpoint": b"\xff"}, {"epoch": 1}, {"size": 1}])
def test_a_head_whose_parts_do_not_fit_is_not_believed(change: dict[str, object]) -> None:
    store = MemoryStore()
    one = grown(store, 5)[0]
    store._heads[ORIGIN] = replace(store._heads[ORIGIN], **change)
    assert refused(tree(store), one) in {"re-signed", "rolled-back"}


def test_an_old_head_put_back_is_noticed_by_who_knows_a_newer_one() -> None:
    store = MemoryStore()
    grown(store, 3)
    old = store._heads[ORIGIN]
    one = grown(store, 3)[-1]
    checked = tree(store)
    checked.check(one)
    store._heads[ORIGIN] = old
    assert refused(checked, replace(entry(0), position=6)) == "rolled-back"


def test_a_tile_is_read_once_and_a_head_only_for_what_is_new() -> None:
    store = Counting()
    found = grown(store, 5_000)
    store.heads = store.tiles = 0
    checked = tree(store)
    for one in found:
        checked.check(one)
    assert store.heads == 1
    assert store.tiles == 5_000 // WIDTH + 2  # of level 0 with the unfinished one, and the one above them
    for one in grown(store, 1)[:-1]:
        store.heads = store.tiles = 0
        checked.check(one)
        assert store.heads == store.tiles == 0


def test_in_a_new_epoch_everything_is_looked_at_again() -> None:
    store = MemoryStore()
    old = grown(store, 400)
    checked = tree(store)
    for one in old:
        checked.check(one)
    other = MemoryStore()
    new = grown(other, 300)
    store._tiles, store._logs = other._tiles, other._logs
    head = other._heads[ORIGIN]
    frontier = Frontier.decode(head.size, head.frontier)
    store._heads[ORIGIN] = made_head(head.size, head.frontier, frontier.root(), KEY, epoch=1)
    for one in new:
        checked.check(one)
    assert refused(checked, old[0]) == "rewritten"
    assert refused(checked, old[-1]) == "appended"


@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5), data=st.data())
def test_while_the_log_grows_what_was_signed_is_found_and_nothing_else(sizes: list[int], data: st.DataObject) -> None:
    store = MemoryStore()
    checked = tree(store, tiles=data.draw(st.integers(1, 4)))
    for size in sizes:
        found = grown(store, size)
        for at in data.draw(st.lists(st.integers(0, len(found) - 1), max_size=5)):
            checked.check(found[at])
            assert refused(checked, replace(found[at], leaf=found[at].leaf[:-1] + b"\x01")) == "rewritten"


def test_many_threads_read_while_it_grows() -> None:
    store = MemoryStore()
    checked = tree(store, tiles=3)

    def read(step: int) -> int:
        found = [one for one in list(store._logs.get(ORIGIN, ())) if one is not None]
        for one in found[::step]:
            checked.check(one)
        return len(found)

    with closing(Ledger(store, KEY, ORIGIN)) as ledger, ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            reads = [pool.submit(read, step) for step in (1, 3, 7, 50)]
            ledger.append_batch(events(70)).result(PATIENCE)
            assert all(one.result(PATIENCE) <= 20 * 70 for one in reads)


def test_a_store_that_fails_is_not_called_tampered_with() -> None:
    store = MemoryStore()
    one = grown(store, 3)[0]
    store.close()
    with pytest.raises(RecordsError) as caught:
        tree(store).check(one)
    assert caught.value.code == "HBK-706"
