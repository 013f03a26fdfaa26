"""The ledger: acknowledged after the commit, in order, once, and never two histories."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.event import Event, Private, Receipt
from hauberk.core.ports import Put, Write
from hauberk.crypto.keyring import Keyring
from hauberk.crypto.merkle import leaf_hash, verify_consistency, verify_inclusion
from hauberk.crypto.note import decode_key, verify_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import Conflict, IdTaken, RecordsError, Tampered
from hauberk.records._tiles import StoredTree
from hauberk.records.keys import SubjectKeys
from hauberk.records.ledger import Ledger
from hauberk.records.verify import verify_store
from tests.records.made import ORIGIN, PATIENCE, STREAM, UNFIT, Book, event, events


class Gate(MemoryStore):
    """A store whose commits wait for a gate, are counted, and fail when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.bad = ""
        self.commits = 0
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.failing = False
        self.batches: list[int] = []

    def commit(self, write: Write) -> int:
        self.entered.set()
        assert self.open.wait(PATIENCE)
        self.commits += 1
        entries = () if write.append is None else write.append.entries
        if self.failing or (self.bad and any(entry.type == self.bad for entry in entries)):
            raise RecordsError("HBK-703", "the disk is full")
        if write.append is not None:
            self.batches.append(len(write.append.entries))
        return super().commit(write)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def ledger(gate: Gate) -> Iterator[Ledger]:
    made = Ledger(gate, SigningKey.generate(), ORIGIN, queue_size=10)
    yield made
    gate.open.set()
    made.close()


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book(tmp_path)
    yield made
    made.close()


def positions(futures: "Sequence[Future[Receipt]]") -> list[int | None]:
    return [future.result(PATIENCE).position for future in futures]


def refusal(future: "Future[Receipt] | Future[list[Receipt]]") -> str:
    error = future.exception(PATIENCE)
    assert isinstance(error, RecordsError)
    return error.code


def check(book: Book, size: int) -> None:
    if not size:
        with pytest.raises(Tampered):
            verify_store(book.store, book.ledger.verifier)
        return
    assert verify_store(book.store, book.ledger.verifier).size == size


def test_nothing_is_acknowledged_before_its_commit(gate: Gate, ledger: Ledger) -> None:
    gate.open.clear()
    future = ledger.submit(event())
    assert gate.entered.wait(PATIENCE)
    assert not future.done()
    assert ledger.head().size == 0
    gate.open.set()
    assert future.result(PATIENCE) == Receipt(future.result().event, 0, "ledger")
    assert ledger.head().size == 1


def test_a_batch_is_what_arrived_during_the_last_commit(gate: Gate, ledger: Ledger) -> None:
    gate.open.clear()
    first = ledger.submit(event())
    assert gate.entered.wait(PATIENCE)
    rest = [ledger.submit(event()) for _ in range(9)]
    gate.open.set()
    assert positions([first, *rest]) == list(range(10))
    assert gate.batches == [1, 9]


def test_positions_are_in_the_order_of_submission_and_versions_dense_per_stream(book: Book) -> None:
    made = [event(number, stream=f"{STREAM}/{number % 3}") for number in range(60)]
    futures = [book.ledger.submit(one) for one in made]
    assert positions(futures) == list(range(60))
    for number in range(3):
        found = list(book.ledger.entries(stream=f"{STREAM}/{number}"))
        assert [entry.version for entry in found] == list(range(1, 21))
    assert [entry.id for entry in book.ledger.entries()] == [one.id for one in made]


def test_an_event_is_stored_once_however_often_and_wherever_it_comes_again(book: Book) -> None:
    one, two, three = events(3)
    assert book.write(one, two, one) == [0, 1, 0]
    assert book.write(two) == [1]
    assert book.write(three, one, three) == [2, 0, 2]
    book.close()
    book.open()
    assert book.write(one, three) == [0, 2]
    check(book, 3)


def test_a_full_queue_is_back_pressure_and_never_loss(gate: Gate, ledger: Ledger) -> None:
    gate.open.clear()
    first = ledger.submit(event())
    assert gate.entered.wait(PATIENCE)
    made = events(30)
    answers = [ledger.offer(one) for one in made]
    assert [answer is None for answer in answers] == [True] * 10 + [False] * 20
    waiting = [answer for answer in answers if answer is not None]
    last = ledger.submit(event())
    assert not any(answer.done() for answer in [*waiting, last])
    gate.open.set()
    for answer in [first, *waiting, last]:
        answer.result(PATIENCE)
    ledger.close()
    assert {one.id for one in made} <= {entry.id for entry in gate.entries(ORIGIN)}
    assert gate.head(ORIGIN).size == 32


