"""Carry out the ablation and write its table into `docs/threat-model.md`.

.venv/bin/python scripts/threat_model.py

Only what is between the two markers is replaced. `tests/attacks/test_threat_model.py` fails when the page and the code
differ, and this script makes them agree again; look at the difference before you commit it.
"""

import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "threat-model.md"
BEGIN, END = "<!-- ablation: begin -->\n", "<!-- ablation: end -->\n"


def replaced(page: str, table: str) -> str:
    """Return the page with the table between its markers.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError("the page does not have its two markers")
    return f"{before}{begin}\n{table}\n\n{end}{after}"


def main() -> int:
    """Write the page."""
    sys.path.insert(0, str(ROOT))
    logging.disable(logging.CRITICAL)  # the attacks make servers complain
    from tests.attacks.ablation import table  # noqa: PLC0415  # needs the path above

    page = PAGE.read_text("utf-8")
    new = replaced(page, table())
    PAGE.write_text(new, "utf-8")
    print("docs/threat-model.md: " + ("unchanged" if new == page else "written"), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
