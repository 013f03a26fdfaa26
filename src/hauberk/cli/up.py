"""`hauberk up`: run the authority."""

from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

from hauberk.agent.state import read_facts
from hauberk.authority.serve import up as serve
from hauberk.cli._authority import directory_option
from hauberk.cli._output import emit, json_option, note
from hauberk.core.config import load


@click.command()
@directory_option
@click.option("--trust-domain", default=None, help="SPIFFE trust domain (default: example.org).")
@click.option("--host", default=None, help="Address to listen on (default: 127.0.0.1).")
@click.option("--advertise", default=None, help="Host that services are told (default: --host).")
@click.option("--port", type=int, default=None, help="TCP port, 0 for a free one (default: 8440).")
@json_option
def up(  # noqa: PLR0917  # click passes one argument per option
    directory: Path | None,
    trust_domain: str | None,
    host: str | None,
    advertise: str | None,
    port: int | None,
    as_json: bool,  # noqa: FBT001  # click's flag
) -> None:
    """Run the authority of a trust domain until Ctrl-C. The first start makes its keys, later ones resume."""
    config = load(
        arguments={
            "directory": None if directory is None else str(directory),
            "trust_domain": trust_domain,
            "authority.host": host,
            "authority.advertise": advertise,
            "authority.port": port,
        }
    )

    if config.origins.get("trust_domain") is None and (Path(config.directory) / "authority.json").exists():
        known = read_facts(Path(config.directory)).trust_domain  # of the first start; nothing else said otherwise
        config = msgspec.structs.replace(config, trust_domain=known)

    def ready(facts: Mapping[str, object]) -> None:
        text = "\n".join(f"{name.replace('_', ' '):<16} {value}" for name, value in facts.items() if value)
        emit(facts, as_json=as_json, text=text)
        note("ready; Ctrl-C stops")

    serve(Path(config.directory), config, ready)
    note("drained and closed")
