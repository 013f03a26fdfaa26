"""The authority on its three listeners: what each sort of caller gets, and what he learns when he gets nothing."""

import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from hauberk.agent.remote import Remote, authority_id, join, new_request
from hauberk.authority.api import STRANGERS
from hauberk.authority.refusals import Attempt
from hauberk.core.spiffe import SpiffeId
from hauberk.core.wire import EntryForm
from hauberk.crypto.x509 import CertificateAuthority, WorkloadKey, fingerprint, parse_svid
from hauberk.errors import HauberkError
from hauberk.identity.jointoken import JoinToken
from hauberk.identity.source import SvidSource
from hauberk.records.batch import encode_batch
from hauberk.transport.contexts import bootstrap_context, client_context
from tests.authority.mesh import DOMAIN, Mesh, wait_for

NOBODY = 65_534
PROBLEM = {"type", "title", "status", "code", "incident"}
KNOCK = """
import json, os, socket, sys
if sys.argv[5]:  # from here on as another user, who may not be able to start this interpreter himself
    os.setgroups([])
    os.setgid(int(sys.argv[5]))
    os.setuid(int(sys.argv[5]))
wire = socket.socket(socket.AF_UNIX)
wire.settimeout(10)
try:
    wire.connect(sys.argv[1])
except OSError as error:
    print(json.dumps([0, type(error).__name__]))
    raise SystemExit
body = sys.argv[4].encode()
wire.sendall(f"{sys.argv[2]} {sys.argv[3]} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
             f"Content-Length: {len(body)}\\r\\n\\r\\n".encode() + body)
data = b""
while chunk := wire.recv(65536):
    data += chunk
head, _, text = data.partition(b"\\r\\n\\r\\n")
print(json.dumps([int(head.split()[1]), text.decode()]))
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    directory = Path(tempfile.mkdtemp(prefix="hauberk-test-"))  # not pytest's: another user has to get in
    directory.chmod(0o755)
    with Mesh(directory, **{"limits.body_bytes": 100_000}) as made:
        for name in ("shop", "front", "evil"):
            made.register(name)
        yield made
    shutil.rmtree(directory)


def knock(path: Path | str, method: str, target: str, body: str = "", *, uid: int | None = None) -> tuple[int, str]:
    """Talk to a socket as a process of its own, as another user if `uid` says so."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", KNOCK, str(path), method, target, body, "" if uid is None else str(uid)],
        capture_output=True, text=True, check=False, timeout=30, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    status, text = json.loads(done.stdout)
    return status, text


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")


def csr() -> str:
    return base64.b64encode(new_request()[1]).decode()


def svid_source(mesh: Mesh, name: str) -> SvidSource:
    """Join with a token and keep only the identity."""
    key, request = new_request()
    grant = join(JoinToken.parse(mesh.token(name)), request, DOMAIN)
    return SvidSource(key, parse_svid(grant.chain), mesh.authority.bundles)


def remote(mesh: Mesh, source: SvidSource) -> Remote:
    return Remote.over_tls(mesh.facts.address, client_context(source, authority_id(DOMAIN)))


def anonymous(mesh: Mesh) -> httpx2.Client:
    context = bootstrap_context(mesh.facts.root, authority_id(DOMAIN))
    return httpx2.Client(verify=context, base_url=f"https://{mesh.facts.address}", trust_env=False, timeout=10)


def code_of(answer: httpx2.Response) -> str:
    found: str = answer.json()["code"]
    return found


# the workload socket


def test_a_process_of_the_registered_user_is_attested_by_the_kernel(mesh: Mesh) -> None:
    status, text = knock(mesh.facts.workload_socket, "POST", "/v1/attest", json.dumps({"csr": csr(), "entry": "shop"}))
    assert status == 200
    chain = [base64.b64decode(der) for der in json.loads(text)["chain"]]
    assert str(parse_svid(chain).spiffe_id) == "spiffe://example.org/ns/production/sa/shop"
    assert mesh.events("identity.issued")[-1]["actor"] == f"uid:{os.getuid()}"


