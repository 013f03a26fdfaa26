"""`hauberk ledger verify`: offline, from public material, with whatever else the auditor has."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any, NoReturn, TypedDict, Unpack

import click

from hauberk.adapters.mark import read_mark_file
from hauberk.cli._key import key_text
from hauberk.cli._output import Exit, emit, json_option
from hauberk.cli._sources import opened
from hauberk.core.ports import Store
from hauberk.crypto.note import LogKey, decode_key, parse_note
from hauberk.errors import NotCosigned, RecordsError, Tampered
from hauberk.records.log_policy import LogPolicy
from hauberk.records.tile_paths import TileDirectory
from hauberk.records.verify import Anchors, State, Trust, VerifyReport, verify_since, verify_store, verify_tiles

_FINGERPRINT = 64  # hex digits
_SPIFFE = "spiffe://"
_file = click.Path(path_type=Path, exists=True, dir_okay=False)
_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.argument("source"),
    click.option("--key", help="The log's verifier key (NAME+HASH+KEY), or a file that holds it."),
    click.option("--checkpoint", "checkpoints", type=_file, multiple=True, help="A signed checkpoint from before."),
    click.option("--policy", type=_file, help="A tlog-policy: its quorum of witnesses has to have cosigned."),
    click.option("--fresh", type=click.IntRange(1), help="With --policy: by this many seconds ago at most."),
    click.option("--mark", type=_file, help="The high-water mark, kept outside the database."),
    click.option("--roots", multiple=True, help="[DOMAIN=]PEM: services are who these roots say they are."),
    click.option(
        "--producer",
        "producers",
        multiple=True,
        help="Who may sign for the application and the record itself: a SPIFFE id, a plain key, or its file.",
    ),
    click.option(
        "--require-signed", is_flag=True, help="Entries of services, applications and the record need their statement."
    ),
    click.option(
        "--since",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Verify only what was added since; the file is made the first time. Entries before are not read again.",
    ),
    click.option("--quiet", is_flag=True, help="Show no progress."),
    json_option,
)


class _Wanted(TypedDict):
    """What the auditor has."""

    checkpoints: Sequence[Path]
    policy: Path | None
    fresh: int | None
    mark: Path | None
    roots: Sequence[str]
    producers: Sequence[str]
    require_signed: bool


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("verify")
@_with_options
def verify(
    source: str, *, key: str | None, since: Path | None, quiet: bool, as_json: bool, **wanted: Unpack[_Wanted]
) -> None:
    """Verify a ledger offline, from public material alone.

    SOURCE is a database (a file or postgresql://...), a directory of tiles, or the URL of one. Exit status 1 names the
    first bad position and what was done.

    What the log's own signature cannot tell takes something from elsewhere: --checkpoint, --mark and --policy find a
    log that was put back or rewritten by its operator, --roots with --require-signed what it forged.
    """
    with opened(source) as found:
        anchors = _anchors(wanted)
        log_key = _key(key, anchors.policy)
        trust = _trust(wanted, log_key)
        try:
            with _progress(shown=not (quiet or as_json) and sys.stderr.isatty()) as told:
                report = _verified(found, log_key, anchors, trust, since, told)
        except (Tampered, NotCosigned) as finding:
            _tell(finding, as_json=as_json)
    emit({"verified": True, "report": report}, as_json=as_json, text=_text(report))


def _verified(  # noqa: PLR0917  # what a verification takes
    found: Store | TileDirectory,
    log_key: str,
    anchors: Anchors,
    trust: Trust,
    since: Path | None,
    told: Callable[[int, int], None] | None,
) -> VerifyReport:
    if isinstance(found, TileDirectory):
        if since is not None or trust.named or trust.require_signed:
            raise click.UsageError("tiles hold no events: --since, --roots and --producer need the database")
        return verify_tiles(found, log_key, anchors=anchors, told=told)
    if since is None:
        return verify_store(found, log_key, anchors=anchors, trust=trust, told=told)
    state = State.parse(since.read_bytes()) if since.exists() else None
    report, after = verify_since(found, log_key, state, anchors=anchors, trust=trust, told=told)
    draft = since.with_name(f"{since.name}.part")
    draft.write_bytes(after.encode())
    draft.replace(since)
    return report


def _tell(finding: RecordsError, *, as_json: bool) -> NoReturn:
    position, kind = finding.context.get("position"), finding.context.get("kind")
    data = {"verified": False, "code": finding.code, "position": position, "kind": kind, "why": finding.detail}
    word = "TAMPERED" if isinstance(finding, Tampered) else "NOT COSIGNED"
    place = f" ({kind}) at position {position}" if isinstance(finding, Tampered) else ""
    emit(data, as_json=as_json, text=f"{word}{place}: {finding.detail} [{finding.code}]")
    raise SystemExit(Exit.FINDING) from None


def _text(report: VerifyReport) -> str:
    streams = f" in {report.streams} streams" if report.streams else ""
    lines = [f"verified {report.size} entries{streams} of {report.origin}", f"root {report.root}"]
    if report.start:
        lines.append(f"entries below {report.start} were verified before and not read again")
    for anchor in report.anchors:
        by = "".join(f" by {name}" for name in sorted(anchor.cosigned))
        lines.append(f"agrees with the {anchor.source} of {anchor.size} entries{by}")
    if report.signed:
        lines.append(f"{report.signed} entries are signed by {len(report.producers)} producers")
    if report.speakers:
        lines.append(f"signed for the application and the record itself: {', '.join(report.speakers)}")
    if report.pruned:
        lines.append(f"{report.pruned} entries are not here: only their place in the tree was checked")
    for one in report.recoveries:
        lost = f"entries {one.lost[0]} to {one.lost[1]} were lost" if one.lost else "nothing is known to be lost"
        lines.append(f"epoch {one.epoch} began at entry {one.position} after a recovery: {lost}")
    return "\n".join(lines)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Lend what shows how far it is, on a terminal."""
    if not shown:
        yield None
        return
    with click.progressbar(length=1, label="verifying", file=sys.stderr) as bar:

        def told(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield told


# what the auditor has


def _key(given: str | None, policy: LogPolicy | None) -> str:
    if given is not None:
        return key_text(given)
    logs = [log.key for log in policy.logs if isinstance(log.key, LogKey)] if policy else []
    if len(logs) != 1:
        raise click.UsageError("say which log with --key, or with a policy that names one")
    return logs[0].vkey


def _anchors(wanted: _Wanted) -> Anchors:
    policy, mark, fresh = wanted["policy"], wanted["mark"], wanted["fresh"]
    if fresh and not policy:
        raise click.UsageError("--fresh is about the witnesses of a --policy")
    return Anchors(
        checkpoints=tuple(_read(path, "not a checkpoint") for path in wanted["checkpoints"]),
        mark=None if mark is None else _mark(mark),
        policy=None if policy is None else LogPolicy.parse(policy.read_bytes()),
        not_before=int(time()) - fresh if fresh else 0,
    )


def _mark(path: Path) -> str:
    """Return the note of a mark: the file that the ledger keeps, or a note by itself."""
    try:
        text = path.read_text("utf-8")
        parse_note(text)
    except (UnicodeDecodeError, RecordsError):
        return read_mark_file(path)
    return text


def _trust(wanted: _Wanted, log_key: str) -> Trust:
    if not wanted["roots"] and not wanted["producers"]:
        return Trust(require_signed=wanted["require_signed"])
    from hauberk.identity.bundle import TrustBundle  # noqa: PLC0415  # certificates, for whoever has some

    roots: dict[str, tuple[bytes, ...]] = {}
    for text in wanted["roots"]:
        domain, equals, name = text.rpartition("=")
        domain = domain if equals else decode_key(log_key)[0].partition("/")[0]
        bundle = TrustBundle.from_pem(domain, _bytes(Path(name)))
        roots[domain] = (*roots.get(domain, ()), *bundle.roots)
    services = frozenset(text for text in wanted["producers"] if text.startswith(_SPIFFE))
    if services and not roots:
        raise click.UsageError("who a service is takes the --roots of its trust domain")
    keys = frozenset(_fingerprint(text) for text in wanted["producers"] if text not in services)
    return Trust(roots, keys, wanted["require_signed"], services)


def _fingerprint(text: str) -> bytes:
    """Return the fingerprint of a producer's key: itself in hex, or from the text of the key, or from a file of it."""
    if len(text) == _FINGERPRINT and all(char in "0123456789abcdef" for char in text):
        return bytes.fromhex(text)
    return sha256(decode_key(key_text(text))[1].raw).digest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise click.UsageError(f"{path} cannot be read") from None


def _read(path: Path, why: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise RecordsError("HBK-711", why) from None


COMMANDS = (verify,)
