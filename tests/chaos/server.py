"""A PostgreSQL server of one's own that can be crashed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hauberk.adapters.postgres_connect import Target
from hauberk.adapters.postgres_schema import migrate
from tests.support.postgres import Server, address, execute

PATIENCE = 30.0


@contextmanager
def server() -> Iterator[tuple[str, Callable[[], None]]]:
    """Start a server; yield the address of a database with our schema, and what crashes it and starts it again."""
    one = Server()
    try:
        one.start()
        execute(one.dsn(), "CREATE DATABASE torture")
        dsn = address(one.dsn(), dbname="torture")
        migrate(Target(dsn))

        def crash() -> None:
            one.crash()
            _bury(one.data)
            one.start()

        yield dsn, crash
    finally:
        one.remove()


def _bury(data: Path) -> None:
    """Wait until no process of a server is left; one that was born while the others were killed is killed too."""
    until = time.monotonic() + PATIENCE
    while left := [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit() and _works_in(one, data)]:
        assert time.monotonic() < until, left
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def _works_in(process: Path, data: Path) -> bool:
    try:
        return (process / "cwd").readlink() == data
    except OSError:
        return False
