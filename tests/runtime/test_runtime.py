"""The runtime: what is in force is exchanged whole and at once, also for connections that are open already."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from hauberk.core.call import Address, Call
from hauberk.core.config import Config, ServiceConfig
from hauberk.core.decision import Verdict
from hauberk.core.inbound import Inbound
from hauberk.core.principal import ANONYMOUS, Kind, Principal, Proof
from hauberk.errors import ConfigError, Denied, IdentityError, PolicyError
from hauberk.identity.revocation import Revocations
from hauberk.integrations.asgi import Receive, Scope, Send
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.records.typed import Event
from hauberk.runtime import Runtime
from tests.integrations.stage import (
    CALLER,
    POLICY,
    STRANGER,
    Memory,
    Service,
    identity,
    make_runtime,
    serving,
    until,
)
from tests.records.made import PATIENCE

GET = b"GET /a HTTP/1.1\r\nHost: server\r\n\r\n"
NOTHING = PolicySet.default(aliases=("cluster.local",))
USUAL = NOTHING.with_documents(parse_documents(POLICY))
PERMISSIVE = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everybody, namespace: shop}
spec: {rules: [{}]}
"""


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Stage:
    """A runtime that is being served, and its records."""

    def __init__(self, runtime: Runtime, service: Service, memory: Memory) -> None:
        self.runtime = runtime
        self.service = service
        self.memory = memory


@contextlib.contextmanager
def staged(policy: str = POLICY, *, tls: bool = True) -> Iterator[Stage]:
    memory = Memory()
    runtime = make_runtime(memory, policy=policy, source=identity("server"))
    with serving(hello, runtime, tls=tls) as service:
        yield Stage(runtime, service, memory)


def test_other_policies_are_enforced_on_a_connection_that_is_open_already() -> None:
    with staged() as stage, stage.service.connect() as wire:
        for _ in range(3):
            assert wire.ask(GET).status == 200
        stage.runtime.apply_policies(NOTHING, 1)
        assert wire.ask(GET).code == "HBK-300"
        stage.runtime.apply_policies(USUAL, 2)
        assert wire.ask(GET).status == 200


def test_a_revoked_identity_is_cut_off_where_it_is_connected_and_refused_where_it_comes_back() -> None:
    with staged() as stage, stage.service.connect() as wire, stage.service.connect("stranger") as other:
        for _ in range(2):
            assert wire.ask(GET).status == 200
        assert other.ask(GET).status == 403
        assert stage.runtime.revoke(Revocations(ids=frozenset({CALLER}))) == 1
        answer = wire.ask(GET)
        assert answer.status == 0 or answer.code == "HBK-206"  # cut off, or refused in the moment before
        until(lambda: wire.ask(GET).status == 0)
        assert other.ask(GET).status == 403
        assert stage.service.ask(GET).status == 0
        stage.runtime.revoke(Revocations())
        assert stage.service.ask(GET).status == 200


def test_a_revoked_peer_whose_connection_lives_on_is_refused_by_the_guard() -> None:
    runtime = make_runtime(source=identity("server"))
    request = inbound(STRANGER)
    runtime.revoke(Revocations(ids=frozenset({STRANGER})))
    decision = runtime.check(request)
    assert (decision.verdict, decision.code) == (Verdict.DENY, "HBK-206")
    runtime.close()


REVOKED = Revocations(ids=frozenset({STRANGER}), serials=frozenset({"4f"}))
BAD = Principal(Kind.WORKLOAD, STRANGER)
GOOD = Principal(Kind.WORKLOAD, CALLER)


class Noted(Event, type="test.noted.v1"):
    number: int


