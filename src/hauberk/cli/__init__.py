"""The command line. One file per command, loaded only when that command runs, so that `--help` stays instant."""

import sys
from importlib import import_module

import click

from hauberk import __version__
from hauberk.cli._output import fail
from hauberk.errors import HauberkError

_COMMANDS = {
    "config": ("hauberk.cli.config:config", "Show every setting and where it comes from."),
    "entry": ("hauberk.cli.entry:entry", "Register workloads and make join tokens."),
    "ledger": ("hauberk.cli.ledger:ledger", "Verify and read the audit ledger."),
    "policy": ("hauberk.cli.policy:policy", "Lint, explain, test, compare and apply policies."),
    "run": ("hauberk.cli.run:run", "Give a program its identity and run it."),
    "status": ("hauberk.cli.status:status", "Show what the authority has in force."),
    "svid": ("hauberk.cli.svid:svid", "List, renew and revoke identities."),
    "up": ("hauberk.cli.up:up", "Run the authority."),
}


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, sorted."""
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in sorted(_COMMANDS)])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hauberk")
def cli() -> None:
    """Hauberk: a security runtime for distributed Python systems."""


def main() -> None:
    """Run the command line; the process ends with one of `_output.Exit`."""
    try:
        cli(standalone_mode=True)
    except HauberkError as error:
        sys.exit(fail(error))
