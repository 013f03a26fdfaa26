"""The page of figures says of each where it comes from, and a run changes only what it measured."""

import re
from pathlib import Path

from bench.__main__ import INTRO, NAMES, page, section
from bench.harness import Row

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
COMMAND = "python -m bench policy"
ROWS = [
    Row("policy.held", 0.5, "us", "<= 1", holds=True),
    Row("policy.missed", 3.0, "us", "<= 1", holds=False),
    Row("policy.aside", 9.0, "us"),
]


def sections(text: str) -> dict[str, str]:
    return {part.split("\n", 1)[0]: part for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}


def test_a_run_replaces_the_sections_it_measured_and_leaves_date_and_figures_of_the_others() -> None:
    old = PAGE.read_text("utf-8")
    new = page(old, {"policy": section("policy", ROWS, COMMAND)})
    before, after = sections(old), sections(new)
    assert list(after) == list(before)
    assert [name for name in before if after[name].rstrip() != before[name].rstrip()] == ["policy"]
    assert f"by `{COMMAND}` on" in after["policy"]
    assert page(new, {}) == new


def test_a_bar_that_does_not_hold_is_shown_and_what_has_neither_bar_nor_peer_is_not() -> None:
    text = section("policy", ROWS, COMMAND)
    assert "| policy.held | 0.5 | us | <= 1 | yes |" in text
    assert "| policy.missed | 3 | us | <= 1 | **no** |" in text
    assert "policy.aside" not in text


def test_every_section_of_the_page_says_when_it_was_measured_and_by_which_command() -> None:
    text = PAGE.read_text("utf-8")
    assert INTRO in text
    assert set(sections(text)) <= set(NAMES)
    for name, part in sections(text).items():
        assert re.search(r"^Measured \d{4}-\d\d-\d\d.* by `(make bench|python -m bench .+)`", part, re.MULTILINE), name
