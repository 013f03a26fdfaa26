"""`logging` into the audit log: a log call never fails, never recurses, keeps no secret and loses nothing uncounted."""

import asyncio
import contextlib
import copy
import io
import logging
import logging.handlers
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

import pytest

from hauberk.core.event import Event, Receipt
from hauberk.core.ports import Draft, made
from hauberk.core.principal import Kind, Principal
from hauberk.crypto.keyring import Pseudonyms
from hauberk.errors import RecordsError
from hauberk.integrations import sink as sink_module
from hauberk.integrations.logging import AuditSink
from hauberk.records._encode import decode_event
from hauberk.records.audit import AuditLog
from hauberk.records.secrets import SECRET
from tests.records.made import PATIENCE, Book, Shelf

ALICE = "alice@example.org"
PASSWORD = "Tr0ub4dor-hunter2"
KEY = b"k" * 32


class Scene:
    """An application's logger with our handler."""

    def __init__(self, recorder: Any, **options: Any) -> None:  # noqa: ANN401  # a ledger or what stands for one
        self.audit = AuditLog(recorder, Pseudonyms(KEY), "production/shop")
        self.handler = AuditSink(self.audit, **options)
        self.log = logging.Logger("shop.orders")  # noqa: LOG001  # one of its own
        self.log.addHandler(self.handler)
        self.counts = self.handler.sink.counts


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made_here = Book(tmp_path)
    yield made_here
    made_here.close()


@pytest.fixture
def scene(book: Book) -> Scene:
    return Scene(book.ledger)


def recorded(book: Book, scene: Scene) -> list[Event]:
    scene.audit.flush(PATIENCE)
    return [decode_event(entry.meta, entry.public) for entry in book.ledger.entries()]


def details(event: Event) -> dict[str, Any]:
    found = event.data["details"]
    assert isinstance(found, dict)
    return found


def on_disk(book: Book) -> bytes:
    return b"".join(path.read_bytes() for path in book.path.parent.iterdir())


# what is recorded


def test_a_message_is_one_entry_with_its_arguments_and_extra(book: Book, scene: Scene) -> None:
    extra = {"ticket": "T-1", "user": ALICE, "resource": "/orders/17"}
    scene.log.warning("order %s refunded by %d", "o-17", 3, extra=extra)
    [entry] = recorded(book, scene)
    assert (entry.type, entry.stream, entry.outcome) == ("audit.log", "/audit/production/shop", "ok")
    assert entry.actor == Pseudonyms(KEY).of("user", ALICE)
    assert entry.data["resource"] == "/orders/17"
    found = details(entry)
    assert found.pop("at").startswith("test_logging.test_a_message_is_one_entry")
    assert found == {
        "logger": "shop.orders", "severity": "WARNING", "message": "order o-17 refunded by 3", "args": ["o-17", 3],
        "ticket": "T-1",
    }  # fmt: skip
    assert ALICE.encode() not in on_disk(book)


def test_what_extra_says_of_people_and_outcomes_is_what_the_audit_log_says(book: Book, scene: Scene) -> None:
    extra = {"user": Principal(Kind.USER, ALICE), "session": "s1", "address": "10.0.0.1", "outcome": "denied",
             "action": "refund", "reason": "not theirs", "correlation": "c1"}  # fmt: skip
    scene.log.info("refused", extra=extra)
    scene.log.error("broken", extra={"outcome": "no such outcome", "user": 17})
    denied, failed = recorded(book, scene)
    hide = Pseudonyms(KEY).of
    assert (denied.actor, denied.session) == (hide("user", ALICE), hide("session", "s1"))
    assert denied.address == hide("address", "10.0.0.1")
    assert (denied.outcome, denied.correlation) == ("denied", "c1")
    assert (denied.data["action"], denied.data["reason"]) == ("refund", "not theirs")
    assert (failed.outcome, failed.actor) == ("failed", "")
    assert details(failed)["user"] == 17


