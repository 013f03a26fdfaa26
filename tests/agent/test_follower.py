"""Services of a mesh: what they have in force, and what they do when the authority changes its mind or goes away."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import msgspec
import pytest

import hauberk
from hauberk.agent.follower import Follower
from hauberk.core.call import Call, Workload
from hauberk.core.decision import Verdict
from hauberk.core.feed import POLICIES, RENEWAL, PolicyBody, RenewalBody, Resource
from hauberk.core.principal import Kind, Principal
from hauberk.errors import ConfigError, HauberkError
from hauberk.integrations.asgi import protect
from hauberk.integrations.uvicorn import Server
from hauberk.runtime import Runtime
from hauberk.transport.contexts import server_context
from tests.authority.mesh import ALLOW, DOMAIN, Mesh, wait_for
from tests.transport.parties import Load, answer, dial, ends, get, serving

FRONT = Principal(Kind.WORKLOAD, f"spiffe://{DOMAIN}/ns/production/sa/front")
SHOP = Workload("production", "shop", {"app": "shop"})


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """A mesh of one's own, for whoever breaks it."""
    with Mesh(tmp_path) as made:
        made.register("shop")
        made.register("front")
        yield made


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("mesh")) as made:
        made.register("shop")
        made.register("front")
        yield made


@pytest.fixture
def shared(lasting: Mesh) -> Iterator[Mesh]:
    """A mesh for whoever leaves it as it was."""
    lasting.apply(ALLOW.replace("PATH", "/nothing"), replace=True)
    yield lasting
    lasting.leave_all()


def may(runtime: Runtime, path: str) -> bool:
    return runtime.decide(Call(peer=FRONT, method="GET", path=path, target=SHOP)).verdict is Verdict.ALLOW


def follower_of(runtime: Runtime) -> Follower:
    """The follower behind a runtime that `connect` made."""
    for close in runtime._on_close:
        owner = getattr(close, "__self__", None)
        if isinstance(owner, Follower):
            return owner
    raise AssertionError("no follower")


@contextmanager
def shop_of(mesh: Mesh) -> Iterator[tuple[Runtime, Server]]:
    """The shop as a protected service."""
    runtime = mesh.join("shop")
    assert runtime.source is not None
    tls = server_context(runtime.source, on_failure=runtime.report_handshake, admit=runtime.admit)
    with serving(
        protect(answer, runtime), tls=tls, connections=runtime.connections, on_violation=runtime.report_violation
    ) as server:
        yield runtime, server


def serial(runtime: Runtime) -> str:
    assert runtime.source is not None
    return runtime.source.current().svid.serial


def test_nothing_is_allowed_before_anything_is_said(shared: Mesh) -> None:
    runtime = shared.join("shop")
    assert not may(runtime, "/")
    status = runtime.status()
    assert status["feed"] == {
        "number": shared.authority.publisher.number,
        "age": pytest.approx(0, abs=5),
        "last_error": "",
    }


def test_a_push_is_enforced_on_connections_that_are_open_already(shared: Mesh) -> None:
    shared.allow("/")
    with shop_of(shared) as (runtime, server):
        front = shared.join("front")
        with hauberk.client(to="shop", runtime=front, base_url=f"https://127.0.0.1:{server.port}") as http:
            assert http.get("/").status_code == 200
            opened = len(runtime.connections)
            done = shared.allow("/other")
            wait_for(lambda: runtime.engine.revision == done["revision"])
            assert http.get("/").status_code == 403
            shared.allow("/")
            wait_for(lambda: may(runtime, "/"))
            assert http.get("/").status_code == 200
            assert len(runtime.connections) == opened == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [("kind: AuthorizationPolicyy", "HBK-301"), ("a: [", "HBK-301")],
)
def test_a_bad_push_leaves_the_last_good_policies_in_force_and_says_so(shared: Mesh, text: str, code: str) -> None:
    runtime = shared.join("shop")
    shared.allow("/")
    wait_for(lambda: may(runtime, "/"))
    revision = runtime.engine.revision
    with pytest.raises(HauberkError) as caught:
        shared.apply(text)
    assert caught.value.code == code
    assert caught.value.detail
    assert (may(runtime, "/"), runtime.engine.revision) == (True, revision)


