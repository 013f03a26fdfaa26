"""What our store gives an application of the `eventsourcing` library that its own stores do not, and what it costs."""

import gc
import importlib
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("eventsourcing")

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import DataError, IntegrityError, InterfaceError, InternalError, StoredEvent, Tracking
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore
from eventsourcing.utils import Environment

from bench.tamper_eventsourcing import Eventsourcing
from bench.tamper_ours import OnOurs
from bench.tampering import ATTACKS, Outcome, outcome
from hauberk.adapters.sqlite import open_readonly
from hauberk.core.config import load
from hauberk.core.event import Event
from hauberk.core.ids import uuid7
from hauberk.core.ports import Row
from hauberk.errors import ConfigError, Tampered
from hauberk.integrations import _originators, _place
from hauberk.integrations._place import Place
from hauberk.integrations._place import settings as read_settings
from hauberk.integrations.eventsourcing import (
    AggregateRecorder,
    ApplicationRecorder,
    Factory,
)
from hauberk.records.verify import verify_store
from tests.support.postgres import database

PATIENCE = 20.0
SECRET = "4929-1234-5678"


class Customer(Aggregate):
    @event("Registered")
    def __init__(self, card: str) -> None:
        self.card = card
        self.notes: list[str] = []

    @event("Noted")
    def note(self, text: str) -> None:
        self.notes.append(text)


def environ(directory: Path, **more: str) -> dict[str, str]:
    return {
        "PERSISTENCE_MODULE": "hauberk.integrations.eventsourcing",
        "HAUBERK_EVENTSOURCING_STORE": f"sqlite:{directory / 'events.db'}",
        "HAUBERK_EVENTSOURCING_KEYS": f"file:{directory / 'keys'}",
        **more,
    }


@contextmanager
def opened(directory: Path, **more: str) -> Iterator[Application[UUID]]:
    application = Application[UUID](env=environ(directory, **more))
    try:
        yield application
    finally:
        application.close()


def recorder_of(application: Application[UUID]) -> ApplicationRecorder:
    assert isinstance(application.recorder, ApplicationRecorder)
    return application.recorder


def stored(originator: UUID | str, version: int, state: bytes = b"{}", topic: str = "topic") -> StoredEvent:
    return StoredEvent(originator, version, topic, state)


def test_an_unchanged_application_on_our_store_notices_all_seven_attacks() -> None:
    assert {attack: outcome(OnOurs, attack) for attack in ATTACKS} == dict.fromkeys(ATTACKS, Outcome.CAUGHT)


@pytest.mark.parametrize("attack", ["paste", "reorder", "replay", "truncate", "replace"])
def test_the_same_application_on_its_own_encrypted_store_does_not(attack: str) -> None:
    assert outcome(Eventsourcing, attack) is Outcome.MISSED


def test_nothing_of_a_state_or_of_an_id_that_is_text_is_in_any_file(tmp_path: Path) -> None:
    with opened(tmp_path, IS_SNAPSHOTTING_ENABLED="y") as application:
        customer = Customer(SECRET)
        application.save(customer)
        application.take_snapshot(customer.id)
        recorder = recorder_of(application)
        recorder.insert_events([stored("alice@example.com", 1, b'{"card":"%b"}' % SECRET.encode())])
        assert recorder.select_events("alice@example.com") == [
            stored("alice@example.com", 1, b'{"card":"4929-1234-5678"}')
        ]
        everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Registered" in everything
    assert SECRET.encode() not in everything
    assert b"alice" not in everything


def test_everything_an_application_records_is_proven_offline_with_the_public_key(tmp_path: Path) -> None:
    with opened(tmp_path) as application:
        recordings = application.save(Customer(SECRET), Customer(SECRET))
        recorder = recorder_of(application)
        key = recorder.verifier
        proof = recorder.ledger.proof(recordings[-1].notification.id - 1)
        assert proof.position == 1
    with closing(open_readonly(tmp_path / "events.db")) as store:
        assert verify_store(store, key).size == 2


