"""What is not valid is refused with file, line and field; what is valid survives a round trip."""

from contextlib import suppress

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.errors import PolicyError
from hauberk.policy.model import Action, AuthorizationPolicy, PeerAuthentication, to_data
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from tests.policy import universe
from tests.support.vectors import vectors

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: n}\n"


GATEWAY = "group: gateway.networking.k8s.io, kind: Gateway"
RULE = "rules: [{}]"
KEYS = '{"keys": [{"kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ"}]}'


def head(kind: str = "AuthorizationPolicy", annotations: str = "{}", version: str = "v1") -> str:
    return (
        f"apiVersion: security.istio.io/{version}\nkind: {kind}\n"
        f"metadata: {{name: p, namespace: n, annotations: {annotations}}}\n"
    )


def refusal(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_documents(text, file="p.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{action: DENY}", "spec.rules"),
        ("{action: PERMIT}", "spec.action"),
        ("{provider: {name: x}}", "spec.provider"),
        ("{rules: [{form: []}]}", "spec.rules[0].form"),
        ("{rules: [{from: []}]}", "spec.rules[0].from"),
        ("{rules: [{from: [{}]}]}", "spec.rules[0].from[0].source"),
        ("{rules: [{from: [{source: {}}]}]}", "spec.rules[0].from[0].source"),
        ("{rules: [{to: [{operation: {paths: []}}]}]}", "spec.rules[0].to[0].operation"),
        ("{rules: [{to: [{operation: {methods: ['']}}]}]}", "spec.rules[0].to[0].operation.methods[0]"),
        ("{rules: [{to: [{operation: {ports: [80]}}]}]}", "spec.rules[0].to[0].operation.ports[0]"),
        ("{rules: [{to: [{operation: {ports: ['0']}}]}]}", "spec.rules[0].to[0].operation.ports"),
        ("{rules: [{to: [{operation: {ports: ['65536']}}]}]}", "spec.rules[0].to[0].operation.ports"),
        ("{rules: [{to: [{operation: {paths: ['/a/{*}x']}}]}]}", "spec.rules[0].to[0].operation.paths"),
        ("{rules: [{to: [{operation: {paths: ['/{**}/{*}']}}]}]}", "spec.rules[0].to[0].operation.paths"),
        ("{rules: [{to: [{operation: {paths: ['/a/{b}']}}]}]}", "spec.rules[0].to[0].operation.paths"),
        ("{rules: [{to: [{operation: {paths: ['/a/{*}/b*']}}]}]}", "spec.rules[0].to[0].operation.paths"),
        ("{rules: [{from: [{source: {ipBlocks: ['10.0.0.0/33']}}]}]}", "spec.rules[0].from[0].source.ipBlocks"),
        ("{rules: [{from: [{source: {ipBlocks: ['a.com']}}]}]}", "spec.rules[0].from[0].source.ipBlocks"),
        (
            "{rules: [{from: [{source: {serviceAccounts: [a], principals: [b]}}]}]}",
            "spec.rules[0].from[0].source",
        ),
        ("{rules: [{from: [{source: {serviceAccounts: ['a*']}}]}]}", "spec.rules[0].from[0].source.serviceAccounts"),
        ("{rules: [{from: [{source: {serviceAccounts: ['a/b/c']}}]}]}", "spec.rules[0].from[0].source.serviceAccounts"),
        ("{rules: [{from: [{source: {trustDomains: ['a/b']}}]}]}", "spec.rules[0].from[0].source.trustDomains"),
        ("{rules: [{when: [{key: source.name, values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("{rules: [{when: [{key: source.ip, values: [x]}]}]}", "spec.rules[0].when[0].values"),
        ("{rules: [{when: [{key: source.principal}]}]}", "spec.rules[0].when[0]"),
        ("{selector: {matchLabels: {app: 'a*'}}}", "spec.selector.matchLabels.app"),
        (f"{{selector: {{matchLabels: {{app: a}}}}, targetRefs: [{{{GATEWAY}, name: g}}]}}", "spec.selector"),
        (f"{{selector: {{matchLabels: {{app: a}}}}, targetRef: {{{GATEWAY}, name: g}}}}", "spec.selector"),
        (f"{{targetRef: {{{GATEWAY}, name: g}}, targetRefs: [{{{GATEWAY}, name: g}}]}}", "spec.targetRef"),
        (f"{{targetRef: {{{GATEWAY}}}}}", "spec.targetRef"),
        (f"{{targetRef: {{{GATEWAY}, name: ''}}}}", "spec.targetRef"),
        (f"{{targetRef: {{{GATEWAY}, name: g, namespace: other}}}}", "spec.targetRef.namespace"),
        ("{targetRef: {group: wrong, kind: Gateway, name: g}}", "spec.targetRef.kind"),
        ("{targetRef: {kind: Gateway, name: g}}", "spec.targetRef.kind"),
        (f"{{targetRef: {{{GATEWAY.replace('Gateway', 'Wrong')}, name: g}}}}", "spec.targetRef.kind"),
        (f"{{targetRefs: [{', '.join(['{' + GATEWAY + ', name: g}'] * 17)}]}}", "spec.targetRefs"),
        ("{targetRefs: []}", "spec.targetRefs"),
        ("{selector: {matchLabels: {'': a}}}", "spec.selector.matchLabels"),
        ("{selector: {matchLabels: {'a*': b}}}", "spec.selector.matchLabels.a*"),
        (f"{{selector: {{matchLabels: {{a: {'b' * 64}}}}}}}", "spec.selector.matchLabels.a"),
        ("{selector: {matchExpressions: []}}", "spec.selector.matchExpressions"),
        ("{action: DENY, rules: []}", "spec.rules"),
        ("{rules: [null]}", "spec.rules[0]"),
        ("{rules: [{from: null, to: [{operation: {paths: [/a]}}]}]}", "spec.rules[0].from"),
        ("{rules: [{to: []}]}", "spec.rules[0].to"),
        ("{rules: [{to: [{}]}]}", "spec.rules[0].to[0].operation"),
        ("{rules: [{to: [{operation: {}}]}]}", "spec.rules[0].to[0].operation"),
        ("{rules: [{to: [null]}]}", "spec.rules[0].to[0]"),
        ("{rules: [{when: []}]}", "spec.rules[0].when"),
        ("{rules: [{when: [null]}]}", "spec.rules[0].when[0]"),
        ("{rules: [{when: [{values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("{rules: [{when: [{key: '', values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("{rules: [{when: [{key: source.principal, values: []}]}]}", "spec.rules[0].when[0]"),
        ("{rules: [{when: [{key: source.principal, values: [a, '']}]}]}", "spec.rules[0].when[0].values[1]"),
        ("{rules: [{when: [{key: source.ip, notValues: [a.b.c.d]}]}]}", "spec.rules[0].when[0].notValues"),
        ("{rules: [{when: [{key: destination.port, values: ['x']}]}]}", "spec.rules[0].when[0].values"),
        ("{rules: [{when: [{key: source.serviceAccount, values: ['a*']}]}]}", "spec.rules[0].when[0].values"),
        ("{rules: [{when: [{key: source.trustDomain, notValues: ['a*b']}]}]}", "spec.rules[0].when[0].notValues"),
        ("{rules: [{when: [{key: 'destination.labels[a]', values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("{rules: [{when: [{key: 'request.headers', values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("{rules: [{when: [{key: 'request.headers[]', values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("{rules: [{when: [{key: 'request.headers[€]', values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("{rules: [{when: [{key: 'request.headers[a b]', values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("{rules: [{when: [{key: 'request.auth.claims', values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("{rules: [{to: [{operation: {ports: ['٣']}}]}]}", "spec.rules[0].to[0].operation.ports"),
        ("{rules: [{to: [{operation: {ports: ['080']}}]}]}", "spec.rules[0].to[0].operation.ports"),
        (f"{{rules: [{{to: [{{operation: {{ports: ['{'9' * 5000}']}}}}]}}]}}", "spec.rules[0].to[0].operation.ports"),
        ("{rules: [{to: [{operation: {paths: ['/a//{*}']}}]}]}", "spec.rules[0].to[0].operation.paths"),
        ("{rules: [{to: [{operation: {notPaths: ['/a/{x=*}']}}]}]}", "spec.rules[0].to[0].operation.notPaths"),
        ("{rules: [{to: [{operation: {paths: ['a/{*}']}}]}]}", "spec.rules[0].to[0].operation.paths"),
        ("{rules: [{to: [{operation: {paths: ['/{**}/{**}']}}]}]}", "spec.rules[0].to[0].operation.paths"),
        ("{rules: [{to: [{operation: {paths: ['/a b/{*}']}}]}]}", "spec.rules[0].to[0].operation.paths"),
        ("{rules: [{from: [{source: {ipBlocks: [10.0.0.0/255.0.0.0]}}]}]}", "spec.rules[0].from[0].source.ipBlocks"),
        ("{rules: [{from: [{source: {ipBlocks: ['fe80::1%eth0']}}]}]}", "spec.rules[0].from[0].source.ipBlocks"),
        ("{rules: [{from: [{source: {ipBlocks: ['10.0.0.0/08']}}]}]}", "spec.rules[0].from[0].source.ipBlocks"),
        ("{rules: [{from: [{source: {notTrustDomains: ['a*b']}}]}]}", "spec.rules[0].from[0].source.notTrustDomains"),
        (
            "{rules: [{from: [{source: {notServiceAccounts: [a], notNamespaces: [b]}}]}]}",
            "spec.rules[0].from[0].source",
        ),
        (
            f"{{rules: [{{from: [{{source: {{serviceAccounts: [{', '.join(['a'] * 17)}]}}}}]}}]}}",
            "spec.rules[0].from[0].source.serviceAccounts",
        ),
        (
            f"{{rules: [{{from: [{{source: {{serviceAccounts: [{'a' * 321}]}}}}]}}]}}",
            "spec.rules[0].from[0].source.serviceAccounts",
        ),
        (f"{{rules: [{', '.join(['{}'] * 513)}]}}", "spec.rules"),
        (
            f"{{rules: [{{from: [{', '.join(['{source: {namespaces: [a]}}'] * 513)}]}}]}}",
            "spec.rules[0].from",
        ),
        ("{rules: [{to: [{operation: {methods: [GET], methods: [PUT]}}]}]}", "spec.rules[0].to[0].operation.methods"),
        ("[]", "spec"),
    ],
)
def test_what_istio_refuses_is_refused_with_the_field_that_is_wrong(spec: str, field: str) -> None:
    error = refusal(HEAD + f"spec: {spec}\n")
    assert error.code == "HBK-301"
    assert error.context["field"] == field
    assert error.context["file"] == "p.yaml"
    assert error.context["line"] in {1, 4}


def test_one_letter_wrong_is_an_error_that_suggests_the_right_field() -> None:
    error = refusal(HEAD + "spec:\n  action: DENY\n  rules:\n  - to: [{operatoin: {paths: [/a]}}]\n")
    assert error.context["line"] == 7
    assert "did you mean operation?" in error.detail


FIELDS = {
    "source": "principals requestPrincipals namespaces serviceAccounts trustDomains ipBlocks remoteIpBlocks",
    "operation": "hosts ports methods paths",
}
EVERY_FIELD = [
    (part, name)
    for part, names in FIELDS.items()
    for one in names.split()
    for name in (one, f"not{one[0].upper()}{one[1:]}")
]


@pytest.mark.parametrize(("part", "name"), EVERY_FIELD)
def test_an_empty_value_is_refused_in_every_field(part: str, name: str) -> None:
    good = {"ipBlocks": "10.0.0.1", "remoteIpBlocks": "10.0.0.1", "ports": "80"}
    value = good.get(name[3].lower() + name[4:] if name.startswith("not") else name, "x")
    side = "from" if part == "source" else "to"
    spec = f"spec: {{rules: [{{{side}: [{{{part}: {{{name}: ['{value}', %s]}}}}]}}]}}\n"
    assert len(parse_documents(HEAD + spec % f"'{value}'")) == 1
    for bad in ("''", "null", "1", "true", "[a]", "{a: b}", "!!binary YQ=="):
        assert refusal(HEAD + spec % bad).context["field"] == f"spec.rules[0].{side}[0].{part}.{name}[1]"


@pytest.mark.parametrize(
    "text",
    [
        HEAD,
        HEAD + "spec: {}\n",
        HEAD + "spec:\nstatus: null\n",
        HEAD + "spec: {selector: {}}\n",
        HEAD + "spec: {selector: {matchLabels: {app: '', version: v1}}}\n",
        HEAD + f"spec: {{action: DENY, targetRef: {{{GATEWAY}, name: g}}, {RULE}}}\n",
        HEAD + f"spec: {{targetRefs: [{{group: '', kind: Service, name: g}}, {{{GATEWAY}Class, name: g}}], {RULE}}}\n",
        HEAD + "spec: {rules: [{from: [{source: {serviceAccounts: [a/b, c]}}, {source: {principals: [d]}}]}]}\n",
        HEAD + "spec: {rules: [{to: [{operation: {paths: ['/{*}/{**}/', '/a%20b/{*}']}}]}]}\n",
        HEAD + "spec: {rules: [{when: [{key: 'request.auth.claims[a][b-c/d]', values: [x]}]}]}\n",
        head(annotations="{istio.io/dry-run: 'true'}"),
        head(annotations="{istio.io/dry-run: 'F', note: ''}") + f"spec: {{action: DENY, {RULE}}}\n",
        head(version="v1beta1"),
        HEAD.replace("namespace: n", "creationTimestamp: null"),
    ],
)
def test_what_istio_takes_is_taken(text: str) -> None:
    assert len(parse_documents(text)) == 1


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (head(annotations="{istio.io/dry-run: foo}"), "metadata.annotations.istio.io/dry-run"),
        (head(annotations="{istio.io/dry-run: true}"), "metadata.annotations.istio.io/dry-run"),
        (
            head(annotations="{istio.io/dry-run: 'true'}") + "spec: {action: AUDIT}",
            "metadata.annotations.istio.io/dry-run",
        ),
        (head("PeerAuthentication", "{istio.io/dry-run: 'true'}"), "metadata.annotations"),
        (head("RequestAuthentication", "{istio.io/dry-run: 'true'}"), "metadata.annotations"),
        (head(annotations="{internal.istio.io/parents: x}"), "metadata.annotations.internal.istio.io/parents"),
        (HEAD.replace("namespace: n", "namespace: a.b"), "metadata.namespace"),
        (HEAD.replace("namespace: n", f"namespace: {'n' * 64}"), "metadata.namespace"),
        (HEAD.replace("name: p", "name: 'p]-rule[0'"), "metadata.name"),
        (HEAD.replace("name: p, ", ""), "metadata.name"),
        (HEAD.replace("name: p", "nmae: p"), "metadata.nmae"),
        (HEAD + "sepc: {}\n", "sepc"),
    ],
)
def test_metadata_is_checked(text: str, field: str) -> None:
    error = refusal(text)
    assert (error.code, error.context["field"]) == ("HBK-301", field)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("", None),
        ("{}", None),
        ("{selector: {}}", None),
        ("{selector: {matchLabels: {app: a}}}", None),
        ("{mtls: {mode: UNSET}}", None),
        ("{mtls: {}}", None),
        ("{selector: {matchLabels: {app: a}}, portLevelMtls: {8080: {mode: UNSET}, '443': {}}}", None),
        ("{selector: {matchLabels: {app: a}}, portLevelMtls: {}}", "spec.portLevelMtls"),
        ("{portLevelMtls: {8080: {mode: UNSET}}}", "spec.portLevelMtls"),
        ("{selector: {}, portLevelMtls: {8080: {mode: UNSET}}}", "spec.portLevelMtls"),
        ("{selector: {matchLabels: {app: a}}, portLevelMtls: {0: {mode: STRICT}}}", "spec.portLevelMtls.0"),
        ("{selector: {matchLabels: {app: a}}, portLevelMtls: {65536: {}}}", "spec.portLevelMtls.65536"),
        ("{selector: {matchLabels: {app: a}}, portLevelMtls: {010: {}}}", "spec.portLevelMtls.010"),
        ("{selector: {matchLabels: {app: a}}, portLevelMtls: {0x50: {}}}", "spec.portLevelMtls.0x50"),
        ("{selector: {matchLabels: {app: a}}, portLevelMtls: {80: {}, '80': {}}}", "spec.portLevelMtls.80"),
        ("{selector: {matchLabels: {'': a}}}", "spec.selector.matchLabels"),
        ("{mtls: {mode: strict}}", "spec.mtls.mode"),
        ("{mtls: STRICT}", "spec.mtls"),
        ("{mtls: null}", "spec.mtls"),
        ("{tls: {mode: STRICT}}", "spec.tls"),
    ],
)
def test_peer_authentication_is_checked(spec: str, field: str | None) -> None:
    text = head("PeerAuthentication") + f"spec: {spec}\n"
    if field is None:
        assert len(parse_documents(text)) == 1
    else:
        assert refusal(text).context["field"] == field


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("{issuer: foo.com, jwksUri: 'https://foo.com/cert'}", None),
        ("{jwksUri: 'https://foo.com/cert'}", None),
        ("{issuer: foo.com}", None),
        (f"{{issuer: foo.com, jwks: '{KEYS}'}}", None),
        ("{issuer: foo.com, fromHeaders: [{name: x-foo, prefix: 'Bearer '}, {name: y, prefix: ''}]}", None),
        ("{issuer: foo.com, forwardOriginalToken: true, timeout: 1m30s, spaceDelimitedClaims: [a]}", None),
        ("{issuer: foo.com, outputClaimToHeaders: [{header: x-jwt-claim, claim: sub}]}", None),
        ("{}", "issuer"),
        ("{issuer: ''}", "issuer"),
        ("null", ""),
        ("{issuer: foo.com, jwksUri: foo.com}", "jwksUri"),
        ("{issuer: foo.com, jwksUri: 'https://foo.com:not-a-number'}", "jwksUri"),
        ("{issuer: foo.com, jwksUri: 'file:///etc/passwd'}", "jwksUri"),
        ("{issuer: foo.com, jwksUri: 'https://'}", "jwksUri"),
        ("{issuer: foo.com, jwks: foo}", "jwks"),
        ("{issuer: foo.com, jwks: '{\"keys\": []}'}", "jwks"),
        (f"{{issuer: foo.com, jwks: '{KEYS}', jwksUri: 'https://foo.com'}}", "jwks"),
        ("{issuer: foo.com, audiences: [a, '']}", "audiences[1]"),
        ("{issuer: foo.com, fromHeaders: [{name: '', prefix: a}]}", "fromHeaders[0].name"),
        ("{issuer: foo.com, fromHeaders: [{prefix: a}]}", "fromHeaders[0].name"),
        ("{issuer: foo.com, fromParams: ['']}", "fromParams[0]"),
        ("{issuer: foo.com, fromCookies: ['', foo]}", "fromCookies[0]"),
        ("{issuer: foo.com, outputClaimToHeaders: [{}]}", "outputClaimToHeaders[0]"),
        ("{issuer: foo.com, outputClaimToHeaders: [{header: x, claim: ''}]}", "outputClaimToHeaders[0].claim"),
        ("{issuer: foo.com, outputClaimToHeaders: [{header: '', claim: s}]}", "outputClaimToHeaders[0].header"),
        ("{issuer: foo.com, outputClaimToHeaders: [{header: 'abc%1', claim: s}]}", "outputClaimToHeaders[0].header"),
        ("{issuer: foo.com, timeout: soon}", "timeout"),
        ("{issuer: foo.com, timeout: [[[[[[[[a]]]]]]]]}", "timeout"),
        ("{issuer: foo.com, forwardOriginalToken: yes}", "forwardOriginalToken"),
        ("{issuer: foo.com, isuer: foo.com}", "isuer"),
    ],
)
def test_request_authentication_is_checked(rule: str, field: str | None) -> None:
    text = head("RequestAuthentication") + f"spec: {{jwtRules: [{rule}]}}\n"
    if field is None:
        chosen = PolicySet.of(parse_documents(text))
        assert PolicySet.of(parse_documents(chosen.export())).digest == chosen.digest
    else:
        assert refusal(text).context["field"] == f"spec.jwtRules[0].{field}".rstrip(".")


@pytest.mark.parametrize(
    "spec",
    [
        "{action: CUSTOM, provider: {name: x}, rules: [{}]}",
        "{action: CUSTOM}",
        "{rules: [{when: [{key: 'experimental.envoy.filters.a.b[c]', values: [d]}]}]}",
        "{action: DENY, rules: [{when: [{key: 'request.headers[:method]', values: [GET]}]}]}",
    ],
)
def test_what_istio_knows_and_nothing_here_enforces_is_refused_as_such(spec: str) -> None:
    assert refusal(HEAD + f"spec: {spec}\n").code == "HBK-302"


def test_more_pairs_of_sources_and_operations_than_can_be_compiled_are_refused() -> None:
    sources = ", ".join(["{source: {namespaces: [a]}}"] * 128)
    operations = ", ".join(["{operation: {methods: [GET]}}"] * 64)
    rule = f"{{from: [{sources}], to: [{operations}]}}"
    assert len(parse_documents(HEAD + f"spec: {{rules: [{rule}]}}\n")) == 1
    assert refusal(HEAD + f"spec: {{rules: [{rule}, {{}}]}}\n").code == "HBK-302"


def test_a_line_number_is_that_of_the_document_in_the_file() -> None:
    bad = HEAD + "spec:\n  rules:\n  - to:\n    - operation:\n        ports: ['x']\n"
    error = refusal(HEAD + "---\n# nothing\n---\n" + bad)
    assert error.context["line"] == len((HEAD + "---\n# nothing\n---\n" + HEAD).splitlines()) + 5


def test_several_documents_come_out_in_order_and_empty_ones_are_none() -> None:
    text = "---\n" + HEAD + "---\n---\n# a comment\n---\n" + HEAD.replace("name: p", "name: q") + "...\n"
    assert [it.name for it in parse_documents(text)] == ["p", "q"]


def test_versions_v1_and_v1beta1_are_one_policy() -> None:
    spec = "spec: {action: ALLOW, rules: [{}]}\n"
    old, new = (PolicySet.of(parse_documents(head(version=it) + spec)) for it in ("v1beta1", "v1"))
    assert old.digest == new.digest


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "spec: &a {rules: [{}]}\nstatus: *a\n",
        HEAD + "spec: !!python/object/apply:os.system ['true']\n",
        "apiVersion: security.istio.io/v2\nkind: AuthorizationPolicy\nmetadata: {name: p}\n",
        "apiVersion: security.istio.io/v1\nkind: Gateway\nmetadata: {name: p}\n",
        "kind: AuthorizationPolicy\n",
        "[" * 100_000,
        "- " * 100_000,
        "a: " * 100_000,
        "[ #]\n" * 100_000,  # the comments close what nothing opened
        "# " + "]" * 100_000 + "\n" + "[" * 100_000,
        "{a: #}\n" * 100_000,
        "? " + "a" * 100_000,
        "--- !!null {}\n",
        HEAD + "spec: &a\n  selector: {matchLabels: {a: b}}\nstatus: {spec: *a}\nkind: *a\n",
        HEAD + "spec: {<<: {rules: [{}]}}\n",
        HEAD + "spec: !custom {}\n",
        HEAD + "spec: {? [a] : b}\n",
        HEAD + "spec: {on: x}\n",
        HEAD + f"spec: {{rules: [{{to: [{{operation: {{paths: [{'/a' * 5000}]}}}}]}}]}}\n",
        HEAD + "kind: AuthorizationPolicy\n",
        "\ud800",
        "\x1b[31m",
        "a: \t- b\n- c",
        "\x00",
        "'",
        HEAD.replace("name: p", "name: 'P P'"),
    ],
)
def test_hostile_texts_are_refused(text: str) -> None:
    assert refusal(text).code == "HBK-301"


def test_a_text_of_aliases_within_aliases_is_refused_at_once() -> None:
    laughs = "".join(f"l{at}: &l{at} [{', '.join([f'*l{at - 1}'] * 9) if at else 'x'}]\n" for at in range(30))
    assert refusal(laughs).code == "HBK-301"
    spec = "spec:\n  rules:\n  - &r {to: [{operation: {methods: [GET]}}]}\n" + "  - *r\n" * 3
    assert "alias" in refusal(HEAD + spec).detail


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="{}[]:-,'\"&*! \nabspecrulesfromto012?|>%@`", max_size=200))
def test_no_text_makes_the_parser_raise_anything_else(text: str) -> None:
    for candidate in (text, HEAD + "spec: " + text):
        with suppress(PolicyError):
            parse_documents(candidate)


WORDS = [
    "", "apiVersion", "kind", "metadata", "spec", "status", "name", "namespace", "annotations", "selector",
    "matchLabels", "action", "rules", "from", "to", "when", "source", "operation", "key", "values", "notValues",
    "principals", "ports", "paths", "ipBlocks", "serviceAccounts", "trustDomains", "mtls", "mode", "portLevelMtls",
    "jwtRules", "issuer", "jwks", "jwksUri", "timeout", "fromHeaders", "targetRef", "targetRefs", "ALLOW", "DENY",
    "AUDIT", "STRICT", "8080", "10.0.0.1", "/a/{*}", "*", "source.ip", "request.headers[a]", "istio.io/dry-run",
    "AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication", "security.istio.io/v1", "true", "9" * 20,
]  # fmt: skip
scalars = st.one_of(
    st.sampled_from(WORDS),
    st.text(max_size=6),
    st.integers(),
    st.booleans(),
    st.none(),
    st.floats(),
    st.dates(),
    st.binary(max_size=4),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"]), trees, trees)
def test_no_tree_of_data_makes_the_parser_raise_anything_else(kind: str, spec: object, metadata: object) -> None:
    top = {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": "p"}, "spec": spec}
    for document in (top, {**top, "metadata": metadata}, {**top, "spec": {"rules": [spec]}}, spec):
        with suppress(PolicyError):
            parse_documents(yaml.safe_dump(document))


@settings(max_examples=100, deadline=None)
@given(st.lists(universe.policies(), max_size=4), st.lists(universe.peer_authentications(), max_size=3))
def test_an_export_parses_to_the_same_set(policies: list[AuthorizationPolicy], peers: list[PeerAuthentication]) -> None:
    good = [it for it in policies if it.action is not Action.DENY or it.rules]
    good = [it for it in good if it.selector is None or not it.target_refs]
    good = [msgspec.structs.replace(it, dry_run=False) if it.action is Action.AUDIT else it for it in good]
    chosen = PolicySet.of([*good, *peers])
    text = chosen.export()
    again = PolicySet.of(parse_documents(text))
    assert [to_data(it) for it in again.documents] == [to_data(it) for it in chosen.documents]
    assert (again.digest, again.export()) == (chosen.digest, text)


def test_every_input_of_istios_own_tests_parses_or_is_custom_and_survives_a_round_trip() -> None:
    found = sorted(vectors("istio").rglob("*-in.yaml"))
    assert len(found) >= 20
    custom = 0
    for path in found:
        text = path.read_text("utf-8")
        if "action: CUSTOM" in text or "experimental.envoy.filters" in text or "request.headers[:" in text:
            assert refusal(text).code == "HBK-302"
            custom += 1
            continue
        documents = parse_documents(text, file=path.name)
        chosen = PolicySet.of(documents)
        again = PolicySet.of(parse_documents(chosen.export()))
        assert [to_data(it) for it in again.documents] == [to_data(it) for it in chosen.documents]
        assert again.digest == chosen.digest
    assert custom < len(found) // 2


def test_the_default_set_is_visible_and_parses() -> None:
    default = PolicySet.default()
    assert "allow-nothing" in default.export()
    assert "STRICT" in default.export()
    assert PolicySet.of(parse_documents(default.export())).digest == default.digest


def test_port_level_modes_survive_a_round_trip() -> None:
    text = HEAD.replace("AuthorizationPolicy", "PeerAuthentication") + (
        "spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: STRICT}}}\n"
    )
    chosen = PolicySet.of(parse_documents(text))
    assert PolicySet.of(parse_documents(chosen.export())).digest == chosen.digest