def test_a_draft_is_made_by_the_sequencer(gate: Gate, ledger: Ledger) -> None:
    threads: list[str] = []

    def draft() -> Event:
        threads.append(threading.current_thread().name)
        return event()

    assert ledger.offer(draft) is None
    ledger.close()
    assert threads == [f"ledger {ORIGIN}"]
    assert gate.head(ORIGIN).size == 1


def test_a_failed_commit_is_told_and_leaves_a_log_that_goes_on(gate: Gate, ledger: Ledger) -> None:
    assert positions([ledger.submit(event())]) == [0]
    gate.failing = True
    assert {refusal(future) for future in [ledger.submit(event()) for _ in range(5)]} == {"HBK-703"}
    gate.failing = False
    assert positions([ledger.submit(event()) for _ in range(300)]) == list(range(1, 301))
    assert verify_store(gate, ledger.verifier).size == 301


def together(gate: Gate, ledger: Ledger, made: Sequence[Event]) -> "list[Future[Receipt]]":
    """Have events wait for one and the same commit."""
    gate.entered.clear()
    gate.open.clear()
    ledger.submit(event())
    assert gate.entered.wait(PATIENCE)
    waiting = [ledger.submit(one) for one in made]
    gate.commits = 0
    gate.open.set()
    return waiting


@pytest.mark.parametrize("at", range(5))
def test_an_event_on_which_the_engine_fails_takes_no_other_with_it(gate: Gate, ledger: Ledger, at: int) -> None:
    gate.bad = "poison.made"
    made = events(4)
    made.insert(at, event(type=gate.bad))
    waiting = together(gate, ledger, made)
    assert refusal(waiting.pop(at)) == "HBK-703"
    assert positions(waiting) == [1, 2, 3, 4]


def test_a_dead_disk_is_not_asked_once_for_each_event(gate: Gate, ledger: Ledger) -> None:
    gate.bad = "order.paid"
    waiting = together(gate, ledger, events(500))
    assert {refusal(one) for one in waiting} == {"HBK-703"}
    assert gate.commits <= 5 + 1
    gate.bad = ""
    assert ledger.submit(event()).result(PATIENCE).position is not None


def test_what_nobody_waits_for_is_kept_while_the_disk_is_dead(gate: Gate, ledger: Ledger) -> None:
    gate.open.clear()
    gate.entered.clear()
    first = ledger.submit(event())
    assert gate.entered.wait(PATIENCE)
    assert [ledger.offer(one) for one in events(10)] == [None] * 10
    gate.failing = True
    gate.open.set()
    assert refusal(first) == "HBK-703"
    gate.failing = False
    ledger.close()
    assert gate.head(ORIGIN).size == 10


def test_a_batch_that_cannot_be_encoded_is_refused_whole_and_disturbs_nobody(book: Book) -> None:
    for bad in (event(data={"x": object()}), event(data={"x": "y" * 70_000}), event(actor="a" * 70_000)):
        assert refusal(book.ledger.append_batch([event(), bad])) in UNFIT
        assert refusal(book.ledger.submit(bad)) in UNFIT
        assert book.ledger.offer(bad) is None
    assert book.write(event()) == [0]
    check(book, 1)


def nested(depth: int) -> object:
    inner: object = 0
    for _ in range(depth):
        inner = [inner]
    return inner


UNENCODABLE = {
    "a lone surrogate": event(data={"text": "\ud800"}),
    "a surrogate as its actor": event(actor="\udfff"),
    "no bottom": event(data={"deep": nested(100_000)}),
    "a number of five thousand digits": event(data={"number": 10**5000}),
}


@pytest.mark.parametrize("name", UNENCODABLE)
def test_text_and_numbers_no_reader_takes_are_refused_and_stop_nothing(book: Book, name: str) -> None:
    """Such text comes from outside: `json.loads` makes a lone surrogate of six harmless bytes."""
    bad = UNENCODABLE[name]
    assert refusal(book.ledger.submit(bad)) in UNFIT
    assert book.ledger.offer(bad) is None
    assert book.write(event()) == [0]
    check(book, 1)


