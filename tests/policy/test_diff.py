"""Diff finds every verdict that changes, in universes small enough to ask about every call."""

from itertools import product

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hauberk.core.call import Call, Workload
from hauberk.core.decision import Verdict
from hauberk.policy.diff import Change, diff
from hauberk.policy.engine import Engine
from hauberk.policy.model import Action, AuthorizationPolicy, Operation, Rule, Source
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from tests.policy import universe
from tests.policy.universe import PEERS, TARGET, policy

PATHS = ["/", "/api/1", "/api/1/x", "/api/", "/other", "/z/x", "/api/x"]
CALLS = [
    Call(peer=universe.workload(peer), method=method, path=path if method else "", port=port, host=host, target=TARGET)
    for peer, method, path, port, host in product(
        ["", *(it for it in PEERS if "/sa/" in it and "/sa/x/" not in it)],
        ["GET", "POST", ""],
        PATHS,
        [80, 443],
        ["", "a.com"],
    )
    if method or path == "/"
]
sources = universe.few(
    universe.both(
        {
            "principals": ["example.org/ns/prod/sa/a", "*/sa/a", "example.org/*", "*", "example.org/ns/prod/*"],
            "namespaces": ["prod", "d*"],
            "trust_domains": ["other.org", "*.org"],
        }
    )
).map(lambda fields: Source(**fields))
operations = universe.few(
    universe.both(
        {
            "methods": ["GET", "PO*", "*"],
            "paths": ["/", "/api/*", "/api/{*}", "/api/{**}", "*/x", "/api/1"],
            "ports": ["80", "443"],
            "hosts": ["a.com", "*.com", "*"],
        }
    )
).map(lambda fields: Operation(**fields))
documents = st.lists(
    st.builds(
        AuthorizationPolicy,
        name=st.sampled_from(["p", "q", "r"]),
        namespace=st.sampled_from(["prod", "hauberk-system"]),
        action=st.sampled_from([Action.ALLOW, Action.DENY]),
        rules=st.lists(
            st.builds(Rule, st.lists(sources, max_size=1).map(tuple), st.lists(operations, max_size=1).map(tuple)),
            min_size=1,
            max_size=2,
        ).map(tuple),
        selector=st.sampled_from([None, {"app": "pay"}, {"tier": "back"}]),
    ),
    max_size=3,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents, documents)
def test_a_verdict_that_changes_is_told_with_its_direction_and_nothing_else_is(
    before: list[AuthorizationPolicy], after: list[AuthorizationPolicy]
) -> None:
    sets = PolicySet.of(before), PolicySet.of(after)
    told = diff(*sets, [TARGET])
    engines = Engine(sets[0], TARGET), Engine(sets[1], TARGET)
    changed = {
        (was.value, now.value)
        for call in CALLS
        if (was := engines[0].decide(call).verdict) is not (now := engines[1].decide(call).verdict)
    }
    assert told.complete
    assert changed <= {(it.before, it.after) for it in told.verdicts}
    for it in told.verdicts[:200]:
        assert it.before != it.after
    if sets[0].digest == sets[1].digest:
        assert told.verdicts == ()


def of(text: str, aliases: tuple[str, ...] = ()) -> PolicySet:
    return PolicySet.of(parse_documents(text), aliases=aliases)


def changes(before: str, after: str) -> list[Change]:
    return list(diff(of(before), of(after)).verdicts)


def source(fields: str) -> str:
    return policy(f"{{rules: [{{from: [{{source: {{{fields}}}}}]}}]}}")


def operation(fields: str, action: str = "ALLOW") -> str:
    return policy(f"{{action: {action}, rules: [{{to: [{{operation: {{{fields}}}}}]}}]}}", name=action.lower())


