"""What is not valid is refused with file, line and field; what is valid survives a round trip."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.errors import PolicyError
from hauberk.policy.model import to_data
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from tests.support.vectors import vectors

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: n}\n"


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
        ("{selector: {matchLabels: {app: a}}, targetRefs: [{kind: G, name: g}]}", "spec.selector"),
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


def test_custom_is_valid_and_not_enforced_yet() -> None:
    assert refusal(HEAD + "spec: {action: CUSTOM, provider: {name: x}, rules: [{}]}\n").code == "HBK-302"


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
        "\x00",
        "'",
        HEAD.replace("name: p", "name: 'P P'"),
    ],
)
def test_hostile_texts_are_refused(text: str) -> None:
    assert refusal(text).code == "HBK-301"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="{}[]:-,'\"&*! \nabspecrulesfromto012?|>%@`", max_size=200))
def test_no_text_makes_the_parser_raise_anything_else(text: str) -> None:
    for candidate in (text, HEAD + "spec: " + text):
        with suppress(PolicyError):
            parse_documents(candidate)


def test_every_input_of_istios_own_tests_parses_or_is_custom_and_survives_a_round_trip() -> None:
    found = sorted(vectors("istio").rglob("*-in.yaml"))
    assert len(found) >= 20
    custom = 0
    for path in found:
        text = path.read_text("utf-8")
        if "action: CUSTOM" in text or "experimental.envoy.filters" in text:
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
