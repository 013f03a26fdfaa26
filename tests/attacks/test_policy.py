"""Attacks on who may do what, each carried out; and carried out again with the controls in its way left out."""

import pytest
import yaml

from hauberk.errors import PolicyError
from hauberk.policy.lint import lint
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from tests.attacks.ablation import ablate, attacks
from tests.attacks.arena import EVIL, ORDERS, arena, identity, request
from tests.attacks.catalogue import PAY
from tests.attacks.control_plane import SPLIT, TYPO, prune

STOPS = {
    "right identity, forbidden method": ["policy HBK-300"],
    "right identity, forbidden path": ["policy HBK-300", "policy HBK-300"],
    "wrong service": ["policy HBK-300"],
    "policy push with a typo in a DENY": ["policy HBK-301", "policy HBK-301"],
    "policy that looks like one rule (R9)": ["policy HBK-303"],
    "forged feed message": ["policy HBK-305"],
    "replayed feed message": ["policy HBK-304", "policy HBK-305"],
}


def test_every_attack_of_this_layer_is_tried() -> None:
    assert STOPS.keys() == {attack.name for attack in attacks().values() if attack.layer == "policy"}


@pytest.mark.parametrize("name", STOPS)
def test_an_attack_is_stopped_and_what_is_next_stops_it_too(name: str) -> None:
    assert [stop.short for stop in ablate(name)] == STOPS[name]


@pytest.mark.parametrize("name", STOPS)
def test_with_the_controls_in_its_way_left_out_the_same_attack_works(name: str) -> None:
    controls = frozenset(stop.control for stop in ablate(name))
    assert attacks()[name].attempt(controls) is None


def served(policies: str, who: str, method: str, path: str) -> bool:
    with arena(policies=policies) as ground:
        ground.send(identity(ORDERS if who == "order" else EVIL), request(method, path))
        return ground.till.did(method, path)


def test_the_split_sample_has_both_of_its_holes_and_the_corrected_text_of_lint_closes_them() -> None:
    (finding,) = [found for found in lint(parse_documents(SPLIT)) if found.rule == "split-from-to"]
    assert served(SPLIT, "evil", "POST", "/api/payments")
    assert served(SPLIT, "order", "DELETE", "/api/payments")
    assert not served(finding.fix, "evil", "POST", "/api/payments")
    assert not served(finding.fix, "order", "DELETE", "/api/payments")
    assert served(finding.fix, "order", "POST", "/api/payments")


def test_a_typo_that_turns_a_deny_into_an_allow_is_refused_and_named() -> None:
    with pytest.raises(PolicyError) as refused:
        parse_documents(TYPO, file="typo.yaml")
    assert refused.value.code == "HBK-301"
    assert (refused.value.context["field"], refused.value.context["line"]) == ("spec.acton", 7)
    assert "did you mean action?" in refused.value.detail


def test_a_parser_that_ignores_what_it_does_not_know_lets_the_attacker_through() -> None:
    lenient = yaml.safe_dump_all([prune(it) for it in yaml.safe_load_all(TYPO)])
    assert served(lenient, "evil", "POST", "/admin/delete")


def test_what_a_parser_leaves_of_a_misspelt_operation_is_refused_too() -> None:
    text = TYPO.replace("acton", "action").replace("operation:", "operatoin:")
    for reading in (text, yaml.safe_dump_all([prune(it) for it in yaml.safe_load_all(text)])):
        with pytest.raises(PolicyError):
            parse_documents(reading)


@pytest.mark.parametrize("field", ["action", "selector", "rules"])
def test_a_field_that_lost_its_value_is_refused_and_not_taken_as_left_out(field: str) -> None:
    document = yaml.safe_load(TYPO.replace("acton", "action"))
    document["spec"][field] = None
    with pytest.raises(PolicyError):
        parse_documents(yaml.safe_dump(document))


def test_a_push_of_an_older_set_changes_nothing() -> None:
    with arena() as ground:
        ground.runtime.apply_policies(PolicySet.default(), revision=5)
        with pytest.raises(PolicyError) as refused:
            ground.runtime.apply_policies(PolicySet.of(()), revision=4)
        assert refused.value.code == "HBK-304"
        ground.send(identity(EVIL), PAY)
        assert not ground.till.done


def test_whoever_takes_older_sets_would_let_everybody_in() -> None:
    with arena() as ground:
        ground.runtime.apply_policies(PolicySet.default(), revision=5)
        ground.runtime.apply_policies(PolicySet.of(()), revision=5)  # the number is not compared
        ground.send(identity(EVIL), PAY)
        assert ground.till.done
