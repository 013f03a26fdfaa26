"""The example knows nothing of us; with three variables more it says the same, and its files say nothing."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("eventsourcing")

from eventsourcing.utils import Environment

from hauberk.adapters.sqlite import open_readonly
from hauberk.integrations.eventsourcing import Factory
from hauberk.records.verify import verify_store

ROOT = Path(__file__).parents[2]


def run(**environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "examples.eventsourcing.clinic"],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stderr == ""
    return done.stdout


def settings(directory: Path) -> Mapping[str, str]:
    return {
        "PERSISTENCE_MODULE": "hauberk.integrations.eventsourcing",
        "HAUBERK_EVENTSOURCING_STORE": f"sqlite:{directory / 'clinic.db'}",
        "HAUBERK_EVENTSOURCING_KEYS": f"file:{directory / 'keys'}",
    }


def test_the_example_runs_unchanged_on_our_ledger(tmp_path: Path) -> None:
    ours = settings(tmp_path)
    told = run(**ours)
    assert told == run(PERSISTENCE_MODULE="eventsourcing.popo")
    assert "alice: {'2026-03-03': 'blood test'}" in told
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Patient.Booked" in files
    assert not [word for word in (b"Alice", b"Bob", b"blood", b"vaccination", b"2026-03-0") if word in files]
    factories = [Factory(Environment(name, ours)) for name in ("Clinic", "Calendar")]
    keys = [factory.application_recorder().verifier for factory in factories]
    for factory in factories:
        factory.close()
    with closing(open_readonly(tmp_path / "clinic.db")) as store:
        assert [verify_store(store, key).size for key in keys] == [6, 5]


def test_on_the_librarys_own_store_the_same_words_are_in_the_file(tmp_path: Path) -> None:
    own = {"PERSISTENCE_MODULE": "eventsourcing.sqlite"}
    run(**own, CLINIC_SQLITE_DBNAME=str(tmp_path / "one.db"), CALENDAR_SQLITE_DBNAME=str(tmp_path / "two.db"))
    assert b"blood test" in b"".join(path.read_bytes() for path in tmp_path.iterdir())
