"""The event store of payment-service as an outsider sees it: rows, the public key of its log, its witness's word."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2

from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.event import Entry
from hauberk.crypto.datakey import WRAPPED_BYTES
from hauberk.crypto.note import decode_key
from hauberk.errors import HauberkError
from hauberk.records._tiles import StoredTree
from hauberk.records.keys import KEY
from hauberk.records.ledger import Proof
from hauberk.records.log_policy import LogPolicy, verify_checkpoint_under
from hauberk.records.receipt import Shown, verify_receipt, write_receipt
from hauberk.records.witness_wire import origin_hash

PATIENCE = 20.0  # seconds until the witness has to have signed


class Books:
    """What can be known about the event store without being payment-service.

    Args:
        directory: of the event store.
        policy: the file that names the witness.
        witness: its name, URL and keys, as `hauberk witness serve --json` said.
    """

    def __init__(self, directory: Path, policy: Path, witness: Mapping[str, Any]) -> None:
        self.directory = directory
        self.policy = policy
        self.witness = witness

    @property
    def key(self) -> Path:
        """The file of the log's public key."""
        return self.directory / "log.pub"

    @property
    def verifier(self) -> str:
        """That key."""
        return self.key.read_text("utf-8").strip()

    @property
    def log(self) -> str:
        """The name of the log."""
        return decode_key(self.verifier)[0]

    @property
    def trust(self) -> LogPolicy:
        """What a reader believes: this log, under a quorum of its witnesses."""
        return LogPolicy.parse(f"log {self.verifier}\n{self.policy.read_text('utf-8')}".encode())

    @property
    def key_alone(self) -> LogPolicy:
        """What a reader believes who asks for no witness."""
        return LogPolicy.parse(f"log {self.verifier}\nquorum none\n".encode())

    # what is stored

    def at(self, directory: Path) -> SqliteStore:
        """Open the database of this event store, or of a copy, for reading only."""
        return open_readonly(directory / "private" / "hauberk.db")

    def rows(self, directory: Path | None = None) -> list[Entry]:
        """Return all entries."""
        store = self.at(directory or self.directory)
        try:
            return list(_pages(store, self.log))
        finally:
            store.close()

    def row(self, position: int, directory: Path | None = None) -> Entry | None:
        """Return one entry, or None when there is none."""
        store = self.at(directory or self.directory)
        try:
            found = next(store.entries(self.log, after=position - 1, limit=1), None)
        finally:
            store.close()
        return found if found is not None and found.position == position else None

    def size(self, directory: Path | None = None) -> int:
        """Return how many entries there are."""
        store = self.at(directory or self.directory)
        try:
            return store.head(self.log).size
        finally:
            store.close()

    def wrapped(self, key: str) -> bytes:
        """Return what is stored of the key of a customer, by its id; empty when there is nothing."""
        store = self.at(self.directory)
        try:
            row = store.get(KEY, bytes.fromhex(key))
        finally:
            store.close()
        return b"" if row is None else row.value[-WRAPPED_BYTES:]

    # what is proven

    def cosigned(self, covers: int = 0) -> str:
        """Ask the witness itself for the checkpoint it signed last, once that covers a position.

        Raises:
            RuntimeError: it never did.
        """
        url = f"{self.witness['url']}/{origin_hash(self.log)}/checkpoint"
        until = time.monotonic() + PATIENCE
        with httpx2.Client(trust_env=False) as client:
            while time.monotonic() < until:
                answer = client.get(url)
                if answer.is_success and verify_checkpoint_under(answer.text, self.trust).size > covers:
                    return answer.text
                time.sleep(0.02)
        raise RuntimeError("the witness did not sign in time")

    def receipt(self, position: int, checkpoint: str = "", directory: Path | None = None) -> str:
        """Return the receipt of an entry, under the newest checkpoint of the log or an older one.

        Raises:
            RecordsError: there is no such entry.
        """
        store = self.at(directory or self.directory)
        try:
            under = checkpoint or store.head(self.log).checkpoint.decode()
            size = verify_checkpoint_under(under, self.key_alone).size
            path = StoredTree(store, self.log).inclusion(position, size)
            entry = next(store.entries(self.log, after=position - 1, limit=1))
        finally:
            store.close()
        return write_receipt(Proof(position, entry.leaf, tuple(path), under))

    def holds(self, receipt: str, entry: Entry | None, trust: LogPolicy | None = None) -> bool:
        """Tell whether a receipt proves this entry, under the log's key or what else is to be believed."""
        if entry is None:
            return False
        try:
            proven = verify_receipt(receipt, Shown.of(entry), trust or self.key_alone)
        except HauberkError:
            return False
        return proven.leaf.position == entry.position

    def proves(self, position: int) -> bool:
        """Tell whether the log proves the entry that is stored at a position."""
        return self.holds(self.receipt(position), self.row(position))

    # what is on the disk

    def files(self) -> list[Path]:
        """Return every file of the event store."""
        return [path for path in self.directory.rglob("*") if path.is_file()]

    def files_with(self, text: bytes) -> list[str]:
        """Return the names of those that hold these bytes."""
        return [path.name for path in self.files() if text in path.read_bytes()]


def _pages(store: SqliteStore, log: str) -> Iterator[Entry]:
    after = -1
    while page := list(store.entries(log, after=after, limit=1_000)):
        yield from page
        after = page[-1].position
