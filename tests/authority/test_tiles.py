"""Anybody may check the log from its files, and nobody may do anything else there."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from hauberk.agent.remote import authority_id
from hauberk.authority.authority import Authority
from hauberk.authority.serve import run
from hauberk.core.config import load
from hauberk.crypto.merkle import leaf_hash
from hauberk.crypto.note import decode_key, verify_checkpoint
from hauberk.errors import ConfigError, RecordsError
from hauberk.integrations.uvicorn import new_loop
from hauberk.records.tile_paths import TileDirectory
from hauberk.transport.contexts import client_context
from tests.authority.mesh import DOMAIN, Mesh
from tests.authority.test_wire import svid_source


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("tiles"), **{"authority.tiles": "127.0.0.1:0"}) as made:
        yield made


def monitor(mesh: Mesh) -> httpx2.Client:
    return httpx2.Client(base_url=f"http://{mesh.facts.tiles}", trust_env=False)


def checked(http: httpx2.Client, mesh: Mesh, prefix: str = "/") -> int:
    """Check the log as a monitor does: the signature, and every leaf up to the signed root."""

    def fetch(path: str) -> bytes:
        answer = http.get(prefix + path)
        if answer.status_code != 200:
            raise RecordsError("HBK-707", "no such file")
        return answer.content

    name, key = decode_key(mesh.facts.ledger_key)
    directory = TileDirectory(fetch)
    signed = verify_checkpoint(directory.checkpoint(), name, key)
    tree = directory.tree(signed.size)
    assert tree.root(signed.size) == signed.root
    leaves = list(directory.leaves(signed.size))
    assert [leaf_hash(leaf) for leaf in leaves] == list(directory.leaf_hashes(signed.size))
    return signed.size


def test_a_monitor_without_an_identity_checks_the_whole_log(mesh: Mesh) -> None:
    with monitor(mesh) as http:
        assert checked(http, mesh) == mesh.authority.ledger.head().size


def test_what_is_complete_is_kept_for_ever_and_the_head_is_not(mesh: Mesh) -> None:
    with monitor(mesh) as http:
        assert http.get("/checkpoint").headers["cache-control"] == "no-cache"
        size = mesh.authority.ledger.head().size
        assert "immutable" in http.get(f"/tile/0/000.p/{size}").headers["cache-control"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written_there(mesh: Mesh, method: str) -> None:
    with monitor(mesh) as http:
        for path in ("/checkpoint", "/tile/0/000"):
            assert http.request(method, path, content=b"x").status_code == 405
        for path in ("/v1/records", "/admin/status", "/"):
            assert http.request(method, path, content=b"x").status_code == 404


@pytest.mark.parametrize(
    "path", ["tile/0/001", "tile/0/1", "tile/0/000.p/0", "tile/99/000", "tile/0/../../x", "tile/entries/x999/000", "x"]
)
def test_what_is_not_there_is_not_there(mesh: Mesh, path: str) -> None:
    with monitor(mesh) as http:
        assert http.get("/" + path).status_code == 404


def test_without_the_listener_it_takes_an_identity(mesh: Mesh, tmp_path: Path) -> None:
    mesh.register("shop")
    context = client_context(svid_source(mesh, "shop"), authority_id(DOMAIN))
    with httpx2.Client(verify=context, base_url=f"https://{mesh.facts.address}", trust_env=False) as http:
        assert checked(http, mesh, "/v1/log/") > 0
    with Mesh(tmp_path) as other:
        assert other.facts.tiles == ""


def test_an_address_that_is_none_stops_the_start(tmp_path: Path) -> None:
    arguments = {"authority.port": 0, "authority.tiles": "8441"}
    authority = Authority(tmp_path / "state", load(environ={}, arguments=arguments))
    try:
        with pytest.raises(ConfigError), asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run(authority, lambda _: None, asyncio.Event()))
    finally:
        authority.close()
