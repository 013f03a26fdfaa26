"""httpx2 clients that present our SVID and talk to exactly one service.

The address says where to connect, the name says to whom: a server with any other identity is a connect error, whatever
its address. Nothing is taken from the environment (proxies, certificates), and redirects are not followed.
"""

from typing import Any

import httpx2

from hauberk.core.spiffe import SpiffeId
from hauberk.runtime import Runtime

TIMEOUT = 10.0  # seconds, for each of connect, read, write and pool


def client(*, to: str | SpiffeId, runtime: Runtime, base_url: str = "", **options: Any) -> httpx2.Client:  # noqa: ANN401  # handed on to httpx2, which types them
    """Return a client for one service. A renewed SVID is used by the next connection; open ones go on.

    Args:
        to: `payment-service` (own namespace), `namespace/payment-service`, or a SPIFFE id.
        runtime: whose identity to present.
        base_url: such as `https://127.0.0.1:8443`.
        options: further arguments of `httpx2.Client`.

    Raises:
        IdentityError: HBK-211 the runtime has no identity, HBK-201 `to` is no name of a service.
    """
    return httpx2.Client(verify=runtime.client_context(to), base_url=base_url, **_settled(options))


def async_client(*, to: str | SpiffeId, runtime: Runtime, base_url: str = "", **options: Any) -> httpx2.AsyncClient:  # noqa: ANN401  # handed on to httpx2, which types them
    """Return an asynchronous client for one service; see `client`."""
    return httpx2.AsyncClient(verify=runtime.client_context(to), base_url=base_url, **_settled(options))


def _settled(options: dict[str, Any]) -> dict[str, Any]:
    return {"timeout": TIMEOUT, "follow_redirects": False, **options, "trust_env": False}
