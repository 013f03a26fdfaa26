"""Snapshots: the state of a stream, as protected as the stream itself."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.adapters.memory import MemoryStore
from hauberk.errors import Denied, Malformed, Oversized, Tampered, UnknownSubject, UnknownType
from hauberk.records import typed
from hauberk.records.hidden import Erased, Pii, Redacted, Subject
from hauberk.records.snapshot import TYPE, Snapshot
from hauberk.records.typed import Event
from hauberk.records.upcasting import Fields, upcast
from tests.records.made import ORIGIN, PATIENCE
from tests.records.shop import CLERK, OWNER, PACKER, POLICIES, STRANGER, OrderState, Shop, placed

READER = POLICIES.replace("[append, read]", "[append, read, decrypt]")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    made.append("order-1", placed(1), placed(2), placed(3))
    yield made
    made.close()


def save(shop: Shop, state: object, version: int = 2, **options: str) -> None:
    shop.store.save_snapshot("order-1", version, state, actor=OWNER, **options).result(PATIENCE)


def load(shop: Shop, stream: str = "order-1") -> Snapshot | None:
    return shop.store.snapshot(stream, actor=OWNER).result(PATIENCE)


STATE = OrderState(customer="ann", email="ann@example.org", total=3)


def test_the_latest_snapshot_of_a_stream_comes_back_and_reading_goes_on_behind_it(shop: Shop) -> None:
    assert load(shop) is None
    save(shop, STATE, 1)
    save(shop, replace(STATE, total=9), 2)
    found = load(shop)
    assert found is not None
    assert (found.version, found.state) == (2, replace(STATE, total=9))
    assert shop.read("order-1", from_=found.version + 1) == [placed(3)]
    assert load(shop, "order-2") is None
    shop.again()
    assert load(shop) == found
    assert shop.ledger.proof(found.position).position == found.position


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(state=plain, subject=st.sampled_from(["", "ann"]))
def test_a_plain_state_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, state: object, subject: str
) -> None:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.append("order-1", placed(1))
    try:
        save(shop, state, 1, subject=subject)
    except Malformed:
        assert "\\ud" in ascii(state)  # half a surrogate pair
    else:
        found = load(shop)
        assert found is not None
        assert found.state == state
    shop.close()


def test_what_a_snapshot_says_about_people_is_sealed(shop: Shop) -> None:
    save(shop, STATE)
    save(shop, {"email": "ann@example.org"}, subject="ann")
    for entry in shop.entries("/snapshots/order-1"):
        assert b"ann" not in entry.meta + entry.public + entry.sealed
        assert entry.type == TYPE
    save(shop, {"email": "ann@example.org"})  # nobody's, as its caller says
    assert b"ann@example.org" in shop.entries("/snapshots/order-1")[-1].public


@pytest.mark.parametrize("state", [STATE, {"email": "ann@example.org"}], ids=["typed", "plain"])
def test_erasing_a_person_takes_its_snapshots_along(shop: Shop, state: object) -> None:
    save(shop, state, subject="ann" if isinstance(state, dict) else "")
    shop.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
    found = load(shop)
    assert found is not None
    if isinstance(found.state, OrderState):
        assert isinstance(found.state.email, Erased)
        assert found.state.total == 3
    else:
        assert isinstance(found.state, Erased)


def test_who_may_do_what_with_the_stream_may_do_it_with_its_snapshots(shop: Shop) -> None:
    shop.store.save_snapshot("order-1", 2, STATE, actor=CLERK).result(PATIENCE)
    found = shop.store.snapshot("order-1", actor=CLERK).result(PATIENCE)
    assert found is not None
    assert isinstance(found.state.email, Redacted)
    shop.policy.apply(READER)
    found = shop.store.snapshot("order-1", actor=CLERK).result(PATIENCE)
    assert found is not None
    assert found.state == STATE
    for who in (STRANGER, PACKER):
        with pytest.raises(Denied):
            shop.store.snapshot("order-1", actor=who).result(PATIENCE)
        with pytest.raises(Denied):
            shop.store.save_snapshot("order-1", 2, STATE, actor=who).result(PATIENCE)


@pytest.mark.parametrize("version", [0, -1, 4])
def test_a_snapshot_is_of_a_version_that_there_is(shop: Shop, version: int) -> None:
    with pytest.raises(Malformed):
        save(shop, STATE, version)
    assert load(shop) is None


def test_what_cannot_be_stored_is_refused_at_once(shop: Shop) -> None:
    class Abstract(Event):
        n: int

    for state, error in (
        (object(), Malformed),
        ({"x": math.nan}, Malformed),
        ({"x": "y" * 70_000}, Oversized),
        (Abstract(n=1), UnknownType),
        (replace(STATE, customer=""), UnknownSubject),
        (replace(STATE, total="x"), Malformed),
    ):
        with pytest.raises(error):
            save(shop, state)
    assert shop.store.size == 3


def test_an_older_state_is_upcast(shop: Shop) -> None:
    class Before(Event, type="test.state.v1"):
        who: Subject
        mail: Pii[str]

    class After(Event, type="test.state.v2"):
        who: Subject
        email: Pii[str]
        count: int

    @upcast("test.state.v1", to="test.state.v2")
    def renamed(data: Fields) -> Fields:
        return {"who": data["who"], "email": data["mail"], "count": 0}

    save(shop, Before(who="ann", mail="m"))
    found = load(shop)
    assert found is not None
    assert found.state == After(who="ann", email="m", count=0)


def test_a_snapshot_that_was_changed_or_moved_in_the_database_is_not_loaded(shop: Shop) -> None:
    save(shop, STATE)
    [entry] = shop.entries("/snapshots/order-1")
    assert isinstance(shop.inner, MemoryStore)
    log = shop.inner._logs[ORIGIN]
    for forged in (
        replace(entry, public=entry.public.replace(b"3", b"4")),
        replace(entry, stream="/snapshots/order-2"),
    ):
        log[entry.position] = forged
        with pytest.raises(Tampered):
            load(shop, forged.stream.removeprefix("/snapshots/"))


def test_a_snapshot_nobody_can_read_any_more_says_so(shop: Shop) -> None:
    class Gone(Event, type="test.gone.v1"):
        n: int

    save(shop, Gone(n=1))
    typed._classes.pop("test.gone.v1")
    with pytest.raises(UnknownType):
        load(shop)


def test_nothing_private_of_a_snapshot_is_in_what_is_printed() -> None:
    typed_state = OrderState(customer="ann", email="ann@example.org", total=3)
    for state in ({"email": "ann@example.org"}, ["ann"], typed_state):
        shown = Snapshot(1, state, 3)
        rich = list(shown.__rich_repr__())
        assert "ann" not in repr(shown)
        assert rich == [repr(shown)]
        assert "version=1" in repr(shown)
    assert "total=3" in repr(Snapshot(1, typed_state, 3))
    assert "Erased" in repr(Snapshot(1, Erased("4f"), 3))
