"""What importing costs, beside a bare interpreter."""

import os
import subprocess
import sys
import tempfile
import time

from bench.harness import Progress, Row, at_most, interleave

ROUNDS = 15
_TIMED = "import time; a = time.perf_counter(); {}; print(time.perf_counter() - a)"


def _environment(cache: str) -> dict[str, str]:
    """As on a user's machine: byte code is cached."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": cache}


def run(progress: Progress) -> list[Row]:
    """Measure the facade and `hauberk --help`."""
    with tempfile.TemporaryDirectory() as cache:
        return _measure(progress, _environment(cache))


def _measure(progress: Progress, environ: dict[str, str]) -> list[Row]:
    def _start(*arguments: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environ)
        return time.perf_counter() - started

    def _inside(statement: str) -> float:
        command = [sys.executable, "-c", _TIMED.format(statement)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout)

    progress("starting interpreters")
    _start("-m", "hauberk", "--help")
    found = interleave(
        {
            "bare": lambda: _start("-c", "pass"),
            "help": lambda: _start("-m", "hauberk", "--help"),
            "facade": lambda: _inside("import hauberk"),
        },
        ROUNDS,
    )
    modules = "import sys; a = set(sys.modules); import hauberk; print(len(set(sys.modules) - a))"
    done = subprocess.run([sys.executable, "-c", modules], check=True, capture_output=True, text=True)
    facade, ratio = found["facade"], found["help"].low / found["bare"].low
    return [
        at_most("imports.facade", facade.median * 1000, 1.0, "ms", facade.note("s")),
        at_most("imports.modules", int(done.stdout), 3, "modules"),
        at_most("imports.help", ratio, 3.0, "x bare", f"median {found['help'].median / found['bare'].median:.2f}"),
        Row("imports.bare", found["bare"].median * 1000, "ms"),
    ]