def test_another_user_gets_no_identity_and_that_is_recorded(mesh: Mesh) -> None:
    needs_root()
    for path, body in (("/v1/attest", {"csr": csr(), "entry": "shop"}), ("/v1/handover", {"entry": "shop"})):
        status, text = knock(mesh.facts.workload_socket, "POST", path, json.dumps(body), uid=NOBODY)
        assert (status, json.loads(text)["code"]) == (403, "HBK-205")
        assert set(json.loads(text)) == PROBLEM
    denied = mesh.events("identity.denied")[-1]
    assert (denied["actor"], denied["code"], denied["outcome"]) == (f"uid:{NOBODY}", "HBK-205", "deny")


def test_the_other_user_gets_what_is_registered_for_him(mesh: Mesh) -> None:
    needs_root()
    mesh.register("theirs", selectors=(f"unix:uid:{NOBODY}", f"unix:gid:{NOBODY}"))
    status, _ = knock(mesh.facts.workload_socket, "POST", "/v1/attest", json.dumps({"csr": csr()}), uid=NOBODY)
    assert status == 200
    status, text = knock(
        mesh.facts.workload_socket, "POST", "/v1/attest", json.dumps({"csr": csr(), "entry": "theirs"})
    )
    assert (status, json.loads(text)["code"]) == (403, "HBK-205")


def test_an_entry_without_selectors_is_reached_by_token_only(mesh: Mesh) -> None:
    mesh.register("far", selectors=())
    body = json.dumps({"csr": csr(), "entry": "far"})
    assert knock(mesh.facts.workload_socket, "POST", "/v1/attest", body)[0] == 403
    assert str(svid_source(mesh, "far").spiffe_id).endswith("/sa/far")


@pytest.mark.parametrize(
    "body",
    ["", "null", "[]", "{", '{"csr": 5}', '{"csr": "%%%"}', '{"csr": "aaaa", "more": 1}', '{"entry": 7, "csr": ""}'],
)
def test_a_body_of_another_form_is_malformed_and_says_no_more(mesh: Mesh, body: str) -> None:
    transport = httpx2.HTTPTransport(uds=mesh.facts.workload_socket)
    with httpx2.Client(transport=transport, base_url="http://authority", trust_env=False) as http:
        answer = http.post("/v1/attest", content=body)
    assert (answer.status_code, code_of(answer)) == (400, "HBK-401")
    assert set(answer.json()) == PROBLEM


def test_the_workload_socket_does_nothing_else(mesh: Mesh) -> None:
    transport = httpx2.HTTPTransport(uds=mesh.facts.workload_socket)
    with httpx2.Client(transport=transport, base_url="http://authority", trust_env=False) as http:
        for path in ("/admin/status", "/v1/join", "/v1/renew", "/v1/feed", "/v1/records"):
            assert http.get(path).status_code in {404, 405}


# the admin socket


def test_the_admin_socket_is_the_owners_alone(mesh: Mesh) -> None:
    private = mesh.path / "private"
    assert private.stat().st_mode & 0o777 == 0o700
    assert (private / "admin.sock").stat().st_mode & 0o777 == 0o600
    assert Path(mesh.facts.workload_socket).stat().st_mode & 0o777 == 0o666


def test_another_user_does_not_even_reach_it(mesh: Mesh) -> None:
    needs_root()
    assert knock(mesh.path / "private" / "admin.sock", "GET", "/admin/status", uid=NOBODY) == (0, "PermissionError")


