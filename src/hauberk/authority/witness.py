"""A witness on a state directory of its own, and on the wire (c2sp.org/tlog-witness).

```
DIRECTORY/                0755   witness.json: its name and verifier keys
DIRECTORY/private/        0700   hauberk.db: what it has cosigned; sealed keys; keys/root
```

Everything that passes is signed, so plain HTTP takes nothing from what a cosignature proves; beyond this machine it is
still served only when asked for by name, for a proxy with TLS belongs in front of it. Whoever asks is a stranger: their
bodies, their time and their number are bounded. Nobody is logged.

The database is what keeps the witness honest. A key whose database is gone, or was put back from a copy, would cosign a
second history: `StateDirectory` refuses to start with a key and without a database, and a copy must never be put back.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import urandom
from pathlib import Path

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import key_source
from hauberk.adapters.sqlite import SqliteStore
from hauberk.adapters.state import DATABASE, StateDirectory
from hauberk.authority.api import read_bytes
from hauberk.core.address import is_loopback
from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.limits import Limits
from hauberk.crypto.cosignature import MAX_NAME_BYTES, Algorithm, CosignerKey
from hauberk.crypto.keyring import Keyring, Purpose
from hauberk.crypto.note import is_name
from hauberk.crypto.signing import SEED_BYTES
from hauberk.errors import ConfigError, EdgeError, HauberkError, IdentityError, RecordsError
from hauberk.integrations import uvicorn
from hauberk.records.watchlist import Watchlist
from hauberk.records.witness import Witness
from hauberk.records.witness_wire import MAX_BODY_BYTES, TEXT_TYPE

FACTS = "witness.json"
THREADS = 8  # for requests that may write; the disk takes one at a time
CONNECTIONS = 1_024  # open at once; a log keeps one
WAITING = 256  # requests in line for a thread; whoever comes then is told to come back
LIMITS = Limits(header_bytes=8_192, header_count=40, target_bytes=512, body_bytes=MAX_BODY_BYTES, body_seconds=10.0)


class WitnessFacts(msgspec.Struct, frozen=True):
    """What the public file of a witness says.

    Args:
        name: of the cosigner.
        keys: verifier keys.
    """

    name: str
    keys: tuple[str, ...]

    def policy_lines(self, url: str = "") -> list[str]:
        """Return lines for a log's policy file (c2sp.org/tlog-policy), one for each key."""
        names = [f"{self.name}:{algorithm.value}" for algorithm in Algorithm]
        return [f"witness {name} {key} {url}".rstrip() for name, key in zip(names, self.keys, strict=True)]


def read_witness(directory: Path) -> WitnessFacts | None:
    """Return what is known of the witness of a directory; None when there never was one.

    Raises:
        ConfigError: HBK-906 the file cannot be read.
    """
    path = directory / FACTS
    try:
        return msgspec.json.decode(path.read_bytes(), type=WitnessFacts)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError("HBK-906", "not a witness's file", path=str(path), why=str(error)[:200]) from None


class OpenWitness:
    """A witness ready to cosign; holds the lock of its directory until closed.

    Args:
        directory: made on the first start, with new keys.
        name: of the cosigner, such as `witness.example/w1`; by default the one it has, or that of this machine.
        clock: of the times in cosignatures.

    Raises:
        ConfigError: HBK-906 it has another name: that would be another witness. Another process uses the directory.
        IdentityError: HBK-210 something is missing or open to others, above all the database.
        RecordsError: HBK-711 the name cannot be one.
    """

    def __init__(self, directory: Path, name: str = "", *, clock: Clock = SYSTEM_CLOCK) -> None:
        known = read_witness(directory)
        if known is not None and name not in {"", known.name}:
            raise ConfigError("HBK-906", "a new name is a new witness: give it a directory of its own", name=known.name)
        if known is not None and not (directory / "private").exists():
            raise IdentityError("HBK-210", "its private directory is gone", path=str(directory))
        chosen = name or (known.name if known is not None else f"{socket.gethostname()}/witness")
        if not is_name(chosen) or len(chosen.encode()) > MAX_NAME_BYTES:
            raise RecordsError("HBK-711", "not a name of a cosigner")
        self.state = StateDirectory(directory, chosen)
        try:
            self._open(chosen, clock)
        except HauberkError:
            self.state.close()
            raise

    def _open(self, name: str, clock: Clock) -> None:
        keys = [CosignerKey(name, one, self._seed(one)) for one in Algorithm]
        self.store = AuthenticRows(SqliteStore(self.state.database, now=clock.time), self.state.keyring)
        self.witness = Witness(self.store, keys, clock=clock)
        self.facts = WitnessFacts(name, self.witness.vkeys)
        self.state.publish(FACTS, msgspec.json.encode(self.facts) + b"\n")
        self.state.complete()

    def _seed(self, algorithm: Algorithm) -> bytes:
        return self.state.secret(f"witness-{algorithm.value}", Purpose.WITNESS_KEY, lambda: urandom(SEED_BYTES))

    def close(self) -> None:
        """Close the database and release the lock."""
        self.store.close()
        self.state.close()


