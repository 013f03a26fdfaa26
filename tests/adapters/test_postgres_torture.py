"""Three sequencers on one log, killed and stopped at any moment, and now and then the server with them.

What was acknowledged is in the log once, there is no gap, and every checkpoint that any of them ever signed is of one
and the same history. `HAUBERK_TEST_KILLS` says how often something is killed; a few times unless it is set.
"""

import os
import random
import signal
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.postgres_connect import Target
from hauberk.adapters.postgres_schema import migrate
from hauberk.core.ports import END
from hauberk.crypto.merkle import Frontier, leaf_hash
from hauberk.crypto.note import encode_key, verify_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.records.verify import verify_store
from tests.chaos.stage import Program
from tests.records.made import ORIGIN
from tests.support.postgres_server import Server

KILLS = int(os.environ.get("HAUBERK_TEST_KILLS", "6"))
SEQUENCERS = 3
STUCK = 60.0  # seconds; far more than it takes the server to end a writer that has stopped
SIGNER = SigningKey(b"s" * 32)
SEQUENCER = """
import sys, threading, time
from base64 import b64encode
from hauberk.adapters.postgres import PostgresStore
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError
from hauberk.records.ledger import Ledger
from tests.records.made import ORIGIN, event
lock = threading.Lock()
def say(line):
    with lock:
        print(line, flush=True)
while True:
    try:
        store = PostgresStore(sys.argv[1])
        ledger = Ledger(store, SigningKey(b"s" * 32), ORIGIN)
        break
    except RecordsError:  # the server is not up yet
        time.sleep(0.05)
def write(number):
    while True:
        one = event(stream=f"/services/torture/{number}")
        try:
            ledger.submit(one).result()
        except RecordsError:
            time.sleep(0.01)  # the server is away; whether that one is in, nobody was told
            continue
        say("done " + one.id.hex())
for number in range(4):
    threading.Thread(target=write, args=(number,), daemon=True).start()
say("ready")
while True:
    time.sleep(0.02)
    try:
        say("seen " + b64encode(ledger.checkpoint().encode()).decode())
    except RecordsError:
        pass
"""


class Watch:
    """Everything that was acknowledged, and every checkpoint that was seen."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.seen: set[str] = set()

    def take(self, lines: list[str]) -> None:
        for line in lines:
            what, _, rest = line.partition(" ")
            if what == "done":
                self.done.append(rest)
            elif what == "seen" and rest:
                self.seen.add(b64decode(rest).decode())

    def read(self, program: Program, count: int) -> None:
        """Read until so many more were acknowledged: whoever gets nothing done any more is stuck."""
        wanted, until = len(self.done) + count, time.monotonic() + STUCK
        while len(self.done) < wanted:
            self.take([program.line()])
            assert time.monotonic() < until


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a disk, if there is one."""
    made = Server(Path("/tmp"))
    try:
        made.start()
        migrate(Target(made.dsn()))
        yield made
    finally:
        made.remove()


def disturb(server: Server, programs: list[Program], watch: Watch, number: int, chance: random.Random) -> None:
    """Kill, stop or starve somebody, and wait until everybody gets on."""
    victim = chance.randrange(SEQUENCERS)
    if number % 5 == 4:
        server.crash()
        server.start()
    elif chance.random() < 0.3:
        programs[victim].process.send_signal(signal.SIGSTOP)  # perhaps while it has the head
        watch.read(programs[(victim + 1) % SEQUENCERS], 5)
        programs[victim].process.send_signal(signal.SIGCONT)
    else:
        watch.take(programs[victim].kill())
        programs[victim] = sequencer(server)
    for program in programs:
        watch.read(program, chance.randrange(1, 20))


def sequencer(server: Server) -> Program:
    return Program(["-c", SEQUENCER, server.dsn()], server.directory / "sequencer.log")


@pytest.mark.timeout(100 + 10 * KILLS)
def test_whoever_is_killed_whenever_there_is_one_history_with_all_that_was_acknowledged(server: Server) -> None:
    watch, chance = Watch(), random.Random(KILLS)  # noqa: S311  # the same each time, as far as it goes
    programs = [sequencer(server) for _ in range(SEQUENCERS)]
    try:
        for program in programs:
            watch.read(program, 20)
        for number in range(KILLS):
            disturb(server, programs, watch, number, chance)
    finally:
        for program in programs:
            watch.take(program.kill())
    with closing(PostgresStore(server.dsn())) as store:
        assert verify_store(store, encode_key(ORIGIN, SIGNER.public)).size == store.head(ORIGIN).size
        entries = list(store.entries(ORIGIN, limit=END))
    assert [one.position for one in entries] == list(range(len(entries)))
    stored = [one.id.hex() for one in entries]
    assert len(watch.done) == len(set(watch.done)) >= 60
    assert set(watch.done) <= set(stored)
    assert len(stored) == len(set(stored))
    check_history([leaf_hash(one.leaf) for one in entries], watch.seen)


def check_history(leaves: list[bytes], notes: set[str]) -> None:
    """Every checkpoint is of the history that the leaves are."""
    seen = sorted(
        {(found.size, found.root) for found in (verify_checkpoint(n, ORIGIN, SIGNER.public) for n in notes if n)}
    )
    frontier = Frontier()
    for size, root in seen:
        frontier.extend(leaves[frontier.size : size])
        assert (frontier.size, frontier.root()) == (size, root)
    assert len(seen) > 10
