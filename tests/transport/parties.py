"""Identities and handshakes in memory."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx2

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.x509 import CertificateAuthority, SvidInfo, WorkloadKey
from hauberk.identity.bundle import BundleSet, TrustBundle
from hauberk.identity.source import SvidSource
from hauberk.integrations.uvicorn import App, Server

DOMAIN = "example.org"
PATIENCE = 20.0
CA = CertificateAuthority.create(DOMAIN)
ROOTS = BundleSet(TrustBundle.of(DOMAIN, CA.root_der))


def named(account: str, domain: str = DOMAIN) -> SpiffeId:
    return SpiffeId.service(domain, "prod", account)


def issued(
    account: str,
    *,
    ca: CertificateAuthority = CA,
    domain: str = DOMAIN,
    ttl: float = 3600.0,
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[WorkloadKey, SvidInfo]:
    key = WorkloadKey.generate()
    return key, ca.issue(key.request(None), named(account, domain), ttl=ttl, clock=clock)


def source(account: str, *, bundles: BundleSet = ROOTS, **more: Any) -> SvidSource:  # noqa: ANN401  # handed on to issued
    return SvidSource(*issued(account, **more), bundles)


def forger(domain: str, named_domain: str) -> CertificateAuthority:
    """An authority of `domain` that signs ids of another one."""
    ca = CertificateAuthority.create(domain)
    ca.trust_domain = named_domain
    return ca


class Pair:
    """Both ends of a connection over memory buffers."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, *, name: str | None = "hauberk.invalid") -> None:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(down, up, server_side=False, server_hostname=name)
        self.server = server.wrap_bio(up, down, server_side=True)

    def shake(self) -> "Pair":
        """Finish the handshake at both ends; raises what the end that refuses raises."""
        waiting = [self.client, self.server]
        for _ in range(20):
            for end in tuple(waiting):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                waiting.remove(end)
            if not waiting:
                return self
        raise AssertionError("the handshake goes round in circles")

    def say(self, data: bytes = b"hello") -> bytes:
        self.client.write(data)
        return self.server.read()


def outsider(**more: object) -> ssl.SSLContext:
    """A client that checks nothing and presents what it is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, value in more.items():
        setattr(context, name, value)
    return context


@contextmanager
def serving(app: App, **options: Any) -> Iterator[Server]:  # noqa: ANN401  # handed on to Server
    """Run a server on a loop in a thread of its own."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    servers: list[Server] = []

    async def main() -> None:
        servers.append(await Server(app, drain_seconds=1.0, **options).start())
        ready.set()
        await servers[0].task

    def run() -> None:
        try:
            loop.run_until_complete(main())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(20)
    try:
        yield servers[0]
    finally:
        servers[0].should_exit = True
        thread.join(20)


async def answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # an ASGI application
    """An application that says who called and over what."""
    if scope["type"] == "lifespan":
        return
    message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
    tls = scope["extensions"]["hauberk"]["tls"]
    text = f"{scope['extensions']['hauberk']['peer'].id} {tls.version} {tls.cipher} {tls.group}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


def dial(context: ssl.SSLContext, port: int) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        return context.wrap_socket(plain, server_hostname="hauberk.invalid")
    except BaseException:
        plain.close()
        raise


def get(wire: ssl.SSLSocket) -> bytes:
    """Send one request and read the whole answer of `answer`."""
    wire.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
    data = b""
    while b"\r\n\r\nspiffe" not in data:
        chunk = wire.recv(65_536)
        assert chunk
        data += chunk
    return data


def ends(wire: ssl.SSLSocket) -> bool:
    """Wait for the other end to hang up."""
    try:
        while wire.recv(65_536):
            pass
    except (ssl.SSLError, ConnectionError):
        return True
    return True


def client(context: ssl.SSLContext, port: int) -> httpx2.Client:
    return httpx2.Client(verify=context, base_url=f"https://127.0.0.1:{port}", trust_env=False, timeout=10)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it never came to pass"
        time.sleep(0.005)


class Load:
    """Callers that never stop, and whatever went wrong for them."""

    def __init__(self, context: ssl.SSLContext, port: int, callers: int = 3) -> None:
        self.done = 0
        self.failures: list[str] = []
        self._context, self._port = context, port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def _call(self) -> None:
        with client(self._context, self._port) as http:
            while not self._stop.is_set():
                try:
                    http.get("/").raise_for_status()
                    self.done += 1
                except (httpx2.HTTPError, ssl.SSLError) as error:
                    self.failures.append(repr(error))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def more(self, count: int = 30) -> None:
        goal = self.done + count
        wait_for(lambda: self.done >= goal or self.failures)
