"""Attacks on the record, each carried out; and carried out again with the controls in its way left out."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from hauberk.adapters.memory import MemoryStore
from hauberk.core.ports import Recorder
from hauberk.crypto.signing import SigningKey
from hauberk.integrations.asgi import Receive, Scope, Send
from hauberk.records.fold import Folder
from hauberk.records.ledger import Ledger
from hauberk.records.view import entry_line, entry_view
from tests.attacks.ablation import ablate, attacks
from tests.attacks.arena import DOMAIN, EVIL, FRAME, ORDERS, arena, identity, request

STOPS = {
    "record in another service's stream": ["records HBK-705"],
    "batch signed by another service": ["records HBK-705"],
    "batch of another service replayed": ["records HBK-705", "records"],
    "ledger: an entry edited": ["records HBK-710", "records HBK-710", "records HBK-710"],
    "ledger: an entry deleted": ["records HBK-710", "records HBK-710", "records HBK-713"],
    "ledger: two entries swapped": ["records HBK-710", "records HBK-710", "records HBK-710"],
    "ledger: an entry replayed": ["records HBK-710", "records HBK-710", "records HBK-710"],
    "ledger: the end cut off": ["records HBK-710", "records HBK-710", "records HBK-713"],
    "ledger: rolled back to an older state": ["records HBK-713"],
}


def test_every_attack_of_this_layer_is_tried() -> None:
    assert STOPS.keys() == {attack.name for attack in attacks().values() if attack.layer == "records"}


@pytest.mark.parametrize("name", STOPS)
def test_an_attack_is_stopped_and_what_is_next_stops_it_too(name: str) -> None:
    assert [stop.short for stop in ablate(name)] == STOPS[name]


@pytest.mark.parametrize("name", STOPS)
def test_with_the_controls_in_its_way_left_out_the_same_attack_works(name: str) -> None:
    controls = frozenset(stop.control for stop in ablate(name))
    assert attacks()[name].attempt(controls) is None


def flood(recorder: Recorder, count: int) -> None:
    """Refuse one caller at `count` different paths, many at once."""
    with arena() as ground, ThreadPoolExecutor(20) as crowd:
        ground.runtime.recorder = recorder
        targets = [request("GET", f"/api/payments/p-{at}") for at in range(count)]
        answers = list(crowd.map(lambda data: ground.send(identity(EVIL), data)["status"], targets))
        recorder.close()
    assert answers == [403] * count


def ledger() -> Ledger:
    return Ledger(MemoryStore(), SigningKey.generate(), f"{DOMAIN}/ledger")


def test_a_flood_of_denials_at_ever_other_paths_is_folded_and_still_counted_exactly() -> None:
    log = ledger()
    flood(Folder(log, rate=2), 60)
    views = [entry_view(entry) for entry in log.entries()]
    counts = [data["count"] for view in views if isinstance(data := view.get("data"), dict) and "count" in data]
    assert len(views) < 30
    assert sum(counts) + len(views) - len(counts) == 60


def test_without_folding_every_denial_is_an_entry() -> None:
    log = ledger()
    flood(log, 60)
    assert log.head().size == 60


FORGED = "/x%0d%0a999999%20%202030-01-01%20admin.granted%20uid:0"
RAW = "/x\x1b[2K\x1b[1Aadmin.granted\x7f\xe2\x80\xa8"


@pytest.mark.parametrize("target", [FORGED, RAW])
def test_a_path_cannot_forge_a_line_of_the_record(target: str) -> None:
    with arena() as ground:
        ground.send(identity(ORDERS), request("GET", target))
        assert ground.stop().layer == "edge"
        for view in ground.entries():
            text = entry_line(view) + str(view.get("data", ""))
            assert text.isprintable()
            assert "\n" not in text


def test_a_log_that_writes_the_path_as_it_reads_it_has_a_forged_line() -> None:
    lines: list[str] = []

    async def naive(scope: Scope, _receive: Receive, _send: Send) -> None:  # ASGI's signature
        lines.append(f"denied {scope['path']}")

    with arena(frozenset({FRAME}), app=naive) as ground:
        ground.send(identity(EVIL), request("GET", FORGED))
    assert len(lines[0].splitlines()) == 2
