"""Each rule of lint, with what it finds and what it leaves alone; and the sample that is two rules."""

from pathlib import Path

import pytest

from hauberk.core.call import Workload
from hauberk.core.finding import Severity
from hauberk.errors import PolicyError
from hauberk.policy.engine import Engine
from hauberk.policy.lint import lint
from hauberk.policy.model import Document
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.policy.table import target_of
from tests.policy.universe import allowed

POLICIES = Path(__file__).parents[2] / "examples" / "payments" / "policies"
PAYMENT = target_of("production/payment-service")
ORDERS = "spiffe://example.org/ns/production/sa/order-service"
EVIL = "spiffe://example.org/ns/production/sa/evil-service"
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO


PORT = "{key: destination.port, values: ['1']}"
WITH_PORT = f"{{action: DENY, rules: [{{when: [{{key: 'request.headers[a]', values: [b]}}, {PORT}]}}]}}"


def document(spec: str, kind: str = "AuthorizationPolicy", namespace: str = "n") -> tuple[Document, ...]:
    head = f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p, namespace: {namespace}}}\n"
    return parse_documents(f"{head}spec: {spec}\n", file="p.yaml")


def found(spec: str, **options: str) -> dict[str, Severity]:
    return {it.rule: it.severity for it in lint(document(spec, **options))}


def to(fields: str, action: str = "ALLOW") -> str:
    return f"{{action: {action}, rules: [{{to: [{{operation: {{{fields}}}}}]}}]}}"


def of(fields: str, rest: str = "", action: str = "ALLOW") -> str:
    return f"{{action: {action}, rules: [{{from: [{{source: {{{fields}}}}}]{rest}}}]}}"


