"""A protected application under real uvicorn over mutual TLS, and a client that sends whatever bytes it likes.

The server runs on a loop of its own in a thread, so that tests can be plain blocking code: what a caller sees is what
they assert on. Identities come from one made-up authority per test run.
"""

import asyncio
import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from typing import Any, Self

import msgspec
import uvloop

from hauberk.adapters.memory import MemoryStore
from hauberk.core.call import Workload
from hauberk.core.config import Config
from hauberk.core.event import Event
from hauberk.core.limits import DEFAULT_LIMITS, Limits
from hauberk.core.ports import Recorder, Store
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.keyring import Pseudonyms
from hauberk.crypto.signing import SigningKey
from hauberk.crypto.x509 import CertificateAuthority, WorkloadKey
from hauberk.identity.bundle import BundleSet, TrustBundle
from hauberk.identity.source import SvidSource
from hauberk.integrations.asgi import protect
from hauberk.integrations.uvicorn import Server
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.records._encode import decode_event
from hauberk.records.fold import Folder
from hauberk.records.ledger import Ledger
from hauberk.runtime import Runtime
from hauberk.transport.contexts import client_context, server_context

PATIENCE = 10.0  # seconds; longer than anything here takes, short enough to fail before the suite's own limit
DOMAIN = "example.org"
CALLER = f"spiffe://{DOMAIN}/ns/shop/sa/caller"
STRANGER = f"spiffe://{DOMAIN}/ns/shop/sa/stranger"
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/caller]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody-administers, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/admin, /admin/*]}}]}]}
"""
App = Callable[[Any, Any, Any], Awaitable[None]]


@cache
def _authority() -> CertificateAuthority:
    return CertificateAuthority.create(DOMAIN)


@cache
def identity(account: str) -> SvidSource:
    """The identity `account` has in namespace `shop`."""
    key, spiffe_id = WorkloadKey.generate(), SpiffeId.service(DOMAIN, "shop", account)
    svid = _authority().issue(key.request(spiffe_id), spiffe_id)
    return SvidSource(key, svid, BundleSet(TrustBundle.of(DOMAIN, _authority().root_der)))


class Memory:
    """Where the records of one runtime are, to be read back."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = MemoryStore() if store is None else store
        self.ledger = Ledger(self.store, SigningKey.generate(), "test/ledger")

    def events(self, **fields: object) -> list[Event]:
        """What has been committed so far and has these fields."""
        entries = self.ledger.entries(limit=100_000)
        found = [decode_event(entry.meta, entry.public) for entry in entries]
        return [event for event in found if all(getattr(event, name) == it for name, it in fields.items())]

    def wait_for(self, count: int = 1, **fields: object) -> list[Event]:
        """Wait until so many such events are committed."""
        until(lambda: len(self.events(**fields)) >= count)
        return self.events(**fields)


def until(look: Callable[[], Any]) -> Any:  # noqa: ANN401  # whatever was looked for
    """Return the first truth `look` finds; fail after a while."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)
    return found


def make_runtime(
    memory: Memory | None = None,
    *,
    policy: str = POLICY,
    limits: Limits = DEFAULT_LIMITS,
    recorder: Recorder | None = None,
    source: SvidSource | None = None,
    config: Config | None = None,
) -> Runtime:
    """A runtime of the service `shop/server` whose records are in memory."""
    config = msgspec.structs.replace(config or Config(), limits=limits)
    memory = memory or Memory()
    return Runtime(
        config=config,
        workload=Workload("shop", "server"),
        policies=PolicySet.default(aliases=("cluster.local",)).with_documents(parse_documents(policy)),
        recorder=recorder or Folder(memory.ledger, rate=config.records.fold_rate),
        pseudonyms=Pseudonyms(bytes(32)),
        source=source,
    )


class Answer(msgspec.Struct):
    """One response as a caller sees it; status 0 means that there was none."""

    status: int
    headers: dict[str, str] = {}
    body: bytes = b""
    error: str = ""

    def json(self) -> Any:  # noqa: ANN401  # whatever the document holds
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The `HBK-###` of a problem; empty when it is none."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        return str(self.json()["code"])


class Wire:
    """One connection: bytes out, answers in."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send; a server that has had enough may have hung up already."""
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        """Read one response."""
        response = http.client.HTTPResponse(_Buffered(self._reader), method=method)  # type: ignore[arg-type]  # it only calls makefile
        try:
            response.begin()
            body, error = response.read(), ""
        except http.client.IncompleteRead as cut:
            body, error = cut.partial, "cut"
        except (OSError, http.client.HTTPException) as none:
            return Answer(0, error=type(none).__name__)
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, body, error)

    def ask(self, data: bytes) -> Answer:
        """Send, then read one response."""
        self.send(data)
        return self.answer(data.split(b" ", 1)[0].decode("latin-1"))

    def everything(self) -> bytes:
        """Read until the server closes."""
        try:
            return self._reader.read()
        except TimeoutError:
            raise
        except OSError:
            return b""

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Hang up."""
        self._reader.close()
        self.sock.close()

    def __exit__(self, *_: object) -> None:
        self.close()


class _Buffered:
    """Lets `http.client` read several responses from one buffer."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader

    def makefile(self, _mode: str) -> "_Shared":
        return _Shared(self._reader)


class _Shared(io.BufferedIOBase):
    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader
        self.read = reader.read  # type: ignore[method-assign]  # the same reader under another lid
        self.read1 = reader.read1  # type: ignore[method-assign]
        self.readinto = reader.readinto  # type: ignore[method-assign]
        self.readline = reader.readline  # type: ignore[method-assign]
        self.peek = reader.peek

    def close(self) -> None:
        """Stay open: the next response comes from the same connection."""


class Service:
    """A running server."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop, *, tls: bool) -> None:
        self.server = server
        self.loop = loop
        self.port = server.port
        self._tls = tls

    def connect(self, account: str = "caller") -> Wire:
        """Open a connection as `account`."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        if not self._tls:
            return Wire(plain)
        context = client_context(identity(account), SpiffeId.service(DOMAIN, "shop", "server"))
        return Wire(context.wrap_socket(plain, server_hostname="hauberk.invalid"))

    def ask(self, data: bytes, account: str = "caller") -> Answer:
        """Send bytes over a connection of their own and read one response."""
        with self.connect(account) as wire:
            return wire.ask(data)

    def get(self, path: str, account: str = "caller", *, method: str = "GET", headers: str = "") -> Answer:
        """Ask for a path."""
        return self.ask(f"{method} {path} HTTP/1.1\r\nHost: server\r\n{headers}\r\n".encode(), account)

    def tasks(self) -> int:
        """Tasks of the server's loop, but for its own and the one that counts."""

        async def count() -> int:
            return len([task for task in asyncio.all_tasks() if "run_asgi" in repr(task.get_coro())])

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(PATIENCE)


@contextlib.contextmanager
def serving(app: App, runtime: Runtime | None = None, *, tls: bool = True, **options: Any) -> Iterator[Service]:  # noqa: ANN401  # of Server
    """Serve `app`, protected by `runtime` if there is one."""
    if runtime is not None:
        own = {"connections": runtime.connections, "limits": runtime.limits, "max_age": runtime.max_age}
        options = {**own, "on_violation": runtime.report_violation, **options}
        app = protect(app, runtime)
        context = server_context(runtime.source or identity("server"), admit=runtime.admit) if tls else None
    else:
        context = server_context(identity("server")) if tls else None
    ready: threading.Event = threading.Event()
    found: list[Service] = []
    failed: list[BaseException] = []
    stop = asyncio.Event()

    async def main() -> None:
        async with Server(app, tls=context, drain_seconds=1, **options) as server:
            found.append(Service(server, asyncio.get_running_loop(), tls=tls))
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())
        except BaseException as error:  # noqa: BLE001  # handed to the test
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="service")
    thread.start()
    ready.wait(PATIENCE)
    try:
        if failed:
            raise failed[0]
        yield found[0]
    finally:
        if found:
            with contextlib.suppress(RuntimeError):  # the loop ended by itself
                found[0].loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        if runtime is not None:
            runtime.close()
    assert not failed
