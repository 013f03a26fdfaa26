"""`hauberk audit`: who did what, with the proof that it is in the log; and everything as lines for other systems."""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click
import msgspec

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import key_source
from hauberk.cli._authority import directory_option, fetch, settings
from hauberk.cli._output import emit, json_option, note
from hauberk.cli._owner import Owned, owned
from hauberk.cli._sources import governed, left
from hauberk.core.clock import SYSTEM_CLOCK
from hauberk.core.config import Config
from hauberk.core.ports import END
from hauberk.crypto.keyring import Keyring
from hauberk.errors import ConfigError
from hauberk.integrations.cose import cose_receipt
from hauberk.recording import published_key, published_log
from hauberk.records.audit import ROOT
from hauberk.records.audit_query import MAX_HITS, Prover, Wanted, ask
from hauberk.records.epochs import EpochForm, PseudonymEpochs, change_epochs
from hauberk.records.export import EXAMPLES, Format, line_of
from hauberk.records.permission import Context
from hauberk.records.view import printable as shown

_F = TypeVar("_F", bound=Callable[..., Any])
_AGO = re.compile(r"([0-9]{1,6})([smhdw])\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXCERPT = 120  # characters of a log message in a line
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Ask = Callable[[Wanted], Mapping[str, Any]]


def _moment(text: str) -> int:
    """Return Unix nanoseconds of ISO 8601, in UTC unless it says otherwise, or of how long ago, such as `90m` or `7d`.

    Raises:
        ValueError: it is neither.
    """
    ago = _AGO.match(text)
    moment = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])}) if ago else datetime.fromisoformat(text)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1) * 1_000


def _when(_context: click.Context, parameter: click.Parameter, value: str | None) -> int:
    if value is None:
        return 0 if parameter.name == "since_ns" else END
    try:
        return _moment(value)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is neither a moment nor such as 2h") from None


_FILTERS = (
    click.option("--user", default="", help="Whose actions, as the application knows them; or a SPIFFE id."),
    click.option("--session", default="", help="Only of this session."),
    click.option("--address", default="", help="Only from this address."),
    click.option("--resource", default="", help="What was acted on, such as /orders/17, or /orders/* for all below."),
    click.option("--action", default="", help="Such as read."),
    click.option("--outcome", default="", help="ok, denied, failed, cancelled or attempted."),
    click.option("--type", "kind", default="", help="Only this type, such as audit.access."),
    click.option("--stream", default="/audit/*", show_default=True, help="Name or pattern; /* is the whole record."),
    click.option("--since", "since_ns", callback=_when, help="Not before: 2026-01-31, 2026-01-31T12:00, 2h (ago)."),
    click.option("--until", "until_ns", callback=_when, help="Before this moment."),
)


def _filters(command: _F) -> _F:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@click.group()
def audit() -> None:
    """Ask the audit log, and export it."""


@audit.command("query")
@_filters
@click.option("--limit", type=click.IntRange(1, MAX_HITS), default=20, show_default=True, help="The last ones.")
@click.option("--proof", is_flag=True, help="Print leaf, audit path and signed checkpoint of each entry.")
@directory_option
@json_option
def query(proof: bool, directory: Path | None, as_json: bool, **wanted: Any) -> None:  # noqa: FBT001, ANN401  # click's
    """Find entries. Each is checked against the signed tree, and that you asked is recorded.

    People are found by the name the application knows, under every key that is live; the log holds no names.
    """
    with _asking(directory) as answers:
        found = answers(Wanted(**wanted))
    entries = [one if proof else _without_proof(one) for one in found["entries"]]
    lines = [line for one in entries for line in (_line(one), *(_proof_lines(one) if proof else ()))]
    shown: dict[str, object] = {"entries": entries, "key": found["key"]}
    if proof:
        shown["checkpoint"] = found["checkpoint"]
        lines += ["", found["checkpoint"].rstrip("\n")] if entries else []
    emit(shown, as_json=as_json, text="\n".join(lines))
    note(f"{len(entries)} entries, each proven to be in the log" if entries else "no entry")


@audit.command("export")
@_filters
@click.option(
    "--format", "form", type=click.Choice([one.value for one in Format]), default="jsonl", show_default=True,
    help="JSON lines, ArcSight CEF, or syslog (RFC 5424).",
)  # fmt: skip
@click.option("--output", type=click.File("x", encoding="utf-8", lazy=False), help="A new file; else standard output.")
@click.option("--host", default="", help="Host name in syslog messages.")
@click.option("--enterprise", type=click.IntRange(1), default=EXAMPLES, help="Your private enterprise number (IANA).")
@directory_option
@json_option
def export(  # noqa: PLR0917  # click passes one argument per option
    form: str,
    output: TextIO | None,
    host: str,
    enterprise: int,
    directory: Path | None,
    as_json: bool,  # noqa: FBT001  # click's flag
    **wanted: Any,  # noqa: ANN401  # the filters
) -> None:
    """Write entries as lines, oldest first, one an entry whatever is in it. --json tells how many went to --output."""
    count = 0
    with _asking(directory) as answers:
        for one in _all(answers, Wanted(**wanted, limit=MAX_HITS)):
            click.echo(line_of(one, Format(form), host=host, enterprise=enterprise), file=output)
            count += 1
    if output is not None:
        emit({"written": count, "file": output.name}, as_json=as_json, text=f"{count} entries written to {output.name}")


