"""One ASGI frame around an application: guards, record, application, safe errors.

The frame is the only place in the package that catches everything, because whatever an application raises must become
a constant answer. A response with status 500 is held back until the application has returned, and what it said is
replaced: frameworks put tracebacks into it, or answer before they raise.
"""

import asyncio
import atexit
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from hauberk.core.call import Address
from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.ids import incident_id
from hauberk.core.inbound import Inbound
from hauberk.core.principal import ANONYMOUS
from hauberk.edge.problem import problem
from hauberk.errors import Denied, EdgeError, HauberkError, RecordsError
from hauberk.runtime import Runtime

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

INTERNAL_ERROR = 500
MAX_CAUSE = 2000  # characters of a traceback in the record
POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1
INTERNAL = 1011  # RFC 6455 section 7.4.1, as registered with IANA
_WEBSOCKET_STARTS = frozenset({"websocket.accept", "websocket.http.response.start"})
_log = logging.getLogger("hauberk.server")
_JUDGED = frozenset({"http", "websocket"})
_NOBODY = ("", 0)
_FAILURES = frozenset({"HBK-406", "HBK-703", "HBK-704", "HBK-706"})  # ours, not the caller's
_ENDING = frozenset(
    {"HBK-401", "HBK-403", "HBK-404", "HBK-405", "HBK-407"}
)  # where the next request begins is in doubt
_NO_EXTENSION: dict[str, Any] = {}


def protect(app: App, runtime: Runtime | None = None) -> "Protected":
    """Return `app` with everything in front of it that `runtime` has: deny by default, safe errors, a record.

    Args:
        app: any ASGI application: Starlette, FastAPI, Django, a bare function.
        runtime: default an embedded one, made from `hauberk.toml` in the working directory.

    The application finds the call it serves as `scope["hauberk.call"]`.
    """
    if runtime is None:
        runtime = Runtime.embedded()
        atexit.register(runtime.close)  # nobody else holds it, and what was offered last is still to be written
    return Protected(app, runtime)


class _Allowed(msgspec.Struct, frozen=True, gc=False):
    """The last request that was allowed on a connection, and the moment that was decided for.

    Args:
        moment: `Runtime.moment` before the guards ran.
        head: what `_head_of` gave for it, before any header was dropped.
        inbound: the request after the guards.
        decision: the answer.
    """

    moment: object
    head: tuple[object, ...]
    inbound: Inbound
    decision: Decision


def _head_of(scope: Scope) -> tuple[object, ...]:
    """Everything of a request that guards look at, byte for byte; two requests with equal heads are equal to them."""
    return (
        scope["method"],
        scope["path"],
        scope["raw_path"],
        scope["query_string"],
        scope["http_version"],
        tuple(scope["headers"]),
    )