def test_of_an_error_there_are_classes_and_functions_and_nothing_it_says(book: Book, scene: Scene) -> None:
    def inner() -> NoReturn:
        raise KeyError(PASSWORD)

    try:
        try:
            inner()
        except KeyError as error:
            raise ExceptionGroup(PASSWORD, [ValueError(PASSWORD)]) from error
    except ExceptionGroup:
        scene.log.exception("failed")
    [entry] = recorded(book, scene)
    group, cause = details(entry)["error"]
    assert entry.outcome == "failed"
    assert (group["type"], group["of"]) == ("ExceptionGroup", ["ValueError"])
    assert cause["type"] == "KeyError"
    assert ".<locals>.inner:" in cause["at"][-1]
    assert PASSWORD.encode() not in on_disk(book)


def test_causes_that_go_in_a_circle_end(book: Book, scene: Scene) -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    scene.log.error("failed", exc_info=first)
    [entry] = recorded(book, scene)
    assert [one["type"] for one in details(entry)["error"]] == ["ValueError", "ValueError"]


def test_the_record_goes_on_to_others_as_it_was(scene: Scene) -> None:
    written = io.StringIO()
    scene.log.addHandler(logging.StreamHandler(written))
    seen: list[dict[str, object]] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(copy.copy(record.__dict__))

    scene.log.handlers.insert(0, Keeping())
    scene.log.handlers.append(Keeping())
    scene.log.info("login %(password)s", {"password": PASSWORD}, extra={"token": PASSWORD})
    before, after = seen
    assert after.pop("message") == f"login {PASSWORD}"  # the other handler's formatter put it there
    assert before == after
    assert written.getvalue() == f"login {PASSWORD}\n"


# secrets


SECRETS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("login %(password)s", ({"password": PASSWORD},), {}),
    ("password=%s", (PASSWORD,), {}),
    ("password %s", (PASSWORD,), {}),
    ("the api_key is %r for %s", (PASSWORD, "x"), {}),
    ("%s has secret: %s", ("x", PASSWORD), {}),
    ("headers %s", ({"Authorization": PASSWORD},), {}),
    ("sent %s", (f"Bearer {PASSWORD}",), {}),
    (f"https://u:{PASSWORD}@h/", (), {}),
    ("x", (), {"client_secret": PASSWORD}),
    ("x", (), {"request": {"headers": [("cookie", PASSWORD)]}}),
]


@pytest.mark.parametrize(("message", "args", "extra"), SECRETS)
def test_no_secret_reaches_the_disk(
    book: Book, scene: Scene, message: str, args: tuple[Any, ...], extra: dict[str, Any]
) -> None:
    scene.log.info(message, *args, extra=extra)
    [entry] = recorded(book, scene)
    assert PASSWORD.encode() not in on_disk(book)
    assert SECRET in str(entry.data)


@pytest.mark.parametrize(("message", "args", "extra"), SECRETS[:8])
def test_a_handler_that_writes_lines_writes_them(message: str, args: tuple[Any, ...], extra: dict[str, Any]) -> None:
    written = io.StringIO()
    log = logging.Logger("naive")  # noqa: LOG001  # one of its own
    log.addHandler(logging.StreamHandler(written))
    log.info(message, *args, extra=extra)
    assert PASSWORD in written.getvalue()


# forging


FORGED = "x\n2026-01-01 INFO shop.orders user=bob granted\r\n\x1b[2K"


def test_a_line_is_forged_in_a_file_and_not_here(book: Book, scene: Scene) -> None:
    written = io.StringIO()
    scene.log.addHandler(logging.StreamHandler(written))
    scene.log.info("user=%s refused", FORGED, extra={"note": FORGED})
    assert "2026-01-01 INFO shop.orders user=bob granted" in written.getvalue().splitlines()
    scene.audit.flush(PATIENCE)
    [entry] = book.ledger.entries()
    assert not any(byte < 0x20 for byte in entry.meta + entry.public)
    assert details(decode_event(entry.meta, entry.public))["message"] == f"user={FORGED} refused"


# a log call never fails


class Rude:
    """An object that does not want to be shown."""

    def __str__(self) -> str:
        raise RuntimeError(PASSWORD)

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("order %s", (Rude(),)), ("%d", ("x",)), ("%s %s", ("one",)), ("%(a)s", ({"b": 1},)), (Rude(), ()), ("%", (1,)),
        ("%y", (1,)),
    ],
)  # fmt: skip
def test_what_cannot_be_formatted_is_recorded_without(
    book: Book, scene: Scene, message: object, args: tuple[Any, ...]
) -> None:
    scene.log.info(message, *args)
    [entry] = recorded(book, scene)
    assert details(entry)["unformatted"] is True
    assert scene.counts.taken == 1
    assert PASSWORD.encode() not in on_disk(book)