def erase(recorder: AggregateRecorder, originator: UUID | str) -> None:
    """Destroy the key and leave a certificate in the log, as the records plane does."""
    keys = recorder.keys
    erasing = keys.erasing(recorder.subject(originator))
    certificate = Event(id=uuid7(), type="records.erased", stream="/records/erasures", time_ns=1)
    recorder.ledger.append_batch([certificate], rows=erasing.rows(certificate.id)).result(PATIENCE)


def test_an_erased_aggregate_is_gone_and_the_others_and_every_proof_stay(tmp_path: Path) -> None:
    with opened(tmp_path, IS_SNAPSHOTTING_ENABLED="y") as application:
        one, other = Customer(SECRET), Customer("4000")
        application.save(one, other)
        application.take_snapshot(one.id)
        recorder = recorder_of(application)
        erase(recorder, one.id)
        with pytest.raises(AggregateNotFoundError):
            application.repository.get(one.id)
        assert application.snapshots is not None
        assert list(application.snapshots.get(one.id)) == []
        kept: Customer = application.repository.get(other.id)
        assert kept.card == "4000"
        assert [found.originator_id for found in recorder.select_notifications(None, 10)] == [other.id]
        assert recorder.max_notification_id() == 2  # the certificate is none
        assert [found.notification.id for found in application.save(Customer("5000"))] == [4]
        with pytest.raises(IntegrityError):  # what was erased was there
            recorder.insert_events([stored(one.id, 1)])
        key = recorder.verifier
    with closing(open_readonly(tmp_path / "events.db")) as store:
        assert verify_store(store, key).size == 4


def test_following_goes_on_behind_pages_of_what_was_erased(tmp_path: Path) -> None:
    with opened(tmp_path) as application:
        recorder = recorder_of(application)
        gone, kept = uuid4(), uuid4()
        recorder.insert_events([stored(gone, version) for version in range(50)])
        recorder.insert_events([stored(kept, 1)])
        erase(recorder, gone)
        assert [found.id for found in recorder.select_notifications(None, 10)] == [51]
        assert recorder.select_notifications(None, 10, stop=50) == []
        assert recorder.max_notification_id() == 51


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_of_two_processes_that_write_one_version_one_succeeds(tmp_path: Path, engine: str) -> None:
    with database() as dsn:
        store = f"sqlite:{tmp_path / 'events.db'}" if engine == "sqlite" else dsn
        chosen = read_settings(environ(tmp_path, HAUBERK_EVENTSOURCING_STORE=store))
        places = [Place(chosen) for _ in range(2)]  # as two processes would
        try:
            first, second = (_originators.Entries(place, "shop", "events") for place in places)
            one, names = uuid4(), [uuid4() for _ in range(20)]
            first.write([_originators.Written(one, 1, "topic", b"1")])
            second.write([_originators.Written(one, 2, "topic", b"2")])  # it has never seen version 1
            with pytest.raises(_originators.Taken):
                first.write([_originators.Written(one, 2, "topic", b"another")])
            first.write([_originators.Written(one, 3, "topic", b"3")])
            assert [found.state for found in second.read(one)] == [b"1", b"2", b"3"]
            won = _race(first, second, names)
            assert sorted(won) == sorted(names)  # each once
            found = first.follow(after=-1, before=None, limit=100, topics=())
            assert [at for at, _ in found] == list(range(23))
        finally:
            for place in places:
                place.close()