def test_with_the_files_left_open_the_kernel_still_says_who_he_is(mesh: Mesh) -> None:
    needs_root()
    private = mesh.path / "private"
    private.chmod(0o755)
    (private / "admin.sock").chmod(0o666)
    try:
        for method, path in (("GET", "/admin/status"), ("POST", "/admin/entries"), ("POST", "/admin/revocations")):
            status, text = knock(private / "admin.sock", method, path, "{}", uid=NOBODY)
            assert (status, json.loads(text)["code"]) == (403, "HBK-212")
            assert set(json.loads(text)) == PROBLEM
            (entry,) = mesh.get(f"/admin/ledger?incident={json.loads(text)['incident']}")
            assert (entry["type"], entry["actor"], entry["rule"]) == ("identity.denied", f"uid:{NOBODY}", "admin")
        assert knock(private / "admin.sock", "GET", "/admin/status")[0] == 200
    finally:
        (private / "admin.sock").chmod(0o600)
        private.chmod(0o700)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/admin/entries", {"name": 5}),
        ("POST", "/admin/entries", {"name": "x", "namespace": "p", "account": "x", "selector": []}),
        ("POST", "/admin/entries", {"name": "x", "namespace": "p", "account": "x", "ttl": "long"}),
        ("POST", "/admin/tokens", {"entry": ["shop"]}),
        ("POST", "/admin/policies", {"files": {"name": "x"}}),
        ("POST", "/admin/revocations", {"ids": "spiffe://example.org/ns/p/sa/x"}),
        ("POST", "/admin/roots", {"step": "prepare", "force": "yes"}),
        ("GET", "/admin/ledger?limit=many", None),
        ("GET", "/admin/ledger?after=--5", None),
        ("GET", "/admin/ledger?after=99999999999999999999", None),
    ],
    ids=range(10),
)
def test_an_administrator_who_sends_another_form_is_told_why(mesh: Mesh, method: str, path: str, body: object) -> None:
    with pytest.raises(HauberkError) as caught:
        mesh.admin.call(method, path, body)
    assert caught.value.code == "HBK-401"
    assert caught.value.detail


@pytest.mark.parametrize(
    "form",
    [
        EntryForm("Bad_Name", "production", "x"),
        EntryForm("x", "production", "x", ttl=0),
        EntryForm("x", "production", "x", ttl=10**9),
        EntryForm("x", "production", "x", ("unix:path:/usr/bin/python",)),
        EntryForm("x", "production/sa/y/ns/z", "x"),
        EntryForm("x", "..", "x"),
    ],
    ids=range(6),
)
def test_an_entry_that_is_none_is_refused(mesh: Mesh, form: EntryForm) -> None:
    with pytest.raises(HauberkError) as caught:
        mesh.admin.call("POST", "/admin/entries", form)
    assert caught.value.code in {"HBK-201", "HBK-213"}


def test_a_negative_limit_does_not_print_the_whole_ledger(mesh: Mesh) -> None:
    assert len(mesh.get("/admin/ledger?limit=-5")) == 1


def test_the_last_entries_of_a_sort_are_found_however_far_back_they_are(mesh: Mesh) -> None:
    mesh.admin.call("POST", "/admin/renewal")
    receipts = [mesh.authority.ledger.submit(mesh_event(mesh, number)) for number in range(2_500)]
    position = receipts[0].result(20).position
    receipts[-1].result(20)
    assert mesh.events("admin.renewal")
    assert [found["position"] for found in mesh.get("/admin/ledger?incident=needle-0")] == [position]
    assert [found["incident"] for found in mesh.get("/admin/ledger?type=test.noise&limit=3")] == [
        "needle-2497",
        "needle-2498",
        "needle-2499",
    ]


def mesh_event(mesh: Mesh, number: int) -> Any:  # noqa: ANN401  # an Event
    from hauberk.core.event import Event  # noqa: PLC0415  # used here only
    from hauberk.core.ids import uuid7  # noqa: PLC0415  # used here only

    return Event(
        id=uuid7(), type="test.noise", stream="/test", time_ns=mesh.clock.time_ns(), incident=f"needle-{number}"
    )