def test_a_closed_ledger_is_no_error_to_whoever_logs_and_is_counted_and_told(
    book: Book, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    book.ledger.close()
    with caplog.at_level(logging.ERROR, "hauberk.records"):
        for _ in range(5):
            scene.log.info("x")
    assert scene.counts.lost == 5
    assert [record.getMessage() for record in caplog.records] == [
        f"{count} log messages could not be recorded: HBK-706" for count in (1, 2, 4)
    ]
    scene.handler.flush()
    scene.handler.close()


def test_messages_about_recording_are_not_recorded(book: Book, scene: Scene) -> None:
    for name in ("hauberk", "hauberk.records"):
        scene.handler.handle(logging.makeLogRecord({"name": name, "msg": "x"}))
    scene.handler.handle(logging.makeLogRecord({"name": "hauberkian", "msg": "x"}))
    assert scene.counts.own == 2
    assert len(recorded(book, scene)) == 1


def test_an_error_of_the_disk_that_is_logged_does_not_go_round_and_round(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Shelf):
        def offer(self, event: Event | Draft) -> "Future[Receipt] | None":
            logging.getLogger("hauberk.records").error("the disk is full")
            made(event)
            failed: Future[Receipt] = Future()
            failed.set_exception(RecordsError("HBK-703"))
            return failed

    scene, root = Scene(Full()), logging.getLogger()
    root.addHandler(scene.handler)
    try:
        with caplog.at_level(logging.INFO):
            logging.getLogger("shop").info("x")
    finally:
        root.removeHandler(scene.handler)
    assert (scene.counts.lost, scene.counts.own) == (1, 2)
    assert "HBK-703" in caplog.text


def test_a_message_made_while_one_is_taken_is_counted_and_not_followed(book: Book, scene: Scene) -> None:
    class Talkative:
        def __str__(self) -> str:
            scene.log.info("somebody looks at me")
            return "me"

    scene.log.info("look at %s", Talkative())
    assert scene.counts.inner == 1
    assert [details(entry)["message"] for entry in recorded(book, scene)] == ["look at me"]


def test_filters_and_levels_work_as_everywhere(book: Book, scene: Scene) -> None:
    scene.handler.addFilter(lambda record: record.getMessage() != "not this")
    scene.handler.setLevel(logging.WARNING)
    scene.log.info("nor that")
    scene.log.warning("not this")
    scene.log.warning("this")
    assert [details(entry)["message"] for entry in recorded(book, scene)] == ["this"]


def test_through_a_queue_handler_it_is_the_same(book: Book, scene: Scene) -> None:
    waiting: SimpleQueue[logging.LogRecord] = SimpleQueue()
    log = logging.Logger("web")  # noqa: LOG001  # one of its own
    log.addHandler(logging.handlers.QueueHandler(waiting))
    listener = logging.handlers.QueueListener(waiting, scene.handler)
    log.info("order %s", "o-17", extra={"user": ALICE})
    listener.start()
    listener.stop()
    [entry] = recorded(book, scene)
    assert (entry.actor, details(entry)["message"]) == (Pseudonyms(KEY).of("user", ALICE), "order o-17")


# nothing is lost without a count


class Slow(Shelf):
    """A recorder whose queue is full until it answers."""

    def __init__(self) -> None:
        super().__init__(answering=False)
        self.offered = threading.Event()

    def offer(self, event: Event | Draft) -> "Future[Receipt] | None":
        future = self.submit(made(event))
        self.offered.set()
        return future


def test_a_full_queue_makes_the_caller_wait() -> None:
    slow = Slow()
    scene = Scene(slow)
    caller = threading.Thread(target=scene.log.info, args=("x",))
    caller.start()
    assert slow.offered.wait(PATIENCE)
    assert caller.is_alive()
    slow.answer()
    caller.join(PATIENCE)
    assert not caller.is_alive()
    assert (scene.counts.taken, scene.counts.late) == (1, 0)


def test_but_not_for_ever_and_the_message_is_in_the_queue_all_the_same() -> None:
    slow = Slow()
    scene = Scene(slow, patience=0.0)
    scene.log.info("x")
    assert (scene.counts.taken, scene.counts.late, scene.counts.lost) == (1, 1, 0)
    assert len(slow.taken) == 1
    assert "late 1" in repr(scene.counts)


def test_the_ledger_s_own_thread_may_log_while_a_caller_waits_for_it(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow()
    scene, root = Scene(slow), logging.getLogger()
    root.addHandler(scene.handler)
    try:
        caller = threading.Thread(target=logging.getLogger("shop").error, args=("x",))
        caller.start()
        assert slow.offered.wait(PATIENCE)
        with caplog.at_level(logging.ERROR):
            logging.getLogger("hauberk.records").error("a word")  # with a lock, both would wait for ever
        slow.answer()
        caller.join(PATIENCE)
    finally:
        root.removeHandler(scene.handler)
    assert scene.counts.taken == 1


def test_a_receipt_can_be_wanted_before_the_caller_goes_on(book: Book) -> None:
    scene = Scene(book.ledger, wanted="receipt")

    async def task() -> None:
        scene.log.info("in a loop")

    scene.log.info("in a thread")
    assert book.ledger.head().size == 1
    asyncio.run(task())
    assert book.ledger.head().size == 2


def test_flush_and_close_write_what_was_taken(book: Book, scene: Scene) -> None:
    scene.log.info("one")
    scene.handler.flush()
    assert book.ledger.head().size == 1
    scene.log.info("two")
    scene.handler.close()
    assert book.ledger.head().size == 2


def test_after_the_ledger_is_closed_there_is_nothing_to_say(
    book: Book, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.log.info("one")
    book.ledger.close()  # which writes it; the handler is still attached when the process ends
    with caplog.at_level(logging.DEBUG):
        scene.handler.flush()
        scene.handler.close()
    assert caplog.records == []
    assert book.ledger.head().size == 1


def test_what_may_not_be_durable_is_said_and_nothing_is_when_nothing_is_outstanding(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(Shelf):
        code = "HBK-703"

        def append_batch(self, events: object) -> "Future[list[Receipt]]":
            assert events == ()
            done: Future[list[Receipt]] = Future()
            done.set_exception(RecordsError(self.code))
            return done

    scene = Scene(Failing())
    with caplog.at_level(logging.DEBUG):
        scene.handler.flush()
    assert caplog.records == []
    scene.log.info("one")
    with caplog.at_level(logging.DEBUG):
        scene.handler.flush()
    assert "may not be durable yet: HBK-703" in caplog.text


def test_the_number_of_messages_is_the_sum_of_the_counts(book: Book, scene: Scene) -> None:
    def talk() -> None:
        for number in range(100):
            with contextlib.suppress(ZeroDivisionError):
                scene.log.info("%s", Rude() if number % 10 == 0 else number)

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert scene.counts.taken == 400
    scene.audit.flush(PATIENCE)
    assert book.ledger.head().size == 400


def test_long_chains_and_deep_stacks_are_bounded(book: Book, scene: Scene) -> None:
    def dive(depth: int) -> None:
        if depth == 0:
            raise ValueError
        dive(depth - 1)

    error: BaseException | None = None
    for _ in range(20):
        try:
            dive(50)
        except ValueError as found:
            found.__cause__, error = error, found
    scene.log.error("deep", exc_info=error)
    [entry] = recorded(book, scene)
    chain = details(entry)["error"]
    assert len(chain) == sink_module.MAX_CHAIN
    assert all(len(one["at"]) == sink_module.MAX_FRAMES for one in chain)


def test_what_is_taken_is_bounded(book: Book, scene: Scene) -> None:
    big = {"all": list(range(10_000)), "big": {str(number): "y" * 100 for number in range(1_000)}}
    scene.log.info("x" * 100_000, extra=big)
    scene.audit.flush(PATIENCE)
    [entry] = book.ledger.entries()
    assert len(entry.public) < 40_000
    assert decode_event(entry.meta, entry.public).data["cut"]
