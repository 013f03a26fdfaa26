"""Older events are read as newer ones, and what is sealed stays sealed on the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hauberk.errors import Malformed, UnknownType
from hauberk.records.hidden import Erased, Pii, Redacted, Subject
from hauberk.records.typed import Event, Untyped
from hauberk.records.upcasting import Fields, Sealed, chain, sources, upcast
from tests.records.made import event as plain_event
from tests.records.shop import CLERK, OWNER, Shop


class AccountV1(Event, type="bank.account.opened.v1"):
    holder: Subject
    mail: Pii[str]
    balance: str


class AccountV2(Event, type="bank.account.opened.v2"):
    holder: Subject
    email: Pii[str]
    cents: int


class AccountV3(Event, type="bank.account.opened.v3"):
    holder: Subject
    email: Pii[list[str]]
    nickname: Pii[str | None] = None
    cents: int
    currency: str


@upcast("bank.account.opened.v1", to="bank.account.opened.v2")
def _cents(data: Fields) -> Fields:
    data["email"] = data.pop("mail")
    return data | {"cents": int(float(data.pop("balance")) * 100)}


@upcast("bank.account.opened.v2", to="bank.account.opened.v3")
def _several(data: Fields) -> Fields:
    return data | {"email": data["email"].then(lambda one: [one]), "nickname": None, "currency": "EUR"}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


def opened() -> AccountV1:
    return AccountV1(holder="ann", mail="ann@example.org", balance="12.5")


def test_an_old_event_is_read_as_the_newest_version(shop: Shop) -> None:
    shop.append("order-1", opened(), AccountV2(holder="bob", email="b", cents=7))
    newest = [
        AccountV3(holder="ann", email=["ann@example.org"], cents=1250, currency="EUR"),
        AccountV3(holder="bob", email=["b"], cents=7, currency="EUR"),
    ]
    assert shop.read() == newest
    [first, _] = shop.store.read(actor=OWNER)
    assert first.type == "bank.account.opened.v1"
    assert set(first.keys) == {"holder", "mail"}


def test_reading_by_the_newest_class_finds_the_old_events_too(shop: Shop) -> None:
    shop.append("order-1", opened(), AccountV3(holder="c", email=[], cents=0, currency="EUR"))
    assert len(shop.read(type=AccountV3)) == 2
    assert len(shop.read(type="bank.account.opened.v1")) == 1
    assert sources({"bank.account.opened.v3"}) == set(chain("bank.account.opened.v1"))


def test_what_is_sealed_stays_sealed_under_its_new_name(shop: Shop) -> None:
    shop.append("order-1", opened())
    [event] = shop.read("order-1", actor=CLERK)
    assert isinstance(event, AccountV3)
    assert isinstance(event.email, Redacted)
    assert event.cents == 1250
    shop.store.erase("ann", actor=OWNER, reason="asked for it").result()
    [event] = shop.read()
    assert isinstance(event, AccountV3)
    assert isinstance(event.email, Erased)


def test_what_is_stored_does_not_change(shop: Shop) -> None:
    before = shop.entry(shop.append("order-1", opened()).position)
    shop.read()
    assert shop.entry(0) == before
    assert before.public == b'{"balance":"12.5"}'


class Leak(Event, type="test.leak.v2"):
    who: Subject
    email: Pii[str]
    note: Any


def leaking(shop: Shop, how: str) -> list[Event]:
    """Read an event whose upcaster tries to get a private value out."""

    def leak(data: Fields) -> Fields:
        if how == "moved":
            return {"who": data["who"], "email": data["email"], "note": data["email"]}
        if how == "nested":
            return data | {"note": [{"deep": data["email"]}]}
        return data | {"note": str(data["email"])}

    class Before(Event, type="test.leak.v1"):
        who: Subject
        email: Pii[str]

    upcast("test.leak.v1", to="test.leak.v2")(leak)
    shop.append("order-1", Before(who="ann", email="ann@example.org"))
    return shop.read()


@pytest.mark.parametrize("how", ["moved", "nested"])
def test_a_private_value_does_not_become_a_clear_one(shop: Shop, how: str) -> None:
    with pytest.raises(Malformed):
        leaking(shop, how)


def test_as_text_a_sealed_value_tells_its_name_only(shop: Shop) -> None:
    [event] = leaking(shop, "text")
    assert isinstance(event, Leak)
    assert event.note == "Sealed('email')"


def test_without_the_seal_an_upcaster_could_have_copied_it() -> None:
    data = {"who": "ann", "email": "ann@example.org"}
    assert (data | {"note": data["email"]})["note"] == "ann@example.org"


@pytest.mark.parametrize(
    "broken",
    [lambda data: data["missing"], lambda data: int(data and "x"), lambda _: None, lambda data: data | {"n": "x"}],
    ids=["missing", "unreadable", "nothing", "wrong"],
)
def test_an_upcaster_that_fails_makes_a_malformed_event_and_what_came_before_is_read(shop: Shop, broken: Any) -> None:  # noqa: ANN401  # any function
    class Old(Event, type="test.broken.v1"):
        n: int

    class New(Event, type="test.broken.v2"):
        n: int

    upcast("test.broken.v1", to="test.broken.v2")(broken)
    shop.append("order-1", New(n=1), Old(n=2))
    reading = iter(shop.store.read("order-1", actor=OWNER))
    assert next(reading).event == New(n=1)
    with pytest.raises(Malformed):
        next(reading)


def test_a_chain_has_one_way_and_no_way_back() -> None:
    with pytest.raises(TypeError, match="already"):
        upcast("bank.account.opened.v1", to="bank.account.opened.v3")(lambda data: data)
    with pytest.raises(TypeError, match="itself"):
        upcast("bank.account.opened.v3", to="bank.account.opened.v1")(lambda data: data)
    with pytest.raises(TypeError, match="itself"):
        upcast("test.same.v1", to="test.same.v1")(lambda data: data)


def test_a_type_nobody_knows_is_an_error_of_its_own_or_kept_as_it_is(shop: Shop) -> None:
    stranger = plain_event(type="other.thing.v1", stream="/streams/order-1")
    shop.ledger.submit(stranger).result()
    with pytest.raises(UnknownType):
        shop.read()
    [event] = shop.read(unknown="keep")
    assert event == Untyped(data={"number": 0})


def test_a_sealed_value_that_is_left_out_is_left_out() -> None:
    assert repr(Sealed("email").then(str)) == "Sealed('email')"
