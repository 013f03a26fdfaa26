"""The normalised form: a policy set, for one workload, as flat clauses.

A rule is (OR sources) AND (OR operations) AND (AND conditions). It becomes one clause per pair of a source and an
operation; a clause is a plain conjunction of tests. Everything later (index, explanation, who-can) works on clauses.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum

from hauberk.core.call import Call
from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.policy import matchers
from hauberk.policy.model import (
    OPERATION_FIELDS,
    SOURCE_FIELDS,
    Action,
    AuthorizationPolicy,
    Condition,
    Operation,
    Rule,
    Source,
    rule_id,
)

_ID_FIELDS = frozenset({"principals", "namespaces", "service_accounts", "trust_domains"})
# What a TCP chain cannot know: an ALLOW clause that needs it can never match there; DENY and AUDIT go on without it.
_HTTP_OPERATIONS = frozenset({"hosts", "methods", "paths"})

_UNANSWERED = Decision(Verdict.DENY, Layer.POLICY, "HBK-300", reason="no engine has compiled this clause")


class Group(IntEnum):
    """Which clauses are asked together."""

    DENY = 0
    ALLOW = 1
    AUDIT = 2  # AUDIT policies and whatever is in dry-run


class Test:
    """One field of a clause.

    Args:
        field: its path in the rule, such as `from.source.principals`.
        values: as written.
        negative: NOT(OR(values)).
        match: the whole test over a call, negation included.
        http: needs an HTTP request.
        on_id: when the test is about the peer's SPIFFE id alone, that test.
        exact_ids: the ids themselves, where values name them without a wildcard.
    """

    __slots__ = ("exact_ids", "field", "http", "match", "negative", "on_id", "values")

    def __init__(
        self,
        field: str,
        values: tuple[str, ...],
        match: Callable[[Call], bool],
        *,
        negative: bool = False,
        http: bool = False,
        on_id: matchers.Text | None = None,
        exact_ids: tuple[str, ...] = (),
    ) -> None:
        self.field = field
        self.values = values
        self.match = match
        self.negative = negative
        self.http = http
        self.on_id = on_id
        self.exact_ids = exact_ids

    def __repr__(self) -> str:
        return f"{self.field} {'not in' if self.negative else 'in'} {list(self.values)}"


class Clause:
    """A conjunction of tests, the rule it came from, and what the engine answers when it is the one that matches."""

    __slots__ = ("answer", "group", "line", "place", "policy", "rule", "tests")

    def __init__(self, policy: AuthorizationPolicy, index: int, rule: Rule, tests: tuple[Test, ...]) -> None:
        self.policy = policy
        self.rule = rule_id(policy, index)
        self.line = rule.line
        self.place = policy.place
        self.tests = tests
        self.answer = _UNANSWERED
        self.group = Group.AUDIT if policy.dry_run else Group[policy.action.value]

    def matches(self, call: Call) -> bool:
        """Tell whether every test holds."""
        return all(test.match(call) for test in self.tests)

    @property
    def needs_http(self) -> bool:
        """Whether a test looks at the request."""
        return any(test.http for test in self.tests)

    def for_tcp(self) -> "Clause":
        """Return this clause without what a connection without HTTP cannot know."""
        if not self.needs_http:
            return self
        kept: Clause = Clause.__new__(Clause)
        for slot in Clause.__slots__:
            setattr(kept, slot, getattr(self, slot))
        kept.tests = tuple(test for test in self.tests if not test.http)
        return kept

    def __repr__(self) -> str:
        return f"Clause({self.rule}, {list(self.tests)})"


def without_http(clauses: Iterable[Clause]) -> list[Clause]:
    """Return clauses as they are on a connection without HTTP.

    There an ALLOW rule that looks at HTTP anywhere disappears whole, the clauses that do not included (narrower, as
    in Istio); DENY and AUDIT rules go on without that look (wider).
    """
    known = tuple(clauses)
    gone = {clause.rule for clause in known if clause.policy.action is Action.ALLOW and clause.needs_http}
    return [clause.for_tcp() for clause in known if clause.rule not in gone]


class Names:
    """What values are resolved against.

    Args:
        domains: the local trust domain first, then its aliases.
    """

    def __init__(self, domains: tuple[str, ...]) -> None:
        self.domains = domains


def clauses_of(policy: AuthorizationPolicy, names: Names) -> Iterator[Clause]:
    """Yield the clauses of a policy, in the order of its rules."""
    for index, rule in enumerate(policy.rules):
        conditions = tuple(test for condition in rule.conditions for test in _condition_tests(condition, policy, names))
        for source in rule.sources or (None,):
            from_tests = _source_tests(source, policy, names) if source is not None else ()
            for operation in rule.operations or (None,):
                to_tests = _operation_tests(operation) if operation is not None else ()
                yield Clause(policy, index, rule, (*from_tests, *to_tests, *conditions))


def _source_tests(source: Source, policy: AuthorizationPolicy, names: Names) -> tuple[Test, ...]:
    tests = []
    for name, attribute in SOURCE_FIELDS.items():
        values = getattr(source, attribute)
        if values:
            negative = attribute.startswith("not_")
            field = f"from.source.{name}"
            tests.append(_peer_test(attribute.removeprefix("not_"), values, field, policy, names, negative=negative))
    return tuple(tests)


def _operation_tests(operation: Operation) -> tuple[Test, ...]:
    tests = []
    for name, attribute in OPERATION_FIELDS.items():
        values = getattr(operation, attribute)
        if values:
            base = attribute.removeprefix("not_")
            field = f"to.operation.{name}"
            make, read = _OPERATIONS[base]
            matching = matchers.any_of([make(value) for value in values])
            negative = attribute.startswith("not_")
            match = _reading(read, matching, negative=negative)
            tests.append(Test(field, values, match, negative=negative, http=base in _HTTP_OPERATIONS))
    return tuple(tests)


def _reading(read: Callable[[Call], str], test: matchers.Text, *, negative: bool = False) -> Callable[[Call], bool]:
    if negative:
        return lambda call: not test(read(call))
    return lambda call: test(read(call))


def _identity(call: Call) -> str:
    return call.peer.id if call.peer.id.startswith("spiffe://") else ""


def _forwarded(call: Call) -> str:
    return call.address.forwarded or call.address.ip


_OPERATIONS: Mapping[str, tuple[Callable[[str], matchers.Text], Callable[[Call], str]]] = {
    "hosts": (matchers.host, lambda call: call.host),
    "ports": (lambda value: matchers.text(str(int(value))), lambda call: str(call.port)),
    "methods": (matchers.present_or, lambda call: call.method),
    "paths": (matchers.path, lambda call: call.path),
}


def _id_matcher(kind: str, values: tuple[str, ...], policy: AuthorizationPolicy, names: Names) -> matchers.Text:
    if kind == "principals":
        spelled = [one for value in values for one in matchers.expand_aliases(value, names.domains)]
        return matchers.any_of([matchers.principal(value) for value in spelled])
    if kind == "namespaces":
        return matchers.any_of([matchers.namespace(value) for value in values])
    if kind == "service_accounts":
        return matchers.any_of([matchers.service_account(value, policy.namespace) for value in values])
    spelled = [one for value in values for one in (names.domains if value in names.domains else (value,))]
    return matchers.any_of([matchers.trust_domain(value) for value in spelled])


def _peer_test(  # what a test is made of
    kind: str, values: tuple[str, ...], field: str, policy: AuthorizationPolicy, names: Names, *, negative: bool
) -> Test:
    if kind in _ID_FIELDS:
        matching = _id_matcher(kind, values, policy, names)
        on_id = _negated(matching) if negative else matching
        ids = _exact_ids(values, names) if kind == "principals" and not negative else ()
        return Test(field, values, _reading(_identity, on_id), negative=negative, on_id=on_id, exact_ids=ids)
    if kind == "request_principals":
        matching = matchers.any_of([matchers.request_principal(value) for value in values])
        match = _reading(lambda call: call.user.id, matching, negative=negative)
        return Test(field, values, match, negative=negative, http=True)
    matching = matchers.any_of([matchers.block(value) for value in values])
    read = _forwarded if kind == "remote_ip_blocks" else lambda call: call.address.ip
    return Test(field, values, _reading(read, matching, negative=negative), negative=negative)


def _exact_ids(values: tuple[str, ...], names: Names) -> tuple[str, ...]:
    return tuple(f"spiffe://{one}" for value in values for one in matchers.expand_aliases(value, names.domains))


def _negated(test: matchers.Text) -> matchers.Text:
    return lambda value: not test(value)


_PEER_KEYS = {
    "source.principal": "principals",
    "source.namespace": "namespaces",
    "source.serviceAccount": "service_accounts",
    "source.trustDomain": "trust_domains",
    "source.ip": "ip_blocks",
    "remote.ip": "remote_ip_blocks",
    "request.auth.principal": "request_principals",
}
_CALL_KEYS: Mapping[str, tuple[Callable[[str], matchers.Text], Callable[[Call], str]]] = {
    "destination.ip": (matchers.block, lambda call: call.destination_ip),
    "destination.port": (lambda value: matchers.text(str(int(value))), lambda call: str(call.port)),
    "connection.sni": (matchers.text, lambda call: call.sni),
}


def _condition_tests(condition: Condition, policy: AuthorizationPolicy, names: Names) -> Iterator[Test]:
    key = condition.key
    for values, negative in ((condition.values, False), (condition.not_values, True)):
        if not values:
            continue
        field = f"when[{key}].{'notValues' if negative else 'values'}"
        if key in _PEER_KEYS:
            yield _peer_test(_PEER_KEYS[key], values, field, policy, names, negative=negative)
        elif key in _CALL_KEYS:
            make, read = _CALL_KEYS[key]
            matching = matchers.any_of([make(value) for value in values])
            yield Test(field, values, _reading(read, matching, negative=negative), negative=negative)
        elif key.startswith("request.headers["):
            match = _header_test(key[len("request.headers[") : -1], values, negative=negative)
            yield Test(field, values, match, negative=negative, http=True)
        else:
            yield Test(field, values, _claim_test(key, values, negative=negative), negative=negative, http=True)


def _header_test(name: str, values: tuple[str, ...], *, negative: bool) -> Callable[[Call], bool]:
    matching = matchers.any_of([matchers.present_or(value) for value in values])

    def match(call: Call) -> bool:
        found = call.headers.get(name)
        return (found is not None and matching(found)) is not negative

    return match


_CLAIM_OF = {"request.auth.audiences": ["aud"], "request.auth.presenter": ["azp"]}
_SPACED = frozenset({"scope", "permission"})


def _claim_test(key: str, values: tuple[str, ...], *, negative: bool) -> Callable[[Call], bool]:
    names = _CLAIM_OF.get(key) or key[len("request.auth.claims[") : -1].split("][")
    matching = matchers.any_of([matchers.text(value) for value in values])

    def match(call: Call) -> bool:
        return any(matching(text) for text in _claim_texts(call, names)) is not negative

    return match


def _claim_texts(call: Call, names: list[str]) -> tuple[str, ...]:
    """The texts of a claim: a string, or a list of strings; `scope` and `permission` are split at spaces."""
    value: object = call.user.claims
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return tuple(value.split()) if names[-1] in _SPACED else (value,)
    if isinstance(value, list | tuple):
        return tuple(item for item in value if isinstance(item, str))
    return ()
