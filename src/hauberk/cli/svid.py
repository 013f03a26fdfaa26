"""`hauberk svid`: certificates that are out there."""

from datetime import UTC, datetime
from pathlib import Path

import click

from hauberk.cli._authority import directory_option, fetch
from hauberk.cli._output import emit, json_option, note
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
        for one in sorted(found, key=lambda one: (one["spiffe_id"], one["issued"]))
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
    for one in done["unknown"]:
        note(f"warning: nobody is registered or has a certificate as {one}; is it spelled right?")


@svid.command("renew")
@directory_option
@json_option
def renew(directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Have every workload make a new key and renew its certificate now."""
    done = fetch(directory, "POST", "/admin/renewal")
    emit(done, as_json=as_json, text=f"feed number {done['number']}")


@svid.command("rotate-root")
@click.argument("step", required=False, type=click.Choice(["prepare", "activate", "finish"]))
@click.option("--force", is_flag=True, help="Take the step although somebody who is not ready is cut off.")
@directory_option
@json_option
def rotate_root(step: str | None, force: bool, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flags
    """Replace the root certificate without a dropped request, or without a STEP show how far that is.

    prepare: everybody learns to trust a new root. activate: it signs from now on and everybody renews. finish: the old
    one is trusted no more. A step is refused while a service is not ready for it.
    """
    if step is None:
        done = fetch(directory, "GET", "/admin/roots")
    else:
        done = fetch(directory, "POST", "/admin/roots", {"step": step, "force": force})
    roots = [f"trusted  {root}" + ("  signs" if root == done["signer"] else "") for root in done["trusted"]]
    emit(done, as_json=as_json, text="\n".join([f"state    {done['step']}", *roots]))
