"""Retention: archived before pruned, recorded before deleted, verified before restored, and nothing is ever lost."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.core.event import Entry
from hauberk.crypto.merkle import leaf_hash, verify_inclusion
from hauberk.crypto.note import Checkpoint, decode_key, sign_checkpoint, verify_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import ConfigError, HauberkError, RecordsError
from hauberk.records.hidden import Erased
from hauberk.records.retention import ARCHIVED, PRUNED, RESTORED, Retention, entries_of, name_of
from hauberk.records.segment import Segment, digest_of, read_segment
from hauberk.records.streams import RETENTION
from hauberk.records.tile_paths import WIDTH
from hauberk.records.verify import verify_store
from tests.records.made import ORIGIN, PATIENCE
from tests.records.shop import ENGINES, OWNER, OrderPaid, OrderPlaced, Shop, placed, stored

DAY = 86_400
PLACED, PAID = "shop.order.placed.v1", "shop.order.paid.v1"
DAYS = {"short": 30, "long": 365}
CLASSES = {PLACED: "short", "policy.allowed": "short", PAID: "long"}


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    with stored(request.param, tmp_path) as inner:
        made = Shop(tmp_path, inner, shared=request.param == "postgres")
        for at in range(4):
            made.append(f"order-{at % 2}", *(placed(number) for number in range(150)), OrderPaid(order="x", amount=at))
            made.clock.advance(20 * DAY)
        yield made
        made.close()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def refusal(error: pytest.ExceptionInfo[RecordsError]) -> str:
    return error.value.code


def entries(shop: Shop, kind: str | None = None) -> dict[int, Entry]:
    return {entry.position: entry for entry in shop.ledger.entries(kind=kind, limit=10_000)}


def file_digest(path: Path) -> bytes:
    return sha256(path.read_bytes()).digest()


# archiving


def test_sealed_segments_are_archived_and_verify_alone(shop: Shop, archive: Path) -> None:
    written = shop.retention().archive(archive, OWNER)
    assert [path.name for path in written.files] == [name_of(0), name_of(1)]
    assert written.digest == digest_of([file_digest(path) for path in written.files])
    found = list(entries_of(written.files, ORIGIN, shop.ledger.verifier))
    assert found == list(entries(shop).values())[: 2 * WIDTH]
    assert [entry.type for entry in shop.entries(RETENTION)] == [ARCHIVED]
    assert (archive.stat().st_mode & 0o777, written.files[0].stat().st_mode & 0o777) == (0o700, 0o600)
    assert not list(archive.glob("*.part"))


def test_the_next_archive_goes_on_behind_the_last(shop: Shop, archive: Path) -> None:
    shop.retention().archive(archive, OWNER)
    assert shop.retention().archive(archive, OWNER).files == ()
    shop.append("order-9", *(placed(number) for number in range(WIDTH)))
    assert [path.name for path in shop.retention().archive(archive, OWNER).files] == [name_of(2)]


def test_archiving_again_loses_nothing_that_only_the_file_still_has(shop: Shop, archive: Path) -> None:
    before = list(entries_of(shop.retention().archive(archive, OWNER).files, ORIGIN, shop.ledger.verifier))
    shop.retention().prune(before=2 * WIDTH, types=[PLACED], directory=archive, actor=OWNER)
    again = shop.retention().archive(archive, OWNER, first=0)
    assert list(entries_of(again.files, ORIGIN, shop.ledger.verifier)) == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_file_that_was_damaged_is_neither_believed_nor_written_over(shop: Shop, archive: Path, damage: str) -> None:
    [first, _] = shop.retention().archive(archive, OWNER).files
    data = first.read_bytes()
    spoilt = {
        "cut": data[:-100], "flipped": data[:-50] + bytes([data[-50] ^ 1]) + data[-49:], "empty": b"",
        "foreign": data.replace(ORIGIN.encode(), b"example.com/ledger"[: len(ORIGIN)]),
    }[damage]  # fmt: skip
    first.write_bytes(spoilt)
    for attempt in (
        lambda: shop.retention().archive(archive, OWNER, first=0),
        lambda: shop.retention().prune(before=WIDTH, types=[PLACED], directory=archive, actor=OWNER),
        lambda: shop.retention().restore(first, OWNER),
    ):
        with pytest.raises(RecordsError) as caught:
            attempt()
        assert refusal(caught) == "HBK-725"
    assert first.read_bytes() == spoilt
    assert len(entries(shop, PLACED)) == 600


# pruning


def test_what_is_pruned_is_recorded_before_and_archived_before_that(shop: Shop, archive: Path) -> None:
    retention = shop.retention()
    before = entries(shop)
    retention.archive(archive, OWNER)
    pruned = retention.prune(before=2 * WIDTH, types=[PLACED], directory=archive, actor=OWNER)
    after = entries(shop)
    gone = before.keys() - after.keys()
    assert pruned.entries == len(gone) > 500
    assert all(before[at].type == PLACED and at < 2 * WIDTH for at in gone)
    record = after[pruned.position]
    assert (record.type, record.stream) == (PRUNED, RETENTION)
    data = msgspec.json.decode(record.public)
    assert (data["minimum"], data["types"], data["segments"]) == (2 * WIDTH, [PLACED], 2)
    assert data["archive"] == digest_of([file_digest(archive / name_of(number)) for number in range(2)])


def test_everything_else_is_still_proven_and_the_last_of_each_stream_stays(shop: Shop, archive: Path) -> None:
    shop.append("order-last", placed(1))
    shop.append("order-9", *(placed(number) for number in range(WIDTH)))
    retention = shop.retention()
    retention.archive(archive, OWNER)
    retention.prune(before=3 * WIDTH, types=[PLACED], directory=archive, actor=OWNER)
    key = decode_key(shop.ledger.verifier)[1]
    for entry in entries(shop).values():
        proof = shop.ledger.proof(entry.position)
        signed = verify_checkpoint(proof.checkpoint, ORIGIN, key)
        verify_inclusion(leaf_hash(entry.leaf), entry.position, signed.size, proof.path, signed.root)
    verify_store(shop.inner, shop.ledger.verifier)
    assert shop.read("order-last") == [placed(1)]
    assert shop.append("order-9", placed(7)).version == WIDTH + 1


def test_nothing_is_deleted_that_is_not_archived_byte_for_byte(shop: Shop, archive: Path) -> None:
    retention = shop.retention()
    before = entries(shop)
    with pytest.raises(RecordsError) as caught:
        retention.prune(before=WIDTH, types=[PLACED], directory=archive, actor=OWNER)
    assert refusal(caught) == "HBK-725"
    retention.archive(archive, OWNER)
    path = archive / name_of(0)
    segment = msgspec.msgpack.decode(path.read_bytes(), type=Segment)
    path.write_bytes(replace(segment, entries=segment.entries[1:]).encode())  # it verifies, but lacks an entry
    with pytest.raises(RecordsError) as caught:
        retention.prune(before=WIDTH, types=[PLACED], directory=archive, actor=OWNER)
    assert refusal(caught) == "HBK-725"
    assert entries(shop).items() >= before.items()


def test_without_that_check_the_entry_would_be_gone(shop: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Retention, "_checked", lambda *_: iter(()))
    shop.retention().prune(before=WIDTH, types=[PLACED], directory=archive, actor=OWNER)
    assert 0 not in entries(shop)
    assert not archive.exists()


def test_what_cannot_be_recorded_is_not_deleted(shop: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retention = shop.retention()
    retention.archive(archive, OWNER)

    def full(*_: object, **_data: object) -> int:
        raise RecordsError("HBK-703", "the disk is full")

    monkeypatch.setattr(Retention, "_record_pruned", full)
    with pytest.raises(RecordsError):
        retention.prune(before=WIDTH, types=[PLACED], directory=archive, actor=OWNER)
    assert len(entries(shop, PLACED)) == 600


@pytest.mark.parametrize("before", [0, 1, WIDTH - 1, WIDTH + 1, 3 * WIDTH, -WIDTH])
def test_only_whole_sealed_segments_are_pruned(shop: Shop, archive: Path, before: int) -> None:
    shop.retention().archive(archive, OWNER)
    with pytest.raises(RecordsError):
        shop.retention().prune(before=before, types=[PLACED], directory=archive, actor=OWNER)


@pytest.mark.parametrize(
    "kind", ["ledger.pruned", "ledger.recovered", "producer.certified", "records.erased", "records.held"]
)
def test_what_holds_the_record_together_is_never_pruned(shop: Shop, archive: Path, kind: str) -> None:
    shop.retention().archive(archive, OWNER)
    with pytest.raises(ConfigError):
        shop.retention().prune(before=WIDTH, types=[PLACED, kind], directory=archive, actor=OWNER)
    with pytest.raises(ConfigError):
        shop.retention({"short": 1}, {kind: "short"})


# classes


def test_each_type_stays_as_long_as_its_class_says(shop: Shop, archive: Path) -> None:
    retention = shop.retention(DAYS, CLASSES)
    assert retention.due() == {WIDTH: ("policy.allowed", PLACED)}  # the second segment ends 20 days ago
    shop.clock.advance(400 * DAY)
    assert retention.due() == {2 * WIDTH: ("policy.allowed", PLACED, PAID)}
    done = retention.rotate(archive, OWNER)
    assert [(one.minimum, one.types) for one in done] == [(2 * WIDTH, tuple(sorted((PLACED, PAID, "policy.allowed"))))]
    assert max(entry.position for entry in entries(shop).values() if entry.position < 2 * WIDTH) > 0
    assert retention.rotate(archive, OWNER)[0].entries == 0


def test_without_classes_everything_stays_for_ever(shop: Shop, archive: Path) -> None:
    shop.clock.advance(10_000 * DAY)
    assert shop.retention().rotate(archive, OWNER) == ()
    assert not archive.exists()


def test_a_class_that_there_is_not_is_refused_at_once(shop: Shop) -> None:
    with pytest.raises(ConfigError):
        shop.retention({"short": 30}, {PLACED: "shrot"})
    with pytest.raises(ConfigError):
        shop.retention({"short": -1}, {PLACED: "short"})


def test_a_rotation_destroys_nothing(shop: Shop, archive: Path) -> None:
    before = entries(shop)
    shop.clock.advance(1_000 * DAY)
    retention = shop.retention(DAYS, CLASSES)
    retention.rotate(archive, OWNER)
    kept = {one.position: one for one in entries_of(sorted(archive.glob("*.segment")), ORIGIN, shop.ledger.verifier)}
    assert (kept | entries(shop)).items() >= before.items()
    for path in archive.glob("*.segment"):
        retention.restore(path, OWNER)
    assert entries(shop).items() >= before.items()


# restoring


def test_what_is_restored_is_what_was_pruned(shop: Shop, archive: Path) -> None:
    retention = shop.retention()
    before, events = entries(shop), shop.read("order-*")
    files = retention.archive(archive, OWNER).files
    pruned = retention.prune(before=2 * WIDTH, types=[PLACED], directory=archive, actor=OWNER)
    assert sum(retention.restore(path, OWNER) for path in files) == pruned.entries
    assert entries(shop).items() >= before.items()
    verify_store(shop.inner, shop.ledger.verifier)
    assert shop.read("order-*") == events
    assert [retention.restore(path, OWNER) for path in files] == [0, 0]
    assert shop.entries(RETENTION)[-1].type == RESTORED


def test_who_was_erased_stays_erased_when_its_events_come_back(shop: Shop, archive: Path) -> None:
    retention = shop.retention()
    [first, *_] = retention.archive(archive, OWNER).files
    retention.prune(before=WIDTH, types=[PLACED], directory=archive, actor=OWNER)
    shop.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
    retention.restore(first, OWNER)
    event = shop.read("order-0", limit=1)[0]
    assert isinstance(event, OrderPlaced)
    assert isinstance(event.email, Erased)


def test_a_segment_of_another_log_or_history_is_not_restored(shop: Shop, archive: Path, tmp_path: Path) -> None:
    for number, signer in enumerate((SigningKey.generate(), shop.signer)):  # ours: then it is another history
        directory = tmp_path / f"other-{number}"
        directory.mkdir()
        other = Shop(directory)
        other.close()
        other.signer = signer
        other.open()
        other.append("order-1", *(placed(number) for number in range(WIDTH)))
        [stranger] = other.retention().archive(archive / str(number), OWNER).files
        with pytest.raises(RecordsError) as caught:
            shop.retention().restore(stranger, OWNER)
        assert refusal(caught) == "HBK-725"
        other.close()


def test_a_missing_file_is_an_error_of_its_own(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(RecordsError) as caught:
        shop.retention().restore(tmp_path / "none", OWNER)
    assert refusal(caught) == "HBK-725"


# the file


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[tuple[Shop, Segment]]:
    made = Shop(tmp_path)
    made.append("order-1", *(placed(number) for number in range(WIDTH + 3)))
    [path] = made.retention().archive(tmp_path / "archive", OWNER).files
    yield made, msgspec.msgpack.decode(path.read_bytes(), type=Segment)
    made.close()


def forged(segment: Segment, signer: SigningKey) -> dict[str, Segment]:
    rows = list(segment.entries)
    other = (*rows[0][:5], rows[1][5], *rows[0][6:])
    changed = {
        "public": (*rows[0][:7], rows[0][7].replace(b'"total":0', b'"total":9'), *rows[0][8:]),
        "meta": (*rows[0][:6], rows[0][6] + b" ", *rows[0][7:]),
        "sealed": (*rows[0][:8], b"", rows[0][9]),
        "stream": (*rows[0][:2], "/streams/other", *rows[0][3:]),
        "type": (*rows[0][:3], "other", *rows[0][4:]),
        "id": (rows[0][0], b"x" * 16, *rows[0][2:]),
        "version": (*rows[0][:4], 2, *rows[0][5:]),
        "leaf": other,
        "position": (1, *rows[0][1:]),
        "far": (WIDTH + 1, *rows[0][1:]),
    }
    made = {name: replace(segment, entries=(row, *rows[1:])) for name, row in changed.items()}
    checkpoint = Checkpoint(ORIGIN, WIDTH + 3, b"r" * 32)
    return made | {
        "twice": replace(segment, entries=(rows[0], *rows)),
        "order": replace(segment, entries=(rows[1], rows[0], *rows[2:])),
        "tile": replace(segment, tile=segment.tile[:-32] + b"x" * 32),
        "short": replace(segment, tile=segment.tile[:-32]),
        "number": replace(segment, number=1),
        "negative": replace(segment, number=-1),
        "path": replace(segment, path=segment.path[:-1]),
        "longer": replace(segment, path=(*segment.path, b"x" * 32)),
        "format": replace(segment, format="hauberk segment 2"),
        "log": replace(segment, log="example.com/ledger"),
        "unsigned": replace(segment, note=segment.note.split("\n\n")[0] + "\n"),
        "stranger": replace(segment, note=sign_checkpoint(checkpoint, SigningKey.generate())),
        "root": replace(segment, note=sign_checkpoint(checkpoint, signer)),
        "origin": replace(segment, note=sign_checkpoint(replace(checkpoint, origin="other"), signer)),
    }


def test_a_segment_that_was_changed_anywhere_is_refused(segment: tuple[Shop, Segment]) -> None:
    shop, good = segment
    key = decode_key(shop.ledger.verifier)[1]
    assert read_segment(good.encode(), ORIGIN, key) == good
    missed = []
    for name, bad in forged(good, shop.signer).items():
        try:
            read_segment(bad.encode(), ORIGIN, key)
        except RecordsError as error:
            if error.code != "HBK-725":
                missed.append(name)
        else:
            missed.append(name)
    assert missed == []


leaves = st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=9) | st.binary(max_size=9)
packed = st.recursive(leaves, lambda inner: st.lists(inner, max_size=8)).map(msgspec.msgpack.encode)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300) | packed)
def test_no_bytes_make_the_reader_fail_in_another_way(data: bytes) -> None:
    try:
        read_segment(data, ORIGIN, SigningKey.generate().public)
    except HauberkError as error:
        assert error.code == "HBK-725"  # noqa: PT017  # every one of them is refused this way


def test_denials_of_retention_are_asked_as_its_own_verbs(shop: Shop, archive: Path) -> None:
    shop.retention().archive(archive, OWNER)
    assert ("archive", RETENTION) in [(call.method, call.path) for call in shop.policy.asked]
