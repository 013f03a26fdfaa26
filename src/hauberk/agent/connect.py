"""Joining a mesh: from nothing to a runtime whose identity, policies and record are kept fresh by three threads.

The first identity comes, in this order, from a descriptor that `hauberk run` left (`HAUBERK_IDENTITY_FD`), from a join
token (`HAUBERK_JOIN_TOKEN`, or a file named by `HAUBERK_JOIN_TOKEN_FILE`), or from the workload socket, attested by the
kernel (`HAUBERK_SOCKET`, else `workload.sock` in the state directory). `connect` returns once the first snapshot of the
feed is in force, so no request is ever served under no policies but the authority's.
"""

import os
import socket
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path

from hauberk.agent.follower import Follower
from hauberk.agent.remote import Remote, authority_id, join, new_request
from hauberk.core.call import Workload
from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.config import Config, load
from hauberk.core.event import Event
from hauberk.core.wire import Grant
from hauberk.crypto.keyring import Pseudonyms
from hauberk.crypto.x509 import parse_svid
from hauberk.errors import ConfigError, IdentityError, explained
from hauberk.identity.attest import peer_credentials
from hauberk.identity.bundle import BundleSet, TrustBundle
from hauberk.identity.jointoken import JoinToken
from hauberk.identity.source import SvidSource
from hauberk.policy.set import PolicySet
from hauberk.records.batch import encode_batch
from hauberk.records.fold import Folder
from hauberk.records.forward import Forwarder
from hauberk.records.spool import Spool
from hauberk.runtime import Runtime
from hauberk.transport.contexts import client_context

MAX_TOKEN_BYTES = 4096
FIRST_SNAPSHOT = 10.0  # seconds to wait for it


@explained()
def connect(
    *, config: Config | None = None, environ: MutableMapping[str, str] | None = None, clock: Clock = SYSTEM_CLOCK
) -> Runtime:
    """Get an identity, fetch what is in force, and return the runtime. Close it at the end.

    Args:
        config: settings; default `hauberk.toml` and the environment.
        environ: default the process environment; one-time secrets are taken out of it.
        clock: time source.

    Raises:
        IdentityError: HBK-211 nothing to get an identity with, HBK-204, HBK-205, HBK-207 it is refused.
        ConfigError: HBK-902 the authority is out of reach.
    """
    environ = os.environ if environ is None else environ
    config = load(environ=environ) if config is None else config
    key, csr = new_request()
    grant = _first_grant(csr, config, environ)
    svid = parse_svid(grant.chain)
    source = SvidSource(key, svid, _bundles(grant.roots))
    return _assemble(source, grant, config, clock)


def _first_grant(csr: bytes, config: Config, environ: MutableMapping[str, str]) -> Grant:
    token = _token(environ)
    if token is not None:
        return join(token, csr, config.trust_domain)
    path = Path(environ.get("HAUBERK_SOCKET") or Path(config.directory) / "workload.sock")
    if not path.exists():
        raise IdentityError("HBK-211", "no token, no descriptor, no workload socket", socket=str(path))
    _check_listener(path)
    local = Remote.over_socket(path)
    try:
        grant = local.attest(csr, environ.get("HAUBERK_IDENTITY_ENTRY"))
    finally:
        local.close()
    found = parse_svid(grant.chain).spiffe_id.trust_domain
    if "trust_domain" in config.origins and found != config.trust_domain:
        raise IdentityError("HBK-209", "an authority of another trust domain answers there", trust_domain=found)
    return grant


def _check_listener(path: Path) -> None:
    """Refuse a socket that somebody else listens on: whoever answers there says who we are, and whom to trust.

    Raises:
        IdentityError: HBK-207 the listener is neither root, nor we, nor the owner of the directory.
        ConfigError: HBK-902 nobody listens.
    """
    try:
        owner = path.parent.stat().st_uid
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(path))
            listener = peer_credentials(line).uid
    except OSError as error:
        raise ConfigError("HBK-902", "nobody listens on the workload socket", socket=str(path)) from error
    if listener not in {0, os.geteuid(), owner}:
        raise IdentityError("HBK-207", "another user listens on the workload socket", socket=str(path), uid=listener)


def _token(environ: MutableMapping[str, str]) -> JoinToken | None:
    descriptor = environ.pop("HAUBERK_IDENTITY_FD", "")
    if descriptor:
        return JoinToken.parse(_read_descriptor(descriptor))
    text = environ.pop("HAUBERK_JOIN_TOKEN", "")
    file = environ.get("HAUBERK_JOIN_TOKEN_FILE", "")
    if not text and file:
        try:
            text = Path(file).read_text("ascii")
        except (OSError, UnicodeDecodeError):
            raise IdentityError("HBK-204", "the token file cannot be read", file=file) from None
    return JoinToken.parse(text) if text else None


def _read_descriptor(descriptor: str) -> str:
    """Read what `hauberk run` left, once."""
    try:
        with open(int(descriptor), "rb") as pipe:  # noqa: PTH123  # a descriptor has no path
            return pipe.read(MAX_TOKEN_BYTES).decode("ascii")
    except (OSError, ValueError):
        raise IdentityError("HBK-211", "the identity descriptor was read already, or is not inherited") from None


def _bundles(roots: Mapping[str, tuple[bytes, ...]]) -> BundleSet:
    return BundleSet(*(TrustBundle.of(domain, *ders) for domain, ders in roots.items()))


def _signing(source: SvidSource, clock: Clock) -> Callable[[Sequence[Event]], bytes]:
    def sign(events: Sequence[Event]) -> bytes:
        material = source.current()
        return encode_batch(material.svid.chain, clock.time_ns(), events, material.key.sign)

    return sign


def _assemble(source: SvidSource, grant: Grant, config: Config, clock: Clock) -> Runtime:
    me = source.spiffe_id
    context = client_context(source, authority_id(me.trust_domain), clock=clock)
    remote = Remote.over_tls(grant.address, context)
    records = config.records
    spool = Spool.claim(_spool_directory(config), f"{me.namespace}.{me.account}", max_bytes=records.spool_bytes)
    forwarder = Forwarder(
        remote.record,
        _signing(source, clock),
        spool,
        queue_size=records.queue,
        insecure_unrecorded=records.insecure_unrecorded,
        clock=clock,
    )
    policies = PolicySet.default(
        root_namespace=grant.root_namespace, trust_domain=me.trust_domain, aliases=grant.aliases
    )
    feed = Remote.over_tls(grant.address, context)
    runtime = Runtime(
        config=config,
        workload=Workload(me.namespace or "", me.account or "", grant.labels),
        policies=policies,
        recorder=Folder(forwarder, rate=records.fold_rate, clock=clock),
        pseudonyms=Pseudonyms(grant.pseudonym_key),
        source=source,
        clock=clock,
    )
    follower = Follower(runtime, source, feed, grant.feed_key, clock=clock)
    runtime.attach(status=lambda: {"feed": follower.status(), "records": _records(forwarder)}, on_close=follower.close)
    runtime.attach(on_close=remote.close)
    follower.start()
    if not follower.ready.wait(FIRST_SNAPSHOT):
        runtime.close()
        raise ConfigError("HBK-902", "no feed from the authority", why=follower.status()["last_error"])
    return runtime


def _spool_directory(config: Config) -> Path:
    return Path(config.records.spool or Path(config.directory) / "spool")


def _records(forwarder: Forwarder) -> Mapping[str, object]:
    return {
        "spooled_batches": forwarder.depth(),
        "spool_age": round(forwarder.age(), 3),
        "refused_events": forwarder.refused,
        "unrecorded": forwarder.unrecorded,
    }
