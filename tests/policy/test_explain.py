"""Explain tells the decision that is enforced, the clause that took it, and the rule that came nearest."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hauberk.core.call import Address, Call, Headers
from hauberk.policy.engine import Engine
from hauberk.policy.explain import explain
from hauberk.policy.model import AuthorizationPolicy
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from tests.policy import universe
from tests.policy.universe import ALIASES, TARGET, engine_of, policy, workload

A = workload("spiffe://example.org/ns/prod/sa/a")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(universe.policies(), max_size=3), universe.calls(tcp=False), universe.calls(tcp=True))
def test_what_is_told_is_what_is_enforced(
    documents: list[AuthorizationPolicy], http: list[Call], tcp: list[Call]
) -> None:
    engine = Engine(PolicySet.of(documents, aliases=ALIASES), TARGET)
    for call in (*http, *tcp):
        told = explain(engine, call)
        assert told.decision == engine.decide(call)
        assert bool(told.tests or told.place) <= (told.decision.rule is not None)
        assert bool(told.nearest) <= (told.decision.rule is None)
        assert bool(told.misses) is bool(told.nearest)
        assert told.data()["verdict"] == told.decision.verdict.value
        assert told.decision.verdict.value.upper() in told.text()


def test_the_rule_its_place_and_its_tests_are_named() -> None:
    text = policy(
        "{rules: [{to: [{operation: {paths: [/b]}}]},\n  {to: [{operation: {paths: ['/a*'], methods: [GET]}}]}]}"
    )
    engine = Engine(PolicySet.of(parse_documents(text, file="p.yaml")), TARGET)
    told = explain(engine, Call(peer=A, method="GET", path="/a1", target=TARGET))
    assert (told.decision.rule, told.place) == ("ns[prod]-policy[p]-rule[1]", "p.yaml:5")
    assert told.tests == ("to.operation.methods in ['GET']", "to.operation.paths in ['/a*']")


def test_the_nearest_rule_is_the_one_with_the_fewest_misses() -> None:
    far = "{from: [{source: {namespaces: [x]}}], to: [{operation: {methods: [PUT], paths: [/b]}}]}"
    near = "{from: [{source: {namespaces: [prod]}}], to: [{operation: {methods: [PUT], paths: [/a]}}]}"
    told = explain(
        engine_of(policy(f"{{rules: [{far}, {near}]}}")), Call(peer=A, method="GET", path="/a", target=TARGET)
    )
    assert told.nearest == "ns[prod]-policy[p]-rule[1]"
    assert told.misses == ("to.operation.methods in ['PUT'], the call has 'GET'",)


@pytest.mark.parametrize(
    ("rule", "has"),
    [
        ("from: [{source: {principals: [x]}}]", A.id),
        ("from: [{source: {notNamespaces: [prod]}}]", A.id),
        ("from: [{source: {requestPrincipals: ['*']}}]", "none"),
        ("from: [{source: {ipBlocks: [10.0.0.2]}}]", "10.0.0.1"),
        ("from: [{source: {remoteIpBlocks: [10.0.0.2]}}]", "8.8.8.8"),
        ("to: [{operation: {hosts: [b.com]}}]", "a.com"),
        ("to: [{operation: {ports: ['1']}}]", "80"),
        ("when: [{key: source.ip, values: [10.0.0.2]}]", "10.0.0.1"),
        ("when: [{key: destination.ip, values: [10.0.0.2]}]", "10.9.9.9"),
        ("when: [{key: connection.sni, values: [b]}]", "sni.example"),
        ("when: [{key: 'request.headers[authorization]', values: [b]}]", "another value, or none"),
    ],
)
def test_a_miss_says_what_the_call_has_and_keeps_headers_to_itself(rule: str, has: str) -> None:
    call = Call(
        peer=A,
        method="GET",
        path="/a",
        host="a.com",
        port=80,
        headers=Headers([(b"authorization", b"s3cret")]),
        address=Address("10.0.0.1", 1, "8.8.8.8"),
        destination_ip="10.9.9.9",
        sni="sni.example",
        target=TARGET,
    )
    told = explain(engine_of(policy(f"{{rules: [{{{rule}}}]}}")), call)
    assert told.misses[0].endswith(f"the call has {has!r}")
    assert "s3cret" not in told.text()