@contextmanager
def watchlist(directory: Path) -> Iterator[Watchlist]:
    """Lend the watchlist of a witness, which may be running meanwhile.

    Raises:
        ConfigError: HBK-906 there is no witness, HBK-905 its key cannot be read.
    """
    facts, private = read_witness(directory), directory / "private"
    if facts is None or not (private / DATABASE).exists():
        raise ConfigError("HBK-906", "there is no witness here: hauberk witness key makes one", path=str(directory))
    keyring = Keyring(key_source("", private / "keys", create=False))
    store = AuthenticRows(SqliteStore(private / DATABASE), keyring)
    try:
        yield Watchlist(store, facts.keys)
    finally:
        store.close()


def witness_app(witness: Witness, *, threads: int = THREADS, waiting: int = WAITING) -> Starlette:
    """Return the application: `POST /add-checkpoint` and `GET /SHA-256-OF-THE-ORIGIN/checkpoint`.

    Args:
        witness: who answers.
        threads: requests at work at once.
        waiting: requests in line for them; more are answered with status 429.
    """
    pool, in_line = CapacityLimiter(threads), CapacityLimiter(threads + waiting)

    async def add_checkpoint(request: Request) -> Response:
        try:
            body = await read_bytes(request, MAX_BODY_BYTES)
        except EdgeError:
            return PlainTextResponse("the request is too long\n", 413)
        if in_line.available_tokens < 1:
            return PlainTextResponse("too many requests at once\n", 429, {"retry-after": "1"})
        async with in_line:
            try:
                answer = await to_thread.run_sync(witness.add_checkpoint, body, limiter=pool)
            except HauberkError:  # whether it was cosigned is unknown; nobody has the signature
                return PlainTextResponse("the witness cannot remember anything now\n", 503, {"retry-after": "5"})
        return Response(answer.body, answer.status, {"content-type": answer.kind})  # media_type would add a charset

    async def checkpoint(request: Request) -> Response:
        try:
            note = await to_thread.run_sync(witness.checkpoint, request.path_params["hashed"], limiter=pool)
        except RecordsError as error:
            return PlainTextResponse("nothing was cosigned for this log\n", 404 if error.code == "HBK-707" else 503)
        return Response(note.encode(), headers={"cache-control": "no-cache", "content-type": TEXT_TYPE})

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/{hashed}/checkpoint", checkpoint, methods=["GET"]),
        ]
    )


def parse_listen(text: str, *, insecure_plaintext: bool = False) -> tuple[str, int]:
    """Parse an address to listen on.

    Args:
        text: `HOST:PORT` or `[ADDRESS]:PORT`.
        insecure_plaintext: take an address that others can reach.

    Raises:
        ConfigError: HBK-901 it is neither, or others could reach it.
    """
    host, port = uvicorn.parse_listen(text)
    if not (insecure_plaintext or is_loopback(host)):
        raise ConfigError(
            "HBK-901",
            "others could reach this: put a proxy with TLS in front, or say --insecure-plaintext",
            listen=text,
        )
    return host, port


async def run_witness(
    opened: OpenWitness, host: str, port: int, on_ready: Callable[[str], None], stop: asyncio.Event
) -> None:
    """Serve until `stop` is set, then drain.

    Args:
        opened: stays open.
        host: address to listen on.
        port: 0 for any.
        on_ready: told the URL once connections are accepted.
        stop: ends it.

    Raises:
        ConfigError: HBK-901 the address is in use.
    """
    server = uvicorn.Server(
        witness_app(opened.witness), host=host, port=port, limits=LIMITS, max_connections=CONNECTIONS,
        keep_alive=60, drain_seconds=5.0,
    )  # fmt: skip
    async with server:
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{server.port}")
        await stop.wait()


def serve_witness(opened: OpenWitness, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; see `run_witness`."""
    uvicorn.run_until_signal(lambda stop: run_witness(opened, host, port, on_ready, stop))
