"""The ledger of one state directory, with everything that guards it: where the parts of the records plane meet.

Below it is the store behind `AuthenticRows`, so that nobody who may only write the database can exchange a key; beside
it the high-water mark; inside it the keys of subjects and, in an embedded runtime, the producer's own signature.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.engine import embedded, open_bus, open_store
from hauberk.adapters.mark import FileMark
from hauberk.adapters.state import StateDirectory
from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.config import Config
from hauberk.core.ports import Store
from hauberk.crypto.keyring import Purpose
from hauberk.crypto.note import decode_key, encode_key
from hauberk.crypto.signing import SigningKey
from hauberk.errors import ConfigError, NotCosigned, RecordsError
from hauberk.records.heads import split_name
from hauberk.records.keys import SubjectKeys
from hauberk.records.ledger import Ledger
from hauberk.records.mark import check_mark
from hauberk.records.recover import Recovery, recover
from hauberk.records.statement import Producer

if TYPE_CHECKING:
    from hauberk.identity.source import Material, SvidSource
    from hauberk.records.cosign import Cosigning

LOG_FILE = "log.pub"  # in a state directory: the key of its log, for whoever verifies it
_log = logging.getLogger("hauberk.records")


def log_key(state: StateDirectory) -> SigningKey:
    """Return the key that signs this directory's log, made on the first start."""
    return SigningKey(state.secret("log", Purpose.LOG_KEY, lambda: SigningKey.generate().seed()))


def log_name(config: Config) -> str:
    """Return the name of a trust domain's own log in the store."""
    return f"{config.trust_domain}/ledger"


def published_log(directory: Path, config: Config) -> str:
    """Return the name of the log of a state directory: what its public file says, else the configuration.

    Raises:
        RecordsError: HBK-711 the file cannot be read, or is no key.
    """
    if not (directory / LOG_FILE).exists():
        return log_name(config)
    return split_name(decode_key(published_key(directory))[0])[0]


def published_key(directory: Path) -> str:
    """Return the key of the log of a state directory, as its public file has it.

    Raises:
        RecordsError: HBK-711 it cannot be read.
    """
    try:
        return (directory / LOG_FILE).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise RecordsError("HBK-711", "the published key cannot be read", file=str(directory / LOG_FILE)) from None


def open_mark(state: StateDirectory, config: Config, log: str) -> FileMark:
    """Open the high-water mark: where the setting says, or beside the database. Each log has one of its own."""
    if not config.records.mark:
        return FileMark(state.mark)
    other = "" if log == log_name(config) else f"-{sha256(log.encode()).hexdigest()[:8]}"
    return FileMark(Path(config.records.mark + other))


