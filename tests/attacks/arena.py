"""The arena: a protected service on a real socket, and the same service with named controls left out.

Everything is real: TLS by the project's contexts, uvicorn by its server, guards and ledger by its runtime. A control is
left out by building the parts without it; nothing is patched and no result is made up. What stopped an attempt is read
from the ledger, and from the ledger alone it follows which control that was.

Attackers use sockets and hold one of three identities: `order-service` (may pay), `evil-service` (in the mesh, allowed
nothing), or whatever certificate they like.
"""

import asyncio
import json
import posixpath
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import uvloop

from examples.payments.intruder import exchange
from hauberk.adapters.memory import MemoryStore
from hauberk.core.call import Headers, Workload
from hauberk.core.clock import SYSTEM_CLOCK, Clock, ManualClock
from hauberk.core.config import Config, EdgeConfig
from hauberk.core.decision import Decision, Layer
from hauberk.core.inbound import Inbound
from hauberk.core.limits import Limits
from hauberk.core.ports import Guard
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.keyring import Pseudonyms
from hauberk.crypto.signing import SigningKey
from hauberk.crypto.x509 import CertificateAuthority, WorkloadKey
from hauberk.edge.forwarded import drop_claims
from hauberk.edge.guard import CanonicalRequest
from hauberk.identity.bundle import BundleSet, TrustBundle
from hauberk.identity.source import SvidSource
from hauberk.integrations.asgi import App, Receive, Scope, Send, protect
from hauberk.integrations.uvicorn import HauberkProtocol, Server
from hauberk.policy.model import Action
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.records.fold import Folder
from hauberk.records.ledger import Ledger
from hauberk.records.view import entry_view
from hauberk.runtime import Runtime
from hauberk.transport.connection import Connections
from hauberk.transport.contexts import RotatingContext, _in_memory, client_context, server_context

DOMAIN = "example.org"
FOREIGN = "evil.org"
MESH = (Path(__file__).parents[2] / "examples" / "payments" / "policies" / "mesh.yaml").read_text("utf-8")
PAYMENTS = SpiffeId.service(DOMAIN, "production", "payment-service")
ORDERS = SpiffeId.service(DOMAIN, "production", "order-service")
EVIL = SpiffeId.service(DOMAIN, "production", "evil-service")
PATIENCE = 5.0  # seconds for an answer, or for an entry of something no answer was waited for
HOUR = 3600.0
STARTED = time.time()
SECRET = "ledger-db-7.corp.internal"
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME
HUGE = Limits(header_bytes=1 << 26, header_count=10_000, target_bytes=1 << 26, body_bytes=1 << 30)

# The controls that can be left out.
TLS = "TLS"
VERSION = "TLS 1.3 and nothing older"
CLIENT = "a client certificate is demanded"
OPENSSL = "chain and time, by OpenSSL"
BUNDLE = "chain and time, by the bundle of the id's own domain"
ADMIT = "revoked peers are refused at the handshake"
CUT = "open connections of a revoked peer are cut"
CONNECTION = "guard: connection identity"
PATH = "guard: one path, one meaning"
FRAMING = "guard: framing and sizes"
DENY = "policy: a DENY rule names it"
POLICY = "guard: policy"
CLAIMS = "claims of strangers are dropped"
PARSER = "strict HTTP parser"
HEAD = "bound on the head, in the server"
BODY = "bound on the body, while it is read"
FRAME = "answers of failed applications are replaced"
TICKETS = "no session tickets"
AGE = "connections have a maximum age"
SLOW = "a head has to arrive in time"


@dataclass(frozen=True)
class Stop:
    """What stopped an attempt.

    Args:
        layer: of the architecture.
        code: `HBK-###`, or empty where nothing is refused because nothing has to be.
        control: which one it was.
    """

    layer: str
    code: str
    control: str

    @property
    def short(self) -> str:
        return f"{self.layer} {self.code}".strip()


