"""Subscriptions: everything at least once, live, from where it was acknowledged, and only as long as it is allowed."""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.adapters.local_bus import LocalBus
from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.event import Event as Envelope
from hauberk.core.ports import Put, Write
from hauberk.core.principal import Principal, Proof
from hauberk.errors import Conflict, Denied, Malformed, OutcomeUnknown, RecordsError, Tampered, UnknownType
from hauberk.records.bell import Bell
from hauberk.records.cursor import SPACE
from hauberk.records.hidden import Redacted
from hauberk.records.permission import Permission
from hauberk.records.projection import Projection
from hauberk.records.reading import PAGE, Recorded
from hauberk.records.subscription import Subscription
from tests.records.made import PATIENCE
from tests.records.made import event as plain_event
from tests.records.shop import CLERK, NOBODY, OWNER, PACKER, POLICIES, OrderPaid, OrderPlaced, Shop, placed


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


class Listener:
    """A thread that goes through a subscription and hands over what it gets."""

    def __init__(self, subscription: Subscription[Any], *, ack: bool = False) -> None:
        self.subscription = subscription
        self.ack = ack
        self.got: queue.Queue[Recorded[Any]] = queue.Queue()
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            for item in self.subscription:
                if self.ack:
                    self.subscription.ack(item).result(PATIENCE)
                self.got.put(item)
        except RecordsError as error:
            self.error = error
        except Denied as error:
            self.error = error

    def take(self, count: int = 1) -> list[int]:
        return [self.got.get(timeout=PATIENCE).event.total for _ in range(count)]

    def stop(self) -> None:
        self.subscription.close()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    listeners: list[Listener] = []

    def start(subscription: Subscription[Any], *, ack: bool = False) -> Listener:
        listeners.append(Listener(subscription, ack=ack))
        return listeners[-1]

    yield start
    for one in listeners:
        one.stop()


def taken(subscription: Subscription[Any], count: int) -> list[Recorded[Any]]:
    items = iter(subscription)
    return [next(items) for _ in range(count)]


def totals(items: list[Recorded[Any]]) -> list[int]:
    return [item.event.total for item in items]


def test_what_was_and_what_comes_is_delivered_in_order(shop: Shop, listen: Callable[..., Listener]) -> None:
    count = PAGE + 3
    shop.append("order-1", *(placed(number) for number in range(count)))
    listener = listen(shop.store.subscribe("order-*", actor=OWNER))
    assert listener.take(count) == list(range(count))
    for number in range(count, count + 5):
        shop.append(f"order-{number}", placed(number))
        assert listener.take() == [number]


def test_a_subscription_begins_where_it_is_told(shop: Shop, listen: Callable[..., Listener]) -> None:
    shop.append("order-1", placed(0), placed(1))
    assert totals(taken(shop.store.subscribe(actor=OWNER, from_=1), 1)) == [1]
    listener = listen(shop.store.subscribe(actor=OWNER, from_=shop.store.size))
    shop.append("order-1", placed(2))
    assert listener.take() == [2]


def test_one_stream_or_one_type_can_be_subscribed_to(shop: Shop) -> None:
    shop.append("order-1", placed(0), OrderPaid(order="1", amount=1), placed(1))
    shop.append("order-2", placed(2))
    shop.append("order-1", placed(3))
    assert totals(taken(shop.store.subscribe("order-1", type=OrderPlaced, actor=OWNER), 3)) == [0, 1, 3]
    assert [item.event for item in taken(shop.store.subscribe(type=OrderPaid, actor=OWNER), 1)] == [
        OrderPaid(order="1", amount=1)
    ]


def test_closing_ends_the_wait_of_a_thread_and_of_a_coroutine(shop: Shop, listen: Callable[..., Listener]) -> None:
    listener = listen(shop.store.subscribe(actor=OWNER))
    listener.stop()

    async def wait() -> list[Recorded[Any]]:
        subscription = shop.store.subscribe(actor=OWNER)
        asyncio.get_running_loop().call_soon(subscription.close)
        return [item async for item in subscription]

    assert asyncio.run(wait()) == []


def test_coroutines_get_what_was_and_what_comes(shop: Shop) -> None:
    shop.append("order-1", *(placed(number) for number in range(PAGE + 1)))

    async def follow(subscription: Subscription[Any], count: int) -> list[int]:
        got = []
        async for item in subscription:
            got.append(item.event.total)
            if len(got) == count:
                break
        return got

    async def use() -> list[list[int]]:
        many = [asyncio.create_task(follow(shop.store.subscribe(actor=OWNER), PAGE + 2)) for _ in range(20)]
        await shop.store.append("order-1", [placed(PAGE + 1)], actor=OWNER)
        return await asyncio.wait_for(asyncio.gather(*many), PATIENCE)

    assert asyncio.run(use()) == [list(range(PAGE + 2))] * 20


