"""`eventsourcing` on SQLite under attack: a bank account per person, its cipher on or off."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

from eventsourcing.application import Application
from eventsourcing.cryptography import AESCipher
from eventsourcing.domain import EventSourcingError

from bench.account import Account
from bench.tampering import DEPOSITS


class Eventsourcing:
    """`eventsourcing` on SQLite; a bank account per person."""

    cipher = "eventsourcing.cryptography:AESCipher"

    def __init__(self, directory: Path) -> None:
        self._path = directory / "events.db"
        self._application = Application[Any](env=self.environ())
        self._ids = {}
        for owner, amounts in DEPOSITS.items():
            one = Account(owner)
            for amount in amounts:
                one.deposit(Decimal(amount))
            self._application.save(one)
            self._ids[owner] = one.id
        self.alice, self.bob = (self._ids[owner].hex for owner in ("alice", "bob"))

    def environ(self) -> Mapping[str, str]:
        """Return what the application is configured with."""
        environ = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(self._path)}
        if self.cipher:
            environ |= {"CIPHER_TOPIC": self.cipher, "CIPHER_KEY": AESCipher.create_key(32)}
        return environ

    def attack(self, name: str) -> None:
        """Write the database behind the application's back."""
        with closing(sqlite3.connect(self._path)) as database, database:
            getattr(self, f"_{name}")(database)

    def _state(self, database: sqlite3.Connection, owner: str, version: int) -> bytes:
        query = "SELECT state FROM stored_events WHERE originator_id = ? AND originator_version = ?"
        found: bytes = database.execute(query, (owner, version)).fetchone()[0]
        return found

    def _write(self, database: sqlite3.Connection, version: int, state: bytes) -> None:
        query = "UPDATE stored_events SET state = ? WHERE originator_id = ? AND originator_version = ?"
        database.execute(query, (state, self.alice, version))

    def _edit(self, database: sqlite3.Connection) -> None:
        state = self._state(database, self.alice, 2)
        edited = state.replace(b'"_data_":"3"', b'"_data_":"9"') if not self.cipher else state[:-1] + b"\0"
        self._write(database, 2, edited)

    def _paste(self, database: sqlite3.Connection) -> None:
        self._write(database, 3, self._state(database, self.bob, 3))

    def _reorder(self, database: sqlite3.Connection) -> None:
        second, third = (self._state(database, self.alice, version) for version in (2, 3))
        self._write(database, 2, third)
        self._write(database, 3, second)

    def _replay(self, database: sqlite3.Connection) -> None:
        query = "INSERT INTO stored_events SELECT originator_id, 6, topic, state FROM stored_events"
        database.execute(f"{query} WHERE originator_id = ? AND originator_version = 2", (self.alice,))

    def _delete(self, database: sqlite3.Connection) -> None:
        query = "DELETE FROM stored_events WHERE originator_id = ? AND originator_version = 3"
        database.execute(query, (self.alice,))

    def _truncate(self, database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM stored_events WHERE originator_version > 3")

    def _replace(self, database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM stored_events WHERE originator_id = ?", (self.alice,))
        query = "INSERT INTO stored_events SELECT ?, originator_version, topic, state FROM stored_events"
        database.execute(f"{query} WHERE originator_id = ?", (self.alice, self.bob))

    def recompute(self) -> bool:
        """There is no chain."""
        return False

    def noticed(self) -> bool:
        """Rebuild every account and read the whole notification log."""
        application = self._application
        try:
            for one in self._ids.values():
                application.repository.get(one)
            for notification in application.recorder.select_notifications(start=1, limit=1_000):
                application.mapper.to_domain_event(notification)
        except (EventSourcingError, ValueError, AssertionError):
            return True
        finally:
            application.close()
        return False


class EventsourcingInClear(Eventsourcing):
    """The same without its cipher."""

    cipher = ""