def test_every_command_is_recorded_under_the_uid_that_gave_it(mesh: Mesh) -> None:
    mesh.register("short-lived")
    mesh.token("short-lived")
    mesh.admin.call("DELETE", "/admin/entries/short-lived")
    mesh.revoke(serials=("ff",))
    mesh.revoke(serials=("ff",), restore=True)
    for kind in ("admin.entry.added", "identity.token", "admin.entry.removed", "admin.revoked", "admin.restored"):
        assert mesh.events(kind)[-1]["actor"] == f"uid:{os.getuid()}", kind


# joining over TLS


def test_a_token_works_once_over_tls(mesh: Mesh) -> None:
    token = JoinToken.parse(mesh.token("shop"))
    join(token, new_request()[1], DOMAIN)
    with pytest.raises(HauberkError) as caught:
        join(token, new_request()[1], DOMAIN)
    assert caught.value.code == "HBK-204"
    assert caught.value.context == {}


def test_a_token_with_another_fingerprint_is_not_shown_to_whoever_answers(mesh: Mesh) -> None:
    good = JoinToken.parse(mesh.token("shop"))
    rogue = JoinToken(good.address, fingerprint(CertificateAuthority.create(DOMAIN).root_der), good.secret)
    with pytest.raises(HauberkError) as caught:
        join(rogue, new_request()[1], DOMAIN)
    assert caught.value.code == "HBK-209"
    join(good, new_request()[1], DOMAIN)  # the secret never left, so the token is still good


def test_an_expired_token_is_refused_over_tls(mesh: Mesh) -> None:
    token = JoinToken.parse(mesh.token("shop", ttl=0.001))
    until = mesh.clock.time() + 0.01
    wait_for(lambda: mesh.clock.time() > until)
    with pytest.raises(HauberkError) as caught:
        join(token, new_request()[1], DOMAIN)
    assert caught.value.code == "HBK-204"


def test_of_eight_callers_over_tls_with_one_token_exactly_one_wins(mesh: Mesh) -> None:
    token, start = JoinToken.parse(mesh.token("shop")), threading.Barrier(8)

    def race(_: int) -> str:
        request = new_request()[1]
        start.wait()
        try:
            join(token, request, DOMAIN)
        except HauberkError as error:
            return error.code
        return "won"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(race, range(8))) == ["HBK-204"] * 7 + ["won"]


def test_a_stranger_with_a_token_joins_and_gets_nothing_else(mesh: Mesh) -> None:
    with anonymous(mesh) as http:
        assert code_of(http.post("/v1/join", content=b"[]")) == "HBK-401"
        for method, path in (
            ("POST", "/v1/renew"),
            ("GET", "/v1/feed?after=0"),
            ("POST", "/v1/records"),
            ("GET", "/admin/status"),
            ("POST", "/v1/attest"),
        ):
            answer = http.request(method, path)
            assert (answer.status_code, code_of(answer)) == (403, "HBK-300"), path
            assert set(answer.json()) == PROBLEM


def test_a_body_beyond_the_limit_is_refused(mesh: Mesh) -> None:
    with anonymous(mesh) as http:
        answer = http.post("/v1/join", content=b"x" * 70_000)
    assert (answer.status_code, code_of(answer)) == (413, "HBK-404")