class Till:
    """The application: it remembers what it was made to do, and routes as leniently as many frameworks do."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, dict[str, str], int]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.done.append((scope["method"], lenient(scope["path"]), headers, size))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})

    def did(self, method: str, path: str) -> bool:
        return any((it[0], it[1]) == (method, path) for it in self.done)


def lenient(path: str) -> str:
    """Unescape again, cut at NUL, drop path parameters, resolve dots and doubled slashes."""
    text = unquote(path).partition("\0")[0]
    return posixpath.normpath("/" + "/".join(part.partition(";")[0] for part in text.split("/")).lstrip("/"))


class LenientRequest:
    """The canonical guard with one or both of its halves left out: that half is shown something harmless instead.

    Args:
        guard: the real one.
        paths: whether paths are looked at.
        framing: whether headers are.
    """

    name = "canonical request"
    layer = Layer.EDGE

    def __init__(self, guard: CanonicalRequest, *, paths: bool, framing: bool) -> None:
        self._guard = guard
        self._paths = paths
        self._framing = framing

    def check(self, inbound: Inbound) -> Decision | None:
        shown = msgspec.structs.replace(inbound)
        if not self._paths:
            shown.raw_path, shown.path, shown.query = b"/", "/", b""
        if not self._framing:
            shown.headers = [(b"host", b"payments")]
        decision = self._guard.check(shown)
        if decision is not None or shown.call is None:
            return decision
        kept = shown.headers if self._framing else drop_claims(inbound.headers)
        path = shown.call.path if self._paths else inbound.path
        inbound.headers = kept
        inbound.body = shown.body if self._framing else True  # nobody looked: a body may follow
        inbound.call = msgspec.structs.replace(shown.call, path=path, headers=Headers(kept))
        return None


class _Grounds:
    """One event loop in a thread of its own, shared by every server of the arena."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="arena", daemon=True).start()

    def run(self, work: Awaitable[object]) -> None:
        async def waited() -> None:
            await work

        asyncio.run_coroutine_threadsafe(waited(), self._loop).result(30)


@cache
def grounds() -> _Grounds:
    return _Grounds()


@cache
def authority() -> CertificateAuthority:
    return CertificateAuthority.create(DOMAIN, clock=ManualClock(STARTED - 4 * HOUR))


@cache
def rogue() -> CertificateAuthority:
    """A CA of the attacker's own making, for our trust domain."""
    return CertificateAuthority.create(DOMAIN, clock=ManualClock(STARTED - 4 * HOUR))


@cache
def identity(spiffe_id: SpiffeId, *, by: Callable[[], CertificateAuthority] = authority) -> SvidSource:
    key, then = WorkloadKey.generate(), ManualClock(STARTED - 3 * HOUR)
    return SvidSource(key, by().issue(key.request(spiffe_id), spiffe_id, ttl=6 * HOUR, clock=then), BundleSet(home()))


@cache
def expired() -> SvidSource:
    """What the real authority issued two hours ago for a minute."""
    key, then = WorkloadKey.generate(), ManualClock(STARTED - 2 * HOUR)
    return SvidSource(key, authority().issue(key.request(ORDERS), ORDERS, ttl=60.0, clock=then), BundleSet(home()))


def home() -> TrustBundle:
    return TrustBundle.of(DOMAIN, authority().root_der)


