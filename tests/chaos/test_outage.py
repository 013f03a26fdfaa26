"""A store that fails in the middle, and again while the ledger asks what came of it: nothing wrong is ever written."""

from collections.abc import Callable, Iterator

import pytest

from hauberk.adapters.memory import MemoryStore
from hauberk.core.ports import Head, Write
from hauberk.crypto.signing import SigningKey
from hauberk.errors import OutcomeUnknown, RecordsError
from hauberk.records.ledger import Ledger
from hauberk.records.verify import verify_store
from tests.records.made import ORIGIN, PATIENCE, STREAM, event, events

KEY = SigningKey(b"s" * 32)


def _down() -> None:
    raise RecordsError("HBK-703", "the server is away")


class Flaky(MemoryStore):
    """Does what the scripts say at its next commits and its next looks at the head, then works again."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Callable[[Write], int]] = []
        self.looks: list[Callable[[], None]] = []

    def commit(self, write: Write) -> int:
        if self.commits:
            return self.commits.pop(0)(write)
        return super().commit(write)

    def head(self, log: str) -> Head:
        if self.looks:
            self.looks.pop(0)()
        return super().head(log)

    def fails(self, _write: Write) -> int:
        """Write nothing."""
        _down()
        raise AssertionError

    def lost(self, write: Write) -> int:
        """Write it and lose the connection before the answer."""
        super().commit(write)
        raise OutcomeUnknown("the connection was lost during the commit")

    def cut(self, _write: Write) -> int:
        """Lose the connection before it is written."""
        raise OutcomeUnknown("the connection was lost during the commit")


@pytest.fixture
def store() -> Flaky:
    return Flaky()


@pytest.fixture
def ledger(store: Flaky) -> Iterator[Ledger]:
    made = Ledger(store, KEY, ORIGIN)
    yield made
    made.close()


def test_after_a_failed_write_and_a_failed_look_the_tree_is_of_what_is_stored(store: Flaky, ledger: Ledger) -> None:
    ledger.append_batch(events(300)).result(PATIENCE)
    store.commits.append(store.fails)
    store.looks.append(_down)
    with pytest.raises(RecordsError) as found:
        ledger.append_batch(events(3)).result(PATIENCE)
    assert found.value.code == "HBK-703"
    ledger.append_batch(events(300)).result(PATIENCE)
    assert verify_store(store, ledger.verifier).size == 600
    ledger.close()
    again = Ledger(store, KEY, ORIGIN)
    again.append_batch(events(3)).result(PATIENCE)
    again.close()


@pytest.mark.parametrize("looks", [1, 2])
def test_an_outcome_nobody_can_look_up_is_never_said_to_be_a_failure(store: Flaky, ledger: Ledger, looks: int) -> None:
    ledger.append_batch(events(2)).result(PATIENCE)
    store.commits.append(store.lost)
    store.looks.extend([_down] * looks)
    one = event()
    with pytest.raises(OutcomeUnknown):
        ledger.append_batch([one], expected={STREAM: 2}).result(PATIENCE)
    assert (
        ledger.append_batch([one], expected={STREAM: 2}).result(PATIENCE)[0].position == 2
    )  # asked again, it is there


@pytest.mark.parametrize("how", ["lost", "cut"])
def test_an_outcome_that_can_be_looked_up_is(store: Flaky, ledger: Ledger, how: str) -> None:
    ledger.append_batch(events(2)).result(PATIENCE)
    store.commits.append(getattr(store, how))
    assert ledger.append_batch(events(3), expected={STREAM: 2}).result(PATIENCE)[0].position == 2
    assert verify_store(store, ledger.verifier).size == 5


def test_what_nobody_waits_for_outlives_an_outcome_nobody_knows(store: Flaky, ledger: Ledger) -> None:
    store.commits.append(store.lost)
    store.looks.append(_down)
    assert ledger.offer(event()) is None
    ledger.close()
    assert verify_store(store, ledger.verifier).size == 1
