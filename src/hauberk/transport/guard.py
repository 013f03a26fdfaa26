"""The connection guard: is this connection one we still want to talk on, and is it mutual where it has to be."""

from collections.abc import Callable

from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.inbound import Inbound
from hauberk.core.principal import Kind
from hauberk.transport.connection import AGED

_REVOKED = Decision(Verdict.DENY, Layer.IDENTITY, "HBK-206", reason="the peer's identity is revoked")
_PLAIN = Decision(Verdict.DENY, Layer.TRANSPORT, "HBK-102", reason="STRICT: the peer presented no SVID")


class ConnectionIdentity:
    """Refuses revoked peers, connections that are being closed, and anonymous ones where mutual TLS is STRICT.

    Args:
        mtls_mode: `STRICT`, `PERMISSIVE` or `DISABLE` of a port, by the policies in force.
        revoked: whether a peer is revoked, by SPIFFE id and serial.
    """

    name = "connection identity"
    layer = Layer.IDENTITY

    def __init__(self, mtls_mode: Callable[[int], str], revoked: Callable[[str, str], bool]) -> None:
        self._mtls_mode = mtls_mode
        self._revoked = revoked

    def check(self, inbound: Inbound) -> Decision | None:
        """Refuse, or say nothing."""
        peer = inbound.peer
        if inbound.closing and inbound.closing != AGED:
            return Decision(Verdict.DENY, Layer.IDENTITY, inbound.closing, reason="the connection is being closed")
        if peer.kind is Kind.WORKLOAD:
            return _REVOKED if self._revoked(peer.id, str(peer.proof.detail.get("serial", ""))) else None
        return _PLAIN if self._mtls_mode(inbound.port) == "STRICT" else None
