"""Answers to refused requests: RFC 9457 problems with a constant text, a code and an incident id, and nothing else."""

import msgspec

from hauberk.errors import REGISTRY

CONTENT_TYPE = b"application/problem+json"
UNAVAILABLE = 503
RETRY_SECONDS = 1  # what is missing (a disk, the authority) comes back or stays away; asking seldom costs little
_encode = msgspec.json.Encoder().encode


def problem(code: str, incident: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body.

    Args:
        code: `HBK-###`.
        incident: what the caller may quote; operators find the cause under it in the ledger.
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
    return spec.status, headers, body