class Protected:
    """What `protect` returns: an ASGI application.

    Args:
        app: the one inside.
        runtime: what protects it.
    """

    def __init__(self, app: App, runtime: Runtime) -> None:
        self.app = app
        self.runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one WebSocket, or the lifespan."""
        kind = scope["type"]
        if kind not in _JUDGED:
            if kind == "lifespan":
                await self.app(scope, receive, send)
            return
        extension = (scope.get("extensions") or _NO_EXTENSION).get("hauberk") or _NO_EXTENSION
        inbound, decision = self._decide(scope, extension)
        if decision.verdict is Verdict.ALLOW and inbound.call is not None:
            waiting = self.runtime.record_allow(inbound.call, decision, time.time())
            if waiting is None or await self._recorded(waiting, scope, send):
                if inbound.dropped:
                    scope["headers"] = list(inbound.headers)  # a copy: applications may change theirs
                scope["hauberk.call"] = inbound.call  # for the application: who acts, as an event store wants to know
                exchange = _Exchange(self.runtime, inbound, scope, receive, send)
                # Our own server times bodies, and a body of known length cannot grow: then there is nothing to watch.
                watched = inbound.body or extension is _NO_EXTENSION
                try:
                    await self.app(scope, exchange.receive if watched else receive, exchange.send)
                except BaseException as error:  # noqa: BLE001  # the boundary: nothing an application raises may reach a caller
                    exchange.raised(error)
                if exchange.unsettled:
                    await exchange.settle()
            return
        incident = incident_id()
        if await self._recorded(self.runtime.record_denial(inbound, decision, incident), scope, send):
            await _refuse(scope, send, decision.code or "HBK-300", incident)

    def _decide(self, scope: Scope, extension: MutableMapping[str, Any]) -> tuple[Inbound, Decision]:
        """Run the guards, unless this connection has just been allowed an equal request.

        Guards are pure over the request and over what is in force, and the peer of a connection stays the same. So
        while neither that nor the connection's own state has changed, an equal head gets an equal answer.
        """
        runtime = self.runtime
        if extension is _NO_EXTENSION or scope["type"] != "http":
            inbound = inbound_of(scope, extension)
            return inbound, runtime.check(inbound)
        head = _head_of(scope)
        last: _Allowed | None = extension.get("last")
        if (
            last is not None
            and last.moment is runtime.moment
            and last.head == head
            and not extension["connection"].closing
        ):
            return last.inbound, last.decision
        moment = runtime.moment  # read before the guards run: whatever changes meanwhile makes it another
        inbound = inbound_of(scope, extension)
        decision = runtime.check(inbound)
        if decision.verdict is Verdict.ALLOW:
            extension["last"] = _Allowed(moment, head, inbound, decision)
        return inbound, decision

    async def _recorded(self, receipt: Any, scope: Scope, send: Send) -> bool:  # noqa: ANN401  # a Future of anything
        """Wait for a receipt; what cannot be recorded is not done, whatever was decided."""
        try:
            await asyncio.wrap_future(receipt)
        except RecordsError as error:
            await _refuse(scope, send, error.code, incident_id())
            return False
        return True


def inbound_of(scope: Scope, extension: MutableMapping[str, Any] = _NO_EXTENSION) -> Inbound:
    """Read an ASGI scope (ASGI 3, HTTP and WebSocket) into what guards look at; nothing is believed.

    Args:
        scope: of the request.
        extension: what our own server knows about the connection.
    """
    path: str = scope["path"]
    connection = extension.get("connection")
    address, destination_ip, port = extension.get("ends") or ends_of(scope)
    return Inbound(
        scope.get("method", "GET"),
        scope.get("raw_path") or path.encode("utf-8", "surrogatepass"),
        path,
        scope.get("query_string", b""),
        tuple(scope["headers"]),
        scope.get("http_version", "1.1"),
        extension.get("peer", ANONYMOUS),
        "" if connection is None else connection.closing,
        address,
        destination_ip,
        port,
        time.time(),
        extension.get("sni", ""),
    )


def ends_of(scope: Scope) -> tuple[Address, str, int]:
    """Return the peer's address, and our own address and port; the same for every request of a connection."""
    client, server = scope.get("client") or _NOBODY, scope.get("server") or _NOBODY
    return Address(client[0] or "", client[1] or 0), server[0] or "", server[1] or 0


