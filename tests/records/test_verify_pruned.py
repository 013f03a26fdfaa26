"""What was pruned: only what the log names, position by position, and never half of what was signed together."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.event import Entry, Event
from hauberk.records._encode import encode_event
from hauberk.records.ledger import Ledger
from hauberk.records.positions import Positions
from hauberk.records.tile_paths import WIDTH
from tests.records.forger import renumbered, rewrite
from tests.records.made import ORIGIN, PATIENCE, event
from tests.records.test_verify import SIGNER, single, sql
from tests.records.test_verify_declared import NAMED, found, original, path, pruned_log, pruning, verify

__all__ = ["original", "path"]  # fixtures


def test_pruned_entries_are_taken_from_the_tiles(tmp_path: Path) -> None:
    report = verify(pruned_log(tmp_path))
    assert (report.size, report.pruned, report.streams) == (702, 511, 5)


def test_pruning_here_and_there_is_taken_too(tmp_path: Path) -> None:
    report = verify(pruned_log(tmp_path, drop="position % 7 IN (0, 3)"))
    assert report.pruned == len([at for at in range(512) if at % 7 in {0, 3}])


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["DELETE FROM entry WHERE position = 600"], ("deleted", 600)),
        (["DELETE FROM entry WHERE position = 512"], ("deleted", 512)),
        (["DELETE FROM entry WHERE position = 700"], ("deleted", 0)),
        (["UPDATE tile SET data = zeroblob(8192) WHERE level = 0 AND number = 0"], ("edited", 5)),
        (["UPDATE tile SET data = substr(data, 1, 320) WHERE level = 0 AND number = 1"], ("tile", 266)),
    ],
)
def test_more_than_was_pruned_is_not_taken(tmp_path: Path, statements: list[str], expected: tuple[str, int]) -> None:
    path = pruned_log(tmp_path)
    verify(path)
    sql(path, *statements)
    assert found(path) == expected


def test_a_pruning_that_was_never_recorded_allows_nothing(tmp_path: Path) -> None:
    """A row that says so, put in by whoever writes the database, is met by the walk and is not what was signed."""
    path = pruned_log(tmp_path, before=256)
    sql(path, "DELETE FROM entry WHERE position = 300")
    assert found(path) == ("deleted", 300)
    claim = msgspec.json.encode(pruning([at for at in (*range(256), 300) if at != 5]).data).decode()
    sql(path, ("UPDATE entry SET public = CAST(? AS BLOB) WHERE position = 700", (claim,)))
    assert found(path) == ("edited", 700)


def test_the_last_entry_of_each_stream_has_to_be_there(tmp_path: Path) -> None:
    """Stream 1 ends at 511; pruning keeps that, and whoever deletes it too takes the end of a stream away."""
    path = pruned_log(tmp_path, drop="type = 'order.paid' AND position != 511", size=514)
    assert verify(path).pruned == 510
    sql(path, "DELETE FROM entry WHERE position = 511")
    assert found(path) == ("deleted", 511)


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM entry WHERE position = 5"],
        ["DELETE FROM entry WHERE position IN (0, 1, 2)"],
        ["DELETE FROM entry WHERE position > 255 AND position < 509"],
    ],
    ids=["of a type that was kept", "before anything that went", "a segment further"],
)
def test_only_the_very_positions_on_record_may_be_missing(tmp_path: Path, statements: list[str]) -> None:
    path = pruned_log(tmp_path, drop="type = 'order.paid' AND position BETWEEN 6 AND 255")
    assert verify(path).pruned == 250
    sql(path, *statements)
    assert found(path)[0] == "deleted"


@pytest.mark.parametrize("kind", ["records.erased", "records.held", "audit.access"])
def test_what_is_never_pruned_is_missed_after_an_honest_pruning(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log.db"
    store = SqliteStore(path)
    ledger = Ledger(store, SIGNER, ORIGIN)
    made = [event(number) for number in range(600)]
    made[7] = event(type=kind, stream="/records/erasures")
    made[8] = event(type=kind, stream="/records/erasures")
    ledger.append_batch(made).result(PATIENCE)
    gone = [at for at in range(511) if at not in {7, 8}]
    ledger.append_batch([pruning(gone)]).result(PATIENCE)
    store.prune(ORIGIN, gone)
    ledger.close()
    store.close()
    assert verify(single(path)).pruned == 509  # the twin
    sql(path, "DELETE FROM entry WHERE position = 7")
    assert found(path) == ("deleted", 7)


@pytest.mark.parametrize(
    "fields",
    [
        {"first": -1},
        {"first": 1 << 70},
        {"first": "0"},
        {"first": 2},  # its own segment, which is not whole below it
        {"bitmaps": "/" * 44},
        {"bitmaps": ["/" * 44]},
        {"bitmaps": ["////"]},
        {"bitmaps": [7]},
        {"bitmaps": []},
        {"bitmaps": None},
    ],
)
def test_a_record_of_a_pruning_that_cannot_be_read_allows_nothing(tmp_path: Path, fields: dict[str, object]) -> None:
    path = tmp_path / "log.db"
    store = SqliteStore(path)
    ledger = Ledger(store, SIGNER, ORIGIN)
    ledger.append_batch([*(event(number) for number in range(600)), pruning([3], **fields), event()]).result(PATIENCE)
    ledger.close()
    store.close()
    assert verify(single(path)).size == 602
    sql(path, "DELETE FROM entry WHERE position = 3")
    assert found(path) == ("deleted", 3)


def declared_gone(*gone: int) -> Callable[[list[Entry]], Sequence[Entry]]:
    """The operator declares positions pruned; as segments are pruned whole, behind the end of the first."""

    def told(entries: list[Entry]) -> Sequence[Entry]:
        filler = [replace(entries[6], **parts(event(number))) for number in range(WIDTH)]
        return renumbered([*entries, *filler, replace(entries[6], **parts(pruning(gone)))])

    return told


def parts(one: Event) -> dict[str, bytes]:
    meta, public = encode_event(one)
    return {"meta": meta, "public": public}


def test_a_run_that_was_pruned_whole_is_counted_as_pruned(path: Path) -> None:
    rewrite(path, SIGNER, declared_gone(*range(1, 6)))
    assert verify(path).signed == 13
    sql(path, "DELETE FROM entry WHERE position BETWEEN 1 AND 5")
    report = verify(path)
    assert (report.pruned, report.signed) == (5, 8)


@pytest.mark.parametrize(("gone", "first"), [([1], 2), ([1, 2], 3), ([2], 1), ([5], 1), ([4, 5], 1), ([7], 8)], ids=str)
def test_no_entry_loses_its_statement_to_a_pruning(path: Path, gone: list[int], first: int) -> None:
    """The operator forges what follows an entry that is declared pruned, statement and all."""

    def forged(entries: list[Entry]) -> Sequence[Entry]:
        entries[3] = replace(entries[3], public=b'{"number":99}') if 1 in gone else entries[3]
        return declared_gone(*gone)(entries)

    rewrite(path, SIGNER, forged)
    if 1 not in gone:
        verify(path)  # the twin: the log is whole
    sql(path, f"DELETE FROM entry WHERE position IN ({','.join(map(str, gone))})")  # noqa: S608  # numbers
    assert found(path, NAMED) == ("forged-signature", first)
    assert found(path) == ("forged-signature", first)


# sets of positions

many = st.sets(st.integers(0, 20 * WIDTH), max_size=60) | st.sets(st.integers(0, 1 << 62), max_size=9)


def positions(taken: set[int]) -> Positions:
    made = Positions()
    for at in taken:
        made.add(at)
    return made


@given(taken=many, most=st.integers(1, 30))
def test_a_set_is_what_was_recorded(taken: set[int], most: int) -> None:
    made, again = positions(taken), Positions()
    assert (list(made), len(made)) == (sorted(taken), len(taken))
    for first, bitmaps in made.parts(most):
        assert 0 < len(bitmaps) <= most
        again.take(first, bitmaps, below=1 << 63)
    assert list(again) == sorted(taken)
    assert made.outside(again) is again.outside(made) is None


@given(taken=many, start=st.integers(0, 9 * WIDTH), size=st.integers(0, 3 * WIDTH), below=st.integers(0, 30 * WIDTH))
def test_the_first_that_is_not_in_it_is_found(taken: set[int], start: int, size: int, below: int) -> None:
    made = positions(taken)
    lacking = [at for at in range(start, start + size) if at not in taken]
    assert made.lacking(start, start + size) == (lacking[0] if lacking else None)
    part = Positions()
    for first, bitmaps in made.parts(1_000):
        part.take(first, bitmaps, below=below)
    kept = {at for at in taken if (at // WIDTH + 1) * WIDTH <= below}
    assert list(part) == sorted(kept)
    assert made.outside(part) == min(taken - kept, default=None)
