"""What commands share that work on a ledger whose state directory is theirs: nobody else may have it open."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from hauberk.adapters.engine import embedded
from hauberk.adapters.state import StateDirectory
from hauberk.cli._authority import settings
from hauberk.core.clock import SYSTEM_CLOCK
from hauberk.core.config import Config
from hauberk.core.principal import Kind, Principal, Proof
from hauberk.crypto.keyring import Keyring
from hauberk.errors import ConfigError
from hauberk.recording import Recording, published_log
from hauberk.records.audit_query import Owner
from hauberk.records.epochs import PseudonymEpochs
from hauberk.records.retention import Retention
from hauberk.records.store import EventStore


class Owned(msgspec.Struct):
    """An open ledger of this user's.

    Args:
        store: its event store.
        recording: the ledger.
        actor: this user, as recorded.
        keyring: seals its keys.
    """

    store: EventStore
    recording: Recording
    actor: Principal
    keyring: Keyring

    def retention(self) -> Retention:
        """Return what archives, prunes and restores."""
        return Retention(self.recording.ledger, self.recording.store, self.store.permission)


def local_actor() -> Principal:
    """Return this user."""
    return Principal(Kind.LOCAL, f"uid:{os.geteuid()}", proof=Proof("local"))


def own_settings(directory: Path | None) -> Config:
    """Return the configuration, its trust domain the one this directory's log was made for unless something says so."""
    config = settings(directory)
    if "trust_domain" in config.origins:
        return config
    domain, _, _ = published_log(Path(config.directory), config).partition("/")
    return msgspec.structs.replace(config, trust_domain=domain)


@contextmanager
def unused(instead: str = "") -> Iterator[None]:
    """Say what to do where another process uses the directory.

    Args:
        instead: what that process can do itself.
    """
    try:
        yield
    except ConfigError as error:
        if error.code != "HBK-906" or "another process" not in error.detail or "hint" in error.context:
            raise
        hint = "stop that process first" + (f", or {instead}" if instead else "")
        raise ConfigError(error.code, error.detail, **error.context, hint=hint) from None


@contextmanager
def owned(directory: Path | None, instead: str = "") -> Iterator[Owned]:
    """Open the ledger of a state directory that no process uses.

    Args:
        directory: of the command line.
        instead: what a process that uses it can do itself, for whoever reads the error.

    Raises:
        ConfigError: HBK-902 nothing has ever recorded here; HBK-906 another process uses it.
        HauberkError: see `hauberk.recording.Recording`.
    """
    config = own_settings(directory)
    path = Path(config.directory)
    if not (path / "private").is_dir():
        raise ConfigError("HBK-902", "nothing has ever recorded here", directory=str(path))
    with ExitStack() as stack:
        with unused(instead):
            state = StateDirectory(path, config.trust_domain, keys=config.authority.keys, database=embedded(config))
        stack.callback(state.close)
        authority = (path / "authority.json").exists()
        recording = Recording(state, config, signing=not authority, clock=SYSTEM_CLOCK)
        stack.callback(recording.close)
        pseudonyms = PseudonymEpochs(recording.store, state.keyring).latest()
        store = EventStore(recording.ledger, recording.store, policy=Owner(), pseudonyms=pseudonyms)
        stack.callback(store.close)
        yield Owned(store, recording, local_actor(), state.keyring)
