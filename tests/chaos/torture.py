"""Torture: everything that can go wrong with a process or its disk, over and over, and every promise held against it.

`python -m tests.chaos.torture` (`make torture`) kills a program that records from several threads hundreds of times,
puts old copies of its database back, fills its disk and slows it down, and lets three programs fight for one log on
PostgreSQL while they are killed, stopped and cut off and their server crashes. After each of these

* every acknowledged event is in the log once, at the position its caller was told;
* any two signed checkpoints that ever left a process are of one history;
* no position and no version of a stream is missing;

and in the end the verifier finds nothing, and every sealed value opens. It can be interrupted and goes on where it was.
A kill is no power cut: what the kernel has been given stays. That a commit waits for the disk is left to
`synchronous=FULL` and to PostgreSQL, whose own tests are about that.
"""

import argparse
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

import msgspec

from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.sqlite import open_readonly
from hauberk.core.ports import Store
from hauberk.errors import RecordsError, Tampered
from tests.chaos.evidence import Broken, Evidence
from tests.chaos.load import LOG, Order

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds until something that should happen has not
Progress = Callable[[str], None]


class Arena:
    """Children that can be ordered, heard and killed."""

    def __init__(self, evidence: Evidence, log: Path) -> None:
        self.evidence = evidence
        self.counts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.state: dict[int, dict[str, str]] = {}  # by order: the last of each word it has said
        self._number = 0
        self._lines: queue.Queue[str] = queue.Queue()
        with log.open("a") as errors:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.load"],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1,
                start_new_session=True,  # an interrupt is for us
            )  # fmt: skip
        self._log = log
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        self._nursery.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self._nursery.stdout.close()

    def _read(self) -> None:
        assert self._nursery.stdout is not None
        for line in self._nursery.stdout:
            self._lines.put(line)

    def order(self, order: Order) -> int:
        """Have a child made and return its number."""
        self._number += 1
        assert self._nursery.stdin is not None
        made = msgspec.structs.replace(order, number=self._number)
        self.state[self._number] = {}
        self._nursery.stdin.write(msgspec.json.encode(made).decode() + "\n")
        return self._number

    def hear(self, seconds: float) -> None:
        """Take what is said for so long; with 0, what was said already.

        Raises:
            Broken: it contradicts what was said before.
        """
        until = time.monotonic() + seconds
        while not seconds or time.monotonic() < until:  # they may well say more than we can take
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return
            number, word, *rest = line.split()
            self.counts[word] += 1
            self.state[int(number)][word] = " ".join(rest)
            if word == "refused":
                self.refused[rest[0]] += 1
                if rest[0] == "HBK-701":
                    raise Broken("a stream that nobody else writes has another version")
            self.evidence.take([word, *rest])

    def until(self, number: int, *words: str) -> str:
        """Wait until a child has said one of these words, and return which."""
        until = time.monotonic() + PATIENCE
        while not (found := [word for word in words if word in self.state[number]]):
            assert time.monotonic() < until, f"{words}: {self.state[number]} {self._log.read_text()[-2000:]}"
            self.hear(0.002)
        return found[0]

    def pid(self, number: int) -> int:
        """Return the process of a child."""
        self.until(number, "started")
        return int(self.state[number]["started"])

    def signal(self, number: int, which: signal.Signals) -> None:
        """Send a signal to a child that has not ended."""
        if "ended" not in self.state[number]:
            os.kill(self.pid(number), which)  # a zombie until its parent has said `ended`, so never somebody else

    def kill(self, number: int) -> None:
        """Kill a child and take what it had said.

        Raises:
            Broken: it had ended by itself.
        """
        self.signal(number, signal.SIGKILL)
        self.until(number, "ended")
        self.hear(0)
        if self.state[number]["ended"] != "-9":
            raise Broken(f"a program has ended by itself: {self.state[number]} {self._log.read_text()[-2000:]}")


