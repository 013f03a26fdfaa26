"""Retention of what producers signed: what was signed together goes together, and comes back together or not at all."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from hauberk.core.event import Entry, Event
from hauberk.crypto.note import decode_key
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError, Tampered
from hauberk.records._encode import MAX_PART_BYTES, encode_event
from hauberk.records.ledger import Ledger
from hauberk.records.positions import Positions
from hauberk.records.retention import PRUNED, RECORDED, Retention, name_of
from hauberk.records.segment import Segment, read_segment
from hauberk.records.statement import Producer, parse_statement
from hauberk.records.store import EventStore
from hauberk.records.streams import RETENTION
from hauberk.records.tile_paths import WIDTH
from hauberk.records.verify import Trust, verify_store
from tests.records.made import ORIGIN
from tests.records.shop import ENGINES, OWNER, TARGET, OrderPaid, Shop, placed, stored

PLACED, PAID = "shop.order.placed.v1", "shop.order.paid.v1"
PRODUCER = Producer.of_key(SigningKey.generate())
TRUST = Trust(keys=frozenset({PRODUCER.fingerprint}), require_signed=True)


class Signing(Shop):
    """A shop whose runtime signs what it records."""

    def open(self) -> None:
        super().open()
        self.store.close()
        self.ledger.close()
        self.ledger = Ledger(self.rows, self.signer, ORIGIN, keys=self.keys, producer=PRODUCER, clock=self.clock)
        self.store = EventStore(
            self.ledger, self.rows, policy=self.policy, pseudonyms=self.pseudonyms, target=TARGET, clock=self.clock
        )


@pytest.fixture
def across(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that do not end with their segment, as those of a batch that a service signed."""
    monkeypatch.setattr("hauberk.records.sequence.WIDTH", 1 << 20)


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Signing]:
    with stored(request.param, tmp_path) as inner:
        made = Signing(tmp_path, inner, shared=request.param == "postgres")
        for at in range(40):
            made.append(f"order-{at % 2}", *(placed(number) for number in range(20)))
        yield made
        made.close()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def entries(shop: Shop) -> dict[int, Entry]:
    return {entry.position: entry for entry in shop.ledger.entries(limit=10_000)}


def verified(shop: Shop) -> int:
    return verify_store(shop.inner, shop.ledger.verifier, trust=TRUST).signed


def pruned(shop: Shop, archive: Path, before: int = WIDTH, types: tuple[str, ...] = (PLACED,)) -> int:
    retention = shop.retention()
    retention.archive(archive, OWNER)
    return retention.prune(before=before, types=types, directory=archive, actor=OWNER).entries


def covering(found: dict[int, Entry]) -> dict[int, range]:
    """The run of each signed entry."""
    runs: dict[int, range] = {}
    for at, entry in found.items():
        if entry.statement:
            run = range(at, at + parse_statement(entry.statement).count)
            runs |= dict.fromkeys(run, run)
    return runs


# pruning


