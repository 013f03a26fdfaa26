"""`hauberk witness`: cosign the checkpoints of other people's logs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hauberk.cli._key import key_text
from hauberk.cli._output import emit, json_option, note
from hauberk.errors import ConfigError, RecordsError

if TYPE_CHECKING:
    from hauberk.records.watchlist import Watchlist

_KNOWN_OTHERWISE = (
    "another log has that name: give this one a trust domain of its own;"
    " or, when the log changed its key: hauberk witness add --replace-key"
)
DIRECTORY = ".hauberk-witness"
_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DIRECTORY,
    show_default=True,
    help="State directory of the witness.",
)
_name = click.option("--name", default="", help="Name of the cosigner, such as witness.example/w1.")
_origin = click.option("--origin", default="", help="First line of the log's checkpoints, when not the key's name.")
_log_keys = click.argument("log_keys", nargs=-1, required=True, metavar="LOGKEY...")


@click.group()
def witness() -> None:
    """Cosign other logs, so that nobody can show two histories."""


@witness.command("serve")
@_directory
@_name
@click.option("--listen", default="127.0.0.1:8450", show_default=True, help="HOST:PORT, port 0 for a free one.")
@click.option("--log", "log_keys", multiple=True, help="A log's verifier key, or a file that holds it. Remembered.")
@click.option("--insecure-plaintext", is_flag=True, help="Listen where others can reach it, without TLS.")
@json_option
def serve(  # noqa: PLR0917  # click passes one argument per option
    directory: Path,
    name: str,
    listen: str,
    log_keys: Sequence[str],
    insecure_plaintext: bool,  # noqa: FBT001  # click's flag
    as_json: bool,  # noqa: FBT001  # click's flag
) -> None:
    """Run the witness until Ctrl-C. The first start makes its keys, later ones resume."""
    from hauberk.authority.witness import OpenWitness, parse_listen, serve_witness  # noqa: PLC0415  # the server

    host, port = parse_listen(listen, insecure_plaintext=insecure_plaintext)
    opened = OpenWitness(directory, name)

    def ready(url: str) -> None:
        lines = opened.facts.policy_lines(url)
        logs = [log.origin for log in opened.witness.logs()]
        facts = {"name": opened.facts.name, "url": url, "keys": opened.facts.keys, "logs": logs, "policy": lines}
        text = [f"{'name':<8} {opened.facts.name}", f"{'url':<8} {url}", *(f"{'log':<8} {log}" for log in logs)]
        emit(facts, as_json=as_json, text="\n".join([*text, f"{'policy':<8} {lines[0]}"]))
        if not logs:
            note("it knows no log yet: hauberk witness add LOGKEY")
        note("ready; Ctrl-C stops. The policy line of its ML-DSA-44 key: hauberk witness key")

    try:
        for text in log_keys:
            _add(opened.witness, text)
        serve_witness(opened, host, port, ready)
    finally:
        opened.close()
    note("drained and closed")


@witness.command("key")
@_directory
@_name
@click.option("--url", default="", help="Where the witness is reached; ends the lines.")
@json_option
def key(directory: Path, name: str, url: str, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Print the lines for a log's policy file, one per key; either is enough. Makes the keys if there are none."""
    from hauberk.authority.witness import OpenWitness, read_witness  # noqa: PLC0415  # the server

    facts = read_witness(directory)
    if facts is None or name not in {"", facts.name}:
        opened = OpenWitness(directory, name)
        facts = opened.facts
        opened.close()
    lines = facts.policy_lines(url)
    emit({"name": facts.name, "keys": facts.keys, "policy": lines}, as_json=as_json, text="\n".join(lines))


@witness.command("add")
@_log_keys
@_origin
@click.option("--replace-key", is_flag=True, help="The log changed its key: believe this one and no other.")
@_directory
@json_option
def add(log_keys: Sequence[str], origin: str, replace_key: bool, directory: Path, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Cosign for the logs with these verifier keys (or files that hold one). A running witness follows at once.

    A log that is known under another key is refused: it is another log of that name, unless it changed its key.
    """
    with _book(directory) as book:
        added = [_add(book, text, origin, replace=replace_key) for text in log_keys]
    emit({"added": added}, as_json=as_json, text="\n".join(f"added {one}" for one in added))


@witness.command("remove")
@_log_keys
@_origin
@_directory
@json_option
def remove(log_keys: Sequence[str], origin: str, directory: Path, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Take no signature of these keys any more. What was cosigned stays remembered."""
    with _book(directory) as book:
        for text in log_keys:
            book.remove_key(key_text(text), origin)
    emit({"removed": list(log_keys)}, as_json=as_json, text=f"removed {len(log_keys)}")


@witness.command("list")
@_directory
@json_option
def listed(directory: Path, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Show the logs it knows, and how far it has cosigned each."""
    with _book(directory) as book:
        logs = list(book.logs())
    lines = [
        f"{log.origin}  size {log.size}  keys {len(log.keys)}" + (f"  EVIDENCE {log.evidence}" if log.evidence else "")
        for log in logs
    ]
    emit(logs, as_json=as_json, text="\n".join(lines))


@witness.command("evidence")
@click.argument("origin")
@_directory
@json_option
def evidence(origin: str, directory: Path, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Show signed checkpoints that contradict what was cosigned: each proves that the log showed two histories."""
    with _book(directory) as book:
        found = list(book.evidence(origin))
        if not found and not book.knows(origin):
            raise RecordsError("HBK-707", "the witness knows no such log", origin=origin, hint="hauberk witness list")
    emit(found, as_json=as_json, text="\n".join(found))
    if not found:
        note("no evidence: the log has shown this witness one history")


@witness.command("accept-clock")
@click.argument("origin")
@_directory
@json_option
def accept_clock(origin: str, directory: Path, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Cosign a log again with the time of now, after the clock was ahead and has been set right."""
    with _book(directory) as book:
        book.accept_clock(origin)
    emit({"accepted": origin}, as_json=as_json, text=f"{origin} is cosigned with the time of now")


def _book(directory: Path) -> "AbstractContextManager[Watchlist]":
    from hauberk.authority.witness import watchlist  # noqa: PLC0415  # the server, for whoever has a witness

    return watchlist(directory)


def _add(book: "Watchlist", text: str, origin: str = "", *, replace: bool = False) -> str:
    try:
        return book.add_log(key_text(text), origin, replace=replace)
    except ConfigError as error:
        raise ConfigError(error.code, error.detail, **error.context, hint=_KNOWN_OTHERWISE) from None
