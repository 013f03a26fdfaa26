"""The ablation: which control stops an attack, which one is next when that is left out, and when it works at last.

Nothing is written down here. Each attack is tried with everything on; the control that the record says stopped it is
left out; it is tried again; until it works. So every attack of the catalogue is known to bite.
"""

from dataclasses import dataclass
from functools import cache

from tests.attacks import catalogue, control_plane, event_store
from tests.attacks.arena import Stop
from tests.attacks.catalogue import Attack

NOTHING = "nothing"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        attack: its name.
        first: layer and code of what stops it.
        control: that control.
        next: layer and code of what stops it with that control left out, or `nothing`.
        rest: what stops it after that, one control after another.
    """

    attack: str
    first: str
    control: str
    next: str
    rest: tuple[str, ...]


@cache
def attacks() -> dict[str, Attack]:
    """Return all attacks by name."""
    every = (*catalogue.catalogue(), *control_plane.catalogue(), *event_store.catalogue())
    return {attack.name: attack for attack in every}


@cache
def ablate(name: str) -> tuple[Stop, ...]:
    """Return what stops an attack, one control after another left out; after the last one it worked.

    Raises:
        AssertionError: a control that was left out stopped it again, so it was not left out.
    """
    off: frozenset[str] = frozenset()
    stops: list[Stop] = []
    while (stop := attacks()[name].attempt(off)) is not None:
        if stop.control in off:
            raise AssertionError(f"{name}: {stop.control} is off and stopped it")
        stops.append(stop)
        off |= {stop.control}
    return tuple(stops)


def row(name: str) -> Row:
    """Return one line of the table.

    Raises:
        AssertionError: the attack worked with everything on.
    """
    stops = ablate(name)
    if not stops:
        raise AssertionError(f"{name}: works with every control on")
    shorts = [stop.short for stop in stops]
    return Row(name, shorts[0], stops[0].control, shorts[1] if len(stops) > 1 else NOTHING, tuple(shorts[2:]))


def rows() -> list[Row]:
    """Return the whole table."""
    return [row(name) for name in attacks()]


def table() -> str:
    """Return the table as Markdown."""
    lines = ["| attack | stopped by | with that off | with both off | with all three off |", "|---|---|---|---|---|"]
    for name in attacks():
        cells = [f"**{stop.short}** {stop.control}" for stop in ablate(name)] + [NOTHING]
        lines.append(f"| {name} | {' | '.join(cells + [''] * (4 - len(cells)))} |")
    return "\n".join(lines)
