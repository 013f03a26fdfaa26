"""Tables of calls: read strictly, so that a row that says nothing cannot pass."""

from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.errors import PolicyError
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.policy.table import parse_table, run_table
from tests.policy.universe import policy


def refusal(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_table(text, file="t.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "document"),
        ("[]", "document"),
        ("{}", "document"),
        ("- {to: a/b}", "[0].expect"),
        ("- {expect: allow}", "[0].to"),
        ("- {to: a/b, expect: maybe}", "[0].expect"),
        ("- {to: a/b, expect: true}", "[0].expect"),
        ("- {to: a, expect: allow}", "[0].to"),
        ("- {to: a/, expect: allow}", "[0].to"),
        ("- {to: a/b/c, expect: allow}", "[0].to"),
        ("- {to: a/b, expect: allow, form: x}", "[0].form"),
        ("- {to: a/b, expect: deny, expect: allow}", "[0].expect"),
        ("- {to: a/b, expect: allow, port: '80'}", "[0].port"),
        ("- {to: a/b, expect: allow, port: 65536}", "[0].port"),
        ("- {to: a/b, expect: allow, headers: [a]}", "[0].headers"),
        ("- {to: a/b, expect: allow, labels: {a: 1}}", "[0].labels.a"),
        ("- &x {to: a/b, expect: allow}\n- *x", "[1]"),
        ("- 2001-99-99", "[0]"),
        ("- ", "[0]"),
    ],
)
def test_a_table_that_is_none_is_refused_with_the_field(text: str, field: str) -> None:
    error = refusal(text)
    assert (error.code, error.context["field"], error.context["file"]) == ("HBK-301", field, "t.yaml")


TREES = st.recursive(
    st.one_of(st.text(max_size=4), st.integers(), st.none(), st.dates(), st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["to", "expect", "port", "headers"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), TREES)
def test_nothing_makes_the_reader_raise_anything_else(text: str, tree: object) -> None:
    for candidate in (text, "- {" + text + "}", yaml.safe_dump(tree)):
        with suppress(PolicyError):
            parse_table(candidate)


def test_every_column_takes_part() -> None:
    rules = [
        "{to: [{operation: {hosts: [a.com], ports: ['80']}}]}",
        "{from: [{source: {ipBlocks: [10.0.0.1]}}], to: [{operation: {ports: ['81']}}]}",
        "{when: [{key: connection.sni, values: [s]}]}",
        "{when: [{key: 'request.headers[x-a]', values: [b]}]}",
    ]
    text = policy(f"{{selector: {{matchLabels: {{app: pay}}}}, rules: [{', '.join(rules)}]}}")
    table = """
    - {to: prod/pay, host: a.com, port: 80, expect: allow}
    - {to: prod/pay, host: a.com, port: 82, expect: deny}
    - {to: prod/pay, ip: 10.0.0.1, port: 81, expect: allow}
    - {to: prod/pay, ip: 10.0.0.2, port: 81, expect: deny}
    - {to: prod/pay, sni: s, expect: allow}
    - {to: prod/pay, headers: {X-A: b}, expect: allow}
    - {to: prod/pay, headers: {X-A: ''}, expect: deny}
    - {to: prod/pay, method: '', ip: 10.0.0.1, port: 81, expect: allow}
    - {to: prod/pay, method: '', host: a.com, port: 80, expect: deny}
    - {to: prod/x, labels: {app: pay}, sni: s, expect: allow}
    - {to: prod/pay, labels: {}, expect: deny}
    """
    results = run_table(PolicySet.default().with_documents(parse_documents(text)), parse_table(table))
    assert [it.line() for it in results if not it.passed] == []
    assert [it.row.line for it in results] == list(range(2, 13))
    wrong = parse_table(table.replace("sni: s, expect: allow", "sni: t, expect: allow"))
    assert sum(not it.passed for it in run_table(PolicySet.of(parse_documents(text)), wrong)) > 0
