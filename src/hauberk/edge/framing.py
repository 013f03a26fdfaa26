"""Where one request ends and the next begins, and for whom it is meant: RFC 9112 section 6.3 without the leniency.

Request smuggling lives on two parsers that disagree. So whatever gives room for that is refused: a repeated, listed or
non-numeric `Content-Length`, one beside `Transfer-Encoding`, any transfer coding but one `chunked`, more or fewer than
one `Host`, names that are no token (RFC 9110 section 5.6.2) and control bytes in values.
"""

import re
from collections.abc import Sequence

from hauberk.core.limits import Limits
from hauberk.errors import EdgeError

_TOKEN = re.compile(rb"[!#$%&'*+.^`|~0-9a-zA-Z-]+\Z")  # RFC 9110 without "_", which CGI-style servers take for "-"
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(rb"[0-9]{1,15}\Z")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_OVERHEAD = 4  # ": " and CRLF around each field


class Head:
    """What the framing says.

    Args:
        host: the one Host, as sent; empty where HTTP/1.0 left it out.
        length: the announced length of the body in bytes, or None.
        body: whether a body follows.
        size: of all fields together, in bytes.
    """

    __slots__ = ("body", "host", "length", "size")

    def __init__(self, host: str, length: int | None, *, body: bool, size: int) -> None:
        self.size = size
        self.host = host
        self.length = length
        self.body = body


def check_framing(headers: Sequence[tuple[bytes, bytes]], limits: Limits, *, http_version: str = "1.1") -> Head:
    """Return what the head says about the message.

    Args:
        headers: as received, names in lower case.
        limits: `header_bytes`, `header_count` and `body_bytes`.
        http_version: `1.0`, `1.1` or `2`.

    Raises:
        EdgeError: HBK-401 malformed, HBK-403 head too large, HBK-404 body too large, HBK-405 ambiguous framing.
    """
    if len(headers) > limits.header_count:
        raise EdgeError("HBK-403", "too many fields", count=len(headers))
    total, hosts, lengths, codings = 0, [], [], []
    for name, value in headers:
        total += len(name) + len(value) + _OVERHEAD
        if _CONTROL.search(value) or not (_TOKEN.match(name) or b"_" in name):
            raise EdgeError("HBK-401", "a field name is no token, or a value holds control bytes")
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if total > limits.header_bytes:
        raise EdgeError("HBK-403", "the fields are too large", bytes=total)
    length = _length(lengths, codings, http_version)
    if length is not None and length > limits.body_bytes:
        raise EdgeError("HBK-404", "the announced body is too large", bytes=length)
    return Head(
        _host(hosts, http_version), length, body=bool(length) or bool(codings) or http_version >= "2", size=total
    )


def _length(lengths: list[bytes], codings: list[bytes], http_version: str) -> int | None:
    if codings and (lengths or http_version != "1.1" or [coding.lower() for coding in codings] != [b"chunked"]):
        raise EdgeError("HBK-405", "a transfer coding other than one chunked, or beside a length")
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.match(lengths[0]):
        raise EdgeError("HBK-405", "several lengths, or one that is no number")
    return int(lengths[0])


def _host(hosts: list[bytes], http_version: str) -> str:
    if not hosts and http_version == "1.0":
        return ""
    if len(hosts) != 1:
        raise EdgeError("HBK-405", "more or fewer than one Host", count=len(hosts))
    if not _HOST.match(hosts[0]):
        raise EdgeError("HBK-401", "the Host is malformed")
    return hosts[0].decode("ascii")
