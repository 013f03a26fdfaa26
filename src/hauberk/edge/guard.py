"""The canonical guard: turns bytes that came in into a call that has one meaning, or refuses them."""

from hauberk.core.call import Call, Headers, Workload
from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.inbound import Inbound
from hauberk.core.limits import Limits
from hauberk.core.principal import Kind
from hauberk.edge.canonical import canonical_path
from hauberk.edge.forwarded import Fields, drop_claims
from hauberk.edge.framing import Head, check_framing
from hauberk.errors import EdgeError

REMEMBERED = 512  # heads
REMEMBERED_BYTES = 2048  # of a head; together a megabyte at most


class CanonicalRequest:
    """Path, framing, sizes and forwarding headers.

    Args:
        target: the service that is called.
        limits: how much a caller may send.
        trusted_hops: SPIFFE ids whose forwarding headers are kept.
    """

    name = "canonical request"
    layer = Layer.EDGE

    def __init__(self, target: Workload, limits: Limits, trusted_hops: frozenset[str] = frozenset()) -> None:
        self._target = target
        self._limits = limits
        self._trusted = trusted_hops
        self._seen: dict[tuple[object, ...], tuple[Head, Fields]] = {}

    def check(self, inbound: Inbound) -> Decision | None:
        """Make `inbound.call`, or refuse."""
        peer = inbound.peer
        try:
            path = self._path(inbound)
            head, kept = self._head(inbound)
        except EdgeError as refused:
            return Decision(Verdict.DENY, Layer.EDGE, refused.code, reason=refused.detail)
        if not self._trusted or peer.kind is not Kind.WORKLOAD or peer.id not in self._trusted:
            inbound.headers = kept
        inbound.body = head.body and head.length is None
        inbound.call = Call(
            peer=peer,
            method=inbound.method,
            path=path,
            host=head.host,
            port=inbound.port,
            headers=Headers(inbound.headers),
            target=self._target,
            address=inbound.address,
            destination_ip=inbound.destination_ip,
            time=inbound.time,
        )
        return None

    def _head(self, inbound: Inbound) -> tuple[Head, Fields]:
        """Framing and headers. Callers repeat themselves, so the last few hundred distinct heads are remembered."""
        key = (inbound.http_version, *inbound.headers)
        try:
            found = self._seen.get(key)
        except TypeError:  # a server that gives lists instead of pairs
            inbound.headers = [(name, value) for name, value in inbound.headers]
            return self._head(inbound)
        if found is None:
            head = check_framing(inbound.headers, self._limits, http_version=inbound.http_version)
            found = head, drop_claims(inbound.headers)
            if head.size <= REMEMBERED_BYTES:
                if len(self._seen) >= REMEMBERED:
                    self._seen.clear()
                self._seen[key] = found
        return found

    def _path(self, inbound: Inbound) -> str:
        if len(inbound.raw_path) + len(inbound.query) > self._limits.target_bytes:
            raise EdgeError("HBK-403", "the target is too long", bytes=len(inbound.raw_path) + len(inbound.query))
        path = canonical_path(inbound.raw_path)
        if path != inbound.path:
            raise EdgeError("HBK-402", "the application would see another path")
        return path
