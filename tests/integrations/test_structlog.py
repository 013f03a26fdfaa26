"""structlog into the audit log: events go on as they are, and a copy without secrets is recorded."""

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog

from hauberk.core.event import Event
from hauberk.crypto.keyring import Pseudonyms
from hauberk.integrations.structlog import AuditProcessor
from hauberk.records._encode import decode_event
from hauberk.records.audit import AuditLog
from tests.records.made import PATIENCE, Book

ALICE = "alice@example.org"
PASSWORD = "Tr0ub4dor-hunter2"
KEY = b"k" * 32


class Scene:
    """An application's structlog with our processor before the renderer."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.audit = AuditLog(book.ledger, Pseudonyms(KEY), "production/shop")
        self.processor = AuditProcessor(self.audit)
        self.lines: list[str] = []
        self.log: Any = structlog.wrap_logger(
            structlog.testing.CapturingLogger(),
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                self.processor,
                structlog.processors.format_exc_info,
                self._render,
            ],
            wrapper_class=structlog.BoundLogger,
            context_class=dict,
        )

    def _render(self, _logger: object, _name: str, event_dict: MutableMapping[str, Any]) -> str:
        self.lines.append(json.dumps(event_dict, default=repr))
        return self.lines[-1]

    def recorded(self) -> list[Event]:
        self.audit.flush(PATIENCE)
        return [decode_event(entry.meta, entry.public) for entry in self.book.ledger.entries()]

    def on_disk(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.book.path.parent.iterdir())


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    book = Book(tmp_path)
    yield Scene(book)
    book.close()


def details(event: Event) -> dict[str, Any]:
    found = event.data["details"]
    assert isinstance(found, dict)
    return found


def test_an_event_is_rendered_as_it_was_and_recorded_without_names(scene: Scene) -> None:
    scene.log.bind(request="r1").info("refund refused", user=ALICE, resource="/orders/17", outcome="denied", lines=3)
    assert json.loads(scene.lines[0]) == {
        "event": "refund refused", "user": ALICE, "resource": "/orders/17", "outcome": "denied", "lines": 3,
        "request": "r1", "level": "info",
    }  # fmt: skip
    [entry] = scene.recorded()
    assert (entry.type, entry.outcome, entry.data["resource"]) == ("audit.log", "denied", "/orders/17")
    assert entry.actor == Pseudonyms(KEY).of("user", ALICE)
    assert details(entry) == {
        "severity": "info", "message": "refund refused", "lines": 3, "request": "r1", "level": "info",
    }  # fmt: skip
    assert ALICE.encode() not in scene.on_disk()


def test_the_very_same_mapping_goes_on(scene: Scene) -> None:
    event = {"event": "x", "password": PASSWORD, "nested": {"token": PASSWORD}, "_record": object()}
    before = dict(event)
    assert scene.processor(None, "info", event) is event
    assert event == before
    [entry] = scene.recorded()
    assert "_record" not in details(entry)


def test_secrets_are_rendered_by_others_and_not_recorded_here(scene: Scene) -> None:
    scene.log.info("login", password=PASSWORD, headers={"Cookie": PASSWORD}, url=f"https://u:{PASSWORD}@h/")
    assert scene.lines[0].count(PASSWORD) == 3  # what the processor is for
    assert PASSWORD.encode() not in scene.on_disk()
    [entry] = scene.recorded()
    assert entry.data["hidden"] == 3


def test_of_an_error_there_are_classes_and_functions_and_nothing_it_says(scene: Scene) -> None:
    def inner() -> NoReturn:
        raise KeyError(PASSWORD)

    for given in (True, None, "triple"):
        try:
            inner()
        except KeyError as error:
            triple = (KeyError, error, error.__traceback__)
            scene.log.msg("failed", level="error", exc_info={True: True, None: error, "triple": triple}[given])
    scene.log.error("failed", exception=f"Traceback ...\nKeyError: {PASSWORD}")
    entries = scene.recorded()
    assert [entry.outcome for entry in entries] == ["failed"] * 4
    for entry in entries[:3]:
        [one] = details(entry)["error"]
        assert one["type"] == "KeyError"
        assert ".<locals>.inner:" in one["at"][-1]
    assert PASSWORD.encode() not in scene.on_disk()


def test_an_event_never_fails(scene: Scene) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError(PASSWORD)

    scene.processor(None, "info", {"event": Rude()})
    [entry] = scene.recorded()
    assert details(entry) == {"severity": "info", "unformatted": True}
    scene.book.ledger.close()
    scene.processor(None, "info", {"event": "x"})
    assert scene.processor.sink.counts.lost == 1


def test_messages_about_recording_are_not_recorded(scene: Scene) -> None:
    scene.processor(None, "error", {"event": "x", "logger": "hauberk.records"})
    assert scene.recorded() == []
    assert scene.processor.sink.counts.own == 1


def test_an_event_is_one_entry_whatever_is_in_it(scene: Scene) -> None:
    forged = 'x\n{"event": "granted", "user": "bob"}\u2028\x1b[2K'
    scene.log.info(forged, note=forged)
    scene.audit.flush(PATIENCE)
    [entry] = scene.book.ledger.entries()
    assert not any(byte < 0x20 for byte in entry.meta + entry.public)
