"""Recording through an authority that comes and goes: in the ledger once, or durable here, or refused; never lost."""

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from hauberk.core.clock import ManualClock
from hauberk.core.event import Event, Receipt
from hauberk.errors import ConfigError, HauberkError, RecordsError
from hauberk.records import forward
from hauberk.records.batch import MAX_BATCH_BYTES, decode_batch
from hauberk.records.forward import Forwarder
from hauberk.records.spool import Spool
from tests.records.made import (
    DOMAIN,
    NOW,
    PATIENCE,
    STREAM,
    UNFIT,
    Book,
    Producer,
    certificate_authority,
    event,
    events,
)

AUTHORITY = certificate_authority()
AWAY = ConfigError("HBK-902", "away")


class Mesh:
    """An authority's end: verifies batches and appends them to a ledger, unless told to fail in some way."""

    def __init__(self, directory: Path) -> None:
        self.book = Book(directory)
        self.error: HauberkError | None = None
        self.lose_answers = False
        self.batches = 0
        self.largest = 0
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Event()

    def send(self, wire: bytes) -> Sequence[int]:
        self.entered.set()
        assert self.hold.wait(PATIENCE)
        self.batches += 1
        self.largest = max(self.largest, len(wire))
        if self.error is not None:
            raise self.error
        made = decode_batch(wire, {DOMAIN: (AUTHORITY.root_der,)}, now_ns=(NOW + 10) * 10**9)
        receipts = self.book.ledger.append_signed(made.pairs, made.signed).result(PATIENCE)
        if self.lose_answers:
            raise AWAY
        # The first entry introduces the producer and is none of its own.
        return [receipt.position - 1 for receipt in receipts if receipt.position is not None]

    def ids(self) -> list[bytes]:
        return [entry.id for entry in self.book.ledger.entries(after=0, limit=100_000)]


class Rig:
    """A service's end."""

    def __init__(self, directory: Path, mesh: Mesh) -> None:
        self.directory = directory / "spool"
        self.mesh = mesh
        self.clock = ManualClock(NOW)
        self.producer = Producer(AUTHORITY)
        self.forwarder: Forwarder | None = None

    def start(self, *, spool_bytes: int = 10**7, insecure: bool = False, queue: int = 10_000) -> Forwarder:
        spool = Spool(self.directory, max_bytes=spool_bytes)
        self.forwarder = Forwarder(
            self.mesh.send,
            self.producer.sign,
            spool,
            insecure_unrecorded=insecure,
            queue_size=queue,
            clock=self.clock,
        )
        return self.forwarder

    def stop(self) -> None:
        if self.forwarder is not None:
            self.forwarder.close()
            self.forwarder = None

    def back(self) -> None:
        """The authority is there again, and the pause after the last failure is over."""
        self.mesh.error, self.mesh.lose_answers = None, False
        self.clock.advance(forward.RETRY + 0.1)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    made = Mesh(tmp_path)
    yield made
    made.hold.set()
    made.book.close()


@pytest.fixture
def rig(tmp_path: Path, mesh: Mesh) -> Iterator[Rig]:
    made = Rig(tmp_path, mesh)
    yield made
    mesh.hold.set()
    made.stop()


def results(futures: "Sequence[Future[Receipt]]") -> list[Receipt]:
    return [future.result(PATIENCE) for future in futures]


def refusal(future: "Future[Receipt]") -> str:
    error = future.exception(PATIENCE)
    assert isinstance(error, RecordsError)
    return error.code


def test_with_the_authority_there_events_go_straight_to_the_ledger_in_order(rig: Rig) -> None:
    forwarder, made = rig.start(), events(50)
    receipts = results([forwarder.submit(one) for one in made])
    assert [(receipt.position, receipt.where) for receipt in receipts] == [(at, "ledger") for at in range(50)]
    assert rig.mesh.ids() == [one.id for one in made]
    assert forwarder.depth() == 0