def test_no_run_of_our_own_goes_beyond_its_segment_so_all_of_a_segment_can_go(shop: Shop, archive: Path) -> None:
    shop.append("order-9", *(placed(number) for number in range(3 * WIDTH)))
    before = entries(shop)
    runs = covering(before)
    assert all(run.start // WIDTH == (run.stop - 1) // WIDTH for run in runs.values())
    last = shop.store.size // WIDTH
    assert len({runs[at] for at in range((last - 1) * WIDTH, last * WIDTH)}) == 1
    pruned(shop, archive, before=last * WIDTH)
    gone = before.keys() - entries(shop).keys()
    assert gone >= set(range((last - 1) * WIDTH, last * WIDTH))
    verified(shop)


@pytest.mark.usefixtures("across")
def test_what_was_signed_together_goes_together(shop: Shop, archive: Path) -> None:
    before, signed = entries(shop), verified(shop)
    count = pruned(shop, archive)
    gone = before.keys() - entries(shop).keys()
    assert 200 < count == len(gone) < WIDTH
    runs = covering(before)
    assert all(gone >= set(runs[at]) for at in gone)
    assert max(gone) < WIDTH - 1  # the one across the end of the segment stays whole
    report = verify_store(shop.inner, shop.ledger.verifier, trust=TRUST)
    told = len(entries(shop)) - len(before.keys() - gone)  # two records of retention
    assert (report.pruned, report.signed) == (count, signed - count + told)


def test_an_entry_that_stays_keeps_all_that_was_signed_with_it(shop: Shop, archive: Path) -> None:
    last = shop.store.append("order-9", [*(placed(number) for number in range(9))], actor=OWNER).result()
    mixed = shop.store.append("order-0", [placed(1), OrderPaid(order="x", amount=1), placed(2)], actor=OWNER).result()
    shop.append("order-1", *(placed(number) for number in range(2 * WIDTH)))
    shop.append("order-1", placed(1))
    pruned(shop, archive, before=4 * WIDTH)
    kept = entries(shop)
    assert set(range(last.position - 8, last.position + 1)) <= kept.keys()  # its stream ends with it
    assert set(range(mixed.position - 2, mixed.position + 1)) & kept.keys()
    verified(shop)


@pytest.mark.usefixtures("across")
def test_without_that_what_is_left_cannot_be_verified(
    shop: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack without the control: whatever follows a statement that was pruned could be anything."""
    monkeypatch.setattr("hauberk.records.runs.Run.whole", property(lambda _: True))
    monkeypatch.setattr("hauberk.records.runs.Run.fits", property(lambda _: True))
    monkeypatch.setattr("hauberk.records.runs.Run.check", lambda *_: None)
    monkeypatch.setattr(Retention, "_checked", lambda *_: iter(()))
    shop.retention().prune(before=WIDTH, types=[PLACED], directory=archive, actor=OWNER)
    with pytest.raises(Tampered) as caught:
        verified(shop)
    assert caught.value.context["kind"] == "forged-signature"


def test_exactly_what_goes_is_on_record(shop: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hauberk.records.retention.RECORDED", 2)
    before = entries(shop)
    count = pruned(shop, archive, before=3 * WIDTH)
    told = [msgspec.json.decode(entry.public) for entry in shop.entries(RETENTION) if entry.type == PRUNED]
    assert [(one["first"], len(one["bitmaps"])) for one in told] == [(0, 2), (2, 1)]
    assert sum(one["count"] for one in told) == count == len(before.keys() - entries(shop).keys())
    verified(shop)


def test_a_thousand_segments_are_one_record() -> None:
    taken = Positions()
    for number in range(RECORDED + 1):
        taken.add(number * WIDTH, WIDTH)
    parts = list(taken.parts(RECORDED))
    assert [first for first, _ in parts] == [0, RECORDED]
    data = {"types": ["some.type.of.an.application.v1"] * 100, "archive": "0" * 64, "bitmaps": list(parts[0][1])}
    public = encode_event(Event(id=bytes(16), type=PRUNED, stream=RETENTION, time_ns=0, data=data))[1]
    assert len(public) < MAX_PART_BYTES


def test_a_statement_that_was_changed_before_is_not_archived_away(shop: Shop, archive: Path) -> None:
    """Whoever writes the database spoils a statement, and waits for the pruning to take the evidence along."""
    if not hasattr(shop.inner, "_logs"):
        pytest.skip("changes the memory of a store")
    log = shop.inner._logs[ORIGIN]
    log[1] = replace(log[1], statement=replace(parse_statement(log[1].statement), signature=bytes(64)).encode())
    with pytest.raises(Tampered) as caught:
        pruned(shop, archive)
    assert caught.value.context["kind"] == "forged-signature"
    log[1] = replace(log[1], statement=b"")
    pruned(shop, archive)
    assert entries(shop).keys() >= set(range(1, 11))  # without its statement nothing of a run may go


# restoring


@pytest.mark.usefixtures("across")
def test_what_was_signed_comes_back_as_it_was(shop: Shop, archive: Path) -> None:
    before, signed = entries(shop), verified(shop)
    count = pruned(shop, archive, before=3 * WIDTH)
    left = set(before) - set(entries(shop))
    runs = covering(before)
    assert any(runs[at].start < WIDTH <= runs[at].stop - 1 for at in left)  # one lies across two segments
    back = 0
    for number in (1, 0, 2):
        back += shop.retention().restore(archive / name_of(number), OWNER)
        verified(shop)  # at any time: no run is back in part
    assert back == count
    assert entries(shop).items() >= before.items()
    assert verified(shop) > signed


@pytest.mark.usefixtures("across")
def test_the_other_half_has_to_be_beside_it(shop: Shop, archive: Path) -> None:
    count = pruned(shop, archive, before=3 * WIDTH)
    (archive / name_of(1)).rename(archive / "elsewhere")
    with pytest.raises(RecordsError) as caught:
        shop.retention().restore(archive / name_of(0), OWNER)
    assert caught.value.code == "HBK-725"
    verified(shop)
    (archive / "elsewhere").rename(archive / name_of(1))
    assert sum(shop.retention().restore(archive / name_of(number), OWNER) for number in range(3)) == count


def stripped(segment: Segment) -> Segment:
    return replace(segment, entries=tuple((*row[:9], b"") for row in segment.entries))


def altered(segment: Segment) -> Segment:
    rows = list(segment.entries)
    statement = parse_statement(rows[1][9])
    rows[1] = (*rows[1][:9], replace(statement, signature=statement.signature[:-1] + b"x").encode())
    return replace(segment, entries=tuple(rows))


def redated(segment: Segment) -> Segment:
    rows = list(segment.entries)
    rows[1] = (*rows[1][:9], replace(parse_statement(rows[1][9]), time_ns=7).encode())
    return replace(segment, entries=tuple(rows))


def shortened(segment: Segment) -> Segment:
    rows = list(segment.entries)
    rows[1] = (*rows[1][:9], replace(parse_statement(rows[1][9]), count=3).encode())
    return replace(segment, entries=tuple(rows))


def moved(segment: Segment) -> Segment:
    rows = list(segment.entries)
    rows[0], rows[1] = (*rows[0][:9], rows[1][9]), (*rows[1][:9], b"")
    return replace(segment, entries=tuple(rows))


def halved(segment: Segment) -> Segment:
    return replace(segment, entries=(*segment.entries[:2], *segment.entries[3:]))


def unread(segment: Segment) -> Segment:
    rows = list(segment.entries)
    rows[1] = (*rows[1][:9], b"\xc1")
    return replace(segment, entries=tuple(rows))


CHANGES = [stripped, altered, redated, shortened, moved, halved, unread]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_segment_whose_statements_were_changed_is_refused(shop: Shop, archive: Path, change: object) -> None:
    pruned(shop, archive)
    path = archive / name_of(0)
    good = path.read_bytes()
    segment = msgspec.msgpack.decode(good, type=Segment)
    path.write_bytes(change(segment).encode())  # type: ignore[operator]  # one of these
    there = entries(shop)
    with pytest.raises(RecordsError) as caught:
        shop.retention().restore(path, OWNER)
    assert caught.value.code == "HBK-725"
    assert entries(shop).items() >= there.items()
    verified(shop)
    path.write_bytes(good)  # the twin
    assert shop.retention().restore(path, OWNER) > 200
    verified(shop)


@pytest.mark.parametrize("change", [stripped, shortened, moved, halved, unread], ids=lambda change: change.__name__)
def test_where_a_statement_has_to_be_shows_without_a_store(shop: Shop, archive: Path, change: object) -> None:
    shop.retention().archive(archive, OWNER)
    key = decode_key(shop.ledger.verifier)[1]
    data = (archive / name_of(0)).read_bytes()
    segment = read_segment(data, ORIGIN, key)
    with pytest.raises(RecordsError) as caught:
        read_segment(change(segment).encode(), ORIGIN, key)  # type: ignore[operator]  # one of these
    assert caught.value.code == "HBK-725"


def test_without_those_checks_the_log_does_not_verify_afterwards(
    shop: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned(shop, archive)
    path = archive / name_of(0)
    path.write_bytes(stripped(msgspec.msgpack.decode(path.read_bytes(), type=Segment)).encode())
    monkeypatch.setattr("hauberk.records.segment._check_runs", lambda _: None)
    monkeypatch.setattr(Retention, "_together", lambda _self, segment, _directory: segment.unpacked())
    assert shop.retention().restore(path, OWNER) > 200
    with pytest.raises(Tampered):
        verified(shop)


@pytest.mark.parametrize("change", [stripped, shortened, moved, halved], ids=lambda change: change.__name__)
def test_what_a_segment_says_of_itself_is_not_believed_when_it_is_restored(
    shop: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch, change: object
) -> None:
    pruned(shop, archive)
    path = archive / name_of(0)
    path.write_bytes(change(msgspec.msgpack.decode(path.read_bytes(), type=Segment)).encode())  # type: ignore[operator]  # a parameter
    monkeypatch.setattr("hauberk.records.segment._check_runs", lambda _: None)
    there = entries(shop)
    with pytest.raises(RecordsError) as caught:
        shop.retention().restore(path, OWNER)
    assert caught.value.code == "HBK-725"
    assert entries(shop).keys() - there.keys() == set()
    verified(shop)


@pytest.mark.usefixtures("across")
def test_an_entry_missing_from_the_file_beside_keeps_the_other_half_out(shop: Shop, archive: Path) -> None:
    pruned(shop, archive, before=3 * WIDTH)
    beside = archive / name_of(1)
    segment = msgspec.msgpack.decode(beside.read_bytes(), type=Segment)
    beside.write_bytes(replace(segment, entries=segment.entries[1:]).encode())
    with pytest.raises(RecordsError) as caught:
        shop.retention().restore(archive / name_of(0), OWNER)
    assert caught.value.code == "HBK-725"
    verified(shop)


def test_a_file_larger_than_any_segment_is_not_even_read(
    shop: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned(shop, archive)
    path = archive / name_of(0)
    monkeypatch.setattr("hauberk.records.retention.MAX_BYTES", path.stat().st_size - 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    with pytest.raises(RecordsError) as caught:
        shop.retention().restore(path, OWNER)
    assert caught.value.code == "HBK-725"
    monkeypatch.undo()
    assert shop.retention().restore(path, OWNER) > 200  # the twin
