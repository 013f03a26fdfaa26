"""Policies that are valid and meant to hurt: neither compiling nor deciding may cost more than their size."""

import time
from collections.abc import Callable

import pytest

from hauberk.core.call import Address, Call
from hauberk.core.decision import Verdict
from hauberk.policy import matchers
from hauberk.policy.engine import Engine
from hauberk.policy.explain import explain
from tests.policy.universe import TARGET, engine_of, policy, workload

LONG = "spiffe://example.org/ns/" + "a" * 1000 + "/sa/" + "a" * 1000
PATH = "/" + "a/" * 2000 + "b"


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@pytest.mark.parametrize(
    ("fields", "side"),
    [
        (f"namespaces: ['{'*a' * 200}b']", "from: [{source"),
        (f"namespaces: ['{'*' * 4000}b']", "from: [{source"),
        (f"principals: ['*{'a*' * 200}b']", "from: [{source"),
        ("serviceAccounts: [a/b]", "from: [{source"),
        ("trustDomains: ['*a']", "from: [{source"),
        (f"paths: ['{'/{*}' * 1000}/{{**}}/c']", "to: [{operation"),
        (f"paths: ['/{{**}}{'/a' * 1000}/c']", "to: [{operation"),
        (f"hosts: ['{'*a' * 1000}']", "to: [{operation"),
    ],
)
def test_a_pattern_made_to_go_back_does_not(fields: str, side: str) -> None:
    engine = engine_of(policy(f"{{action: DENY, rules: [{{{side}: {{{fields}}}}}]}}]}}"))
    call = Call(peer=workload(LONG), method="GET", path=PATH, host="a" * 4000, target=TARGET)
    assert seconds(lambda: engine.decide(call)) < 2
    assert engine.decide(call).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    ("value", "given", "expected"),
    [
        ("a*b", "spiffe://t/ns/aXb/sa/c", True),
        ("a*b", "spiffe://t/ns/ab/sa/c", True),
        ("a*b", "spiffe://t/ns/ax/sa/b/c", True),
        ("a*b", "spiffe://t/ns/a/sa/c", False),
        ("*", "spiffe://t/ns/a/sa/c", True),
        ("*", "spiffe://t/ns/a", False),
        ("a", "spiffe://t/ns/ab/sa/c", False),
        ("aa*aa", "spiffe://t/ns/aaa/sa/c", False),
        ("aa*aa", "spiffe://t/ns/aaaa/sa/c", True),
    ],
)
def test_namespaces_match_without_regular_expressions(value: str, given: str, *, expected: bool) -> None:
    assert matchers.namespace(value)(given) is expected


def test_many_blocks_templates_suffixes_and_names_are_decided_in_time() -> None:
    blocks = ", ".join(f"10.{at // 256}.{at % 256}.0/24" for at in range(2000))
    paths = ", ".join(f"'/{{*}}/x{at}', '*/y{at}', '/{'p' * (at % 200)}{at}*'" for at in range(500))
    rules = [f"{{to: [{{operation: {{paths: ['/{{*}}/z{at}']}}}}]}}" for at in range(400)]
    text = policy(f"{{rules: [{{from: [{{source: {{ipBlocks: [{blocks}]}}}}]}}, {', '.join(rules)}]}}")
    text += policy(f"{{action: DENY, rules: [{{to: [{{operation: {{paths: [{paths}]}}}}]}}]}}", name="d")
    call = Call(peer=workload(LONG), method="GET", path=PATH, address=Address("192.168.0.1"), target=TARGET)
    made: list[Engine] = []
    assert seconds(lambda: made.append(engine_of(text))) < 5
    assert seconds(lambda: made[0].decide(call)) < 1
    assert made[0].decide(call).verdict is Verdict.DENY
    assert explain(made[0], call).nearest


def test_as_many_pairs_as_a_policy_may_have_compile_in_time() -> None:
    sources = ", ".join(f"{{source: {{principals: [example.org/ns/n/sa/s{at}]}}}}" for at in range(128))
    operations = ", ".join(f"{{operation: {{paths: [/p{at}]}}}}" for at in range(64))
    text = policy(f"{{rules: [{{from: [{sources}], to: [{operations}]}}]}}")
    assert seconds(lambda: engine_of(text)) < 20
