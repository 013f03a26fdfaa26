"""Answers to refused requests: RFC 9457 problems with a constant text, a code and an incident id, and nothing else."""

import msgspec

from hauberk.errors import REGISTRY

CONTENT_TYPE = b"application/problem+json"
# After these nobody knows, or nobody wants to read, where the next request begins (RFC 9112 section 9.6).
CLOSING = frozenset({"HBK-401", "HBK-403", "HBK-404", "HBK-405", "HBK-407"})
UNAVAILABLE = 503
RETRY_SECONDS = 1  # what is missing (a disk, the authority) comes back or stays away; asking seldom costs little
_encode = msgspec.json.Encoder().encode


def problem(code: str, incident: str, *, http_version: str = "2") -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body.

    Args:
        code: `HBK-###`.
        incident: what the caller may quote; operators find the cause under it in the ledger.
        http_version: of the request; before `2` the codes of `CLOSING` end the connection, `2` forbids to say so.
    """
    spec = REGISTRY[code]
    body = _encode(
        {"type": "about:blank", "title": spec.public, "status": spec.status, "code": code, "incident": incident}
    )
    headers = [
        (b"content-type", CONTENT_TYPE),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if spec.status == UNAVAILABLE:
        headers.append((b"retry-after", b"%d" % RETRY_SECONDS))
    if code in CLOSING and http_version < "2":
        headers.append((b"connection", b"close"))
    return spec.status, headers, body