def test_a_policy_of_a_newer_version_leaves_the_last_good_one_in_force_and_says_so(mesh: Mesh) -> None:
    runtime = mesh.join("shop")
    mesh.allow("/")
    wait_for(lambda: may(runtime, "/"))
    mesh.authority.publisher.put(POLICIES, PolicyBody("kind: SomethingNew", "hauberk-system"))
    wait_for(lambda: runtime.last_error)
    assert may(runtime, "/")
    assert runtime.last_error == "policies: HBK-301"
    mesh.authority.publisher.put(POLICIES, RenewalBody(1.0))  # a body of another form
    wait_for(lambda: runtime.last_error == "policies: HBK-305")
    assert may(runtime, "/")


def test_a_resource_of_an_unknown_name_is_left_alone(shared: Mesh) -> None:
    runtime = shared.join("shop")
    number = shared.authority.publisher.put("tokens", RenewalBody(1.0))
    wait_for(lambda: follower_of(runtime).state.number == number)
    assert runtime.last_error == ""
    shared.allow("/")
    wait_for(lambda: may(runtime, "/"))


def test_a_service_keeps_what_it_has_while_the_authority_is_away_and_shows_how_old_that_is(mesh: Mesh) -> None:
    runtime = mesh.join("shop")
    mesh.allow("/")
    wait_for(lambda: may(runtime, "/"))
    number = follower_of(runtime).state.number
    mesh.stop()
    wait_for(lambda: runtime.status()["feed"]["last_error"] == "HBK-902")  # type: ignore[index]
    assert may(runtime, "/")
    assert follower_of(runtime).state.number == number
    first = follower_of(runtime).status()["age"]
    wait_for(lambda: follower_of(runtime).status()["age"] > first)  # type: ignore[operator]
    mesh._arguments["authority.port"] = int(mesh.facts.address.rpartition(":")[2])
    mesh.start()
    mesh.allow("/again")
    wait_for(lambda: may(runtime, "/again"))
    assert runtime.status()["feed"]["last_error"] == ""  # type: ignore[index]


def test_records_made_while_the_authority_is_away_arrive_when_it_is_back(mesh: Mesh) -> None:
    runtime = mesh.join("shop")
    mesh.stop()
    receipt = runtime.recorder.submit(runtime.event("test.away", "ok")).result(20)
    assert receipt.where == "spool"
    mesh._arguments["authority.port"] = int(mesh.facts.address.rpartition(":")[2])
    mesh.start()
    wait_for(lambda: mesh.events("test.away"))


def test_a_revoked_caller_is_cut_off_at_once_and_let_in_again_when_restored(shared: Mesh) -> None:
    shared.allow("/")
    with shop_of(shared) as (runtime, server):
        front = shared.join("front")
        context = front.client_context("shop")
        with dial(context, server.port) as wire:
            assert get(wire).startswith(b"HTTP/1.1 200 ")
            shared.revoke(FRONT.id)
            assert ends(wire)
        wait_for(lambda: runtime.revocations.ids)
        with dial(context, server.port) as wire:
            assert ends(wire)
        wait_for(lambda: any("HBK-206" in str(found["rule"]) for found in shared.events("transport.denied")))
        shared.revoke(FRONT.id, restore=True)
        wait_for(lambda: not runtime.revocations.ids)
        with dial(context, server.port) as wire:
            assert get(wire).startswith(b"HTTP/1.1 200 ")


def test_a_revoked_callee_is_not_spoken_to_on_a_pooled_connection(shared: Mesh) -> None:
    shared.allow("/")
    with shop_of(shared) as (_, server):
        front = shared.join("front")
        with hauberk.client(to="shop", runtime=front, base_url=f"https://127.0.0.1:{server.port}") as http:
            assert http.get("/").status_code == 200
            shared.revoke(f"spiffe://{DOMAIN}/ns/production/sa/shop")
            wait_for(lambda: front.revocations.ids)
            with pytest.raises(httpx2.TransportError):
                http.get("/")
        shared.revoke(f"spiffe://{DOMAIN}/ns/production/sa/shop", restore=True)


def test_an_order_to_renew_is_carried_out_at_once_by_everybody_it_means(shared: Mesh) -> None:
    old, young = shared.join("shop"), shared.join("front")
    before = serial(old)
    shared.admin.call("POST", "/admin/renewal")
    wait_for(lambda: serial(old) != before)
    wait_for(lambda: follower_of(young).state.number == shared.authority.publisher.number)
    after = serial(old)
    # Whoever comes later was not meant.
    late = shared.join("front")
    number = shared.authority.publisher.put("something", RenewalBody(0.0))
    wait_for(lambda: follower_of(late).state.number == number)
    assert serial(old) == after