def test_away_means_the_spool_and_back_means_forwarded_in_order(rig: Rig) -> None:
    forwarder, made = rig.start(), events(30)
    rig.mesh.error = AWAY
    receipts = [forwarder.submit(one).result(PATIENCE) for one in made[:20]]
    assert {(receipt.position, receipt.where) for receipt in receipts} == {(None, "spool")}
    assert forwarder.depth() == 20
    rig.clock.advance(3)
    rig.back()
    last = results([forwarder.submit(one) for one in made[20:]])
    assert {receipt.where for receipt in last} == {"ledger"}
    assert rig.mesh.ids() == [one.id for one in made]
    assert (forwarder.depth(), forwarder.age()) == (0, 0)


def test_what_was_spooled_is_forwarded_by_the_next_process(rig: Rig) -> None:
    made = events(5)
    rig.mesh.error = AWAY
    forwarder = rig.start()
    results([forwarder.submit(one) for one in made])
    rig.stop()
    rig.back()
    forwarder = rig.start()
    assert forwarder.submit(event()).result(PATIENCE).position == 5
    assert rig.mesh.ids()[:5] == [one.id for one in made]


def test_a_lost_answer_stores_nothing_twice(rig: Rig) -> None:
    forwarder, made = rig.start(), events(10)
    rig.mesh.lose_answers = True
    assert {receipt.where for receipt in results([forwarder.submit(one) for one in made])} == {"spool"}
    assert rig.mesh.ids()
    rig.back()
    assert forwarder.submit(last := event()).result(PATIENCE).where == "ledger"
    assert rig.mesh.ids() == [one.id for one in [*made, last]]


@pytest.mark.parametrize("code", ["HBK-703", "HBK-706", "HBK-999", "HBK-300", "HBK-206"])
def test_an_authority_that_cannot_take_anything_right_now_costs_no_acknowledged_event(rig: Rig, code: str) -> None:
    forwarder, made = rig.start(), events(4)
    rig.mesh.error = AWAY
    results([forwarder.submit(one) for one in made[:2]])
    rig.back()
    rig.mesh.error = RecordsError(code, "its disk is full, or it is stopping")
    assert forwarder.submit(made[2]).result(PATIENCE).where == "spool"
    rig.back()
    assert forwarder.submit(made[3]).result(PATIENCE).where == "ledger"
    assert rig.mesh.ids() == [one.id for one in made]
    assert forwarder.refused == 0


