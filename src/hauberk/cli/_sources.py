"""Where a log to verify is: a database, a directory of tiles, or the URL of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import click

from hauberk.adapters.audited import AuditedFile
from hauberk.adapters.engine import embedded, open_auditor
from hauberk.adapters.sqlite import open_readonly
from hauberk.adapters.state import DATABASE
from hauberk.core.address import StoreAddress
from hauberk.core.config import Config
from hauberk.core.event import Entry
from hauberk.core.ports import Store
from hauberk.crypto.note import parse_checkpoint, parse_note
from hauberk.errors import ConfigError, RecordsError
from hauberk.records._tiles import StoredTree
from hauberk.records.ledger import Proof
from hauberk.records.tile_export import read_directory
from hauberk.records.tile_paths import CHECKPOINT, MAX_BUNDLE_BYTES, Fetch, TileDirectory

TIMEOUT = 30.0  # seconds for one file
_ABSENT = frozenset({404, 410})
_SERVING = (
    'whoever keeps the log shows it with authority.tiles = "HOST:PORT" in hauberk.toml;'
    " as files it is written by: hauberk ledger export"
)


@runtime_checkable
class Listing(Protocol):
    """A store that knows its logs."""

    def logs(self) -> list[str]:
        """Return their names."""


def entry_of(store: Store, log: str, position: int) -> Entry:
    """Return an entry.

    Raises:
        RecordsError: HBK-707 it is not there.
    """
    entry = next(store.entries(log, after=position - 1, before=position + 1, limit=1), None)
    if entry is None:
        raise RecordsError("HBK-707", "there is no such entry, or it was pruned", position=position)
    return entry


def proof_of(store: Store, log: str, entry: Entry, note: str) -> Proof:
    """Return the proof of an entry under a checkpoint of the log that covers it."""
    size = parse_checkpoint(parse_note(note).text).size
    return Proof(entry.position, entry.leaf, tuple(StoredTree(store, log).inclusion(entry.position, size)), note)


def governed(config: Config) -> bool:
    """Tell whether an authority keeps the state directory, running or not."""
    return (Path(config.directory) / "authority.json").exists()


@contextmanager
def left(config: Config) -> Iterator[Store]:
    """Open the store that an embedded application records in, wherever it is, for reading only."""
    database = Path(config.directory) / "private" / DATABASE
    store = open_readonly(database) if embedded(config) else open_auditor(config.store, config.database)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def opened(source: str) -> Iterator[Store | TileDirectory]:
    """Open what is to be verified for reading only, and close it afterwards.

    Args:
        source: a database file, a directory with a `checkpoint`, an `http(s):` URL of such a directory, or the address
            of a store (`postgresql://...`, `env:NAME`, `file:PATH`, `sqlite:PATH`).

    Raises:
        HauberkError: it cannot be opened.
    """
    if source.startswith(("http://", "https://")):
        with _served(source) as fetch:
            yield TileDirectory(fetch)
        return
    path = Path(source)
    if path.is_dir():
        if not (path / CHECKPOINT).exists():
            raise click.UsageError(f"{source} is a directory without a checkpoint: name the database in it")
        yield TileDirectory(read_directory(path))
        return
    store = _store(source, path)
    try:
        yield store
    finally:
        store.close()


def _store(source: str, path: Path) -> Store:
    if path.exists():
        return AuditedFile(path)
    try:
        address = StoreAddress(source)
    except ValueError:
        raise click.UsageError(f"there is no file, directory or address {source!r}") from None
    if address.scheme == "sqlite" and address.rest:
        return AuditedFile(address.rest)
    return open_auditor(address)


@contextmanager
def _served(url: str) -> Iterator[Fetch]:
    """Lend what fetches files below a URL. Nothing is followed anywhere else."""
    import httpx2  # noqa: PLC0415  # an HTTP client, for whoever verifies over a network

    with httpx2.Client(timeout=TIMEOUT, follow_redirects=False, headers={"accept-encoding": "identity"}) as client:

        def fetch(path: str) -> bytes:
            try:
                with client.stream("GET", f"{url.rstrip('/')}/{path}") as answer:
                    if answer.status_code in _ABSENT:
                        raise RecordsError("HBK-707", "there is no such file", path=path)
                    if answer.status_code != 200:  # noqa: PLR2004  # OK
                        why = f"the server answers {answer.status_code}"
                        raise ConfigError("HBK-902", why, path=path, hint=_SERVING)
                    return _bounded(answer.iter_bytes())
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise ConfigError("HBK-902", "no answer", path=path, hint=_SERVING) from error

        yield fetch


def _bounded(parts: Iterator[bytes]) -> bytes:
    data = b""
    for part in parts:
        data += part
        if len(data) > MAX_BUNDLE_BYTES:
            raise RecordsError("HBK-712", "a file is longer than any of a log")
    return data
