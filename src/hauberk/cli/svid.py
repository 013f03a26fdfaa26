"""`hauberk svid`: certificates that are out there."""

from datetime import UTC, datetime
from pathlib import Path

import click

from hauberk.cli._authority import directory_option, fetch
from hauberk.cli._output import emit, json_option
from hauberk.core.wire import RevokeForm


@click.group()
def svid() -> None:
    """List, renew and revoke identities."""


@svid.command("list")
@directory_option
@json_option
def listed(directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """List the certificates that have not expired."""
    found = fetch(directory, "GET", "/admin/svids")
    lines = [
        f"{one['spiffe_id']}  until {datetime.fromtimestamp(one['not_after'], UTC):%Y-%m-%d %H:%M:%S}Z  {one['serial']}"
        for one in found
    ]
    emit(found, as_json=as_json, text="\n".join(lines))


@svid.command("revoke")
@click.argument("names", nargs=-1, required=True)
@click.option("--restore", is_flag=True, help="Take revocations back.")
@directory_option
@json_option
def revoke(names: tuple[str, ...], restore: bool, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flags
    """Revoke SPIFFE ids or serials, on connections already open too."""
    ids = tuple(name for name in names if name.startswith("spiffe:"))
    form = RevokeForm(ids, tuple(name for name in names if name not in ids), restore)
    done = fetch(directory, "POST", "/admin/revocations", form)
    emit(done, as_json=as_json, text=f"feed number {done['number']}")


@svid.command("renew")
@directory_option
@json_option
def renew(directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Have every workload make a new key and renew its certificate now."""
    done = fetch(directory, "POST", "/admin/renewal")
    emit(done, as_json=as_json, text=f"feed number {done['number']}")
