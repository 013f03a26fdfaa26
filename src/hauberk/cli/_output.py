"""How every command talks: data on stdout, people on stderr, `--json` everywhere, four exit codes."""

import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import click
import msgspec

from hauberk.errors import HauberkError

_F = TypeVar("_F", bound=Callable[..., Any])


class Exit(IntEnum):
    """What a command's exit status means."""

    OK = 0
    FINDING = 1  # a finding, a denial, a failed proof
    USAGE = 2
    UNREACHABLE = 3


def json_option(command: _F) -> _F:
    """Give a command the `--json` flag, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def emit(data: object, *, as_json: bool, text: str) -> None:
    """Print the result of a command.

    Args:
        data: what `--json` shows; anything msgspec can encode.
        as_json: whether the user asked for it.
        text: what people see.
    """
    if as_json:
        click.echo(_escaped(msgspec.json.format(msgspec.json.encode(data), indent=2).decode(), keep="\n"))
    elif text:
        click.echo(_escaped(text, keep="\n\t"))


def note(text: str) -> None:
    """Tell people something that is not data."""
    if text:
        click.echo(_escaped(text, keep="\n\t"), err=True)


def printable(value: object) -> str:
    """Return text that is safe within a line: no control or direction characters, and no further line.

    The whole of it, unlike `hauberk.records.view.printable`, which would also load the records for every command.
    """
    return _escaped(str(value))


def _escaped(text: str, keep: str = "") -> str:
    """Return text whose unprintable characters are written as in JSON, which so stays the same document."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def fail(error: HauberkError) -> int:
    """Print `error:` and `hint:` lines and return the exit status that fits.

    A command that knows better than the code what to do puts it into the context as `hint`.
    """
    context = dict(error.context)
    hint = str(context.pop("hint", error.hint))
    detail = ": ".join(part for part in (error.public, error.detail) if part)
    fields = ", ".join(f"{key} {_shown(value)}" for key, value in context.items())
    detail, fields = printable(detail), printable(fields)
    note(f"error: {detail}" + (f" ({fields})" if fields else "") + f" [{error.code}]")
    if hint:
        note(f"hint: {hint}")
    if "--json" in sys.argv[1:]:
        told = {"code": error.code, "message": error.public, "detail": error.detail, "hint": hint}
        emit({"error": told}, as_json=True, text="")
    return Exit.UNREACHABLE if error.code == "HBK-902" else Exit.FINDING


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
