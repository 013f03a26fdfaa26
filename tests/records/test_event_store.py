"""The event store: appended once, all or nothing, at the version expected, and read as it was."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from hauberk.adapters.memory import MemoryStore
from hauberk.core.call import Address as Origin
from hauberk.core.call import Call
from hauberk.core.event import SIGNED, Entry, Leaf
from hauberk.core.ids import uuid7
from hauberk.core.ports import ANY, Put
from hauberk.crypto.datakey import DataKey
from hauberk.crypto.merkle import leaf_hash, verify_inclusion
from hauberk.crypto.note import decode_key, verify_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import Conflict, IdTaken, Malformed, RecordsError, Tampered, UnknownType
from hauberk.records.appending import NO_STREAM, Batch
from hauberk.records.ledger import Ledger
from hauberk.records.permission import Context
from hauberk.records.reading import PAGE, Recorded
from hauberk.records.signed_tree import SignedTree
from hauberk.records.statement import Producer
from hauberk.records.store import EventStore
from hauberk.records.typed import Event
from hauberk.records.verify import verify_store
from tests.records.forger import leafed
from tests.records.made import ORIGIN, PATIENCE
from tests.records.shop import ANN, ENGINES, NOBODY, OWNER, OrderPaid, OrderPlaced, Shop, placed, stored


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=ENGINES)
def any_shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    with stored(request.param, tmp_path) as inner:
        made = Shop(tmp_path, inner, shared=request.param == "postgres")
        yield made
        made.close()


# appending


def test_what_is_appended_is_read_and_proven(any_shop: Shop) -> None:
    shop = any_shop
    events = [placed(1), OrderPaid(order="order-1", amount=3)]
    done = shop.append("order-1", *events, expected=NO_STREAM)
    assert (done.positions, done.position, done.version) == ((0, 1), 1, 2)
    assert shop.read("order-1") == events
    proof = done.proof(0)
    key = decode_key(shop.ledger.verifier)[1]
    signed = verify_checkpoint(proof.checkpoint, ORIGIN, key)
    verify_inclusion(leaf_hash(proof.leaf), 0, signed.size, proof.path, signed.root)
    [item, _] = shop.store.read("order-1", actor=OWNER)
    assert item.proof() == proof
    verify_store(shop.inner, shop.ledger.verifier)


@pytest.mark.parametrize(("there", "expected"), [(0, 1), (1, 0), (1, 2), (2, 1), (0, 7)])
def test_a_stream_elsewhere_than_expected_is_a_conflict_that_says_where(shop: Shop, there: int, expected: int) -> None:
    for number in range(there):
        shop.append("order-1", placed(number))
    with pytest.raises(Conflict) as caught:
        shop.append("order-1", placed(9), expected=expected)
    assert caught.value.context["found"] == there
    assert shop.store.size == there


def test_expecting_the_version_there_is_appends(shop: Shop) -> None:
    assert shop.append("order-1", placed(1), expected=NO_STREAM).version == 1
    assert shop.append("order-1", placed(2), placed(3), expected=1).version == 3
    assert shop.append("order-1", placed(4), expected=ANY).version == 4


def test_of_many_who_expect_the_same_version_one_wins(any_shop: Shop) -> None:
    def attempt(number: int) -> bool:
        try:
            any_shop.append("order-1", placed(number), expected=NO_STREAM)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(24))) == 1
    assert any_shop.store.size == 1


def test_several_streams_are_appended_to_together_or_not_at_all(shop: Shop) -> None:
    both = [Batch("order-1", [placed(1)], NO_STREAM), Batch("order-2", [placed(2), placed(3)], NO_STREAM)]
    done = shop.store.append_many(both, actor=OWNER).result(PATIENCE)
    assert done.positions == (0, 1, 2)
    later = [Batch("order-1", [placed(4)], 1), Batch("order-2", [placed(5)], 1)]
    with pytest.raises(Conflict):
        shop.store.append_many(later, actor=OWNER).result(PATIENCE)
    assert shop.store.size == 3


def test_rows_go_along_with_events_or_neither_is_written(shop: Shop) -> None:
    row = Put("outbox", b"1", b"mail", expected=0)
    shop.store.append_many([Batch("order-1", [placed(1)])], actor=OWNER, rows=[row]).result(PATIENCE)
    with pytest.raises(Conflict):
        shop.store.append_many([Batch("order-1", [placed(2)])], actor=OWNER, rows=[row]).result(PATIENCE)
    assert shop.store.size == 1
    found = shop.rows.get("outbox", b"1")
    assert found is not None
    assert found.value == b"mail"


def test_two_expectations_about_one_stream_contradict_each_other(shop: Shop) -> None:
    with pytest.raises(Malformed):
        shop.store.append_many([Batch("order-1", [placed(1)], 0), Batch("order-1", [placed(2)], 1)], actor=OWNER)


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "a b", "a//b", "/services/production/order-service", "/records/erasures", "*", "order-*"),
        *("a/../b", "..", "ann@example.org", "x" * 300, "ordér", "a\n", "-a"),
    ],
)
def test_only_streams_of_the_application_are_appended_to(shop: Shop, name: str) -> None:
    with pytest.raises(Malformed):
        shop.append(name, placed(1))


@pytest.mark.parametrize("name", ["order-17", "a", "Tenant_7/order-17", "/streams/order-17", "x:y~z=1+2.3"])
def test_names_are_stored_as_they_are(shop: Shop, name: str) -> None:
    shop.append(name, placed(1))
    assert shop.entry(0).stream == f"/streams/{name.removeprefix('/streams/')}"
    [item] = shop.store.read(name, actor=OWNER)
    assert item.stream == name.removeprefix("/streams/")


def test_nothing_or_something_without_a_type_is_not_appended(shop: Shop) -> None:
    class Abstract(Event):
        order: str

    with pytest.raises(Malformed):
        shop.append("order-1")
    with pytest.raises(UnknownType):
        shop.append("order-1", Abstract(order="1"))
    with pytest.raises(Malformed):
        shop.append("order-1", placed(1), expected=-2)


# trying again


def test_the_same_ids_again_are_the_same_events(any_shop: Shop) -> None:
    shop, ids = any_shop, [uuid7(), uuid7()]
    first = shop.append("order-1", placed(1), placed(2), ids=ids, expected=NO_STREAM)
    shop.clock.advance(60)
    shop.policy.apply(NOBODY.replace("spec: {}", "spec: {rules: [{}]}"))  # other policies allow it this time
    again = shop.append("order-1", placed(1), placed(2), ids=ids, expected=NO_STREAM)
    assert (again.positions, again.ids) == (first.positions, first.ids) == ((0, 1), tuple(ids))
    assert shop.append("order-1", placed(1), placed(2), ids=ids).positions == (0, 1)
    assert shop.store.size == 2


def test_an_id_that_stands_for_another_event_is_taken(shop: Shop) -> None:
    ids = [uuid7()]
    shop.append("order-1", placed(1), ids=ids)
    for other in (placed(2), placed(1, email="other"), placed(1, customer="bob"), OrderPaid(order="order-1", amount=1)):
        with pytest.raises(IdTaken):
            shop.append("order-1", other, ids=ids)
    with pytest.raises(IdTaken):
        shop.append("order-2", placed(1), ids=ids)
    with pytest.raises(IdTaken):
        shop.append("order-1", placed(1), ids=ids, actor=Context(peer=OWNER.__class__(OWNER.kind, OWNER.id), user=ANN))
    assert shop.store.size == 1


def test_some_new_events_among_old_ones_at_a_stale_version_are_a_conflict(shop: Shop) -> None:
    ids = [uuid7(), uuid7()]
    shop.append("order-1", placed(1), ids=ids[:1])
    with pytest.raises(Conflict):
        shop.append("order-1", placed(1), placed(2), ids=ids, expected=NO_STREAM)
    assert shop.store.size == 1


@pytest.mark.parametrize("ids", [[b"short"], [b"x" * 16, b"y" * 16], [b"x" * 17]])
def test_ids_are_as_many_as_events_and_of_16_bytes(shop: Shop, ids: list[bytes]) -> None:
    with pytest.raises(Malformed):
        shop.append("order-1", placed(1), ids=ids)


def test_one_id_for_two_events_is_refused(shop: Shop) -> None:
    with pytest.raises(Malformed):
        shop.append("order-1", placed(1), placed(2), ids=[b"x" * 16] * 2)


# who, when, why


def test_an_event_says_who_did_it_and_names_no_person(shop: Shop) -> None:
    call = Call(
        peer=OWNER, user=ANN, id="call-2", parent="call-1", address=Origin("10.0.0.9", forwarded="203.0.113.7")
    )  # fmt: skip
    shop.append("order-1", placed(1), actor=replace(Context.of(call), session="s3ss10n"))
    [item] = shop.store.read("order-1", actor=OWNER)
    pseudonym = shop.pseudonyms.of
    assert item.actor == pseudonym("user", ANN.id)
    assert (item.address, item.session) == (pseudonym("address", "203.0.113.7"), pseudonym("session", "s3ss10n"))
    assert (item.correlation, item.causation) == ("call-1", "call-2")
    assert item.digest == shop.policy.engine.digest
    assert item.time_ns == shop.clock.time_ns()
    assert item.time.timestamp() == shop.clock.time()
    stored = shop.entry(0)
    clear = b"".join((stored.meta, stored.public, stored.sealed, stored.leaf))
    assert not any(secret in clear for secret in (b"ann", b"203.0.113", b"10.0.0.9", b"s3ss10n"))


def test_a_workload_is_named_and_a_person_in_its_place_is_not(shop: Shop) -> None:
    assert Context.of(OWNER).name(shop.pseudonyms) == OWNER.id
    assert Context(peer=ANN).name(shop.pseudonyms) == shop.pseudonyms.of("user", ANN.id)


def test_a_type_that_asks_for_it_is_signed_event_by_event(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.close()
    shop.ledger = Ledger(
        shop.rows, shop.signer, ORIGIN, keys=shop.keys, producer=Producer.of_key(SigningKey.generate())
    )
    shop.store = EventStore(shop.ledger, shop.rows, policy=shop.policy, pseudonyms=shop.pseudonyms)
    done = shop.append("order-1", placed(1), placed(2), paid(1), paid(2), placed(3))
    entries = [shop.entry(at) for at in done.positions]
    assert all(Leaf.decode(entry.leaf).flags & SIGNED for entry in entries)
    assert [bool(entry.statement) for entry in entries] == [True, False, True, True, True]
    shop.close()


# reading


@pytest.fixture
def full(any_shop: Shop) -> Shop:
    """Three streams, a few pages long."""
    for at in range(0, 2 * PAGE + 10, 30):
        batches = [Batch(f"order-{at % 3}", [paid(number) for number in range(at, at + 30)])]
        any_shop.store.append_many(batches, actor=OWNER).result(PATIENCE)
    return any_shop


def paid(number: int) -> OrderPaid:
    return OrderPaid(order="1", amount=number)


def numbers(items: "list[Event]") -> list[int]:
    found = (item for item in items if isinstance(item, OrderPlaced | OrderPaid))
    return [item.total if isinstance(item, OrderPlaced) else item.amount for item in found]


def test_reading_goes_through_all_pages_in_both_directions(full: Shop) -> None:
    everything = numbers(full.read())
    assert everything == sorted(everything)
    assert len(everything) == full.store.size > 2 * PAGE
    assert numbers(full.read(backwards=True)) == everything[::-1]
    one = numbers(full.read("order-0"))
    assert one == everything[: len(one)]
    assert numbers(full.read("order-0", backwards=True)) == one[::-1]


@pytest.mark.parametrize("limit", [0, 1, PAGE - 1, PAGE, PAGE + 1, 10_000])
def test_reading_ends_at_its_limit(full: Shop, limit: int) -> None:
    for stream in ("*", "order-0", "order-*"):
        everything = numbers(full.read(stream))
        assert numbers(full.read(stream, limit=limit)) == everything[:limit]
        assert numbers(full.read(stream, limit=limit, backwards=True)) == everything[::-1][:limit]


@pytest.mark.parametrize("start", [1, 2, PAGE, PAGE + 5])
def test_reading_begins_where_it_is_told(full: Shop, start: int) -> None:
    assert numbers(full.read("order-0", from_=start)) == numbers(full.read("order-0"))[start - 1 :]
    assert numbers(full.read("order-0", from_=start, backwards=True)) == numbers(full.read("order-0"))[:start][::-1]
    assert numbers(full.read(from_=start)) == numbers(full.read())[start:]
    assert numbers(full.read(from_=start, backwards=True)) == numbers(full.read())[: start + 1][::-1]


def test_reading_by_type_and_by_pattern(shop: Shop) -> None:
    shop.append("order-1", placed(1), paid(1))
    shop.append("cart-1", placed(2))
    assert shop.read(type=OrderPaid) == [paid(1)]
    assert shop.read("order-1", type="shop.order.placed.v1") == [placed(1)]
    assert shop.read(type=(OrderPaid, OrderPlaced)) == [placed(1), paid(1), placed(2)]
    assert shop.read("cart-*") == shop.read(["cart-1", "none"]) == [placed(2)]
    assert shop.read("none") == shop.read("none-*") == []
    with pytest.raises(UnknownType):
        shop.store.read(actor=OWNER, type=Event)


@pytest.mark.parametrize("name", ["", "a*b", "**", "x" * 400, "a\nb", []])
def test_what_is_no_name_is_not_read(shop: Shop, name: str) -> None:
    with pytest.raises(Malformed):
        shop.store.read(name, actor=OWNER)


def test_a_coroutine_writes_and_reads_the_same_way(full: Shop) -> None:
    async def use() -> "list[Recorded[OrderPaid]]":
        done = await full.store.append("order-9", [paid(77)], actor=OWNER)
        assert done.version == 1
        with pytest.raises(Conflict):
            await full.store.append("order-9", [placed(78)], expected=0, actor=OWNER)
        return [item async for item in full.store.read(actor=OWNER, type=OrderPaid)]

    items = asyncio.run(use())
    assert [item.event for item in items] == full.read()
    assert items[-1].event.amount == 77


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.append("order-1", placed(1))
    shop.close()
    shop.store.close()
    with pytest.raises(RecordsError) as caught:
        shop.append("order-1", placed(1))
    assert caught.value.code == "HBK-706"
    with pytest.raises(RecordsError) as caught:
        shop.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
    assert caught.value.code == "HBK-706"


# somebody writes the database


def overwrite(shop: Shop, entry: Entry, sealed: bytes, key: bytes) -> None:
    """Paste another sealed part, as a database writer can: into the leaf too, so that it fits."""
    assert isinstance(shop.inner, MemoryStore)
    leaf = replace(Leaf.decode(entry.leaf), sealed=sha256(sealed).digest(), key=key).encode()
    shop.inner._logs[ORIGIN][entry.position] = replace(entry, sealed=sealed, leaf=leaf)


def bobs_value_over_anns(shop: Shop) -> list[Event]:
    ann = shop.entry(shop.append("order-1", placed(1, customer="ann")).position)
    bob = shop.entry(shop.append("order-2", placed(1, customer="bob")).position)
    overwrite(shop, ann, bob.sealed, bob.leaf[-32:])
    return shop.read("order-1")


def test_ciphertext_pasted_from_another_stream_does_not_open(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SignedTree, "check", lambda _tree, _entry: None)  # which finds it before
    with pytest.raises(Tampered) as caught:
        bobs_value_over_anns(shop)
    assert caught.value.context["position"] == 0


def test_without_the_place_in_the_seal_it_reads_as_if_it_belonged(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    seal, unseal = DataKey.seal, DataKey.open
    monkeypatch.setattr(DataKey, "seal", lambda key, value, _aad, nonce: seal(key, value, b"", nonce))
    monkeypatch.setattr(DataKey, "open", lambda key, sealed, _aad: unseal(key, sealed, b""))
    monkeypatch.setattr(SignedTree, "check", lambda _tree, _entry: None)
    assert bobs_value_over_anns(shop) == [placed(1, customer="bob")]


def test_ciphertext_pasted_from_an_earlier_version_does_not_open(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SignedTree, "check", lambda _tree, _entry: None)
    shop.append("order-1", placed(1, email="old"), placed(1, email="new"))
    old, new = shop.entries("/streams/order-1")
    overwrite(shop, new, old.sealed, old.leaf[-32:])
    with pytest.raises(Tampered):
        shop.read("order-1")


@pytest.mark.parametrize("part", ["meta", "public", "sealed"])
def test_an_entry_that_is_not_what_its_leaf_says_is_not_shown(shop: Shop, part: str) -> None:
    shop.append("order-1", placed(1, total=1), placed(2))
    entry = shop.entry(0)
    assert isinstance(shop.inner, MemoryStore)
    forged = {"public": entry.public.replace(b'"total":1', b'"total":9'), "meta": entry.meta + b" ", "sealed": b""}
    shop.inner._logs[ORIGIN][0] = replace(entry, **{part: forged[part]})
    with pytest.raises(Tampered):
        shop.read("order-1")


def test_an_entry_moved_to_another_stream_is_not_shown(shop: Shop) -> None:
    shop.append("order-1", OrderPaid(order="1", amount=1))
    assert isinstance(shop.inner, MemoryStore)
    shop.inner._logs[ORIGIN][0] = replace(shop.entry(0), stream="/streams/order-2")
    with pytest.raises(Tampered):
        shop.read("order-2")


def edited(shop: Shop) -> None:
    """Write another amount into the first entry, and the leaf that fits it: whoever has the database can."""
    shop.append("order-1", paid(1), paid(2))
    assert isinstance(shop.inner, MemoryStore)
    one = replace(shop.entry(0), public=b'{"order":"1","amount":1000000}')
    shop.inner._logs[ORIGIN][0] = leafed(one, 0, 1)


def inserted(shop: Shop) -> None:
    """Put an entry behind the signed end."""
    shop.append("order-1", paid(1), paid(2))
    assert isinstance(shop.inner, MemoryStore)
    one = shop.entry(1)
    shop.inner._logs[ORIGIN].append(leafed(replace(one, public=b'{"order":"1","amount":777}'), 2, 3))


ATTACKS = [(edited, 0, "rewritten", [1_000_000, 2]), (inserted, 2, "appended", [1, 2, 777])]


@pytest.mark.parametrize(("attack", "at", "kind", "_shown"), ATTACKS)
def test_an_entry_that_fits_its_leaf_and_is_not_in_the_signed_tree_is_not_shown(
    shop: Shop, attack: Callable[[Shop], None], at: int, kind: str, _shown: list[int]
) -> None:
    attack(shop)
    for backwards in (False, True):
        for stream in ("order-1", "*"):
            with pytest.raises(Tampered) as caught:
                shop.read(stream, backwards=backwards)
            assert (caught.value.code, caught.value.context["position"], caught.value.context["kind"]) == (
                "HBK-710",
                at,
                kind,
            )
    subscription = shop.store.subscribe("order-1", actor=OWNER)
    if attack is inserted:
        assert [next(iter(subscription)).event.amount for _ in range(2)] == [1, 2]
    else:
        with pytest.raises(Tampered):
            next(iter(subscription))
    subscription.close()


def test_what_comes_before_such_an_entry_is_shown(shop: Shop) -> None:
    inserted(shop)
    reading = iter(shop.store.read("order-1", actor=OWNER))
    assert [next(reading).event.amount for _ in range(2)] == [1, 2]
    with pytest.raises(Tampered):
        next(reading)


@pytest.mark.parametrize(("attack", "_at", "_kind", "shown"), ATTACKS)
def test_without_a_look_at_the_tree_it_is_shown(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, attack: Callable[[Shop], None], _at: int, _kind: str, shown: list[int]
) -> None:
    attack(shop)
    monkeypatch.setattr(SignedTree, "check", lambda _tree, _entry: None)
    assert numbers(shop.read("order-1")) == shown


def test_a_snapshot_that_was_edited_is_not_loaded(shop: Shop) -> None:
    shop.append("order-1", paid(1))
    shop.store.save_snapshot("order-1", 1, {"total": 1}, actor=OWNER).result(PATIENCE)
    assert isinstance(shop.inner, MemoryStore)
    one = replace(shop.entry(1), public=b'{"version":1,"state":{"total":9}}')
    shop.inner._logs[ORIGIN][1] = leafed(one, 1, 1)
    with pytest.raises(Tampered):
        shop.store.snapshot("order-1", actor=OWNER).result(PATIENCE)


@pytest.mark.parametrize("part", ["leaf", "meta", "public", "sealed", "id"])
def test_a_column_of_another_type_is_no_entry(shop: Shop, part: str) -> None:
    shop.append("order-1", paid(1))
    assert isinstance(shop.inner, MemoryStore)
    one = shop.entry(0)
    shop.inner._logs[ORIGIN][0] = replace(one, **{part: getattr(one, part).decode("latin-1")})
    with pytest.raises(Tampered):
        shop.read("order-1")


# the model


class Concurrency(RuleBasedStateMachine):
    """Whatever is expected of whichever streams, the store does what a dictionary of lists would."""

    @initialize()
    def begin(self) -> None:
        self.directory = TemporaryDirectory()
        self.shop = Shop(Path(self.directory.name))
        self.streams: dict[str, list[int]] = {}
        self.ids: dict[bytes, tuple[str, int, int]] = {}
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            self.shop.close()
            self.directory.cleanup()

    @rule(stream=st.sampled_from("abc"), expected=st.integers(-1, 5), many=st.integers(1, 3))
    def append(self, stream: str, expected: int, many: int) -> None:
        there = self.streams.setdefault(stream, [])
        chosen = list(range(self.count, self.count + many))
        ids = [uuid7() for _ in chosen]
        try:
            done = self.shop.append(stream, *(placed(number) for number in chosen), expected=expected, ids=ids)
        except Conflict as conflict:
            assert expected not in {ANY, len(there)}
            assert conflict.context["found"] == len(there)  # noqa: PT017  # whether it conflicts depends on the model
            return
        assert expected in {ANY, len(there)}
        for one, number, position in zip(ids, chosen, done.positions, strict=True):
            self.ids[one] = (stream, number, position)
        there.extend(chosen)
        self.count += many

    @rule(data=st.data(), expected=st.integers(-1, 5))
    def again(self, data: st.DataObject, expected: int) -> None:
        if self.ids:
            one = data.draw(st.sampled_from(sorted(self.ids)))
            stream, number, position = self.ids[one]
            assert self.shop.append(stream, placed(number), ids=[one], expected=expected).positions == (position,)

    @rule(data=st.data(), stream=st.sampled_from("abc"))
    def another_under_its_id(self, data: st.DataObject, stream: str) -> None:
        if self.ids:
            one = data.draw(st.sampled_from(sorted(self.ids)))
            with pytest.raises(IdTaken):
                self.shop.append(stream, placed(-1), ids=[one])

    @rule()
    def restart(self) -> None:
        self.shop.again()

    @invariant()
    def streams_hold_what_was_appended(self) -> None:
        if hasattr(self, "shop"):
            for stream, there in self.streams.items():
                assert numbers(self.shop.read(stream)) == there
            assert self.shop.store.size == sum(map(len, self.streams.values()))


TestConcurrency = Concurrency.TestCase
TestConcurrency.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
