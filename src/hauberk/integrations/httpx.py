"""httpx2 clients that present our SVID and talk to exactly one service.

The address says where to connect, the name says to whom: a server with any other identity is a connect error, whatever
its address. Without TLS there is no identity, so nothing is sent to an address that is not https. Nothing is taken from
the environment (proxies, certificates), and redirects are not followed.
"""

from typing import Any

import httpx2

from hauberk.core.spiffe import SpiffeId
from hauberk.errors import ConfigError, TransportError
from hauberk.runtime import Runtime

TIMEOUT = 10.0  # seconds, for each of connect, read, write and pool
# Each of these would decide who is talked to, or as whom, instead of the name and our SVID.
REFUSED = frozenset({"cert", "mounts", "proxy", "transport", "trust_env", "verify"})
_SCHEMES = frozenset({"https", "wss"})  # wss is the same connection, upgraded
_OF_TRANSPORT = ("http1", "http2", "limits")


def client(*, to: str | SpiffeId, runtime: Runtime, base_url: str = "", **options: Any) -> httpx2.Client:  # noqa: ANN401  # handed on to httpx2, which types them
    """Return a client for one service. A renewed SVID is used by the next connection; open ones go on.

    A request to an address that is not https, also after a redirect, is refused before anything is sent (HBK-103).

    Args:
        to: `payment-service` (own namespace), `namespace/payment-service`, or a SPIFFE id.
        runtime: whose identity to present.
        base_url: such as `https://127.0.0.1:8443`.
        options: further arguments of `httpx2.Client`, but for those in `REFUSED`.

    Raises:
        IdentityError: HBK-211 the runtime has no identity, HBK-201 `to` is no name of a service.
        ConfigError: HBK-901 an option that would replace the transport or what it checks, or a `base_url` without TLS.
    """
    settled = _settled(options, base_url)
    transport = _Pinned(verify=runtime.client_context(to), trust_env=False, **_of_transport(options))
    return httpx2.Client(transport=transport, base_url=base_url, **settled)


def async_client(*, to: str | SpiffeId, runtime: Runtime, base_url: str = "", **options: Any) -> httpx2.AsyncClient:  # noqa: ANN401  # handed on to httpx2, which types them
    """Return an asynchronous client for one service; see `client`."""
    settled = _settled(options, base_url)
    transport = _AsyncPinned(verify=runtime.client_context(to), trust_env=False, **_of_transport(options))
    return httpx2.AsyncClient(transport=transport, base_url=base_url, **settled)


def _settled(options: dict[str, Any], base_url: str) -> dict[str, Any]:
    for name in sorted(REFUSED & options.keys()):
        raise ConfigError("HBK-901", "the option would replace what pins the service", option=name)
    if str(base_url) and httpx2.URL(base_url).scheme not in _SCHEMES:
        raise ConfigError("HBK-901", "only an https address shows who answers", option="base_url")
    return {"timeout": TIMEOUT, "follow_redirects": False, **options, "trust_env": False}


def _of_transport(options: dict[str, Any]) -> dict[str, Any]:
    """Return what a client would hand to the transport it makes itself."""
    return {name: options[name] for name in _OF_TRANSPORT if name in options}


def _check(request: httpx2.Request) -> None:
    """Refuse what would go out unencrypted, to whoever answers."""
    if request.url.scheme not in _SCHEMES:
        raise TransportError("HBK-103", "not an https address", scheme=request.url.scheme, host=request.url.host)


class _Pinned(httpx2.HTTPTransport):
    """Looks where everything passes: after the hooks, which may change the address, and at each redirect."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        _check(request)
        return super().handle_request(request)


class _AsyncPinned(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        _check(request)
        return await super().handle_async_request(request)
