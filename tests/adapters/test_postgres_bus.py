"""What only the bus between processes has to show: who hears it, what it refuses, and that it comes back by itself."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hauberk.adapters import postgres_bus as module
from hauberk.adapters.postgres_bus import PostgresBus
from hauberk.errors import Oversized
from tests.adapters.test_bus import Ear
from tests.core.refusal import refuses
from tests.records.made import PATIENCE
from tests.support.postgres import address, database, execute
from tests.support.postgres_server import Server

PUBLISHER = """
import sys
from hauberk.adapters.postgres_bus import PostgresBus
bus = PostgresBus(sys.argv[1])
for number in range(100):
    bus.publish("from.afar", b"%d" % number)
bus.close()
"""


@pytest.fixture
def dsn() -> Iterator[str]:
    with database() as lent:
        yield lent


@pytest.fixture
def bus(dsn: str) -> Iterator[PostgresBus]:
    with closing(PostgresBus(dsn)) as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


def until_heard(bus: PostgresBus, ear: Ear, subject: str) -> None:
    """Publish until one is heard: a bus that lost its connection says nothing about when it has another one."""
    until = time.monotonic() + PATIENCE
    while not any(heard == subject for heard, _ in ear.heard):
        bus.publish(subject, b"")
        time.sleep(0.02)
        assert time.monotonic() < until


def end_sessions(dsn: str) -> None:
    execute(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND datname = current_database()")  # fmt: skip


def test_another_process_is_heard_whole_and_in_order_and_what_it_said_last_too(bus: PostgresBus, dsn: str) -> None:
    ear = Ear()
    bus.subscribe("from.*", ear)
    subprocess.run([sys.executable, "-c", PUBLISHER, dsn], check=True, timeout=30, cwd=Path(__file__).parents[2])
    assert ear.wait(100) == [("from.afar", b"%d" % number) for number in range(100)]


def test_once_subscribed_whatever_anybody_publishes_is_heard(dsn: str) -> None:
    with closing(PostgresBus(dsn)) as one, closing(PostgresBus(dsn)) as other:
        for turn in range(20):
            ear = Ear()
            subscription = one.subscribe("s", ear)
            other.publish("s", b"%d" % turn)
            assert ear.wait(1) == [("s", b"%d" % turn)]
            subscription.close()


def test_equal_messages_are_as_many_messages(bus: PostgresBus) -> None:
    ear = Ear()
    bus.subscribe("s", ear)
    for _ in range(50):
        bus.publish("s", b"the same")
    assert len(ear.wait(50)) == 50


def test_what_does_not_fit_a_notification_is_refused_and_what_just_fits_arrives(bus: PostgresBus) -> None:
    ear = Ear()
    bus.subscribe("s", ear)
    frame = len(module._encode(module._Message(bus._sender, 1, "s", b"")))
    most = (module.MAX_BYTES - frame) // 4 * 3  # base64
    bus.publish("s", bytes(most))
    with pytest.raises(Oversized) as found:
        bus.publish("s", bytes(most + 3))
    assert found.value.context["most"] == 7_999
    assert len(ear.wait(1)[0][1]) == most


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(subject=st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: "." not in text), data=st.binary())
def test_any_subject_and_any_bytes_arrive_as_they_were(bus: PostgresBus, subject: str, data: bytes) -> None:
    ear = Ear()
    with closing(bus.subscribe("*", ear)):
        bus.publish(subject, data)
        assert ear.wait(1) == [(subject, data)]


@pytest.mark.parametrize(
    "payload", ["", "x", "[]", "{}", '["a", 1, "s"]', '["a", "b", "c", "d"]', '["a", 1, "s", "?"]']
)
def test_what_somebody_else_notifies_is_no_message_and_no_harm(bus: PostgresBus, dsn: str, payload: str) -> None:
    ear = Ear()
    bus.subscribe(">", ear)
    execute(dsn, f"SELECT pg_notify('{module.CHANNEL}', '{payload}')")
    bus.publish("s", b"after")
    assert ear.wait(1) == [("s", b"after")]


def test_it_comes_back_by_itself_with_every_subscription_and_says_so_once(
    bus: PostgresBus, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    ears = [Ear(), Ear()]
    for ear in ears:
        bus.subscribe(">", ear)
    with caplog.at_level(logging.WARNING, "hauberk.bus"):
        for turn in range(3):
            end_sessions(dsn)
            until_heard(bus, ears[0], f"back.{turn}")
            until_heard(bus, ears[1], f"back.{turn}")
    lost = [text for text in caplog.messages if "lost the database" in text]
    assert len(lost) == 3
    bus.publish("order", b"1")
    bus.publish("order", b"2")
    late = Ear()
    bus.subscribe("late", late)
    bus.publish("late", b"")
    assert late.wait(1) == [("late", b"")]
    assert [data for subject, data in ears[0].heard if subject == "order"] == [b"1", b"2"]


def test_while_the_database_is_away_nobody_waits_and_the_oldest_messages_go(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "QUEUE", 10)
    monkeypatch.setattr(module, "_BEGIN_SECONDS", 0.05)
    ear, late = Ear(), Ear()
    with closing(PostgresBus(server.dsn())) as bus, caplog.at_level(logging.WARNING, "hauberk.bus"):
        bus.subscribe("s", ear)
        server.crash()
        until = time.monotonic() + PATIENCE
        while not any("lost the database" in text for text in caplog.messages):
            assert time.monotonic() < until
            time.sleep(0.01)
        for number in range(30):
            bus.publish("s", b"%d" % number)
        bus.subscribe("s", late)
        assert sum("dropped" in text for text in caplog.messages) == 1
        server.start()
        heard = [int(data) for _, data in ear.wait(9)]
        assert heard == list(range(21, 30))  # and the tenth place was the subscription's
        assert [int(data) for _, data in late.wait(9)] == heard


def test_closing_ends_though_the_database_is_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    bus = PostgresBus(server.dsn())
    server.crash()
    bus.publish("s", b"")
    bus.close()
    assert set(threading.enumerate()) <= before
    bus.publish("s", b"")  # nobody hears it
    monkeypatch.setattr(module, "_BEGIN_SECONDS", 0.01)
    bus.subscribe("s", Ear()).close()
    with refuses("HBK-703"):
        PostgresBus(server.dsn())
    server.start()


def test_nothing_it_says_tells_the_password(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    secret = "hunter2hunter2"
    known = address(dsn, password=secret)
    with closing(PostgresBus(known)) as bus, caplog.at_level(logging.WARNING):
        assert secret not in repr(bus)
        ear = Ear()
        bus.subscribe("s", ear)
        end_sessions(dsn)
        until_heard(bus, ear, "s")
    assert secret not in caplog.text
    with pytest.raises(Exception, match="HBK-703") as found:
        PostgresBus(address(known, user="no_such_user"))
    assert secret not in f"{found.value!r} {getattr(found.value, 'detail', '')}"


def test_a_message_is_kept_nowhere(bus: PostgresBus, dsn: str) -> None:
    ear = Ear()
    bus.subscribe("s", ear)
    with closing(psycopg.connect(dsn, autocommit=True)) as other:
        before = other.execute("SELECT count(*) FROM hauberk.entry, hauberk.row").fetchall()
        bus.publish("s", b"x")
        ear.wait(1)
        assert other.execute("SELECT count(*) FROM hauberk.entry, hauberk.row").fetchall() == before