ODD = {
    "numbers": {"big": 2**63, "small": -(2**70), "f": 1e308, "none": float("nan")},
    "a number no reader takes": {"number": 10**4000},
    "nested 100 deep": {"deep": nested(100)},
    "nested 400 deep": {"deep": nested(400)},
    "nested 900 deep": {"deep": nested(900)},
}


@pytest.mark.parametrize("name", ODD)
def test_what_the_ledger_takes_its_verifier_reads(book: Book, name: str) -> None:
    """Else one odd event would make an honest log look tampered with."""
    future = book.ledger.submit(event(data=ODD[name]))
    size = 0 if future.exception(PATIENCE) else 1
    assert size or refusal(future) in UNFIT

    def deeper(calls: int) -> None:
        """An auditor's own frames count too."""
        if calls:
            deeper(calls - 1)
        else:
            check(book, size)

    deeper(60)


def test_a_reader_who_stops_waiting_stops_nothing(gate: Gate, ledger: Ledger) -> None:
    gate.open.clear()
    single, batch = ledger.submit(event()), ledger.append_batch([event()])
    assert not batch.cancel()
    single.cancel()
    gate.open.set()
    assert ledger.submit(event()).result(PATIENCE).position == 2


def test_reopening_continues_the_same_log(book: Book) -> None:
    for round_ in range(6):
        assert book.write(*events(97)) == list(range(round_ * 97, round_ * 97 + 97))
        book.close()
        book.open()
    check(book, 6 * 97)
    assert book.store.versions(ORIGIN, [STREAM]) == {STREAM: 6 * 97}


CHANGES = {
    "the size": "UPDATE head SET size = size - 1",
    "the size, upwards": "UPDATE head SET size = size + 4",
    "the frontier": "UPDATE head SET frontier = zeroblob(length(frontier))",
    "the length of the frontier": "UPDATE head SET frontier = substr(frontier, 1, 32)",
    "the checkpoint": "UPDATE head SET checkpoint = CAST(replace(CAST(checkpoint AS TEXT), '9', '8') AS BLOB)",
    "the whole checkpoint": "UPDATE head SET checkpoint = x''",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_log_that_was_edited_under_us_is_refused_rather_than_continued(book: Book, name: str) -> None:
    book.write(*events(29))
    book.close()
    store = SqliteStore(book.path)
    store._writer.execute(CHANGES[name])
    with pytest.raises(RecordsError):
        Ledger(store, book.signer, ORIGIN)
    store.close()


def test_the_log_of_another_key_is_not_continued(book: Book) -> None:
    book.write(*events(3))
    with pytest.raises(Tampered):
        Ledger(book.store, SigningKey.generate(), ORIGIN)
    other = Ledger(book.store, book.signer, "example.org/other")
    assert other.submit(event()).result(PATIENCE).position == 0
    other.close()
    check(book, 3)


def test_two_ledgers_on_one_database_cannot_fork(book: Book) -> None:
    """Two processes that both believe to be the sequencer: what both acknowledge is in one history."""
    other_store = SqliteStore(book.path)
    other = Ledger(other_store, book.signer, ORIGIN)
    acknowledged: dict[bytes, int | None] = {}
    lock = threading.Lock()

    def write(ledger: Ledger) -> None:
        for _ in range(40):
            one = event()
            future = ledger.submit(one)
            if future.exception(PATIENCE) is None:
                with lock:
                    acknowledged[one.id] = future.result().position

    threads = [threading.Thread(target=write, args=(ledger,)) for ledger in (book.ledger, other) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    other.close()
    other_store.close()
    entries = {entry.id: entry.position for entry in book.ledger.entries(limit=1000)}
    assert acknowledged
    assert acknowledged.items() <= entries.items()
    assert len(set(entries.values())) == len(entries)
    check(book, len(entries))


def test_every_entry_is_proven_against_the_checkpoint_across_tiles_and_reopens(book: Book) -> None:
    for count in (1, 254, 3, 300, 2):
        book.write(*events(count))
        book.close()
        book.open()
    origin, key = decode_key(book.ledger.verifier)
    checkpoint = verify_checkpoint(book.ledger.checkpoint(), origin, key)
    assert checkpoint.size == 560
    for position in (0, 1, 127, 254, 255, 256, 257, 511, 512, 558, 559):
        proof = book.ledger.proof(position)
        verify_inclusion(leaf_hash(proof.leaf), position, checkpoint.size, list(proof.path), checkpoint.root)
        with pytest.raises(RecordsError):
            verify_inclusion(leaf_hash(proof.leaf + b"x"), position, checkpoint.size, list(proof.path), checkpoint.root)
    for position in (-1, 560, 10**9):
        with pytest.raises(RecordsError) as found:
            book.ledger.proof(position)
        assert found.value.code == "HBK-712"


def test_each_checkpoint_is_a_continuation_of_the_ones_before(book: Book) -> None:
    origin, key = decode_key(book.ledger.verifier)
    notes = []
    for count in (1, 4, 250, 1, 20):
        book.write(*events(count))
        notes.append(verify_checkpoint(book.ledger.checkpoint(), origin, key))
    tree = StoredTree(book.store, ORIGIN)
    for old in notes:
        for new in notes:
            if old.size <= new.size:
                proof = tree.consistency(old.size, new.size)
                verify_consistency(old.size, new.size, old.root, new.root, proof)


def test_closing_commits_what_was_taken_and_then_refuses(gate: Gate, ledger: Ledger) -> None:
    for one in events(8):
        assert ledger.offer(one) is None
    ledger.close()
    assert gate.head(ORIGIN).size == 8
    assert refusal(ledger.submit(event())) == "HBK-706"
    late = ledger.offer(event())
    assert late is not None
    assert refusal(late) == "HBK-706"
    ledger.close()


def test_an_event_that_arrives_while_the_ledger_closes_is_answered(gate: Gate, ledger: Ledger) -> None:
    class Closing(list[Event]):
        """Events that close the ledger while they are encoded, after it was found open."""

        def __iter__(self) -> Iterator[Event]:
            ledger.close()
            return super().__iter__()

    future = ledger.append_batch(Closing([event()]))
    assert future.exception(2) is not None
    assert gate.head(ORIGIN).size == 0


def test_after_the_store_failed_for_good_the_ledger_refuses_and_still_closes(gate: Gate, ledger: Ledger) -> None:
    ledger.submit(event()).result(PATIENCE)
    gate.close()
    assert refusal(ledger.submit(event())) in {"HBK-703", "HBK-706"}
    assert refusal(ledger.submit(event())) in {"HBK-703", "HBK-706"}
    ledger.close()
    assert not ledger._thread.is_alive()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), max_size=12), min_size=1, max_size=8))
