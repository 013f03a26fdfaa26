"""kill -9 of service and authority in the middle: what was acknowledged is in the ledger once, and that verifies."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from hauberk.adapters.sqlite import SqliteStore
from hauberk.crypto.note import encode_key
from hauberk.crypto.signing import SigningKey
from hauberk.records.verify import verify_store
from tests.chaos.stage import Mesh, Program
from tests.records.made import ORIGIN

EMBEDDED = """
import sys, threading
from hauberk.adapters.sqlite import SqliteStore
from hauberk.crypto.signing import SigningKey
from hauberk.records.ledger import Ledger
from tests.records.made import ORIGIN, event
ledger = Ledger(SqliteStore(sys.argv[1]), SigningKey(b"s" * 32), ORIGIN)
lock = threading.Lock()
def write():
    while True:
        one = event()
        ledger.submit(one).result()
        with lock:
            print(one.id.hex(), flush=True)
for _ in range(4):
    threading.Thread(target=write).start()
"""


class Tally:
    """Everything any process was told to be acknowledged."""

    def __init__(self) -> None:
        self.where: Counter[str] = Counter()
        self.ids: list[str] = []

    def take(self, lines: Sequence[str]) -> None:
        for line in lines:
            where, _, identity = line.partition(" ")
            self.where[where] += 1
            if where in {"ledger", "spool"}:
                self.ids.append(identity)

    def read(self, program: Program, where: str, count: int) -> None:
        """Read until `count` more have been acknowledged that way."""
        target = self.where[where] + count
        while self.where[where] < target:
            self.take([program.line()])


def stored(path: Path) -> Counter[str]:
    connection = sqlite3.connect(path)
    found = Counter(bytes(row[0]).hex() for row in connection.execute("SELECT id FROM entry"))
    connection.close()
    return found


def test_a_killed_program_with_its_own_ledger_has_lost_nothing_it_acknowledged(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "log.db", set[str]()
    key = encode_key(ORIGIN, SigningKey(b"s" * 32).public)
    for round_ in range(3):
        program = Program(["-c", EMBEDDED, str(path)], tmp_path / "program.log")
        acknowledged.update(program.line() for _ in range(40 + 30 * round_))
        acknowledged.update(program.kill())
        store = SqliteStore(path)
        report = verify_store(store, key)
        store.close()
        found = stored(path)
        assert acknowledged <= found.keys()
        assert set(found.values()) == {1}
        assert report.size == len(found)


@pytest.mark.timeout(110)
def test_whoever_is_killed_whenever_every_acknowledged_event_is_in_the_ledger_exactly_once(tmp_path: Path) -> None:
    tally = Tally()
    with Mesh(tmp_path) as mesh:
        authority = mesh.authority()
        mesh.register()
        service = mesh.service()
        tally.read(service, "ledger", 100)

        authority.kill()  # in the middle of batches; the service goes on, into its spool
        tally.read(service, "spool", 60)
        authority = mesh.authority()  # and finds it again
        tally.read(service, "forwarded", 1)
        tally.read(service, "ledger", 60)

        # Now both, in the middle of events: what only the spool has must reach the next authority by the next service.
        authority.kill()
        tally.read(service, "spool", 60)
        tally.take(service.kill())
        authority = mesh.authority()
        service = mesh.service()
        tally.read(service, "forwarded", 1)
        tally.read(service, "ledger", 30)

        tally.take(service.stop())
        authority.stop()
        verified = mesh.verify()
        assert verified.returncode == 0, verified.stdout + verified.stderr
        found = stored(Path(mesh.facts.ledger))
    assert json.loads(verified.stdout)["report"]["size"] == sum(found.values())
    assert tally.where["refused"] == 0
    assert len(tally.ids) == len(set(tally.ids)) > 300
    assert {found[identity] for identity in tally.ids} == {1}
