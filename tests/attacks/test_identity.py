"""Attacks on who is who, each carried out; and carried out again with the controls in its way left out."""

import pytest

from tests.attacks.ablation import ablate, attacks

STOPS = {
    "revoked on an open connection": ["identity HBK-206", "identity HBK-206"],
    "revoked, connects again": ["transport HBK-101", "identity HBK-206"],
    "a callee revoked on an open connection": ["identity HBK-206"],
    "forged X-Forwarded-Client-Cert": ["policy HBK-300", "edge"],
    "join token replayed": ["identity HBK-204"],
    "another uid asks for an identity": ["identity HBK-205"],
    "second namespace in a request": ["identity HBK-212"],
    "CA key file swapped for a link": ["identity HBK-210", "data HBK-904"],
}


def test_every_attack_of_this_layer_is_tried() -> None:
    assert STOPS.keys() == {attack.name for attack in attacks().values() if attack.layer == "identity"}


@pytest.mark.parametrize("name", STOPS)
def test_an_attack_is_stopped_and_what_is_next_stops_it_too(name: str) -> None:
    assert [stop.short for stop in ablate(name)] == STOPS[name]


@pytest.mark.parametrize("name", STOPS)
def test_with_the_controls_in_its_way_left_out_the_same_attack_works(name: str) -> None:
    controls = frozenset(stop.control for stop in ablate(name))
    assert attacks()[name].attempt(controls) is None
