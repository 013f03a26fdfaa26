"""Why a call is allowed or denied, told by the clauses that decide it, and what the nearest rule would have wanted."""

from collections.abc import Callable, Mapping

import msgspec

from hauberk.core.call import Call
from hauberk.core.decision import Decision, Verdict
from hauberk.policy.clause import Clause, Group, Test, without_http
from hauberk.policy.engine import Engine


class Explanation(msgspec.Struct, frozen=True):
    """The story of one decision.

    Args:
        decision: as enforced.
        place: file and line of the rule that decided, or empty.
        tests: every test of the clause that decided, all of which held.
        nearest: id of the ALLOW rule that came nearest, when the call is denied.
        nearest_place: its file and line.
        misses: the tests of that rule that failed.
    """

    decision: Decision
    place: str = ""
    tests: tuple[str, ...] = ()
    nearest: str = ""
    nearest_place: str = ""
    misses: tuple[str, ...] = ()

    def text(self) -> str:
        """Return a few lines for people."""
        decision = self.decision
        lines = [f"{decision.verdict.value.upper()}: {decision.reason}"]
        if decision.rule:
            lines.append(f"rule     {decision.rule}  {self.place}".rstrip())
            lines += [f"         {test}" for test in self.tests]
        if self.nearest:
            lines.append(f"nearest  {self.nearest}  {self.nearest_place}".rstrip())
            lines += [f"  missed {miss}" for miss in self.misses]
        lines += [f"audit    {rule}" for rule in decision.audits]
        lines.append(f"policies {decision.basis.digest[:16]} revision {decision.basis.revision}")
        return "\n".join(lines)

    def data(self) -> Mapping[str, object]:
        """Return the same as plain data."""
        decision = self.decision
        return {
            "verdict": decision.verdict.value,
            "reason": decision.reason,
            "rule": decision.rule,
            "place": self.place,
            "tests": list(self.tests),
            "nearest": {"rule": self.nearest, "place": self.nearest_place, "missed": list(self.misses)},
            "audits": list(decision.audits),
            "digest": decision.basis.digest,
            "revision": decision.basis.revision,
        }


def explain(engine: Engine, call: Call) -> Explanation:
    """Decide a call and say why.

    Args:
        engine: the one that enforces.
        call: any call to its workload.
    """
    decision = engine.decide(call)
    clauses = clauses_for(engine, call)
    if decision.rule is not None:
        clause = next(it for it in clauses if it.rule == decision.rule and it.matches(call))
        return Explanation(decision, _place(clause), tuple(map(repr, clause.tests)))
    if decision.verdict is Verdict.ALLOW:
        return Explanation(decision)
    near = [(clause, _misses(clause, call)) for clause in clauses if clause.group is Group.ALLOW]
    if not near:
        return Explanation(decision)
    clause, misses = min(near, key=lambda pair: (len(pair[1]), -len(pair[0].tests)))
    told = tuple(f"{test!r}, the call has {_has(test, call)!r}" for test in misses)
    return Explanation(decision, nearest=clause.rule, nearest_place=_place(clause), misses=told)


def clauses_for(engine: Engine, call: Call) -> list[Clause]:
    """Return the clauses that count for a call: all of them, or what is left of them on a connection without HTTP."""
    if call.method:
        return list(engine.clauses)
    return without_http(engine.clauses)


def looks_at(test: Test) -> str:
    """Return the field or condition key a test is about, whether it wants or refuses: `paths`, `source.ip`."""
    if test.field.startswith("when["):
        return test.field[len("when[") :].rpartition("].")[0]
    name = test.field.rpartition(".")[2]
    return name[3].lower() + name[4:] if name.startswith("not") else name


def _misses(clause: Clause, call: Call) -> list[Test]:
    return [test for test in clause.tests if not test.match(call)]


def _place(clause: Clause) -> str:
    return f"{clause.place.file}:{clause.line}" if clause.place.file and clause.line else clause.place.file


_READ: Mapping[str, Callable[[Call], str]] = {
    **dict.fromkeys(("principals", "namespaces", "serviceAccounts", "trustDomains"), lambda call: call.peer.id),
    **dict.fromkeys(("source.principal", "source.namespace", "source.serviceAccount"), lambda call: call.peer.id),
    "source.trustDomain": lambda call: call.peer.id,
    **dict.fromkeys(("requestPrincipals", "request.auth.principal"), lambda call: call.user.id),
    **dict.fromkeys(("ipBlocks", "source.ip"), lambda call: call.address.ip),
    **dict.fromkeys(("remoteIpBlocks", "remote.ip"), lambda call: call.address.forwarded or call.address.ip),
    **dict.fromkeys(("ports", "destination.port"), lambda call: str(call.port)),
    "methods": lambda call: call.method,
    "paths": lambda call: call.path,
    "hosts": lambda call: call.host,
    "destination.ip": lambda call: call.destination_ip,
    "connection.sni": lambda call: call.sni,
}


def _has(test: Test, call: Call) -> str:
    """What the call has where the test looked; headers and claims may be secrets, so only whether they differ."""
    read = _READ.get(looks_at(test))
    return (read(call) or "none") if read is not None else "another value, or none"