async def _refuse(scope: Scope, send: Send, code: str, incident: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": INTERNAL if code in _FAILURES else POLICY_VIOLATION})
        return
    status, headers, body = problem(code, incident)
    if code in _ENDING and scope.get("http_version", "1.1") < "2":  # RFC 9113 section 8.2.2
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _nothing() -> None:
    pass


class _Exchange:
    """One request on its way through the application: its body is bounded, its failure contained."""

    # What most requests never change stands here once, not in each of them.
    unsettled = False  # the answer is ours to give, now that the application has returned; nothing of its own goes out
    _bytes = 0
    _more = True
    _started = False
    _deadline = 0.0
    _refused = ""
    _denied: Denied | None = None
    _cause = "the application answered 500"

    def __init__(self, runtime: Runtime, inbound: Inbound, scope: Scope, receive: Receive, send: Send) -> None:
        self._runtime = runtime
        self._inbound = inbound
        self._scope = scope
        self._receive = receive
        self._send = send

    def raised(self, error: BaseException) -> None:
        """Take what the application raised; what somebody outside asked for goes on."""
        if isinstance(error, EdgeError | Denied):
            self._refused = self._refused or error.code
            self._denied = error if isinstance(error, Denied) else None
        elif _is_from_outside(error):
            raise error
        else:
            self._cause = _cause_of(error)
        self.unsettled = True

    async def settle(self) -> None:
        """Answer for an application that did not, or not in words a caller may read."""
        await (self._refuse_late() if self._refused else self._fail())

    async def receive(self) -> Message:
        """Receive for the application, within the limits of a body."""
        if not self._more:
            return await self._receive()
        message = await self._in_time()
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._more = message.get("more_body", False)
            if self._bytes > self._runtime.limits.body_bytes:
                self._refuse("HBK-404")
                raise EdgeError("HBK-404", "the body is too large", bytes=self._bytes)
        else:
            self._more = False
        return message

    async def _in_time(self) -> Message:
        """Receive within the time a body may take."""
        if not self._deadline:
            self._deadline = asyncio.get_running_loop().time() + self._runtime.limits.body_seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._receive()
        except TimeoutError:
            self._refuse("HBK-407")
            raise EdgeError("HBK-407", "the body came too slowly") from None

    def _refuse(self, code: str) -> None:
        self._refused = code
        self.unsettled = True

    def send(self, message: Message) -> Awaitable[None]:
        """Send for the application, unless the answer is ours."""
        if self.unsettled:
            return _nothing()
        kind = message["type"]
        if kind == "http.response.start" or kind in _WEBSOCKET_STARTS:
            if message.get("status") == INTERNAL_ERROR:
                self.unsettled = True
                return _nothing()
            self._started = True
            self._more = self._more and kind == "http.response.start"
        return self._send(message)

    async def _refuse_late(self) -> None:
        """The body turned out to be too large or too slow, or the application enforced a decision of its own."""
        incident = incident_id()
        decision = Decision(Verdict.DENY, Layer.EDGE, self._refused, reason="found while the body was read")
        if self._denied is not None:
            rule = self._denied.context.get("rule")
            decision = Decision(
                Verdict.DENY, Layer.POLICY, self._refused, str(rule) if rule else None, reason=self._denied.detail
            )
        try:
            await asyncio.wrap_future(self._runtime.record_denial(self._inbound, decision, incident))
        except RecordsError as error:
            self._refused = error.code
        if not self._started:
            await _refuse(self._scope, self._send, self._refused, incident)

    async def _fail(self) -> None:
        incident = incident_id()
        code = "HBK-406"
        _log.error("the application failed: incident %s, its cause is in the ledger under that id", incident)
        try:
            await asyncio.wrap_future(self._runtime.record_failure(self._inbound, incident, self._cause))
        except RecordsError as error:
            code = error.code
        if not self._started:
            await _refuse(self._scope, self._send, code, incident)
            return
        raise _Broken  # the head is gone already: the server has to cut the connection


class _Broken(Exception):
    """A response that failed in the middle; says nothing to anybody."""


def _cause_of(error: BaseException) -> str:
    """The end of the traceback, for operators."""
    told = error.diagnostics() if isinstance(error, HauberkError) else ""
    text = ("".join(traceback.format_exception(error)) + told)[-MAX_CAUSE:]
    return text.encode("utf-8", "backslashreplace").decode("utf-8")[-MAX_CAUSE:]


def _is_from_outside(error: BaseException) -> bool:
    """Tell whether somebody else asks this task to end; an application's own exit or cancellation is its failure."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)
