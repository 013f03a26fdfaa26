"""What a value of a field may look like; mirrors Istio's validation (pkg/config/validation, pkg/config/security)."""

import ipaddress
import re
from collections.abc import Callable

from hauberk.policy._reader import Reader, decimal

MAX_PORT = 65_535
MAX_ACCOUNTS = 16
MAX_ACCOUNT = 320
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,;=:@-]|%[0-9A-Fa-f]{2})+\Z")  # RFC 3986 pchar without "*"
_BLOCK = re.compile(r"[0-9A-Fa-f:.]+(?:/(?:0|[1-9][0-9]{0,2}))?\Z")  # no zone, no netmask
_HEADER = re.compile(r"request\.headers\[[!#$%&'*+.^_`|~0-9A-Za-z-]+\]\Z")  # RFC 9110 token
_PSEUDO = re.compile(r"request\.headers\[:[a-z]+\]\Z")
_CLAIMS = re.compile(r"request\.auth\.claims(?:\[[^\[\]]+\])+\Z")
_ENVOY = re.compile(r"experimental\.envoy\.filters\..+\[.+\]\Z")
PLAIN_KEYS = frozenset(
    {
        "source.ip",
        "remote.ip",
        "source.namespace",
        "source.serviceAccount",
        "source.trustDomain",
        "source.principal",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "destination.ip",
        "destination.port",
        "connection.sni",
    }
)


def check_ports(field: Reader, values: tuple[str, ...]) -> None:
    """Numbers from 1 to 65535, in quotes."""
    for value in values:
        decimal(field, value, 1, MAX_PORT)


def check_ips(field: Reader, values: tuple[str, ...]) -> None:
    """Addresses or CIDR blocks; a block by its prefix length, not by a mask, which may be meant the other way round."""
    for value in values:
        if not _is_block(value):
            raise field.error(f"not an address or CIDR block: {value[:60]}")


def _is_block(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return _BLOCK.match(value) is not None


def is_template(path: str) -> bool:
    """Tell whether a path uses `{*}` or `{**}`."""
    return "{" in path or "}" in path


def check_paths(field: Reader, values: tuple[str, ...]) -> None:
    """Templates follow Envoy's rules: an operator is alone in its segment, and `{**}` is the last of them."""
    for value in values:
        if is_template(value):
            _check_template(field, value)


def _check_template(field: Reader, value: str) -> None:
    if not value.startswith("/"):
        raise field.error(f"a path template starts with a slash: {value[:80]}")
    segments = value[1:].removesuffix("/").split("/")
    ended = False
    for segment in segments:
        if ended and segment in {"{*}", "{**}"}:
            raise field.error("{**} has to be the last operator")
        if segment == "{**}":
            ended = True
        elif segment != "{*}" and not _SEGMENT.match(segment):
            raise field.error(f"a segment is an operator alone, or plain characters of a path: {segment[:40]!r}")


def check_accounts(field: Reader, values: tuple[str, ...]) -> None:
    """`NS/SA` or `SA`, no wildcard."""
    if len(values) > MAX_ACCOUNTS:
        raise field.error(f"at most {MAX_ACCOUNTS} service accounts")
    for value in values:
        parts = value.split("/")
        if "*" in value or len(value) > MAX_ACCOUNT or len(parts) > 2 or not all(parts):  # noqa: PLR2004  # NS/SA
            raise field.error(f"not NAMESPACE/ACCOUNT or ACCOUNT: {value[:80]}")


def check_domains(field: Reader, values: tuple[str, ...]) -> None:
    """A trust domain, with at most one `*` at an end."""
    for value in values:
        middle = value[1:] if value.startswith("*") else value.removesuffix("*")
        if "/" in value or "*" in middle:
            raise field.error(f"not a trust domain pattern: {value[:80]}")


def check_key(field: Reader, key: str) -> None:
    """One of the condition keys there are."""
    if key in PLAIN_KEYS or _HEADER.match(key) or _CLAIMS.match(key):
        return
    if _PSEUDO.match(key):
        raise field.error("pseudo-headers are not evaluated: use hosts, methods or paths", code="HBK-302")
    if _ENVOY.match(key):
        raise field.error("conditions on Envoy's filter metadata are only known to Envoy", code="HBK-302")
    raise field.error(f"unknown condition key: {key[:80]}")


CHECKS: dict[str, Callable[[Reader, tuple[str, ...]], None]] = {
    "ports": check_ports,
    "ip_blocks": check_ips,
    "remote_ip_blocks": check_ips,
    "paths": check_paths,
    "service_accounts": check_accounts,
    "trust_domains": check_domains,
}
CONDITION_CHECKS: dict[str, Callable[[Reader, tuple[str, ...]], None]] = {
    "source.ip": check_ips,
    "remote.ip": check_ips,
    "destination.ip": check_ips,
    "destination.port": check_ports,
    "source.serviceAccount": check_accounts,
    "source.trustDomain": check_domains,
}