def _race(first: _originators.Entries, second: _originators.Entries, names: list[UUID]) -> list[UUID]:
    won: list[UUID] = []

    def write(entries: _originators.Entries) -> None:
        for name in names:
            try:
                entries.write([_originators.Written(name, 1, "topic", b"")])
            except _originators.Taken:
                continue
            won.append(name)

    threads = [threading.Thread(target=write, args=(entries,)) for entries in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return won


VERSIONS = st.integers(-3, 12)
BATCHES = st.lists(st.lists(st.tuples(st.integers(0, 1), VERSIONS), min_size=1, max_size=4), max_size=8)
QUERIES = st.lists(
    st.tuples(
        st.integers(0, 1), st.none() | VERSIONS, st.none() | VERSIONS, st.booleans(), st.none() | st.integers(1, 5)
    ),
    min_size=1,
    max_size=8,
)
NAMES = (UUID(int=1), UUID(int=2))


@settings(max_examples=120, deadline=None)
@given(batches=BATCHES, queries=QUERIES)
def test_whatever_the_versions_it_answers_as_the_librarys_own_recorder(
    batches: list[list[tuple[int, int]]], queries: list[tuple[int, int | None, int | None, bool, int | None]]
) -> None:
    theirs = SQLiteApplicationRecorder(SQLiteDatastore(":memory:"))
    theirs.create_table()
    factory = Factory(Environment("model", environ(Path(), HAUBERK_EVENTSOURCING_STORE="memory:")))
    ours = factory.application_recorder()
    try:
        for number, batch in enumerate(batches):
            events = [stored(NAMES[who], version, b"%d" % number) for who, version in batch]
            assert _inserted(ours, events) == _inserted(theirs, events)
        for who, gt, lte, desc, limit in queries:
            wanted = theirs.select_events(NAMES[who], gt=gt, lte=lte, desc=desc, limit=limit)
            assert ours.select_events(NAMES[who], gt=gt, lte=lte, desc=desc, limit=limit) == wanted
        assert len(ours.select_notifications(None, 100)) == len(theirs.select_notifications(None, 100))
    finally:
        factory.close()
        theirs.datastore.close()


def _inserted(recorder: Any, events: list[StoredEvent]) -> int | None:  # noqa: ANN401  # either of two
    """Return how many went in; None when they were refused."""
    try:
        return len(recorder.insert_events(events))
    except (IntegrityError, sqlite3.IntegrityError):  # theirs lets its driver's through
        return None


@given(
    state=st.binary(max_size=200) | st.just(b'{"a":1}') | st.text(max_size=50).map(lambda text: f'"{text}"'.encode())
)
def test_every_state_comes_back_byte_for_byte(state: bytes) -> None:
    kind, packed = _originators._packed(state)
    assert _originators._unpacked(kind, packed) == state
    _originators._any(packed)


def test_a_long_aggregate_is_read_in_pages_and_from_where_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_originators, "PAGE", 3)
    with opened(tmp_path) as application:
        recorder, one = recorder_of(application), uuid4()
        recorder.insert_events([stored(one, version) for version in range(10, 30)])
        assert [found.originator_version for found in recorder.select_events(one)] == list(range(10, 30))
        assert [found.originator_version for found in recorder.select_events(one, gt=26)] == [27, 28, 29]
        assert [found.originator_version for found in recorder.select_events(one, lte=12, desc=True)] == [12, 11, 10]
        assert [found.id for found in recorder.select_notifications(None, 20)] == list(range(1, 21))


def test_a_subscription_sees_what_another_process_records(tmp_path: Path) -> None:
    with opened(tmp_path) as application:
        recorder = recorder_of(application)
        other = Place(read_settings(environ(tmp_path)))
        try:
            with recorder.subscribe(gt=0) as subscription:
                _originators.Entries(other, recorder.application, "events").write(
                    [_originators.Written(uuid4(), 1, "topic", b"1")]
                )
                assert next(subscription).id == 1
        finally:
            other.close()


def test_a_subscription_ends_with_the_error_of_its_store(tmp_path: Path) -> None:
    with opened(tmp_path) as application:
        subscription = recorder_of(application).subscribe(gt=0)
        application.close()
        with pytest.raises(InterfaceError), subscription:
            next(subscription)


