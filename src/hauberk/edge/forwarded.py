"""Claims about who somebody is or where he comes from, in headers that only a trusted hop may set.

Whatever of these comes from another peer is dropped before policy and application see it: nothing is refused, because
harmless clients send them too. Names with an underscore are dropped as well: CGI-style servers read `X_Forwarded_For`
and `X-Forwarded-For` as one.
"""

import ipaddress
from collections.abc import Sequence

# What gateways, load balancers and single sign-on proxies set, and applications and frameworks believe.
_NAMES = frozenset(
    {
        b"forwarded",
        b"forwarded-for",
        b"via",
        b"proxy",  # httpoxy: CGI-style servers read it as HTTP_PROXY
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-originating-ip",
        b"true-client-ip",
        b"fastly-client-ip",
        b"fly-client-ip",
        b"proxy-client-ip",
        b"wl-proxy-client-ip",
        b"x-host",
        b"x-http-host-override",
        b"x-scheme",
        b"x-script-name",
        b"script-name",
        b"x-url-scheme",
        b"front-end-https",
        b"x-rewrite-url",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"remote-user",
        b"x-user",
        b"x-user-id",
        b"x-middleware-subrequest",
    }
)
_PREFIXES = (
    b"x-forwarded",
    b"x-original-",
    b"x-envoy-",
    b"x-ssl-",
    b"ssl-client-",
    b"x-tls-",
    b"x-mtls-",
    b"x-client-cert",
    b"x-client-dn",
    b"x-client-verify",
    b"client-cert",
    b"x-remote-",
    b"x-auth-request-",
    b"x-authenticated-",
    b"x-webauth-",
    b"x-ms-client-principal",
    b"x-azure-",
    b"x-arr-",
    b"x-goog-",
    b"x-amzn-mtls-",
    b"x-amzn-oidc-",
    b"x-amz-cf-",
    b"cf-access-",
    b"cf-connecting-",
    b"tailscale-",
    b"x-hauberk-",
)
_FIRST = frozenset(name[:1] for name in (*_NAMES, *_PREFIXES))
Fields = Sequence[tuple[bytes, bytes]]


def is_claim(name: bytes) -> bool:
    """Tell whether only a trusted hop may set this header; `name` is in lower case."""
    return b"_" in name or (name[:1] in _FIRST and (name in _NAMES or name.startswith(_PREFIXES)))


def drop_claims(headers: Fields) -> Fields:
    """Return the headers without those only a trusted hop may set; the same object when there are none."""
    for name, _ in headers:
        if is_claim(name):
            return [field for field in headers if not is_claim(field[0])]
    return headers


def forwarded_for(headers: Fields) -> str | None:
    """Return the client's address as the nearest hop reports it: the last one in `X-Forwarded-For`, if it is one.

    What stands before it was said by hops further away, or by the client itself.

    Args:
        headers: from a trusted hop.
    """
    told = [value for name, value in headers if name == b"x-forwarded-for"]
    last = b",".join(told).rpartition(b",")[2].strip().decode("latin-1")
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return None