class Torture:
    """One database in one directory.

    Args:
        directory: made when absent; a log that is there is gone on with.
        seed: of when and what; 0 for another one each time.
    """

    def __init__(self, directory: Path, *, seed: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.chance = random.Random(seed or None)  # noqa: S311  # no secret
        self.evidence = Evidence(directory / "journal.txt")
        self.arena = Arena(self.evidence, directory / "errors.log")
        self.database, self.mark, self.keys = (directory / name for name in ("log.db", "log.mark", "keys"))
        FileKeySource(self.keys).key("root")
        self.order = Order(0, f"sqlite:{self.database}", str(self.keys), str(self.mark))
        self.events = 0
        self._restoring = directory / "restoring"  # there while an old copy is in place of the database
        if self._restoring.exists():
            self._back()

    def close(self) -> None:
        """End every child."""
        self.arena.__exit__()
        self.evidence.close()

    def look(self) -> None:
        """Hold the log against what was promised."""
        if not self.database.exists():
            return
        self.evidence.mark(self.mark)
        with closing(open_readonly(self.database)) as store:
            try:
                store.head(LOG)
            except RecordsError:  # killed before there were tables
                if self.evidence.newest:
                    raise
                return
            self.events = self.evidence.look(store)

    def finish(self) -> None:
        """Verify everything from the beginning."""
        with closing(open_readonly(self.database)) as store:
            self.events = self.evidence.everything(store, self.keys)

    # what is done to it

    def kill(self) -> None:
        """Kill a program at a random moment: while it opens its ledger, or while it records."""
        number = self.arena.order(self.order)
        self.arena.until(number, "started")
        if self.chance.random() < 0.8:
            self._ready(number)
            self.arena.hear(self.chance.expovariate(1 / 0.04))
        else:
            self.arena.hear(self.chance.uniform(0, 0.03))
        self.arena.kill(number)
        self.look()

    def _ready(self, number: int) -> None:
        if self.arena.until(number, "ready", "broken", "ended") != "ready":
            raise Broken(f"the ledger does not open: {self.arena.state[number]}")

    def work(self, seconds: float) -> None:
        """Let a program record for a while and end in order."""
        number = self.arena.order(self.order)
        self._ready(number)
        self.arena.hear(seconds)
        self._end(number)

    def _end(self, number: int) -> None:
        self.arena.signal(number, signal.SIGTERM)
        self.arena.until(number, "ended")
        self.arena.hear(0)
        if self.arena.state[number]["ended"] != "0":
            raise Broken(f"a program could not end in order: {self.arena.state[number]}")
        self.look()

    def restore(self) -> None:
        """Put an old copy of the database back and see that nothing is signed; then undo that."""
        old = self.directory / "old"
        self._copy(self.directory, old)
        self.work(0.05)
        if self.evidence.newest == self._size(old):
            return  # nothing was recorded since
        self._copy(self.directory, self._now)
        self._restoring.touch()
        self._copy(old, self.directory)
        number = self.arena.order(self.order)
        self.arena.until(number, "ready", "ended")
        self.arena.hear(0)
        said = self.arena.state[number]
        if "ready" in said or said.get("broken", "").split(" ")[0] != "HBK-713":
            self.arena.signal(number, signal.SIGKILL)
            raise Broken(f"an old copy of the database was gone on with: {said}")
        self.arena.until(number, "ended")
        self._back()
        self.work(0.02)

    @property
    def _now(self) -> Path:
        return self.directory / "now"

    def _back(self) -> None:
        self._copy(self._now, self.directory)
        self._restoring.unlink()

    def _size(self, directory: Path) -> int:
        with closing(open_readonly(directory / self.database.name)) as store:
            return store.head(LOG).size

    def _copy(self, source: Path, target: Path) -> None:
        """Copy a database with its write-ahead log, as a backup of the disk would."""
        target.mkdir(exist_ok=True)
        for suffix in ("", "-wal", "-shm"):
            name = self.database.name + suffix
            (target / name).unlink(missing_ok=True)
            if (source / name).exists():
                shutil.copy2(source / name, target / name)

    def fill(self) -> None:
        """Let the disk be full after a while, then make room; the program goes on, or is killed while there is none."""
        log = self.directory / f"{self.database.name}-wal"  # what grows first; nothing is moved into the database then
        room = (log.stat().st_size if log.exists() else 0) + 65_536 + self.chance.randrange(200_000)
        number = self.arena.order(msgspec.structs.replace(self.order, room=room))
        self._ready(number)
        self.arena.until(number, "refused")
        self.arena.hear(0.05)
        if self.chance.random() < 0.3:
            self.arena.kill(number)
            self.look()
            return
        self.arena.signal(number, signal.SIGUSR1)
        self.arena.hear(0.02)  # what was refused until then
        self.arena.state[number].pop("ack", None)
        self.arena.until(number, "ack")
        self._end(number)

    def slow(self, *, seconds: float = 0.02, events: int = 60) -> None:
        """Let every write take longer than what comes in: the queue stays bounded, callers wait, nothing is lost."""
        slow = msgspec.structs.replace(
            self.order, slow=seconds, queue=20, threads=2, offering=6, events=events, batch=1
        )  # fmt: skip
        before = self.arena.counts["full"]
        number = self.arena.order(slow)
        self._ready(number)
        if self.arena.until(number, "ended") != "ended" or self.arena.state[number]["ended"] != "0":
            raise Broken(f"a program could not end in order: {self.arena.state[number]}")
        self.arena.hear(0)
        self.look()
        self.evidence.all_taken()
        if self.arena.counts["full"] == before:
            raise Broken("nobody was ever made to wait")
        deepest = int(self.arena.state[number]["done"])
        if deepest > slow.queue + slow.threads + slow.offering:
            raise Broken(f"{deepest} events waited in a queue for {slow.queue}")


class Cluster:
    """Three programs, one log, one PostgreSQL.

    Args:
        directory: for the journal.
        dsn: of a database with our schema.
        crash: stops the server as a power cut would and starts it again; None where that cannot be done.
    """

    def __init__(self, directory: Path, dsn: str, *, seed: int = 0, crash: Callable[[], None] | None = None) -> None:
        from hauberk.adapters.postgres import PostgresStore  # noqa: PLC0415  # only where there is one

        directory.mkdir(parents=True, exist_ok=True)
        self.chance = random.Random(seed or None)  # noqa: S311  # no secret
        self.evidence = Evidence(directory / "journal.txt")
        self.arena = Arena(self.evidence, directory / "errors.log")
        self.keys = directory / "keys"
        FileKeySource(self.keys).key("root")
        self._order = Order(0, dsn, str(self.keys), threads=3)
        self._crash = crash
        self._open: Callable[[], Store] = lambda: PostgresStore(dsn)
        self._running = [self._start() for _ in range(3)]
        self.events = 0

    def _start(self) -> int:
        number = self.arena.order(self._order)
        self.arena.until(number, "started")
        return number

    def close(self) -> None:
        """End every child."""
        self.arena.__exit__()
        self.evidence.close()

    @contextmanager
    def _reading(self) -> Iterator[Store]:
        store = self._open()
        try:
            yield store
        finally:
            store.close()

    def strike(self) -> None:
        """Do something to one of the three at a random moment, while the others go on."""
        self.arena.hear(self.chance.expovariate(1 / 0.08))
        at = self.chance.randrange(len(self._running))
        one, lot = self._running[at], self.chance.random()
        if self.chance.random() < 0.8:
            self.arena.until(one, "ready", "broken")
        if lot < 0.2:  # it stops, perhaps with the head locked, and comes back to another world
            self.arena.signal(one, signal.SIGSTOP)
            self.arena.hear(self.chance.uniform(0, 0.3))
            self.arena.signal(one, signal.SIGCONT)
        elif lot < 0.35:
            self._cut()
        self._kill(one)
        self._running[at] = self._start()
        with self._reading() as store:
            self.events = self.evidence.look(store, quiet=False)

    def _kill(self, one: int) -> None:
        """Kill one, unless it found no server when it began, which is a reason to end."""
        if self.arena.state[one].get("broken", "").startswith("HBK-703"):
            self.arena.until(one, "ended")
        else:
            self.arena.kill(one)

    def _revive(self) -> None:
        """Start again whoever found no server."""
        for at, one in enumerate(self._running):
            if self.arena.state[one].get("broken", "").startswith("HBK-703"):
                self._running[at] = self._start()

    def _cut(self) -> None:
        """End the server's end of every connection, whatever it is doing."""
        import psycopg  # noqa: PLC0415  # only where there is a database

        with closing(psycopg.connect(self._order.store, autocommit=True)) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hauberk'"
            )

    def crash(self) -> None:
        """Cut the server's power in the middle of everything, and go on."""
        if self._crash is None:
            return
        self.arena.hear(self.chance.uniform(0.05, 0.3))
        self._crash()
        self.arena.hear(0.1)
        self._revive()
        for one in self._running:
            self.arena.state[one].pop("ack", None)
        for one in self._running:
            self.arena.until(one, "ack")
        with self._reading() as store:
            self.events = self.evidence.look(store, quiet=False)

    def finish(self) -> None:
        """End the three in order and verify everything from the beginning."""
        self._revive()
        for one in self._running:
            self.arena.until(one, "ready")
            self.arena.signal(one, signal.SIGTERM)
        for one in self._running:
            self.arena.until(one, "ended")
        self.arena.hear(0)
        with self._reading() as store:
            self.events = self.evidence.everything(store, self.keys)


