"""How much of anything a caller may send. Each limit is a field with its unit and the reason for its default."""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(gt=0)]
# At most ten years: infinity would turn a control off without the word `insecure_`.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=315_360_000)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one request.

    Args:
        header_bytes: all names and values together, in bytes; 64 KiB is eight times what browsers and meshes send.
        header_count: number of fields; 100 as in Apache httpd and Envoy.
        target_bytes: path and query together, in bytes; 8 KiB is what caches and proxies pass on.
        body_bytes: the body, in bytes; 1 MiB suits an API, an upload route needs its own runtime.
        body_seconds: from the head of the request to the end of its body, in seconds; 30 s lets a slow phone finish
            and a dripping attacker hold a connection no longer.
    """

    header_bytes: Count = 65_536
    header_count: Count = 100
    target_bytes: Count = 8_192
    body_bytes: Count = 1_048_576
    body_seconds: Seconds = 30.0


DEFAULT_LIMITS = Limits()
