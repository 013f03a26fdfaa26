"""A first start killed at any of its steps is taken up by the next one; nothing has to be cleared away by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

from hauberk.adapters.state import StateDirectory
from hauberk.authority.authority import Authority
from hauberk.core.config import load
from hauberk.errors import IdentityError
from tests.chaos.stage import PATIENCE, ROOT

# Counts what changes the disk and kills itself before the step it was told.
KILLED_AT = """
import os, signal, sys
from pathlib import Path
STEPS = {"os.mkdir", "os.link", "os.rename", "os.remove", "os.chmod", "sqlite3.connect"}
left = int(sys.argv[2])
def hook(name, arguments):
    global left
    opened = name == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
    if armed and (opened or name in STEPS):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
armed = False
sys.addaudithook(hook)
from hauberk.authority.authority import Authority
from hauberk.core.config import load
config = load(environ={}, arguments={"directory": sys.argv[1]})
armed = True
authority = Authority(Path(sys.argv[1]), config)
authority.close()
print("complete")
"""


def start(path: Path) -> str:
    """Start an authority here and return the root it stands for."""
    authority = Authority(path, load(environ={}, arguments={"directory": str(path)}))
    try:
        return str(authority.status()["root"])
    finally:
        authority.close()


@pytest.mark.parametrize("step", [1, 5, 8, 12, 16, 20, 26])
def test_a_first_start_killed_at_any_step_is_taken_up(tmp_path: Path, step: int) -> None:
    path = tmp_path / "state"
    child = subprocess.run(
        [sys.executable, "-c", KILLED_AT, str(path), str(step)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert child.returncode == -9, child.stderr[-500:]
    before = (path / "root.pem").read_bytes() if (path / "root.pem").exists() else b""
    root = start(path)
    assert start(path) == root
    assert before in {b"", (path / "root.pem").read_bytes()}


def test_a_complete_start_that_lost_a_secret_is_never_a_first_one(tmp_path: Path) -> None:
    path = tmp_path / "state"
    start(path)
    (path / "private" / "complete").unlink()
    (path / "private" / "ca.sealed").unlink()
    with pytest.raises(IdentityError) as found:
        start(path)
    assert found.value.code == "HBK-210"
    StateDirectory(path, "example.org").close()
