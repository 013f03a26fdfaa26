"""A request as it came in, before anything about it is believed. Guards look at it one after the other."""

from collections.abc import Sequence

import msgspec

from hauberk.core.call import NOWHERE, Address, Call
from hauberk.core.principal import ANONYMOUS, Principal


class Inbound(msgspec.Struct, gc=False):  # one a request, never part of a cycle
    """One request on its way through the guards. Each guard may fill in what the next ones need.

    Args:
        method: as sent.
        raw_path: the path as sent, percent-encoded, without query.
        path: the path as the application will see it, decoded.
        query: the query as sent.
        headers: as received, names in lower case; the canonical guard takes out what the peer may not say.
        http_version: such as `1.1`.
        peer: the connection's identity.
        closing: code of why the connection is to end, or empty.
        address: the direct peer.
        destination_ip: local address of the connection.
        port: local port of the connection.
        time: Unix seconds.
        sni: the server name of the TLS handshake.
        dropped: some of `headers` were taken out.
        body: a body of unknown length follows; said by the canonical guard.
        call: made by the canonical guard.
    """

    method: str
    raw_path: bytes
    path: str
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    http_version: str = "1.1"
    peer: Principal = ANONYMOUS
    closing: str = ""
    address: Address = NOWHERE
    destination_ip: str = ""
    port: int = 0
    time: float = 0.0
    sni: str = ""
    dropped: bool = False
    body: bool = True
    call: Call | None = None
