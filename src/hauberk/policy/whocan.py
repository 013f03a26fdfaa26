"""Who can do something: the sources of every ALLOW rule that takes the operation, and whether a DENY is in the way."""

from collections.abc import Sequence

import msgspec

from hauberk.core.call import Call
from hauberk.core.decision import Verdict
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.policy.clause import Clause, Group, Test
from hauberk.policy.engine import Engine

_PEER = ("from.source.", "when[source.", "when[remote.", "when[request.auth")
ANYBODY = "anybody"


class Who(msgspec.Struct, frozen=True):
    """One answer.

    Args:
        who: a SPIFFE id, a pattern as written, or `anybody`.
        rule: the rule that allows it.
        certain: False when further conditions of the call decide, or a DENY looks at them.
    """

    who: str
    rule: str
    certain: bool = True


def who_can(engine: Engine, call: Call) -> tuple[Who, ...]:
    """Return who may make this call; its peer is left open.

    Args:
        engine: of the callee.
        call: method, path, host, port and headers of interest.
    """
    found: list[Who] = []
    for clause in engine.clauses:
        if clause.group is Group.ALLOW and all(test.match(call) for test in clause.tests if not _about_peer(test)):
            found.extend(_sources(engine, clause, call))
    if not any(clause.group is Group.ALLOW for clause in engine.clauses) and _decides(engine, call, ""):
        found.append(Who(ANYBODY, "no ALLOW policy selects the workload"))
    return tuple(dict.fromkeys(found))


def _about_peer(test: Test) -> bool:
    return test.field.startswith(_PEER)


def _sources(engine: Engine, clause: Clause, call: Call) -> Sequence[Who]:
    peer_tests = [test for test in clause.tests if _about_peer(test)]
    if not peer_tests:
        return [Who(ANYBODY, clause.rule)] if _decides(engine, call, "") else []
    ids = [one for test in peer_tests for one in test.exact_ids]
    if ids:
        certain = len(peer_tests) == 1
        return [Who(one, clause.rule, certain) for one in ids if not certain or _decides(engine, call, one)]
    return [Who(" and ".join(map(repr, peer_tests)), clause.rule, certain=False)]


def _decides(engine: Engine, call: Call, spiffe_id: str) -> bool:
    """Ask the engine itself, so that DENY rules count."""
    peer = Principal(Kind.WORKLOAD, spiffe_id) if spiffe_id else ANONYMOUS
    return engine.decide(msgspec.structs.replace(call, peer=peer)).verdict is Verdict.ALLOW
