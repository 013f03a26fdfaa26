"""How much of anything a caller may send. Each limit is a field with its unit and the reason for its default."""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(gt=0)]
# At most ten years: infinity would turn a control off without the word `insecure_`.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=315_360_000)]
# What is meant to end does so within a day: a certificate, a token, a connection.
WithinDay = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
# Ceilings for the same reason: beyond them a limit limits nothing.
_HeaderBytes = Annotated[int, msgspec.Meta(gt=0, le=1_048_576)]
_HeaderCount = Annotated[int, msgspec.Meta(gt=0, le=1_000)]
_TargetBytes = Annotated[int, msgspec.Meta(gt=0, le=65_536)]
_BodyBytes = Annotated[int, msgspec.Meta(gt=0, le=1_073_741_824)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one request.

    Args:
        header_bytes: all names and values together, in bytes; 64 KiB is eight times what browsers and meshes send.
            At most 1 MiB.
        header_count: number of fields; 100 as in Apache httpd and Envoy. At most 1,000.
        target_bytes: path and query together, in bytes; 8 KiB is what caches and proxies pass on. At most 64 KiB.
        body_bytes: the body, in bytes; 1 MiB suits an API, an upload route needs its own runtime. At most 1 GiB.
        body_seconds: from the head of the request to the end of its body, in seconds; 30 s lets a slow phone finish
            and a dripping attacker hold a connection no longer.
    """

    header_bytes: _HeaderBytes = 65_536
    header_count: _HeaderCount = 100
    target_bytes: _TargetBytes = 8_192
    body_bytes: _BodyBytes = 1_048_576
    body_seconds: Seconds = 30.0


DEFAULT_LIMITS = Limits()
