"""Seven attacks on a store by somebody who can write its files and holds no key; what each package makes of them.

What needs no key can be recomputed, so an unkeyed hash chain is attacked twice: with the one change alone, and with the
chain computed anew behind it. Only what is noticed both times counts as caught.
"""

import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from bench.harness import Row

ATTACKS = {
    "edit": "edit a field",
    "paste": "paste an event of another stream over one",
    "reorder": "swap two events of a stream",
    "replay": "append a copy of an earlier event",
    "delete": "delete an event in the middle",
    "truncate": "delete the last events",
    "replace": "replace a stream by another one",
}
DEPOSITS = {"alice": (3, 4, 5, 4), "bob": (1_000, 2_000, 3_000, 4_000)}


class Outcome(StrEnum):
    """What became of one attack."""

    CAUGHT = "caught"
    UNTIL_RECOMPUTED = "until recomputed"
    MISSED = "missed"


class Peer(Protocol):
    """One package with alice's and bob's events in it."""

    def __init__(self, directory: Path) -> None: ...

    def attack(self, name: str) -> None:
        """Carry out one of `ATTACKS`."""

    def recompute(self) -> bool:
        """Compute anew whatever takes no key; False when there is nothing such."""

    def noticed(self) -> bool:
        """Tell whether the package's own checks, all of them, find anything wrong."""


def outcome(peer: type[Peer], attack: str) -> Outcome:
    """Carry out one attack on a fresh store of a peer.

    Raises:
        AssertionError: the peer complains about a store nobody touched, or about one whose chain was only recomputed.
    """
    with tempfile.TemporaryDirectory() as name:
        for number, recomputed in enumerate((False, True)):
            directory = Path(name) / str(number)
            directory.mkdir()
            assert not _fresh(peer, directory / "untouched").noticed()
            victim = _fresh(peer, directory / "attacked")
            victim.attack(attack)
            if recomputed and not victim.recompute():
                return Outcome.CAUGHT
            if not victim.noticed():
                return Outcome.UNTIL_RECOMPUTED if recomputed else Outcome.MISSED
    return Outcome.CAUGHT


def _fresh(peer: type[Peer], directory: Path) -> Peer:
    directory.mkdir()
    return peer(directory)


def text(found: Mapping[str, Mapping[str, str]]) -> str:
    """Return a table to read: an attack per line, a column for each who was attacked."""
    width = max(map(len, ATTACKS.values())) + 2
    widths = {name: max(len(name), len(Outcome.UNTIL_RECOMPUTED)) + 2 for name in found}
    lines = [" " * width + "".join(name.ljust(widths[name]) for name in found)]
    for attack, title in ATTACKS.items():
        lines.append(
            title.ljust(width)
            + "".join(str(outcomes.get(attack, "")).ljust(widths[name]) for name, outcomes in found.items())
        )
    return "\n".join(line.rstrip() for line in lines)


def rows(found: Mapping[str, Mapping[str, str]]) -> list[Row]:
    """Return how many attacks each noticed."""
    told = []
    for name, outcomes in found.items():
        caught = [attack for attack, one in outcomes.items() if one == Outcome.CAUGHT]
        until = [attack for attack, one in outcomes.items() if one == Outcome.UNTIL_RECOMPUTED]
        note = f"caught: {', '.join(caught) or 'none'}"
        if until:
            note += f"; only until its unkeyed hashes are recomputed: {', '.join(until)}"
        told.append(Row(f"tamper.{name}", len(caught), f"x of {len(outcomes)}", note=note))
    return told
