"""A value that PostgreSQL can never hold is its own writer's fault, and no other's in the same commit."""

import random
import string
from collections.abc import Iterator
from contextlib import closing

import pytest

from hauberk.adapters import postgres_connect
from hauberk.adapters.postgres import PostgresStore
from hauberk.core.event import Event
from hauberk.core.ports import Put, Write
from hauberk.crypto.signing import SigningKey
from hauberk.errors import Malformed, Oversized, RecordsError
from hauberk.records import _encode
from hauberk.records.ledger import Ledger
from tests.records.made import ORIGIN, PATIENCE, STREAM, append, entry, event
from tests.support.postgres import database

_random = random.Random(1)  # noqa: S311  # a text, no secret
LONG = "".join(_random.choice(string.ascii_letters + string.digits) for _ in range(12_000))  # does not compress
POISON = {
    "stream": event(stream=f"{STREAM}/{LONG}"),
    "type": event(type=f"order.{LONG}"),
    "a NUL": event(stream=f"{STREAM}/a\0b"),
}


@pytest.fixture
def store() -> Iterator[PostgresStore]:
    with database() as dsn, closing(PostgresStore(dsn)) as made:
        yield made


@pytest.fixture
def ledger(store: PostgresStore) -> Iterator[Ledger]:
    with closing(Ledger(store, SigningKey.generate(), ORIGIN)) as made:
        yield made


def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every event reach the database."""
    monkeypatch.setattr(_encode, "MAX_STREAM", 1 << 20)
    monkeypatch.setattr(_encode, "MAX_TYPE", 1 << 20)


def outcomes(ledger: Ledger, poison: Event) -> tuple[set[str], int]:
    """Have 30 events wait together with poison between them; return what the poison got, and how many were taken."""
    futures = []
    for number in range(40):
        bad = number % 4 == 1
        futures.append((bad, ledger.append_batch([event(number)] if not bad else [poison])))
    found = [(bad, future.exception(PATIENCE)) for bad, future in futures]
    codes = {error.code for bad, error in found if bad and isinstance(error, RecordsError)}
    return codes, sum(error is None for bad, error in found if not bad)


@pytest.mark.parametrize("name", POISON)
def test_an_event_no_index_takes_is_refused_before_it_gets_there(ledger: Ledger, name: str) -> None:
    error = ledger.submit(POISON[name]).exception(PATIENCE)
    assert isinstance(error, Oversized | Malformed)
    codes, taken = outcomes(ledger, POISON[name])
    assert codes <= {"HBK-715", "HBK-716"}
    assert taken == 30


@pytest.mark.parametrize("name", ["stream", "type"])
def test_one_that_gets_there_is_blamed_and_fails_alone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    unbounded(monkeypatch)
    assert outcomes(ledger, POISON[name]) == ({"HBK-716"}, 30)


def test_one_of_which_the_engine_says_nothing_we_know_fails_alone_as_well(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbounded(monkeypatch)
    monkeypatch.setattr(postgres_connect, "_TOO_MUCH", "no such state")
    assert outcomes(ledger, POISON["stream"]) == ({"HBK-703"}, 30)


def test_without_trying_one_by_one_it_takes_the_others_with_it(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    unbounded(monkeypatch)
    monkeypatch.setattr(postgres_connect, "_TOO_MUCH", "no such state")

    def at_once(jobs: list[object]) -> RecordsError:
        error = RecordsError("HBK-703", "the engine failed")
        ledger._hold(jobs, error)  # type: ignore[arg-type]  # jobs
        return error

    monkeypatch.setattr(ledger, "_write_each", at_once)
    codes, taken = outcomes(ledger, POISON["stream"])
    assert codes == {"HBK-703"}
    assert taken < 30


def test_a_row_whose_key_no_index_takes_is_the_fault_of_whoever_writes_it(store: PostgresStore) -> None:
    with pytest.raises(Malformed):
        store.commit(Write(rows=(Put("s", LONG.encode(), b"v"),)))
    with pytest.raises(Malformed):
        store.commit(Write(append(entry(0, stream=f"{STREAM}/a"), log=LONG)))
    store.commit(Write(append(entry(0))))
