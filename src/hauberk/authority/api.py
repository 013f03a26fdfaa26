"""The authority on the wire: three small applications, one per listener.

* TLS: `/v1/join` for anybody with a token; `/v1/renew`, `/v1/feed`, `/v1/records` and `/v1/log` for holders of an
  SVID. It sits behind the same guards as any service (`hauberk.protect`), with `POLICY` below.
* Workload socket: `/v1/attest` and `/v1/handover` for processes of this machine, attested by the kernel.
* Admin socket: everything else, for the user who runs the authority.

Callers of the first two learn a code, its constant text and the incident id under which the record has the rest; the
administrator learns the details at once. Strangers, the feed, the administrator and everybody else have threads of
their own, so that nobody of one sort waits for one of another, and nobody keeps a thread while a refusal is recorded.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, TypeVarTuple

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hauberk.authority.admin import admin_routes
from hauberk.authority.authority import Authority
from hauberk.authority.refusals import Attempt
from hauberk.authority.tiles import tile_routes
from hauberk.core.feed import HEARTBEAT
from hauberk.core.ports import PeerCredentials
from hauberk.core.principal import ANONYMOUS
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
    - operation: {methods: [GET], paths: [/v1/feed, /v1/log/*]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: hauberk-system}
spec: {mtls: {mode: PERMISSIVE}}
"""
# Threads of a listener for one sort of request each; more of that sort wait in line.
STRANGERS = 8  # for callers without an identity
SERVICES = 32  # for renewals and records
FEED = 4
ADMINISTRATION = 8
SMALL = 65_536  # bytes of a request without documents
_Form = TypeVar("_Form")
_Asked = TypeVarTuple("_Asked")
_Answer = TypeVar("_Answer")
Endpoint = Callable[[Request, Attempt], Awaitable[Response]]


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


def refusal(error: HauberkError, incident: str) -> Response:
    """Return a problem that says no more than the code, and where it is recorded."""
    status, headers, body = problem(error.code, incident)
    return Response(body, status, {key.decode(): value.decode() for key, value in headers})


async def run(pool: CapacityLimiter, method: Callable[[*_Asked], _Answer], *args: *_Asked) -> _Answer:
    """Call a blocking method in a thread of `pool`."""
    return await to_thread.run_sync(method, *args, limiter=pool)


def guarded(authority: Authority, what: str, pool: CapacityLimiter, endpoint: Endpoint) -> Route:
    """Return the route of `/v1/WHAT`, which turns typed errors into problems once they are recorded.

    Args:
        authority: who records.
        what: is asked for.
        pool: threads to record in what the endpoint itself refuses, such as a malformed body.
        endpoint: answers, and hands the attempt on to the method that may refuse it.
    """
    pseudonyms = authority.audit.pseudonyms

    async def serve(request: Request) -> Response:
        found = extension(request)
        attempt = Attempt(pseudonyms.of("address", found["ends"][0].ip if "ends" in found else ""))
        try:
            return await endpoint(request, attempt)
        except HauberkError as error:
            if attempt.receipt is None:
                actor = found.get("peer", ANONYMOUS).id
                await run(pool, authority.refuse, error, what, actor, attempt)
            return refusal(await attempt.settled(error), attempt.incident)

    return Route(f"/v1/{what}", serve, methods=["GET" if what == "feed" else "POST"])


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
        pool: threads to read it in.
    """

    def __init__(self, authority: Authority, pool: CapacityLimiter) -> None:
        self._authority = authority
        self._pool = pool
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.forget = authority.publisher.listen(self._wake)

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._exchange)

    def _exchange(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def answer(self, request: Request, _attempt: Attempt) -> Response:
        """Answer at once when there is something new, else with a heartbeat."""
        peer, after = svid(request), request.query_params.get("after", "0")
        if not after.isdecimal() or len(after) > 18:  # noqa: PLR2004  # digits of a 64-bit number
            raise EdgeError("HBK-401", "after is a number")
        self._authority.audience.heard(peer, int(after))
        changed = self._changed
        if int(after) == self._authority.publisher.number:
            with suppress(TimeoutError):  # silence: a heartbeat goes out
                await asyncio.wait_for(changed.wait(), HEARTBEAT)
        wire = await run(self._pool, self._authority.publisher.message, int(after))
        return Response(wire, media_type="application/msgpack")


def mesh_app(authority: Authority) -> Starlette:
    """Return the application of the TLS listener; make it in the loop that serves it."""
    strangers, services, feed = (CapacityLimiter(threads) for threads in (STRANGERS, SERVICES, FEED))

    async def join(request: Request, attempt: Attempt) -> Response:
        form = await read(request, JoinRequest)
        return answer(await run(strangers, authority.join, form.secret, form.csr, attempt))

    async def renew(request: Request, attempt: Attempt) -> Response:
        form = await read(request, RenewRequest)
        return answer(await run(services, authority.renew, svid(request), form.csr, attempt))

    async def records(request: Request, attempt: Attempt) -> Response:
        wire = await read_bytes(request, authority.config.limits.body_bytes * 4)
        positions = await run(services, authority.take_batch, svid(request), wire, attempt)
        return answer(BatchReply(tuple(positions)))

    poll = FeedPoll(authority, feed)

    @asynccontextmanager
    async def life(_app: Starlette) -> AsyncIterator[None]:
        yield
        poll.forget()  # its loop ends, the authority may serve again in another

    return Starlette(
        lifespan=life,
        routes=[
            guarded(authority, "join", strangers, join),
            guarded(authority, "renew", services, renew),
            guarded(authority, "records", services, records),
            guarded(authority, "feed", feed, poll.answer),
            *tile_routes(authority.store, authority.ledger.log, authority.recording.checkpoint, "/v1/log"),
        ],
    )


def workload_app(authority: Authority) -> Starlette:
    """Return the application of the workload socket; make it in the loop that serves it."""
    strangers = CapacityLimiter(STRANGERS)

    async def attest(request: Request, attempt: Attempt) -> Response:
        form, peer = await read(request, AttestRequest), local(request)
        return answer(await run(strangers, authority.attest, peer, form.csr, form.entry, attempt))

    async def handover(request: Request, attempt: Attempt) -> Response:
        form, peer = await read(request, HandoverRequest), local(request)
        token = await run(strangers, authority.handover, peer, form.entry, attempt)
        return answer(TokenReply(token.text()))

    return Starlette(
        routes=[
            guarded(authority, "attest", strangers, attest),
            guarded(authority, "handover", strangers, handover),
        ]
    )


def admin_app(authority: Authority) -> Starlette:
    """Return the application of the admin socket; make it in the loop that serves it."""
    return Starlette(routes=admin_routes(authority, CapacityLimiter(ADMINISTRATION)))
