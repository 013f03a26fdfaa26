"""What a change of policies changes: the documents, and the verdicts of calls that either set has an opinion on."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import msgspec

from hauberk.core.call import Call, Workload
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.policy.engine import Engine
from hauberk.policy.model import to_data
from hauberk.policy.set import PolicySet

MAX_CALLS = 200_000  # compared; beyond it the report says so
_STRANGER = "spiffe://{}/ns/nowhere/sa/stranger"
_UNNAMED_PATH = "/hauberk-diff/unnamed"
_UNNAMED_METHOD = "PATCH"


class Change(msgspec.Struct, frozen=True):
    """A call whose verdict changes."""

    target: str
    peer: str
    method: str
    path: str
    before: str
    after: str


class Difference(msgspec.Struct, frozen=True):
    """What changes.

    Args:
        added: documents only in the new set, `KIND NAMESPACE/NAME`.
        removed: documents only in the old set.
        changed: documents in both, with another content.
        verdicts: calls whose verdict changes.
        complete: False when there were more calls to compare than `MAX_CALLS`.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    verdicts: tuple[Change, ...]
    complete: bool = True


def diff(old: PolicySet, new: PolicySet, targets: Sequence[Workload] = ()) -> Difference:
    """Compare two sets.

    Args:
        old: in force.
        new: to be.
        targets: workloads to compare verdicts for; default what the selectors of both sets name.
    """
    before = {f"{it.kind} {it.namespace}/{it.name}": to_data(it) for it in old.documents}
    after = {f"{it.kind} {it.namespace}/{it.name}": to_data(it) for it in new.documents}
    verdicts: list[Change] = []
    compared = 0
    for target in targets or _targets(old, new):
        engines = Engine(old, target), Engine(new, target)
        for call in _calls(engines):
            compared += 1
            if compared > MAX_CALLS:
                break
            verdicts.extend(_compare(engines, call, target))
    return Difference(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(before.keys() - after.keys())),
        tuple(sorted(key for key in before.keys() & after.keys() if before[key] != after[key])),
        tuple(verdicts),
        compared <= MAX_CALLS,
    )


def _targets(*sets: PolicySet) -> list[Workload]:
    found = {}
    for policies in sets:
        for document in policies.documents:
            labels = dict(document.selector or {})
            account = labels.get("app", "any")
            found[document.namespace, account] = Workload(document.namespace, account, labels)
    return list(found.values())


def _concrete(values: Iterable[str], filler: str) -> Iterator[str]:
    """One plain value for each pattern."""
    for value in values:
        if value != "*":
            yield value.replace("{**}", "x").replace("{*}", "x").replace("*", filler)


def _calls(engines: tuple[Engine, Engine]) -> Iterator[Call]:
    """Every combination of the peers, methods and paths that either set names, and one unnamed of each."""
    peers, methods, paths = {""}, {_UNNAMED_METHOD}, {_UNNAMED_PATH}
    for engine in engines:
        peers.add(_STRANGER.format(engine.policies.trust_domain))
        for clause in engine.clauses:
            for test in clause.tests:
                peers.update(test.exact_ids)
                if test.field.endswith("operation.methods"):
                    methods.update(_concrete(test.values, "X"))
                elif test.field.endswith("aths"):
                    paths.update(_concrete(test.values, "x"))
    for peer, method, path in product(sorted(peers), sorted(methods), sorted(paths)):
        principal = Principal(Kind.WORKLOAD, peer) if peer else ANONYMOUS
        yield Call(peer=principal, method=method, path=path)


def _compare(engines: tuple[Engine, Engine], call: Call, target: Workload) -> Iterator[Change]:
    before, after = (engine.decide(call).verdict.value for engine in engines)
    if before != after:
        name = f"{target.namespace}/{target.account}"
        yield Change(name, call.peer.id or "anonymous", call.method, call.path, before, after)
