"""`make clean` removes the environment and what was built, and nothing else."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("named", ["", "elsewhere/my venv"])
def test_clean_removes_the_environment_and_what_was_built(tmp_path: Path, named: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    made = [tmp_path / (named or ".venv"), tmp_path / "docs" / "_build", tmp_path / "dist"]
    kept = [tmp_path / "docs" / "page.md", tmp_path / "src" / "a.py", tmp_path / "elsewhere" / "b"]
    for path in (*(it / "bin" / "x" for it in made), *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "BOOTSTRAP"))}
    if named:
        environment["BOOTSTRAP_VENV"] = named
    subprocess.run(["make", "clean"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert not any(path.exists() for path in made)
    assert all(path.exists() for path in kept)
