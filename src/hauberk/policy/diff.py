"""What a change of policies changes: the documents, and the verdicts of calls that either set has an opinion on.

Which calls are decided by both sets is `_universe`'s matter: whatever two sets of modest size decide differently shows
up as at least one call of the report.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice

import msgspec

from hauberk.core.call import Call, Workload
from hauberk.policy._universe import Universe
from hauberk.policy.engine import Engine
from hauberk.policy.model import PeerAuthentication, to_data
from hauberk.policy.set import PolicySet

MAX_CALLS = 200_000  # compared; beyond it the report says so
MAX_LABELS = 256  # sets of labels tried in a namespace
_ELSEWHERE = "hauberk-diff-elsewhere"  # a namespace without policies of its own, for those of the root namespace


class Change(msgspec.Struct, frozen=True):
    """A call whose verdict changes.

    Args:
        detail: what else the call has, such as `host=a.example port=80`; empty where no rule looks at more.
    """

    target: str
    peer: str
    method: str
    path: str
    before: str
    after: str
    detail: str = ""


class Difference(msgspec.Struct, frozen=True):
    """What changes.

    Args:
        added: documents only in the new set, `KIND NAMESPACE/NAME`.
        removed: documents only in the old set.
        changed: documents in both, with another content.
        verdicts: calls whose verdict changes.
        complete: False when not everything was compared: more calls than `MAX_CALLS`, conditions on claims.
        modes: where mutual TLS is asked for in another way, `TARGET [port N]: STRICT -> PERMISSIVE`.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    verdicts: tuple[Change, ...]
    complete: bool = True
    modes: tuple[str, ...] = ()


def diff(old: PolicySet, new: PolicySet, targets: Sequence[Workload] = ()) -> Difference:
    """Compare two sets.

    Args:
        old: in force.
        new: to be.
        targets: workloads to compare verdicts for; default those that the selectors of both sets tell apart.
    """
    before = {f"{it.kind} {it.namespace}/{it.name}": to_data(it) for it in old.documents}
    after = {f"{it.kind} {it.namespace}/{it.name}": to_data(it) for it in new.documents}
    found, complete = (list(targets), True) if targets else _targets((old, new))
    verdicts: list[Change] = []
    modes: list[str] = []
    left = MAX_CALLS
    for target in found:
        engines = Engine(old, target), Engine(new, target)
        modes.extend(_compare_modes(engines, target))
        universe = Universe(*engines)
        for call in islice(universe.calls(target), left + 1):
            left -= 1
            verdicts.extend(_compare(engines, call))
        complete = complete and universe.complete and left >= 0
        left = max(left, 0)
    return Difference(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(before.keys() - after.keys())),
        tuple(sorted(key for key in before.keys() & after.keys() if before[key] != after[key])),
        tuple(verdicts),
        complete,
        tuple(modes),
    )


Labels = tuple[tuple[str, str], ...]


def _targets(sets: Sequence[PolicySet]) -> tuple[list[Workload], bool]:
    """One workload for each namespace and each set of labels that selectors tell apart, and whether that is all."""
    roots = {policies.root_namespace for policies in sets}
    documents = [document for policies in sets for document in policies.documents]
    found: list[Workload] = []
    complete = True
    for space in sorted({document.namespace for document in documents} | {_ELSEWHERE}):
        scope = [it.selector for it in documents if it.namespace in {space, *roots}]
        selectors = sorted({tuple(sorted(selector.items())) for selector in scope if selector})
        labels = list(islice(_unions(selectors), MAX_LABELS))
        complete = complete and len(labels) < MAX_LABELS
        found += [_workload(space, dict(one)) for one in dict.fromkeys(labels)]
    return found, complete


def _workload(namespace: str, labels: Mapping[str, str]) -> Workload:
    return Workload(namespace, labels.get("app") or "any", labels)


def _unions(selectors: Sequence[Labels]) -> Iterator[Labels]:
    """Yield the labels that no, one, two ... selectors ask for together, where they do not contradict each other."""
    for size in range(len(selectors) + 1):
        for chosen in combinations(selectors, size):
            pairs = {pair for selector in chosen for pair in selector}
            if len({name for name, _ in pairs}) == len(pairs):
                yield tuple(sorted(pairs))


def _compare(engines: tuple[Engine, Engine], call: Call) -> Iterator[Change]:
    before, after = (engine.decide(call).verdict.value for engine in engines)
    if before != after:
        target = f"{call.target.namespace}/{call.target.account}"
        yield Change(target, call.peer.id or "anonymous", call.method, call.path, before, after, _detail(call))


def _compare_modes(engines: tuple[Engine, Engine], target: Workload) -> Iterator[str]:
    documents = [it for engine in engines for it in engine.policies.documents if isinstance(it, PeerAuthentication)]
    for port in (0, *sorted({port for document in documents for port in document.ports})):
        before, after = (engine.mtls_mode(port) for engine in engines)
        if before != after:
            yield f"{target.namespace}/{target.account}{f' port {port}' if port else ''}: {before} -> {after}"


def _detail(call: Call) -> str:
    has: dict[str, object] = {"host": call.host, "port": call.port, "ip": call.address.ip, "sni": call.sni}
    has |= {"forwarded": call.address.forwarded, "destination-ip": call.destination_ip, "user": call.user.id}
    has |= {f"header:{name.decode()}": value.decode() for name, value in call.headers.raw}
    return " ".join(f"{name}={value}" for name, value in has.items() if value)
