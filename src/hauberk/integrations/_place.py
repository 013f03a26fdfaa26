"""An open store with its keys, logs and high-water marks, shared by whoever in this process names the same one.

Behind `hauberk.integrations.eventsourcing`. The key that signs the logs is in the store, sealed under the root secret,
so that every process that has that secret signs as the same log. The public key of each log is in a file `NAME.pub`
beside its high-water mark, the name percent-encoded, for `hauberk ledger verify --key`.
"""

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from threading import Event as Flag
from typing import Protocol
from urllib.parse import quote

import msgspec

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.engine import open_store, resolved
from hauberk.adapters.keys import key_source
from hauberk.adapters.mark import FileMark
from hauberk.adapters.memory import MemoryStore
from hauberk.core.address import StoreAddress
from hauberk.core.config import Config
from hauberk.core.ports import ABSENT_ROW, KeySource, Put, Store, Write
from hauberk.crypto.keyring import KEY_BYTES, Keyring, Purpose
from hauberk.crypto.signing import SigningKey
from hauberk.errors import ConfigError, Conflict, RecordsError, explained
from hauberk.records.keys import SubjectKeys
from hauberk.records.ledger import Ledger

STORE, KEYS = "HAUBERK_EVENTSOURCING_STORE", "HAUBERK_EVENTSOURCING_KEYS"
MARKS, LOG = "HAUBERK_EVENTSOURCING_MARKS", "HAUBERK_EVENTSOURCING_LOG"
TENANT = "eventsourcing"  # whose subjects these are: not those of other parts in the same database
_SPACE, _SIGNER = "eventsourcing", b"signer"


class Lookup(Protocol):
    """An environment: what the library calls one."""

    def get(self, key: str, /) -> str | None:
        """Return the value of a variable."""


class Settings(msgspec.Struct, frozen=True):
    """What a place is opened with; two that are equal are the same place.

    Args:
        store: its address; None for one in memory.
        keys: `file:DIRECTORY` or `env:PREFIX`; empty for a root secret that dies with the place.
        marks: directory of high-water marks; empty for none.
        log: what names of logs begin with.
        number: tells places in memory apart.
    """

    store: StoreAddress | None
    keys: str
    marks: str
    log: str
    number: int = 0


_numbers = count(1)


def settings(environ: Lookup) -> Settings:
    """Read the settings.

    Raises:
        ConfigError: HBK-901 one is missing or wrong, HBK-905 the file with the address is open to others. Which one it
            is, and what it may be, is in the traceback.
    """
    with explained():
        return _read(environ)


def _read(environ: Lookup) -> Settings:
    keys, marks, log = (environ.get(name) or "" for name in (KEYS, MARKS, LOG))
    log = log or "eventsourcing"
    text = environ.get(STORE) or ""
    if text == "memory:":
        return Settings(None, keys, marks, log, next(_numbers))
    if not text:
        raise ConfigError(
            "HBK-901", f"set {STORE}: sqlite:PATH, postgresql://..., env:NAME, file:PATH or memory:", key=STORE
        )
    try:
        address = resolved(StoreAddress(text))
    except ValueError:
        raise ConfigError("HBK-901", "a store is sqlite:PATH, postgresql://... or memory:", key=STORE) from None
    if address.scheme == "sqlite":
        if not address.rest:
            raise ConfigError("HBK-901", "say which file: sqlite:PATH", key=STORE)
        path = Path(address.rest).absolute()
        address, marks = StoreAddress(f"sqlite:{path}"), marks or f"{path}.marks"
    if not keys:
        raise ConfigError("HBK-901", f"set {KEYS}, where the root secret is: file:DIRECTORY or env:PREFIX", key=KEYS)
    return Settings(address, keys, marks, log)


class _Passing:
    """A root secret that is gone with the process. Implements `core.ports.KeySource`."""

    def __init__(self) -> None:
        self._secret = os.urandom(KEY_BYTES)

    def key(self, name: str) -> bytes:  # noqa: ARG002  # one secret, whatever it is called
        """Return the secret."""
        return self._secret


