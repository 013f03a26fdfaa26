"""`hauberk ledger`: verify offline, read through the authority."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from hauberk.adapters.engine import embedded
from hauberk.adapters.state import DATABASE
from hauberk.agent.state import read_facts
from hauberk.cli._authority import directory_option, fetch, settings
from hauberk.cli._fsck import COMMANDS as CHECKING
from hauberk.cli._keeping import COMMANDS as KEEPING
from hauberk.cli._output import emit, json_option, note
from hauberk.cli._sources import Listing, entry_of, governed, left, proof_of
from hauberk.cli._verify import COMMANDS as AUDITING
from hauberk.core.config import Config
from hauberk.core.event import Entry
from hauberk.core.ports import Store
from hauberk.errors import RecordsError
from hauberk.recording import LOG_FILE, published_key, published_log
from hauberk.records.view import entry_line, entry_view, last_entries, printable

MAX_ALIKE = 10  # entries shown of one incident


@click.group()
def ledger() -> None:
    """Verify and read the audit ledger."""


for _command in (*AUDITING, *CHECKING, *KEEPING):
    ledger.add_command(_command)


def _found(directory: Path | None, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask the authority; where none has ever run, read the ledger that an embedded application left here."""
    config = settings(directory)
    if not _is_left(config):
        return list(fetch(directory, "GET", "/admin/ledger" + _query(wanted)))
    with left(config) as store:
        return [dict(entry_view(entry)) for log in _logs(config, store) for entry in _read_log(store, log, wanted)]


def _is_left(config: Config) -> bool:
    """Tell whether an embedded application keeps its ledger here: no authority ever ran, and there is a store."""
    path = Path(config.directory)
    if governed(config):
        return False
    return (path / "private" / DATABASE).exists() if embedded(config) else (path / LOG_FILE).exists()


def _log(config: Config) -> str:
    return published_log(Path(config.directory), config)


def _logs(config: Config, store: Store) -> Iterable[str]:
    """Return the log of this directory: a database may hold those of others too."""
    if (Path(config.directory) / LOG_FILE).exists():
        return (_log(config),)
    return store.logs() if isinstance(store, Listing) else ()


def _read_log(store: Store, log: str, wanted: dict[str, Any]) -> Iterable[Entry]:
    limit, stream, kind = wanted.get("limit") or MAX_ALIKE, wanted.get("stream"), wanted.get("type")
    if wanted.get("after") is not None:
        return store.entries(log, after=wanted["after"], limit=limit, stream=stream, kind=kind)
    read, size = partial(store.entries, log), store.head(log).size
    return last_entries(read, size, limit, stream=stream, kind=kind, incident=wanted.get("incident"))


@ledger.command("list")
@click.option("--stream", default=None, help="Only this stream, such as /services/production/order-service.")
@click.option("--type", "kind", default=None, help="Only this type, such as policy.denied.")
@click.option("--after", type=int, default=None, help="Only positions above this one.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@directory_option
@json_option
def listed(  # noqa: PLR0917  # click passes one argument per option
    stream: str | None,
    kind: str | None,
    after: int | None,
    limit: int,
    directory: Path | None,
    as_json: bool,  # noqa: FBT001  # click's flag
) -> None:
    """Show entries; without --after the last ones."""
    wanted: dict[str, Any] = {"stream": stream, "type": kind, "after": after, "limit": limit}
    found = _found(directory, wanted)
    emit(found, as_json=as_json, text="\n".join(entry_line(view) for view in found))


@ledger.command("show")
@click.argument("position", type=int, required=False)
@click.option("--incident", default=None, help="The incident id a caller was told.")
@directory_option
@json_option
def show(position: int | None, incident: str | None, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Show one entry by position, or whatever names an incident; --json prints a list then."""
    if (position is None) == (incident is None):
        raise click.UsageError("give a position or --incident")
    wanted: dict[str, Any] = {"incident": incident} if incident else {"after": (position or 0) - 1, "limit": 1}
    found = _found(directory, wanted)
    if not found or (position is not None and found[0]["position"] != position):
        told = {"incident": incident} if incident else {"position": position}
        raise RecordsError("HBK-707", "there is no such entry", **told)
    texts = ["\n".join(f"{key:<10} {_text(value)}" for key, value in one.items()) for one in found]
    emit(found if incident else found[0], as_json=as_json, text="\n\n".join(texts))
    if len(found) > 1:
        note("several entries name this incident: the stream says whose word each is")


def _text(value: object) -> str:
    return printable(value if isinstance(value, str | int) else msgspec.json.encode(value).decode())


@ledger.command("proof")
@click.argument("position", type=click.IntRange(min=0))
@directory_option
@json_option
def proof(position: int, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Print the proof that an entry is in the log: leaf, audit path and signed checkpoint."""
    config = settings(directory)
    if _is_left(config):
        with left(config) as store:
            log = _log(config)
            entry = entry_of(store, log, position)
            found = msgspec.to_builtins(proof_of(store, log, entry, store.head(log).checkpoint.decode()))
    else:
        found = fetch(directory, "GET", f"/admin/ledger/{position}/proof")
    lines = [f"leaf {found['leaf']}", *(f"path {step}" for step in found["path"]), "", found["checkpoint"].rstrip("\n")]
    emit(found, as_json=as_json, text="\n".join(lines))


@ledger.command("checkpoint")
@directory_option
@json_option
def checkpoint(directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Print the signed checkpoint. Keep it elsewhere: with it a later rollback is found."""
    config = settings(directory)
    if _is_left(config):
        with left(config) as store:
            signed = store.head(_log(config)).checkpoint.decode()
        found = {"checkpoint": signed, "key": published_key(Path(config.directory))}
    else:
        found = fetch(directory, "GET", "/admin/ledger/checkpoint")
    emit(found, as_json=as_json, text=found["checkpoint"].rstrip("\n"))


@ledger.command("key")
@directory_option
@json_option
def key(directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Print the log's public verifier key."""
    config = settings(directory)
    if _is_left(config):
        where = Path(config.directory) / "private" / DATABASE if embedded(config) else config.store
        found = {"key": published_key(Path(config.directory)), "ledger": str(where)}
    else:
        facts = read_facts(Path(config.directory))
        found = {"key": facts.ledger_key, "ledger": facts.ledger}
    emit(found, as_json=as_json, text=found["key"])


def _query(wanted: dict[str, Any]) -> str:
    return "?" + urlencode({name: value for name, value in wanted.items() if value is not None})