def test_a_bell_that_rang_before_anybody_waited_is_heard(shop: Shop) -> None:
    async def use(bell: Bell) -> None:
        bell.ring()
        await bell.heard(PATIENCE)
        threading.Timer(0.01, bell.ring).start()
        await bell.heard(PATIENCE)
        await bell.heard(0.001)  # nobody rings

    bell = Bell()
    asyncio.run(asyncio.wait_for(use(bell), PATIENCE))
    bell.ring()  # its loop is gone
    bell.hear(PATIENCE)
    assert shop.store.size == 0


# other processes


def second(shop: Shop, directory: Path, **options: Any) -> Shop:  # noqa: ANN401  # as `Shop` takes them
    """Another process on the same store."""
    other = Shop(directory, shop.inner, **options)
    other.close()
    other.signer, other.keyring, other.rows = shop.signer, shop.keyring, shop.rows
    other.open()
    return other


def test_another_process_is_told_by_the_bus(tmp_path: Path, listen: Callable[..., Listener]) -> None:
    bus = LocalBus()
    shop = Shop(tmp_path, bus=bus)
    other = second(shop, tmp_path, bus=bus)
    listener = listen(other.store.subscribe(actor=OWNER))
    shop.append("order-1", placed(1))
    assert listener.take() == [1]
    listener.stop()
    shop.close()
    other.close()
    bus.close()


def test_without_a_notification_looking_again_finds_it(tmp_path: Path, listen: Callable[..., Listener]) -> None:
    shop = Shop(tmp_path)
    other = second(shop, tmp_path, poll=0.01)
    listener = listen(other.store.subscribe(actor=OWNER))
    shop.append("order-1", placed(1))
    assert listener.take() == [1]
    listener.stop()
    shop.close()
    other.close()


# cursors


def test_delivery_goes_on_behind_what_was_acknowledged(tmp_path: Path) -> None:
    inner = SqliteStore(tmp_path / "shop.db")
    shop = Shop(tmp_path, inner)
    shop.append("order-1", *(placed(number) for number in range(6)))
    subscription = shop.store.subscribe(actor=OWNER, name="mail")
    items = taken(subscription, 4)
    subscription.ack(items[1]).result(PATIENCE)
    assert subscription.position == 2
    shop.again()
    again = shop.store.subscribe(actor=OWNER, name="mail")
    assert totals(taken(again, 4)) == [2, 3, 4, 5]  # 2 and 3 a second time
    shop.close()
    inner.close()


def test_acknowledging_one_is_acknowledging_all_before_and_never_goes_back(shop: Shop) -> None:
    shop.append("order-1", *(placed(number) for number in range(5)))
    subscription = shop.store.subscribe(actor=OWNER, name="mail")
    items = taken(subscription, 5)
    subscription.ack(items[3]).result(PATIENCE)
    subscription.ack(items[0]).result(PATIENCE)
    assert totals(taken(shop.store.subscribe(actor=OWNER, name="mail"), 1)) == [4]


def test_many_acknowledgements_at_once_are_few_writes(shop: Shop) -> None:
    shop.append("order-1", *(placed(number) for number in range(200)))
    subscription = shop.store.subscribe(actor=OWNER, name="mail")
    pending = [subscription.ack(item) for item in taken(subscription, 200)]
    for one in pending:
        one.result(PATIENCE)
    row = next(shop.rows.scan(SPACE))
    assert row.revision < 150
    assert subscription.position == 200


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_whatever_is_acknowledged_whenever_nothing_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    count = 40
    shop.append("order-1", *(placed(number) for number in range(count)))
    seen: list[int] = []
    behind = 0
    for take, acknowledged in steps:  # each step is a process that stops
        subscription = shop.store.subscribe(actor=OWNER, name="mail")
        items = taken(subscription, min(take, count - behind)) if behind < count else []
        assert totals(items) == list(range(behind, behind + len(items)))
        seen.extend(totals(items))
        if 0 < acknowledged <= len(items):
            subscription.ack(items[acknowledged - 1]).result(PATIENCE)
            behind += acknowledged
    assert set(range(behind)) <= set(seen)
    shop.close()