class Arena:
    """A payment service under attack.

    Args:
        off: controls left out.
        policies: YAML.
        app: the application inside; default a `Till`.
        federated: OpenSSL also knows the rogue root, as that of another trust domain.
        me: whose identity the server presents.
        clock: of connection ages.
        head_seconds: a head may take.
    """

    def __init__(
        self,
        off: frozenset[str] = frozenset(),
        *,
        policies: str = MESH,
        app: App | None = None,
        federated: bool = False,
        me: SpiffeId = PAYMENTS,
        clock: Clock = SYSTEM_CLOCK,
        head_seconds: float = 10.0,
    ) -> None:
        self.off = off
        self._head_seconds = 1e9 if SLOW in off else head_seconds
        self.till = Till()
        self.ledger = Ledger(MemoryStore(), SigningKey.generate(), f"{DOMAIN}/ledger")
        self.source = self._source(me, federated=federated)
        self.runtime = Runtime(
            config=self._config(),
            workload=Workload("production", "payment-service", {"app": "payment-service"}),
            policies=self._policies(policies),
            recorder=Folder(self.ledger),
            pseudonyms=Pseudonyms(bytes(32)),
            source=self.source,
            record_allows=False,
            clock=clock,
        )
        self.runtime.guards = self._guards()
        inner = self.till if app is None else app
        self.server = self._server(inner if FRAME in off else protect(inner, self.runtime))

    # building, with and without

    def _policies(self, text: str) -> PolicySet:
        documents = parse_documents(text)
        if DENY in self.off:
            documents = tuple(it for it in documents if getattr(it, "action", None) is not Action.DENY)
        return PolicySet.default(aliases=("cluster.local",)).with_documents(documents)

    def _source(self, me: SpiffeId, *, federated: bool) -> SvidSource:
        roots = [authority().root_der, *([rogue().root_der] if BUNDLE in self.off else [])]
        bundles = BundleSet(TrustBundle.of(DOMAIN, *roots))
        if federated or OPENSSL in self.off:
            bundles = bundles.with_bundle(TrustBundle.of(FOREIGN, rogue().root_der))
        mine = identity(me).current()
        return SvidSource(mine.key, mine.svid, bundles)

    def _config(self) -> Config:
        limits = HUGE if BODY in self.off else Limits()
        believed = (str(ORDERS), str(EVIL)) if CLAIMS in self.off else ()
        return Config(limits=limits, edge=EdgeConfig(trusted_hops=believed))

    def _guards(self) -> tuple[Guard, ...]:
        connection, canonical, policy = self.runtime.guards
        if {PATH, FRAMING} & self.off:
            real = CanonicalRequest(
                self.runtime.workload, self.runtime.limits, frozenset(self.runtime.config.edge.trusted_hops)
            )
            canonical = LenientRequest(real, paths=PATH not in self.off, framing=FRAMING not in self.off)
        kept = ((CONNECTION, connection), (PATH + FRAMING, canonical), (POLICY, policy))
        return tuple(guard for name, guard in kept if name not in self.off)

    def _tls(self) -> RotatingContext:
        context = server_context(
            self.source,
            require_client=CLIENT not in self.off,
            on_failure=self.runtime.report_handshake,
            admit=None if ADMIT in self.off else self.runtime.admit,
            clock=ManualClock(STARTED - 2 * HOUR) if BUNDLE in self.off else SYSTEM_CLOCK,
        )
        inner = context.fresh()  # the one that serves: the identity does not change here
        if OPENSSL in self.off:
            inner.verify_flags |= NO_CHECK_TIME
        if VERSION in self.off:
            inner.minimum_version = ssl.TLSVersion.TLSv1_2
        if TICKETS in self.off:
            inner.options &= ~ssl.OP_NO_TICKET
            inner.num_tickets = 2
        return context

    def _server(self, app: App) -> Server:
        server = Server(
            app,
            tls=None if TLS in self.off else self._tls(),
            connections=Connections() if CUT in self.off else self.runtime.connections,
            on_violation=self.runtime.report_violation,
            limits=HUGE if HEAD in self.off else self.runtime.limits,
            max_age=1e9 if AGE in self.off else self.runtime.max_age,
            head_seconds=self._head_seconds,
            drain_seconds=1.0,
        )
        protocol = server.config.http
        if PARSER in self.off and isinstance(protocol, type) and issubclass(protocol, HauberkProtocol):
            server.config.http = _lenient_protocol(protocol)
        return server

    # life

    @property
    def port(self) -> int:
        return self.server.port

    def start(self) -> None:
        grounds().run(self.server.start())

    def close(self) -> None:
        self.server.should_exit = True  # the loop closes it within a tick; nobody has to wait for that
        self.runtime.close()

    # what attackers do

    def connect(
        self, who: SvidSource | None, *, session: ssl.SSLSession | None = None, tls: bool = True
    ) -> socket.socket:
        """Connect as an attacker does who verifies nothing and sends whatever certificate he has."""
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        if not tls:
            return plain
        context = careless(who)
        try:
            return context.wrap_socket(plain, session=session)
        except OSError:
            plain.close()
            raise

    def send(self, who: SvidSource | None, data: bytes, *, tls: bool = True) -> dict[str, Any]:
        """Send bytes on a connection of their own and return what came back; a refusal is status 0."""
        try:
            with self.connect(who, tls=tls) as wire:
                return exchange(wire, data)
        except (OSError, ValueError, IndexError) as refused:  # also an alert where an answer was expected
            return {"status": 0, "body": "", "closed": True, "error": type(refused).__name__}

    def tick(self) -> None:
        """Have the server look at its connections now, as it does each second."""
        grounds().run(self.server.on_tick(0))

    # what the record says

    def entries(self) -> list[dict[str, Any]]:
        return [dict(entry_view(entry)) for entry in self.ledger.entries()]

    def stop(self) -> Stop:
        """Return what the newest entry says stopped an attack; wait for one that is on its way.

        Raises:
            AssertionError: nothing was recorded.
        """
        until = time.monotonic() + PATIENCE
        while not (found := self.entries()):
            if time.monotonic() > until:
                raise AssertionError("an attack was stopped and nothing was recorded")
            time.sleep(0.005)
        return stop_of(found[-1])


