"""`hauberk ledger fsck`: whether a database is sound, and what of it can be made again."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path

import click
from msgspec.structs import replace

from hauberk.adapters.audited import AuditedFile, rebuild
from hauberk.cli._key import key_text
from hauberk.cli._output import Exit, emit, json_option, printable
from hauberk.core.event import Leaf
from hauberk.core.finding import Finding, Severity
from hauberk.core.ports import END, Store
from hauberk.crypto.note import decode_key
from hauberk.errors import RecordsError
from hauberk.records.heads import split_name
from hauberk.records.verify.fsck import VERIFY, Derived, check_keys, check_log, found

_AGAINST_TAMPERING = "what was done on purpose is found by: hauberk ledger verify"
_SHOWN = 10  # damaged entries of a log that are named
_DEEP = 3  # folders below the database in which spools are looked for


@click.command("fsck")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--key", help="The log's verifier key, or a file that holds it: then the signed root is compared too.")
@click.option(
    "--repair", is_flag=True, help="Make tiles and frontier again, if the signed root is that of the entries."
)
@json_option
def fsck(path: Path, key: str | None, repair: bool, as_json: bool) -> None:  # noqa: FBT001  # click's flags
    """Check a database for damage: the engine's own pages and indexes, and all that follows from something else in it.

    This tells what is broken and what can be made again. It believes the leaves, unless --key shows whether the log
    signed them: what somebody did to entries, statements and streams is told by `hauberk ledger verify`.
    """
    if repair and key is None:
        raise click.UsageError("--repair needs --key: only what the log signed is written")
    findings, repaired = _checked(path, None if key is None else key_text(key), repair=repair)
    lines = [f"{one.severity.value:<8} {one.rule:<20} {printable(one.message)}" for one in findings]
    lines += [
        f"fix: {fix}" for fix in sorted({one.fix for one in findings if one.fix}) if not repaired or fix == VERIFY
    ]
    summary = f"{len(findings)} findings" if findings else f"no damage found; {_AGAINST_TAMPERING}"
    if repaired:
        summary += f"; made again: {', '.join(repaired)}"
    emit({"findings": findings, "repaired": repaired}, as_json=as_json, text="\n".join([*lines, summary]))
    if any(one.severity is not Severity.INFO for one in findings) and not (repaired and _only_derived(findings)):
        raise SystemExit(Exit.FINDING)


def _only_derived(findings: Sequence[Finding]) -> bool:
    return all(one.rule in {"tile", "frontier"} or one.severity is Severity.INFO for one in findings)


def _checked(path: Path, key: str | None, *, repair: bool) -> tuple[list[Finding], list[str]]:
    """Return what is wrong, and the names of the logs that were repaired."""
    store = AuditedFile(path)
    try:
        findings = [found("engine", one, fix="restore a backup") for one in store.integrity()]
        findings += [found("stray", one) for one in store.strays()]
        named = None if key is None else split_name(decode_key(key)[0])[0]
        logs = {log: check_log(store, log, key if log == named else None) for log in store.logs()}
        heads = {log: store.head(log) for log in logs}
        if named is not None and named not in logs:
            raise RecordsError("HBK-711", "the key is of a log that is not here", log=named)
        findings += [one for derived in logs.values() for one in derived.findings]
        findings += [one for log in logs for one in islice(_damaged(store, log), _SHOWN)]
        findings += check_keys(store)
    finally:
        store.close()
    findings += _spools(path.parent)
    repaired = []
    for log, derived in logs.items():
        if repair and derived.agrees and _broken(derived):
            rebuild(path, log, derived.tiles, replace(heads[log], frontier=derived.frontier))
            repaired.append(log)
    return findings, repaired


def _damaged(store: Store, log: str) -> Iterator[Finding]:
    """Yield the entries whose parts are not those of their leaf. What cannot be read at all is told elsewhere."""
    with suppress(RecordsError):
        for entry in store.entries(log, limit=END):
            try:
                leaf = Leaf.decode(entry.leaf)
                kept = [sha256(part).digest() for part in (entry.meta, entry.public, entry.sealed)]
            except (TypeError, ValueError):
                yield found("entry", f"entry {entry.position} is none", fix=VERIFY)
                continue
            if kept != [leaf.meta, leaf.public, leaf.sealed]:
                yield found("entry", f"the content of entry {entry.position} is not that of its leaf", fix=VERIFY)


def _broken(derived: Derived) -> bool:
    return any(one.rule in {"tile", "frontier"} for one in derived.findings)


def _spools(directory: Path) -> Iterator[Finding]:
    """Yield what waits in spools near a database, and what was refused for good."""
    for depth in range(_DEEP):
        for log in directory.glob("*/" * depth + "spool.log"):
            waiting = log.stat().st_size - _arrived(log.with_name("spool.at"))
            if waiting > 0:
                yield found("spool", f"{waiting} bytes wait in {log} to be recorded", severity=Severity.INFO)
        for refused in directory.glob("*/" * depth + "spool.refused"):
            if refused.stat().st_size:
                yield found("refused", f"{refused} holds events that were refused", severity=Severity.WARNING)


def _arrived(path: Path) -> int:
    try:
        return int(path.read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0


COMMANDS = (fsck,)
