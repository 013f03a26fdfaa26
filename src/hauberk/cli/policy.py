"""`hauberk policy`: placeholder group."""

import click


@click.group()
def policy() -> None:
    """Policies."""
