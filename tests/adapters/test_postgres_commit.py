"""The connection is lost at every moment of a write: what is said of its outcome is true, and the store goes on."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count

import psycopg
import pytest

from hauberk.adapters.postgres import PostgresStore
from hauberk.core.event import Event
from hauberk.core.ports import Head, Put, Write
from hauberk.crypto.signing import SigningKey
from hauberk.errors import OutcomeUnknown, RecordsError
from hauberk.records.ledger import Ledger
from hauberk.records.verify import verify_store
from tests.records.made import ORIGIN, PATIENCE, append, entry, event
from tests.support.postgres import database
from tests.support.postgres_proxy import Fate, Proxy

COPIED = 60  # entries, enough for COPY


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with database() as dsn, Proxy(dsn) as made:
        yield made


@pytest.fixture
def store(proxy: Proxy) -> Iterator[PostgresStore]:
    with closing(PostgresStore(proxy.dsn)) as made:
        yield made


class At:
    """Lets `number` messages pass; the next one meets its fate, those after it pass."""

    def __init__(self, number: int, fate: Fate) -> None:
        self.left = number
        self._fate = fate

    def __call__(self, _: bytes) -> Fate:
        self.left -= 1
        return self._fate if self.left == -1 else Fate.PASS


def at_commit(fate: Fate) -> Callable[[bytes], Fate]:
    """The first COMMIT meets its fate."""
    seen = count()
    return lambda data: fate if b"COMMIT" in data and next(seen) == 0 else Fate.PASS


@pytest.mark.parametrize("size", [1, COPIED])
@pytest.mark.parametrize(("fate", "done"), [(Fate.CUT, False), (Fate.DEAF, True)])
def test_lost_during_the_commit_is_unknown_and_never_guessed(
    proxy: Proxy, store: PostgresStore, fate: Fate, size: int, *, done: bool
) -> None:
    entries = [entry(number) for number in range(size)]
    proxy.decide = at_commit(fate)
    with pytest.raises(OutcomeUnknown) as found:
        store.commit(Write(append(*entries), rows=(Put("s", b"k", b"v"),)))
    assert found.value.code == "HBK-702"
    assert store.head(ORIGIN).size == (size if done else 0)  # read again, on another connection
    assert store.find(ORIGIN, [entries[0].id]) == ({entries[0].id: 0} if done else {})
    assert (store.get("s", b"k") is not None) is done


@pytest.mark.parametrize("size", [1, COPIED])
@pytest.mark.parametrize("fate", [Fate.CUT, Fate.DEAF])
def test_lost_at_any_message_of_a_write_what_is_said_of_its_outcome_is_true(
    proxy: Proxy, fate: Fate, size: int
) -> None:
    ends: set[str] = set()
    for number in count():
        with closing(PostgresStore(proxy.dsn)) as store:
            log = f"log {number}"
            store.head(log)  # so that a connection idles
            proxy.decide = meets = At(number, fate)
            end = outcome(lambda: store.commit(Write(append(*(entry(place) for place in range(size)), log=log))))  # noqa: B023  # called at once
            proxy.decide = lambda _: Fate.PASS
            there = store.head(log).size
            assert there in {0, size}
            assert len(list(store.entries(log))) == there
            assert end == "HBK-702" or (there == size) is (end == "done")
            if not there:
                store.commit(Write(append(*(entry(place) for place in range(size)), log=log)))
            store.commit(Write(append(entry(size), log=log)))
            assert len(list(store.entries(log))) == size + 1
        ends.add(end)
        if meets.left >= 0:  # every message of a write had its turn
            break
    assert {"done", "HBK-702"} <= ends


def outcome(call: Callable[[], object]) -> str:
    """Return the code of what was raised, or `done`."""
    try:
        call()
    except RecordsError as error:
        return error.code
    return "done"


def test_lost_while_it_idled_a_connection_is_replaced_and_nobody_notices(proxy: Proxy, store: PostgresStore) -> None:
    store.commit(Write(append(entry(0))))
    for turn, fate in enumerate((Fate.CUT, Fate.DEAF, Fate.CUT), 1):
        proxy.decide = At(0, fate)
        store.commit(Write(append(entry(turn))))
    proxy.decide = At(0, Fate.CUT)
    assert store.head(ORIGIN).size == 4


def test_lost_twice_in_a_row_is_an_error_of_the_engine_and_over_when_the_line_is_back(
    proxy: Proxy, store: PostgresStore
) -> None:
    store.commit(Write(append(entry(0))))
    proxy.decide = lambda _: Fate.CUT
    for call in (lambda: store.head(ORIGIN), lambda: store.commit(Write(append(entry(1))))):
        with pytest.raises(RecordsError) as found:
            call()
        assert found.value.code == "HBK-703"
    proxy.decide = lambda _: Fate.PASS
    assert store.head(ORIGIN).size == 1
    store.commit(Write(append(entry(1))))


def test_reading_page_by_page_goes_on_when_the_line_is_lost_between_two_pages(
    proxy: Proxy, store: PostgresStore
) -> None:
    store.commit(Write(append(*(entry(number) for number in range(2_500)))))
    seen = []
    for one in store.entries(ORIGIN, limit=5_000):
        seen.append(one.position)
        if len(seen) in {999, 1_500}:
            proxy.decide = At(0, Fate.CUT)
    assert seen == list(range(2_500))


@pytest.mark.parametrize("fate", [Fate.CUT, Fate.DEAF])
def test_a_ledger_finds_out_what_became_of_a_lost_commit_and_writes_nothing_twice(proxy: Proxy, fate: Fate) -> None:
    commits = count(1)

    def decide(data: bytes) -> Fate:
        return fate if b"COMMIT" in data and next(commits) % 2 else Fate.PASS

    signer = SigningKey.generate()
    with closing(PostgresStore(proxy.dsn)) as store:
        assert store.head(ORIGIN) == Head()
        ledger = Ledger(store, signer, ORIGIN)
        proxy.decide = decide
        told: dict[bytes, int | None] = {}
        failed: list[Event] = []
        for one in [event(number) for number in range(30)]:
            try:
                told[one.id] = ledger.submit(one).result(PATIENCE).position
            except RecordsError:
                failed.append(one)
        proxy.decide = lambda _: Fate.PASS
        for one in failed:
            told[one.id] = ledger.submit(one).result(PATIENCE).position
        ledger.close()
        stored = {one.id: one.position for one in store.entries(ORIGIN)}
        assert stored == told
        assert verify_store(store, ledger.verifier).size == 30


LATE = """
CREATE FUNCTION hauberk.late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'too late'; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON hauberk.entry DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION hauberk.late();
"""


def test_what_the_server_rolls_back_at_the_commit_itself_is_never_acknowledged() -> None:
    with database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute(LATE)
        with closing(PostgresStore(dsn)) as store:
            with pytest.raises(RecordsError) as found:
                store.commit(Write(append(entry(0)), rows=(Put("s", b"k", b"v"),)))
            assert (found.value.code, type(found.value)) == ("HBK-703", RecordsError)  # known, and not unknown
            assert (store.head(ORIGIN), store.get("s", b"k")) == (Head(), None)
            with psycopg.connect(dsn, autocommit=True) as owner:
                owner.execute("DROP TRIGGER late ON hauberk.entry")
            store.commit(Write(append(entry(0))))  # the twin


def test_a_server_older_than_those_we_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with database() as dsn:
        PostgresStore(dsn).close()  # the twin
        monkeypatch.setattr("hauberk.adapters.postgres_connect.OLDEST", 990_000)
        with pytest.raises(RecordsError) as found:
            PostgresStore(dsn)
        assert (found.value.code, found.value.detail) == ("HBK-706", "the server is too old")
