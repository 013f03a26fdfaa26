"""The engine: one policy set compiled for one workload. Deciding is pure, does no I/O and never raises.

Order of Istio: a matching DENY denies; without any ALLOW policy for the workload the call is allowed; a matching ALLOW
allows; anything else is denied. AUDIT and dry-run policies never change the answer; what they matched is told.
"""

from collections.abc import Sequence
from functools import cached_property

from hauberk.core.call import Call, Workload
from hauberk.core.decision import Basis, Decision, Layer, Verdict
from hauberk.policy.clause import Clause, Group, Names, clauses_of, without_http
from hauberk.policy.index import View, Views
from hauberk.policy.model import Action, AuthorizationPolicy, PeerAuthentication, selects
from hauberk.policy.set import PolicySet

NO_ALLOW_POLICY = "no ALLOW policy selects the workload"
NO_MATCH = "no ALLOW rule matches"


class Engine:
    """Decides calls to one workload. Implements `core.ports.Authorizer`; thread-safe.

    Args:
        policies: the set.
        target: the workload.
        revision: number of the set, 0 when local.
    """

    def __init__(self, policies: PolicySet, target: Workload, *, revision: int = 0) -> None:
        self.policies = policies
        self.target = target
        self.revision = revision
        self.digest = policies.digest
        names = Names((policies.trust_domain, *policies.aliases))
        self.selected = tuple(policy for policy in _authorization(policies) if _applies(policy, policies, target))
        self.clauses = tuple(clause for policy in self.selected for clause in clauses_of(policy, names))
        self._open = not any(policy.action is Action.ALLOW and not policy.dry_run for policy in self.selected)
        basis = Basis(self.digest, revision)
        for clause in self.clauses:
            clause.answer = _answer(clause, basis)
        self._views = _views(self.clauses)
        self._no_match = Decision(Verdict.DENY, Layer.POLICY, "HBK-300", None, basis, NO_MATCH)
        self._no_policy = Decision(Verdict.ALLOW, Layer.POLICY, "", None, basis, NO_ALLOW_POLICY)
        self._modes = _Modes(policies, target)

    def decide(self, call: Call) -> Decision:
        """Answer for a call; with an empty method it is a TCP connection."""
        method, path = call.method, call.path
        views = self._views if method else self._tcp_views
        peer = call.peer.id
        view = views.known.get(peer)
        if view is None:
            view = views.see(peer)
        for table in view.deny:
            if (clause := table.find(method, path, call)) is not None:
                return self._told(clause.answer, view, call) if view.audit else clause.answer
        if self._open:
            return self._told(self._no_policy, view, call) if view.audit else self._no_policy
        for table in view.allow:
            if (clause := table.find(method, path, call)) is not None:
                return self._told(clause.answer, view, call) if view.audit else clause.answer
        return self._told(self._no_match, view, call) if view.audit else self._no_match

    @cached_property
    def _tcp_views(self) -> Views:
        """The clauses as they are on a connection without HTTP; made when the first such call comes."""
        return _views(without_http(self.clauses))

    @staticmethod
    def _told(decision: Decision, view: View, call: Call) -> Decision:
        """Add what AUDIT and dry-run policies matched."""
        audits = tuple(dict.fromkeys(clause.rule for table in view.audit for clause in table.all(call)))
        if not audits:
            return decision
        return Decision(
            decision.verdict, decision.layer, decision.code, decision.rule, decision.basis, decision.reason, audits
        )

    def mtls_mode(self, port: int) -> str:
        """Return STRICT, PERMISSIVE or DISABLE for a port of the workload."""
        return self._modes.of(port)

    def __repr__(self) -> str:
        return f"Engine({self.target.namespace}/{self.target.account}, {len(self.clauses)} clauses)"


def _authorization(policies: PolicySet) -> Sequence[AuthorizationPolicy]:
    return [it for it in policies.documents if isinstance(it, AuthorizationPolicy)]


def _applies(policy: AuthorizationPolicy, policies: PolicySet, target: Workload) -> bool:
    scope = policy.namespace in {policies.root_namespace, target.namespace}
    return scope and not policy.target_refs and selects(policy.selector, target.labels)


def _views(clauses: Sequence[Clause]) -> Views:
    grouped: dict[Group, list[Clause]] = {group: [] for group in Group}
    for clause in clauses:
        grouped[clause.group].append(clause)
    return Views(grouped[Group.DENY], grouped[Group.ALLOW], grouped[Group.AUDIT])


def _answer(clause: Clause, basis: Basis) -> Decision:
    if clause.group is Group.DENY:
        return Decision(Verdict.DENY, Layer.POLICY, "HBK-300", clause.rule, basis, "a DENY rule matches")
    return Decision(Verdict.ALLOW, Layer.POLICY, "", clause.rule, basis, "an ALLOW rule matches")


class _Modes:
    """The effective PeerAuthentication: workload over namespace over mesh; the first of a scope wins; UNSET inherit."""

    def __init__(self, policies: PolicySet, target: Workload) -> None:
        found = [it for it in policies.documents if isinstance(it, PeerAuthentication)]
        plain = [it for it in found if not it.selector]
        # In the root namespace a selector makes a document that applies to nobody, not even to workloads there.
        own = [it for it in found if it.selector and it.namespace == target.namespace != policies.root_namespace]
        scopes = (
            [it for it in plain if it.namespace == policies.root_namespace],
            [it for it in plain if it.namespace == target.namespace],
            [it for it in own if selects(it.selector, target.labels)],
        )
        self._mode = "PERMISSIVE"
        for scope in scopes:
            if scope and scope[0].mode != "UNSET":
                self._mode = scope[0].mode
        ports = scopes[-1][0].ports if scopes[-1] else {}
        self._ports = {port: mode for port, mode in ports.items() if mode != "UNSET"}

    def of(self, port: int) -> str:
        return self._ports.get(port, self._mode)
