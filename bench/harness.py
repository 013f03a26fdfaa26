"""Measuring side by side. Every round runs each case once, in turn, so that noise hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import msgspec

Progress = Callable[[str], None]


class Row(msgspec.Struct, frozen=True):
    """One line of a report.

    Args:
        id: such as `policy.decide.10000`.
        value: measured.
        unit: of `value`; `x` for ratios.
        bar: what it has to be, such as `<= 2`; None for a row that is only shown.
        holds: whether it is; None without a bar.
        note: spread, versions, conditions.
    """

    id: str
    value: float
    unit: str
    bar: str | None = None
    holds: bool | None = None
    note: str = ""


class Spread(msgspec.Struct, frozen=True):
    """Median, lowest and highest of the rounds, and what each round gave, in order."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...]

    def over(self, other: "Spread") -> "Spread":
        """Return the spread of the ratios, round by round: what slowed a round down slowed both down."""
        return spread([mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True)])

    def note(self, unit: str = "") -> str:
        """Return the range in words."""
        return f"{self.low:.3g} to {self.high:.3g} {unit}".rstrip()


def interleave(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Spread]:
    """Run every case once per round and return the spread of what each returned."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            found[name].append(case())
    return {name: spread(values) for name, values in found.items()}


def spread(values: list[float]) -> Spread:
    """Return the spread of some values."""
    return Spread(statistics.median(values), min(values), max(values), tuple(values))


def timed(run: Callable[[], object], count: int) -> float:
    """Return seconds per call of `run`, which does `count` things at once."""
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) / count


def at_most(name: str, value: float, bar: float, unit: str, note: str = "") -> Row:
    """Return a row whose value must not exceed its bar."""
    return Row(name, value, unit, f"<= {bar:g}", value <= bar, note)


def at_least(name: str, value: float, bar: float, unit: str = "x", note: str = "") -> Row:
    """Return a row whose value must reach its bar."""
    return Row(name, value, unit, f">= {bar:g}", value >= bar, note)


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
