"""One path, one meaning: what the policy judged is what the application routes.

A path that two parsers could read differently is refused, not repaired. Refused are empty segments, `.` and `..`
(encoded or not), backslashes, path parameters (`;`), encoded slashes, percent signs and control bytes, encodings of
characters that need none (RFC 3986 section 2.3), bytes that are no UTF-8, control characters and line separators beyond
ASCII, and broken escapes. What remains has exactly one decoded form.
"""

import re

from hauberk.errors import EdgeError

# The fast way in: no escapes, no empty or dotted segments, only characters with no second meaning.
_PLAIN = re.compile(
    rb"/(?:[A-Za-z0-9_~-][A-Za-z0-9_~!$&'()*+,=:@.-]*/)*(?:[A-Za-z0-9_~-][A-Za-z0-9_~!$&'()*+,=:@.-]*)?\Z"
)
_ALLOWED = re.compile(rb"/(?:[A-Za-z0-9_~!$&'()*+,=:@./-]|%[0-9A-Fa-f]{2})*\Z")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NEVER = frozenset(b"/\\%;?#") | frozenset(range(0x20)) | {0x7F}  # not even when encoded
_SEPARATOR = re.compile("[\x80-\x9f\u2028\u2029]")  # C1 controls, LINE SEPARATOR, PARAGRAPH SEPARATOR


def canonical_path(raw: bytes) -> str:
    """Return the one decoded form of a path.

    Args:
        raw: as sent, without query.

    Raises:
        EdgeError: HBK-402 it has none, or more than one.
    """
    if _PLAIN.match(raw):
        return raw.decode("ascii")
    if not _ALLOWED.match(raw):
        raise EdgeError("HBK-402", "a character that is not allowed, or a broken escape")
    for found in _ESCAPE.finditer(raw):
        byte = int(found.group(1), 16)
        if byte in _NEVER or byte in _UNRESERVED:
            raise EdgeError("HBK-402", "an escape of a byte that must not be escaped", byte=byte)
    segments = raw.split(b"/")[1:]
    if any(segment in {b".", b".."} for segment in segments) or b"" in segments[:-1]:
        raise EdgeError("HBK-402", "an empty or dotted segment")
    try:
        path = _ESCAPE.sub(lambda found: bytes((int(found.group(1), 16),)), raw).decode("utf-8")
    except UnicodeDecodeError:
        raise EdgeError("HBK-402", "not UTF-8") from None
    if _SEPARATOR.search(path):
        raise EdgeError("HBK-402", "a control character or a line separator")
    return path
