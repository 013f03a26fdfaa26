"""The rules mean what Istio says they mean; its own tables, written out as data of ours."""

import pytest

from hauberk.core.call import Address, Call, Headers, Workload
from hauberk.core.decision import Verdict
from hauberk.core.principal import Kind, Principal
from hauberk.policy.engine import Engine
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from tests.policy.universe import TARGET, allowed, engine_of, policy


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
        policy("{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}], action: DENY, rules: [{}]}"),
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


def test_the_oldest_of_two_documents_of_one_scope_stays_when_a_third_replaces_the_other() -> None:
    first = peer_authentication(1, "prod", STRICT) + peer_authentication(2, "prod", OFF)
    base = PolicySet.of(parse_documents(first))
    again = base.with_documents(parse_documents(peer_authentication(2, "prod", OFF)))
    assert Engine(again, TARGET).mtls_mode(80) == "STRICT"
    changed = base.with_documents(parse_documents(peer_authentication(1, "prod", OFF)))
    assert Engine(changed, TARGET).mtls_mode(80) == "DISABLE"


TEMPLATES = '["/allow/admin/{**}", "/foo/{*}/bar/{**}", "/store/{**}/cart"]'


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/allow/admin/", True),
        ("/allow/admin", False),
        ("/allow/user/", False),
        ("/allow", False),
        ("/allow/admin/temp", True),
        ("/allow/admin/temp.txt", True),
        ("/allow/admin/foo/temp.txt", True),
        ("/foo/buzz/bar/bat.txt", True),
        ("/foo/buzz/bar/bat.temp.txt", True),
        ("/foo/buzz/bar/bat/fuzz.txt", True),
        ("/foo/bar/bat.txt", False),
        ("/foo//bar/bat.txt", False),
        ("/foo/buzz/bar/bat", True),
        ("/foo/a/b/bar/bat", False),
        ("/store//cart", True),
        ("/store/cart", False),
        ("/store/foo/cart", True),
        ("/store/foo/bar/cart", True),
        ("/store/foo/cart/more", False),
    ],
)
def test_path_templating(path: str, *, expected: bool) -> None:
    assert (
        allowed(engine_of(policy(f"{{rules: [{{to: [{{operation: {{paths: {TEMPLATES}}}}}]}}]}}")), path=path)
        is expected
    )


@pytest.mark.parametrize(
    ("path", "expected"), [("/allow/admin", False), ("/allow", True), ("/allowed", True), ("/", False)]
)
def test_a_deny_of_one_path_goes_before_an_allow_of_its_prefix(path: str, *, expected: bool) -> None:
    text = policy("{action: DENY, rules: [{to: [{operation: {paths: [/allow/admin]}}]}]}", name="d")
    text += policy("{rules: [{to: [{operation: {paths: ['/allow*']}}]}]}")
    assert allowed(engine_of(text), path=path) is expected


FRIEND = {"peer": "spiffe://example.org/ns/ns1/sa/a", "address": Address("10.0.0.1")}
STRANGER = {"peer": "spiffe://example.org/ns/ns2/sa/a", "address": Address("10.0.0.2")}


@pytest.mark.parametrize(
    ("key", "lists", "friend", "stranger"),
    [
        ("source.ip", "values: ['10.0.0.1']", True, False),
        ("source.ip", "notValues: ['10.0.0.2']", True, False),
        ("remote.ip", "values: ['10.0.0.1/32']", True, False),
        ("source.namespace", "values: [ns1]", True, False),
        ("source.namespace", "notValues: [ns2]", True, False),
        ("source.namespace", "values: ['*1']", True, False),
        ("source.principal", "values: [example.org/ns/ns1/sa/a]", True, False),
        ("source.principal", "notValues: [cluster.local/ns/ns2/sa/a]", True, False),
        ("source.serviceAccount", "values: [ns1/a]", True, False),
        ("source.serviceAccount", "values: [a]", False, False),
        ("source.trustDomain", "values: [example.org]", True, True),
        ("source.trustDomain", "notValues: [bad.example.com]", True, True),
        ("source.trustDomain", "values: [cluster.local]", False, False),
        ("destination.ip", "values: ['10.1.1.1']", True, True),
        ("destination.ip", "values: [1.2.3.4]", False, False),
        ("destination.ip", "notValues: ['10.1.1.0/24']", False, False),
        ("destination.port", "values: ['80']", True, True),
        ("destination.port", "values: ['1']", False, False),
        ("destination.port", "notValues: ['80']", False, False),
        ("connection.sni", "values: ['*.svc.example']", True, True),
        ("connection.sni", "values: [never-matched]", False, False),
        ("connection.sni", "notValues: ['*.svc.example']", False, False),
        ("request.auth.claims[iss]", "values: ['*']", False, False),
        ("request.auth.principal", "notValues: ['*']", True, True),
    ],
)
def test_conditions(key: str, lists: str, *, friend: bool, stranger: bool) -> None:
    engine = engine_of(policy(f"{{rules: [{{when: [{{key: '{key}', {lists}}}]}}]}}"))
    common = {"port": 80, "destination_ip": "10.1.1.1", "sni": "pay.svc.example"}
    assert allowed(engine, **FRIEND, **common) is friend  # type: ignore[arg-type]
    assert allowed(engine, **STRANGER, **common) is stranger  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lists", "sent", "expected"),
    [
        ("values: [foo]", b"foo", True),
        ("values: [foo]", b"bar", False),
        ("values: [foo]", None, False),
        ("notValues: [bar]", b"foo", True),
        ("notValues: [bar]", b"bar", False),
        ("notValues: [bar]", None, True),
        ("values: ['*']", b"", True),
        ("values: ['*']", None, False),
        ("notValues: ['*']", None, True),
        ("values: ['f*']", b"foo", True),
        ("values: ['*o']", b"foo", True),
        ("values: [FOO]", b"foo", False),
    ],
)
def test_header_conditions(lists: str, sent: bytes | None, *, expected: bool) -> None:
    engine = engine_of(policy(f"{{rules: [{{when: [{{key: 'request.headers[X-Foo]', {lists}}}]}}]}}"))
    assert allowed(engine, headers=Headers([] if sent is None else [(b"x-foo", sent)])) is expected