@pytest.mark.parametrize(
    ("rule", "severity", "bad", "good"),
    [
        (
            "split-from-to",
            ERROR,
            "{rules: [{from: [{source: {principals: [a/b]}}]}, {to: [{operation: {methods: [GET]}}]}]}",
            "{rules: [{from: [{source: {principals: [a/b]}}], to: [{operation: {methods: [GET]}}]}]}",
        ),
        (
            "split-from-to",
            ERROR,
            "{rules: [{to: [{operation: {methods: [GET]}}]}, {from: [{source: {principals: [a/b]}}]}]}",
            "{rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {methods: [PUT]}}]}]}",
        ),
        (
            "split-from-to",
            WARNING,
            "{action: DENY, rules: [{from: [{source: {namespaces: [a]}}]}, {to: [{operation: {ports: ['1']}}]}]}",
            "{action: AUDIT, rules: [{from: [{source: {namespaces: [a]}}]}, {to: [{operation: {ports: ['1']}}]}]}",
        ),
        (
            "split-from-to",
            ERROR,
            "{rules: [{from: [{source: {principals: [a/b]}}]}, {to: [{operation: {methods: [GET]}}]}]}",
            "{rules: [{from: [{source: {principals: [a/b]}}]}, {when: [{key: source.ip, values: [10.0.0.1]}]}]}",
        ),
        ("contains-wildcard", ERROR, to("paths: ['*abc*']"), to("paths: ['*abc']")),
        ("contains-wildcard", ERROR, to("paths: ['**']"), to("paths: ['*']")),
        ("contains-wildcard", ERROR, of("principals: ['*/sa/a*']"), of("namespaces: ['*a*']")),
        (
            "contains-wildcard",
            ERROR,
            "{rules: [{when: [{key: 'request.headers[a]', values: ['*b*']}]}]}",
            "{rules: [{when: [{key: source.namespace, values: ['*b*']}]}]}",
        ),
        ("inner-wildcard", WARNING, to("paths: ['/a*c']"), to("paths: ['/a/{*}/c']")),
        ("inner-wildcard", WARNING, to("paths: ['/a**']"), to("paths: ['/a*']")),
        ("presence", INFO, to("methods: ['*']"), to("methods: ['G*']")),
        ("presence", INFO, of("notPrincipals: ['*']"), of("namespaces: ['*']")),
        (
            "presence",
            INFO,
            "{rules: [{when: [{key: 'request.headers[a]', values: ['*']}]}]}",
            "{rules: [{when: [{key: 'request.headers[a]', values: [b]}]}]}",
        ),
        ("host-without-port", WARNING, to("hosts: [a.com]"), to("hosts: [a.com, 'a.com:*']")),
        ("host-without-port", WARNING, to("notHosts: ['*.com']"), to("hosts: ['a.com:443']")),
        ("host-without-port", WARNING, to("hosts: [a.com]"), to("hosts: ['a.*']")),
        ("principal-scheme", ERROR, of("principals: ['spiffe://a/ns/b/sa/c']"), of("principals: [a/ns/b/sa/c]")),
        ("address-only", WARNING, of("ipBlocks: [10.0.0.1]"), of("ipBlocks: [10.0.0.1], namespaces: [a]")),
        ("address-only", WARNING, of("notRemoteIpBlocks: [10.0.0.1]"), of("ipBlocks: [10.0.0.1]", action="DENY")),
        (
            "address-only",
            WARNING,
            "{rules: [{when: [{key: source.ip, values: [10.0.0.1]}]}]}",
            of("ipBlocks: [10.0.0.1]", ", when: [{key: source.principal, values: [a/b]}]"),
        ),
        ("http-in-tcp-deny", INFO, to("paths: [/a]", "DENY"), to("paths: [/a], ports: ['80']", "DENY")),
        ("http-in-tcp-deny", INFO, to("notMethods: [GET]", "DENY"), to("methods: [GET]")),
        ("http-in-tcp-deny", INFO, of("requestPrincipals: ['*']", action="DENY"), of("namespaces: [a]", action="DENY")),
        (
            "http-in-tcp-deny",
            INFO,
            "{action: DENY, rules: [{when: [{key: 'request.headers[a]', values: [b]}]}]}",
            WITH_PORT,
        ),
        (
            "unreachable",
            WARNING,
            "{rules: [{}, {to: [{operation: {paths: [/a]}}]}]}",
            "{rules: [{to: [{operation: {paths: [/a]}}]}, {}]}",
        ),
        (
            "unreachable",
            WARNING,
            "{rules: [{to: [{operation: {paths: [/a]}}]}, {to: [{operation: {paths: [/a]}}]}]}",
            "{rules: [{to: [{operation: {paths: [/a]}}]}, {to: [{operation: {paths: [/b]}}]}]}",
        ),
        ("unreachable", WARNING, to("methods: [GET], notMethods: [GET]"), to("methods: [GET, PUT], notMethods: [GET]")),
        ("unreachable", WARNING, to("methods: [GET], notMethods: ['*']"), to("methods: [GET], notPaths: ['*']")),
        ("allow-all", WARNING, "{rules: [{}]}", "{action: DENY, rules: [{}]}"),
        ("empty-selector", WARNING, "{selector: {}}", "{selector: {matchLabels: {a: b}}}"),
        (
            "gateway-only",
            WARNING,
            "{targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: g}}",
            "{selector: {matchLabels: {a: b}}}",
        ),
    ],
)
def test_a_rule_of_lint_finds_the_bad_and_leaves_the_good(rule: str, severity: Severity, bad: str, good: str) -> None:
    assert found(bad).get(rule) is severity
    assert rule not in found(good)


def test_modes_that_let_callers_in_without_an_identity_are_told() -> None:
    kind = {"kind": "PeerAuthentication"}
    assert found("{mtls: {mode: PERMISSIVE}}", **kind) == {"permissive": WARNING}
    assert found("{mtls: {mode: DISABLE}}", **kind) == {"permissive": WARNING}
    assert found("{mtls: {mode: STRICT}}", **kind) == {}
    ports = "{selector: {matchLabels: {a: b}}, portLevelMtls: {80: {mode: %s}}}"
    assert found(ports % "DISABLE", **kind) == {"permissive": WARNING}
    assert found(ports % "STRICT", **kind) == {}
    assert found(ports % "STRICT", namespace="hauberk-system", **kind) == {"root-selector": WARNING}


def test_istios_root_namespace_is_an_ordinary_one_here_and_lint_says_so() -> None:
    spec = document("{action: DENY, rules: [{}]}", namespace="istio-system")
    assert [it.rule for it in lint(spec)] == ["foreign-root"]
    assert lint(spec, root_namespace="istio-system") == ()


