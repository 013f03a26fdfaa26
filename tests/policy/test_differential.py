"""The index decides exactly as a naive reading of the rules does, on every field there is."""

import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from hauberk.core.call import Address, Call, Headers, Workload
from hauberk.core.decision import Verdict
from hauberk.errors import PolicyError
from hauberk.policy._values import PLAIN_KEYS
from hauberk.policy.engine import Engine
from hauberk.policy.explain import explain
from hauberk.policy.model import (
    OPERATION_FIELDS,
    SOURCE_FIELDS,
    Action,
    AuthorizationPolicy,
    Condition,
    Operation,
    PeerAuthentication,
    Rule,
    Source,
)
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from tests.policy import reference, universe
from tests.policy.universe import ALIASES, TARGET
from tests.support.vectors import vectors

many = settings(
    max_examples=350,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # what differs is told at once; shrinking takes a minute
)


def agree(documents: list[AuthorizationPolicy], some_calls: list[Call]) -> None:
    chosen = PolicySet.of(documents, aliases=ALIASES)
    engine = Engine(chosen, TARGET)
    for call in some_calls:
        decision = engine.decide(call)
        assert (decision.verdict is Verdict.ALLOW) is reference.decide(chosen, TARGET, call)
        assert set(decision.audits) == reference.audits(chosen, TARGET, call)
        assert explain(engine, call).decision == decision


def caller(name: str, method: str = "GET") -> Call:
    return Call(peer=universe.workload(name), method=method, path="/" if method else "", port=80, target=TARGET)


def only(rule: Rule, action: Action = Action.ALLOW) -> list[AuthorizationPolicy]:
    return [AuthorizationPolicy(namespace="prod", name="p0", action=action, rules=(rule,))]


A = "spiffe://example.org/ns/prod/sa/a"
OLD = "spiffe://old.org/ns/prod/sa/a"
HALF_HTTP = Rule(operations=(Operation(ports=("80",)), Operation(methods=("GET",))))


@many
@given(st.lists(universe.policies(), max_size=3), universe.calls(tcp=False))
@example(only(Rule((Source(namespaces=("prod/sa",)),))), [caller(A)])
@example(only(Rule((Source(trust_domains=("example.org",)),))), [caller(OLD)])
@example(only(Rule(conditions=(Condition("source.trustDomain", (), ("old.org",)),)), Action.DENY), [caller(A)])
def test_the_index_and_a_naive_reading_agree_on_http(
    documents: list[AuthorizationPolicy], some_calls: list[Call]
) -> None:
    agree(documents, some_calls)


@many
@given(st.lists(universe.policies(), max_size=3), universe.calls(tcp=True))
@example(only(HALF_HTTP), [caller(A, "")])
@example(only(HALF_HTTP, Action.DENY), [caller(A, "")])
def test_the_index_and_a_naive_reading_agree_on_tcp(
    documents: list[AuthorizationPolicy], some_calls: list[Call]
) -> None:
    agree(documents, some_calls)


ROOT_WITH_SELECTOR = PeerAuthentication(
    namespace="hauberk-system", name="p0", selector={"app": "pay"}, mode="DISABLE", ports={80: "STRICT"}
)


@settings(max_examples=150, deadline=None)
@given(st.lists(universe.peer_authentications(), max_size=6), st.sampled_from([80, 443, 8080]), st.booleans())
@example([ROOT_WITH_SELECTOR], 80, True)
def test_the_effective_mode_is_the_naive_one(documents: list[PeerAuthentication], port: int, in_root: bool) -> None:  # noqa: FBT001  # hypothesis passes by position
    chosen = PolicySet.of(documents)
    target = Workload("hauberk-system", "pay", TARGET.labels) if in_root else TARGET
    assert Engine(chosen, target).mtls_mode(port) == reference.mode(chosen, target, port)


def test_every_field_and_key_there_is_is_generated() -> None:
    assert {*universe.NAMED, *universe.ACCOUNT} == set(SOURCE_FIELDS.values())
    assert set(universe.OPERATION) == set(OPERATION_FIELDS.values())
    assert {key.partition("[")[0] for key in universe.KEYS} == {*PLAIN_KEYS, "request.headers", "request.auth.claims"}