def test_the_newest_subscription_of_a_name_takes_the_cursor_over(shop: Shop) -> None:
    shop.append("order-1", placed(0), placed(1))
    older = shop.store.subscribe(actor=OWNER, name="mail")
    [first] = taken(older, 1)
    newer = shop.store.subscribe(actor=OWNER, name="mail")
    assert totals(taken(newer, 1)) == [0]
    with pytest.raises(Conflict):
        older.ack(first).result(PATIENCE)
    newer.ack(first).result(PATIENCE)


def test_without_that_the_older_one_moves_it_past_what_the_newer_one_has_not_done(shop: Shop) -> None:
    shop.append("order-1", placed(0), placed(1), placed(2))
    older = shop.store.subscribe(actor=OWNER, name="mail")
    items = taken(older, 3)
    taken(shop.store.subscribe(actor=OWNER, name="mail"), 1)  # it is still at work on the first
    row = next(shop.rows.scan(SPACE))
    shop.rows.commit(Write(rows=(Put(SPACE, row.key, b"\x92\x03\x01"),)))  # as an unconditional write would
    assert items[-1].position == 2
    shop.append("order-1", placed(3))
    assert totals(taken(shop.store.subscribe(actor=OWNER, name="mail"), 1)) == [3]


def test_two_actors_may_use_the_same_name(shop: Shop) -> None:
    shop.append("order-1", placed(0), placed(1))
    mine = shop.store.subscribe("order-*", actor=OWNER, name="mail")
    mine.ack(taken(mine, 1)[0]).result(PATIENCE)
    assert totals(taken(shop.store.subscribe("order-*", actor=PACKER, name="mail"), 1)) == [0]


def test_a_cursor_somebody_wrote_without_the_key_is_refused(shop: Shop) -> None:
    shop.append("order-1", placed(0))
    taken(shop.store.subscribe(actor=OWNER, name="mail"), 1)
    key = next(shop.inner.scan(SPACE)).key
    shop.inner.commit(Write(rows=(Put(SPACE, key, b"\x92\x07\x01"),)))
    with pytest.raises(Tampered):
        taken(shop.store.subscribe(actor=OWNER, name="mail"), 1)


def test_a_subscription_without_a_name_has_nothing_to_acknowledge(shop: Shop) -> None:
    shop.append("order-1", placed(0))
    subscription = shop.store.subscribe(actor=OWNER)
    [item] = taken(subscription, 1)
    assert subscription.position == 1
    with pytest.raises(RecordsError):
        subscription.ack(item)


