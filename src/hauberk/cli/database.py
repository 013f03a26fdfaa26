"""`hauberk database`: tables, roles and posture of a PostgreSQL database."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from hauberk.adapters.engine import Database
from hauberk.cli._output import Exit, emit, json_option, note
from hauberk.core.address import StoreAddress
from hauberk.core.config import load
from hauberk.core.finding import Finding, Severity
from hauberk.errors import REGISTRY

_SCHEMA, _OTHER_RELEASE = "schema", "HBK-724"  # rule of a finding, and the code of what it is about
_F = TypeVar("_F", bound=Callable[..., Any])


def _dsn_option(command: _F) -> _F:
    """Give a command `--dsn`, as the argument `dsn`."""
    return click.option(
        "--dsn",
        default=None,
        help="postgresql://..., or env:NAME or file:PATH, which keep a password out of the list of processes"
        " (default: the configuration's store).",
    )(command)


def _database(dsn: str | None) -> Database:
    config = load()
    try:
        return Database(StoreAddress(dsn) if dsn else config.store, config.database)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _line(one: Finding) -> str:
    return f"{one.severity}: {one.message}" + (f" [{_OTHER_RELEASE}]" if one.rule == _SCHEMA else "")


@click.group()
def database() -> None:
    """Migrate, check and clean a PostgreSQL database."""


@database.command("migrate")
@_dsn_option
@click.option("--no-roles", is_flag=True, help="Leave roles and privileges to somebody else: hauberk database roles.")
@json_option
def migrate(dsn: str | None, no_roles: bool, as_json: bool) -> None:  # noqa: FBT001  # click's flags
    """Bring the tables up to this release, and make the roles. Safe to run again, and by several at once."""
    done = _database(dsn).migrate(roles=not no_roles)
    text = f"ran {len(done)} migrations, up to {done[-1]}" if done else "nothing to do: the tables are of this release"
    emit({"migrations": done, "roles": not no_roles}, as_json=as_json, text=text)


@database.command("check")
@_dsn_option
@json_option
def check(dsn: str | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Say whether the tables are of this release, and who could change the log. Exit status 1 for an error."""
    found = _database(dsn).inspect()
    emit(found, as_json=as_json, text="\n".join(map(_line, found)))
    if any(one.rule == _SCHEMA for one in found):
        note(f"hint: {REGISTRY[_OTHER_RELEASE].hint}")
    if not found:
        note("nothing to say against it")
    if any(one.severity is Severity.ERROR for one in found):
        raise SystemExit(Exit.FINDING)


@database.command("roles")
@json_option
def roles(as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Print the SQL of the roles, for whoever may make roles: hauberk database roles | psql."""
    text = Database.roles_sql()
    emit({"sql": text}, as_json=as_json, text=text.rstrip("\n"))


@database.command("scrub")
@_dsn_option
@json_option
def scrub(dsn: str | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Overwrite what was deleted, erased keys above all; rows cannot be read meanwhile. Exit status 1: some is left."""
    done = _database(dsn).scrub()
    text = "nothing that was deleted is left" if done else "some of what was deleted may be left: see the manual"
    emit({"scrubbed": done}, as_json=as_json, text=text)
    if not done:
        raise SystemExit(Exit.FINDING)