def test_policies_that_select_no_registered_workload_are_told() -> None:
    somebody = [Workload("n", "a", {"app": "a"})]
    for spec, namespace, hit in (
        ("{selector: {matchLabels: {app: typo}}}", "n", True),
        ("{selector: {matchLabels: {app: a}}}", "n", False),
        ("{selector: {matchLabels: {app: a}}}", "m", True),
        ("{selector: {matchLabels: {app: a}}}", "hauberk-system", False),
        ("{selector: {matchLabels: {app: b}}}", "hauberk-system", True),
        ("{}", "n", False),
    ):
        rules = [it.rule for it in lint(document(spec, namespace=namespace), workloads=somebody)]
        assert ("selects-nobody" in rules) is hit
    assert [it.rule for it in lint(document("{}"), workloads=[])] == ["selects-nobody"]
    assert lint(document("{}")) == ()


def test_a_finding_says_where_it_is() -> None:
    spec = "\n  rules:\n  - to: [{operation: {paths: [/a]}}]\n  - to:\n    - operation: {paths: ['*b*']}\n"
    (it,) = lint(document(spec))
    assert (it.file, it.line, it.field, it.subject) == ("p.yaml", 7, "spec.rules[1].to[0].operation.paths", "n/p")


def through(documents: tuple[Document, ...]) -> tuple[bool, bool, bool]:
    """Decide what was meant, and the two holes: the known service elsewhere, and somebody else at the known place."""
    engine = Engine(PolicySet.default().with_documents(documents), PAYMENT)
    return (
        allowed(engine, "POST", "/api/payments", ORDERS),
        allowed(engine, "GET", "/admin", ORDERS),
        allowed(engine, "POST", "/api/payments", EVIL),
    )


def test_the_sample_that_is_two_rules_has_two_holes_and_the_corrected_text_closes_both() -> None:
    documents = parse_documents((POLICIES / "split.yaml").read_text("utf-8"), file="split.yaml")
    assert through(documents) == (True, True, True)
    (it,) = lint(documents)
    assert (it.rule, it.severity, it.field) == ("split-from-to", ERROR, "spec.rules[0]")
    corrected = parse_documents(it.fix)
    assert lint(corrected) == ()
    assert through((documents[0], *corrected)) == (True, False, False)


FROM = "{{from: [{{source: {{principals: [example.org/ns/n/sa/{0}]}}}}]}}"
TO = "{{to: [{{operation: {{paths: [/{0}]}}}}]}}"
WHOLE = "{{from: [{{source: {{principals: [example.org/ns/n/sa/{0}]}}}}], to: [{{operation: {{paths: [/{0}]}}}}]}}"


@pytest.mark.parametrize(
    ("rules", "may"),
    [
        ([FROM.format("a"), TO.format("a"), FROM.format("b"), TO.format("b")], {"a/a", "b/b"}),
        ([TO.format("a"), FROM.format("a"), TO.format("b"), FROM.format("b")], {"a/a", "b/b"}),
        ([FROM.format("a"), TO.format("a"), TO.format("b")], {"a/a", "a/b"}),
        ([FROM.format("a"), FROM.format("b"), TO.format("a")], {"a/a", "b/a"}),
        ([FROM.format("a"), TO.format("a"), WHOLE.format("b"), TO.format("a"), FROM.format("a")], {"a/a", "b/b"}),
    ],
)
def test_the_corrected_text_is_clean_and_lets_nobody_else_in(rules: list[str], may: set[str]) -> None:
    findings = [it for it in lint(document(f"{{rules: [{', '.join(rules)}]}}")) if it.rule == "split-from-to"]
    corrected = parse_documents(findings[0].fix)
    assert [it.rule for it in lint(corrected) if it.rule == "split-from-to"] == []
    engine = Engine(PolicySet.of(corrected), Workload("n", "x", {}))
    calls = [(who, what) for who in ("a", "b", "evil") for what in ("a", "b", "other")]
    assert {
        f"{a}/{b}" for a, b in calls if allowed(engine, path=f"/{b}", peer=f"spiffe://example.org/ns/n/sa/{a}")
    } == may


def test_the_other_example_policies_are_clean_but_for_the_note_on_tcp() -> None:
    rules = {it.rule for it in lint(parse_documents((POLICIES / "mesh.yaml").read_text("utf-8")))}
    assert rules == {"http-in-tcp-deny"}


def test_one_letter_wrong_in_the_example_is_refused_before_lint() -> None:
    with pytest.raises(PolicyError, match="HBK-301") as caught:
        parse_documents((POLICIES / "typo.yaml").read_text("utf-8"))
    assert caught.value.context["field"] == "spec.rules[0].to[0].operatoin"
