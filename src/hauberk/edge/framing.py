"""Where one request ends and the next begins, and for whom it is meant: RFC 9112 section 6.3 without the leniency.

Request smuggling lives on two parsers that disagree. So whatever gives room for that is refused: a repeated, listed or
non-numeric `Content-Length`, one beside `Transfer-Encoding`, any transfer coding but one `chunked`, more or fewer than
one `Host`, names that are no token (RFC 9110 section 5.6.2) and control bytes in values.
"""

import re
from collections.abc import Sequence

import msgspec

from hauberk.core.limits import Limits
from hauberk.edge.forwarded import is_claim
from hauberk.errors import EdgeError

_TOKEN = re.compile(rb"[!#$%&'*+.^`|~0-9a-zA-Z_-]+\Z")
_CLEAN = bytes(byte for byte in range(256) if byte == 0x09 or 0x20 <= byte != 0x7F)  # noqa: PLR2004  # tab, space, delete
_METHOD = re.compile(r"[A-Z][A-Z0-9-]{0,31}\Z")
_LENGTH_DIGITS = 15  # a petabyte
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_OVERHEAD = 4  # ": " and CRLF around each field
_REMEMBERED = 256  # shapes, and hosts, at most; a client sends the same few names in the same order each time
_HOST_BYTES = 255  # of a host that is remembered
_REMEMBERED_BYTES = 2_048  # of the names of a shape that is remembered; together half a megabyte


class Head(msgspec.Struct, frozen=True, gc=False):
    """What the framing says.

    Args:
        host: the one Host, as sent; empty where HTTP/1.0 left it out.
        length: the announced length of the body in bytes, or None.
        body: whether a body follows.
        claims: there are fields that only a trusted hop may send.
    """

    host: str
    length: int | None
    body: bool
    claims: bool


class _Shape(msgspec.Struct, frozen=True):
    """What follows from the names of the fields alone.

    Args:
        size: of the names and what surrounds the fields, in bytes.
        hosts: which fields are a Host.
        lengths: which are a Content-Length.
        codings: which are a Transfer-Encoding.
        claims: whether one is a claim.
    """

    size: int
    hosts: tuple[int, ...]
    lengths: tuple[int, ...]
    codings: tuple[int, ...]
    claims: bool


_shapes: dict[tuple[bytes, ...], _Shape] = {}  # both are only ever added to, or emptied
_hosts: dict[bytes, str] = {}


def _shape_of(names: tuple[bytes, ...]) -> _Shape:
    """Judge the names; a well-formed shape of ordinary size is remembered.

    Raises:
        EdgeError: HBK-401 a name is no token.
    """
    if not all(map(_TOKEN.match, names)):
        raise EdgeError("HBK-401", "a field name is no token")
    hosts, lengths, codings = (
        tuple(at for at, name in enumerate(names) if name == wanted)
        for wanted in (b"host", b"content-length", b"transfer-encoding")
    )
    size = sum(map(len, names)) + _OVERHEAD * len(names)
    shape = _Shape(size, hosts, lengths, codings, any(map(is_claim, names)))
    if size <= _REMEMBERED_BYTES:
        if len(_shapes) >= _REMEMBERED:
            _shapes.clear()
        _shapes[names] = shape
    return shape


def check_method(method: str) -> None:
    """Refuse a method that some frameworks would read as another: they fold case and trim.

    Raises:
        EdgeError: HBK-401.
    """
    if not _METHOD.match(method):
        raise EdgeError("HBK-401", "the method is no token in upper case")


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
    names, values = zip(*headers, strict=True) if headers else ((), ())
    text = b"".join(values)
    shape = _shapes.get(names) or _shape_of(names)
    if shape.size + len(text) > limits.header_bytes:
        raise EdgeError("HBK-403", "the fields are too large", bytes=shape.size + len(text))
    if text.translate(None, _CLEAN):
        raise EdgeError("HBK-401", "a value holds control bytes")
    length = _length(values, shape, http_version) if shape.lengths or shape.codings else None
    if length is not None and length > limits.body_bytes:
        raise EdgeError("HBK-404", "the announced body is too large", bytes=length)
    hosts = shape.hosts
    if len(hosts) == 1:
        value = values[hosts[0]]
        host = _hosts.get(value) or _host_of(value)
    elif hosts or http_version != "1.0":
        raise EdgeError("HBK-405", "more or fewer than one Host", count=len(hosts))
    else:
        host = ""
    return Head(host, length, bool(length or shape.codings) or http_version >= "2", shape.claims)


def _length(values: Sequence[bytes], shape: _Shape, http_version: str) -> int | None:
    if shape.codings:
        codings = [values[at].lower() for at in shape.codings]
        if shape.lengths or http_version != "1.1" or codings != [b"chunked"]:
            raise EdgeError("HBK-405", "a transfer coding other than one chunked, or beside a length")
        return None
    first = values[shape.lengths[0]]
    if len(shape.lengths) > 1 or not first.isdigit() or len(first) > _LENGTH_DIGITS:
        raise EdgeError("HBK-405", "several lengths, or one that is no number")
    return int(first)


def _host_of(value: bytes) -> str:
    """Judge a Host; a well-formed one of ordinary length is remembered.

    Raises:
        EdgeError: HBK-401.
    """
    if not _HOST.match(value):
        raise EdgeError("HBK-401", "the Host is malformed")
    host = value.decode("ascii")
    if len(host) <= _HOST_BYTES:
        if len(_hosts) >= _REMEMBERED:
            _hosts.clear()
        _hosts[value] = host
    return host