def test_an_order_to_renew_that_cannot_be_carried_out_is_not_forgotten(
    shared: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = shared.join("shop")
    follower, before = follower_of(runtime), serial(runtime)
    real, tried = follower.renew, threading.Event()

    def fail_once() -> None:
        if not tried.is_set():
            tried.set()
            raise HauberkError("HBK-902")
        real()

    monkeypatch.setattr(follower, "renew", fail_once)
    monkeypatch.setattr("hauberk.agent.follower._uniform", lambda _low, _high: 0.01)  # the pause after a failure
    body = msgspec.json.encode(RenewalBody(shared.clock.time() + 5))
    follower.take(Resource(RENEWAL, 99, body))
    wait_for(lambda: serial(runtime) != before)
    assert tried.is_set()


def test_a_removed_entry_ends_renewal_but_not_the_present_certificate(mesh: Mesh) -> None:
    runtime = mesh.join("shop")
    mesh.admin.call("DELETE", "/admin/entries/shop")
    with pytest.raises(HauberkError) as caught:
        follower_of(runtime).renew()
    assert caught.value.code == "HBK-205"
    mesh.allow("/")
    wait_for(lambda: may(runtime, "/"))


def test_leaves_and_root_rotate_under_load_without_one_failed_request(mesh: Mesh) -> None:
    mesh.allow("/")
    with shop_of(mesh) as (shop, server):
        front = mesh.join("front")
        late = dial(front.client_context("shop"), server.port)  # of the old root, and silent to the end
        stale = front.client_context("shop").fresh()
        with Load(front.client_context("shop"), server.port) as load:
            load.more()
            mesh.admin.call("POST", "/admin/renewal")
            load.more()
            assert mesh.rotate("prepare")["step"] == "prepared"
            settled(mesh, "activate")
            load.more()
            wait_for(lambda: of_new_root(mesh, shop) and of_new_root(mesh, front))
            load.more(200)
            mesh.clock.ahead = 6.0
            settled(mesh, "finish")
            load.more(200)
        assert load.failures == []
        assert load.done > 400
        assert len(mesh.authority.bundles.roots[DOMAIN]) == 1
        assert ends(late)
        late.close()
        wait_for(lambda: shop.source is not None and shop.source.current().bundles == mesh.authority.bundles)
        with (
            pytest.raises((ssl.SSLError, ConnectionError)),
            dial(stale, server.port) as wire,
        ):  # a certificate of the old root
            get(wire)
        with hauberk.client(to="shop", runtime=front, base_url=f"https://127.0.0.1:{server.port}") as http:
            assert http.get("/").status_code == 200


def settled(mesh: Mesh, step: str) -> None:
    """Take a step as soon as the authority finds everybody ready."""

    def taken() -> bool:
        try:
            mesh.rotate(step)
        except ConfigError:
            return False
        return True

    wait_for(taken)


def of_new_root(mesh: Mesh, runtime: Runtime) -> bool:
    return any(
        found["serial"] == serial(runtime) and found["root"] == mesh.authority.roots.signer
        for found in mesh.get("/admin/svids")
    )


def test_a_rotation_goes_on_over_a_restart_of_the_authority(mesh: Mesh) -> None:
    runtime = mesh.join("shop")
    mesh.rotate("prepare")
    settled(mesh, "activate")
    mesh.restart()
    wait_for(lambda: of_new_root(mesh, runtime))
    mesh.clock.ahead = 6.0
    settled(mesh, "finish")
    wait_for(lambda: runtime.source is not None and runtime.source.current().bundles == mesh.authority.bundles)
    follower_of(runtime).renew()


def test_status_tells_who_follows_and_how_far(shared: Mesh) -> None:
    runtime = shared.join("shop")
    done = shared.allow("/")
    line = {"spiffe_id": f"spiffe://{DOMAIN}/ns/production/sa/shop", "number": done["revision"]}
    wait_for(lambda: [one for one in shared.get("/admin/status")["services"] if line.items() <= one.items()])
    assert may(runtime, "/")


def test_closing_twice_is_fine_and_ends_both_threads(shared: Mesh) -> None:
    runtime = shared.join("shop")
    follower = follower_of(runtime)
    shared.leave(runtime)
    runtime.close()
    assert not any(thread.is_alive() for thread in follower._threads)
