"""Every check of the project, in the order of their speed: `make test`. Stops at the first that fails."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LINT = {
    "ruff check": ["ruff", "check"],
    "ruff format": ["ruff", "format", "--check", "-q"],
    "import contract": ["lint-imports", "--no-cache"],
    "mypy --strict": ["mypy"],
}
TEST = {"pytest": ["pytest", "-q"]}


def main() -> int:
    """Run all checks, or only the fast ones when told `lint`."""
    steps = LINT if sys.argv[1:] == ["lint"] else LINT | TEST
    for name, command in steps.items():
        print(f"== {name}", flush=True)
        started = time.monotonic()
        done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=False)
        verdict = "FAILED" if done.returncode else "ok"
        print(f"== {name}: {verdict} in {time.monotonic() - started:.1f} s", flush=True)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
