"""What commands share that work on a ledger whose state directory is theirs: nobody else may have it open."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from hauberk.adapters.engine import embedded
from hauberk.adapters.state import StateDirectory
from hauberk.cli._authority import settings
from hauberk.core.call import Call
from hauberk.core.clock import SYSTEM_CLOCK
from hauberk.core.config import Config
from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.principal import Kind, Principal, Proof
from hauberk.crypto.note import decode_key
from hauberk.errors import ConfigError
from hauberk.recording import Recording
from hauberk.records.retention import Retention
from hauberk.records.store import EventStore


class _Owner:
    """Whoever may read the keys on disk may do what they are for; that it was done is recorded."""

    digest = "owner of the state directory"

    def decide(self, call: Call) -> Decision:
        """Allow it."""
        del call
        return Decision(Verdict.ALLOW, Layer.POLICY, reason=self.digest)


class Owned(msgspec.Struct):
    """An open ledger of this user's.

    Args:
        store: its event store.
        recording: the ledger.
        actor: this user, as recorded.
        config: settings.
    """

    store: EventStore
    recording: Recording
    actor: Principal
    config: Config

    def retention(self) -> Retention:
        """Return what archives, prunes and restores."""
        return Retention(self.recording.ledger, self.recording.store, self.store.permission)


def local_actor() -> Principal:
    """Return this user."""
    return Principal(Kind.LOCAL, f"uid:{os.geteuid()}", proof=Proof("local"))


def own_settings(directory: Path | None) -> Config:
    """Return the configuration, its trust domain the one this directory's log was made for unless something says so."""
    config = settings(directory)
    published = Path(config.directory) / "log.pub"
    if "trust_domain" in config.origins or not published.exists():
        return config
    name, _ = decode_key(published.read_text("utf-8"))
    return msgspec.structs.replace(config, trust_domain=name.partition("/")[0])


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
        store = EventStore(recording.ledger, recording.store, policy=_Owner(), pseudonyms=state.keyring.pseudonyms())
        stack.callback(store.close)
        yield Owned(store, recording, local_actor(), config)