INPUTS = "pilot/pkg/security/authz/builder/testdata"
EVERYWHERE = Workload("foo", "httpbin", {"app": "httpbin", "version": "v1"})
VALUES: dict[str, list[object]] = {
    "peer": [
        "",
        "spiffe://cluster.local/ns/ns/sa/x",
        "spiffe://principal",
        "spiffe://principal-prefix-x/ns/ns-prefix-1/sa/sa-only",
        "spiffe://td1/ns/foo/sa/sa-only",
        "spiffe://example.org/ns/my-ns/sa/my-sa",
        "spiffe://example.org/ns/foo/sa/sa-only",
        "spiffe://example.org/ns/ns-1/sa/x",
        "spiffe://example.org/ns/ns-2/sa/x",
        "spiffe://another.local/ns/a/sa/b",
        "spiffe://bad.example/ns/a/sa/b",
        "spiffe://example.org/ns/foo/sa/all-td",
        "spiffe://some-td/ns/foo/sa/prefix-td",
        "spiffe://example.org/ns/rule[0]/sa/from[0]-principal[0]",
        "spiffe://foobar/ns/foo/sa/rule[0]-from[1]-principal[1]",
        "spiffe://not-principal",
    ],
    "user": ["", "requestPrincipals/x", "id-1", "id-1/x", "https://example.com/me"],
    "method": ["GET", "method", "not-method", ""],
    "path": ["/exact", "/prefix/x", "/httpbin1", "/httpbin2", "/path/template/1", "/not-exact", "/else"],
    "host": ["", "exact.com", "x.suffix.com", "not-exact.com"],
    "port": [80, 90, 91, 8080, 9000, 9090],
    "ip": ["", "1.2.3.4", "10.10.10.10", "9.0.0.1"],
}


def istio_calls() -> st.SearchStrategy[Call]:
    choose = {name: st.sampled_from(values) for name, values in VALUES.items()}

    def make(**chosen: object) -> Call:
        method = str(chosen["method"])
        return Call(
            peer=universe.workload(str(chosen["peer"])),
            user=universe.person({"iss": "iss", "aud": "audiences"}, str(chosen["user"])),
            method=method,
            path=str(chosen["path"]) if method else "",
            host=str(chosen["host"]),
            port=int(str(chosen["port"])),
            address=Address(str(chosen["ip"])),
            destination_ip="10.10.10.10",
            sni="exact.com",
            headers=Headers([(b"x-header", b"header")]),
            target=EVERYWHERE,
        )

    return st.fixed_dictionaries(choose).map(lambda chosen: make(**chosen))


def without_envoy(text: str) -> str:
    """Leave out the conditions that only Envoy can evaluate, so that the rest of the input is decided."""
    documents = [it for it in yaml.safe_load_all(text) if it]
    for document in documents:
        rules = []
        for rule in document["spec"].get("rules", []):
            kept = [
                it for it in rule.get("when", []) if not it["key"].startswith(("experimental.", "request.headers[:"))
            ]
            if kept or "when" not in rule:
                rules.append({**rule, "when": kept} if kept else rule)
        if rules:
            document["spec"]["rules"] = rules
    return yaml.safe_dump_all(documents)


def test_every_input_of_istios_own_tests_is_decided_as_istio_would_or_refused_as_custom() -> None:
    found = sorted(vectors("istio").joinpath(INPUTS).rglob("*-in.yaml"))
    assert len(found) >= 20
    decided = 0
    for path in found:
        text = path.read_text("utf-8")
        if "action: CUSTOM" in text:
            with pytest.raises(PolicyError) as refused:
                parse_documents(text, file=path.name)
            assert refused.value.code == "HBK-302"
            continue
        chosen = PolicySet.of(parse_documents(without_envoy(text), file=path.name), aliases=("td1", "some-td"))
        engine = Engine(chosen, EVERYWHERE)
        assert engine.selected
        decided += 1

        agree_on_istio_calls(engine, chosen)
    assert decided >= 20


def agree_on_istio_calls(engine: Engine, chosen: PolicySet) -> None:
    @settings(max_examples=50, deadline=None, database=None)
    @given(istio_calls())
    def check(call: Call) -> None:
        decision = engine.decide(call)
        assert (decision.verdict is Verdict.ALLOW) is reference.decide(chosen, EVERYWHERE, call)
        assert set(decision.audits) == reference.audits(chosen, EVERYWHERE, call)

    check()
