"""Callers that ask for more than their share: nobody else waits for them, and each refusal is found again."""

import asyncio
import base64
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hauberk.agent.remote import authority_id, join, new_request
from hauberk.agent.state import admin, read_facts
from hauberk.authority.authority import Authority
from hauberk.core.event import Event, Receipt
from hauberk.crypto.x509 import parse_svid
from hauberk.errors import RecordsError
from hauberk.identity.jointoken import JoinToken
from hauberk.identity.source import SvidSource
from hauberk.integrations.uvicorn import raise_descriptors
from hauberk.transport.contexts import bootstrap_context, client_context
from tests.authority.mesh import DOMAIN, Mesh, wait_for

SLOW = 2.0  # seconds between two writes of folded refusals; each refused caller of a flood waits that long
CROWD = 200
ROUNDS = CROWD / 8 * SLOW  # seconds in line for whoever comes behind the crowd, if eight at a time waited for records
UP = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256))
from hauberk.authority.serve import up
from hauberk.core.config import load
config = load(environ={}, arguments={"authority.port": 0, "trust_domain": "example.org", "directory": sys.argv[1]})
up(Path(sys.argv[1]), config, lambda facts: print("ready", flush=True))
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("floods")) as made:
        made.register("shop")
        yield made


@pytest.fixture
def slow_records(mesh: Mesh) -> Iterator[None]:
    """Folded refusals take long to become durable."""
    usual, mesh.authority.recorder._interval = mesh.authority.recorder._interval, SLOW
    yield
    mesh.authority.recorder._interval = usual


def stranger(mesh: Mesh) -> ssl.SSLContext:
    return bootstrap_context(mesh.facts.root, authority_id(DOMAIN))


def member(mesh: Mesh) -> SvidSource:
    key, request = new_request()
    grant = join(JoinToken.parse(mesh.token("shop")), request, DOMAIN)
    return SvidSource(key, parse_svid(grant.chain), mesh.authority.bundles)


def bad_join() -> dict[str, str]:
    return {"secret": base64.b64encode(bytes(32)).decode(), "csr": base64.b64encode(new_request()[1]).decode()}


