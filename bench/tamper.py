"""Tampering: the seven attacks that take no key, on our ledger and on others', and the whole matrix of ours.

The attacks on the ledger itself are those of `tests.attacks.tamper`, which its tests run too; `bench.tamper_peers` runs
the seven on other packages, and on an unchanged application of one of them that keeps its events with us.
"""

from collections.abc import Mapping

from bench import tamper_peers
from bench.harness import Progress, Row
from bench.tampering import rows, text
from tests.attacks import tamper as ours


def run(progress: Progress) -> list[Row]:
    """Attack everybody."""
    progress("attacking our ledger")
    matrix = ours.table()
    progress("attacking the others")
    found: dict[str, Mapping[str, str]] = {"hauberk": ours.outcomes(), **tamper_peers.table()}
    progress("\n" + ours.text(matrix))
    progress("\n" + text(found))
    caught = [name for name, cells in matrix.items() if ours.found_by(cells)]
    whole = Row(
        "tamper.matrix", len(caught), f"x of {len(matrix)}", f">= {len(matrix)}", len(caught) == len(matrix),
        "attacks on the ledger found offline, with the anchors the table names",
    )  # fmt: skip
    return [whole, *rows(found)]
