"""`hauberk entry`: who may have which identity."""

from pathlib import Path
from urllib.parse import quote

import click

from hauberk.cli._authority import directory_option, fetch, pairs
from hauberk.cli._output import emit, json_option
from hauberk.core.wire import EntryForm, TokenForm


@click.group()
def entry() -> None:
    """Register workloads and make join tokens."""


@entry.command("create")
@click.argument("name")
@click.option("--namespace", default="default", show_default=True, help="Namespace of the identity.")
@click.option("--account", default=None, help="Service account (default: NAME).")
@click.option("--selector", "selectors", multiple=True, help="unix:uid:N, unix:gid:N, unix:cgroup:PATH, systemd:unit:X")
@click.option("--label", "labels", multiple=True, help="KEY=VALUE, for policy selectors (default: app=NAME).")
@click.option("--ttl", type=float, default=None, help="Seconds an SVID lives (default: 3600).")
@directory_option
@json_option
def create(  # noqa: PLR0917  # click passes one argument per option
    name: str,
    namespace: str,
    account: str | None,
    selectors: tuple[str, ...],
    labels: tuple[str, ...],
    ttl: float | None,
    directory: Path | None,
    as_json: bool,  # noqa: FBT001  # click's flag
) -> None:
    """Register a workload. A process must have every SELECTOR to get the identity; without any, a token is needed."""
    form = EntryForm(name, namespace, account or name, selectors, dict(pairs(labels)) or {"app": name}, ttl)
    made = fetch(directory, "POST", "/admin/entries", form)
    emit(made, as_json=as_json, text=_line(made))


@entry.command("list")
@directory_option
@json_option
def listed(directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """List the registered workloads."""
    found = fetch(directory, "GET", "/admin/entries")
    emit(found, as_json=as_json, text="\n".join(_line(one) for one in found))


@entry.command("delete")
@click.argument("name")
@directory_option
@json_option
def delete(name: str, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Unregister a workload: it gets no further certificate. Revoke it to end the present one."""
    done = fetch(directory, "DELETE", f"/admin/entries/{quote(name, safe='')}")
    emit(done, as_json=as_json, text=f"removed {done['removed']}")


@entry.command("token")
@click.argument("name")
@click.option("--ttl", type=float, default=None, help="Seconds it is good for (default: 600).")
@directory_option
@json_option
def token(name: str, ttl: float | None, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Print a join token: good once, for one workload. It is a secret; pass it in HAUBERK_JOIN_TOKEN."""
    made = fetch(directory, "POST", "/admin/tokens", TokenForm(name, ttl))
    emit(made, as_json=as_json, text=made["token"])


def _line(found: dict[str, object]) -> str:
    selectors = found["selectors"]
    shown = " ".join(selectors) if isinstance(selectors, list) and selectors else "(join token only)"
    return f"{found['name']:<20} {found['spiffe_id']}  {shown}"
