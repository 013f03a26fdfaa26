"""What the commands that talk to the authority share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from hauberk.agent.remote import Remote
from hauberk.agent.state import admin
from hauberk.core.config import Config, load

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


def administrator(directory: Path | None) -> Remote:
    """Return the line to the authority."""
    return admin(Path(settings(directory).directory))


def fetch(directory: Path | None, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  # whatever JSON holds
    """Return the authority's answer as plain data."""
    remote = administrator(directory)
    try:
        return msgspec.json.decode(remote.call(method, path, body))
    finally:
        remote.close()
