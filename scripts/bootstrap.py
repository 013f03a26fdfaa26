"""Make the project's environment from a bare `python3`: `python3 scripts/bootstrap.py SET`.

SET is a file of `requirements/`: `core`, `test`, `docs` or `bench`. Everything is pinned by hash. A stamp made of the
inputs' digests makes the second run return at once. Needs nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("BOOTSTRAP_VENV", ROOT / ".venv"))
BIN = VENV / "bin"
OLDEST = (3, 11)


def say(text: str) -> None:
    """Tell people what happens; data never goes here."""
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


def stamp_of(wanted: str) -> str:
    """Return the digest of everything an environment is made from."""
    digest = hashlib.sha256(repr((sys.version_info[:3], str(ROOT))).encode())
    for path in (ROOT / "requirements" / f"{wanted}.txt", ROOT / "requirements" / "uv.txt", ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(*command: str | Path) -> None:
    """Run one tool; its own message is the best explanation of a failure."""
    done = subprocess.run([str(part) for part in command], check=False, cwd=ROOT)
    if done.returncode:
        say(f"failed: {' '.join(str(part) for part in command)}")
        raise SystemExit(done.returncode)


def install(wanted: str) -> None:
    """Create the environment if need be and bring it to the pinned state."""
    if not (BIN / "python").exists():
        say(f"creating {VENV.name} with Python {sys.version.split()[0]}")
        venv.create(VENV, with_pip=True)
    if not (BIN / "uv").exists():
        say("installing uv (pinned by hash)")
        run(BIN / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes",
            "-r", ROOT / "requirements" / "uv.txt")  # fmt: skip
    say(f"installing requirements/{wanted}.txt (pinned by hash)")
    uv = (BIN / "uv", "pip", "install", "-q", "--python", BIN / "python")
    run(*uv, "--require-hashes", "-r", ROOT / "requirements" / f"{wanted}.txt")
    run(*uv, "--no-deps", "--no-build-isolation", "-e", ROOT)


def main() -> None:
    """Bootstrap one set."""
    if sys.version_info < OLDEST:
        raise SystemExit("bootstrap: Python 3.11 or newer is needed; this is " + sys.version.split()[0])
    wanted = sys.argv[1] if len(sys.argv) > 1 else "core"
    stamp, mark = stamp_of(wanted), VENV / f".hauberk-{wanted}"
    if mark.exists() and mark.read_text() == stamp:
        return
    started = time.monotonic()
    install(wanted)
    mark.write_text(stamp)
    say(f"ready in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