class Place:
    """What is open.

    Args:
        chosen: settings.

    Raises:
        ConfigError: HBK-901, HBK-905, HBK-907.
        RecordsError: HBK-703, HBK-706 the store cannot be opened, HBK-710 it is not of this key.
    """

    def __init__(self, chosen: Settings) -> None:
        self._settings = chosen
        self._lock = threading.Lock()  # guards _ledgers and _flags
        self._ledgers: dict[str, Ledger] = {}
        self._flags: dict[str, set[Flag]] = {}  # by log: set when this process has recorded something
        with ExitStack() as taken:
            inner = _opened(chosen.store)
            taken.callback(inner.close)
            fresh = inner.get(_SPACE, _SIGNER) is None
            keyring = Keyring(_keys(chosen.keys, create=fresh))
            self.store: Store = AuthenticRows(inner, keyring)
            self.keys = SubjectKeys(self.store, keyring, TENANT, shared=True)
            self._signer = _signer(self.store, keyring)
            self._taken = taken.pop_all()

    def ledger(self, application: str, purpose: str) -> Ledger:
        """Return a log, opened when it is asked for first.

        Raises:
            Tampered: HBK-710, HBK-713 it was changed, or an old copy was put back.
        """
        name = self.name_of(application, purpose)
        with self._lock:
            if name not in self._ledgers:
                ledger = Ledger(self.store, self._signer, name, keys=self.keys, mark=self._mark(name))
                self._taken.callback(ledger.close)  # before its mark and its store
                self._ledgers[name] = ledger
                self._publish(name, ledger.verifier)
            return self._ledgers[name]

    def name_of(self, application: str, purpose: str) -> str:
        """Return the name of a log."""
        return f"{self._settings.log}/{quote(application, safe='')}/{quote(purpose, safe='')}"

    def _mark(self, name: str) -> FileMark | None:
        if not self._settings.marks:
            return None
        directory = Path(self._settings.marks)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RecordsError("HBK-706", "the high-water mark cannot be opened", path=str(directory)) from error
        mark = FileMark(directory / f"{quote(name, safe='')}.mark")
        self._taken.callback(mark.close)
        return mark

    def _publish(self, name: str, verifier: str) -> None:
        """Write the public key of a log beside its mark, where there is one."""
        if not self._settings.marks:
            return
        path = Path(self._settings.marks) / f"{quote(name, safe='')}.pub"
        part = path.with_suffix(f".{os.getpid()}.part")  # several processes may open the same log at once
        try:
            part.write_text(f"{verifier}\n", "utf-8")
            part.replace(path)
        except OSError as error:
            raise RecordsError("HBK-706", "the public key cannot be written", path=str(path)) from error

    def flags(self, log: str) -> set[Flag]:
        """Return what to set when this process has recorded something in a log."""
        with self._lock:
            return self._flags.setdefault(log, set())

    def close(self) -> None:
        """Write what waits and close everything."""
        self._taken.close()


def _opened(address: StoreAddress | None) -> Store:
    return MemoryStore() if address is None else open_store(Config(store=address), Path(address.rest))


def _keys(reference: str, *, create: bool) -> KeySource:
    if not reference:
        return _Passing()
    try:
        return key_source(reference, Path(), create=create)
    except ConfigError:
        raise ConfigError("HBK-901", "a key source is file:DIRECTORY or env:PREFIX", key=KEYS) from None


def _signer(store: Store, keyring: Keyring) -> SigningKey:
    """Return the key that signs the logs of a store, made by whoever comes first."""
    row = store.get(_SPACE, _SIGNER)
    while row is None:
        sealed = keyring.seal(Purpose.LOG_KEY, SigningKey.generate().seed(), aad=_SIGNER)
        with suppress(Conflict):  # somebody else was first
            store.commit(Write(rows=(Put(_SPACE, _SIGNER, sealed, expected=ABSENT_ROW),)))
        row = store.get(_SPACE, _SIGNER)
    return SigningKey(keyring.open(Purpose.LOG_KEY, row.value, aad=_SIGNER))


_registry = threading.Lock()  # guards the two below
_open: dict[Settings, Place] = {}
_users: dict[Settings, int] = {}


class Lease:
    """A share in a place. It ends when it is closed, or when nobody holds it any more.

    Args:
        place: what is shared.
        release: gives the share back.
    """

    def __init__(self, place: Place, release: Callable[[], None]) -> None:
        self.place = place
        self._release = release
        self._forgotten = weakref.finalize(self, _later, release)
        self._forgotten.atexit = False

    def close(self) -> None:
        """Give the share back. Closing twice is fine."""
        if self._forgotten.detach() is not None:
            self._release()


def _later(release: Callable[[], None]) -> None:
    """Release from a thread of its own: garbage is collected in any thread, also in one that writes there."""
    threading.Thread(target=release, daemon=True).start()


def lease(chosen: Settings) -> Lease:
    """Return a share in the place with these settings, opened if need be.

    Raises:
        ConfigError: see `Place`.
        RecordsError: see `Place`.
    """
    with _registry:
        if chosen not in _open:
            with explained():
                _open[chosen] = Place(chosen)
        _users[chosen] = _users.get(chosen, 0) + 1
        return Lease(_open[chosen], lambda: _release(chosen))


def _release(chosen: Settings) -> None:
    with _registry:
        _users[chosen] -= 1
        place = None if _users[chosen] else _open.pop(chosen)
    if place is not None:
        place.close()
