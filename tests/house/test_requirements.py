"""`docs/requirements.md` and the tree hold together: every row is there once, and what it names as proof exists."""

import ast
import re
from functools import cache
from importlib import util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "requirements.md"
TEXT = PAGE.read_text("utf-8")
SIZES = {"P": 2, "R": 13, "D": 8, "O": 8, "I": 8, "W": 10, "C": 9}
ALL = [f"{group}{number}" for group, size in SIZES.items() for number in range(1, size + 1)]
NOW = [
    "P1", "P2", "R4", "R6", "R8", "R9", "R13", "D3", "D4", "D5", "D6", "D7", "O2", "O3", "O4", "O7", "I3", "I8", "C1",
    "C2", "C3", "C5", "W4", "W5", "W9",
]  # fmt: skip
SECTIONS = {
    found.group(1): found.group(2)
    for found in re.finditer(r"^### ([PRDOIWC]\d+) [^\n]+\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
}
LATER = re.findall(r"^\| ([PRDOIWC]\d+) \| [^|]{15,} \| not yet \|$", TEXT, re.MULTILINE)


def named(row: str, kind: str) -> list[str]:
    """Return what a row names as its modules, how-to pages or tests."""
    (line,) = re.findall(rf"^\* {kind}: ((?:.+\n)(?:  .+\n)*)", SECTIONS[row], re.MULTILINE)
    return re.findall(r"\]\(([^)]+)\)" if kind == "how-to" else r"`([^`]+)`", line)


@cache
def names_in(path: Path) -> set[str]:
    """Return the names of the test functions in a file."""
    tree = ast.parse(path.read_text("utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_row_is_there_exactly_once() -> None:
    titles = re.findall(r"^### ([PRDOIWC]\d+) ", TEXT, re.MULTILINE)
    assert sorted(titles + LATER) == sorted(ALL)


def test_what_is_delivered_is_what_was_to_be_delivered_now() -> None:
    assert sorted(SECTIONS) == sorted(NOW)


@pytest.mark.parametrize("row", NOW)
def test_the_modules_of_a_row_exist(row: str) -> None:
    modules = named(row, "modules")
    assert modules
    assert [name for name in modules if util.find_spec(name) is None] == []


@pytest.mark.parametrize("row", NOW)
def test_the_how_to_pages_of_a_row_exist(row: str) -> None:
    pages = [target.partition("#")[0] for target in named(row, "how-to")]
    assert pages
    assert [page for page in pages if not (PAGE.parent / page).is_file()] == []


@pytest.mark.parametrize("row", NOW)
def test_the_tests_of_a_row_exist(row: str) -> None:
    ids = named(row, "tests")
    assert ids
    for test in ids:
        file, colons, name = test.partition("::")
        path = ROOT / "tests" / file
        assert path.is_file(), f"{row}: {test}"
        assert colons, f"{row}: {test} names no test"
        assert name in names_in(path), f"{row}: {test}"


def test_the_page_names_nothing_outside_the_repository() -> None:
    assert not re.findall(r"\]\((?:\.\./){2,}|\]\(/", TEXT)
