"""The audit log: who did what, without names and secrets, and nobody can write an entry in another's words."""

import asyncio
import hashlib
import io
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hauberk.adapters.sqlite import open_readonly
from hauberk.core.config import load
from hauberk.core.event import Event, Receipt
from hauberk.core.ports import Draft, made
from hauberk.core.principal import Kind, Principal
from hauberk.crypto.keyring import Pseudonyms
from hauberk.errors import Denied, Malformed, NotCosigned, RecordsError
from hauberk.records._encode import decode_event
from hauberk.records.audit import MAX_RESOURCE, QUEUED, AuditLog
from hauberk.records.details import kept_details
from hauberk.records.turn import MAX_EVENTS
from hauberk.records.verify import verify_store
from hauberk.records.witnessed import Uncosigned
from hauberk.runtime import Runtime
from tests.records.made import PATIENCE, Book, Shelf

USER = "alice@example.org"
SESSION = "s-8842617d5f1c"
ADDRESS = "198.51.100.7"
SERVICE = "production/orders"
PASSWORD = "Tr0ub4dor&3-hunter2"
KEY = b"k" * 32


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made_here = Book(tmp_path)
    yield made_here
    made_here.close()


@pytest.fixture
def audit(book: Book) -> AuditLog:
    return AuditLog(book.ledger, Pseudonyms(KEY), SERVICE)


def entries(book: Book) -> list[Event]:
    return [decode_event(entry.meta, entry.public) for entry in book.ledger.entries()]


def stored(book: Book) -> bytes:
    """Every byte that is on disk."""
    return b"".join(path.read_bytes() for path in book.path.parent.iterdir())


class Slow(Shelf):
    """A ledger whose queue is full, and whose commits happen when told."""

    def __init__(self) -> None:
        super().__init__(answering=False)
        self.batches: list[tuple[Sequence[Event], Future[list[Receipt]]]] = []

    def append_batch(self, events: Sequence[Event]) -> "Future[list[Receipt]]":
        done: Future[list[Receipt]] = Future()
        done.set_running_or_notify_cancel()
        self.batches.append((list(events), done))
        return done

    def offer(self, event: Event | Draft) -> "Future[Receipt] | None":
        return self.submit(made(event))

    def commit(self) -> None:
        for events, done in self.batches:
            done.set_result([Receipt(event.id, at) for at, event in enumerate(events)])
        self.batches.clear()


# what an entry holds


def test_an_entry_says_who_did_what_to_what_and_how_it_ended(book: Book, audit: AuditLog) -> None:
    receipt = audit.access(
        USER, "/orders/17", "refund", "denied", level="receipt", session=SESSION, address=ADDRESS, reason="not theirs",
        details={"sum": 12},
    ).result(PATIENCE)  # fmt: skip
    hide = Pseudonyms(KEY).of
    [entry] = entries(book)
    assert receipt == Receipt(entry.id, 0)
    assert (entry.type, entry.stream, entry.outcome) == ("audit.access", "/audit/production/orders", "denied")
    assert (entry.actor, entry.session, entry.address) == (
        hide("user", USER), hide("session", SESSION), hide("address", ADDRESS),
    )  # fmt: skip
    assert entry.data == {
        "resource": "/orders/17", "action": "refund", "reason": "not theirs", "details": {"sum": 12},
    }  # fmt: skip


def test_no_user_session_or_address_is_on_disk_in_clear(book: Book, audit: AuditLog) -> None:
    audit.access(USER, "/orders/17", "read", session=SESSION, address=ADDRESS)
    audit.flush(PATIENCE)
    assert b"/orders/17" in stored(book)
    for name in (USER, SESSION, ADDRESS):
        assert name.encode() not in stored(book)


def test_programs_appear_under_their_own_names_and_people_do_not(book: Book, audit: AuditLog) -> None:
    workload = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/production/sa/orders")
    for principal in (
        workload,
        Principal(Kind.USER, USER),
        Principal(Kind.LOCAL, "uid:1000"),
        Principal(Kind.ANONYMOUS),
    ):
        audit.access(principal, "/x", "read")
    audit.flush(PATIENCE)
    assert [entry.actor for entry in entries(book)] == [
        workload.id, Pseudonyms(KEY).of("user", USER), "uid:1000", "",
    ]  # fmt: skip


