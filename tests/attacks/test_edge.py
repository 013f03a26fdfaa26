"""Attacks on the request itself, each carried out; and carried out again with the controls in its way left out."""

import pytest

from tests.attacks.ablation import ablate, attacks
from tests.attacks.arena import ORDERS, arena, identity, problem, request
from tests.attacks.catalogue import BROAD_TRICKS

ONE_MEANING = ["edge HBK-402", "policy HBK-300"]
STOPS = {
    "path trick: empty segment //": [*ONE_MEANING, "policy HBK-300"],
    "path trick: encoded slash %2f": [*ONE_MEANING, "policy HBK-300"],
    "path trick: dot segments /../": ONE_MEANING,
    "path trick: path parameter ;": ONE_MEANING,
    "path trick: encoded NUL %00": [*ONE_MEANING, "policy HBK-300"],
    "path trick: needless escape %61": [*ONE_MEANING, "policy HBK-300"],
    **{f"path trick under a broad ALLOW: {name}": ["edge HBK-402"] for name in BROAD_TRICKS},
    "forged X-Remote-User": ["edge"],
    "smuggling: chunked beside a length": ["edge HBK-401", "edge HBK-405"],
    "smuggling: two lengths": ["edge HBK-401", "edge HBK-405"],
    "header of 1 MB": ["edge HBK-403", "edge HBK-403"],
    "body over the limit": ["edge HBK-404", "edge HBK-404"],
    "body over the limit, chunked": ["edge HBK-404"],
    "head that never ends": ["edge HBK-407"],
    "error with an internal host name": ["edge HBK-406"],
}


def test_every_attack_of_this_layer_is_tried() -> None:
    assert STOPS.keys() == {attack.name for attack in attacks().values() if attack.layer == "edge"}


@pytest.mark.parametrize("name", STOPS)
def test_an_attack_is_stopped_and_what_is_next_stops_it_too(name: str) -> None:
    assert [stop.short for stop in ablate(name)] == STOPS[name]


@pytest.mark.parametrize("name", STOPS)
def test_with_the_controls_in_its_way_left_out_the_same_attack_works(name: str) -> None:
    controls = frozenset(stop.control for stop in ablate(name))
    assert attacks()[name].attempt(controls) is None


def test_a_problem_says_nothing_but_the_code_its_sentence_and_the_incident() -> None:
    with arena() as ground:
        answer = ground.send(identity(ORDERS), request("POST", "/admin//delete"))
        assert problem(answer) == "HBK-402"
        assert "reason" not in answer["body"]
        (entry,) = ground.entries()
        assert str(entry["incident"]) in str(answer["body"])


@pytest.mark.parametrize("target", ["http://payments/admin/delete", "http://other/api/payments/p-1", "*", "admin"])
def test_a_target_in_another_form_never_reaches_what_is_forbidden(target: str) -> None:
    with arena() as ground:
        answer = ground.send(identity(ORDERS), request("POST", target))
        assert answer["status"] >= 400 or answer["status"] == 0
        assert not ground.till.done


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_a_connection_is_never_switched_to_a_protocol_that_knows_no_peer(upgrade: str) -> None:
    with arena() as ground:
        headers = ("Connection: Upgrade", f"Upgrade: {upgrade}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
        answer = ground.send(identity(ORDERS), request("GET", "/api/payments/p-1", *headers))
        assert answer["status"] != 101


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X_HTTP_Method_Override", "X-Original-URL", "Forwarded"])
def test_a_header_that_would_change_the_request_behind_the_policy_is_dropped(name: str) -> None:
    with arena() as ground:
        answer = ground.send(identity(ORDERS), request("GET", "/api/payments/p-1", f"{name}: DELETE"))
        assert answer["status"] == 200
        assert name.lower() not in ground.till.done[0][2]
