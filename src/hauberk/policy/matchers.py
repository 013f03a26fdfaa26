"""Istio's string matching, as small functions from a value of a call to yes or no (pkg/security/authz/matcher).

A leading `*` is looked at first, so `*abc*` is a suffix match of the literal `abc*`; lint says so. `*` alone asks for a
non-empty value, for headers, methods and hosts only for presence.
"""

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache

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
    """`/ns/NS/` anywhere in the id; each `*` stands for anything.

    The pieces between the stars are looked for one after the other, each as early as it can be. That finds what the
    regular expression `.*/ns/A.*B/.*` finds, without going back: a value full of stars costs no more than any other.
    """
    pieces = value.split("*")
    pieces[0] = "/ns/" + pieces[0]
    pieces[-1] += "/"

    def inside(given: str) -> bool:
        at = 0
        for piece in pieces:
            found = given.find(piece, at)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    return inside


def service_account(value: str, home: str) -> Text:
    """`NS/SA`, or `SA` in the policy's own namespace."""
    space, slash, account = value.rpartition("/")
    quoted = re.escape(space if slash else home), re.escape(account)
    pattern = re.compile(r"spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?".format(*quoted), re.DOTALL)
    return lambda given: pattern.fullmatch(given) is not None


def trust_domain(value: str) -> Text:
    """A trust domain, with at most one `*` at an end; `*` alone is any SPIFFE id."""
    if value == "*":
        return lambda given: given.startswith(_SCHEME)
    pattern = re.compile(f"spiffe://{'[^/]*'.join(map(re.escape, value.split('*')))}/.*", re.DOTALL)
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
    """An address or CIDR block; an address that is none is in no block.

    An IPv4 address that a socket for both families reports as `::ffff:10.0.0.1` is that IPv4 address, as in Envoy: a
    DENY of `10.0.0.0/8` must not depend on how the listener was opened.
    """
    network = ipaddress.ip_network(value, strict=False)
    return lambda given: (address := _address(given)) is not None and address in network


@lru_cache(maxsize=4096)  # one call is asked about many blocks
def _address(given: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


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
    """`ISSUER/SUBJECT`, divided at the last slash, each part by itself.

    `*` needs both; a leading `*` belongs to the issuer (to the subject, where there is no slash), a trailing one to the
    subject (to the issuer, where there is no slash). So `https://a.example/*` is every subject of exactly that issuer.
    """
    issuer, subject = _issuer_and_subject(value)

    def match(given: str) -> bool:
        given_issuer, _, given_subject = given.rpartition("/")
        return issuer(given_issuer) and subject(given_subject)

    return match


def _issuer_and_subject(value: str) -> tuple[Text, Text]:
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        return bool, bool
    if not slash:
        if value.startswith("*"):
            return bool, _suffix(value[1:])
        return (_prefix(value[:-1]), bool) if value.endswith("*") else (value.__eq__, "".__eq__)
    if value.startswith("*"):
        return bool if issuer == "*" else _suffix(issuer[1:]), subject.__eq__
    if value.endswith("*"):
        return issuer.__eq__, bool if subject == "*" else _prefix(subject[:-1])
    return issuer.__eq__, subject.__eq__


def _suffix(end: str) -> Text:
    return lambda given: given.endswith(end)


def _prefix(start: str) -> Text:
    return lambda given: given.startswith(start)


def expand_aliases(value: str, domains: tuple[str, ...]) -> tuple[str, ...]:
    """Return a principal once per name of the local trust domain, if it is written in one of them.

    `cluster.local` always points to the local domain, and a domain with a wildcard (`*-td/ns/NS/sa/SA`) that covers one
    name of the local domain stands for all of them (istio pkg/security/trustdomain).

    Args:
        value: as written.
        domains: the local domain first, then its aliases.
    """
    domain, *rest = value.split("/")
    if len(rest) != 4 or domain == "*":  # noqa: PLR2004  # ns/NS/sa/SA
        return (value,)
    if domain != "cluster.local" and not any(_covers(domain, name) for name in domains):
        return (value,)
    tail = "/".join(rest)
    return tuple(
        dict.fromkeys(
            value if domain.startswith("*") and name.endswith(domain[1:]) else f"{name}/{tail}" for name in domains
        )
    )


def _covers(pattern: str, name: str) -> bool:
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
