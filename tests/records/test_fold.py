"""A flood of equal refusals becomes exact counts, acknowledged once they are durable."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.core.clock import ManualClock
from hauberk.core.event import Event, Receipt
from hauberk.errors import RecordsError
from hauberk.records import fold as fold_module
from hauberk.records._encode import decode_event
from hauberk.records.fold import FOLDED, MAX_INCIDENTS, Folder, after
from hauberk.records.view import last_entries
from tests.records.made import PATIENCE, Book, Shelf, event

NEVER = 3600.0  # the interval of a folder that flushes only when told to


def denial(actor: str = "spiffe://example.org/ns/a/sa/b", **fields: object) -> Event:
    one = event(type="policy.denied", outcome="deny", code="HBK-300", rule="r", actor=actor)
    return replace(one, **fields) if fields else one


def tally(taken: Sequence[Event]) -> Counter[tuple[str, str]]:
    """How many refusals of each caller for each code the entries stand for."""
    total: Counter[tuple[str, str]] = Counter()
    for one in taken:
        count = one.data["count"] if one.type.endswith(FOLDED) else 1
        assert isinstance(count, int)
        total[one.actor or one.address, one.code] += count
    return total


def test_the_first_few_get_entries_of_their_own_and_the_rest_are_counted() -> None:
    shelf, clock = Shelf(), ManualClock()
    folder = Folder(shelf, rate=3, clock=clock, interval=NEVER)
    flood = [denial(time_ns=number) for number in range(10)]
    futures = [folder.submit(one) for one in flood]
    assert [one.id for one in shelf.taken] == [one.id for one in flood[:3]]
    assert [future.done() for future in futures] == [True] * 3 + [False] * 7
    folder.flush()
    assert all(future.done() for future in futures)
    folded = shelf.taken[3]
    assert (folded.type, folded.outcome, folded.actor) == ("policy.denied" + FOLDED, "deny", flood[0].actor)
    assert folded.data == {"count": 7, "first": 3, "last": 9}
    assert folded.id not in {one.id for one in flood}
    folder.close()
    assert shelf.closed
    assert len(shelf.taken) == 4


def test_each_second_begins_anew() -> None:
    shelf, clock = Shelf(), ManualClock()
    folder = Folder(shelf, rate=2, clock=clock, interval=NEVER)
    for _ in range(3):
        for _ in range(5):
            folder.submit(denial())
        clock.advance(1)
    assert len(shelf.taken) == 6
    folder.close()
    assert sum(tally(shelf.taken).values()) == 15


def test_what_is_no_refusal_is_never_folded() -> None:
    shelf = Shelf()
    folder = Folder(shelf, rate=1, interval=NEVER)
    made = [event(outcome=outcome) for outcome in ("allow", "ok", "failed", "") for _ in range(5)]
    for one in made:
        folder.submit(one)
        folder.offer(one)
    folder.close()
    assert len(shelf.taken) == 40


def test_callers_reasons_and_rules_are_counted_apart() -> None:
    shelf = Shelf()
    folder = Folder(shelf, rate=1, clock=ManualClock(), interval=NEVER)
    kinds = [
        denial("a"),
        denial("b"),
        denial("a", code="HBK-402"),
        denial("a", rule="other"),
        denial("a", type="edge.denied"),
        denial("", address="address:x"),
    ]
    for kind in kinds:
        for _ in range(3):
            folder.submit(kind)
    assert len(shelf.taken) == 6
    folder.flush()
    assert [one.data["count"] for one in shelf.taken[6:]] == [2] * 6
    folder.close()


def test_counted_means_acknowledged_only_once_the_counting_entry_is_durable() -> None:
    shelf = Shelf(answering=False)
    folder = Folder(shelf, rate=1, clock=ManualClock(), interval=NEVER)
    folder.submit(denial())
    counted = [folder.submit(denial()) for _ in range(5)]
    folder.flush()
    assert not any(future.done() for future in counted)
    shelf.answer()
    receipts = {future.result(0).event for future in counted}
    assert receipts == {shelf.taken[1].id}
    folder.close()


def test_when_the_count_cannot_be_recorded_everybody_counted_learns_of_it() -> None:
    shelf = Shelf(answering=False)
    folder = Folder(shelf, rate=1, clock=ManualClock(), interval=NEVER)
    folder.submit(denial())
    counted = [folder.submit(denial()) for _ in range(3)]
    folder.flush()
    shelf.waiting[1][1].set_exception(RecordsError("HBK-703"))
    for future in counted:
        error = future.exception(0)
        assert isinstance(error, RecordsError)
        assert error.code == "HBK-703"
    folder.close()


def test_one_who_stops_waiting_takes_the_answer_from_nobody_else() -> None:
    shelf = Shelf()
    folder = Folder(shelf, rate=1, clock=ManualClock(), interval=NEVER)
    folder.submit(denial())
    impatient, patient = folder.submit(denial()), folder.submit(denial())
    assert not impatient.cancel()
    folder.flush()
    try:
        assert patient.result(0).where == "ledger"
    except CancelledError:
        pytest.fail("one caller's disconnect was another's lost answer")
    folder.close()


def test_offers_are_folded_too_and_nobody_waits_for_them() -> None:
    shelf = Shelf()
    folder = Folder(shelf, rate=2, clock=ManualClock(), interval=NEVER)
    assert [folder.offer(denial()) for _ in range(10)] == [None] * 10
    assert shelf.offers == 2
    folder.close()
    assert sum(tally(shelf.taken).values()) == 10


def test_a_draft_passes_unmade() -> None:
    shelf = Shelf()
    folder = Folder(shelf, rate=1, clock=ManualClock(), interval=NEVER)
    made = event(outcome="allow")
    folder.offer(lambda: made)
    folder.close()
    assert shelf.taken == [made]


def test_made_up_callers_share_one_count_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_module, "MAX_KEYS", 10)
    shelf = Shelf()
    folder = Folder(shelf, rate=2, clock=ManualClock(), interval=NEVER)
    for number in range(1000):
        folder.submit(denial(f"caller {number}", type=f"kind{number % 3}.denied"))
    assert len(folder._seen) <= 11
    assert len(folder._folds) <= 1
    folder.close()
    assert len(shelf.taken) == 13  # ten callers, two of the others, and one count
    shared = shelf.taken[-1]
    assert shared.data["count"] == 988
    assert (shared.type, shared.actor, shared.code, shared.rule) == ("denied" + FOLDED, "*", "", "")


def test_what_comes_after_the_close_is_the_inner_recorders_to_refuse(tmp_path: Path) -> None:
    book = Book(tmp_path)
    folder = Folder(book.ledger, rate=0, clock=ManualClock(), interval=NEVER)
    counted = folder.submit(denial())
    folder.close()
    assert counted.result(PATIENCE).position == 0
    late = folder.submit(denial()).exception(PATIENCE)
    assert isinstance(late, RecordsError)
    assert late.code == "HBK-706"
    book.close()


def test_a_flood_by_many_threads_is_counted_exactly_and_costs_few_entries(tmp_path: Path) -> None:
    book = Book(tmp_path)
    folder = Folder(book.ledger, rate=5, interval=0.02)
    sent: Counter[tuple[str, str]] = Counter()
    acknowledged: list[Receipt] = []
    lock = threading.Lock()

    def flood(number: int) -> None:
        own: list[Future[Receipt]] = []
        for at in range(400):
            one = denial(f"caller {at % 3}", code=f"HBK-30{number % 2}")
            own.append(folder.submit(one))
            with lock:
                sent[one.actor, one.code] += 1
        done = [future.result(PATIENCE) for future in own]
        with lock:
            acknowledged.extend(done)

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(acknowledged) == 2400
    entries = list(book.ledger.entries(limit=10_000))
    assert {receipt.event for receipt in acknowledged} == {entry.id for entry in entries}
    folder.close()
    stored = [decode_event(entry.meta, entry.public) for entry in entries]
    assert tally(stored) == sent
    assert len(entries) < 2400 / 2
    book.store.close()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["submit", "offer", "flush", "second"])), min_size=1, max_size=60
    ),
    st.integers(0, 4),
)
def test_whatever_happens_in_whatever_order_the_sums_are_exact(steps: list[tuple[int, str]], rate: int) -> None:
    shelf, clock = Shelf(), ManualClock()
    folder = Folder(shelf, rate=rate, clock=clock, interval=NEVER)
    sent: Counter[tuple[str, str]] = Counter()
    futures = []
    for caller, step in steps:
        if step == "flush":
            folder.flush()
        elif step == "second":
            clock.advance(1)
        else:
            one = denial(f"caller {caller}")
            sent[one.actor, one.code] += 1
            future = getattr(folder, step)(one)
            futures.append(future)
    folder.close()
    assert tally(shelf.taken) == sent
    assert all(future is None or future.done() for future in futures)


def test_after_tells_the_receipt_or_the_error() -> None:
    told: list[object] = []
    good: Future[Receipt] = Future()
    bad: Future[Receipt] = Future()
    after(good, told.append)
    after(bad, told.append)
    receipt, error = Receipt(b"x", 1), RecordsError("HBK-703")
    good.set_result(receipt)
    bad.set_exception(error)
    assert told == [receipt, error]


def test_whoever_quotes_an_incident_is_found_in_a_flood_too_and_a_forger_is_shown_as_one(tmp_path: Path) -> None:
    book = Book(tmp_path)
    folder = Folder(book.ledger, rate=2, clock=ManualClock())
    told = [f"{number:016x}" for number in range(MAX_INCIDENTS + 50)]
    futures = [folder.submit(denial(incident=incident)) for incident in told]
    for future in futures:
        future.result(PATIENCE)
    book.write(replace(event(type="request.allowed"), incident=told[7], stream="/services/a/evil"))
    book.write(replace(event(type="request.allowed"), data={"text": f'"incident":"{told[8]}"'}))

    def about(incident: str) -> list[tuple[str, str]]:
        found = last_entries(book.ledger.entries, book.ledger.head().size, 10, incident=incident)
        return [(one.type, one.stream) for one in found]

    assert [kind for kind, _ in about(told[0])] == ["policy.denied"]
    assert [kind for kind, _ in about(told[8])] == ["policy.denied" + FOLDED]
    assert sorted(kind for kind, _ in about(told[7])) == ["policy.denied" + FOLDED, "request.allowed"]
    assert about(told[-1]) == []  # beyond what one entry of counts keeps
    folder.close()
    book.close()