def careless(who: SvidSource | None) -> ssl.SSLContext:
    """Return the context of somebody who does not care whom he talks to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if who is not None:
        material = who.current()
        with _in_memory(material.key.pem(), material.svid.pem) as (key, chain):
            context.load_cert_chain(chain, key)
    return context


def honest(who: SvidSource) -> RotatingContext:
    """Return the context of a service that pins the payment service."""
    return client_context(who, PAYMENTS)


def _lenient_protocol(base: type[HauberkProtocol]) -> type[HauberkProtocol]:
    class Lenient(base):  # type: ignore[valid-type,misc]  # made for each server
        def __init__(self, **options: object) -> None:
            super().__init__(**options)
            self.parser.set_dangerous_leniencies(lenient_chunked_length=True, lenient_keep_alive=True)

    return Lenient


_HANDSHAKE = {
    "http request": TLS,
    "unsupported protocol": VERSION,
    "peer did not return a certificate": CLIENT,
    "certificate verify failed": OPENSSL,
    "HBK-209": BUNDLE,
    "HBK-206": ADMIT,
}
_EDGE = {"HBK-402": PATH, "HBK-403": FRAMING, "HBK-404": FRAMING, "HBK-405": FRAMING}
_SERVER = {"HBK-401": PARSER, "HBK-403": HEAD, "HBK-407": SLOW}


def stop_of(entry: dict[str, Any]) -> Stop:
    """Read from a ledger entry which control refused."""
    layer, code = str(entry["type"]).partition(".")[0], str(entry["code"])
    data = entry.get("data", {})
    if code == "HBK-101":
        control = next(name for words, name in _HANDSHAKE.items() if str(entry["rule"]).startswith(words))
    elif layer == "request":
        layer, control = "edge", FRAME
    elif layer == "policy":
        control = DENY if entry.get("rule") else POLICY
    elif layer == "edge" and "reason" not in data:
        control = _SERVER[code]  # bytes that never became a request
    elif layer == "edge":
        control = BODY if "while the body was read" in data["reason"] else _EDGE[code]
    else:
        control = CONNECTION
    return Stop(layer, code, control)


@contextmanager
def arena(off: frozenset[str] = frozenset(), **more: Any) -> Iterator[Arena]:  # noqa: ANN401  # those of Arena
    """Open an arena without the controls in `off`; see `Arena`."""
    opened = Arena(off, **more)
    opened.start()
    try:
        yield opened
    finally:
        opened.close()


def request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    """Return the bytes of an HTTP/1.1 request; a length is added where there is a body."""
    lines = [f"{method} {target} HTTP/1.1", "Host: payments", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def problem(answer: dict[str, Any]) -> str:
    """Return the code a caller was told, or empty."""
    try:
        return str(json.loads(answer["body"] or "{}").get("code", ""))
    except ValueError:
        return ""


def serial(who: SvidSource) -> str:
    return who.current().svid.serial
