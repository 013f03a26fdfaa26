"""The command line. One file per command, loaded only when that command runs; the overall help loads nothing at all."""

import sys

COMMANDS = {
    "audit": "Ask the audit log who did what, and export it.",
    "config": "Show every setting and where it comes from.",
    "database": "Migrate, check and clean a PostgreSQL database.",
    "entry": "Register workloads and make join tokens.",
    "ledger": "Verify and read the audit ledger.",
    "policy": "Lint, explain, test, compare and apply policies.",
    "proof": "Write and verify receipts.",
    "run": "Give a program its identity and run it.",
    "status": "Show what the authority has in force.",
    "subject": "Erase people whose data is recorded, or forbid it.",
    "svid": "List, renew and revoke identities.",
    "up": "Run the authority.",
    "witness": "Cosign other logs, so that nobody can show two histories.",
}
_HELP = """Usage: hauberk [OPTIONS] COMMAND [ARGS]...

  Hauberk: a security runtime for distributed Python systems.

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
"""


def main() -> None:
    """Run the command line; the process ends with one of `_output.Exit`."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        width = max(map(len, COMMANDS))
        sys.stdout.write(_HELP + "".join(f"  {name:<{width}}  {text}\n" for name, text in sorted(COMMANDS.items())))
        return
    from hauberk.cli._group import cli  # noqa: PLC0415  # click and what it needs, for whoever runs a command
    from hauberk.cli._output import fail  # noqa: PLC0415  # the same
    from hauberk.errors import HauberkError  # noqa: PLC0415  # the same

    try:
        cli(standalone_mode=True)
    except HauberkError as error:
        sys.exit(fail(error))
