"""Real processes: `hauberk up`, `hauberk run`, and whatever a user types beside them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from hauberk.agent.state import admin

PATIENCE = 30.0
ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without anything of another mesh."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HAUBERK_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def hauberk(*arguments: object, cwd: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "hauberk", *map(str, arguments)],
        cwd=cwd, env=environment(**more), capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip


def ask(cwd: Path, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  # JSON
    """Ask the authority directly: what a command would, without a process of its own."""
    line = admin(cwd / ".hauberk")
    try:
        return json.loads(line.call(method, path, body))
    finally:
        line.close()


def data(*arguments: object, cwd: Path) -> Any:  # noqa: ANN401  # JSON
    """Run one command with `--json` and return what it says."""
    done = hauberk(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Up:
    """`hauberk up` in a directory; stopped with Ctrl-C at the end."""

    def __init__(self, cwd: Path, *arguments: str) -> None:
        self.cwd = cwd
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hauberk", "up", "--json", *(arguments or ("--port", "0"))],
            cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.facts: dict[str, str] = {}

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        lines = ""
        while not lines.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, self.finish()
            lines += line
        self.facts = json.loads(lines)
        return self

    def finish(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send a signal; return exit status and what people were told."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, told = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, told

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def wait_for(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Poll with a deadline."""
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, "it never came to pass"
        time.sleep(0.01)