@audit.command("receipt")
@click.argument("position", type=click.IntRange(min=0))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@directory_option
@json_option
def receipt(position: int, output: Path, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Write the COSE receipt (RFC 9942) of an entry to OUTPUT, a new file, and print the leaf that it proves."""
    if output.exists():
        raise click.UsageError(f"{output} exists")
    config = settings(directory)
    if governed(config):
        found = fetch(directory, "GET", f"/admin/audit/{position}/receipt")
    else:
        with owned(directory) as here:
            found = cose_receipt(here.recording.ledger, position, here.recording.signer)
    with output.open("xb") as file:
        file.write(base64.b64decode(found["receipt"]))
    data = {"position": position, "leaf": found["leaf"], "file": str(output)}
    emit(data, as_json=as_json, text=f"leaf {found['leaf']}")


@audit.command("epochs")
@click.option("--begin", is_flag=True, help="Begin an epoch with a new key; services use it once they start again.")
@click.option("--retire", type=click.IntRange(0), default=None, help="Destroy the key of this epoch.")
@directory_option
@json_option
def epochs(begin: bool, retire: int | None, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's
    """Show the keys of pseudonyms, change them, or destroy an old one: nobody can then tell whose its entries are."""
    if begin and retire is not None:
        raise click.UsageError("one of --begin and --retire")
    change = {"retire": retire} if retire is not None else {}
    found = _epochs(directory, change if begin or change else None)
    emit(found, as_json=as_json, text=f"live {' '.join(map(str, found['live']))}")
    if "scrubbed" in found and not found["scrubbed"]:
        note("the database may still hold what was destroyed in pages it has not overwritten")


# where the answers come from


@contextmanager
def _asking(directory: Path | None) -> Iterator[Ask]:
    """Give what answers: the authority, or where none has ever run, the ledger of an embedded application."""
    config = settings(directory)
    if governed(config):
        yield lambda wanted: fetch(directory, "POST", "/admin/audit", msgspec.to_builtins(wanted))
        return
    with _embedded(directory, config) as answers:
        yield answers


@contextmanager
def _embedded(directory: Path | None, config: Config) -> Iterator[Ask]:
    from hauberk.authority.audit import AuditDesk  # noqa: PLC0415  # the authority's, without its server

    with ExitStack() as stack:
        try:
            here = stack.enter_context(owned(directory))
        except ConfigError as error:
            if error.code != "HBK-906":  # an application has it open, and reading needs no more than the files
                raise
            note("not recorded: another process writes this ledger, so only that could record what you read")
            yield _unrecorded(config, stack)
        else:
            desk = AuditDesk(here.recording, here.keyring, here.recording.ledger, SYSTEM_CLOCK)
            stack.callback(desk.close)
            yield lambda wanted: desk.ask(wanted, here.actor.id)


def _unrecorded(config: Config, stack: ExitStack) -> Ask:
    from hauberk.authority.audit import plain  # noqa: PLC0415  # the same

    keyring = Keyring(key_source(config.authority.keys, Path(config.directory) / "private" / "keys", create=False))
    store, key = AuthenticRows(stack.enter_context(left(config)), keyring), published_key(Path(config.directory))
    prover = Prover(store, published_log(Path(config.directory), config), key)
    names = PseudonymEpochs(store, keyring)
    return lambda wanted: plain(ask(prover, wanted, names), key)


def _all(answers: Ask, wanted: Wanted) -> Iterator[Mapping[str, Any]]:
    """Yield every entry, oldest first."""
    at: int | None = -1
    while at is not None:
        found = answers(msgspec.structs.replace(wanted, after=at))
        yield from found["entries"]
        at = found["following"]


def _epochs(directory: Path | None, change: Mapping[str, int] | None) -> Mapping[str, Any]:
    config = settings(directory)
    if governed(config):
        method = "GET" if change is None else "POST"
        return dict(fetch(directory, method, "/admin/audit/epochs", change))
    with owned(directory) as here:
        names = PseudonymEpochs(here.recording.store, here.keyring)
        if change is None:
            return {"live": names.live}
        return change_epochs(names, EpochForm(**change), partial(_record, here))


def _record(here: Owned, what: str, epoch: int) -> None:
    permission = here.store.permission
    event = permission.event(f"admin.{what}", ROOT + "/admin", Context.of(here.actor), data={"epoch": epoch})
    permission.recorder.submit(event).result()


# how they look


def _without_proof(view: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in view.items() if name != "proof"}


def _line(view: Mapping[str, Any]) -> str:
    """Return one line about an entry, for people."""
    data = view.get("data", {})
    who = view.get("actor") or view.get("address") or "-"
    what = [view.get("outcome"), data.get("action"), data.get("resource"), data.get("reason")]
    told = "  ".join(shown(part) for part in (view["type"], who, *what, *_said(data.get("details"))) if part)
    return f"{view['position']:>7}  {view['time']}  {told}"


def _said(details: object) -> Iterator[str]:
    """Yield what a log message says: its level, its logger and the beginning of its text."""
    if isinstance(details, Mapping):
        for name in ("severity", "logger", "message", "template"):
            if isinstance(text := details.get(name), str):
                yield text if len(text) <= EXCERPT else f"{text[:EXCERPT]}..."


def _proof_lines(view: Mapping[str, Any]) -> Iterator[str]:
    yield f"         leaf {view['proof']['leaf']}"
    yield from (f"         path {step}" for step in view["proof"]["path"])