def test_a_flood_of_strangers_does_not_keep_services_and_the_administrator_waiting(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, line = threading.Event(), remote(mesh, svid_source(mesh, "shop"))
    real, lock, inside, peak = mesh.authority.join, threading.Lock(), [0], [0]

    def slow(secret: bytes, request: bytes, attempt: Attempt) -> object:
        with lock:
            inside[0] += 1
            peak[0] = max(peak[0], inside[0])
        try:
            release.wait(20)
            return real(secret, request, attempt)
        finally:
            with lock:
                inside[0] -= 1

    def knocking(_: int) -> str:
        try:
            join(JoinToken(mesh.facts.address, mesh.facts.root, bytes(32)), new_request()[1], DOMAIN)
        except HauberkError as error:
            return error.code
        return "in"

    monkeypatch.setattr(mesh.authority, "join", slow)
    with ThreadPoolExecutor(48) as pool:
        flood = [pool.submit(knocking, number) for number in range(48)]
        try:
            wait_for(lambda: inside[0] == STRANGERS)
            assert line.renew(new_request()[1]).chain
            assert mesh.get("/admin/status")
        finally:
            release.set()
        assert {done.result(20) for done in flood} == {"HBK-204"}
    assert peak == [STRANGERS]
    line.close()


# with an identity


def test_a_renewal_over_mutual_tls_gives_the_same_id(mesh: Mesh) -> None:
    source = svid_source(mesh, "shop")
    line = remote(mesh, source)
    grant = line.renew(new_request()[1])
    line.close()
    assert parse_svid(grant.chain).spiffe_id == source.spiffe_id
    assert set(grant.roots) == {DOMAIN}


def test_a_renewal_for_another_id_is_refused(mesh: Mesh) -> None:
    line = remote(mesh, svid_source(mesh, "evil"))
    wanted = SpiffeId.service(DOMAIN, "production", "shop")
    with pytest.raises(HauberkError) as caught:
        line.renew(WorkloadKey.generate().request(wanted))
    line.close()
    assert caught.value.code == "HBK-212"
    assert mesh.events("identity.denied")[-1]["actor"].endswith("/sa/evil")


def test_a_revoked_peer_polls_no_feed_on_an_open_connection_nor_on_a_new_one(mesh: Mesh) -> None:
    mesh.register("traitor")
    source = svid_source(mesh, "traitor")
    open_line, new_line = remote(mesh, source), remote(mesh, source)
    assert open_line.feed(0)
    mesh.revoke(serials=(source.current().svid.serial,))
    for line in (open_line, new_line, open_line):
        with pytest.raises(HauberkError) as caught:
            line.feed(0)
        assert caught.value.code in {"HBK-902", "HBK-206"}
        line.close()


@pytest.mark.parametrize("after", ["-1", "x", "1" * 19, "1.0", ""])
def test_a_feed_number_that_is_none_is_malformed(mesh: Mesh, after: str) -> None:
    source = svid_source(mesh, "shop")
    context = client_context(source, authority_id(DOMAIN))
    with httpx2.Client(verify=context, base_url=f"https://{mesh.facts.address}", trust_env=False) as http:
        assert code_of(http.get(f"/v1/feed?after={after}")) == "HBK-401"


def test_a_service_cannot_hand_in_the_records_of_another(mesh: Mesh) -> None:
    shop, evil = svid_source(mesh, "shop"), svid_source(mesh, "evil")
    event = msgspec.structs.replace(mesh_event(mesh, 1), stream="/services/production/shop")
    wires = [
        encode_batch(who.current().svid.chain, mesh.clock.time_ns(), (event,), who.current().key.sign)
        for who in (shop, evil)
    ]
    line = remote(mesh, evil)
    for wire in (*wires, b"\x92\xc4\x01a\xc4\x01b", b""):
        with pytest.raises(HauberkError) as caught:
            line.record(wire)
        assert caught.value.code == "HBK-705"
    line.close()
    assert mesh.events("records.denied")[-1]["actor"].endswith("/sa/evil")


def test_plaintext_to_the_tls_listener_is_recorded_as_a_failed_handshake(mesh: Mesh) -> None:
    host, _, port = mesh.facts.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        wire.sendall(b"GET /v1/feed HTTP/1.1\r\n\r\n")
        while wire.recv(4096):
            pass
    wait_for(lambda: any(found["rule"] == "http request" for found in mesh.events("transport.denied")))


def test_the_tls_listener_speaks_nothing_below_tls_1_3(mesh: Mesh) -> None:
    host, _, port = mesh.facts.address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((host, int(port)), timeout=10) as wire,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(wire)
