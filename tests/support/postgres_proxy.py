"""A line to PostgreSQL that can be cut at any message: what a network does, at the worst moment."""

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, Self

from psycopg.conninfo import conninfo_to_dict

from tests.support.postgres import address


class Fate(Enum):
    """What becomes of something a client sends."""

    PASS = auto()
    CUT = auto()  # it never arrives, and the line is dead
    DEAF = auto()  # it arrives and is done, and the line is dead before the client hears of it


class Proxy:
    """Stands between clients and the server of `dsn`.

    Args:
        dsn: a database; `self.dsn` is the same one through this proxy.
    """

    def __init__(self, dsn: str) -> None:
        given = conninfo_to_dict(dsn)
        self._host, self._port = str(given["host"]), int(str(given.get("port") or 5432))
        self._directory = Path(tempfile.mkdtemp(prefix="px-"))
        self.dsn = address(dsn, host=str(self._directory), port="5432")
        self.decide: Callable[[bytes], Fate] = lambda _: Fate.PASS
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._directory / ".s.PGSQL.5432"))
        self._listener.listen()
        self._lines: list[_Line] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for line in self._lines:
            line.close()
        shutil.rmtree(self._directory)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._lines.append(_Line(client, self._server(), self))

    def _server(self) -> socket.socket:
        if not self._host.startswith("/"):
            return socket.create_connection((self._host, self._port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{self._host}/.s.PGSQL.{self._port}")
        return server


class _Line:
    """One connection, with a thread for each direction."""

    def __init__(self, client: socket.socket, server: socket.socket, proxy: Proxy) -> None:
        self._client, self._server, self._proxy = client, server, proxy
        self._deaf = False
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._up, self._down)]
        for thread in self._threads:
            thread.start()

    def _up(self) -> None:
        with suppress(OSError, EOFError), self._client.makefile("rb") as stream:
            self._server.sendall(_message(stream, typed=False))  # of the start
            while True:
                data = _message(stream, typed=True)
                fate = self._proxy.decide(data)
                if fate is Fate.CUT:
                    break
                self._deaf = self._deaf or fate is Fate.DEAF
                self._server.sendall(data)
        self._end()

    def _down(self) -> None:
        with suppress(OSError):
            while (data := self._server.recv(65536)) and not self._deaf:
                self._client.sendall(data)
        self._end()

    def _end(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it, and wait until it has."""
        self._end()
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._server.close()


def _message(stream: BinaryIO, *, typed: bool) -> bytes:
    """Read one message of the frontend: a type, except for the first, and a length that counts itself."""
    head = stream.read(5 if typed else 4)
    if len(head) < (5 if typed else 4):
        raise EOFError
    length = int.from_bytes(head[-4:]) - 4
    return head + stream.read(length)