@pytest.mark.parametrize(
    ("value", "issuer", "subject", "expected"),
    [
        ("*", "https://a.example", "x", True),
        ("*", "https://a.example", "", False),
        ("https://a.example/x", "https://a.example", "x", True),
        ("https://a.example/*", "https://a.example", "x", True),
        ("https://a.example/*", "https://a.example", "", False),
        ("https://a.example/*", "https://a.example/tenant", "x", False),
        ("https://a.*", "https://a.example", "x", False),
        ("a.*", "a.example", "x", True),
        ("*/x", "https://a.example", "x", True),
        ("*/x", "https://a.example", "yx", False),
        ("*example/x", "https://a.example", "x", True),
        ("*x", "https://a.example", "yx", True),
        ("x", "", "x", False),
    ],
)
def test_request_principals_are_compared_part_by_part(value: str, issuer: str, subject: str, *, expected: bool) -> None:
    engine = engine_of(policy(f"{{rules: [{{from: [{{source: {{requestPrincipals: ['{value}']}}}}]}}]}}"))
    user = Principal(Kind.USER, f"{issuer}/{subject}", {"iss": issuer, "sub": subject})
    assert allowed(engine, user=user) is expected


@pytest.mark.parametrize(
    ("written", "aliases", "callers"),
    [
        ("td1/ns/foo/sa/bar", ("td1",), {"example.org", "td1"}),
        ("cluster.local/ns/foo/sa/bar", ("td1",), {"example.org", "td1"}),
        ("some-td/ns/foo/sa/bar", ("td1",), {"some-td"}),
        ("*/ns/foo/sa/bar", ("td1",), {"example.org", "td1", "some-td", "foo-td1", "other"}),
        ("*-td1/ns/foo/sa/bar", ("foo-td1",), {"example.org", "foo-td1"}),
        ("*-td/ns/foo/sa/bar", ("td1",), {"some-td"}),
        ("exam*/ns/foo/sa/bar", ("td1",), {"example.org", "td1"}),
    ],
)
def test_a_name_of_the_local_trust_domain_stands_for_all_of_them(
    written: str, aliases: tuple[str, ...], callers: set[str]
) -> None:
    for action, rest in (("ALLOW", ""), ("DENY", policy("{rules: [{}]}", name="all"))):
        text = policy(f"{{action: {action}, rules: [{{from: [{{source: {{principals: ['{written}']}}}}]}}]}}") + rest
        engine = engine_of(text, aliases=aliases)
        domains = ("example.org", "td1", "foo-td1", "some-td", "other")
        through = {it for it in domains if allowed(engine, peer=f"spiffe://{it}/ns/foo/sa/bar")}
        assert through == (callers if action == "ALLOW" else set(domains) - callers)


def test_an_ipv4_caller_of_a_socket_for_both_families_is_still_that_caller() -> None:
    deny = policy("{action: DENY, rules: [{from: [{source: {ipBlocks: ['10.0.0.0/8']}}]}]}")
    assert not allowed(engine_of(deny), address=Address("10.1.2.3"))
    assert not allowed(engine_of(deny), address=Address("::ffff:10.1.2.3"))
    assert allowed(engine_of(deny), address=Address("::ffff:11.1.2.3"))
    assert allowed(engine_of(deny), address=Address("fe80::1%eth0"))


def test_selectors_and_the_root_namespace_choose_who_is_protected() -> None:
    text = policy("{selector: {matchLabels: {app: pay, tier: back}}, action: DENY, rules: [{}]}")
    root = policy("{selector: {matchLabels: {app: pay}}, action: DENY, rules: [{}]}", namespace="hauberk-system")
    both, one = Workload("prod", "pay", {"app": "pay", "tier": "back"}), Workload("prod", "pay", {"app": "pay"})
    elsewhere = Workload("dev", "pay", {"app": "pay", "tier": "back"})
    assert [allowed(engine_of(text, it)) for it in (both, one, elsewhere)] == [False, True, True]
    assert [allowed(engine_of(root, it)) for it in (both, one, elsewhere)] == [False, False, False]
    empty = policy("{selector: {matchLabels: {version: ''}}, action: DENY, rules: [{}]}")
    assert [allowed(engine_of(empty, Workload("prod", "a", it))) for it in ({"version": ""}, {})] == [False, True]


def test_the_decision_of_a_deny_names_its_rule_and_a_miss_names_none() -> None:
    text = policy("{action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}, {to: [{operation: {paths: [/b]}}]}]}")
    engine = engine_of(text + policy("{}", name="nothing"))
    denied = engine.decide(Call(method="GET", path="/b", target=TARGET))
    assert (denied.verdict, denied.code, denied.rule) == (Verdict.DENY, "HBK-300", "ns[prod]-policy[p]-rule[1]")
    missed = engine.decide(Call(method="GET", path="/c", target=TARGET))
    assert (missed.verdict, missed.code, missed.rule) == (Verdict.DENY, "HBK-300", None)
