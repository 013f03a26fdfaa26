"""Sets: what their digest covers, and that nothing in force is hidden from the export."""

import pytest

from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from tests.policy.universe import policy

ONE = policy("{selector: {matchLabels: {a: b, c: d}}, rules: [{to: [{operation: {methods: [GET], paths: [/a]}}]}]}")
TWO = policy("{action: DENY, rules: [{}]}", name="q")


def digest(text: str, **options: str) -> str:
    return PolicySet.of(parse_documents(text, file=options.pop("file", "a.yaml")), **options).digest


@pytest.mark.parametrize(
    "other",
    [
        "# a comment\n\n" + ONE,
        ONE.replace("/v1\n", "/v1beta1\n"),
        ONE.replace("{a: b, c: d}", "{c: d, a: b}"),
        ONE.replace("{methods: [GET], paths: [/a]}", "{paths: ['/a'], methods: [\"GET\"], hosts: []}"),
        ONE.replace("rules:", "action: ALLOW, rules:"),
        ONE.replace("namespace: prod", "namespace: prod, annotations: {istio.io/dry-run: 'false', note: x}"),
        ONE + "---\n---\n" + ONE,
    ],
)
def test_the_digest_is_of_the_meaning_not_of_the_text(other: str) -> None:
    assert digest(other) == digest(ONE)
    assert digest(ONE, file="b.yaml") == digest(ONE)


def test_the_digest_changes_with_every_content() -> None:
    texts = [
        ONE,
        ONE.replace("GET", "PUT"),
        ONE.replace("methods", "notMethods"),
        ONE.replace("/a", "/A"),
        ONE.replace("c: d", "c: e"),
        ONE.replace("name: p", "name: r"),
        ONE.replace("namespace: prod", "namespace: dev"),
        ONE.replace("namespace: prod", "namespace: prod, annotations: {istio.io/dry-run: 'true'}"),
        ONE.replace("rules:", "action: AUDIT, rules:"),
        ONE.replace("rules: [", "rules: [{}, "),
        ONE + TWO,
        TWO + ONE,  # of two rules that match the first is the one a decision names
        TWO,
        "",
    ]
    digests = {digest(text) for text in texts}
    digests |= {digest(ONE, trust_domain="other.org"), digest(ONE, root_namespace="root")}
    digests.add(PolicySet.of(parse_documents(ONE), aliases=("old.org",)).digest)
    assert len(digests) == len(texts) + 3


def test_the_default_set_is_in_the_export_and_can_be_replaced_but_not_hidden() -> None:
    default = PolicySet.default()
    text = default.with_documents(parse_documents(ONE)).export()
    for name in ("allow-nothing", "STRICT", "name: p"):
        assert name in text
    assert PolicySet.of(parse_documents(text)).export() == text
    opened = parse_documents(policy("{rules: [{}]}", name="allow-nothing", namespace="hauberk-system"))
    replaced = default.with_documents(opened)
    assert len(replaced.documents) == len(default.documents)
    assert "- {}" in replaced.export()