@contextmanager
def crowd(mesh: Mesh, context: ssl.SSLContext, path: str, body: Any, codes: set[str]) -> Iterator[None]:  # noqa: ANN401  # JSON
    """Keep `CROWD` requests in flight, each on a connection of its own, until the block ends."""
    stop, asked, answered = threading.Event(), [0], [0]

    async def knock(http: httpx2.AsyncClient) -> None:
        while not stop.is_set():
            asked[0] += 1
            codes.add((await http.post(path, json=body)).json()["code"])
            answered[0] += 1

    async def all_of_them() -> None:
        limits = httpx2.Limits(max_connections=CROWD)
        address = f"https://{mesh.facts.address}"
        async with httpx2.AsyncClient(
            verify=context, base_url=address, limits=limits, timeout=60, trust_env=False
        ) as http:
            await asyncio.gather(*(knock(http) for _ in range(CROWD)))

    thread = threading.Thread(target=lambda: asyncio.run(all_of_them()))
    thread.start()
    try:
        wait_for(lambda: asked[0] - answered[0] == CROWD and answered[0] >= CROWD // 4)
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def seconds_of(work: Any) -> float:  # noqa: ANN401  # any function
    began = time.monotonic()
    work()
    return time.monotonic() - began


@pytest.mark.usefixtures("slow_records")
def test_a_crowd_of_refused_joins_keeps_neither_a_real_join_nor_the_administrator_waiting(mesh: Mesh) -> None:
    codes: set[str] = set()
    token = mesh.token("shop")
    with crowd(mesh, stranger(mesh), "/v1/join", bad_join(), codes):
        assert seconds_of(lambda: join(JoinToken.parse(token), new_request()[1], DOMAIN)) < ROUNDS / 4
        assert seconds_of(lambda: mesh.revoke(serials=("ee",))) < ROUNDS / 4
    assert codes == {"HBK-204"}


@pytest.mark.usefixtures("slow_records")
def test_a_crowd_of_refused_batches_keeps_neither_a_renewal_nor_the_administrator_waiting(mesh: Mesh) -> None:
    codes: set[str] = set()
    mine = client_context(member(mesh), authority_id(DOMAIN))
    body = {"csr": base64.b64encode(new_request()[1]).decode()}
    with (
        crowd(mesh, mine, "/v1/records", None, codes),
        httpx2.Client(verify=mine, base_url=f"https://{mesh.facts.address}", trust_env=False, timeout=60) as line,
    ):
        assert seconds_of(lambda: mesh.revoke(serials=("ee",), restore=True)) < SLOW * 2
        assert seconds_of(lambda: line.post("/v1/renew", json=body).raise_for_status()) < SLOW * 2
    assert codes == {"HBK-705"}


def test_all_threads_of_services_taken_the_administrator_is_served(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    release, inside = threading.Event(), threading.Semaphore(0)

    def stuck(*_: object) -> list[int]:
        inside.release()
        release.wait(20)
        return []

    monkeypatch.setattr(mesh.authority, "take_batch", stuck)
    mine, codes = client_context(member(mesh), authority_id(DOMAIN)), set[int]()

    def send() -> None:
        with httpx2.Client(verify=mine, base_url=f"https://{mesh.facts.address}", trust_env=False, timeout=60) as http:
            codes.add(http.post("/v1/records", content=b"").status_code)

    threads = [threading.Thread(target=send) for _ in range(45)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(32):
            assert inside.acquire(timeout=20)
        mesh.revoke(serials=("ed",))
        with httpx2.Client(verify=mine, base_url=f"https://{mesh.facts.address}", trust_env=False, timeout=20) as http:
            assert http.get("/v1/feed?after=0").status_code == 200
    finally:
        release.set()
        for thread in threads:
            thread.join(20)
    assert codes == {200}


# the incident id


def found(mesh: Mesh, answer: httpx2.Response) -> dict[str, Any]:
    """The entry a caller's incident id leads to."""
    (entry,) = mesh.get(f"/admin/ledger?incident={answer.json()['incident']}")
    return dict(entry)


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [(None, "identity.denied", "HBK-204"), ({"secret": 5}, "edge.denied", "HBK-401"), ([], "edge.denied", "HBK-401")],
    ids=["token", "form", "list"],
)
def test_a_refused_join_is_found_by_its_incident_and_names_the_caller(
    mesh: Mesh, body: object, kind: str, code: str
) -> None:
    with httpx2.Client(verify=stranger(mesh), base_url=f"https://{mesh.facts.address}", trust_env=False) as http:
        answer = http.post("/v1/join", json=bad_join() if body is None else body)
    entry = found(mesh, answer)
    assert answer.json()["code"] == code
    assert (entry["type"], entry["code"], entry["rule"], entry["outcome"]) == (kind, code, "join", "deny")
    assert entry["address"] == mesh.authority.state.keyring.pseudonyms().of("address", "127.0.0.1")


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("POST", "/v1/renew", b'{"csr": "aaaa"}', "identity.denied"),
        ("POST", "/v1/renew", b"[]", "edge.denied"),
        ("POST", "/v1/records", b"", "records.denied"),
        ("GET", "/v1/feed?after=x", b"", "edge.denied"),
    ],
)
def test_whatever_is_refused_a_service_is_found_by_its_incident(
    mesh: Mesh, method: str, path: str, body: bytes, kind: str
) -> None:
    mine = client_context(member(mesh), authority_id(DOMAIN))
    with httpx2.Client(verify=mine, base_url=f"https://{mesh.facts.address}", trust_env=False) as http:
        answer = http.request(method, path, content=body)
    entry = found(mesh, answer)
    assert (entry["type"], entry["code"]) == (kind, answer.json()["code"])
    assert entry["actor"].endswith("/sa/shop")


