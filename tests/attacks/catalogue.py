"""Attacks on a running service. Each is one function that tells whether it worked, tried against an `Arena`.

The controls that an attack meets are found by trying: see `tests.attacks.ablation`.
"""

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from examples.payments.intruder import exchange
from hauberk.core.clock import ManualClock
from hauberk.core.spiffe import SpiffeId
from hauberk.identity.revocation import Revocations
from hauberk.integrations.asgi import Message, protect
from hauberk.transport.connection import peer_principal
from hauberk.transport.contexts import client_context
from hauberk.transport.handshake import PeerRefused
from tests.attacks.arena import (
    AGE,
    CLAIMS,
    CUT,
    EVIL,
    ORDERS,
    PARSER,
    PATIENCE,
    PAYMENTS,
    SECRET,
    SLOW,
    Arena,
    Stop,
    arena,
    careless,
    expired,
    grounds,
    honest,
    identity,
    request,
    rogue,
    serial,
)

PAYMENT = b'{"order": "o-1", "amount": 1}'
PAY = request("POST", "/api/payments", body=PAYMENT)
SHOW = request("GET", "/api/payments/p-1")
MEGABYTE = 1024 * 1024
HEAD_SECONDS = 0.3
AGAIN = "a caller looks at the callee before each request"
PIN = "the callee's exact id is pinned"
# Everything but the administration: as many write it, and as nobody should.
BROAD = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders-may, namespace: production}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/production/sa/order-service]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody-deletes, namespace: production}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/admin/*"]}}]}]}
"""
TRICKS = {
    "empty segment //": "/admin//delete",
    "encoded slash %2f": "/admin%2fdelete",
    "dot segments /../": "/api/payments/../../admin/delete",
    "path parameter ;": "/admin;x=1/delete",
    "encoded NUL %00": "/admin/delete%00.json",
    "needless escape %61": "/%61dmin/delete",
}
BROAD_TRICKS = {
    "leading //": "//admin/delete",
    "encoded slash ..%2f": "/api/..%2fadmin/delete",
    "dot segments /../": "/api/../admin/delete",
    "encoded dots %2e%2e": "/api/%2e%2e/admin/delete",
    "path parameter ..;": "/api/..;/admin/delete",
    "parameter on the first segment": "/admin;/delete",
    "encoded NUL between dots": "/x/../admin/delete%00",
    "escaped twice %2561": "/%2561dmin/delete",
}


@dataclass(frozen=True)
class Attack:
    """One line of the catalogue.

    Args:
        name: unique.
        layer: which of the test files tells what has to stop it.
        attempt: carries it out without the given controls; returns what stopped it, or None when it worked.
    """

    name: str
    layer: str
    attempt: Callable[[frozenset[str]], Stop | None]


def on_arena(
    layer: str, name: str, worked: Callable[[Arena], bool], *, quiet: Stop | None = None, **more: object
) -> Attack:
    """Return an attack on a running service.

    Args:
        layer: see `Attack`.
        name: see `Attack`.
        worked: carries it out and tells whether it did.
        quiet: what stopped it when nothing was recorded, because nothing had to be refused.
        more: how to build the arena; callables are called for each.
    """

    def attempt(off: frozenset[str]) -> Stop | None:
        with arena(off, **{key: value() if callable(value) else value for key, value in more.items()}) as ground:
            if worked(ground):
                return None
            return quiet if quiet is not None and not ground.entries() else ground.stop()

    return Attack(name, layer, attempt)


# transport


def plaintext(ground: Arena) -> bool:
    ground.send(None, PAY, tls=False)
    return ground.till.did("POST", "/api/payments")


def no_certificate(ground: Arena) -> bool:
    ground.send(None, PAY)
    return ground.till.did("POST", "/api/payments")


def rogue_authority(ground: Arena) -> bool:
    ground.send(identity(ORDERS, by=rogue), PAY)
    return ground.till.did("POST", "/api/payments")


def expired_certificate(ground: Arena) -> bool:
    ground.send(expired(), PAY)
    return ground.till.did("POST", "/api/payments")


def downgrade(ground: Arena) -> bool:
    context = careless(identity(ORDERS))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", ground.port), PATIENCE) as plain,
        suppress(ssl.SSLError),
        context.wrap_socket(plain) as wire,
    ):
        exchange(wire, PAY)
    return ground.till.did("POST", "/api/payments")


def impostor(off: frozenset[str]) -> Stop | None:
    """evil-service answers where payment-service was expected; does order-service tell it about a payment?"""
    with arena(off, me=EVIL) as ground:
        context = careless(identity(ORDERS)) if PIN in off else honest(identity(ORDERS))
        with socket.create_connection(("127.0.0.1", ground.port), PATIENCE) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="hauberk.invalid") as wire:
                    exchange(wire, PAY)
            except PeerRefused as refused:
                return Stop("transport", refused.code, PIN)
        # That evil-service lets itself be called is its own affair: the payment reached the wrong process.
        return None if ground.till.done or ground.entries() else ground.stop()


def kept_beyond_its_age(ground: Arena) -> bool:
    clock = ground.runtime.connections._clock
    assert isinstance(clock, ManualClock)
    with ground.connect(identity(ORDERS)) as wire:
        assert exchange(wire, SHOW)["status"] == 200
        clock.advance(ground.runtime.max_age + 1)
        ground.tick()
        exchange(wire, SHOW)  # the answer that says `connection: close`
        return int(str(exchange(wire, SHOW)["status"])) == 200


def slow_head(ground: Arena) -> bool:
    """Hold a connection by never finishing a request; a bounded time is all anybody gets."""
    with ground.connect(identity(ORDERS)) as wire:
        assert exchange(wire, SHOW)["status"] == 200
        wire.sendall(SHOW[:-2])
        until = time.monotonic() + (2 * HEAD_SECONDS if SLOW in ground.off else PATIENCE)
        while not ground.entries() and time.monotonic() < until:
            ground.tick()
        return int(str(exchange(wire, b"\r\n")["status"])) == 200


# identity


def revoke(ground: Arena) -> None:
    ground.runtime.revoke(Revocations.of(serials=[serial(identity(ORDERS))]))


def revoked_while_connected(ground: Arena) -> bool:
    with ground.connect(identity(ORDERS)) as wire:
        assert exchange(wire, SHOW)["status"] == 200
        revoke(ground)
        return exchange(wire, SHOW)["status"] == 200


def revoked_callee(off: frozenset[str]) -> Stop | None:
    """payment-service is revoked while order-service has a connection to it open; does it go on paying there?"""
    with arena(off) as ground, arena(me=ORDERS) as caller:
        context = client_context(caller.source, PAYMENTS) if AGAIN in off else caller.runtime.client_context(PAYMENTS)
        with (
            socket.create_connection(("127.0.0.1", ground.port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="hauberk.invalid") as wire,
        ):
            assert exchange(wire, SHOW)["status"] == 200
            caller.runtime.revoke(Revocations.of([str(PAYMENTS)]))
            with suppress(PeerRefused):
                exchange(wire, PAY)
        return None if ground.till.did("POST", "/api/payments") else Stop("identity", "HBK-206", AGAIN)


def revoked_and_back(ground: Arena) -> bool:
    revoke(ground)
    ground.send(identity(ORDERS), PAY)
    return ground.till.did("POST", "/api/payments")


def claimed_identity(ground: Arena) -> bool:
    claim = f"X-Forwarded-Client-Cert: By=spiffe://x;URI={ORDERS}"
    ground.send(identity(EVIL), request("POST", "/api/payments", claim, body=PAYMENT))
    return any(str(ORDERS) in headers.get("x-forwarded-client-cert", "") for _, _, headers, _ in ground.till.done)


# policy


def asks(method: str, path: str, who: SpiffeId, ground: Arena, *, as_path: str = "") -> bool:
    ground.send(identity(who), request(method, path))
    return ground.till.did(method, as_path or path)


def trick(path: str, ground: Arena) -> bool:
    return asks("POST", path, ORDERS, ground, as_path="/admin/delete")


# edge


def claimed_user(ground: Arena) -> bool:
    ground.send(identity(ORDERS), request("GET", "/api/payments/p-1", "X-Remote-User: root", "X_Forwarded_User: root"))
    return any({"x-remote-user", "x_forwarded_user"} & headers.keys() for _, _, headers, _ in ground.till.done)


def chunked_beside_a_length(ground: Arena) -> bool:
    """A proxy that believes the length forwards one request; does the service see a second one in its body?"""
    hidden = request("GET", "/api/payments/hidden")
    body = b"0\r\n\r\n" + hidden
    head = request("POST", "/api/payments", "Transfer-Encoding: chunked", f"Content-Length: {len(body)}")
    with ground.connect(identity(ORDERS)) as wire:
        if not exchange(wire, head + body)["closed"]:
            exchange(wire, b"")
    return ground.till.did("GET", "/api/payments/hidden")


def two_lengths(off: frozenset[str]) -> Stop | None:
    """Two lengths. Without our own parser: what a server passes on that takes the first one."""
    with arena(off) as ground:
        data = request("POST", "/api/payments", "Content-Length: 2", "Content-Length: 40") + b"{}"
        if PARSER not in off:
            ground.send(identity(ORDERS), data)
        else:
            grounds().run(_pass_on(ground))
        return None if ground.till.done else ground.stop()


async def _pass_on(ground: Arena) -> None:
    headers = [(b"host", b"payments"), (b"content-length", b"2"), (b"content-length", b"40")]
    peer = peer_principal(identity(ORDERS).current().svid)
    scope = {
        "type": "http", "method": "POST", "path": "/api/payments", "raw_path": b"/api/payments", "query_string": b"",
        "headers": headers, "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        "extensions": {"hauberk": {"peer": peer}},
    }  # fmt: skip

    async def receive() -> Message:  # ASGI's signature
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(_message: Message) -> None: ...

    await protect(ground.till, ground.runtime)(scope, receive, send)


def huge_header(ground: Arena) -> bool:
    ground.send(identity(ORDERS), request("GET", "/api/payments/p-1", f"X-Big: {'a' * MEGABYTE}"))
    return any(len(headers.get("x-big", "")) == MEGABYTE for _, _, headers, _ in ground.till.done)


def huge_body(ground: Arena) -> bool:
    ground.send(identity(ORDERS), request("POST", "/api/payments", body=b" " * (MEGABYTE + 1)))
    return any(size > MEGABYTE for _, _, _, size in ground.till.done)


def huge_chunked_body(ground: Arena) -> bool:
    pieces = (b"10000\r\n" + b" " * 65_536 + b"\r\n") * 17 + b"0\r\n\r\n"
    ground.send(identity(ORDERS), request("POST", "/api/payments", "Transfer-Encoding: chunked") + pieces)
    return any(size > MEGABYTE for _, _, _, size in ground.till.done)


async def _settle(_: Request) -> Response:  # Starlette's signature
    raise ConnectionError(f"could not connect to {SECRET}:5432")


def debugging() -> Starlette:
    """An application that somebody left in debug mode: it answers with its tracebacks."""
    return Starlette(debug=True, routes=[Route("/api/settlements", _settle, methods=["POST"])])


def leaking_error(ground: Arena) -> bool:
    return SECRET in str(ground.send(identity(ORDERS), request("POST", "/api/settlements"))["body"])


def catalogue() -> list[Attack]:
    """Return every attack on a running service."""
    transport, identities = partial(on_arena, "transport"), partial(on_arena, "identity")
    policy, edge = partial(on_arena, "policy"), partial(on_arena, "edge")
    dropped = Stop("edge", "", CLAIMS)
    return [
        transport("plaintext to the mutual TLS port", plaintext),
        transport("downgrade to TLS 1.2", downgrade),
        transport("no client certificate", no_certificate),
        transport("right id from a rogue CA", rogue_authority),
        transport("right id from the CA of a federated domain", rogue_authority, federated=True),
        transport("expired certificate", expired_certificate),
        Attack("an impostor answers for payment-service", "transport", impostor),
        transport(
            "connection kept beyond its maximum age",
            kept_beyond_its_age,
            clock=ManualClock,
            quiet=Stop("transport", "HBK-104", AGE),
        ),
        identities("revoked on an open connection", revoked_while_connected, quiet=Stop("identity", "HBK-206", CUT)),
        identities("revoked, connects again", revoked_and_back),
        Attack("a callee revoked on an open connection", "identity", revoked_callee),
        identities("forged X-Forwarded-Client-Cert", claimed_identity, quiet=dropped),
        policy("right identity, forbidden method", partial(asks, "DELETE", "/api/payments", ORDERS)),
        policy("right identity, forbidden path", partial(asks, "POST", "/admin/delete", ORDERS)),
        policy("wrong service", partial(asks, "POST", "/api/payments", EVIL)),
        *(edge(f"path trick: {name}", partial(trick, path)) for name, path in TRICKS.items()),
        *(
            edge(f"path trick under a broad ALLOW: {name}", partial(trick, path), policies=BROAD)
            for name, path in BROAD_TRICKS.items()
        ),
        edge("forged X-Remote-User", claimed_user, quiet=dropped),
        edge("smuggling: chunked beside a length", chunked_beside_a_length),
        Attack("smuggling: two lengths", "edge", two_lengths),
        edge("header of 1 MB", huge_header),
        edge("body over the limit", huge_body),
        edge("body over the limit, chunked", huge_chunked_body),
        edge("head that never ends", slow_head, head_seconds=HEAD_SECONDS),
        edge("error with an internal host name", leaking_error, app=debugging),
    ]
