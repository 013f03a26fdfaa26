"""The connection guard: is this connection one we still want to talk on, and is it mutual where it has to be."""

from collections.abc import Callable
from typing import Protocol

from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.inbound import Inbound
from hauberk.core.principal import Kind
from hauberk.transport.connection import AGED

_REVOKED = Decision(Verdict.DENY, Layer.IDENTITY, "HBK-206", reason="the peer's identity is revoked")
_PLAIN = Decision(Verdict.DENY, Layer.TRANSPORT, "HBK-102", reason="STRICT: the peer presented no SVID")


class Revoked(Protocol):
    """A list of revoked peers."""

    def covers(self, spiffe_id: str, serial: str) -> bool:
        """Tell whether this id or this certificate is revoked."""


class ConnectionIdentity:
    """Refuses revoked peers, connections that are being closed, and anonymous ones where mutual TLS is STRICT.

    Args:
        mtls_mode: `STRICT`, `PERMISSIVE` or `DISABLE` of a port, by the policies in force.
        revoked: the list in force, None while it is empty.
    """

    name = "connection identity"
    layer = Layer.IDENTITY

    def __init__(self, mtls_mode: Callable[[int], str], revoked: Callable[[], Revoked | None]) -> None:
        self._mtls_mode = mtls_mode
        self._revoked = revoked

    def check(self, inbound: Inbound) -> Decision | None:
        """Refuse, or say nothing."""
        if inbound.closing and inbound.closing != AGED:
            return Decision(Verdict.DENY, Layer.IDENTITY, inbound.closing, reason="the connection is being closed")
        peer = inbound.peer
        if peer.kind is Kind.WORKLOAD:
            revoked = self._revoked()
            if revoked is None or not revoked.covers(peer.id, str(peer.proof.detail.get("serial", ""))):
                return None
            return _REVOKED
        return _PLAIN if self._mtls_mode(inbound.port) == "STRICT" else None
