"""`hauberk config`: every setting, its value and where it comes from."""

from pathlib import Path

import click

from hauberk.cli._output import emit, json_option
from hauberk.core.config import load


@click.command()
@click.option("--file", "path", type=click.Path(path_type=Path), default=None, help="Default: hauberk.toml.")
@json_option
def config(path: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Show every setting, its value and where it comes from."""
    items = list(load(path).items())
    data = [{"key": key, "value": value, "origin": origin} for key, value, origin in items]
    emit(data, as_json=as_json, text="\n".join(f"{key:<36} {value!r:<32} {origin}" for key, value, origin in items))
