"""Real processes that can be killed at any moment: an authority, services that record, programs with a ledger."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from hauberk.agent.remote import Remote
from hauberk.agent.state import Facts, admin, read_facts
from hauberk.core.wire import EntryForm, TokenForm, TokenReply
from hauberk.errors import HauberkError

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds until something that should happen has not
ENTRY = "payment-service"


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Poll, with a deadline, for what no event tells."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """A process whose lines are read as they come."""

    def __init__(self, command: list[str], log: Path, **environ: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HAUBERK_")}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with log.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=log.parent,
                env={**kept, "PYTHONPATH": path, **environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._log = log
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):  # a line cut off by a kill says nothing
                self._lines.put(line.strip())
        self._lines.put(None)

    def line(self) -> str:
        """Return the next line."""
        found = self._lines.get(timeout=PATIENCE)
        assert found is not None, f"ended early: {self._log.read_text()[-2000:]}"
        return found

    def until(self, word: str) -> list[str]:
        """Return the lines before `word`."""
        found: list[str] = []
        while (line := self.line()) != word:
            found.append(line)
        return found

    def kill(self) -> list[str]:
        """Kill it, and return the rest of what it had said."""
        self.process.kill()
        return self.rest()

    def stop(self) -> list[str]:
        """Ask it to end, and return the rest of what it had said."""
        self.process.send_signal(signal.SIGTERM)
        return self.rest()

    def rest(self) -> list[str]:
        """Wait for its end and return what it had said and nobody has read."""
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        found: list[str] = []
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            found.append(line)
        self._lines.put(None)
        return found


class Mesh:
    """An authority on one state directory and one port, started and killed as often as one likes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.port = free_port()
        self.kernel = sys.platform == "linux" and hasattr(os, "pidfd_open")
        self.facts: Facts
        self._admin: Remote | None = None
        self._running: list[Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._admin is not None:
            self._admin.close()
        for program in self._running:
            if program.process.poll() is None:
                program.kill()

    def program(self, command: list[str], log: str, environ: Mapping[str, str] | None = None) -> Program:
        made = Program(command, self.directory / f"{log}.log", **(environ or {}))
        self._running.append(made)
        return made

    def authority(self) -> Program:
        """Start the authority and wait until it answers its administrator."""
        command = ["-m", "hauberk", "up", "--dir", str(self.state), "--port", str(self.port), "--json"]
        started = self.program(command, "authority")
        started.line()
        self.facts = read_facts(self.state)
        if self._admin is not None:
            self._admin.close()
        self._admin = admin(self.state)
        wait_for(self._answers, "the authority")
        return started

    def _answers(self) -> bool:
        assert self._admin is not None
        try:
            self._admin.call("GET", "/admin/status")
        except HauberkError:
            return False
        return True

    def register(self) -> None:
        assert self._admin is not None
        selectors = (f"unix:uid:{os.getuid()}",) if self.kernel else ()
        self._admin.call("POST", "/admin/entries", EntryForm(ENTRY, "production", ENTRY, selectors, {"app": ENTRY}))

    def service(self) -> Program:
        """Start a service that records, with the identity of `ENTRY`, and wait until it is ready."""
        program = ["-m", "tests.chaos.recorder"]
        if self.kernel:
            run = ["-m", "hauberk", "run", "--dir", str(self.state), "--entry", ENTRY, "--", sys.executable]
            started = self.program([*run, *program], "service")
        else:
            assert self._admin is not None
            token = self._admin.ask("POST", "/admin/tokens", TokenReply, TokenForm(ENTRY, None)).token
            environ = {"HAUBERK_JOIN_TOKEN": token, "HAUBERK_DIRECTORY": str(self.state)}
            started = self.program(program, "service", environ)
        assert started.until("ready") == []
        return started

    def verify(self) -> "subprocess.CompletedProcess[str]":
        """Run `hauberk ledger verify` with the public key."""
        command = ["-m", "hauberk", "ledger", "verify", self.facts.ledger, "--key", self.facts.ledger_key, "--json"]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
