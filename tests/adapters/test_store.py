"""One contract for every store."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.clock import ManualClock
from hauberk.core.ports import ABSENT_ROW, END, Check, Delete, Head, Put, Store, Tile, Write
from hauberk.crypto.keyring import Keyring
from hauberk.errors import Conflict, RecordsError
from tests.records.made import ORIGIN, PATIENCE, STREAM, append, entry
from tests.support.postgres import database

Made = tuple[Store, ManualClock]


@pytest.fixture(params=["memory", "sqlite", "authentic", "postgres"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    clock = ManualClock()
    store: Store = MemoryStore(clock.time)
    with ExitStack() as lent:
        if request.param == "sqlite":
            store = SqliteStore(tmp_path / "store.db", now=clock.time)
        if request.param == "authentic":
            store = AuthenticRows(store, Keyring(FileKeySource(tmp_path / "keys")))
        if request.param == "postgres":
            store = PostgresStore(lent.enter_context(database()), now=clock.time)
        yield store, clock
        store.close()


@pytest.fixture
def store(made: Made) -> Store:
    return made[0]


def positions(store: Store, **where: object) -> list[int]:
    return [one.position for one in store.entries(ORIGIN, **where)]  # type: ignore[arg-type]


def test_an_empty_store_has_no_head_no_entries_and_no_rows(store: Store) -> None:
    assert store.head(ORIGIN) == Head()
    assert positions(store) == []
    assert store.get("space", b"key") is None
    assert store.find(ORIGIN, [b"x" * 16]) == {}
    assert store.versions(ORIGIN, ["/nowhere"]) == {}


def test_what_was_committed_is_there_byte_for_byte(store: Store) -> None:
    entries = [entry(at) for at in range(3)]
    batch = append(*entries)
    store.commit(Write(batch, rows=(Put("space", b"\x00\xff", b"value\x00", expires=4e9),)))
    assert list(store.entries(ORIGIN)) == entries
    assert store.head(ORIGIN) == batch.head
    row = store.get("space", b"\x00\xff")
    assert row is not None
    assert (row.key, row.value, row.revision, row.expires) == (b"\x00\xff", b"value\x00", 1, 4e9)


def test_each_commit_has_a_higher_revision_than_the_one_before(store: Store) -> None:
    revisions = [store.commit(Write(rows=(Put("s", b"k", b"v"),))) for _ in range(5)]
    assert revisions == sorted(set(revisions))


def test_a_failed_row_expectation_leaves_nothing_of_the_log_batch(store: Store) -> None:
    store.commit(Write(rows=(Put("s", b"b", b"1"),)))
    rows = (Put("s", b"a", b"new"), Put("s", b"b", b"2", expected=7), Put("s", b"c", b"new"))
    with pytest.raises(Conflict) as found:
        store.commit(Write(append(entry(0)), rows))
    assert found.value.context["found"] == 1
    assert store.head(ORIGIN) == Head()
    assert positions(store) == []
    assert [row.key for row in store.scan("s")] == [b"b"]


def test_a_batch_on_another_head_is_refused_with_the_size_that_is_there_and_writes_no_rows(store: Store) -> None:
    store.commit(Write(append(entry(0), entry(1))))
    for expected in (0, 1, 3):
        with pytest.raises(Conflict) as found:
            store.commit(Write(append(entry(expected), expected=expected), rows=(Put("s", b"k", b"v"),)))
        assert found.value.context["found"] == 2
    assert store.get("s", b"k") is None
    assert positions(store) == [0, 1]


def test_a_writer_of_a_lower_epoch_is_fenced_off(store: Store) -> None:
    store.commit(Write(append(entry(0), epoch=3)))
    with pytest.raises(Conflict):
        store.commit(Write(append(entry(1), epoch=2)))
    store.commit(Write(append(entry(1), epoch=4)))
    assert store.head(ORIGIN).epoch == 4


def test_a_batch_has_to_lead_to_its_head_without_gaps(store: Store) -> None:
    for wrong in (
        replace(append(entry(0), entry(1)), head=Head(3, b"", b"", 0)),
        append(entry(0), entry(2)),
        append(entry(1), entry(0), expected=0),
        replace(append(entry(0), entry(1)), head=Head(1, b"", b"", 0)),
        replace(append(entry(0)), head=Head(0, b"", b"", 0)),
    ):
        with pytest.raises(Conflict):
            store.commit(Write(wrong))
    assert store.head(ORIGIN) == Head()
    assert list(store.entries(ORIGIN)) == []


def test_an_event_id_is_stored_once_per_log_even_within_one_batch(store: Store) -> None:
    first = entry(0)
    store.commit(Write(append(first)))
    twice = entry(2)
    for batch in (
        append(entry(1, id=first.id)),
        append(entry(1), entry(2, id=first.id)),
        append(entry(1), twice, entry(3, id=twice.id)),
    ):
        with pytest.raises(Conflict):
            store.commit(Write(batch))
    assert positions(store) == [0]
    store.commit(Write(append(entry(0, id=first.id), log="other")))
    assert store.find("other", [first.id]) == {first.id: 0}


def test_find_returns_the_positions_of_known_ids_however_many_are_asked_for(store: Store) -> None:
    entries = [entry(at) for at in range(1200)]
    store.commit(Write(append(*entries)))
    asked = [one.id for one in entries[::2]] + [bytes([at % 256]) * 16 for at in range(600)]
    found = store.find(ORIGIN, asked)
    assert found == {one.id: one.position for one in entries[::2]}


def test_versions_returns_the_highest_of_each_stream(store: Store) -> None:
    entries = [entry(at, stream=f"/s{at % 3}", version=at // 3 + 1) for at in range(8)]
    store.commit(Write(append(*entries)))
    assert store.versions(ORIGIN, ["/s0", "/s1", "/s2", "/s3"]) == {"/s0": 3, "/s1": 3, "/s2": 2}


def test_entries_are_filtered_exactly_and_paged_by_position(store: Store) -> None:
    kinds = ("a.b", "a.b.c")
    entries = [entry(at, stream=f"/s{at % 2}", version=at // 2 + 1, type=kinds[at % 3 == 0]) for at in range(12)]
    store.commit(Write(append(*entries)))
    assert positions(store, after=9) == [10, 11]
    assert positions(store, after=-5) == list(range(12))
    assert positions(store, after=99) == []
    assert positions(store, limit=4) == [0, 1, 2, 3]
    assert positions(store, limit=0) == []
    assert positions(store, stream="/s1", after=2, limit=3) == [3, 5, 7]
    assert positions(store, kind="a.b.c") == [0, 3, 6, 9]
    assert positions(store, kind="a.b", stream="/s0") == [2, 4, 8, 10]
    assert positions(store, stream="/s") == []


def test_a_tile_is_replaced_as_it_fills_and_a_missing_one_is_said_to_be_missing(store: Store) -> None:
    store.commit(Write(replace(append(entry(0)), tiles=(Tile(0, 0, b"a" * 32),))))
    store.commit(Write(replace(append(entry(1)), tiles=(Tile(0, 0, b"a" * 64), Tile(1, 0, b"b")))))
    assert store.tile(ORIGIN, 0, 0) == b"a" * 64
    assert store.tile(ORIGIN, 1, 0) == b"b"
    for log, level, index in ((ORIGIN, 0, 1), (ORIGIN, 2, 0), ("other", 0, 0)):
        with pytest.raises(RecordsError) as found:
            store.tile(log, level, index)
        assert found.value.code == "HBK-707"


def test_revisions_rise_and_expectations_hold(store: Store) -> None:
    store.commit(Write(rows=(Put("s", b"k", b"1", expected=ABSENT_ROW),)))
    with pytest.raises(Conflict):
        store.commit(Write(rows=(Put("s", b"k", b"2", expected=ABSENT_ROW),)))
    store.commit(Write(rows=(Put("s", b"k", b"2", expected=1),)))
    with pytest.raises(Conflict) as found:
        store.commit(Write(rows=(Delete("s", b"k", expected=1),)))
    assert found.value.context["found"] == 2
    store.commit(Write(rows=(Delete("s", b"k", expected=2), Delete("s", b"never"))))
    assert store.get("s", b"k") is None
    with pytest.raises(Conflict):
        store.commit(Write(rows=(Delete("s", b"k", expected=2),)))


def test_a_write_that_touches_a_row_twice_sees_its_own_change(store: Store) -> None:
    with pytest.raises(Conflict):
        store.commit(Write(rows=(Put("s", b"k", b"1", ABSENT_ROW), Put("s", b"k", b"2", ABSENT_ROW))))
    assert store.get("s", b"k") is None
    store.commit(Write(rows=(Put("s", b"k", b"1", ABSENT_ROW), Put("s", b"k", b"2", 1))))
    row = store.get("s", b"k")
    assert row is not None
    assert (row.value, row.revision) == (b"2", 2)


def test_an_expired_row_is_as_good_as_absent(made: Made) -> None:
    store, clock = made
    store.commit(Write(rows=(Put("s", b"k", b"1", expires=clock.time() + 10), Put("s", b"l", b"1"))))
    clock.advance(9.9)
    assert store.get("s", b"k") is not None
    clock.advance(0.1)
    assert store.get("s", b"k") is None
    assert [row.key for row in store.scan("s")] == [b"l"]
    with pytest.raises(Conflict):
        store.commit(Write(rows=(Put("s", b"k", b"2", expected=1),)))
    store.commit(Write(rows=(Put("s", b"k", b"2", expected=ABSENT_ROW),)))
    row = store.get("s", b"k")
    assert row is not None
    assert (row.value, row.expires) == (b"2", None)


def test_scan_pages_through_a_prefix_in_the_order_of_bytes(store: Store) -> None:
    keys = [b"a", b"a\x00", b"a\x01", b"a\xff", b"a\xff\xff", b"b", b"", b"\xff"]
    store.commit(Write(rows=[Put("s", key, b"v") for key in keys]))
    store.commit(Write(rows=(Put("t", b"a", b"other space"),)))
    assert [row.key for row in store.scan("s", b"a")] == sorted(key for key in keys if key.startswith(b"a"))
    paged: list[bytes] = []
    while page := [row.key for row in store.scan("s", b"a", after=paged[-1] if paged else b"", limit=2)]:
        assert len(page) <= 2
        paged += page
    assert paged == sorted(key for key in keys if key.startswith(b"a"))


def test_a_closed_store_refuses_every_call_and_closes_twice(store: Store) -> None:
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.commit(Write(rows=(Put("s", b"k", b"v"),))),
        lambda: store.head(ORIGIN),
        lambda: list(store.entries(ORIGIN)),
        lambda: store.find(ORIGIN, [b"x" * 16]),
        lambda: store.versions(ORIGIN, ["/s"]),
        lambda: store.tile(ORIGIN, 0, 0),
        lambda: store.get("s", b"k"),
        lambda: list(store.scan("s")),
        lambda: list(store.stream(ORIGIN, STREAM)),
        lambda: store.prune(ORIGIN, [0]),
        lambda: store.restore(ORIGIN, []),
    ]
    for call in calls:
        with pytest.raises(RecordsError) as found:
            call()
        assert found.value.code == "HBK-706"


def test_one_stream_is_read_by_version_both_ways_and_between_bounds(store: Store) -> None:
    entries = [entry(at, stream=f"/s{at % 2}", version=at // 2 + 1) for at in range(12)]
    store.commit(Write(append(*entries)))

    def versions(**where: object) -> list[int]:
        found = list(store.stream(ORIGIN, "/s1", **where))  # type: ignore[arg-type]  # limits of a case
        assert {one.stream for one in found} <= {"/s1"}
        return [one.version for one in found]

    assert versions() == [1, 2, 3, 4, 5, 6]
    assert versions(above=2, below=5) == [3, 4]
    assert versions(limit=2) == [1, 2]
    assert versions(backward=True, limit=2) == [6, 5]
    assert versions(backward=True, below=4, limit=9) == [3, 2, 1]
    assert versions(limit=0) == versions(above=6) == []
    assert list(store.stream(ORIGIN, "/s")) == list(store.stream("other", "/s1")) == []


def test_entries_are_read_backwards_and_below_a_position(store: Store) -> None:
    store.commit(Write(append(*(entry(at, type=f"t.{at % 2}") for at in range(10)))))
    assert positions(store, backward=True, limit=3) == [9, 8, 7]
    assert positions(store, after=2, before=6) == [3, 4, 5]
    assert positions(store, after=2, before=6, backward=True) == [5, 4, 3]
    assert positions(store, kind="t.1", backward=True, before=8, limit=2) == [7, 5]
    assert positions(store, before=0) == positions(store, before=-3, backward=True) == []


def test_more_than_a_page_is_read_whole_and_in_order(store: Store) -> None:
    count = 2_345
    store.commit(Write(append(*(entry(at) for at in range(count)))))
    assert positions(store, limit=END) == list(range(count))
    assert positions(store, limit=END, backward=True) == list(range(count))[::-1]
    assert [one.version for one in store.stream(ORIGIN, STREAM, limit=2_100)] == list(range(1, 2_101))
    store.commit(Write(rows=[Put("s", b"%05d" % at, b"v") for at in range(count)]))
    assert [row.key for row in store.scan("s", limit=END)] == [b"%05d" % at for at in range(count)]


def test_pruning_leaves_out_bodies_and_keeps_the_last_of_each_stream_tiles_and_versions(store: Store) -> None:
    entries = [entry(at, stream=f"/s{at % 2}", version=at // 2 + 1, type=f"t.{at % 3}") for at in range(12)]
    tiles = (Tile(0, 0, b"h" * 32 * 12),)
    store.commit(Write(replace(append(*entries), tiles=tiles)))
    assert store.prune(ORIGIN, [0, 1, 3, 4, 6, 7, 9, 10, 99, -1]) == 7
    assert positions(store) == [2, 5, 8, 10, 11]  # 10 is the last of its stream, though it was asked for
    assert positions(store, backward=True, limit=2) == [11, 10]
    assert store.head(ORIGIN).size == 12
    assert store.versions(ORIGIN, ["/s0", "/s1"]) == {"/s0": 6, "/s1": 6}
    assert store.tile(ORIGIN, 0, 0) == tiles[0].data
    assert store.prune(ORIGIN, [0, 1, 3, 10, 11]) == 0
    assert store.prune(ORIGIN, (2,)) == 1
    assert store.prune("other", [5]) == store.prune(ORIGIN, []) == 0
    store.commit(Write(append(entry(12, stream="/s0", version=7))))


def test_more_positions_than_one_statement_takes_are_pruned(store: Store) -> None:
    count = 12_345
    store.commit(Write(append(*(entry(at) for at in range(count)))))
    assert store.prune(ORIGIN, list(range(0, count, 2))) == count // 2  # but for the last of the stream
    assert positions(store, limit=END) == [*range(1, count, 2), count - 1]


def test_what_was_pruned_can_be_put_back_and_nothing_else(store: Store) -> None:
    entries = [entry(at) for at in range(6)]
    store.commit(Write(append(*entries)))
    store.prune(ORIGIN, range(4))
    assert positions(store) == [4, 5]
    with pytest.raises(Conflict) as found:
        store.restore(ORIGIN, [entries[0], entry(6)])
    assert found.value.context["what"] == "head"
    assert positions(store) == [4, 5]
    assert store.restore(ORIGIN, entries[1:5]) == 3
    assert store.restore(ORIGIN, []) == 0
    assert list(store.entries(ORIGIN)) == entries[1:]


def test_scrubbing_says_whether_anything_is_left_and_harms_nothing(store: Store) -> None:
    store.commit(Write(append(entry(0)), rows=[Put("s", b"%d" % at, b"v") for at in range(50)]))
    store.commit(Write(rows=[Delete("s", b"%d" % at) for at in range(49)]))
    assert store.scrub() in {True, False}
    assert [row.key for row in store.scan("s")] == [b"49"]
    assert positions(store) == [0]


def test_a_check_writes_nothing_itself_and_stops_everything_else_when_it_fails(store: Store) -> None:
    store.commit(Write(rows=(Put("s", b"k", b"1"),)))
    store.commit(Write(rows=(Check("s", b"k", 1), Check("s", b"none", ABSENT_ROW), Put("s", b"other", b"1"))))
    row = store.get("s", b"k")
    assert row is not None
    assert (row.value, row.revision) == (b"1", 1)
    for wrong in (Check("s", b"k", 2), Check("s", b"k", ABSENT_ROW), Check("s", b"none", 1)):
        with pytest.raises(Conflict) as found:
            store.commit(Write(append(entry(0)), rows=(wrong, Put("s", b"z", b"1"))))
        assert found.value.context["what"] == "row"
        assert found.value.context["found"] == (1 if wrong.key == b"k" else 0)
    assert store.get("s", b"z") is None
    assert store.head(ORIGIN) == Head()


def test_a_refused_write_says_whether_the_head_an_entry_or_a_row_was_in_the_way(store: Store) -> None:
    store.commit(Write(append(entry(0)), rows=(Put("s", b"k", b"v"),)))
    first = next(iter(store.entries(ORIGIN)))
    for what, write in (
        ("head", Write(append(entry(0)))),
        ("entry", Write(append(entry(1, id=first.id)))),
        ("entry", Write(append(entry(1, version=1)))),
        ("row", Write(append(entry(1)), rows=(Put("s", b"k", b"w", ABSENT_ROW),))),
    ):
        with pytest.raises(Conflict) as found:
            store.commit(write)
        assert found.value.context["what"] == what


def race(count: int, attempt: Callable[[int], object]) -> list[int]:
    """Run `attempt` in threads that start together; return those that did not raise `Conflict`."""
    won: list[int] = []
    ready = threading.Barrier(count)

    def run(number: int) -> None:
        ready.wait(PATIENCE)
        try:
            attempt(number)
        except Conflict:
            return
        won.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return won


def test_of_threads_racing_for_one_row_exactly_one_wins(store: Store) -> None:
    for turn in range(10):
        key = b"%d" % turn
        won = race(8, lambda number, key=key: store.commit(Write(rows=(Put("s", key, b"%d" % number, ABSENT_ROW),))))  # type: ignore[misc]
        assert len(won) == 1
        row = store.get("s", key)
        assert row is not None
        assert row.value == b"%d" % won[0]


def test_of_threads_using_up_one_row_exactly_one_wins(store: Store) -> None:
    store.commit(Write(rows=(Put("tokens", b"t", b"once"),)))
    assert len(race(8, lambda _: store.commit(Write(rows=(Delete("tokens", b"t", expected=1),))))) == 1


def test_two_writes_that_each_rely_on_what_the_other_makes_being_absent_never_both_succeed(store: Store) -> None:
    for turn in range(20):
        one, other = b"%d one" % turn, b"%d other" % turn
        writes = [
            Write(rows=(Check("s", one, ABSENT_ROW), Put("s", other, b"v"))),
            Write(rows=(Delete("s", other, ABSENT_ROW), Put("s", one, b"v"))),
        ]
        won = race(2, lambda number, writes=writes: store.commit(writes[number]))  # type: ignore[misc]  # a default binds the loop
        assert len(won) == 1


def test_of_threads_appending_on_one_head_exactly_one_wins(store: Store) -> None:
    for turn in range(5):
        won = race(6, lambda _, turn=turn: store.commit(Write(append(entry(turn)))))  # type: ignore[misc]
        assert len(won) == 1
    assert positions(store) == [0, 1, 2, 3, 4]


def test_two_stores_on_one_file_see_each_other_and_cannot_both_win(tmp_path: Path) -> None:
    one, other = SqliteStore(tmp_path / "s.db"), SqliteStore(tmp_path / "s.db")
    won = race(2, lambda number: (one, other)[number].commit(Write(append(entry(0)))))
    assert len(won) == 1
    assert one.head(ORIGIN) == other.head(ORIGIN) != Head()
    one.close()
    other.close()


def test_a_file_is_made_for_its_owner_alone_and_survives_a_reopen(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first = SqliteStore(path)
    first.commit(Write(append(entry(0))))
    assert {one.stat().st_mode & 0o777 for one in tmp_path.iterdir()} == {0o600}
    first.close()
    again = SqliteStore(path)
    assert positions(again) == [0]
    again.close()


def test_an_auditors_store_never_writes(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first = SqliteStore(path)
    first.commit(Write(append(entry(0))))
    first.close()
    auditor = open_readonly(path)
    assert positions(auditor) == [0]
    with pytest.raises(RecordsError):
        auditor.commit(Write(rows=(Put("s", b"k", b"v"),)))
    auditor.close()


def test_what_is_no_database_is_refused_with_a_code(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"this is no database at all, however long it may be" * 50)
    with pytest.raises(RecordsError) as found:
        SqliteStore(path)
    assert found.value.code == "HBK-703"
    with pytest.raises(RecordsError) as missing:
        open_readonly(tmp_path / "nothing.db")
    assert missing.value.code == "HBK-706"
    with pytest.raises(RecordsError) as nowhere:
        SqliteStore(tmp_path / "no" / "such" / "folder.db")
    assert nowhere.value.code == "HBK-706"