def test_any_mixture_of_new_and_known_events_makes_one_verifiable_log(batches: list[list[int]]) -> None:
    store = MemoryStore()
    ledger = Ledger(store, SigningKey.generate(), ORIGIN)
    made = [event(number, stream=f"{STREAM}/{number % 2}") for number in range(41)]
    known: dict[int, int] = {}
    for batch in batches:
        receipts = ledger.append_batch([made[number] for number in batch]).result(PATIENCE)
        for number, receipt in zip(batch, receipts, strict=True):
            assert receipt.position == known.setdefault(number, receipt.position or 0)
    assert sorted(known.values()) == list(range(len(known)))
    if known:
        assert verify_store(store, ledger.verifier).size == len(known)
    ledger.close()


def test_when_the_sequencer_ends_by_accident_nobody_waits_for_ever(gate: Gate, ledger: Ledger) -> None:
    def broken() -> Event:
        raise OSError("a draft must not raise")  # and this one does

    gate.open.clear()
    first = ledger.submit(event())
    assert gate.entered.wait(PATIENCE)
    assert ledger.offer(broken) is None
    waiting = ledger.submit(event())
    hook, threading.excepthook = threading.excepthook, lambda _: None
    try:
        gate.open.set()
        first.result(PATIENCE)
        assert refusal(waiting) == "HBK-703"
        ledger._thread.join(PATIENCE)
    finally:
        threading.excepthook = hook
    assert refusal(ledger.submit(event())) == "HBK-706"


# expectations


