"""Who can: exact against asking the engine about everybody."""

from itertools import product

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hauberk.core.call import Address, Call
from hauberk.core.decision import Verdict
from hauberk.policy.clause import Clause
from hauberk.policy.engine import Engine
from hauberk.policy.explain import clauses_for
from hauberk.policy.model import AuthorizationPolicy
from hauberk.policy.set import PolicySet
from hauberk.policy.whocan import ANYBODY, Who, who_can
from tests.policy import universe
from tests.policy.universe import ALIASES, CLAIMS, PEERS, TARGET, engine_of, policy

IDS = [peer for peer in PEERS if peer.startswith("spiffe://")]
CALL = Call(method="GET", path="/api/1", host="a.com", port=80, target=TARGET)
OPEN = list(
    product(
        ["10.0.0.1", "8.8.8.8", "2001:db8::1"],
        [None, "10.0.0.1"],
        ["", "https://iss/alice"],
        [0, 1],
        ["", "a.com"],
        ["", "10.0.0.1"],
    )
)


def every_way(engine: Engine, peer: str) -> set[Verdict]:
    """Every verdict there is for a peer, whatever the rest of the call turns out to be."""
    found = set()
    for ip, forwarded, user, claims, sni, destination in OPEN:
        call = msgspec.structs.replace(
            CALL,
            peer=universe.workload(peer),
            user=universe.person(CLAIMS[claims], user),
            address=Address(ip, 1, forwarded),
            sni=sni,
            destination_ip=destination,
        )
        found.add(engine.decide(call).verdict)
    return found


def takes(engine: Engine, who: Who, peer: str) -> bool:
    """Tell whether an answer that is a pattern covers a peer."""

    def on_id(clause: Clause) -> bool:
        tests = [test for test in clause.tests if test.on_id is not None]
        return " and ".join(map(repr, tests)) == who.who and all(test.on_id(peer) for test in tests if test.on_id)

    return who.who == ANYBODY or any(on_id(it) for it in clauses_for(engine, CALL) if it.rule == who.rule)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(universe.policies(), max_size=4), st.booleans())
def test_the_answer_is_what_asking_about_everybody_gives(documents: list[AuthorizationPolicy], told: bool) -> None:  # noqa: FBT001  # hypothesis passes by position
    engine = Engine(PolicySet.of(documents, aliases=ALIASES), TARGET)
    answers = who_can(engine, CALL, peers=IDS if told else ())
    named = {it.who: it for it in answers if it.who.startswith("spiffe://")}
    patterns = [it for it in answers if not it.who.startswith("spiffe://")]
    for peer in IDS:
        verdicts = every_way(engine, peer)
        covered = peer in named or any(takes(engine, it, peer) for it in patterns)
        assert covered or verdicts == {Verdict.DENY}
        if told and peer not in named:
            assert verdicts == {Verdict.DENY}
        if peer in named and named[peer].certain:
            assert verdicts == {Verdict.ALLOW}
        if any(it.certain and takes(engine, it, peer) for it in patterns):
            assert verdicts == {Verdict.ALLOW}


def names(text: str, *peers: str) -> dict[str, bool]:
    return {
        it.who.removeprefix("spiffe://example.org/"): it.certain for it in who_can(engine_of(text), CALL, peers=peers)
    }


def rule(source: str, action: str = "ALLOW", rest: str = "") -> str:
    return policy(f"{{action: {action}, rules: [{{from: [{{source: {{{source}}}}}]{rest}}}]}}", name=action.lower())


def test_without_policies_anybody_can_and_with_an_empty_one_nobody() -> None:
    assert names("") == {ANYBODY: True}
    assert names(policy("{}")) == {}
    assert names(policy("{action: DENY, rules: [{}]}")) == {}


def test_a_deny_of_those_without_identity_leaves_everybody_else() -> None:
    assert names(rule("notPrincipals: ['*']", "DENY")) == {ANYBODY: False}
    assert names(policy("{rules: [{}]}") + rule("notPrincipals: ['*']", "DENY")) == {ANYBODY: False}


def test_conditions_that_the_call_leaves_open_are_told_as_such() -> None:
    exact = "principals: [example.org/ns/prod/sa/a]"
    assert names(rule(exact)) == {"ns/prod/sa/a": True}
    assert names(rule(exact + ", ipBlocks: [10.0.0.1]")) == {"ns/prod/sa/a": False}
    assert names(rule(exact, rest=", when: [{key: request.auth.principal, values: ['*']}]")) == {"ns/prod/sa/a": False}
    assert names(rule(exact) + rule("ipBlocks: [10.0.0.1]", "DENY")) == {"ns/prod/sa/a": False}
    assert names(rule(exact) + rule("namespaces: [prod]", "DENY")) == {}
    assert names(rule(exact, rest=", to: [{operation: {paths: [/other]}}]")) == {}


def test_a_wildcard_is_a_pattern_and_a_registered_identity_is_looked_up_in_it() -> None:
    text = rule("principals: ['*/sa/a']")
    assert names(text) == {"from.source.principals in ['*/sa/a']": True}
    a, b = "spiffe://example.org/ns/x/sa/a", "spiffe://example.org/ns/x/sa/b"
    assert names(text, a, b)["ns/x/sa/a"]
    assert "ns/x/sa/b" not in names(text, a, b)