@pytest.mark.parametrize("path", ["/v1/attest", "/v1/handover"])
def test_what_is_refused_on_the_workload_socket_is_found_by_its_incident(mesh: Mesh, path: str) -> None:
    transport = httpx2.HTTPTransport(uds=mesh.facts.workload_socket)
    body: dict[str, str] = {"entry": "nobody"}
    if path == "/v1/attest":
        body["csr"] = bad_join()["csr"]
    with httpx2.Client(transport=transport, base_url="http://authority", trust_env=False) as http:
        sent: object
        for sent, kind in ((body, "identity.denied"), ([], "edge.denied")):
            answer = http.post(path, json=sent)
            entry = found(mesh, answer)
            assert (entry["type"], entry["actor"]) == (kind, f"uid:{os.getuid()}")
            assert entry["code"] == answer.json()["code"]


def test_a_flood_from_one_address_does_not_hide_the_join_of_another(mesh: Mesh) -> None:
    rate = mesh.authority.config.records.fold_rate

    def knock(address: str, times: int) -> httpx2.Response:
        transport = httpx2.HTTPTransport(verify=stranger(mesh), local_address=address)
        with httpx2.Client(transport=transport, base_url=f"https://{mesh.facts.address}", timeout=20) as http:
            return [http.post("/v1/join", json=bad_join()) for _ in range(times)][-1]

    knock("127.0.0.1", rate * 3)
    other = found(mesh, knock("127.0.0.2", 1))
    assert other["type"] == "identity.denied"
    assert other["address"] == mesh.authority.state.keyring.pseudonyms().of("address", "127.0.0.2")


def test_a_refusal_that_cannot_be_recorded_is_answered_as_just_that(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_event: Event) -> Future[Receipt]:
        failed: Future[Receipt] = Future()
        failed.set_exception(RecordsError("HBK-703", "the disk is full"))
        return failed

    monkeypatch.setattr(mesh.authority.recorder, "submit", broken)
    with httpx2.Client(verify=stranger(mesh), base_url=f"https://{mesh.facts.address}", trust_env=False) as http:
        for body in (json.dumps(bad_join()), "[]"):
            answer = http.post("/v1/join", content=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "HBK-703")


def test_a_refusal_is_not_answered_before_it_is_durable(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt: Future[Receipt] = Future()
    asked = threading.Event()

    def waits(_event: Event) -> Future[Receipt]:
        asked.set()
        return receipt

    monkeypatch.setattr(mesh.authority.recorder, "submit", waits)
    answers: list[httpx2.Response] = []

    def knock() -> None:
        with httpx2.Client(verify=stranger(mesh), base_url=f"https://{mesh.facts.address}", trust_env=False) as http:
            answers.append(http.post("/v1/join", json=[], timeout=20))

    thread = threading.Thread(target=knock)
    thread.start()
    assert asked.wait(20)
    thread.join(0.3)
    assert not answers
    receipt.set_result(Receipt(bytes(16), None))
    thread.join(20)
    assert answers[0].json()["code"] == "HBK-401"


def test_without_an_attempt_a_refusal_is_durable_when_it_is_raised(mesh: Mesh) -> None:
    authority: Authority = mesh.authority
    size = authority.ledger.head().size
    with pytest.raises(Exception, match="HBK-204"):
        authority.join(bytes(32), new_request()[1])
    assert authority.ledger.head().size == size + 1


# descriptors


def test_idle_connections_do_not_use_up_the_descriptors_of_the_admin_socket(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with (
        subprocess.Popen([sys.executable, "-c", UP, str(state)], stdout=subprocess.PIPE, text=True) as process,
        ExitStack() as idle,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            facts = read_facts(state)
            host, _, port = facts.address.rpartition(":")
            for _ in range(400):
                idle.enter_context(socket.create_connection((host, int(port)), timeout=10))
            command = admin(state)
            assert b"trust_domain" in command.call("GET", "/admin/status")
            command.call("POST", "/admin/renewal")
            command.close()
            assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 256
            limits = Path(f"/proc/{process.pid}/limits").read_text("ascii")
            (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
            assert line.split()[3:5] == ["256", "256"]  # it began with 64
        finally:
            process.terminate()
    assert process.returncode == 0


def test_the_soft_limit_of_descriptors_becomes_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        raise_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
