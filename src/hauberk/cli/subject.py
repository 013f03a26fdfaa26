"""`hauberk subject`: people whose data is recorded."""

from pathlib import Path

import click

from hauberk.cli._authority import directory_option
from hauberk.cli._output import emit, json_option
from hauberk.cli._owner import owned
from hauberk.errors import RecordsError

_reason = click.option("--reason", required=True, help="One line, kept in clear for ever: name nobody in it.")
_subject = click.argument("subject")


@click.group()
def subject() -> None:
    """Erase people, or forbid it, in a ledger that no process has open."""


@subject.command("erase")
@_subject
@_reason
@directory_option
@json_option
def erase(subject: str, reason: str, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Destroy the keys of SUBJECT, so that nothing private of it can ever be read again."""
    with owned(directory, "have it do so: runtime.events.erase(subject, actor=..., reason=...)") as here:
        done = here.store.erase(subject, actor=here.actor, reason=reason).result()
        data = {
            "position": done.position,
            "certificate": done.id.hex(),
            "keys": [key for key, _ in done.keys],
            "scrubbed": done.scrubbed,
            "copies": done.copies,
        }
    scrubbed = "nothing of them is left in the database" if done.scrubbed else "the database could not be scrubbed yet"
    lines = [
        f"erased         {len(done.keys)} key(s) destroyed; {scrubbed}",
        f"certificate    entry {done.position}, {done.id.hex()}",
        *(f"may hold them  {copy}" for copy in done.copies),
    ]
    emit(data, as_json=as_json, text="\n".join(lines))


@subject.command("hold")
@_subject
@_reason
@directory_option
@json_option
def hold(subject: str, reason: str, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Forbid erasing SUBJECT until the hold is lifted."""
    with owned(directory, "have it do so: runtime.events.hold(subject, actor=..., reason=...)") as here:
        done = here.store.hold(subject, actor=here.actor, reason=reason).result()
    emit({"position": done.position}, as_json=as_json, text=f"held; recorded as entry {done.position}")


@subject.command("lift")
@_subject
@_reason
@directory_option
@json_option
def lift(subject: str, reason: str, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Allow erasing SUBJECT again."""
    with owned(directory, "have it do so: runtime.events.lift(subject, actor=..., reason=...)") as here:
        if not here.recording.keys.held(subject):
            raise RecordsError("HBK-707", "nothing forbids erasing this subject", subject=subject)
        done = here.store.lift(subject, actor=here.actor, reason=reason).result()
    emit({"position": done.position}, as_json=as_json, text=f"lifted; recorded as entry {done.position}")
