"""Serving with uvicorn: mutual TLS from an identity source, Unix sockets, several servers in one loop.

`serve` is for a process that is one service; `Server` is awaitable, leaves signals alone, and any number of them run in
one loop. Both are uvicorn with `HauberkProtocol`: no proxy headers are believed, no `server` header is sent, nothing
is logged per request. HTTP/1.1 only.
"""

import asyncio
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, Self

import uvicorn
import uvloop

from hauberk.core.limits import DEFAULT_LIMITS, Limits
from hauberk.crypto.x509 import SvidInfo
from hauberk.errors import ConfigError, IdentityError, explained
from hauberk.integrations.uvicorn_protocol import (
    CONNECTIONS,
    HEAD_SECONDS,
    HauberkProtocol,
    OnViolation,
    Violation,
    problem_response,
    protocol_factory,
)
from hauberk.transport.connection import Connections
from hauberk.transport.contexts import Profile, Source, server_context
from hauberk.transport.room import Room, RoomyContext

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

__all__ = [
    "HauberkProtocol",
    "OnViolation",
    "Server",
    "Violation",
    "new_loop",
    "problem_response",
    "protocol_factory",
    "raise_descriptors",
    "serve",
]

App = Callable[[Any, Any, Any], Awaitable[None]]  # an ASGI 3 application, whatever types its framework uses
MAX_AGE = 3600.0  # seconds; a peer is looked at again at least as often as its SVID is renewed
AGE_GRACE = 30.0  # seconds a request in flight may go on after that
HANDSHAKE_SECONDS = 5.0  # for a TLS handshake; a mesh needs milliseconds, and each one under way holds a descriptor
UNIX_CONNECTIONS = 256  # of a server on a Unix socket
DRAIN_SECONDS = 10.0  # requests in flight may go on after a stop
_TICKS_PER_SECOND = 10  # of uvicorn's main loop
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Loop(uvloop.Loop):
    """A loop whose TLS servers give up a handshake after `handshake_seconds`; uvicorn has no setting for it."""

    handshake_seconds = HANDSHAKE_SECONDS

    async def create_server(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # as asyncio's, whatever overload
        """Listen; see `asyncio.loop.create_server`."""
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", self.handshake_seconds)
        return await super().create_server(*args, **options)


def new_loop(*, handshake_seconds: float = HANDSHAKE_SECONDS) -> asyncio.AbstractEventLoop:
    """Return a new event loop to run a `Server` in.

    Args:
        handshake_seconds: a TLS handshake of a server may take.
    """
    loop = _Loop()
    loop.handshake_seconds = handshake_seconds
    return loop


def raise_descriptors() -> None:
    """Let this process open as many descriptors as the system lets it: what is left at 1024 is easily used up."""
    if resource is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # where the hard limit is no number: the soft one stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_until_signal(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run what serves on a loop of its own.

    Args:
        serve: given what SIGINT and SIGTERM set; returns once it has drained.
    """

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, stop.set)
        await serve(stop)

    raise_descriptors()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def parse_listen(text: str) -> tuple[str, int]:
    """Parse `HOST:PORT` or `[ADDRESS]:PORT`.

    Raises:
        ConfigError: HBK-901 it is neither.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004  # the highest port
        raise ConfigError("HBK-901", "an address to listen on is HOST:PORT", listen=text)
    return host, int(port)


def _room_for(wanted: int | None, *, unix: bool) -> Room:
    """Return how many connections a server takes: never more than half of the descriptors there are."""
    limit = wanted or (UNIX_CONNECTIONS if unix else CONNECTIONS)
    if resource is not None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = limit if soft == resource.RLIM_INFINITY else min(limit, max(1, soft // 2))
    return Room(limit)


class Server(uvicorn.Server):
    """One listening socket.

    On a loop that is not `new_loop()`, a TLS handshake may take as long as that loop's default, 60 seconds with asyncio
    and uvloop; it counts against `max_connections` all the while.

    Args:
        app: the ASGI application.
        host: address to listen on.
        port: 0 for any; see `port` once started.
        uds: path of a Unix socket to listen on instead.
        uds_mode: its permissions; set before anybody can connect.
        tls: from `transport.contexts.server_context`; None for plaintext, which is for Unix sockets.
        connections: registry to join; one of its own by default.
        on_violation: told about bytes that never became a request.
        limits: of a request's head.
        head_seconds: from the first byte of a request to the end of its head.
        max_age: seconds after which a connection ends with the response it is at.
        keep_alive: seconds an idle connection is kept.
        drain_seconds: requests in flight may go on after a stop.
        max_connections: open at once, those that shake hands included; whoever comes then is hung up on before a byte
            is read. Default 10,000, on a Unix socket 256; never more than half of the process's descriptors, so that
            no listener can use up those of another.
    """

    def __init__(
        self,
        app: App,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        uds: str | Path | None = None,
        uds_mode: int = 0o600,
        tls: ssl.SSLContext | None = None,
        connections: Connections | None = None,
        on_violation: OnViolation | None = None,
        limits: Limits = DEFAULT_LIMITS,
        head_seconds: float = HEAD_SECONDS,
        max_age: float = MAX_AGE,
        keep_alive: int = 5,
        drain_seconds: float = DRAIN_SECONDS,
        max_connections: int | None = None,
    ) -> None:
        self.connections = Connections() if connections is None else connections
        self.room = room = _room_for(max_connections, unix=uds is not None)
        self._uds = None if uds is None else Path(uds)
        self._uds_mode = uds_mode
        self._head_seconds = head_seconds
        self._max_age = max_age
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            uds=None if uds is None else str(uds),
            http=protocol_factory(connections=self.connections, on_violation=on_violation, limits=limits, room=room),
            ws="none",  # the switched-to protocol would know no peer
            ssl_context_factory=None if tls is None else lambda *_: RoomyContext(tls, room),
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=keep_alive,
            timeout_graceful_shutdown=max(1, int(drain_seconds)),
        )
        super().__init__(config)

    async def start(self) -> Self:
        """Listen, and return once connections are accepted; the server goes on in its own task.

        Raises:
            ConfigError: HBK-901 the address cannot be listened on, or the application failed to start.
        """
        sockets = None if self._uds is not None else [_listening(self.config.host, self.config.port)]
        self._task = asyncio.create_task(self.serve(sockets))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            for listening in sockets or ():
                listening.close()
            await self._task
        return self

    async def stop(self) -> None:
        """Stop listening, let requests in flight finish, and return when all is closed."""
        self.should_exit = True
        if self._task is not None:
            await self._task

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def task(self) -> "asyncio.Task[None]":
        """The task the server runs in, once started."""
        if self._task is None:
            raise ConfigError("HBK-901", "the server was not started")
        return self._task

    @property
    def port(self) -> int:
        """The port listened on."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; uvicorn's own exits become errors."""
        if self._uds is not None:
            _claim(self._uds, self._uds_mode)
        try:
            await super().startup(sockets)
        except SystemExit:
            raise ConfigError("HBK-901", "the application failed to start") from None
        self._ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain and remove the Unix socket."""
        await super().shutdown(sockets)
        if self._uds is not None:
            self._uds.unlink(missing_ok=True)

    async def on_tick(self, counter: int) -> bool:
        """About once a second, end what is too slow or too old."""
        if counter % _TICKS_PER_SECOND == 0:
            self.room.sweep()
            self.connections.close_older_than(self._max_age)
            now, cut_off = time.monotonic(), self._max_age + AGE_GRACE
            for connection in list(self.server_state.connections):
                if isinstance(connection, HauberkProtocol):
                    connection.check_time(now, head_seconds=self._head_seconds, max_age=cut_off)
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the loop."""
        yield


class Host(Protocol):
    """What `serve` asks of a runtime; `hauberk.runtime.Runtime` is one."""

    @property
    def source(self) -> Source | None:
        """The identity to serve with, or None when there is none."""

    @property
    def connections(self) -> Connections:
        """Where connections are registered."""

    @property
    def limits(self) -> Limits:
        """Of a request."""

    @property
    def max_age(self) -> float:
        """Seconds after which a connection ends."""

    def admit(self, peer: SvidInfo) -> None:
        """Raise a `HauberkError` to refuse a verified peer."""

    def report_violation(self, code: str, violation: Violation) -> None:
        """Take note of bytes that never became a request."""

    def report_handshake(self, reason: str) -> None:
        """Take note of a failed handshake."""

    def close(self) -> None:
        """Drain and release everything."""


@explained()
def serve(
    app: App,
    *,
    host: str = "127.0.0.1",
    port: int = 8443,
    runtime: Host | None = None,
    source: Source | None = None,
    profile: Profile = "internal",
    require_client: bool = True,
    insecure_plaintext: bool = False,
    on_ready: Callable[[int], None] | None = None,
    **options: Any,  # noqa: ANN401  # handed on to Server, which names and types them
) -> None:
    """Serve until SIGINT or SIGTERM, over mutual TLS; then drain, and close the runtime.

    Args:
        app: the ASGI application; protect it with `hauberk.protect`.
        host: address to listen on.
        port: port to listen on.
        runtime: brings identity, registry and where failures are reported.
        source: the identity, where there is no runtime.
        profile: see `server_context`.
        require_client: see `server_context`.
        insecure_plaintext: serve without TLS when there is no identity, instead of refusing to start.
        on_ready: told the port once connections are accepted.
        options: further arguments of `Server`.

    Raises:
        IdentityError: HBK-211 there is no identity to serve with.
        ConfigError: HBK-901 the server could not start.
    """
    identity = source or (runtime.source if runtime is not None else None)
    if identity is None and not insecure_plaintext:
        raise IdentityError("HBK-211", "nothing to serve with")
    tls = None
    if identity is not None:
        tls = server_context(
            identity,
            profile=profile,
            require_client=require_client,
            on_failure=None if runtime is None else runtime.report_handshake,
            admit=None if runtime is None else runtime.admit,
        )
    if runtime is not None:
        own = {"connections": runtime.connections, "limits": runtime.limits, "max_age": runtime.max_age}
        options = {**own, "on_violation": runtime.report_violation, **options}
    try:
        _run(lambda: Server(app, host=host, port=port, tls=tls, **options), on_ready)
    finally:
        if runtime is not None:
            runtime.close()


def _listening(host: str, port: int) -> socket.socket:
    """Return a bound socket; uvicorn would log its own line about one that is in use, and exit.

    Raises:
        ConfigError: HBK-901.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "not an address"
        raise ConfigError("HBK-901", "cannot listen there", address=f"{host}:{port}", reason=reason) from None


def _claim(path: Path, mode: int) -> None:
    """Leave a stale socket of the right mode: uvicorn replaces it and takes its mode over.

    Raises:
        ConfigError: HBK-901 somebody listens there already, or it is no socket.
    """
    if path.exists():
        if not path.is_socket():
            raise ConfigError("HBK-901", "something that is no socket is in the way", path=str(path))
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise ConfigError("HBK-901", "somebody is listening there already", path=str(path))
        path.unlink()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    path.chmod(mode)


def _run(make: Callable[[], Server], on_ready: Callable[[int], None] | None) -> None:
    """Run one server on a loop of its own until a signal asks it to stop."""

    async def main(stop: asyncio.Event) -> None:
        server = await make().start()
        if on_ready is not None:
            on_ready(server.port)
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, server.task}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        await server.stop()

    run_until_signal(main)
