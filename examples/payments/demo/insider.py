"""The operator of the event store gone bad: he has its directory and every key in it, and starts copies of it."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.payments.demo.stage import DOMAIN, Stage
from hauberk.adapters.state import StateDirectory
from hauberk.core.config import load
from hauberk.core.event import Event
from hauberk.core.ids import uuid7
from hauberk.errors import HauberkError
from hauberk.recording import Recording

DATABASE = Path("private") / "hauberk.db"
_LIVE = shutil.ignore_patterns("hauberk.db*")  # is written to meanwhile, and copied by SQLite
PATIENCE = 20.0  # seconds for a commit, and for a witness


def copied(stage: Stage, name: str) -> Path:
    """Return a copy of the event store's directory as it is now; its mark may be a little behind its database."""
    target = stage.directory / name
    shutil.copytree(stage.books.directory, target, ignore=_LIVE)
    live, copy = sqlite3.connect(stage.books.directory / DATABASE), sqlite3.connect(target / DATABASE)
    try:
        live.backup(copy)
    finally:
        copy.close()
        live.close()
    (target / DATABASE).chmod(0o600)
    return target


@contextmanager
def started(stage: Stage, directory: Path, *, watched: bool) -> Iterator[Recording]:
    """Start a copy as payment-service starts the store, with the witness or as if there were none.

    Raises:
        HauberkError: it does not start.
    """
    witnesses = str(stage.books.policy) if watched else ""
    arguments = {"trust_domain": DOMAIN, "records.witnesses": witnesses, "records.cosign_seconds": PATIENCE}
    config = load(stage.directory / "hauberk.toml", environ={}, arguments=arguments)
    state = StateDirectory(directory, DOMAIN)
    try:
        recording = Recording(state, config, signing=False)  # the key of the service's identity is not in there
        try:
            yield recording
        finally:
            recording.close()
    finally:
        state.close()


def start(stage: Stage, directory: Path, *, watched: bool) -> None:
    """Start a copy and stop it again.

    Raises:
        HauberkError: it does not start.
    """
    with started(stage, directory, watched=watched):
        pass


def made_up(recording: Recording, count: int) -> None:
    """Append payments that never were, under the log's own key."""
    events = [
        Event(
            id=uuid7(),
            type="shop.payment.taken.v1",
            stream="/streams/payment-1",
            time_ns=recording.ledger.head().size + at,
            data={"payment": "p-1", "order": "o-0", "amount": 1, "customer": None},
        )
        for at in range(count)
    ]
    recording.ledger.append_batch(events).result(PATIENCE)


def refusal(work: Callable[[], object]) -> HauberkError | None:
    """Return why something was refused, or None when it was not."""
    try:
        work()
    except HauberkError as refused:
        return refused
    return None
