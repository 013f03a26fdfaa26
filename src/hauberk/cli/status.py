"""`hauberk status`: what the authority has in force."""

from pathlib import Path

import click

from hauberk.cli._authority import directory_option, fetch
from hauberk.cli._output import emit, json_option


@click.command()
@directory_option
@json_option
def status(directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Show what the authority has in force."""
    found = fetch(directory, "GET", "/admin/status")
    ledger = found["ledger"]
    lines = [
        f"trust domain   {found['trust_domain']}",
        f"root           {found['root']} ({found['rotation']})",
        f"entries        {found['entries']}",
        f"feed           number {found['feed']}",
        f"policies       {found['policy']}",
        f"revoked        {found['revoked']}",
        f"ledger         {ledger['size']} entries in {ledger['origin']}",
        *(
            f"service        {one['spiffe_id']} has number {one['number']}, heard {one['ago']} s ago"
            for one in found["services"]
        ),
        f"insecure       {', '.join(found['insecure']) or 'nothing'}",
    ]
    emit(found, as_json=as_json, text="\n".join(lines))
