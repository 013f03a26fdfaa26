"""The authority on the wire: three small applications, one per listener.

* TLS: `/v1/join` for anybody with a token; `/v1/renew`, `/v1/feed`, `/v1/records` for holders of an SVID. It sits
  behind the same guards as any service (`hauberk.protect`), with `POLICY` below.
* Workload socket: `/v1/attest` and `/v1/handover` for processes of this machine, attested by the kernel.
* Admin socket: everything else, for the user who runs the authority.

Callers of the first two learn a code and its constant text; the administrator learns the details too.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hauberk.authority.admin import admin_routes
from hauberk.authority.authority import Authority
from hauberk.core.feed import HEARTBEAT
from hauberk.core.ids import incident_id
from hauberk.core.ports import PeerCredentials
from hauberk.core.wire import AttestRequest, BatchReply, HandoverRequest, JoinRequest, RenewRequest, TokenReply
from hauberk.crypto.x509 import SvidInfo
from hauberk.edge.problem import problem
from hauberk.errors import EdgeError, HauberkError, IdentityError

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: authority, namespace: hauberk-system}
spec:
  rules:
  - to: [{operation: {methods: [POST], paths: [/v1/join]}}]
  - from: [{source: {principals: ["*"]}}]
    to:
    - operation: {methods: [POST], paths: [/v1/renew, /v1/records]}
    - operation: {methods: [GET], paths: [/v1/feed]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: hauberk-system}
spec: {mtls: {mode: PERMISSIVE}}
"""
# Requests of callers without an identity that are worked on at once: a flood of them waits in line and leaves the other
# threads of the pool (forty) to services and the administrator.
STRANGERS = 8
SMALL = 65_536  # bytes of a request without documents
_Form = TypeVar("_Form")
Endpoint = Callable[[Request], Awaitable[Response]]


async def read(request: Request, form: type[_Form], limit: int = SMALL) -> _Form:
    """Read a JSON body.

    Raises:
        EdgeError: HBK-404 too large, HBK-401 not that form.
    """
    data = await read_bytes(request, limit)
    try:
        return msgspec.json.decode(data, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EdgeError("HBK-401", str(error)[:200]) from None


async def read_bytes(request: Request, limit: int) -> bytes:
    """Read a body of at most `limit` bytes.

    Raises:
        EdgeError: HBK-404.
    """
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise EdgeError("HBK-404", "too large", bytes=limit)
    return data


def answer(value: object) -> Response:
    """Return a JSON response."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def refusal(error: HauberkError) -> Response:
    """Return a problem that says no more than the code."""
    status, headers, body = problem(error.code, incident_id())
    return Response(body, status, {key.decode(): value.decode() for key, value in headers})


def guarded(endpoint: Endpoint) -> Endpoint:
    """Turn typed errors into problems."""

    async def serve(request: Request) -> Response:
        try:
            return await endpoint(request)
        except HauberkError as error:
            return refusal(error)

    return serve


def extension(request: Request) -> dict[str, Any]:
    """Return what the server knows about the connection."""
    return dict(request.scope.get("extensions", {}).get("hauberk", {}))


def local(request: Request) -> PeerCredentials:
    """Return the kernel's credentials of the caller.

    Raises:
        IdentityError: HBK-207 there are none.
    """
    found = extension(request).get("local")
    if not isinstance(found, PeerCredentials):
        raise IdentityError("HBK-207", "no credentials of a Unix socket")
    return found


def svid(request: Request) -> SvidInfo:
    """Return the caller's SVID.

    Raises:
        IdentityError: HBK-211 it presented none.
    """
    tls = extension(request).get("tls")
    found = tls.peer if tls is not None else None
    if not isinstance(found, SvidInfo):
        raise IdentityError("HBK-211", "an SVID is needed here")
    return found


class FeedPoll:
    """Long polls on the feed; wakes all of them at once when something changes.

    Args:
        authority: whose feed.
    """

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.forget = authority.publisher.listen(self._wake)

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._exchange)

    def _exchange(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def __call__(self, request: Request) -> Response:
        """Answer at once when there is something new, else with a heartbeat."""
        peer, after = svid(request), request.query_params.get("after", "0")
        if not after.isdecimal() or len(after) > 18:  # noqa: PLR2004  # digits of a 64-bit number
            raise EdgeError("HBK-401", "after is a number")
        self._authority.audience.heard(peer, int(after))
        changed = self._changed
        if int(after) == self._authority.publisher.number:
            with suppress(TimeoutError):  # silence: a heartbeat goes out
                await asyncio.wait_for(changed.wait(), HEARTBEAT)
        wire = await run_in_threadpool(self._authority.publisher.message, int(after))
        return Response(wire, media_type="application/msgpack")


def mesh_app(authority: Authority) -> Starlette:
    """Return the application of the TLS listener; make it in the loop that serves it."""
    strangers = asyncio.Semaphore(STRANGERS)

    async def join(request: Request) -> Response:
        form = await read(request, JoinRequest)
        async with strangers:
            return answer(await run_in_threadpool(authority.join, form.secret, form.csr))

    async def renew(request: Request) -> Response:
        form = await read(request, RenewRequest)
        return answer(await run_in_threadpool(authority.renew, svid(request), form.csr))

    async def records(request: Request) -> Response:
        wire = await read_bytes(request, authority.config.limits.body_bytes * 4)
        positions = await run_in_threadpool(authority.take_batch, svid(request), wire)
        return answer(BatchReply(tuple(positions)))

    poll = FeedPoll(authority)

    @asynccontextmanager
    async def life(_app: Starlette) -> AsyncIterator[None]:
        yield
        poll.forget()  # its loop ends, the authority may serve again in another

    return Starlette(
        lifespan=life,
        routes=[
            Route("/v1/join", guarded(join), methods=["POST"]),
            Route("/v1/renew", guarded(renew), methods=["POST"]),
            Route("/v1/records", guarded(records), methods=["POST"]),
            Route("/v1/feed", guarded(poll.__call__), methods=["GET"]),
        ],
    )


def workload_app(authority: Authority) -> Starlette:
    """Return the application of the workload socket."""
    strangers = asyncio.Semaphore(STRANGERS)

    async def attest(request: Request) -> Response:
        form, peer = await read(request, AttestRequest), local(request)
        async with strangers:
            return answer(await run_in_threadpool(authority.attest, peer, form.csr, form.entry))

    async def handover(request: Request) -> Response:
        form, peer = await read(request, HandoverRequest), local(request)
        async with strangers:
            token = await run_in_threadpool(authority.handover, peer, form.entry)
        return answer(TokenReply(token.text()))

    return Starlette(
        routes=[
            Route("/v1/attest", guarded(attest), methods=["POST"]),
            Route("/v1/handover", guarded(handover), methods=["POST"]),
        ]
    )


def admin_app(authority: Authority) -> Starlette:
    """Return the application of the admin socket."""
    return Starlette(routes=admin_routes(authority))