def test_an_authority_that_answers_nonsense_has_not_acknowledged(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    forwarder, one = rig.start(), event()
    with monkeypatch.context() as wrong:
        wrong.setattr(forwarder, "_send", lambda _: ())
        assert forwarder.submit(one).result(PATIENCE).where == "spool"
    assert forwarder.submit(event()).result(PATIENCE).where == "ledger"
    assert rig.mesh.ids()[0] == one.id


def test_a_full_spool_refuses_and_takes_again_once_there_is_room(rig: Rig) -> None:
    forwarder = rig.start(spool_bytes=4000)
    rig.mesh.error = AWAY
    acknowledged: list[bytes] = []
    while True:
        one = event()
        future = forwarder.submit(one)
        if future.exception(PATIENCE) is not None:
            break
        acknowledged.append(one.id)
    assert refusal(future) == "HBK-704"
    assert acknowledged
    rig.back()
    forwarder.submit(last := event()).result(PATIENCE)
    assert rig.mesh.ids() == [*acknowledged, last.id]
    assert forwarder.unrecorded == 0


def test_with_insecure_unrecorded_a_full_spool_lets_go_and_counts(rig: Rig) -> None:
    forwarder = rig.start(spool_bytes=10, insecure=True)
    rig.mesh.error = AWAY
    receipts = results([forwarder.submit(event()) for _ in range(5)])
    assert {(receipt.position, receipt.where) for receipt in receipts} == {(None, "nowhere")}
    assert forwarder.unrecorded == 5
    rig.back()
    assert forwarder.submit(event()).result(PATIENCE).where == "ledger"
    assert forwarder.unrecorded == 5


def test_events_nobody_waited_for_are_kept_when_the_spool_is_full_and_recorded_later(rig: Rig) -> None:
    forwarder, made = rig.start(spool_bytes=10), events(20)
    rig.mesh.error = AWAY
    rig.mesh.hold.clear()
    first = forwarder.submit(event())  # the recording thread is busy with this one
    assert rig.mesh.entered.wait(PATIENCE)
    for one in made:
        assert forwarder.offer(one) is None
    rig.mesh.hold.set()
    assert refusal(first) == "HBK-704"
    late = forwarder.offer(event())  # from now on whoever comes waits for the outcome
    assert late is not None
    assert refusal(late) == "HBK-704"
    rig.back()
    forwarder.submit(event()).result(PATIENCE)
    assert rig.mesh.ids()[:20] == [one.id for one in made]


def test_the_queue_is_bounded_and_its_overflow_waits(rig: Rig) -> None:
    forwarder = rig.start(queue=5)
    rig.mesh.hold.clear()
    first = forwarder.submit(event())
    assert rig.mesh.entered.wait(PATIENCE)
    futures = [forwarder.offer(event()) for _ in range(8)]
    assert [future is None for future in futures] == [True] * 5 + [False] * 3
    waiting = [future for future in futures if future is not None]
    assert not any(future.done() for future in waiting)
    rig.mesh.hold.set()
    results([first, *waiting])
    assert len(rig.mesh.ids()) == 9


BAD = {
    "too large": event(data={"text": "x" * 70_000}),
    "not JSON": event(data={"what": object()}),
    "another's stream": event(stream="/services/production/order-service"),
    "a lone surrogate": event(data={"text": "\ud800"}),
    "a surrogate as its stream": event(stream=STREAM + "/\udfff"),
    "a short id": event(id=b"short"),
}
WHILE_AWAY = {name: bad for name, bad in BAD.items() if name not in {"another's stream", "a short id"}}


def nested(depth: int) -> Event:
    inner: object = 0
    for _ in range(depth):
        inner = [inner]
    return event(data={"deep": inner})


@pytest.mark.parametrize("bad", [*BAD.values(), nested(100_000)], ids=[*BAD, "without a bottom"])
def test_one_bad_event_is_refused_alone(rig: Rig, bad: Event) -> None:
    forwarder = rig.start()
    rig.mesh.hold.clear()
    first = forwarder.submit(event())
    assert rig.mesh.entered.wait(PATIENCE)
    good = events(6)
    futures = [forwarder.submit(one) for one in [*good[:3], bad, *good[3:]]]
    rig.mesh.hold.set()
    assert refusal(futures.pop(3)) in UNFIT
    assert {receipt.where for receipt in results([first, *futures])} == {"ledger"}
    assert rig.mesh.ids()[1:] == [one.id for one in good]


@pytest.mark.parametrize("bad", [*WHILE_AWAY.values(), nested(100_000)], ids=[*WHILE_AWAY, "without a bottom"])
def test_what_the_ledger_would_refuse_is_not_acknowledged_while_it_is_away(rig: Rig, bad: Event) -> None:
    forwarder = rig.start()
    rig.mesh.error = AWAY
    assert refusal(forwarder.submit(bad)) in UNFIT
    assert forwarder.submit(event()).result(PATIENCE).where == "spool"


def test_a_spooled_batch_that_is_refused_is_taken_apart_and_the_bad_event_kept_for_people(rig: Rig) -> None:
    forwarder = rig.start()
    rig.mesh.error = AWAY
    rig.mesh.hold.clear()
    first = forwarder.submit(event())
    assert rig.mesh.entered.wait(PATIENCE)
    bad, good = BAD["another's stream"], events(6)
    futures = [forwarder.submit(one) for one in [*good[:3], bad, *good[3:]]]
    rig.mesh.hold.set()
    assert {receipt.where for receipt in results([first, *futures])} == {"spool"}
    assert forwarder.depth() == 2
    rig.back()
    assert forwarder.submit(last := event()).result(PATIENCE).where == "ledger"
    assert rig.mesh.ids()[1:] == [one.id for one in [*good, last]]
    assert forwarder.refused == 1
    assert bad.id.hex().encode() in (rig.directory / "spool.refused").read_bytes()
    assert forwarder.depth() == 0


def test_a_spooled_batch_that_cannot_be_read_is_kept_for_people_and_blocks_nothing(rig: Rig) -> None:
    spool = Spool(rig.directory)
    spool.put(b"not a batch")
    spool.close()
    forwarder = rig.start()
    assert forwarder.submit(event()).result(PATIENCE).where == "ledger"
    assert forwarder.refused == 1
    assert b"not a batch" in (rig.directory / "spool.refused").read_bytes()


def test_batches_are_cut_to_what_the_authority_takes(rig: Rig) -> None:
    forwarder = rig.start()
    rig.mesh.hold.clear()
    first = forwarder.submit(event())
    assert rig.mesh.entered.wait(PATIENCE)
    made = [event(data={"text": "x" * 60_000}) for _ in range(150)]  # nine megabytes
    futures = [forwarder.submit(one) for one in made]
    rig.mesh.hold.set()
    assert {receipt.where for receipt in results([first, *futures])} == {"ledger"}
    assert rig.mesh.ids()[1:] == [one.id for one in made]
    assert rig.mesh.largest <= MAX_BATCH_BYTES


def test_giving_up_waiting_takes_no_event_back_and_stops_nothing(rig: Rig) -> None:
    forwarder = rig.start()
    rig.mesh.hold.clear()
    future = forwarder.submit(one := event())
    assert rig.mesh.entered.wait(PATIENCE)
    assert not future.cancel()
    rig.mesh.hold.set()
    assert forwarder.submit(event()).result(PATIENCE).position == 1
    assert rig.mesh.ids()[0] == one.id


def test_closing_delivers_or_spools_what_was_taken_and_then_refuses(rig: Rig) -> None:
    forwarder, made = rig.start(), events(10)
    for one in made:
        assert forwarder.offer(one) is None
    forwarder.close()
    assert rig.mesh.ids() == [one.id for one in made]
    assert refusal(forwarder.submit(event())) == "HBK-706"
    late = forwarder.offer(event())
    assert late is not None
    assert refusal(late) == "HBK-706"


def test_closing_while_the_authority_is_away_spools(rig: Rig) -> None:
    forwarder, made = rig.start(), events(10)
    rig.mesh.error = AWAY
    for one in made:
        forwarder.offer(one)
    rig.stop()
    rig.back()
    rig.start().submit(event()).result(PATIENCE)
    assert rig.mesh.ids()[:10] == [one.id for one in made]


def test_many_threads_through_outages_lose_nothing_and_repeat_nothing(rig: Rig) -> None:
    forwarder = rig.start()
    acknowledged: list[bytes] = []
    lock = threading.Lock()

    def write(number: int) -> None:
        for at in range(40):
            one = event(data={"thread": number, "at": at})
            forwarder.submit(one).result(PATIENCE)
            with lock:
                acknowledged.append(one.id)
                if len(acknowledged) % 60 == 0:
                    rig.mesh.error = None if rig.mesh.error else AWAY
                    rig.mesh.lose_answers = not rig.mesh.lose_answers
                    rig.clock.advance(forward.RETRY + 0.1)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    rig.back()
    forwarder.submit(last := event()).result(PATIENCE)
    ids = rig.mesh.ids()
    assert sorted(ids) == sorted([*acknowledged, last.id])
    assert len(acknowledged) == 240
    by_thread: dict[object, list[object]] = {}
    for entry in rig.mesh.book.ledger.entries(limit=1000):
        data = json.loads(entry.public)
        by_thread.setdefault(data.get("thread"), []).append(data.get("at"))
    assert all(by_thread[number] == list(range(40)) for number in range(6))
