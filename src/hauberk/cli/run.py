"""`hauberk run -- CMD`: give a program its identity."""

import os
from pathlib import Path

import click

from hauberk.agent.remote import Remote
from hauberk.agent.state import read_facts
from hauberk.cli._authority import directory_option, settings
from hauberk.cli._output import Exit, note


@click.command(context_settings={"ignore_unknown_options": True})
@directory_option
@click.option("--entry", default=None, help="Registration entry, where this process matches several.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(directory: Path | None, entry: str | None, command: tuple[str, ...]) -> None:
    """Attest this process, then become COMMAND.

    COMMAND inherits a descriptor with a single-use token that is good for a minute; it makes its own key. Nothing
    secret is in its arguments or its environment.
    """
    config = settings(directory)
    facts = read_facts(Path(config.directory))
    remote = Remote.over_socket(Path(config.directory) / "workload.sock")
    try:
        token = remote.handover(entry)
    finally:
        remote.close()
    reader, writer = os.pipe()
    os.write(writer, token.encode("ascii"))
    os.close(writer)
    os.set_inheritable(reader, True)  # the standard library's signature
    environ = {
        **os.environ,
        "HAUBERK_IDENTITY_FD": str(reader),
        "HAUBERK_TRUST_DOMAIN": facts.trust_domain,
        "HAUBERK_DIRECTORY": str(Path(config.directory).absolute()),
    }
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606  # the point of this command; no shell is involved
    except OSError as error:
        note(f"error: cannot run {command[0]}: {error.strerror}")
        raise SystemExit(Exit.USAGE) from None
