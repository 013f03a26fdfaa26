"""The error tree: stable codes, constant words for the public, and everything private kept for operators."""

import ast
import pickle
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk import errors
from hauberk.errors import REGISTRY, Conflict, Denied, HauberkError, OutcomeUnknown, Tampered

SOURCES = sorted((Path(__file__).parents[2] / "src").rglob("*.py"))
FAMILIES = {"Transport": "1", "Identity": "2", "Policy": "3", "Edge": "4", "Records": "7", "Config": "9"}
CODE = re.compile(r"HBK-\d{3}\Z")
TREE = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HauberkError)),
    key=lambda kind: kind.__name__,
)


def family(kind: type[HauberkError]) -> str | None:
    """Return the digit of the family that `kind` is of, None for the root."""
    names = [base.__name__.removesuffix("Error") for base in kind.__mro__]
    return next((FAMILIES[name] for name in names if name in FAMILIES), None)


def test_each_code_is_written_once_in_the_registry_and_in_order() -> None:
    tree = ast.parse(Path(errors.__file__).read_text("utf-8"))
    tables = [node.value for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)]
    codes = [ast.literal_eval(key) for key in tables[0].keys if key]
    assert [code for code, count in Counter(codes).items() if count > 1] == []
    assert codes == sorted(codes) == list(REGISTRY)
    assert all(CODE.match(code) and code[4] in FAMILIES.values() for code in codes)


def test_each_code_has_public_words_of_its_own_and_a_status_of_an_error() -> None:
    assert len({spec.public for spec in REGISTRY.values()}) == len(REGISTRY)
    for spec in REGISTRY.values():
        assert spec.public
        assert not re.search(r"[{}%\n]|\.$", spec.public)
        assert 400 <= spec.status <= 599


def test_every_code_in_the_source_is_registered_and_raised_in_its_own_family() -> None:
    unknown, foreign = [], []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.match(node.value):
                unknown += [(path.name, node.lineno)] if node.value not in REGISTRY else []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                kind, first = getattr(errors, node.func.id, None), node.args[0]
                code = first.value if isinstance(first, ast.Constant) else None
                if kind in TREE and isinstance(code, str) and CODE.match(code) and family(kind):
                    foreign += [(path.name, node.lineno, code)] if code[4] != family(kind) else []
    assert unknown == []
    assert foreign == []


def test_no_code_is_registered_for_nothing() -> None:
    text = "".join(path.read_text("utf-8") for path in SOURCES if path.name != "errors.py")
    numbers = (300, 701, 702, 710, 714, 715, 716, 717, 718, 719, 720, 722)  # the defaults of their own classes
    specials = {f"HBK-{number}" for number in numbers}
    assert [code for code in REGISTRY if code not in specials and f'"{code}"' not in text] == []


def test_the_docstring_shows_the_tree_as_it_is() -> None:
    drawn = set(re.findall(r"\b[A-Z]\w+(?=\s+HBK-)", errors.__doc__ or "")) | {"HauberkError"}
    assert drawn == {kind.__name__ for kind in TREE}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(REGISTRY)), st.text(min_size=3), st.text(min_size=3))
def test_nothing_private_is_in_str_repr_args_or_public(code: str, detail: str, value: str) -> None:
    plain = HauberkError(code)
    error = HauberkError(code, detail, field=value)
    assert (str(error), repr(error), error.public, error.args) == (str(plain), repr(plain), plain.public, (code,))
    assert (error.public, error.status, error.hint) == tuple(REGISTRY[code])


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text())
def test_the_private_story_is_one_printable_line_whatever_a_caller_sent(detail: str, value: str) -> None:
    story = HauberkError("HBK-401", detail, field=value).diagnostics()
    assert story.isprintable()
    if detail.isprintable() and value.isprintable():
        assert story.startswith("HBK-401 the request is malformed")
        assert detail in story
        assert story.endswith(f"field={value}")


def test_a_line_break_from_a_caller_does_not_forge_a_second_log_line() -> None:
    story = HauberkError("HBK-401", path="/x\nHBK-000 all is well\x1b[2J\u2028").diagnostics()
    assert story == "HBK-401 the request is malformed path=/x\\nHBK-000 all is well\\x1b[2J\\u2028"


def test_the_special_errors_carry_their_own_codes_and_survive_pickling() -> None:
    made = [
        (Conflict("moved", found=3), "HBK-701"),
        (OutcomeUnknown("lost"), "HBK-702"),
        (Tampered("edited", position=7), "HBK-710"),
        (Tampered("shorter", code="HBK-713", position=0), "HBK-713"),
        (Denied(), "HBK-300"),
        (Denied("HBK-102", "plaintext", rule=None), "HBK-102"),
    ]
    for error, code in made:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
        assert (type(again), again.code, again.detail, again.context) == (
            type(error), code, error.detail, error.context,
        )  # fmt: skip


def test_a_refusal_is_caught_by_its_family_and_by_the_root() -> None:
    for kind in TREE:
        assert issubclass(kind, HauberkError)
        assert not issubclass(HauberkError, kind) or kind is HauberkError
    with pytest.raises(errors.PolicyError):
        raise Denied