class Recording:
    """An open ledger. Close it before the state directory.

    Args:
        state: whose; published are `log.pub` and, with a producer, `producer.pub`.
        config: settings.
        source: the service's identity, whose key signs what it records; without one it is a key of its own.
        signing: sign at all; an authority's own entries are under its log key alone.
        log: its name; by default the one this directory was made for, at first the trust domain's own.
        clock: time source.

    Raises:
        Tampered: HBK-710 the stored ledger does not fit its checkpoint, HBK-713 it is older than its high-water mark.
        RecordsError: HBK-706 a file cannot be opened.
    """

    def __init__(
        self,
        state: StateDirectory,
        config: Config,
        *,
        source: "SvidSource | None" = None,
        signing: bool = True,
        log: str = "",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        with ExitStack() as taken:  # a start that fails gives back what it took
            inner = open_store(config, state.database, now=clock.time)
            taken.callback(inner.close)
            self.store: Store = AuthenticRows(inner, state.keyring)
            self.bus = open_bus(config)
            taken.callback(self.bus.close)
            log = log or published_log(state.path, config)
            self.mark = open_mark(state, config, log)
            taken.callback(self.mark.close)
            self.keys = SubjectKeys(self.store, state.keyring, shared=not embedded(config))
            self.signer = signer = log_key(state)
            self.witnesses = self._witnesses(config, log, taken)
            self.ledger = Ledger(
                self.store,
                signer,
                log,
                keys=self.keys,
                producer=_producer(state, config, source) if signing else None,
                mark=self.mark,
                witnesses=self.witnesses,
                clock=clock,
                queue_size=config.records.queue,
            )
            taken.callback(self.ledger.close)
            if self.witnesses is not None:
                self.witnesses.on_refusal(self.ledger.refuse)
            state.publish(LOG_FILE, self.ledger.verifier.encode() + b"\n")
            self._release = taken.pop_all()

    def checkpoint(self) -> str:
        """Return the note that others are shown, the last one the witnesses signed if there are any; may be empty."""
        if self.witnesses is None:
            return self.ledger.checkpoint()
        known = self.witnesses.cosigned
        return known.note if known is not None else ""

    def status(self) -> Mapping[str, object]:
        """Return how the ledger is doing, as plain data."""
        head = self.ledger.head()
        found: dict[str, object] = {"log": self.ledger.origin, "size": head.size, "epoch": head.epoch}
        if self.witnesses is not None:
            found["witnesses"] = msgspec.to_builtins(self.witnesses.status())
        return found

    def _witnesses(self, config: Config, log: str, taken: ExitStack) -> "Cosigning | None":
        """Have the log cosigned, when the settings name witnesses, once they know of no newer head than we have.

        Raises:
            ConfigError: HBK-901 the file cannot be read, or a witness would be asked without TLS.
            RecordsError: HBK-723 it is no policy, or its quorum cannot be reached.
            Tampered: HBK-713 the database is older than its mark, so nobody is asked to sign it.
            WitnessRefused: HBK-722 the database is older than what was cosigned, or another history.
        """
        if not config.records.witnesses:
            return None
        from hauberk.records.cosign import Cosigning  # noqa: PLC0415  # for whoever has witnesses
        from hauberk.records.log_policy import LogPolicy  # noqa: PLC0415  # the same
        from hauberk.witness_client import WitnessClient, check_policy  # noqa: PLC0415  # the same: an HTTP client

        try:
            policy = LogPolicy.parse(Path(config.records.witnesses).read_bytes())
        except OSError as error:
            raise ConfigError("HBK-901", f"cannot be read: {error.strerror}", key="records.witnesses") from None
        check_policy(policy)
        known = self.mark.read()  # before the head: others may raise both meanwhile
        check_mark(self.store, log, self.store.head(log), known, self.signer.public)
        send = WitnessClient()
        taken.callback(send.close)
        patience = config.records.cosign_seconds
        cosigning = Cosigning(self.store, log, self.signer.public, policy, send, patience=patience)
        taken.callback(cosigning.close)
        try:
            cosigning.confirm()
        except NotCosigned as error:  # witnesses that are away stop no start: what they would say is noticed later
            _log.warning("the witnesses could not be asked whether the log is theirs: %s", error.code)
        return cosigning

    def close(self) -> None:
        """Write what waits and close everything. Closing twice is fine."""
        self._release.close()


def _producer(state: StateDirectory, config: Config, source: "SvidSource | None") -> Callable[[], Producer]:
    if source is not None:
        return _Identity(source).producer
    key = SigningKey(state.secret("producer", Purpose.PRODUCER_KEY, lambda: SigningKey.generate().seed()))
    state.publish("producer.pub", encode_key(f"{config.trust_domain}/producer", key.public).encode() + b"\n")
    producer = Producer.of_key(key)
    return lambda: producer


class _Identity:
    """The present identity of a service as a producer."""

    def __init__(self, source: "SvidSource") -> None:
        self._source = source
        self._of: Material | None = None
        self._producer: Producer

    def producer(self) -> Producer:
        """Return who signs now; called by one thread."""
        now = self._source.current()
        if now is not self._of:
            self._producer = Producer.of_chain(now.svid.chain, now.key.sign)
            self._of = now
        return self._producer


def recover_directory(path: Path, config: Config, *, actor: str, known: str = "", clock: Clock) -> Recovery:
    """Begin a new epoch of the ledger in a state directory that nobody else has open.

    The checkpoints that were found and known before are published as `recovered-N.txt`, the new key as `log.pub`.

    Args:
        path: the state directory.
        config: settings.
        actor: who decides this.
        known: a signed checkpoint that the database does not hold, such as a witness has; by default the mark.
        clock: time source.

    Raises:
        ConfigError: HBK-906 nothing is wrong, or another process has the directory.
        HauberkError: the directory, the key or the database is not usable.
    """
    state = StateDirectory(path, config.trust_domain, keys=config.authority.keys, database=embedded(config))
    try:
        store = AuthenticRows(open_store(config, state.database, now=clock.time), state.keyring)
        log = published_log(path, config)
        mark = open_mark(state, config, log)
        try:
            signer = log_key(state)
            done = recover(store, signer, log, mark, actor=actor, known=known, clock=clock)
        finally:
            mark.close()
            store.close()
        state.publish(LOG_FILE, encode_key(done.origin, signer.public).encode() + b"\n")
        both = "\n".join(note for note in (done.found, done.known, done.checkpoint) if note)
        state.publish(f"recovered-{done.origin.rpartition('-')[2]}.txt", both.encode())
    finally:
        state.close()
    return done
