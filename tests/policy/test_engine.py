"""The index decides exactly as a naive reading of the rules does, and the rules mean what Istio says they mean."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.call import Address, Call, Headers, Workload
from hauberk.core.decision import Verdict
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.policy.engine import Engine
from hauberk.policy.explain import explain
from hauberk.policy.model import Action, AuthorizationPolicy, Condition, Operation, Rule, Source
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from tests.policy.reference import decide

TARGET = Workload("prod", "pay", {"app": "pay", "tier": "back"})
PRINCIPALS = [
    "cluster.local/ns/prod/sa/a",
    "example.org/ns/prod/sa/b",
    "old.org/ns/prod/sa/a",
    "other.org/ns/prod/sa/a",
    "*",
    "*/sa/a",
    "example.org/*",
    "*/ns/prod/sa/b",
]
PATHS = ["/", "/api", "/api/*", "/api/{*}", "/api/{*}/x", "/api/{**}", "*/x", "*", "/api/{**}/x", "/a*c*", "*/x*"]
METHODS = ["GET", "POST", "*", "PO*", "*ET"]
BLOCKS = ["10.0.0.0/8", "10.0.0.1", "192.168.1.7/24", "2001:db8::/32"]
HOSTS = ["a.com", "*.com", "a.*", "*", "A.com:80"]
PEERS = [
    "",
    "uid:0",
    "spiffe://example.org/ns/prod/sa/a",
    "spiffe://example.org/ns/prod/sa/b",
    "spiffe://old.org/ns/prod/sa/a",
    "spiffe://other.org/ns/prod/sa/a",
    "spiffe://example.org/ns/dev/sa/a",
    "spiffe://example.org/ns/dev/sa/x/ns/prod/sa/a",
]


def some(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


sources = st.builds(
    Source,
    principals=some(PRINCIPALS),
    not_principals=some(PRINCIPALS),
    namespaces=some(["prod", "dev", "pr*", "*"]),
    not_namespaces=some(["dev", "x"]),
    trust_domains=some(["example.org", "*.org", "old*"]),
    ip_blocks=some(BLOCKS),
    not_ip_blocks=some(BLOCKS),
    remote_ip_blocks=some(BLOCKS),
)
accounts = st.builds(Source, service_accounts=some(["a", "prod/b", "dev/a"]), not_service_accounts=some(["b"]))
operations = st.builds(
    Operation,
    methods=some(METHODS),
    not_methods=some(METHODS),
    paths=some(PATHS),
    not_paths=some(PATHS),
    hosts=some(HOSTS),
    not_hosts=some(HOSTS),
    ports=some(["80", "443"]),
    not_ports=some(["443"]),
)
conditions = st.one_of(
    st.builds(Condition, st.just("request.headers[x-team]"), some(["a", "*", "b*"]), some(["b"])),
    st.builds(Condition, st.just("source.principal"), some(PRINCIPALS), some(PRINCIPALS)),
    st.builds(Condition, st.just("source.namespace"), some(["prod", "d*"]), some(["dev"])),
    st.builds(Condition, st.just("source.ip"), some(BLOCKS), some(BLOCKS)),
    st.builds(Condition, st.just("destination.port"), some(["80"]), some(["443"])),
    st.builds(Condition, st.just("connection.sni"), some(["a.com", "*.com"]), some(["b.com"])),
)
rules = st.builds(
    Rule,
    st.lists(st.one_of(sources, accounts), max_size=2).map(tuple),
    st.lists(operations, max_size=2).map(tuple),
    st.lists(conditions, max_size=1).map(tuple),
)
policies = st.builds(
    lambda number, namespace, action, rules, selector, dry: AuthorizationPolicy(
        namespace=namespace, name=f"p{number}", action=action, rules=rules, selector=selector, dry_run=dry
    ),
    st.integers(0, 9),
    st.sampled_from(["prod", "prod", "dev", "hauberk-system"]),
    st.sampled_from([Action.ALLOW, Action.ALLOW, Action.DENY, Action.AUDIT]),
    st.lists(rules, min_size=1, max_size=3).map(tuple),
    st.sampled_from([None, {"app": "pay"}, {"app": "other"}]),
    st.sampled_from([False, False, False, True]),
)
calls = st.builds(
    lambda peer, method, path, host, port, ip, forwarded, header, sni: Call(
        peer=Principal(Kind.WORKLOAD, peer) if peer else ANONYMOUS,
        method=method,
        path=path if method else "",
        host=host,
        port=port,
        address=Address(ip, 1, forwarded),
        headers=Headers([(b"x-team", header)] if header is not None else []),
        sni=sni,
        target=TARGET,
    ),
    st.sampled_from(PEERS),
    st.sampled_from(["GET", "POST", "PUT", ""]),
    st.sampled_from(["/", "/api", "/api/", "/api/1", "/api/1/x", "/api/x/x", "/other", "/a*c*", "/z/x*"]),
    st.sampled_from(["", "a.com", "A.COM:80", "b.com"]),
    st.sampled_from([80, 443]),
    st.sampled_from(["", "10.0.0.1", "192.168.1.9", "2001:db8::1"]),
    st.sampled_from([None, "10.0.0.1"]),
    st.sampled_from([None, b"", b"a", b"bb"]),
    st.sampled_from(["", "a.com", "b.com"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(policies, max_size=4), st.lists(calls, min_size=1, max_size=6))
def test_the_index_and_a_naive_reading_always_agree(
    documents: list[AuthorizationPolicy], some_calls: list[Call]
) -> None:
    chosen = PolicySet.of(documents, aliases=("old.org",))
    engine = Engine(chosen, TARGET)
    for call in some_calls:
        decision = engine.decide(call)
        assert (decision.verdict is Verdict.ALLOW) is decide(chosen, TARGET, call)
        assert explain(engine, call).decision == decision


def engine_of(text: str, target: Workload = TARGET, *, default: bool = False) -> Engine:
    base = PolicySet.default() if default else PolicySet.of(())
    return Engine(base.with_documents(parse_documents(text)), target)


def policy(spec: str, *, name: str = "p", namespace: str = "prod", extra: str = "") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}{extra}}}\nspec: {spec}\n---\n"
    )


def allowed(engine: Engine, method: str = "GET", path: str = "/", peer: str = "", **more: object) -> bool:
    who = Principal(Kind.WORKLOAD, peer) if peer else ANONYMOUS
    call = Call(peer=who, method=method, path=path, target=TARGET, **more)  # type: ignore[arg-type]
    return engine.decide(call).verdict is Verdict.ALLOW


def test_without_any_policy_istio_allows_and_our_default_set_denies() -> None:
    assert allowed(engine_of(""))
    assert not allowed(engine_of("", default=True))


def test_a_policy_without_rules_allows_nothing_and_an_empty_rule_everything() -> None:
    assert not allowed(engine_of(policy("{}")))
    assert allowed(engine_of(policy("{rules: [{}]}")))


def test_deny_beats_allow() -> None:
    both = policy("{rules: [{}]}") + policy("{action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]}", name="d")
    assert allowed(engine_of(both))
    assert not allowed(engine_of(both), path="/x")


def test_audit_and_dry_run_never_change_the_answer_and_are_told() -> None:
    text = policy("{rules: [{}]}") + policy("{action: AUDIT, rules: [{}]}", name="a")
    text += policy("{action: DENY, rules: [{}]}", name="dry", extra=', annotations: {istio.io/dry-run: "true"}')
    decision = engine_of(text).decide(Call(method="GET", path="/", target=TARGET))
    assert decision.verdict is Verdict.ALLOW
    assert decision.audits == ("ns[prod]-policy[a]-rule[0]", "ns[prod]-policy[dry]-rule[0]")


def test_a_decision_names_rule_digest_and_revision() -> None:
    chosen = PolicySet.of(parse_documents(policy("{rules: [{to: [{operation: {paths: [/a]}}]}, {}]}")))
    decision = Engine(chosen, TARGET, revision=7).decide(Call(method="GET", path="/", target=TARGET))
    assert decision.rule == "ns[prod]-policy[p]-rule[1]"
    assert (decision.basis.digest, decision.basis.revision) == (chosen.digest, 7)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/foo/{*}", "/foo/bar", True),
        ("/foo/{*}", "/foo/", False),
        ("/foo/{*}", "/foo/bar/baz", False),
        ("/foo/{**}", "/foo/", True),
        ("/foo/{**}", "/foo", False),
        ("/foo/{**}", "/foo/a/b", True),
        ("/{*}/x/{**}", "/a/x/b/c", True),
        ("/{**}/end", "/a/b/end", True),
        ("*abc*", "/abcd", False),
        ("*abc*", "/abc*", True),
        ("/a*b", "/aXb", False),
        ("/a*b", "/a*b", True),
        ("*", "/", True),
        ("/Foo", "/foo", False),
    ],
)
def test_paths_match_as_in_envoy(pattern: str, path: str, *, expected: bool) -> None:
    assert (
        allowed(engine_of(policy(f'{{rules: [{{to: [{{operation: {{paths: ["{pattern}"]}}}}]}}]}}')), path=path)
        is expected
    )


def test_cluster_local_points_to_the_local_trust_domain() -> None:
    text = policy("{rules: [{from: [{source: {principals: [cluster.local/ns/prod/sa/a]}}]}]}")
    assert allowed(engine_of(text), peer="spiffe://example.org/ns/prod/sa/a")
    assert not allowed(engine_of(text), peer="spiffe://evil.org/ns/prod/sa/a")
    assert not allowed(engine_of(text), peer="spiffe://cluster.local/ns/prod/sa/a")


def test_tcp_allow_rules_with_http_fields_vanish_and_deny_rules_widen() -> None:
    allow = policy("{rules: [{to: [{operation: {methods: [GET]}}]}]}")
    assert not allowed(engine_of(allow), method="", path="")
    deny = policy("{rules: [{}]}") + policy("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}", name="d")
    assert not allowed(engine_of(deny), method="", path="")
    assert allowed(engine_of(deny), method="POST")


def test_policies_of_other_namespaces_labels_and_gateways_do_not_apply() -> None:
    for text in (
        policy("{action: DENY, rules: [{}]}", namespace="other"),
        policy("{selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}"),
        policy("{targetRefs: [{kind: Gateway, name: g}], action: DENY, rules: [{}]}"),
    ):
        assert allowed(engine_of(text))
    assert not allowed(engine_of(policy("{action: DENY, rules: [{}]}", namespace="hauberk-system")))


def test_claims_match_strings_lists_nested_ones_and_spaced_scopes() -> None:
    def user(**claims: object) -> Principal:
        return Principal(Kind.USER, "https://issuer/alice", claims)

    def with_key(key: str, value: str) -> Engine:
        return engine_of(policy(f"{{rules: [{{when: [{{key: '{key}', values: ['{value}']}}]}}]}}"))

    assert allowed(with_key("request.auth.claims[groups]", "ops"), user=user(groups=["dev", "ops"]))
    assert allowed(with_key("request.auth.claims[a][b]", "c"), user=user(a={"b": "c"}))
    assert allowed(with_key("request.auth.claims[scope]", "read"), user=user(scope="write read"))
    assert allowed(with_key("request.auth.audiences", "us"), user=user(aud="us"))
    assert not allowed(with_key("request.auth.claims[groups]", "ops"), user=user(groups="dev ops"))
    assert not allowed(with_key("request.auth.claims[n]", "1"), user=user(n=1))


def peer_authentication(number: int, namespace: str, spec: str) -> str:
    kind = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
    return f"{kind}metadata: {{name: n{number}, namespace: {namespace}}}\nspec: {spec}\n---\n"


STRICT, OFF, UNSET = "{mtls: {mode: STRICT}}", "{mtls: {mode: DISABLE}}", "{mtls: {mode: UNSET}}"
MINE = "{selector: {matchLabels: {app: pay}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}"


@pytest.mark.parametrize(
    ("documents", "port", "mode"),
    [
        ([], 80, "PERMISSIVE"),
        ([("hauberk-system", STRICT)], 80, "STRICT"),
        ([("hauberk-system", STRICT), ("prod", OFF)], 80, "DISABLE"),
        ([("prod", STRICT), ("prod", OFF)], 80, "STRICT"),
        ([("hauberk-system", STRICT), ("prod", UNSET)], 80, "STRICT"),
        ([("prod", OFF), ("prod", MINE)], 80, "STRICT"),
        ([("prod", MINE)], 8080, "DISABLE"),
        ([("dev", STRICT)], 80, "PERMISSIVE"),
        ([("hauberk-system", MINE)], 80, "PERMISSIVE"),
    ],
)
def test_the_effective_mutual_tls_mode(documents: list[tuple[str, str]], port: int, mode: str) -> None:
    text = "".join(peer_authentication(at, *document) for at, document in enumerate(documents))
    assert engine_of(text).mtls_mode(port) == mode
