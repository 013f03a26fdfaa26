"""Requests per second of the demo's payment service over mutual TLS: bare, guarded, guarded and recorded.

The servers run all the time and take turns under load from one client with persistent connections. Each is measured
with the same head again and again, and (`distinct`) with a request id of its own in every head, so that nothing that is
remembered about a connection's last request can serve.
"""

import asyncio
import ssl
import sys
import time
from collections.abc import Callable
from itertools import count

import uvloop

from bench.harness import Progress, Row, at_least, interleave
from bench.mesh import Mesh
from examples.payments.demo.stage import free_port

MODES = ("none", "guards", "embedded", "mesh")
CONNECTIONS = 16
SECONDS = 1.0
ROUNDS = 9
BODY = b'{"order": "o-1", "amount": 1250}'
_HEAD = (
    b"POST /api/payments HTTP/1.1\r\nHost: payments\r\nAccept: */*\r\nUser-Agent: bench\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nX-Request-Id: " % len(BODY)
)
_TAIL = b"\r\n\r\n" + BODY
_numbers = count()


class _Client(asyncio.Protocol):
    """Sends the same request again as soon as it was answered."""

    def __init__(self, counts: list[int], until: float, *, distinct: bool) -> None:
        self._counts = counts
        self._distinct = distinct
        self._until = until
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # TCP gives this kind
        self._send()

    def _send(self) -> None:
        number = next(_numbers) if self._distinct else 0
        self._transport.write(_HEAD + b"%016d" % number + _TAIL)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1"):  # head and body may come in one piece or in two
            self._counts[0] += data.startswith(b"HTTP/1.1 201")
            self._counts[1] += not data.startswith(b"HTTP/1.1 201")
        if time.monotonic() >= self._until:
            if not self.done.done():
                self.done.set_result(None)
            self._transport.close()
        elif data.endswith(b"}"):
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed"))


async def _load(port: int, context: ssl.SSLContext, *, distinct: bool) -> float:
    counts = [0, 0]
    started = time.monotonic()
    until = started + SECONDS
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(
            lambda: _Client(counts, until, distinct=distinct),
            "127.0.0.1",
            port,
            ssl=context,
            server_hostname="hauberk.invalid",
        )
        clients.append(client.done)
    await asyncio.gather(*clients)
    if counts[1]:
        raise RuntimeError(f"{counts[1]} requests failed")
    return counts[0] / (time.monotonic() - started)


def _case(port: int, context: ssl.SSLContext, *, distinct: bool) -> Callable[[], float]:
    def case() -> float:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_load(port, context, distinct=distinct))

    return case


def run(progress: Progress) -> list[Row]:
    """Measure the dresses beside each other."""
    with Mesh() as mesh:
        progress("starting the services")
        ports = {mode: free_port() for mode in MODES}
        for mode, port in ports.items():
            process = mesh.spawn(sys.executable, "-m", "bench.service", mode, str(port))
            if process.stdout is None or process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"the {mode} service did not start")
        client = mesh.join("order-service")
        context = client.client_context("payment-service")
        cases = {
            mode + ".distinct" * distinct: _case(port, context, distinct=distinct)
            for distinct in (False, True)
            for mode, port in ports.items()
        }
        progress("warming up")
        for case in cases.values():
            case()
        progress("taking turns")
        found = interleave(cases, ROUNDS)
        client.close()
    ratios = {
        name: spread.over(found["none.distinct" if name.endswith("distinct") else "none"])
        for name, spread in found.items()
    }
    rows = []
    for suffix, what in (("", "the same head each time"), (".distinct", "every head another")):
        guards, mesh_, embedded = (ratios[mode + suffix] for mode in ("guards", "mesh", "embedded"))
        rows += [
            at_least(f"requests.guards{suffix}", guards.median, 0.90, note=f"guards alone; {what}; {guards.note()}"),
            at_least(f"requests.ledger{suffix}", mesh_.median, 0.70, note=f"recorded through the authority; {what}"),
            Row(f"requests.embedded{suffix}", embedded.median, "x", note=f"ledger in the same process; {what}"),
        ]
    return [
        *rows,
        *(
            Row(f"requests.{mode}.rate", spread.median, "1/s", note=spread.note("1/s"))
            for mode, spread in found.items()
        ),
    ]
