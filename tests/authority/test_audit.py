"""The audit log across a mesh: services write it, the administrator asks, and keys of pseudonyms change."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from hauberk.core.event import Leaf
from hauberk.crypto.merkle import leaf_hash, verify_inclusion
from hauberk.crypto.note import decode_key
from hauberk.errors import HauberkError
from hauberk.records.mark import read_mark
from tests.authority.mesh import PATIENCE, Mesh

ALICE = "alice@example.org"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("audit")) as made:
        made.register("shop")
        shop = made.join("shop")
        shop.audit.access(ALICE, "/orders/17", "read", level="receipt", address="10.0.0.1").result(PATIENCE)
        shop.audit.access("bob@example.org", "/orders/17", "refund", "denied", level="receipt").result(PATIENCE)
        made.leave(shop)
        yield made


def ask(mesh: Mesh, **wanted: object) -> Any:  # noqa: ANN401  # JSON
    return msgspec.json.decode(mesh.admin.call("POST", "/admin/audit", wanted))


def test_what_services_wrote_is_found_under_the_authority_s_keys_and_proven(mesh: Mesh) -> None:
    found = ask(mesh, user=ALICE)
    [entry] = found["entries"]
    assert (entry["stream"], entry["data"]["resource"]) == ("/audit/production/shop", "/orders/17")
    assert ALICE not in str(found)
    signed = read_mark(found["checkpoint"], decode_key(found["key"])[1])
    leaf, path = bytes.fromhex(entry["proof"]["leaf"]), [bytes.fromhex(step) for step in entry["proof"]["path"]]
    verify_inclusion(leaf_hash(leaf), Leaf.decode(leaf).position, signed.size, path, signed.root)


def test_that_the_administrator_asked_is_recorded_without_the_name(mesh: Mesh) -> None:
    ask(mesh, user=ALICE, action="read")
    hidden = mesh.authority.audit.pseudonyms.of("user", ALICE)
    reads = [one for one in mesh.events("records.read") if "action=read" in one["data"]["stream"]]
    assert [(one["actor"], one["data"]["stream"]) for one in reads] == [
        (f"uid:{mesh.path.stat().st_uid}", f"/audit/* user={hidden} action=read")
    ]


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": "x"}, {"who": ALICE}, {"stream": "*x*"}])
def test_a_malformed_question_is_refused(mesh: Mesh, wrong: dict[str, object]) -> None:
    with pytest.raises(HauberkError, match=r"HBK-(401|716)"):
        ask(mesh, **wrong)


def test_a_new_epoch_reaches_services_as_they_start_and_old_entries_are_still_found(mesh: Mesh) -> None:
    begun = msgspec.json.decode(mesh.admin.call("POST", "/admin/audit/epochs", {}))
    assert begun == {"begun": 1, "live": [1, 0]}
    shop = mesh.join("shop")
    shop.audit.access(ALICE, "/orders/18", "read", level="receipt").result(PATIENCE)
    found = ask(mesh, user=ALICE)["entries"]
    assert [one["data"]["resource"] for one in found] == ["/orders/17", "/orders/18"]
    assert len({one["actor"] for one in found}) == 2
    mesh.admin.call("POST", "/admin/audit/epochs", {"retire": 0})
    assert mesh.get("/admin/audit/epochs") == {"live": [1]}
    assert [one["data"]["resource"] for one in ask(mesh, user=ALICE)["entries"]] == ["/orders/18"]
    commands = [*mesh.events("admin.pseudonyms.begun"), *mesh.events("admin.pseudonyms.retired")]
    assert [one["data"]["epoch"] for one in commands] == [1, 0]


def test_only_an_old_epoch_is_retired_and_a_refused_command_is_not_recorded_as_done(mesh: Mesh) -> None:
    before = len(mesh.events("admin.pseudonyms.retired"))
    with pytest.raises(HauberkError, match="HBK-906"):
        mesh.admin.call("POST", "/admin/audit/epochs", {"retire": 99})
    assert len(mesh.events("admin.pseudonyms.retired")) == before