def test_an_append_goes_in_only_at_the_version_it_expects(book: Book) -> None:
    ledger = book.ledger
    first = ledger.append_batch(events(2), expected={STREAM: 0}).result(PATIENCE)
    ledger.append_batch(events(1), expected={STREAM: 2}).result(PATIENCE)
    for wrong in (0, 2, 4):
        with pytest.raises(Conflict) as found:
            ledger.append_batch(events(1), expected={STREAM: wrong}).result(PATIENCE)
        assert (found.value.context["what"], found.value.context["found"]) == ("stream", 3)
    with pytest.raises(Conflict):
        ledger.append_batch(events(1), expected={STREAM: 3, "/streams/other": 1}).result(PATIENCE)
    assert ledger.head().size == 3
    assert [receipt.position for receipt in first] == [0, 1]


def test_of_many_who_expect_the_same_version_exactly_one_wins(book: Book) -> None:
    futures = [book.ledger.append_batch(events(2), expected={STREAM: 0}) for _ in range(50)]
    won = [future for future in futures if future.exception(PATIENCE) is None]
    assert len(won) == 1
    assert {type(future.exception()) for future in futures} == {type(None), Conflict}
    assert book.ledger.head().size == 2


def test_without_an_expectation_two_who_read_the_same_both_write(book: Book) -> None:
    for _ in range(2):
        book.ledger.append_batch(events(1)).result(PATIENCE)
    assert book.ledger.head().size == 2  # a lost update: what the expectation is there to stop


def test_an_append_that_is_sent_again_is_acknowledged_though_the_stream_has_moved_on(book: Book) -> None:
    made = events(2)
    first = book.ledger.append_batch(made, expected={STREAM: 0}).result(PATIENCE)
    book.write(*events(3))
    assert book.ledger.append_batch(made, expected={STREAM: 0}).result(PATIENCE) == first
    assert book.ledger.head().size == 5


def test_an_id_that_stands_for_another_event_is_refused_alone(book: Book) -> None:
    made = event()
    book.write(made)
    other = msgspec.structs.replace(made, data={"number": 99})
    futures = [book.ledger.append_batch([one]) for one in (event(), other, event())]
    assert [type(future.exception(PATIENCE)) for future in futures] == [type(None), IdTaken, type(None)]


def test_rows_are_written_with_the_events_or_neither(book: Book) -> None:
    put = Put("cursor", b"a", b"1", expected=0)
    book.ledger.append_batch([event()], rows=(put,)).result(PATIENCE)
    with pytest.raises(Conflict):
        book.ledger.append_batch([event()], rows=(put,)).result(PATIENCE)
    assert book.ledger.head().size == 1
    book.ledger.append_batch((), rows=(Put("cursor", b"b", b"2"),)).result(PATIENCE)
    assert [row.value for row in book.store.scan("cursor")] == [b"1", b"2"]


def test_two_ledgers_on_one_store_delay_each_other_and_never_fork(book: Book) -> None:
    other = Ledger(book.store, book.signer, ORIGIN)
    futures = [ledger.append_batch(events(3)) for _ in range(40) for ledger in (book.ledger, other)]
    positions = [receipt.position for future in futures for receipt in future.result(PATIENCE)]
    assert sorted(at for at in positions if at is not None) == list(range(240))
    other.close()
    assert verify_store(book.store, book.ledger.verifier).size == 240


def test_a_ledger_that_was_told_to_refuse_signs_nothing_more(book: Book) -> None:
    book.write(event())
    book.ledger.refuse("a witness knows another history")
    with pytest.raises(RecordsError) as found:
        book.write(event())
    assert found.value.code == "HBK-713"
    assert book.ledger.head().size == 1


def test_losing_the_race_for_the_head_costs_no_lease_of_a_key(tmp_path: Path) -> None:
    store, keyring = MemoryStore(), Keyring(FileKeySource(tmp_path / "keys"))
    keys, signer = SubjectKeys(store, keyring), SigningKey.generate()
    ledger, other = Ledger(store, signer, ORIGIN, keys=keys), Ledger(store, signer, ORIGIN)

    def put() -> None:
        ledger.append_batch([event(private=(Private("email", "ann", b"1"),))]).result(PATIENCE)

    put()
    (row,) = store.scan("subject-key")
    for _ in range(5):
        other.append_batch([event()]).result(PATIENCE)  # the head moves: the next one loses the race once
        put()
    assert list(store.scan("subject-key")) == [row]
    keys.forget_all()  # the twin: whoever forgets its keys takes the next lease
    put()
    assert list(store.scan("subject-key")) != [row]
    for one in (ledger, other):
        one.close()
