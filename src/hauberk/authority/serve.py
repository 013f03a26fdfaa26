"""Running the authority: three listeners on one loop, its own identity renewed, drained on a signal.

Incoming connections of the mesh pass the same guards as those of any service, under the policies of `api.POLICY`.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import msgspec

from hauberk.adapters.engine import embedded
from hauberk.authority.api import POLICY, admin_app, mesh_app, workload_app
from hauberk.authority.authority import ACCOUNT, NAMESPACE, Authority
from hauberk.authority.tiles import tiles_app
from hauberk.core.call import Workload
from hauberk.core.clock import SYSTEM_CLOCK
from hauberk.core.config import Config
from hauberk.errors import ConfigError, HauberkError
from hauberk.identity.source import SvidSource, renew_at
from hauberk.integrations.asgi import protect
from hauberk.integrations.uvicorn import Server, parse_listen, run_until_signal
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.records.fold import Folder
from hauberk.runtime import Runtime
from hauberk.transport.connection import vouched_for
from hauberk.transport.contexts import server_context

_WILDCARDS = frozenset({"", "*", "0.0.0.0", "::", "[::]"})  # noqa: S104  # what is refused
RECORDS_FACTOR = 4  # a batch of records may be this many times the limit of other bodies
_LOOK = 1.0  # seconds between two looks at the own identity and at open connections


class _Kept:
    """A recorder that stays open when the runtime that uses it closes: it is the authority's."""

    def __init__(self, inner: Folder) -> None:
        self.submit = inner.submit
        self.offer = inner.offer

    def close(self, timeout: float = 10.0) -> None:
        """Do nothing."""


def _runtime(authority: Authority, source: SvidSource) -> Runtime:
    """The guards in front of the authority's own TLS listener."""
    config = authority.config
    policies = PolicySet.of(
        parse_documents(POLICY, file="built in"), root_namespace=NAMESPACE, trust_domain=config.trust_domain
    )
    limits = msgspec.structs.replace(config.limits, body_bytes=config.limits.body_bytes * RECORDS_FACTOR)
    return Runtime(
        config=msgspec.structs.replace(config, limits=limits),
        workload=Workload(NAMESPACE, ACCOUNT),
        policies=policies,
        recorder=_Kept(authority.recorder),
        pseudonyms=authority.audit.pseudonyms.latest(),
        source=source,
        record_allows=False,
    )


class _Upkeep:
    """What keeps the authority's own listener fresh: revocations, bundles, its own identity, old connections.

    Args:
        authority: whose listener it is.
        runtime: the guards in front of it.
        source: its own identity.
    """

    def __init__(self, authority: Authority, runtime: Runtime, source: SvidSource) -> None:
        self._authority = authority
        self._runtime = runtime
        self._source = source
        self._renew_at = renew_at(source.current().svid)

    def follow(self) -> None:
        """Put in force what was just published; called by whoever published it, one at a time."""
        revoked, bundles = self._authority.revocations, self._authority.bundles
        if revoked != self._runtime.revocations:
            self._runtime.revoke(revoked)
        if bundles != self._source.current().bundles:
            self._source.update(bundles=bundles)
            self._runtime.connections.close_untrusted(bundles.roots)
            with suppress(HauberkError):  # tried again a second later
                self.look()

    def look(self) -> None:
        """Renew when half of the life is over or another root signs; end connections that hang on the old one."""
        svid, connections = self._source.current().svid, self._runtime.connections
        if SYSTEM_CLOCK.time() >= self._renew_at or not vouched_for(svid, self._authority.ca.root_der):
            self._authority.renew_own(self._source)
            self._renew_at = renew_at(self._source.current().svid)
            connections.close_older_than(0.0)
        connections.close_retiring(self._authority.bundles.roots)

    async def run(self) -> None:
        """Look once a second."""
        while True:
            await asyncio.sleep(_LOOK)
            with suppress(HauberkError):
                await asyncio.to_thread(self.look)


def _advertised(config: Config) -> str:
    """Return the host that services are told, in the form it has in a URL.

    Raises:
        ConfigError: HBK-901 it is a wildcard: nobody else could connect to that.
    """
    host = config.authority.advertise or config.authority.host
    if host in _WILDCARDS:
        raise ConfigError("HBK-901", "a wildcard is no address to connect to: set authority.advertise", host=host)
    return _in_url(host)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


async def _monitors(authority: Authority, stack: AsyncExitStack) -> str:
    """Open the listener for monitors of the log, if there is to be one, and return its address."""
    place = authority.config.authority.tiles
    if not place:
        return ""
    host, port = parse_listen(place)
    app = tiles_app(authority.store, authority.ledger.log, authority.recording.checkpoint)
    server = Server(app, host=host, port=port, drain_seconds=1.0)
    await stack.enter_async_context(server)
    return f"{_in_url(host)}:{server.port}"


def _facts(authority: Authority) -> Mapping[str, object]:
    state, config = authority.state, authority.config
    return {
        "trust_domain": config.trust_domain,
        "address": authority.address,
        "root": authority.roots.signer,
        "workload_socket": str(state.path / "workload.sock"),
        "admin_socket": str(state.private / "admin.sock"),
        "ledger": str(state.database if embedded(config) else config.store),
        "ledger_key": authority.ledger.verifier,
    }


async def run(authority: Authority, on_ready: Callable[[Mapping[str, object]], None], stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain.

    Args:
        authority: an open one; stays open.
        on_ready: told the facts once every listener accepts connections.
        stop: ends it.
    """
    advertised = _advertised(authority.config)
    source = await asyncio.to_thread(authority.own_source)
    runtime = _runtime(authority, source)
    tls = server_context(
        source, require_client=False, send_root=True, on_failure=runtime.report_handshake, admit=runtime.admit
    )
    config, state = authority.config, authority.state
    mesh = Server(
        protect(mesh_app(authority), runtime),
        host=config.authority.host,
        port=config.authority.port,
        tls=tls,
        connections=runtime.connections,
        on_violation=runtime.report_violation,
        limits=runtime.limits,
        max_age=runtime.max_age,
        keep_alive=60,
        drain_seconds=1.0,
    )
    upkeep = _Upkeep(authority, runtime, source)
    async with AsyncExitStack() as stack:
        stack.callback(authority.publisher.listen(upkeep.follow))
        upkeep.follow()
        await stack.enter_async_context(mesh)
        authority.address = f"{advertised}:{mesh.port}"
        # The admin socket comes last: who can ask it for the status finds everything else ready.
        sockets = [(workload_app(authority), state.path / "workload.sock", 0o666)]
        sockets.append((admin_app(authority), state.private / "admin.sock", 0o600))
        facts = {**_facts(authority), "tiles": await _monitors(authority, stack)}
        state.publish("authority.json", json.dumps({**facts, "admin_socket": None}).encode())
        for app, path, mode in sockets:
            await stack.enter_async_context(Server(app, uds=path, uds_mode=mode, drain_seconds=1.0))
        looking = asyncio.create_task(upkeep.run())
        on_ready(facts)
        await stop.wait()
        looking.cancel()
    runtime.close()


def up(directory: Path, config: Config, on_ready: Callable[[Mapping[str, object]], None]) -> None:
    """Open the authority, serve until SIGINT or SIGTERM, drain, close.

    Raises:
        HauberkError: see `Authority`; HBK-901 an address is in use.
    """
    authority = Authority(directory, config)
    try:
        run_until_signal(lambda stop: run(authority, on_ready, stop))
    finally:
        authority.close()
