"""What the ledger says about keys: found however many there are, kept current, and nothing is taken away unseen."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.adapters.memory import MemoryStore
from hauberk.errors import Tampered
from hauberk.records.evidence import RECENT, Destroyed, Evidence
from hauberk.records.streams import ERASURES, HOLDS
from tests.records.made import PATIENCE
from tests.records.made import event as plain_event
from tests.records.shop import OWNER, Shop, placed


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


def cold(shop: Shop) -> Evidence:
    """What a process knows that starts now."""
    return Evidence(shop.rows, shop.ledger.log, shop.store._reader.checked)


def erased(shop: Shop, *names: str) -> list[bytes]:
    found = []
    for name in names:
        shop.append("order-1", placed(1, customer=name))
        done = shop.store.erase(name, actor=OWNER, reason="asked").result(PATIENCE)
        found.append(bytes.fromhex(done.keys[0][0]))
    return found


def taken_away(shop: Shop, stream: str, version: int) -> None:
    """What somebody does who may write the database."""
    assert isinstance(shop.inner, MemoryStore)
    [entry] = [one for one in shop.entries(stream) if one.version == version]
    shop.inner._logs[shop.ledger.log][entry.position] = None


def test_certificates_are_found_and_so_are_those_that_come_later(shop: Shop) -> None:
    first, second = erased(shop, "ann", "bob")
    evidence = cold(shop)
    known = [evidence.certificate(one) for one in (first, second)]
    assert known == [entry.id for entry in shop.entries(ERASURES) if entry.type == "records.erased"]
    [third] = erased(shop, "carl")
    assert evidence.certificate(third) is not None
    assert evidence.certificate(b"x" * 16) is None


def test_what_is_known_already_is_not_read_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    erased(shop, "ann", "bob")
    evidence = cold(shop)
    assert evidence.certificate(b"x" * 16) is None
    read: list[int] = []
    stream = MemoryStore.stream

    def counted(store: MemoryStore, log: str, name: str, **options: int) -> Iterator[object]:
        for entry in stream(store, log, name, **options):  # type: ignore[arg-type]  # as given
            read.append(entry.version)
            yield entry

    monkeypatch.setattr(MemoryStore, "stream", counted)
    assert evidence.certificate(b"x" * 16) is None
    assert read == []


@pytest.mark.parametrize("stream", [ERASURES, HOLDS])
def test_a_record_that_was_taken_away_leaves_a_gap_that_is_refused(shop: Shop, stream: str) -> None:
    erased(shop, "ann", "bob")
    for name in ("carl", "dora"):
        shop.store.hold(name, actor=OWNER, reason="case").result(PATIENCE)
    taken_away(shop, stream, 1)
    evidence = cold(shop)
    for _ in range(2):
        with pytest.raises(Tampered):
            evidence.certificate(b"x" * 16) if stream == ERASURES else evidence.held(b"x" * 32)


def test_who_saw_a_record_misses_it_when_it_is_gone(shop: Shop) -> None:
    [key] = erased(shop, "ann")
    evidence = cold(shop)
    assert evidence.certificate(key) is not None
    taken_away(shop, ERASURES, 1)
    with pytest.raises(Tampered):
        evidence.certificate(key)


def test_a_record_that_is_none_is_refused(shop: Shop) -> None:
    shop.ledger.submit(plain_event(type="records.erased", stream=ERASURES, data={"keys": [{"id": "zz"}]})).result()
    with pytest.raises(Tampered):
        cold(shop).certificate(b"x" * 16)


def test_a_certificate_elsewhere_is_none(shop: Shop) -> None:
    shop.append("order-1", placed(1))
    [key] = shop.keys.key_ids("ann")
    forged = plain_event(type="records.erased", stream="/streams/order-1", data={"keys": [{"id": key.hex()}]})
    shop.ledger.submit(forged).result(PATIENCE)
    assert cold(shop).certificate(key) is None


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.integers(0, 3_000), max_size=60),
    bulk=st.sampled_from([0, RECENT - 20, RECENT + 1, 3 * RECENT]),
)
def test_every_key_is_found_under_the_version_it_was_added_with(keys: list[int], bulk: int) -> None:
    known = Destroyed()
    expected: dict[bytes, int] = {}
    for version, number in enumerate((*range(10_000, 10_000 + bulk), *keys), 1):
        key = number.to_bytes(16)
        if key not in expected:
            expected[key] = version
            known.add(key, version)
    assert len(known) == len(expected)
    assert all(known.get(key) == version for key, version in expected.items())
    assert known.get(b"\xff" * 16) is None
    assert known.get((9_999).to_bytes(16)) is None