@contextlib.contextmanager
def recording(directory: Path) -> Iterator[Runtime]:
    """An embedded runtime that lets everybody do everything."""
    (directory / "policies.yaml").write_text(PERMISSIVE)
    config = Config(directory=str(directory / "state"), service=ServiceConfig(namespace="shop", account="server"))
    runtime = Runtime.embedded(config=config, policies=directory / "policies.yaml")
    yield runtime
    runtime.close()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (Call(peer=BAD), "HBK-206"),
        (Call(peer=replace(GOOD, proof=Proof("mtls", {"serial": "4f"}))), "HBK-206"),
        (Call(peer=replace(GOOD, via=(BAD,))), "HBK-206"),
        (Call(peer=GOOD, user=Principal(Kind.USER, "https://id.example.org/ann", via=(BAD,))), "HBK-206"),
        (Call(peer=GOOD), ""),
        (Call(), ""),
    ],
    ids=["peer", "certificate", "via", "user-via", "another", "nobody"],
)
def test_whoever_is_revoked_is_denied_whatever_the_call_and_the_policies(tmp_path: Path, call: Call, code: str) -> None:
    with recording(tmp_path) as runtime:
        assert runtime.decide(call).verdict is Verdict.ALLOW  # without the list
        runtime.revoke(REVOKED)
        assert runtime.decide(call).code == code
        assert (runtime.decide(call).verdict is Verdict.ALLOW) is not bool(code)
        runtime.revoke(Revocations())
        assert runtime.decide(call).verdict is Verdict.ALLOW


def test_a_revoked_identity_neither_follows_nor_appends_nor_reads(tmp_path: Path) -> None:
    with recording(tmp_path) as runtime:
        events = runtime.events
        events.append("a", [Noted(number=1)], actor=BAD).result(PATIENCE)
        items, other = (iter(events.subscribe("a", actor=who)) for who in (BAD, GOOD))
        assert [next(one).event for one in (items, other)] == [Noted(number=1)] * 2
        runtime.revoke(REVOKED)
        events.append("a", [Noted(number=2)], actor=GOOD).result(PATIENCE)
        assert next(other).event == Noted(number=2)
        for attempt in (
            lambda: next(items),
            lambda: list(events.read("a", actor=BAD)),
            lambda: events.append("a", [Noted(number=3)], actor=BAD).result(PATIENCE),
        ):
            with pytest.raises(Denied) as caught:
                attempt()
            assert caught.value.code == "HBK-206"
        assert len(list(events.read("a", actor=GOOD))) == 2


def test_a_subscription_that_waits_ends_when_its_identity_is_revoked(tmp_path: Path) -> None:
    with recording(tmp_path) as runtime:
        items = iter(runtime.events.subscribe("a", actor=BAD))
        waiting = threading.Timer(0.01, runtime.revoke, (REVOKED,))
        waiting.start()
        with pytest.raises(Denied):
            next(items)
        waiting.join()


def inbound(peer: str = CALLER, raw_path: bytes = b"/a") -> Inbound:
    who = Principal(Kind.WORKLOAD, peer) if peer else ANONYMOUS
    return Inbound("GET", raw_path, raw_path.decode(), b"", [(b"host", b"a")], peer=who, address=Address("10.1.2.3", 4))


def test_plaintext_is_refused_by_strict_and_judged_by_policy_where_permissive() -> None:
    with staged(tls=False) as stage:
        answer = stage.service.ask(GET)
        assert (answer.status, answer.code) == (403, "HBK-102")
    with staged(POLICY + PERMISSIVE, tls=False) as stage:
        assert stage.service.ask(GET).status == 200
        assert stage.service.get("/admin").code == "HBK-300"


def test_policies_never_go_backwards_and_the_last_good_ones_stay() -> None:
    runtime = make_runtime()
    runtime.apply_policies(USUAL, 5)
    with pytest.raises(PolicyError) as older:
        runtime.apply_policies(NOTHING, 4)
    assert older.value.code == "HBK-304"
    assert (runtime.engine.revision, runtime.engine.digest) == (5, USUAL.digest)
    assert runtime.check(inbound()).verdict is Verdict.ALLOW
    runtime.apply_policies(NOTHING, 5)
    assert runtime.check(inbound()).verdict is Verdict.DENY
    runtime.close()