def test_what_was_cut_and_hidden_is_counted_in_the_entry(book: Book, audit: AuditLog) -> None:
    audit.access(USER, "/" + "x" * 5_000, "read", details={"password": PASSWORD, "long": "y" * 9_999})
    audit.flush(PATIENCE)
    [entry] = entries(book)
    assert entry.data["cut"] == 2
    assert entry.data["hidden"] == 1
    assert len(str(entry.data["resource"])) == MAX_RESOURCE + len("[cut]")


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "fine"}, {"level": "soon"}, {"resource": 17}, {"user": ["alice"]}, {"address": b"1"},
        {"outcome": ""},
    ],
)  # fmt: skip
def test_what_is_no_entry_is_refused_at_once(audit: AuditLog, wrong: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        audit.record("access", **{"user": USER, "resource": "/x", "action": "read", **wrong})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("kind", ["", "Access", "a..b", "x" * 64, "access\n", ".a"])
def test_a_kind_of_entry_is_lower_case_and_dotted(audit: AuditLog, kind: str) -> None:
    with pytest.raises(Malformed):
        audit.record(kind)


texts = st.text(max_size=60) | st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp"]), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(texts, texts, texts, texts, st.dictionaries(texts, texts)), min_size=1, max_size=6))
def test_whatever_the_texts_are_each_call_is_exactly_one_entry(
    book: Book, audit: AuditLog, calls: list[tuple[str, str, str, str, dict[str, str]]]
) -> None:
    before = book.ledger.head().size
    for user, resource, action, reason, details in calls:
        audit.record(
            "access", user=user, resource=resource, action=action, reason=reason, details=details, session=user,
            address=reason, correlation=reason, code=action,
        )  # fmt: skip
    audit.flush(PATIENCE)
    assert book.ledger.head().size == before + len(calls)
    assert verify_store(book.store, book.ledger.verifier).size == before + len(calls)


# levels


def test_async_entries_are_in_the_queue_at_once(book: Book, audit: AuditLog) -> None:
    pending = audit.access(USER, "/x", "read")
    assert pending.done()
    assert pending.result().where == QUEUED
    assert pending.then(lambda receipt: receipt.where).result() == QUEUED
    audit.flush(PATIENCE)
    assert [entry.id for entry in entries(book)] == [pending.result().event]


def test_a_full_queue_makes_async_callers_wait_and_loses_nothing() -> None:
    slow = Slow()
    audit = AuditLog(slow, Pseudonyms(KEY))

    async def caller() -> Receipt:
        return await audit.access(USER, "/x", "read")

    async def scene() -> Receipt:
        task = asyncio.create_task(caller())
        await asyncio.sleep(0)
        assert not task.done()
        slow.answer()
        return await task

    assert asyncio.run(scene()).position == 0


def test_entries_of_one_turn_are_one_write_and_everybody_gets_his_own_receipt(book: Book) -> None:
    sizes: list[int] = []

    class Counting:
        offer, submit, close = book.ledger.offer, book.ledger.submit, book.ledger.close

        def append_batch(self, events: Sequence[Event]) -> "Future[list[Receipt]]":
            sizes.append(len(events))
            return book.ledger.append_batch(events)

    audit = AuditLog(Counting(), Pseudonyms(KEY))

    async def caller(number: int) -> tuple[int, Receipt]:
        return number, await audit.access(USER, f"/orders/{number}", "read", level="receipt")

    async def scene() -> list[tuple[int, Receipt]]:
        return await asyncio.gather(*map(caller, range(MAX_EVENTS + 24)))

    receipts = asyncio.run(scene())
    assert sizes == [MAX_EVENTS, 24]
    by_id = {entry.id: entry.data["resource"] for entry in entries(book)} | {}
    more = [decode_event(one.meta, one.public) for one in book.ledger.entries(after=999)]
    by_id |= {entry.id: entry.data["resource"] for entry in more}
    assert {receipt.event: f"/orders/{number}" for number, receipt in receipts} == by_id


def test_giving_up_waiting_disturbs_nobody_else() -> None:
    slow = Slow()
    audit = AuditLog(slow, Pseudonyms(KEY))

    async def caller(number: int) -> Receipt:
        return await audit.access(USER, f"/{number}", "read", level="receipt")

    async def scene() -> Receipt:
        impatient, patient = asyncio.create_task(caller(0)), asyncio.create_task(caller(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        slow.commit()
        return await patient

    assert asyncio.run(scene()).position == 1


def test_a_failed_write_reaches_everybody_who_waits() -> None:
    slow = Slow()
    audit = AuditLog(slow, Pseudonyms(KEY))

    async def caller() -> str:
        try:
            await audit.access(USER, "/x", "read", level="receipt")
        except RecordsError as error:
            return error.code
        return ""

    async def scene() -> list[str]:
        tasks = [asyncio.create_task(caller()) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        slow.batches[0][1].set_exception(RecordsError("HBK-703"))
        return await asyncio.gather(*tasks)

    assert asyncio.run(scene()) == ["HBK-703"] * 3


def test_the_outcome_can_be_awaited_twice_later_and_in_another_loop(audit: AuditLog) -> None:
    async def first() -> list[object]:
        pending = audit.access(USER, "/x", "read", level="receipt")
        receipt = await pending
        assert await pending == receipt
        assert pending.done()
        return [pending, receipt]

    async def second(pending: object) -> Receipt:
        return await pending  # type: ignore[no-any-return, misc]  # a Pending

    pending, receipt = asyncio.run(first())
    assert asyncio.run(second(pending)) == receipt


def test_a_loop_s_own_thread_and_any_other_may_wait_without_the_loop(audit: AuditLog) -> None:
    async def scene() -> list[int | None]:
        blocking = audit.access(USER, "/x", "read", level="receipt").result(PATIENCE)
        pending = audit.access(USER, "/x", "read", level="receipt")
        found: list[Receipt] = []
        thread = threading.Thread(target=lambda: found.append(pending.result(PATIENCE)))
        thread.start()
        thread.join(PATIENCE)
        then = audit.access(USER, "/x", "read", level="receipt").then(lambda receipt: receipt.position)
        return [blocking.position, found[0].position, then.result(PATIENCE)]

    assert asyncio.run(scene()) == [0, 1, 2]


def test_entries_of_a_loop_that_ended_early_are_written_by_flush(book: Book, audit: AuditLog) -> None:
    async def scene() -> None:
        audit.access(USER, "/x", "read", level="receipt")

    coroutine = scene()
    loop = asyncio.new_event_loop()

    def drive() -> None:
        with pytest.raises(StopIteration):
            coroutine.send(None)
        loop.stop()

    loop.call_soon(drive)
    loop.run_forever()  # it stops in the same turn: what was to happen in the next one never does
    loop.close()
    audit.flush(PATIENCE)
    assert len(entries(book)) == 1


def test_threads_get_receipts_of_their_own(book: Book, audit: AuditLog) -> None:
    found: list[Receipt] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(audit.access(USER, "/x", "read", level="receipt").result(PATIENCE))
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(receipt.position or 0 for receipt in found) == list(range(16))
    assert len(entries(book)) == 16


# witnesses


class Witnessed(Shelf):
    """A ledger whose witnesses say what they are told to."""

    def __init__(self, answer: str | RecordsError, *, at_once: bool = False) -> None:
        super().__init__()
        self.asked: list[int] = []
        self._answer = answer
        self._at_once = at_once

    def cosigned(self, size: int) -> "Future[str]":
        self.asked.append(size)
        if isinstance(self._answer, RecordsError) and self._at_once:
            raise self._answer
        future: Future[str] = Future()
        if isinstance(self._answer, RecordsError):
            future.set_exception(self._answer)
        else:
            future.set_result(self._answer)
        return future


def test_a_cosigned_entry_waits_for_the_witnesses_of_its_own_position() -> None:
    ledger = Witnessed("note")
    receipt = AuditLog(ledger, Pseudonyms(KEY)).access(USER, "/x", "read", level="cosigned").result(PATIENCE)
    assert receipt.position == 0
    assert ledger.asked == [1]


@pytest.mark.parametrize("at_once", [False, True])
def test_late_witnesses_are_an_error_to_whoever_waits(at_once: bool) -> None:  # noqa: FBT001  # a parameter of the test
    ledger = Witnessed(NotCosigned("late", position=0), at_once=at_once)
    pending = AuditLog(ledger, Pseudonyms(KEY)).access(USER, "/x", "read", level="cosigned")
    with pytest.raises(NotCosigned):
        pending.result(PATIENCE)
    assert [event.type for event in ledger.taken] == ["audit.access"]  # it is recorded all the same


def test_or_they_are_an_entry_in_the_log_when_that_was_chosen(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Witnessed(NotCosigned("late", position=0))
    audit = AuditLog(ledger, Pseudonyms(KEY), uncosigned=Uncosigned.REPORT)
    with caplog.at_level(logging.WARNING, "hauberk.records"):
        receipt = audit.access(USER, "/x", "read", level="cosigned").result(PATIENCE)
    told = ledger.taken[1]
    assert (told.type, told.outcome, told.code) == ("audit.uncosigned", "failed", "HBK-720")
    assert told.data["details"] == {"entry": receipt.event.hex(), "position": 0}
    assert "without its witnesses" in caplog.text


def test_without_a_way_to_witnesses_nothing_counts_as_cosigned(audit: AuditLog) -> None:
    with pytest.raises(NotCosigned):
        AuditLog(Shelf(), Pseudonyms(KEY)).access(USER, "/x", "read", level="cosigned").result(PATIENCE)
    with pytest.raises(RecordsError, match="HBK-723"):  # a ledger that has none
        audit.access(USER, "/x", "read", level="cosigned").result(PATIENCE)


def test_an_entry_that_is_not_recorded_is_not_cosigned_either() -> None:
    ledger = Witnessed("note")
    failing: Future[Receipt] = Future()
    failing.set_exception(RecordsError("HBK-703"))
    ledger.submit = lambda event: failing  # type: ignore[method-assign]  # noqa: ARG005  # as a full disk would
    with pytest.raises(RecordsError, match="HBK-703"):
        AuditLog(ledger, Pseudonyms(KEY)).access(USER, "/x", "read", level="cosigned").result(PATIENCE)
    assert ledger.asked == []


# the context


def test_a_context_records_how_its_body_ended(book: Book, audit: AuditLog) -> None:
    with audit.action(user=USER, resource="/orders/17", action="cancel", details={"by": "web"}) as entry:
        entry.details["lines"] = 3
    assert entry.receipt == Receipt(entries(book)[0].id, 0)
    [found] = entries(book)
    assert found.outcome == "ok"
    assert found.data["details"] == {"by": "web", "lines": 3}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError(PASSWORD), "failed"), (Denied(detail=PASSWORD), "denied"), (PermissionError(PASSWORD), "denied"),
        (asyncio.CancelledError(PASSWORD), "cancelled"), (KeyboardInterrupt(PASSWORD), "cancelled"),
        (SystemExit(PASSWORD), "failed"),
    ],
)  # fmt: skip
def test_of_an_error_it_keeps_the_class_and_nothing_it_says(
    book: Book, audit: AuditLog, error: BaseException, outcome: str
) -> None:
    async def scene() -> None:
        async with audit.action(user=USER, resource="/orders/17", action="cancel", level="async"):
            raise error

    with pytest.raises(type(error)), audit.action(user=USER, resource="/orders/17", action="cancel"):
        raise error
    with pytest.raises(type(error)):
        scene().send(None)  # a loop would treat some of these in its own way
    audit.flush(PATIENCE)
    assert len(entries(book)) == 2
    for found in entries(book):
        assert (found.outcome, found.data["details"]) == (outcome, {"error": type(error).__name__})
    assert PASSWORD.encode() not in stored(book)


def test_it_can_be_awaited_and_say_another_outcome(book: Book, audit: AuditLog) -> None:
    async def scene() -> Receipt | None:
        async with audit.action(user=USER, resource="/orders/17", action="cancel", level="receipt") as entry:
            entry.outcome, entry.reason = "denied", "shipped already"
        return entry.receipt

    receipt = asyncio.run(scene())
    [found] = entries(book)
    assert receipt == Receipt(found.id, 0)
    assert (found.outcome, found.data["reason"]) == ("denied", "shipped already")


def test_what_cannot_be_recorded_is_an_error_and_does_not_hide_that_of_the_body(book: Book, audit: AuditLog) -> None:
    book.ledger.close()

    async def scene(error: Exception | None) -> None:
        async with audit.action(user=USER, resource="/x", action="cancel"):
            if error is not None:
                raise error

    with pytest.raises(RecordsError, match="HBK-706"), audit.action(user=USER, resource="/x", action="cancel"):
        pass
    with pytest.raises(RecordsError, match="HBK-706"):
        asyncio.run(scene(None))
    with pytest.raises(KeyError) as found, audit.action(user=USER, resource="/x", action="cancel"):
        raise KeyError("body")
    assert "could not be recorded: HBK-706" in "".join(found.value.__notes__)
    with pytest.raises(KeyError) as found:
        asyncio.run(scene(KeyError("body")))
    assert "could not be recorded: HBK-706" in "".join(found.value.__notes__)


# attacks, each with the same attack on what people use instead

PAYLOADS = (
    "/x\n2026-01-01T00:00:00Z INFO user=bob resource=/vault action=open outcome=ok",
    "/x\r\nuser=bob resource=/vault action=open outcome=ok\u2028user=bob resource=/vault\x85user=bob\x0buser=bob",
    "/x\x1b[2K\x1b[1Guser=bob resource=/vault action=open",
    '/x","actor":"user:bob","outcome":"ok',
)


def users(text: str) -> set[str]:
    """Whom a log names: what everybody's `grep` does."""
    return {line.split("user=")[1].split(" ")[0] for line in text.splitlines() if "user=" in line}


@pytest.mark.parametrize("payload", PAYLOADS[:2])
def test_a_line_of_text_is_forged_by_what_a_caller_chooses(payload: str) -> None:
    written = io.StringIO()
    logger = logging.Logger("naive")  # noqa: LOG001  # one of its own
    logger.addHandler(logging.StreamHandler(written))
    logger.info("user=mallory resource=%s action=read outcome=denied", payload)
    assert users(written.getvalue()) == {"mallory", "bob"}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_an_entry_is_one_entry_whatever_a_caller_chooses(book: Book, audit: AuditLog, payload: str) -> None:
    audit.access(payload, payload, payload, "denied", reason=payload, details={payload: payload, "x": [payload]})
    audit.flush(PATIENCE)
    [entry] = book.ledger.entries()
    found = decode_event(entry.meta, entry.public)
    assert (found.actor, found.outcome) == (Pseudonyms(KEY).of("user", payload), "denied")
    assert found.data["resource"] == payload
    for part in (entry.meta, entry.public):
        assert not any(byte < 0x20 for byte in part)  # JSON escapes what could move a terminal or end a line


def test_a_secret_in_details_is_on_disk_when_nobody_looks(book: Book) -> None:
    body = {"form": {"login": USER, "password": PASSWORD}}
    book.write(Event(id=b"1" * 16, type="audit.access", stream="/audit/x/y", time_ns=1, data=body))
    assert PASSWORD.encode() in stored(book)


@pytest.mark.parametrize(
    "details",
    [
        {"form": {"login": "x", "password": PASSWORD}},
        {"headers": {"Authorization": f"Bearer {PASSWORD}"}},
        {"headers": [[b"cookie", PASSWORD.encode()]]},
        {"query": f"a=1&password={PASSWORD}"},
        {"body": json.dumps({"user": {"api_key": PASSWORD}})},
        {"url": f"https://app:{PASSWORD}@example.org/"},
        {"why": KeyError(PASSWORD)},
    ],
)
def test_a_secret_in_details_never_reaches_the_disk(book: Book, audit: AuditLog, details: Mapping[str, object]) -> None:
    text = f"password={PASSWORD}"
    audit.access(USER, f"/x?{text}", text, reason=text, details=details, level="receipt").result(PATIENCE)
    with pytest.raises(LookupError), audit.action(user=USER, resource="/x", action="y", details=details):
        raise LookupError(PASSWORD)
    assert len(entries(book)) == 2
    assert PASSWORD.encode() not in stored(book)
    assert kept_details(details).data


def salted(value: str) -> str:
    """How it is often done: `sha256(value + salt)[:16]`, the salt in the configuration."""
    return hashlib.sha256((value + "pepper-2024").encode()).hexdigest()[:16]


def guess(found: str, candidates: Sequence[str]) -> list[str]:
    """Whoever has the log, the program and its configuration tries every address there is."""
    ways = (
        salted,
        lambda value: Pseudonyms(b"\0" * 32).of("address", value),
        lambda v: Pseudonyms(b"").of("address", v),
    )
    return [one for one in candidates if any(way(one) == found for way in ways)]


def test_a_salted_hash_of_an_address_is_undone_by_trying(book: Book, audit: AuditLog) -> None:
    everybody = [f"198.51.{a}.{b}" for a in (99, 100) for b in range(256)]
    assert guess(salted(ADDRESS), everybody) == [ADDRESS]
    audit.access(USER, "/x", "read", address=ADDRESS)
    audit.flush(PATIENCE)
    [entry] = entries(book)
    assert guess(entry.address, everybody) == []
    assert Pseudonyms(KEY).of("address", ADDRESS) == entry.address  # who has the key finds it


def test_five_lines_are_enough(tmp_path: Path) -> None:
    runtime = Runtime.embedded(tmp_path / "state", policies=(), config=load(environ={}))
    with runtime.audit.action(user=USER, resource="/orders/17", action="cancel") as entry:
        entry.details["lines"] = 3
    runtime.close()
    assert entry.receipt is not None


def test_what_a_loop_has_not_come_to_is_written_when_the_runtime_closes(tmp_path: Path) -> None:
    async def scene() -> None:
        runtime = Runtime.embedded(tmp_path / "state", policies=(), config=load(environ={}))
        runtime.audit.access(USER, "/orders/17", "read", level="receipt")
        runtime.close()

    asyncio.run(scene())
    store = open_readonly(tmp_path / "state" / "private" / "hauberk.db")
    assert [entry.type for entry in store.entries("example.org/ledger")][-1] == "audit.access"
    store.close()
