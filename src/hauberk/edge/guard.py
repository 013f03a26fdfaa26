"""The canonical guard: turns bytes that came in into a call that has one meaning, or refuses them."""

from msgspec.structs import replace

from hauberk.core.call import Call, Headers, Workload
from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.inbound import Inbound
from hauberk.core.limits import Limits
from hauberk.core.principal import Kind
from hauberk.edge.canonical import canonical_path
from hauberk.edge.forwarded import drop_claims, forwarded_for
from hauberk.edge.framing import check_framing, check_method
from hauberk.errors import EdgeError

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


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

    def check(self, inbound: Inbound) -> Decision | None:
        """Make `inbound.call`, or refuse."""
        peer = inbound.peer
        try:
            if inbound.method not in _METHODS:
                check_method(inbound.method)
            path = self._path(inbound)
            head = check_framing(inbound.headers, self._limits, http_version=inbound.http_version)
        except EdgeError as refused:
            return Decision(Verdict.DENY, Layer.EDGE, refused.code, reason=refused.detail)
        if head.claims:
            if peer.kind is Kind.WORKLOAD and peer.id in self._trusted:
                inbound.address = replace(inbound.address, forwarded=forwarded_for(inbound.headers))
            else:
                inbound.headers = drop_claims(inbound.headers)
                inbound.dropped = True
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
            sni=inbound.sni,
            time=inbound.time,
        )
        return None

    def _path(self, inbound: Inbound) -> str:
        if len(inbound.raw_path) + len(inbound.query) > self._limits.target_bytes:
            raise EdgeError("HBK-403", "the target is too long", bytes=len(inbound.raw_path) + len(inbound.query))
        path = canonical_path(inbound.raw_path)
        if path != inbound.path:
            raise EdgeError("HBK-402", "the application would see another path")
        return path