def test_while_policies_are_exchanged_every_answer_is_that_of_one_set_or_the_other() -> None:
    with staged() as stage:
        stop = threading.Event()

        def exchange() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                stage.runtime.apply_policies((NOTHING, USUAL)[number % 2], number)

        thread = threading.Thread(target=exchange)
        thread.start()
        with stage.service.connect() as wire:
            statuses = {wire.ask(GET).status for _ in range(60)}
        stop.set()
        thread.join()
        assert statuses <= {200, 403}
        stage.runtime.apply_policies(NOTHING, 1_000_000)
        assert stage.service.ask(GET).status == 403


def test_a_denial_is_recorded_with_pseudonyms_and_nothing_that_could_forge_a_line() -> None:
    memory = Memory()
    runtime = make_runtime(memory)
    request = inbound(STRANGER, b"/a\r\nx\x1b[2J" + b"\x00" * 300)
    decision = runtime.check(request)
    receipt = runtime.record_denial(request, decision, "incident-1").result(10)
    assert receipt.position == 0
    (event,) = memory.events(incident="incident-1")
    assert event.address.startswith("address:")
    assert "10.1.2.3" not in repr(event)
    path = str(event.data["path"])
    assert path.startswith("/a\\x0d\\x0ax\\x1b[2J")
    assert path.isprintable()
    assert path.isascii()
    assert len(path) <= 4 * 200
    runtime.close()


def test_what_was_let_through_is_recorded_with_its_rule_unless_that_is_off() -> None:
    memory = Memory()
    with serving(hello, make_runtime(memory, source=identity("server"))) as service:
        assert service.ask(GET).status == 200
        assert service.ask(GET).status == 200
    events = memory.events(type="request.allowed")
    assert [(event.actor, event.data["path"], event.rule) for event in events] == [
        (CALLER, "/a", "ns[shop]-policy[callers]-rule[0]")
    ] * 2
    assert len({event.id for event in events}) == 2


def test_a_failed_handshake_and_a_violation_are_noted() -> None:
    with staged() as stage:
        stage.runtime.report_handshake("certificate verify failed")
        assert stage.service.ask(b"\x00\r\n\r\n").status == 400
        stage.memory.wait_for(1, type="transport.denied", code="HBK-101")
        stage.memory.wait_for(1, type="edge.denied", code="HBK-401", actor=CALLER)


def test_status_says_what_is_in_force_and_is_plain_data() -> None:
    runtime = make_runtime(source=identity("server"))
    runtime.attach(status=lambda: {"more": 1})
    status = runtime.status()
    assert json.loads(json.dumps(status)) == status
    assert status["service"] == "shop/server"
    assert status["guards"] == ["connection identity", "canonical request", "policy"]
    assert status["more"] == 1
    assert status["insecure"] == []
    runtime.close()


def test_an_embedded_runtime_has_no_mesh_identity_to_call_with() -> None:
    runtime = make_runtime()
    with pytest.raises(IdentityError) as none:
        runtime.client_context("payments")
    assert none.value.code == "HBK-211"
    runtime.close()


def test_closing_twice_is_fine_and_releases_each_thing_once() -> None:
    closed: list[str] = []
    runtime = make_runtime()
    runtime.attach(on_close=lambda: closed.append("once"))
    runtime.close()
    runtime.close()
    assert closed == ["once"]


