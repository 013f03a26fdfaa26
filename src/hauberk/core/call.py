"""A call: one attempt to do one thing to one resource. Things that are not HTTP are calls too (`Call.action`)."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.principal import ANONYMOUS, Principal

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Headers:
    """Request headers as received: names lower-case bytes, in order, duplicates kept.

    Lookup is linear because a request has about ten of them and most calls look none up.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.raw = raw

    def get(self, name: str) -> str | None:
        """Return the values of `name` (any case) joined by a comma as Envoy does, or None when absent.

        White space around a value is no part of it (RFC 9110 section 5.5). Bytes are read as UTF-8, as policies are
        written; what is no UTF-8 stays apart as surrogates, which no policy holds.
        """
        wanted = name.lower().encode("latin-1")
        found = [value.strip(b" \t") for key, value in self.raw if key == wanted]
        return b",".join(found).decode("utf-8", "surrogateescape") if found else None

    def __repr__(self) -> str:
        return f"Headers({len(self.raw)} fields)"


NO_HEADERS = Headers()


class Workload(msgspec.Struct, frozen=True):
    """The callee.

    Args:
        namespace: such as `production`.
        account: the service account, such as `payment-service`.
        labels: what policy selectors match, such as `{"app": "payment-service"}`.
    """

    namespace: str = "default"
    account: str = "default"
    labels: Mapping[str, str] = _NO_LABELS


class Address(msgspec.Struct, frozen=True):
    """Where a connection comes from. Proves nothing about who.

    Args:
        ip: the direct peer, textual; empty when unknown (Unix socket).
        port: the peer's port, 0 when unknown.
        forwarded: the client address a trusted hop reported, or None.
    """

    ip: str = ""
    port: int = 0
    forwarded: str | None = None


NOWHERE = Address()
HERE = Workload()


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # one a request, never part of a cycle
    """One attempt.

    Args:
        peer: the connection's identity (mutual TLS); Istio's `source.*`.
        user: the request's identity (token, session); Istio's `request.auth.*`.
        method: upper-case HTTP method, or the verb of an action; empty on a TCP call.
        path: canonical path without query, or the resource of an action; empty on a TCP call.
        host: the Host header as sent, with its port if it has one.
        port: the workload's port.
        headers: as received.
        target: the callee.
        address: the direct peer's address.
        destination_ip: the local address the connection arrived at.
        sni: the server name of the TLS handshake.
        id: of this call.
        parent: id of the call this one is part of.
        deadline: monotonic seconds after which the answer is worthless, or None.
        time: Unix seconds.
    """

    peer: Principal = ANONYMOUS
    user: Principal = ANONYMOUS
    method: str = ""
    path: str = ""
    host: str = ""
    port: int = 0
    headers: Headers = NO_HEADERS
    target: Workload = HERE
    address: Address = NOWHERE
    destination_ip: str = ""
    sni: str = ""
    id: str = ""
    parent: str | None = None
    deadline: float | None = None
    time: float = 0.0

    @classmethod
    def action(
        cls,
        principal: Principal,
        verb: str,
        resource: str,
        *,
        target: Workload = HERE,
        clock: Clock = SYSTEM_CLOCK,
    ) -> "Call":
        """Describe something that is not HTTP: `Call.action(me, "append", "/streams/order-17")`."""
        return cls(peer=principal, method=verb, path=resource, target=target, time=clock.time())
