"""Claims about who somebody is or where he comes from, in headers that only a trusted hop may set.

Whatever of these comes from another peer is dropped before policy and application see it: nothing is refused, because
harmless clients send them too. Names with an underscore are dropped as well: CGI-style servers read `X_Forwarded_For`
and `X-Forwarded-For` as one.
"""

from collections.abc import Sequence

_NAMES = frozenset(
    {
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"x-original-url",
        b"x-original-host",
        b"x-rewrite-url",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-remote-user",
        b"remote-user",
        b"ssl-client-cert",
        b"client-cert",
        b"client-cert-chain",
    }
)
_PREFIXES = (b"x-forwarded-", b"x-envoy-", b"x-ssl-", b"x-client-cert", b"x-hauberk-")
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
