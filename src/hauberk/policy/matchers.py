"""Istio's string matching, as small functions from a value of a call to yes or no (pkg/security/authz/matcher).

A leading `*` is looked at first, so `*abc*` is a suffix match of the literal `abc*`; lint says so. `*` alone asks for a
non-empty value, for headers, methods and hosts only for presence.
"""

import ipaddress
import re
from collections.abc import Callable

from hauberk.policy._values import is_template

Text = Callable[[str], bool]
_SCHEME = "spiffe://"


def any_of(tests: list[Text]) -> Text:
    """Return a test that holds when one of `tests` does."""
    if len(tests) == 1:
        return tests[0]
    frozen = tuple(tests)
    return lambda value: any(test(value) for test in frozen)


def text(value: str) -> Text:
    """Exact, `prefix*`, `*suffix`, or `*` for anything non-empty."""
    if value == "*":
        return bool
    if value.startswith("*"):
        suffix = value[1:]
        return lambda given: given.endswith(suffix)
    if value.endswith("*"):
        prefix = value[:-1]
        return lambda given: given.startswith(prefix)
    return lambda given: given == value


def principal(value: str) -> Text:
    """`TD/ns/NS/sa/SA` with the wildcards of `text`, against a SPIFFE id."""
    if value == "*":
        return bool
    if value.startswith("*"):
        suffix = value[1:]
        return lambda given: given.startswith(_SCHEME) and given[len(_SCHEME) :].endswith(suffix)
    return text(_SCHEME + value)


def namespace(value: str) -> Text:
    """`/ns/NS/` anywhere in the id; each `*` stands for anything."""
    pattern = re.compile(".*/ns/" + ".*".join(re.escape(part) for part in value.split("*")) + "/.*", re.DOTALL)
    return lambda given: pattern.fullmatch(given) is not None


def service_account(value: str, home: str) -> Text:
    """`NS/SA`, or `SA` in the policy's own namespace."""
    space, slash, account = value.rpartition("/")
    quoted = re.escape(space if slash else home), re.escape(account)
    pattern = re.compile(r"spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?".format(*quoted), re.DOTALL)
    return lambda given: pattern.fullmatch(given) is not None


def trust_domain(value: str) -> Text:
    """A trust domain, with at most one `*` at an end."""
    inner = re.escape(value.strip("*"))
    any_part = "[^/]*"
    quoted = (
        f"{any_part if value.startswith('*') else ''}{inner}{any_part if value.endswith('*') and value != '*' else ''}"
    )
    pattern = re.compile(f"spiffe://{quoted}/.*", re.DOTALL)
    return lambda given: pattern.fullmatch(given) is not None


def path(value: str) -> Text:
    """Exact, prefix, suffix, `*`, or a template with `{*}` and `{**}`."""
    if not is_template(value):
        return text(value)
    operators = {"{*}": "[^/]+", "{**}": ".*"}
    parts = [operators.get(segment) or re.escape(segment) for segment in value.split("/")]
    pattern = re.compile("/".join(parts), re.DOTALL)
    return lambda given: pattern.fullmatch(given) is not None


def block(value: str) -> Text:
    """An address or CIDR block; an address that is none is in no block."""
    network = ipaddress.ip_network(value, strict=False)

    def inside(given: str) -> bool:
        try:
            return ipaddress.ip_address(given) in network
        except ValueError:
            return False

    return inside


def host(value: str) -> Text:
    """Like `text`, without regard to case; `*` is presence."""
    if value == "*":
        return bool  # a request without a Host has none to be present
    return _lowered(text(value.lower()))


def _lowered(test: Text) -> Text:
    return lambda given: test(given.lower())


def present_or(value: str) -> Text:
    """Like `text`, but `*` is presence (the caller tests for absence)."""
    return (lambda _given: True) if value == "*" else text(value)


def request_principal(value: str) -> Text:
    """`ISSUER/SUBJECT` with the wildcards of `text`; `*` needs both parts."""
    if value == "*":
        return lambda given: all(given.rpartition("/")[::2])
    return text(value)


def expand_aliases(value: str, domains: tuple[str, ...]) -> tuple[str, ...]:
    """Return a principal once per name of the local trust domain, if it is written in one of them.

    `cluster.local` always points to the local domain (istio pkg/security/trustdomain).

    Args:
        value: as written.
        domains: the local domain first, then its aliases.
    """
    domain, *rest = value.split("/")
    if len(rest) != 4 or domain == "*" or not (domain in domains or domain == "cluster.local"):  # noqa: PLR2004  # ns/NS/sa/SA
        return (value,)
    return tuple("/".join((name, *rest)) for name in domains)