def test_acknowledgements_fail_while_the_disk_does_and_go_on_after(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.append("order-1", placed(0), placed(1))
    subscription = shop.store.subscribe(actor=OWNER, name="mail")
    first, last = taken(subscription, 2)

    def full(_store: MemoryStore, _write: Write) -> int:
        raise RecordsError("HBK-703", "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "commit", full)
        with pytest.raises(RecordsError):
            subscription.ack(first).result(PATIENCE)
    subscription.ack(last).result(PATIENCE)
    assert subscription.position == 2


def test_a_write_whose_outcome_is_unknown_takes_the_cursor_from_nobody(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.append("order-1", *(placed(number) for number in range(4)))
    subscription = shop.store.subscribe(actor=OWNER, name="mail")
    first, second, third, last = taken(subscription, 4)
    commit, get = MemoryStore.commit, MemoryStore.get

    def answer_lost(store: MemoryStore, write: Write) -> int:
        commit(store, write)
        raise OutcomeUnknown("the connection was lost")

    def nothing_written(_store: MemoryStore, _write: Write) -> int:
        raise OutcomeUnknown("the connection was lost")

    def unreadable(_store: MemoryStore, _space: str, _key: bytes) -> None:
        raise RecordsError("HBK-703", "the connection is lost")

    def failing(number: int, fail: Callable[[MemoryStore, Write], int]) -> None:
        left = [fail] * number

        def once(store: MemoryStore, write: Write) -> int:
            return left.pop()(store, write) if left else commit(store, write)

        monkeypatch.setattr(MemoryStore, "commit", once)

    failing(1, answer_lost)
    subscription.ack(first).result(PATIENCE)  # the row says that it was written
    failing(1, nothing_written)
    subscription.ack(second).result(PATIENCE)  # written at the second attempt
    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "get", unreadable)
        failing(1, answer_lost)
        with pytest.raises(RecordsError):
            subscription.ack(third).result(PATIENCE)  # nobody could look
    assert MemoryStore.get is get
    subscription.ack(last).result(PATIENCE)  # and yet it is still ours
    assert subscription.position == 4


def test_after_an_unknown_outcome_somebody_else_who_took_over_is_noticed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.append("order-1", placed(0), placed(1))
    older = shop.store.subscribe(actor=OWNER, name="mail")
    [first] = taken(older, 1)
    taken(shop.store.subscribe(actor=OWNER, name="mail"), 1)
    commit = MemoryStore.commit
    left = [1]

    def lost_once(store: MemoryStore, write: Write) -> int:
        if left:
            left.pop()
            raise OutcomeUnknown("the connection was lost")
        return commit(store, write)

    monkeypatch.setattr(MemoryStore, "commit", lost_once)
    with pytest.raises(Conflict):
        older.ack(first).result(PATIENCE)


def test_the_name_of_a_cursor_is_no_longer_than_a_row_may_be(shop: Shop) -> None:
    shop.append("order-1", placed(0))
    assert totals(taken(shop.store.subscribe(actor=OWNER, name="m" * 300), 1)) == [0]
    for name in ("m" * 301, "ü" * 151):
        with pytest.raises(Malformed):
            taken(shop.store.subscribe(actor=OWNER, name=name), 1)


# rights


def test_a_running_subscription_is_cut_when_its_right_ends(shop: Shop, listen: Callable[..., Listener]) -> None:
    shop.append("order-1", placed(0), placed(1))
    listener = listen(shop.store.subscribe("order-*", actor=PACKER))
    assert listener.take(2) == [0, 1]
    shop.policy.apply(POLICIES.replace("sa/packer", "sa/nobody"))
    shop.append("order-1", placed(2))
    listener.thread.join(PATIENCE)
    assert isinstance(listener.error, Denied)
    assert listener.got.empty()
    assert PACKER.id.encode() in shop.entries("/records/denied")[-1].meta


def test_it_is_cut_in_the_middle_of_what_was_fetched_already(shop: Shop) -> None:
    shop.append("order-1", *(placed(number) for number in range(5)))
    items = iter(shop.store.subscribe("order-*", actor=PACKER))
    assert next(items).event.total == 0
    shop.policy.apply(NOBODY)
    with pytest.raises(Denied):
        next(items)


def test_without_asking_again_it_goes_on_for_ever(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Permission, "moment", property(lambda _: "always the same"))
    shop.append("order-1", *(placed(number) for number in range(5)))
    items = iter(shop.store.subscribe("order-*", actor=PACKER))
    next(items)
    shop.policy.apply(NOBODY)
    shop.append("order-1", placed(5))
    assert [next(items).event.total for _ in range(5)] == [1, 2, 3, 4, 5]


def test_what_was_fetched_is_shown_as_it_may_be_seen_now(shop: Shop) -> None:
    shop.append("order-1", placed(0), placed(1))
    items = iter(shop.store.subscribe("order-*", actor=PACKER))
    assert next(items).event.email == "ann@example.org"
    shop.policy.apply(POLICIES.replace("[subscribe, decrypt]", "[subscribe]"))
    assert isinstance(next(items).event.email, Redacted)


def test_rights_end_for_coroutines_too(shop: Shop) -> None:
    shop.append("order-1", placed(0), placed(1))

    async def use() -> int:
        count = 0
        async for _ in shop.store.subscribe("order-*", actor=PACKER):
            count += 1
            shop.policy.apply(NOBODY)
        return count

    with pytest.raises(Denied):
        asyncio.run(use())


def test_who_may_read_may_not_subscribe(shop: Shop) -> None:
    shop.append("order-1", placed(0))
    with pytest.raises(Denied):
        taken(shop.store.subscribe("order-1", actor=CLERK), 1)


def test_an_event_that_cannot_be_shown_stops_it_there_and_it_can_go_on(shop: Shop) -> None:
    shop.append("order-1", placed(0))
    shop.ledger.submit(plain_event(type="other.thing.v1", stream="/streams/order-1")).result(PATIENCE)
    shop.append("order-1", placed(2))
    subscription = shop.store.subscribe(actor=OWNER)
    items = iter(subscription)
    assert next(items).event.total == 0
    for _ in range(2):
        with pytest.raises(UnknownType):
            next(iter(subscription))
    kept = shop.store.subscribe(actor=OWNER, from_=subscription.position, unknown="keep")
    assert [item.position for item in taken(kept, 2)] == [1, 2]


def test_it_is_cut_when_the_proof_of_who_subscribed_has_expired(shop: Shop) -> None:
    shop.append("order-1", *(placed(number) for number in range(5)))
    packer = replace(PACKER, proof=Proof("mtls", {"serial": "4f", "expires": shop.clock.time() + 60}))
    items = iter(shop.store.subscribe("order-*", actor=packer))
    assert next(items).event.total == 0
    shop.clock.advance(59)
    assert next(items).event.total == 1
    shop.clock.advance(1)
    with pytest.raises(Denied):
        next(items)
    assert b"expired" in shop.entries("/records/denied")[-1].public


# the end


def test_closing_the_store_ends_who_waits_at_once(shop: Shop, listen: Callable[..., Listener]) -> None:
    shop.append("order-1", placed(0))
    listener = listen(shop.store.subscribe("order-*", actor=OWNER))
    assert listener.take() == [0]
    shop.store.close()
    listener.thread.join(PATIENCE / 2)  # far below the time after which it would look by itself
    assert not listener.thread.is_alive()
    assert listener.error is None
    assert listener.subscription.closed
    assert list(shop.store.subscribe("order-*", actor=OWNER)) == []


def test_closing_the_store_ends_who_waits_in_a_coroutine(shop: Shop) -> None:
    shop.append("order-1", placed(0))

    async def use() -> int:
        count = 0
        async for _ in shop.store.subscribe("order-*", actor=OWNER):
            count += 1
            asyncio.get_running_loop().call_later(0.01, shop.store.close)
        return count

    assert asyncio.run(asyncio.wait_for(use(), PATIENCE / 2)) == 1


def test_without_a_last_ring_who_waits_goes_on_waiting(shop: Shop, listen: Callable[..., Listener]) -> None:
    listener = listen(shop.store.subscribe("order-*", actor=OWNER))
    shop.store._bells.ring()  # as any other ring
    listener.thread.join(0.1)
    assert listener.thread.is_alive()


# projections


class Mails(Projection):
    """Whom to write to, by key; forgets whoever is erased."""

    name = "mails"
    streams = ("order-*",)

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.seen: list[int] = []
        self.done = threading.Event()
        self.until = 0

    def apply(self, item: Recorded[Any]) -> None:
        self.seen.append(item.position)
        if isinstance(item.event, OrderPlaced) and isinstance(item.event.email, str):
            self.known[item.keys["email"]] = item.event.email
        self._check(item)

    def forget(self, keys: frozenset[str]) -> None:
        for key in keys:
            self.known.pop(key, None)
        self.done.set()

    def _check(self, item: Recorded[Any]) -> None:
        if item.position >= self.until:
            self.done.set()


def follow(projection: Projection, shop: Shop, actor: Principal = OWNER) -> tuple[Subscription[Any], threading.Thread]:
    subscription = projection.subscribe(shop.store, actor)
    thread = threading.Thread(target=projection.follow, args=(subscription,))
    thread.start()
    return subscription, thread


def test_a_projection_follows_forgets_and_goes_on_where_it_was(shop: Shop) -> None:
    shop.append("order-1", placed(0, customer="ann"), placed(1, customer="bob"))
    mails = Mails()
    mails.until = 1
    subscription, thread = follow(mails, shop)
    assert mails.done.wait(PATIENCE)
    assert sorted(mails.known.values()) == ["ann@example.org", "bob@example.org"]
    mails.done.clear()
    shop.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
    assert mails.done.wait(PATIENCE)
    assert list(mails.known.values()) == ["bob@example.org"]
    subscription.close()
    thread.join(PATIENCE)
    shop.append("order-1", placed(2))
    later = Mails()
    later.until = shop.store.size - 1
    subscription, thread = follow(later, shop)
    assert later.done.wait(PATIENCE)
    subscription.close()
    thread.join(PATIENCE)
    assert later.seen == [later.until]


def test_a_projection_runs_in_a_coroutine_too(shop: Shop) -> None:
    shop.append("order-1", placed(0), placed(1))

    class Two(Mails):
        name = "two"

        def _check(self, item: Recorded[Any]) -> None:
            if item.position == 1:
                subscription.close()

    projection = Two()
    subscription = projection.subscribe(shop.store, OWNER)
    asyncio.run(projection.follow_async(subscription))
    assert projection.seen == [0, 1]
    assert subscription.position == 2


def test_a_forged_certificate_in_a_stream_of_the_application_makes_nobody_forget(shop: Shop) -> None:
    shop.append("order-1", placed(0))
    mails = Mails()
    [item] = shop.store.read("order-1", actor=OWNER)
    mails.apply(item)
    forged: Envelope = plain_event(
        type="records.erased", stream="/streams/order-1", data={"keys": [{"id": item.keys["email"]}]}
    )
    shop.ledger.submit(forged).result(PATIENCE)
    for one in shop.store.read(actor=OWNER, unknown="keep"):
        mails.take(one)
    assert len(mails.known) == 1