class Tally(msgspec.Struct):
    """How often each thing was done; what an interrupted run has done already counts."""

    kills: int = 0
    backups: int = 0
    full: int = 0
    slow: int = 0


class Report:
    """What is printed: progress while it runs, a table in the end.

    Args:
        say: takes lines of progress.
    """

    def __init__(self, say: Progress) -> None:
        self._say = say
        self._started = time.monotonic()
        self.lines: list[str] = []

    def progress(self, what: str, done: int, wanted: int, evidence: Evidence) -> None:
        """Tell how far it is."""
        seconds = time.monotonic() - self._started
        self._say(
            f"{what} {done}/{wanted}, {len(evidence.acknowledged):,} acknowledged, {len(evidence.notes):,} checkpoints,"
            f" {seconds:.0f} s"
        )

    def ended(self, name: str, torture: "Torture | Cluster", did: str) -> None:
        """Add the lines of one database."""
        evidence, arena = torture.evidence, torture.arena
        refused = ", ".join(f"{count:,} {code}" for code, count in sorted(arena.refused.items())) or "none"
        self.lines += [
            f"{name}",
            f"  done to it              {did}",
            f"  entries, verified       {torture.events:>10,}",
            f"  acknowledged, lost      {len(evidence.acknowledged):>10,}, 0",
            f"  checkpoints signed      {len(evidence.notes):>10,}, all of one history",
            f"  refused, and told so    {refused}",
        ]