def test_tracking_and_events_are_one_write(tmp_path: Path) -> None:
    factory = Factory(Environment("shop", environ(tmp_path)))
    with closing(factory):
        recorder = factory.process_recorder()
        one = uuid4()
        recorder.insert_events([stored(one, 1)], tracking=Tracking("upstream", 5))
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored(one, 2)], tracking=Tracking("upstream", 5))
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored(one, 1)], tracking=Tracking("upstream", 6))
        assert (len(recorder.select_events(one)), recorder.max_tracking_id("upstream")) == (1, 5)


def test_a_tracking_that_somebody_else_raised_meanwhile_is_tried_again_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = Factory(Environment("shop", environ(tmp_path)))
    with closing(factory):
        recorder = factory.process_recorder()
        real, meanwhile = recorder._tracked, [3]

        def late(name: str) -> Row | None:
            row = real(name)
            while meanwhile:
                factory.tracking_recorder().insert_tracking(Tracking(name, meanwhile.pop()))
            return row

        monkeypatch.setattr(recorder, "_tracked", late)
        recorder.insert_tracking(Tracking("upstream", 4))
        meanwhile.append(5)
        recorder.insert_events([stored(uuid4(), 1)], tracking=Tracking("upstream", 6))
        meanwhile.append(9)
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored(uuid4(), 1)], tracking=Tracking("upstream", 8))
        assert (recorder.max_tracking_id("upstream"), recorder.max_notification_id()) == (9, 1)


def test_a_restored_backup_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as application:
        application.save(Customer("1"))
    backup = shutil.copy(tmp_path / "events.db", tmp_path / "backup")
    with opened(tmp_path) as application:
        application.save(Customer("2"))
    shutil.copy(backup, tmp_path / "events.db")
    with pytest.raises(InternalError) as found, opened(tmp_path):
        pass
    assert isinstance(found.value.__cause__, Tampered)
    assert found.value.__cause__.code == "HBK-713"


def test_without_a_mark_the_same_backup_is_taken_for_the_truth(tmp_path: Path) -> None:
    unmarked = msgspec.structs.replace(read_settings(environ(tmp_path)), marks="")
    for number in (1, 2):
        with closing(Place(unmarked)) as place:
            _originators.Entries(place, "shop", "events").write([_originators.Written(uuid4(), 1, "topic", b"1")])
        if number == 1:
            backup = shutil.copy(tmp_path / "events.db", tmp_path / "backup")
    shutil.copy(backup, tmp_path / "events.db")
    with closing(Place(unmarked)) as place:
        assert _originators.Entries(place, "shop", "events").last() == 0


def test_another_root_secret_opens_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as application:
        application.save(Customer(SECRET))
    with pytest.raises(ConfigError) as found, opened(tmp_path, HAUBERK_EVENTSOURCING_KEYS=f"file:{tmp_path / 'no'}"):
        pass
    assert found.value.code == "HBK-905"  # no key is made where there is something to open
    assert not (tmp_path / "no").exists()
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "other" / "root").write_bytes(os.urandom(32))
    (tmp_path / "other" / "root").chmod(0o600)
    with pytest.raises(Tampered), opened(tmp_path, HAUBERK_EVENTSOURCING_KEYS=f"file:{tmp_path / 'other'}"):
        pass


WRONG = [
    ({"HAUBERK_EVENTSOURCING_STORE": ""}, "HBK-901", "HAUBERK_EVENTSOURCING_STORE"),
    ({"HAUBERK_EVENTSOURCING_STORE": "sqlite:"}, "HBK-901", "HAUBERK_EVENTSOURCING_STORE"),
    ({"HAUBERK_EVENTSOURCING_STORE": "mysql://somewhere"}, "HBK-901", "HAUBERK_EVENTSOURCING_STORE"),
    ({"HAUBERK_EVENTSOURCING_KEYS": ""}, "HBK-901", "HAUBERK_EVENTSOURCING_KEYS"),
    ({"HAUBERK_EVENTSOURCING_KEYS": "plain"}, "HBK-901", "HAUBERK_EVENTSOURCING_KEYS"),
    ({"TRACKING_RECORDER_TOPIC": "eventsourcing.sqlite:SQLiteTrackingRecorder"}, "HBK-901", "TrackingRecorder"),
]


