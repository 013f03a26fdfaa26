"""Calls that stand for all calls two engines may decide differently.

For every field that any rule looks at: each value that is named, something each pattern takes, something two patterns
take together, and something nobody names. A verdict can only change for a call that a changed clause matches, so for
each changed clause the values it accepts are combined and the others left alone. Claims of tokens are not combined.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

import msgspec

from hauberk.core.call import Address, Call, Headers, Workload
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.policy._values import is_template
from hauberk.policy.clause import Clause, Group, Test
from hauberk.policy.engine import Engine
from hauberk.policy.explain import clauses_for, looks_at
from hauberk.policy.model import Action

MAX_PARTS = 12  # of SPIFFE ids, of each sort; beyond it only ids of single rules are made, not every mixture
UNNAMED = "hauberk-diff"  # in no policy, so it is what no rule names
_TCP = Call()
_HTTP = Call(method=UNNAMED.upper(), path=f"/{UNNAMED}")
_DIMENSIONS = {
    **dict.fromkeys(("principals", "namespaces", "serviceAccounts", "trustDomains"), "peer"),
    **dict.fromkeys(("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain"), "peer"),
    **dict.fromkeys(("requestPrincipals", "request.auth.principal"), "user"),
    **dict.fromkeys(("ipBlocks", "source.ip"), "ip"),
    **dict.fromkeys(("remoteIpBlocks", "remote.ip"), "forwarded"),
    **dict.fromkeys(("ports", "destination.port"), "port"),
    "methods": "method",
    "paths": "path",
    "hosts": "host",
    "destination.ip": "destination_ip",
    "connection.sni": "sni",
}
_HTTP_ONLY = frozenset({"user", "method", "path", "host"})
Key = tuple[object, ...]


class Universe:
    """What two engines tell apart.

    Args:
        old: compiled for one workload.
        new: compiled for the same one.
    """

    def __init__(self, old: Engine, new: Engine) -> None:
        self.complete = True
        self._engines = (old, new)
        values: dict[str, dict[str, None]] = {}
        tests = [test for engine in self._engines for clause in engine.clauses for test in clause.tests]
        for test in tests:
            dimension = _dimension(test)
            if dimension:
                values.setdefault(dimension, {}).update(dict.fromkeys(test.values))
            else:
                self.complete = False
        peers = sorted(self._peers(tests))
        self._values = {name: _make(name, found) for name, found in values.items() if name != "peer"} | {"peer": peers}

    def calls(self, target: Workload) -> Iterator[Call]:
        """Yield calls, each once."""
        seen: set[Key] = set()
        for base in (_HTTP, _TCP):
            for tests in self._changed(base):
                names = [name for name in self._values if base.method or not _is_http(name)]
                accepted = [[one for one in self._values[name] if _accepts(tests, name, one, base)] for name in names]
                for chosen in product(*accepted):
                    key = (base.method, *chosen)
                    if key not in seen:
                        seen.add(key)
                        yield msgspec.structs.replace(_with(base, dict(zip(names, chosen, strict=True))), target=target)

    def _changed(self, base: Call) -> list[tuple[Test, ...]]:
        """The tests of every clause that only one engine has; none at all when what is allowed by default changes."""
        old, new = ([it for it in clauses_for(engine, base) if it.group is not Group.AUDIT] for engine in self._engines)
        first, second = self._engines
        if _is_open(first) != _is_open(second) or _domains(first) != _domains(second):
            return [()]
        known = {_signature(clause) for clause in old}, {_signature(clause) for clause in new}
        return [it.tests for it in old if _signature(it) not in known[1]] + [
            it.tests for it in new if _signature(it) not in known[0]
        ]

    def _peers(self, tests: Sequence[Test]) -> set[str]:
        """Every mixture of the trust domains, namespaces and accounts that are named."""
        homes = {clause.policy.namespace for engine in self._engines for clause in engine.clauses}
        domains = {name for engine in self._engines for name in _domains(engine)}
        everything = (domains | {UNNAMED}, {UNNAMED}, {UNNAMED})
        found = {""}
        for test in tests:
            if test.on_id is not None:
                named = [_parts(test, value, homes) for value in test.values]
                for at, kind in enumerate(everything):
                    kind.update(part for parts in named for part in parts[at])
                found.update(one for one in test.exact_ids if "*" not in one)
                found.update(one for parts in named for one in _ids(*(set(part) or {UNNAMED} for part in parts)))
        if all(len(kind) <= MAX_PARTS for kind in everything):
            return found | set(_ids(*everything))
        self.complete = False
        return found | set(_ids(domains | {UNNAMED}, {UNNAMED}, {UNNAMED}))


def _ids(domains: Iterable[str], spaces: Iterable[str], accounts: Iterable[str]) -> Iterator[str]:
    return (f"spiffe://{one}/ns/{two}/sa/{three}" for one, two, three in product(domains, spaces, accounts))


def _is_open(engine: Engine) -> bool:
    return not any(policy.action is Action.ALLOW and not policy.dry_run for policy in engine.selected)


def _domains(engine: Engine) -> tuple[str, ...]:
    return (engine.policies.trust_domain, *engine.policies.aliases)


def _signature(clause: Clause) -> Key:
    return clause.group, clause.policy.namespace, tuple((test.field, test.values) for test in clause.tests)


def _dimension(test: Test) -> str:
    key = looks_at(test)
    return key if key.startswith("request.headers[") else _DIMENSIONS.get(key, "")


def _is_http(name: str) -> bool:
    return name in _HTTP_ONLY or name.startswith("request.")


def _accepts(tests: tuple[Test, ...], name: str, value: str, base: Call) -> bool:
    call = _with(base, {name: value})
    return all(test.match(call) for test in tests if _dimension(test) == name)


def _with(base: Call, values: Mapping[str, str]) -> Call:
    """Return the call with these values; an empty one is nothing, and a header that is there starts with `=`."""
    peer, user = values.get("peer", ""), values.get("user", "")
    named = {name[len("request.headers[") : -1]: text for name, text in values.items() if name.startswith("request.h")}
    changes = {name: values[name] for name in ("method", "path", "host", "destination_ip", "sni") if name in values}
    return msgspec.structs.replace(
        base,
        **changes,
        peer=Principal(Kind.WORKLOAD, peer) if peer else ANONYMOUS,
        user=Principal(Kind.USER, user) if user else ANONYMOUS,
        port=int(values.get("port", "0")),
        address=Address(values.get("ip", ""), 0, values.get("forwarded") or None),
        headers=Headers([(name.lower().encode(), text[1:].encode()) for name, text in named.items() if text]),
    )


def _make(name: str, patterns: Iterable[str]) -> list[str]:
    """Return values of a field: what its patterns take, and something they do not."""
    if name == "port":
        numbers = {int(value) for value in patterns}
        return sorted({*map(str, numbers), str(next(one for one in range(65_535, 0, -1) if one not in numbers))})
    if name in {"ip", "forwarded", "destination_ip"}:
        return ["", *_edges(patterns)]
    if name == "user":
        parts = [pattern.rpartition("/")[::2] for pattern in patterns]
        both = [set(_texts(part for pair in parts for part in (pair[at], *pair) if part)) for at in (0, 1)]
        return ["", *(f"{issuer}/{subject}" for issuer, subject in product(*map(sorted, both)))]
    if name == "path":
        return sorted({*_texts(patterns, "/"), f"/{UNNAMED}"})
    if name == "method":
        return sorted({*_texts(patterns), UNNAMED.upper()})
    found = ["", *sorted(set(_texts(patterns)))]
    return ["", *(f"={text}" for text in found)] if name.startswith("request.") else found


def _edges(blocks: Iterable[str]) -> list[str]:
    """Where any block begins, and just behind where any ends: between two of these nothing changes."""
    found = set()
    for block in blocks:
        network = ipaddress.ip_network(block, strict=False)
        found.add(str(network.network_address))
        if int(network.broadcast_address) + 1 < 1 << network.max_prefixlen:
            found.add(str(network.broadcast_address + 1))
    return sorted(found)


def _texts(patterns: Iterable[str], filler: str = "") -> Iterator[str]:
    """Yield texts that patterns take, alone and in pairs of a beginning and an end, and one that is in none."""
    known = list(dict.fromkeys(patterns))
    begins = [it[:-1] for it in known if it.endswith("*") and not it.startswith("*")]
    ends = [it[1:] for it in known if it.startswith("*") and it != "*"]
    yield UNNAMED
    for pattern in known:
        if is_template(pattern) and filler:
            yield from _template(pattern)
            begins.append(pattern.partition("{")[0])
        elif "*" not in (pattern[:1], pattern[-1:]):
            yield pattern
    for begin in begins:
        yield from (begin, begin + UNNAMED, f"{begin}{UNNAMED}{filler}{UNNAMED}")
    for end in ends:
        yield from (end, filler + UNNAMED + end)
    yield from (begin + joint + end for begin in begins for end in ends for joint in ("", UNNAMED))


def _template(pattern: str) -> Iterator[str]:
    for rest in ("", UNNAMED, f"{UNNAMED}/{UNNAMED}"):
        yield pattern.replace("{**}", rest).replace("{*}", UNNAMED)


def _parts(test: Test, value: str, homes: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the trust domains, namespaces and accounts that a value about the peer's id names."""
    kind = looks_at(test)
    if kind in {"trustDomains", "source.trustDomain"}:
        return _plain(value), [], []
    if kind in {"namespaces", "source.namespace"}:
        return [], _plain(value), []
    if kind in {"serviceAccounts", "source.serviceAccount"}:
        space, slash, account = value.rpartition("/")
        return [], [space] if slash else list(homes), [account]
    pieces = value.split("/")
    after = {word: [pieces[at + 1] for at, it in enumerate(pieces[:-1]) if it == word] for word in ("ns", "sa")}
    first = [] if pieces[0] == "*" else _plain(pieces[0])
    spaces, accounts = ([one for part in after[word] for one in _plain(part)] for word in ("ns", "sa"))
    return first, spaces + (first if value.startswith("*") else []), accounts


def _plain(pattern: str) -> list[str]:
    if pattern in {"", "*"}:
        return []
    return [it for filler in ("", UNNAMED) if (it := pattern.replace("*", filler))] if "*" in pattern else [pattern]
