"""`python -m bench NAME [--json]`, or `python -m bench --all --write FILE`."""

import argparse
import datetime as dt
import platform
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
PEERS = (
    "casbin", "cedarpy", "cryptography", "eventsourcing", "httptools", "immutable-logging", "merkle-audit", "msgspec",
    "starlette", "umadb", "uvicorn", "uvloop",
)  # fmt: skip


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


def page(reports: dict[str, list[Row]]) -> str:
    """Return `docs/benchmarks.md`: ratios and bars, no absolute claims beyond what the bars name."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PEERS if _installed(name))
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, two shared cores"
    intro = (
        f"Measured {dt.datetime.now(dt.UTC):%Y-%m-%d} by `make bench` on {machine}; {versions}. Every ratio comes from"
        " one run in which we and the peer took turns. A bar that does not hold is shown as such."
    )
    text = ["# Benchmarks", "", intro]
    for name, rows in reports.items():
        text += ["", f"## {name}", "", "| row | value | unit | bar | holds | note |", "|---|---|---|---|---|---|"]
        for row in (row for row in rows if row.bar or row.unit.startswith("x")):
            holds = "" if row.holds is None else ("yes" if row.holds else "**no**")
            text.append(f"| {row.id} | {row.value:.4g} | {row.unit} | {row.bar or ''} | {holds} | {row.note} |")
    return "\n".join(text) + "\n"


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
        wanted.write.write_text(page(reports), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
