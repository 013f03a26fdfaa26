"""`hauberk proof`: receipts, which prove offline that one event is in a log.

The event of a receipt is a JSON file with the exact text of the parts that are shown: `{"meta": "{...}", "public":
"{...}", "sealed": "base64"}`. A part that is left out is withheld, if the receipt allows that.
"""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from hauberk.cli._key import key_text
from hauberk.cli._output import emit, json_option, printable
from hauberk.cli._sources import Listing, entry_of, opened, proof_of
from hauberk.core.event import Entry
from hauberk.core.ports import Store
from hauberk.crypto.note import LogKey, parse_checkpoint, parse_note
from hauberk.errors import RecordsError
from hauberk.records.ledger import Proof
from hauberk.records.log_policy import LogPolicy
from hauberk.records.receipt import NOTHING, Part, Shown, verify_receipt, write_receipt
from hauberk.records.tile_paths import TileDirectory
from hauberk.records.verify import kept_notes
from hauberk.records.view import entry_view

MAX_EVENT_BYTES = 1 << 20  # three parts of 64 KiB, the last in base64, escaped
_file = click.Path(path_type=Path, exists=True, dir_okay=False)
_new = click.Path(path_type=Path, dir_okay=False)
_PARTS = {"meta": Part.META, "public": Part.PUBLIC, "sealed": Part.SEALED}


class _Event(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    meta: str | None = None
    public: str | None = None
    sealed: str | None = None


@click.group()
def proof() -> None:
    """Write and verify receipts."""


@proof.command("verify")
@click.argument("receipt", type=_file)
@click.argument("event", type=_file)
@click.option("--policy", type=_file, help="A tlog-policy: which logs and witnesses to believe.")
@click.option("--key", help="The log's verifier key (NAME+HASH+KEY), or a file that holds it.")
@json_option
def verify(receipt: Path, event: Path, policy: Path | None, key: str | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Verify that the event in EVENT is in the log that RECEIPT is of. Exit status 1: it is not proven."""
    if policy is None and key is None:
        raise click.UsageError("say whom to believe: --policy or --key")
    believed = LogPolicy() if policy is None else LogPolicy.parse(policy.read_bytes())
    logs = [] if key is None else [LogKey.parse(key_text(key))]
    shown = _shown(event)
    proven = verify_receipt(_text(receipt), shown, believed, logs=logs)
    leaf, checkpoint = proven.leaf, proven.vouched.checkpoint
    data = {
        "proven": True,
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "position": leaf.position,
        "time_ns": leaf.time_ns,
        "version": leaf.version,
        "withheld": [name for name, part in _PARTS.items() if part in proven.withheld],
        "cosigned": dict(proven.vouched.cosigned),
    }
    by = f", cosigned by {', '.join(sorted(proven.vouched.cosigned))}" if proven.vouched.cosigned else ""
    text = f"proven: entry {leaf.position} of the {checkpoint.size} of {checkpoint.origin}{by}"
    emit(data, as_json=as_json, text="\n".join([text, *_described(shown, leaf.position)]))


def _described(shown: Shown, position: int) -> list[str]:
    """Return lines about the event, as far as it is shown."""
    if shown.meta is None:
        return []
    view = entry_view(Entry(position, b"", "", "", 0, b"", shown.meta, shown.public or b"{}"))
    return [
        f"{name:<8} {view[name]}" for name in ("time", "type", "stream", "actor", "outcome", "code") if name in view
    ]


@proof.command("write")
@click.argument("source")
@click.argument("position", type=click.IntRange(min=0))
@click.argument("receipt", type=_new)
@click.argument("event", type=_new)
@click.option("--log", help="Name of the log, where the database has several.")
@click.option("--withhold", "parts", multiple=True, type=click.Choice(list(_PARTS)), help="Leave a part to its holder.")
@json_option
def write(  # noqa: PLR0917  # click passes one argument per option
    source: str,
    position: int,
    receipt: Path,
    event: Path,
    log: str | None,
    parts: Sequence[str],
    as_json: bool,  # noqa: FBT001  # click's flag
) -> None:
    """Write the receipt of an entry, and the event it is of, from a database, into new files."""
    withheld = NOTHING
    for name in parts:
        withheld |= _PARTS[name]
    for new in (receipt, event):
        if new.exists():
            raise click.UsageError(f"{new} exists")
    with opened(source) as store:
        if isinstance(store, TileDirectory):
            raise click.UsageError("receipts are written from a database")
        entry, note = _found(store, _log(store, log), position)
    text = write_receipt(note, withheld=withheld)
    with receipt.open("x", encoding="utf-8") as file:
        file.write(text)
    held = _Event(entry.meta.decode(), entry.public.decode(), base64.b64encode(entry.sealed).decode())
    with event.open("xb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(held), indent=2))
    told = {"receipt": str(receipt), "event": str(event)}
    emit(told, as_json=as_json, text=f"entry {position}: receipt in {receipt}, event in {event}")


def _log(store: Store, named: str | None) -> str:
    if named is not None:
        return named
    logs = store.logs() if isinstance(store, Listing) else []
    if len(logs) != 1:
        raise click.UsageError(f"say which log with --log: {', '.join(map(printable, logs)) or 'there is none here'}")
    return logs[0]


def _found(store: Store, log: str, position: int) -> tuple[Entry, Proof]:
    """Return an entry and its proof, under the newest checkpoint that witnesses cosigned if it is covered."""
    entry = entry_of(store, log, position)
    note = store.head(log).checkpoint.decode()
    head = parse_checkpoint(parse_note(note).text)
    for kept in kept_notes(store, log):
        try:
            found = parse_checkpoint(parse_note(kept).text)
        except RecordsError:
            continue
        if found.origin == head.origin and position < found.size <= head.size:
            note = kept
    return entry, proof_of(store, log, entry, note)


def _shown(path: Path) -> Shown:
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(MAX_EVENT_BYTES), type=_Event)
        sealed = None if found.sealed is None else base64.b64decode(found.sealed, validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError, OSError):
        raise RecordsError("HBK-712", "not the event of a receipt") from None
    meta, public = (None if part is None else part.encode() for part in (found.meta, found.public))
    return Shown(meta, public, sealed)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise RecordsError("HBK-712", "the file cannot be read", path=str(path)) from None
