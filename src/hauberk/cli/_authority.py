"""What the commands that talk to the authority share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from hauberk.core.config import Config, load

if TYPE_CHECKING:
    from hauberk.agent.remote import Remote

_F = TypeVar("_F", bound=Callable[..., Any])


def directory_option(command: _F) -> _F:
    """Give a command `--dir`, as the argument `directory`."""
    return click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help="State directory (default: .hauberk, or the configuration's).",
    )(command)


def settings(directory: Path | None) -> Config:
    """Return the configuration, with the state directory of the command line."""
    return load(arguments={"directory": None if directory is None else str(directory)})


def pairs(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Read `KEY=VALUE` options; anything else is wrong usage."""
    found = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.UsageError(f"{text!r} is not KEY=VALUE")
        found.append((key, value))
    return found


def administrator(directory: Path | None) -> "Remote":
    """Return the line to the authority."""
    from hauberk.agent.state import admin  # noqa: PLC0415  # an HTTP client, for commands that talk to the authority

    return admin(Path(settings(directory).directory))


def fetch(directory: Path | None, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  # whatever JSON holds
    """Return the authority's answer as plain data."""
    remote = administrator(directory)
    try:
        return msgspec.json.decode(remote.call(method, path, body))
    finally:
        remote.close()