def embedded(directory: Path, kills: int, report: Report, *, seed: int = 0) -> None:
    """Torture a database of this directory until it was killed so often.

    Raises:
        Broken: a promise was broken; the directory is left as it is.
    """
    saved = directory / "tally.json"
    tally = msgspec.json.decode(saved.read_bytes(), type=Tally) if saved.exists() else Tally()
    torture = Torture(directory, seed=seed)
    try:
        torture.look()
        while tally.kills < kills:
            torture.kill()
            tally.kills += 1
            if tally.kills % 25 == 0:
                torture.restore()
                tally.backups += 1
            if tally.kills % 20 == 0:
                torture.fill()
                tally.full += 1
            if tally.kills % 100 == 0:
                torture.slow()
                tally.slow += 1
            torture.evidence.keep()
            saved.write_bytes(msgspec.json.encode(tally))
            if tally.kills % 20 == 0 or tally.kills == kills:
                report.progress("killed", tally.kills, kills, torture.evidence)
        torture.finish()
    finally:
        torture.close()
    did = f"{tally.kills} kills, {tally.backups} old copies refused, {tally.full} full disks, {tally.slow} slow disks"
    report.ended("one program, SQLite", torture, did)


def cluster(directory: Path, strikes: int, report: Report, *, seed: int = 0) -> None:
    """Torture three programs on one PostgreSQL, which is made for the purpose.

    Raises:
        Broken: a promise was broken.
    """
    from tests.chaos.server import server  # noqa: PLC0415  # only where there is one

    crashes = 0
    with server() as (dsn, crash):
        torture = Cluster(directory, dsn, seed=seed, crash=crash)
        try:
            for number in range(1, strikes + 1):
                torture.strike()
                if number % 25 == 0:
                    torture.crash()
                    crashes += 1
                if number % 20 == 0 or number == strikes:
                    report.progress("struck", number, strikes, torture.evidence)
            torture.finish()
        finally:
            torture.close()
    did = f"{strikes} kills, stops and cut connections, {crashes} crashes of the server"
    report.ended("three programs, PostgreSQL", torture, did)


def main() -> int:
    """Torture, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.torture")
    parser.add_argument("--kills", type=int, default=300, help="of the program with SQLite")
    parser.add_argument("--strikes", type=int, default=150, help="at the three with PostgreSQL; 0 for none")
    parser.add_argument("--directory", type=Path, default=ROOT / ".torture", help="kept; a run goes on where it was")
    parser.add_argument("--fresh", action="store_true", help="begin anew")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    if wanted.fresh:
        shutil.rmtree(wanted.directory, ignore_errors=True)
    report = Report(lambda text: print(f"  {text}", file=sys.stderr, flush=True))  # noqa: T201  # a program
    try:
        embedded(wanted.directory / "sqlite", wanted.kills, report, seed=wanted.seed)
        if wanted.strikes:
            shutil.rmtree(wanted.directory / "postgres", ignore_errors=True)  # its server ended with the last run
            cluster(wanted.directory / "postgres", wanted.strikes, report, seed=wanted.seed)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)  # noqa: T201  # a program
        return 130
    except (Broken, Tampered) as error:
        print(f"BROKEN: {error!r} {error}; the evidence is in {wanted.directory}", file=sys.stderr)  # noqa: T201  # a program
        return 1
    print("\n".join(report.lines))  # noqa: T201  # a program
    shutil.rmtree(wanted.directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
