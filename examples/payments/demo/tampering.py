"""Attacks on the ledger itself, each on a copy of its database, found offline from public material alone."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from examples.payments.demo.attack import Result
from examples.payments.demo.proof import fits, row_at
from examples.payments.demo.stage import Stage

EDITED = 5  # position of the entry that is tampered with


def edit(database: sqlite3.Connection) -> None:
    """Change how it went."""
    database.execute(
        'UPDATE entry SET meta = CAST(replace(CAST(meta AS TEXT), \'"outcome":"ok"\', \'"outcome":"no"\') AS BLOB)'
        " WHERE position = ?",
        (EDITED,),
    )


def delete(database: sqlite3.Connection) -> None:
    """Remove one entry and close the gap, as somebody would who knows the schema."""
    database.execute("DELETE FROM entry WHERE position = ?", (EDITED,))
    database.execute("UPDATE entry SET position = position - 1 WHERE position > ?", (EDITED,))


def reorder(database: sqlite3.Connection) -> None:
    """Swap two entries."""
    database.execute("UPDATE entry SET position = -1 WHERE position = ?", (EDITED,))
    database.execute("UPDATE entry SET position = ? WHERE position = ?", (EDITED, EDITED + 1))
    database.execute("UPDATE entry SET position = ? WHERE position = -1", (EDITED + 1,))


def replay(database: sqlite3.Connection) -> None:
    """Put a copy of an old entry in the place of another; the index that forbids two of one version goes."""
    database.execute("DROP INDEX entry_stream")
    database.execute(
        "UPDATE entry SET (stream, type, version, leaf, meta, public) = (SELECT stream, type, version, leaf, meta,"
        " public FROM entry WHERE position = ?) WHERE position = ?",
        (EDITED, EDITED + 1),
    )


def truncate(database: sqlite3.Connection) -> None:
    """Cut the end off."""
    database.execute("DELETE FROM entry WHERE position >= (SELECT MAX(position) - 2 FROM entry)")


TAMPERINGS: dict[str, Callable[[sqlite3.Connection], None]] = {
    "ledger: an entry edited": edit,
    "ledger: an entry deleted": delete,
    "ledger: two entries swapped": reorder,
    "ledger: an entry replayed": replay,
    "ledger: the end cut off": truncate,
}
ROLLBACK = "ledger: rolled back to an older state"


def copy_of(stage: Stage, name: str) -> Path:
    """Return a consistent copy of the live database."""
    path = stage.directory / f"{name}.db"
    source = sqlite3.connect(stage.database)
    target = sqlite3.connect(path)
    with target:
        source.backup(target)
    source.close()
    target.close()
    return path


def verification(stage: Stage, path: Path, *more: str) -> "subprocess.Popen[str]":
    """Start `hauberk ledger verify` on a file."""
    return stage.spawn(
        "ledger", "verify", str(path), "--key", str(stage.state / "log.pub"), "--json", *more, log=path.stem, piped=True
    )


def _judged(name: str, process: "subprocess.Popen[str]", stage: Stage, path: Path) -> Result:
    output, _ = process.communicate(timeout=60)
    report = json.loads(output or "{}")
    position = report.get("position")
    if process.returncode != 1 or report.get("verified") is not False or position is None:
        return Result(name, stopped=False, saw="nothing found")
    proven = _proven_otherwise(stage, path, int(position))
    return Result(name, stopped=True, saw=report["why"], layer="records", code=report["code"], position=position,
                  proven=proven)  # fmt: skip


def _proven_otherwise(stage: Stage, path: Path, position: int) -> bool:
    """The true ledger proves what stands at that position, and what stands there in the copy is not that."""
    true = next((entry for entry in stage.entries(position - 1) if entry["position"] == position), None)
    if true is None or not stage.proves(true):
        return False
    return not fits(row_at(path, stage.facts.ledger_key, position), stage.proof(position).leaf)


def wanted(name: str, only: Sequence[str]) -> bool:
    """Tell whether an attack is to be carried out."""
    return not only or any(text in name for text in only)


def tamper(stage: Stage, only: Sequence[str] = ()) -> list[Result]:
    """Carry out every attack on the ledger, the verifiers side by side, and a rollback to an honest older state.

    Args:
        stage: where.
        only: see `wanted`.
    """
    started = []
    clean = copy_of(stage, "clean")
    checkpoint = stage.directory / "checkpoint"
    known = json.loads(stage.admin.call("GET", "/admin/ledger/checkpoint"))["checkpoint"]
    checkpoint.write_text(known, "utf-8")
    chosen = {name: change for name, change in TAMPERINGS.items() if wanted(name, only)}
    for number, (name, change) in enumerate(chosen.items()):
        path = stage.directory / f"tampered-{number}.db"
        shutil.copy(clean, path)
        database = sqlite3.connect(path)
        with database:
            change(database)
        database.close()
        started.append((name, path, verification(stage, path)))
    if wanted(ROLLBACK, only):
        back = verification(stage, stage.early, "--checkpoint", str(checkpoint))
        started.append((ROLLBACK, stage.early, back))
    return [_judged(name, process, stage, path) for name, path, process in started]


def begin_whole(stage: Stage) -> "subprocess.Popen[str]":
    """Start verifying the untouched ledger with the offline command."""
    return verification(stage, copy_of(stage, "whole"))


def end_whole(process: "subprocess.Popen[str]") -> tuple[bool, int]:
    """Return whether the ledger holds, and its size."""
    output, _ = process.communicate(timeout=60)
    report = json.loads(output or "{}")
    return process.returncode == 0 and report.get("verified") is True, int(report.get("report", {}).get("size", 0))