def when(key: str, value: str) -> str:
    return policy(f"{{rules: [{{when: [{{key: '{key}', values: ['{value}']}}]}}]}}")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (source("namespaces: [a]"), source("namespaces: [b]")),
        (source("serviceAccounts: [a]"), source("serviceAccounts: [b/a]")),
        (source("trustDomains: [other.org]"), source("trustDomains: ['*.org']")),
        (source("principals: ['*/sa/a']"), source("principals: ['*/sa/b']")),
        (source("notPrincipals: ['*']"), source("principals: ['*']")),
        (source("ipBlocks: [10.0.0.0/8]"), source("ipBlocks: [10.0.0.0/9]")),
        (source("remoteIpBlocks: [10.0.0.0/8]"), source("ipBlocks: [10.0.0.0/8]")),
        (source("requestPrincipals: [iss/a]"), source("requestPrincipals: [iss/b]")),
        (operation("ports: ['80']"), operation("ports: ['81']")),
        (operation("hosts: [a.com]"), operation("hosts: [b.com]")),
        (operation("paths: ['/a/*']"), operation("paths: ['/a/{*}']")),
        (operation("paths: ['/a/{*}']"), operation("paths: ['/a/{**}']")),
        (operation("paths: ['/a*']"), operation("paths: ['/a']")),
        (operation("methods: [GET]"), operation("notMethods: [GET]")),
        (when("request.headers[x]", "a"), when("request.headers[x]", "b")),
        (when("request.headers[x]", "*"), when("request.headers[x]", "*a")),
        (when("connection.sni", "a"), when("connection.sni", "b")),
        (when("destination.ip", "10.0.0.1"), when("destination.ip", "10.0.0.2")),
        (operation("paths: ['/a*']"), operation("paths: ['/a*']") + operation("paths: ['*z']", "DENY")),
        (operation("hosts: ['a*']"), operation("hosts: ['a*']") + operation("hosts: ['*z']", "DENY")),
        ("", policy("{}")),
        (policy("{rules: [{}]}"), ""),
        (policy("{rules: [{}]}"), policy("{rules: [{}]}") + operation("ports: ['1']", "DENY")),
        (policy("{}", namespace="hauberk-system"), ""),
    ],
)
def test_a_change_of_any_field_is_found_both_ways(before: str, after: str) -> None:
    if before == policy("{rules: [{}]}") and not after:
        assert changes(before, after) == []  # nobody was denied anything, and nobody is
        return
    there, back = changes(before, after), changes(after, before)
    assert there
    assert {msgspec.structs.replace(it, before=it.after, after=it.before) for it in back} == set(there)


def test_workloads_that_two_selectors_share_are_compared_too() -> None:
    deny = policy("{selector: {matchLabels: {app: pay}}, action: DENY, rules: [{}]}", name="d")
    allow = policy("{selector: {matchLabels: {tier: back}}, rules: [{}]}", name="a")
    both = Workload("prod", "pay", {"app": "pay", "tier": "back"})
    found = diff(of(allow), of(allow + deny), [both]).verdicts
    assert {(it.before, it.after) for it in found} == {("allow", "deny")}
    assert {it.target for it in diff(of(allow), of(allow + deny)).verdicts} == {"prod/pay"}


def test_another_name_of_the_trust_domain_changes_verdicts() -> None:
    text = source("principals: [cluster.local/ns/prod/sa/a]")
    found = diff(of(text), of(text, aliases=("old.org",))).verdicts
    assert {(it.peer, it.after) for it in found} == {("spiffe://old.org/ns/prod/sa/a", "allow")}


def test_equal_sets_differ_in_nothing_and_documents_are_named() -> None:
    one = policy("{rules: [{}]}") + policy("{action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]}", name="d")
    assert diff(of(one), of(one)).verdicts == ()
    two = policy("{rules: [{to: [{operation: {paths: [/a]}}]}]}") + policy("{}", name="new")
    told = diff(of(one), of(two))
    assert told.added == ("AuthorizationPolicy prod/new",)
    assert told.removed == ("AuthorizationPolicy prod/d",)
    assert told.changed == ("AuthorizationPolicy prod/p",)


def test_what_is_too_much_to_compare_is_said() -> None:
    paths = ", ".join(f"/a{at}" for at in range(900))
    many = operation(f"paths: [{paths}], methods: [{', '.join(f'M{at}' for at in range(300))}]")
    assert not diff(of(policy("{}")), of(many)).complete
    claims = when("request.auth.claims[a]", "b")
    assert not diff(of(claims), of(policy("{}"))).complete


def test_a_large_set_with_one_change_is_compared_quickly_and_names_it() -> None:
    rules = [
        f"{{from: [{{source: {{principals: [example.org/ns/n/sa/s{at}]}}}}],"
        f" to: [{{operation: {{methods: [GET], paths: [/p{at}]}}}}]}}"
        for at in range(300)
    ]
    before = policy("{rules: [" + ", ".join(rules) + "]}")
    after = before.replace("[/p7]", "[/q7]")
    told = diff(of(before), of(after)).verdicts
    assert {(it.path, it.before, it.after) for it in told} == {("/p7", "allow", "deny"), ("/q7", "deny", "allow")}
    assert {it.peer for it in told} == {"spiffe://example.org/ns/n/sa/s7"}
    assert Verdict.ALLOW.value in {it.after for it in told}


def test_mutual_tls_that_is_asked_for_less_is_told_with_its_port() -> None:
    def mode(text: str) -> PolicySet:
        head = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        return PolicySet.default().with_documents(parse_documents(head + text, file="t.yaml"))

    strict = mode("metadata: {name: a, namespace: shop}\nspec: {selector: {matchLabels: {app: x}}}")
    open_port = mode(
        "metadata: {name: a, namespace: shop}\n"
        "spec: {selector: {matchLabels: {app: x}}, portLevelMtls: {8080: {mode: PERMISSIVE}}}"
    )
    found = diff(strict, open_port)
    assert found.modes == ("shop/x port 8080: STRICT -> PERMISSIVE",)
    assert found.changed == ("PeerAuthentication shop/a",)
    assert diff(strict, strict).modes == ()
