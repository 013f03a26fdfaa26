"""The application of `bench.tamper_eventsourcing`, unchanged, on our store, under the same seven attacks.

Noticed is what its own reads refuse, and what the offline verifier finds with nothing but the log's public key.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from bench.tamper_eventsourcing import Eventsourcing
from hauberk.adapters.sqlite import open_readonly
from hauberk.errors import Tampered
from hauberk.integrations.eventsourcing import ApplicationRecorder
from hauberk.records.verify import verify_store

_REST = "type, leaf, meta, public, sealed, statement"  # of an entry, besides its place


class OnOurs(Eventsourcing):
    """Everything that a database writer can change is in the table `entry`."""

    def environ(self) -> Mapping[str, str]:
        """Name our module, and nothing of a cipher: there is no other way."""
        return {
            "PERSISTENCE_MODULE": "hauberk.integrations.eventsourcing",
            "HAUBERK_EVENTSOURCING_STORE": f"sqlite:{self._path}",
            "HAUBERK_EVENTSOURCING_KEYS": f"file:{self._path.with_name('keys')}",
        }

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        assert isinstance(self._application.recorder, ApplicationRecorder)
        self._key = self._application.recorder.verifier
        streams = {owner: f"%/{one}" for owner, one in self._ids.items()}
        self.alice, self.bob = streams["alice"], streams["bob"]

    def attack(self, name: str) -> None:
        """Write the database behind the application's back."""
        with closing(sqlite3.connect(self._path)) as database, database:
            for statement in _ATTACKS[name]:
                database.execute(statement, {"alice": self.alice, "bob": self.bob})

    def noticed(self) -> bool:
        """Read everything, then verify the file offline."""
        if super().noticed():
            return True
        with closing(open_readonly(self._path)) as store:
            try:
                verify_store(store, self._key)
            except Tampered:
                return True
        return False


def _taken(owner: str, version: str) -> str:
    """Give an entry all that another one says."""
    return (
        f"UPDATE entry SET ({_REST}) = (SELECT {_REST} FROM entry other WHERE other.stream LIKE :{owner}"  # noqa: S608  # constants
        f" AND other.version = {version}) WHERE stream LIKE :alice"
    )


_EDIT = (
    "UPDATE entry SET sealed = CAST(substr(sealed, 1, length(sealed) - 1) || x'00' AS BLOB)"
    " WHERE stream LIKE :alice AND version = 2"
)
_REPLAY = (
    f"INSERT INTO entry (log, position, id, stream, version, {_REST}) SELECT log, 10, randomblob(16), stream, 6,"  # noqa: S608  # constants
    f" {_REST} FROM entry WHERE stream LIKE :alice AND version = 2"
)
_ATTACKS = {
    "edit": [_EDIT],
    "paste": [f"{_taken('bob', '3')} AND version = 3"],
    "reorder": [
        "UPDATE entry SET version = 99 WHERE stream LIKE :alice AND version = 2",
        "UPDATE entry SET version = 2 WHERE stream LIKE :alice AND version = 3",
        "UPDATE entry SET version = 3 WHERE stream LIKE :alice AND version = 99",
    ],
    "replay": [_REPLAY],
    "delete": ["DELETE FROM entry WHERE stream LIKE :alice AND version = 3"],
    "truncate": ["DELETE FROM entry WHERE version > 3"],
    "replace": [_taken("bob", "entry.version")],
}