RULES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: default}
spec: {rules: [{to: [{operation: {methods: [GET], paths: [/docs/*]}}]}]}
"""


def test_an_embedded_runtime_decides_about_any_call_and_keeps_its_ledger(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "a.yaml").write_text(RULES)
    (rules / "ignored.txt").write_text("not yaml: [")
    keys = set()
    for start in range(2):
        runtime = Runtime.embedded(tmp_path / "state", policies=rules, config=Config())
        assert runtime.decide(Call(method="GET", path="/docs/a")).verdict is Verdict.ALLOW
        assert runtime.decide(Call(method="PUT", path="/docs/a")).verdict is Verdict.DENY
        request = inbound("")
        receipt = runtime.record_denial(request, runtime.check(request), f"incident-{start}").result(10)
        assert receipt.position == start + 1  # the first entry introduces the producer
        keys.add((tmp_path / "state" / "log.pub").read_bytes())
        runtime.close()
    assert len(keys) == 1


def test_one_state_directory_serves_one_process_at_a_time(tmp_path: Path) -> None:
    with contextlib.closing(Runtime.embedded(tmp_path, config=Config())):
        with pytest.raises(ConfigError) as taken:
            Runtime.embedded(tmp_path, config=Config())
        assert taken.value.code == "HBK-906"
    Runtime.embedded(tmp_path, config=Config()).close()


def test_a_start_that_failed_leaves_the_directory_free(tmp_path: Path) -> None:
    Runtime.embedded(tmp_path, config=Config()).close()
    (tmp_path / "private" / "log.sealed").chmod(0o644)
    with pytest.raises(IdentityError) as exposed:
        Runtime.embedded(tmp_path, config=Config())
    assert exposed.value.code == "HBK-210"
    (tmp_path / "private" / "log.sealed").chmod(0o600)
    Runtime.embedded(tmp_path, config=Config()).close()


@pytest.mark.parametrize("content", ["kind: [", "kind: Nonsense\n", "a: b\n", RULES.replace("methods", "metods")])
def test_a_bad_policy_file_refuses_the_start_with_a_typed_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(PolicyError) as refused:
        Runtime.embedded(tmp_path / "state", policies=tmp_path / "bad.yaml", config=Config())
    assert refused.value.code == "HBK-301"


@pytest.mark.parametrize("name", ["missing.yaml", "missing"])
def test_a_policy_file_that_is_not_there_is_an_error_and_never_an_empty_set(tmp_path: Path, name: str) -> None:
    with pytest.raises(PolicyError) as refused:
        Runtime.embedded(tmp_path / "state", policies=[tmp_path / name], config=Config())
    assert refused.value.code == "HBK-301"


def test_a_policy_file_that_is_no_text_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError):
        Runtime.embedded(tmp_path / "state", policies=tmp_path / "bad.yaml", config=Config())


def test_a_directory_of_policies_is_read_under_both_names_of_yaml(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "allow.yaml").write_text(RULES)
    (rules / "deny.yml").write_text(RULES.replace("readers", "nobody").replace("spec: {", "spec: {action: DENY, "))
    with contextlib.closing(Runtime.embedded(tmp_path / "state", policies=rules, config=Config())) as runtime:
        assert runtime.decide(Call(method="GET", path="/docs/a")).verdict is Verdict.DENY


def test_the_service_an_embedded_runtime_is_comes_from_its_configuration(tmp_path: Path) -> None:
    config = Config(service=ServiceConfig(namespace="prod", account="pay", labels={"app": "pay"}))
    with contextlib.closing(Runtime.embedded(tmp_path, config=config)) as runtime:
        assert (runtime.workload.namespace, runtime.workload.account) == ("prod", "pay")
        assert runtime.stream == "/services/prod/pay"


def test_connections_are_counted_and_forgotten() -> None:
    with staged() as stage:
        with stage.service.connect() as wire:
            assert wire.ask(GET).status == 200
            assert stage.runtime.status()["connections"] == 1
        until(lambda: stage.runtime.status()["connections"] == 0)


PROGRAM = """
import hauberk
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

app = hauberk.protect(Starlette(routes=[Route("/docs/a", lambda request: PlainTextResponse("hello"))]))
assert TestClient(app).get("/docs/a").text == "hello"
assert TestClient(app).get("/other").status_code == 403
assert TestClient(app).get("/docs/a").status_code == 200
"""


def test_a_program_that_just_ends_has_its_last_records_written(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "hauberk.toml").write_text('[policy]\nfiles = ["rules.yaml"]\n')
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, check=True, timeout=60)
    runtime = Runtime.embedded(tmp_path / ".hauberk", config=Config())
    request = inbound("")
    assert runtime.record_denial(request, runtime.check(request), "next").result(10).position == 4
    runtime.close()
