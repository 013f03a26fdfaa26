"""uvicorn's HTTP/1.1 protocol, with who is calling in the ASGI scope and a limit on what comes before that matters.

`scope["extensions"]["hauberk"]` holds `peer` (Principal), `tls` (ConnectionInfo or None), `local` (PeerCredentials or
None), `connection` (Connection), `ends` (both addresses) and `sni` (the server name asked for), made once per
connection. What never becomes a request (malformed bytes, a head beyond its limit or its time) is answered here, as
RFC 9457 problem, because no ASGI application ever sees it. Trailer fields (RFC 9112 section 7.1.2) are dropped:
uvicorn would append them to the headers the application is reading already.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, ClassVar

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from hauberk.core.call import Address
from hauberk.core.ids import incident_id
from hauberk.core.limits import DEFAULT_LIMITS, Limits
from hauberk.core.ports import PeerCredentials
from hauberk.core.principal import Principal
from hauberk.errors import REGISTRY, IdentityError
from hauberk.identity.attest import peer_credentials
from hauberk.transport.connection import (
    AGED,
    Connection,
    Connections,
    connection_info,
    local_principal,
    peer_principal,
)
from hauberk.transport.room import Room

HEAD_SECONDS = 10.0  # from the first byte of a request to the end of its head; a mesh needs milliseconds
CONNECTIONS = 10_000  # of one server at once, those still shaking hands included
LINGER_SECONDS = 1.0  # after a refusal, so that a caller still sending reads the answer and not a reset
_AF_UNIX = getattr(socket, "AF_UNIX", None)
_VERSIONS = frozenset({"1.0", "1.1"})
_FIELD_OVERHEAD = 4  # ": " and CRLF around each field


def _server_log() -> logging.Logger:
    """Return the server's log without uvicorn's line for each malformed request: the record has it, and counts it."""
    log = logging.getLogger("hauberk.server")
    log.setLevel(logging.INFO)
    log.addFilter(lambda record: record.levelno != logging.WARNING)
    return log


_log = _server_log()


class Violation(msgspec.Struct, frozen=True):
    """Bytes that never became a request.

    Args:
        code: `HBK-401` malformed, `HBK-403` head too large, `HBK-405` ambiguous, `HBK-407` too slow.
        incident: what the caller was told.
        peer: who sent them.
        connection: number of the connection.
        address: from where; empty on a Unix socket.
    """

    code: str
    incident: str
    peer: Principal
    connection: int
    address: str = ""


OnViolation = Callable[[str, Violation], None]


class _Refused(Exception):  # it only carries control out of the parser's callback
    pass


class HauberkProtocol(HttpToolsProtocol):
    """One connection. Subclasses made by `protocol_factory` bring the settings."""

    registry: ClassVar[Connections] = Connections()
    on_violation: ClassVar[OnViolation | None] = None
    limits: ClassVar[Limits] = DEFAULT_LIMITS
    room: ClassVar[Room] = Room(CONNECTIONS)

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _log
        self._limit = self.limits.header_bytes
        self._open = False  # inside the head of a request
        self._bound = 0  # bytes received for the present head, at most
        self._progress = False  # the last bytes completed something
        self._stalled = 0  # bytes received in a row that completed nothing
        self._began = time.monotonic()  # when the head, or the wait for one, began; 0 while nothing is awaited
        self._body_began = 0.0  # when the last head was complete
        self._in_message = False  # between the end of a head and the end of its body
        self._earlier: list[RequestResponseCycle] = []  # of a pipeline, answered or not
        self._refusal = ""
        self._turned_away = False
        self._poisoned = False  # answered and lingering; whatever still comes is ignored

    # asyncio's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Find out who is calling, once; close at once when there is no room."""
        tls = transport.get_extra_info("ssl_object")
        if not self.room.enter(tls):
            self._turned_away = self._poisoned = True
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        info = connection_info(tls) if tls is not None else None
        local = _local_peer(transport)
        svid = info.peer if info is not None else None
        self.peer = peer_principal(svid) if local is None else local_principal(local)
        self.connection: Connection = self.registry.register(svid, self._close_from_any_thread)
        self._extension: dict[str, object] = {
            "peer": self.peer,
            "tls": info,
            "local": local,
            "connection": self.connection,
            "ends": _ends(self),
            "sni": "" if info is None else info.sni,
        }

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the registry, and tell every request of a pipeline that its caller has gone."""
        if self._turned_away:
            return
        self.room.leave()
        self.registry.forget(self.connection)
        self.pipeline.clear()
        super().connection_lost(exc)
        for cycle in self._earlier:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse; count what leads nowhere."""
        if self._poisoned:
            return
        size = len(data)
        self._bound = self._bound + size if self._open else size
        self._progress = False
        HttpToolsProtocol.data_received(self, data)
        if not self._progress:
            self._count_stalled(size)
        elif self._stalled:
            self._stalled = 0
            self._began = self._began if self._open else 0.0
        if self._open and self._bound > self._limit and self._head_size() > self._limit:
            self._refusal = "HBK-403"  # it is not complete yet, and too large already
            self.send_400_response("")  # once: an earlier refusal stands

    # the parser's side

    def on_message_begin(self) -> None:
        """Start a scope that says who is calling."""
        HttpToolsProtocol.on_message_begin(self)
        self._open = self._progress = True
        self._began = time.monotonic()
        self.scope["extensions"] = {"hauberk": self._extension}  # type: ignore[dict-item]  # ASGI lets values be anything

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; drop a trailer."""
        if self._open:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value.rstrip(b" \t")))  # RFC 9110 section 5.5; the parser leaves it on

    def on_headers_complete(self) -> None:
        """Start the application, unless the head is too large or the connection is to end."""
        self._open = False
        self._progress = True
        self._began = 0.0
        self._in_message = True
        self._body_began = time.monotonic()
        if self._bound > self._limit and self._head_size() > self._limit:
            self._refuse("HBK-403")
        self._check_target()
        closing = self.connection.closing
        if closing and closing != AGED:
            self._refuse(closing)
        before: RequestResponseCycle | None = self.cycle
        if before is not None and not before.response_complete:
            self._earlier = [*(cycle for cycle in self._earlier if not cycle.response_complete), before]
        HttpToolsProtocol.on_headers_complete(self)
        if closing:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._progress = True
        HttpToolsProtocol.on_body(self, body)

    def on_message_complete(self) -> None:
        """Note the end of a body, also of one nobody wanted."""
        self._in_message = False
        HttpToolsProtocol.on_message_complete(self)

    # refusals

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature; its text is replaced
        """Answer what is no request with a problem, tell the hook, and close."""
        if self._poisoned:
            return
        self._poisoned = True
        code, incident = self._refusal or "HBK-401", incident_id()
        report = type(self).on_violation
        if report is not None:
            report(code, Violation(code, incident, self.peer, self.connection.number, _ends(self)[0].ip))
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False  # the bad bytes follow a good request: its answer comes first, then the end
            return
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:  # the answer would be taken for another request's
                self.transport.close()
                return
        self.transport.write(problem_response(code, incident, self.server_state.default_headers))
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def eof_received(self) -> None:
        """Close: a caller that has hung up needs no lingering."""
        if self._poisoned:
            self.transport.close()

    def check_time(self, now: float, *, head_seconds: float, max_age: float) -> None:
        """Refuse a head that takes too long, and end what is too old; called about once a second.

        Args:
            now: monotonic seconds.
            head_seconds: a head may take.
            max_age: seconds after which even a request in flight is cut off.
        """
        if self._began and now - self._began > head_seconds and not self._poisoned:
            if self._bound:
                self._refusal = "HBK-407"
                self.send_400_response("")
            else:
                self.transport.close()
        elif self._in_message and not self._poisoned and now - self._body_began > self.limits.body_seconds:
            if self.cycle.response_complete:
                self.transport.close()
            else:
                self._refusal = "HBK-407"
                self.send_400_response("")
        if self.connection.closing == AGED and now - self.connection.opened_at > max_age:
            self.transport.abort()

    def _refuse(self, code: str) -> None:
        self._refusal = code
        raise _Refused

    def _count_stalled(self, size: int) -> None:
        self._stalled += size
        self._began = self._began or time.monotonic()
        if self._stalled > self._limit and not self._poisoned:
            self._refusal = "HBK-403" if self._open else "HBK-401"
            self.send_400_response("")

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in self.headers)

    def _check_target(self) -> None:
        """Refuse what is no plain HTTP/1 request, before anybody reads its target in another way.

        An upgrade or a tunnel ends the parser's work: whatever followed would be read by nobody. A fragment
        (RFC 9112 section 3.2) and userinfo (RFC 9110 section 4.2.4) have no place in a target.
        """
        parser = self.parser
        if parser.should_upgrade() or parser.get_http_version() not in _VERSIONS:
            self._refuse("HBK-401")
        if b"#" in self.url:
            self._refuse("HBK-402")
        if self.url[:1] != b"/" and not (self.url == b"*" and parser.get_method() == b"OPTIONS"):
            self._check_absolute()

    def _check_absolute(self) -> None:
        """RFC 9112 section 3.2.2: an absolute target beats Host, but everyone after us reads Host; they must agree."""
        url = httptools.parse_url(self.url)
        if url.userinfo or (url.schema or b"").decode("ascii").lower() != self.scheme:
            self._refuse("HBK-401")
        authority = (url.host or b"") + (b":%d" % url.port if url.port else b"")
        if [authority.lower()] != [value.lower() for name, value in self.headers if name == b"host"]:
            self._refuse("HBK-405")

    def _close_from_any_thread(self, code: str) -> None:
        if code == AGED:  # the next answer says `connection: close`; idle ones end by the keep-alive timeout
            return
        try:
            self.loop.call_soon_threadsafe(self.transport.abort)
        except RuntimeError:  # the loop has ended, and its connections with it
            self.registry.forget(self.connection)


def protocol_factory(
    *,
    connections: Connections | None = None,
    on_violation: OnViolation | None = None,
    limits: Limits = DEFAULT_LIMITS,
    room: Room | None = None,
) -> type[HauberkProtocol]:
    """Return a protocol class for `uvicorn.Config(http=...)`.

    Args:
        connections: where its connections are registered.
        on_violation: told about bytes that never became a request; from the loop, must not block or raise.
        limits: `header_bytes` bounds the head, in bytes.
        room: bounds open connections.
    """
    settings = {
        "registry": Connections() if connections is None else connections,
        "on_violation": None if on_violation is None else staticmethod(on_violation),
        "limits": limits,
        "room": Room(CONNECTIONS) if room is None else room,
    }
    return type("BoundProtocol", (HauberkProtocol,), settings)


def problem_response(code: str, incident: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return a complete HTTP/1.1 response with an RFC 9457 problem in it; it ends the connection."""
    spec = REGISTRY[code]
    body = msgspec.json.encode(
        {"type": "about:blank", "title": spec.public, "status": spec.status, "code": code, "incident": incident}
    )
    fields = [*headers, (b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    return STATUS_LINE[spec.status] + lines + b"connection: close\r\n\r\n" + body


def _local_peer(transport: asyncio.Transport) -> PeerCredentials | None:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != _AF_UNIX:
        return None
    try:
        return peer_credentials(sock)
    except IdentityError:  # not Linux: the caller stays anonymous
        return None


def _ends(protocol: HttpToolsProtocol) -> tuple[Address, str, int]:
    client, server = protocol.client or ("", 0), protocol.server or ("", 0)
    return Address(client[0], client[1] or 0), server[0], server[1] or 0
