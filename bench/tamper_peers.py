"""What other packages notice when somebody edits their store, and what one of them does on ours.

The attacks are in `bench.tampering`. A peer is given every check that it has, walked over everything it stored.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from immutable_logging import IntegrityRotatingFileHandler, verify_log_integrity
from merkle_audit import AuditChain, ChainEntry
from merkle_audit.persister import SQLitePersister

from bench.harness import Progress, Row
from bench.tamper_eventsourcing import Eventsourcing, EventsourcingInClear
from bench.tamper_ours import OnOurs
from bench.tampering import ATTACKS, DEPOSITS, Outcome, Peer, outcome, rows, text

_GENESIS = "0" * 64


class ImmutableLogging:
    """`immutable-logging`: lines in a file, and a file of hashes beside it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "audit.log"
        self._sidecar = directory / "audit.log.integrity"
        with closing(IntegrityRotatingFileHandler(str(self._path))) as handler:
            for number in range(len(DEPOSITS["alice"])):
                for owner, amounts in DEPOSITS.items():
                    text = f"{owner} deposits {amounts[number]}"
                    handler.handle(logging.makeLogRecord({"msg": text, "levelno": logging.INFO}))

    def _lines(self) -> list[str]:
        return self._path.read_text().splitlines()

    def attack(self, name: str) -> None:
        """Write the log; its hashes are left as they are."""
        changed: Callable[[list[str]], list[str]] = getattr(self, f"_{name}")
        self._path.write_text("".join(f"{line}\n" for line in changed(self._lines())))

    def recompute(self) -> bool:
        """Write the hashes of what is in the log now."""
        previous, hashes = _GENESIS, []
        for number, line in enumerate(self._lines(), 1):
            digest = sha256((line + previous).encode()).hexdigest()
            hashes.append(f"{number}|sha256={digest}|prev={previous}\n")
            previous = digest
        self._sidecar.write_text("".join(hashes))
        return True

    def noticed(self) -> bool:
        """Run its verifier."""
        return not verify_log_integrity(str(self._path)).passed

    @staticmethod
    def _edit(lines: list[str]) -> list[str]:
        return [line.replace("alice deposits 3", "alice deposits 9") for line in lines]

    @staticmethod
    def _paste(lines: list[str]) -> list[str]:
        return [*lines[:2], lines[3].replace("bob", "alice"), *lines[3:]]

    @staticmethod
    def _reorder(lines: list[str]) -> list[str]:
        return [lines[2], lines[1], lines[0], *lines[3:]]

    @staticmethod
    def _replay(lines: list[str]) -> list[str]:
        return [*lines, lines[0]]

    @staticmethod
    def _delete(lines: list[str]) -> list[str]:
        return lines[:2] + lines[3:]

    @staticmethod
    def _truncate(lines: list[str]) -> list[str]:
        return lines[:-2]

    @staticmethod
    def _replace(lines: list[str]) -> list[str]:
        return [lines[at + 1].replace("bob", "alice") if not at % 2 else line for at, line in enumerate(lines)]


class MerkleAudit:
    """`merkle-audit`: one table, a running hash in each row. It keeps hashes of payloads, not the payloads."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "audit.db"
        self._chain = AuditChain()
        with closing(SQLitePersister(str(self._path))) as persister:
            self._chain.set_persist_hook(persister)
            for number in range(len(DEPOSITS["alice"])):
                for owner, amounts in DEPOSITS.items():
                    self._chain.append("deposit", {"owner": owner, "amount": amounts[number]}, actor=owner)

    def attack(self, name: str) -> None:
        """Write the database; hashes of the chain are left as they are."""
        with closing(sqlite3.connect(self._path)) as database, database:
            for statement in _MERKLE_AUDIT[name]:
                database.execute(statement)

    def _entries(self) -> Iterator[Any]:
        with closing(sqlite3.connect(self._path)) as database:
            database.row_factory = sqlite3.Row
            for row in database.execute("SELECT * FROM audit_log ORDER BY leaf_index").fetchall():
                yield ChainEntry(**dict(row))

    def recompute(self) -> bool:
        """Number the rows and compute their hashes."""
        root, rows = _GENESIS, []
        for number, entry in enumerate(self._entries()):
            leaf = sha256(f"{root}:{entry.action_type}:{entry.payload_hash}:{entry.created_at}".encode()).hexdigest()
            root = sha256(f"{root}:{leaf}".encode()).hexdigest()
            rows.append((number, leaf, root, entry.leaf_index))
        query = "UPDATE audit_log SET leaf_index = ?, leaf_hash = ?, mmr_root = ? WHERE leaf_index = ?"
        with closing(sqlite3.connect(self._path)) as database, database:
            database.executemany(query, rows)
        return True

    def noticed(self) -> bool:
        """Check every row with what the package has, and that no number is missing."""
        root = _GENESIS
        for number, entry in enumerate(self._entries()):
            if entry.leaf_index != number or not self._chain.verify_entry(entry, root):
                return True
            root = entry.mmr_root
        return False


_REPLAY = (
    "INSERT INTO audit_log SELECT 8, leaf_hash, mmr_root, payload_hash, action_type, actor, agent_id, created_at"
    " FROM audit_log WHERE leaf_index = 0"
)
_TAKE = "UPDATE audit_log SET payload_hash = (SELECT payload_hash FROM audit_log other WHERE other.leaf_index = {})"
_MERKLE_AUDIT = {
    "edit": ["UPDATE audit_log SET payload_hash = 'a' || substr(payload_hash, 2) WHERE leaf_index = 0"],
    "paste": [f"{_TAKE.format(3)} WHERE leaf_index = 2"],
    "reorder": [
        "UPDATE audit_log SET leaf_index = -1 WHERE leaf_index = 0",
        "UPDATE audit_log SET leaf_index = 0 WHERE leaf_index = 2",
        "UPDATE audit_log SET leaf_index = 2 WHERE leaf_index = -1",
    ],
    "replay": [_REPLAY],
    "delete": ["DELETE FROM audit_log WHERE leaf_index = 2"],
    "truncate": ["DELETE FROM audit_log WHERE leaf_index > 5"],
    "replace": [f"{_TAKE.format('audit_log.leaf_index + 1')} WHERE actor = 'alice'"],
}

PEERS: Mapping[str, type[Peer]] = {
    "eventsourcing on hauberk": OnOurs,
    "eventsourcing, cipher on": Eventsourcing,
    "eventsourcing, cipher off": EventsourcingInClear,
    "immutable-logging": ImmutableLogging,
    "merkle-audit": MerkleAudit,
}


def table() -> dict[str, dict[str, Outcome]]:
    """Return, per peer and attack, what became of it."""
    return {name: {attack: outcome(peer, attack) for attack in ATTACKS} for name, peer in PEERS.items()}


def run(progress: Progress) -> list[Row]:
    """Attack the peers."""
    progress("attacking the peers")
    found = table()
    progress("\n" + text(found))
    return rows(found)


if __name__ == "__main__":
    print(text(table()))