@pytest.mark.parametrize(("changed", "code", "key"), WRONG)
def test_a_setting_that_is_wrong_is_named(tmp_path: Path, changed: Mapping[str, str], code: str, key: str) -> None:
    with pytest.raises(ConfigError) as found, closing(Factory({**environ(tmp_path), **changed})) as factory:
        factory.tracking_recorder()
    assert (found.value.code, found.value.context["key"]) == (code, key)


def test_an_application_has_settings_of_its_own_under_its_name(tmp_path: Path) -> None:
    """As the library reads every setting: with the name of the application before it."""
    more = {"APPLICATION_HAUBERK_EVENTSOURCING_STORE": f"sqlite:{tmp_path / 'mine.db'}"}
    with opened(tmp_path, **more) as application:
        application.save(Customer("1"))
    assert (tmp_path / "mine.db").exists()
    assert not (tmp_path / "events.db").exists()


def test_two_applications_on_one_store_have_ids_of_their_own(tmp_path: Path) -> None:
    factories = [Factory(Environment(name, environ(tmp_path))) for name in ("one", "two")]
    first, second = (factory.application_recorder() for factory in factories)
    for _ in range(3):
        assert first.insert_events([stored(uuid4(), 1)]) == second.insert_events([stored(uuid4(), 1)])
    assert first.max_notification_id() == second.max_notification_id() == 3
    for factory in factories:
        factory.close()


def test_factories_of_one_process_share_a_store_until_the_last_one_closes(tmp_path: Path) -> None:
    first, second = (Factory(Environment("shop", environ(tmp_path))) for _ in range(2))
    ours, theirs = first.application_recorder(), second.application_recorder()
    assert ours.ledger is theirs.ledger
    first.close()
    first.close()
    theirs.insert_events([stored(uuid4(), 1)])
    second.close()
    with pytest.raises(InterfaceError):
        theirs.max_notification_id()
    assert read_settings(environ(tmp_path)) not in _place._open


def test_what_nobody_closes_is_closed_once_nobody_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    real = Place.close

    def close(place: Place) -> None:
        real(place)
        released.set()

    monkeypatch.setattr(Place, "close", close)
    recorder: AggregateRecorder | None = Factory(Environment("shop", environ(tmp_path))).aggregate_recorder()
    gc.collect()
    assert recorder is not None
    recorder.insert_events([stored(uuid4(), 1)])  # it holds what its factory has opened
    assert not released.is_set()
    recorder = None
    gc.collect()
    assert released.wait(PATIENCE)


def test_a_state_that_is_too_large_or_was_changed_is_an_error_of_the_library(tmp_path: Path) -> None:
    with opened(tmp_path) as application:
        recorder, one = recorder_of(application), uuid4()
        with pytest.raises(DataError):
            recorder.insert_events([stored(one, 1, b"x" * 70_000)])
        recorder.insert_events([stored(one, 1), stored(one, 2)])
        with closing(sqlite3.connect(tmp_path / "events.db")) as behind, behind:
            behind.execute("UPDATE entry SET public = replace(CAST(public AS TEXT), '2', '3') WHERE version = 2")
        with pytest.raises(InternalError):  # its version is in clear, and sealed again
            recorder.select_events(one)


def test_its_variables_are_not_taken_for_settings_of_a_runtime() -> None:
    assert load(environ={"HAUBERK_EVENTSOURCING_STORE": "sqlite:a.db"}).store.scheme == "sqlite"
    with pytest.raises(ConfigError):
        load(environ={"HAUBERK_EVENTSOURCE_STORE": "sqlite:a.db"})


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "eventsourcing", None)
    monkeypatch.delitem(sys.modules, "hauberk.integrations.eventsourcing")
    with pytest.raises(ConfigError) as found:
        importlib.import_module("hauberk.integrations.eventsourcing")
    assert (found.value.code, found.value.detail) == ("HBK-907", "install hauberk[eventsourcing]")
