"""The ASGI frame by itself: any server, any scope, any failure; what cannot be decided or recorded does not happen."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from hauberk.adapters.memory import MemoryStore
from hauberk.core.event import Event, Receipt
from hauberk.core.limits import Limits
from hauberk.core.ports import Write
from hauberk.errors import Denied, EdgeError, RecordsError
from hauberk.integrations.asgi import App, Message, Receive, Scope, Send, protect
from hauberk.runtime import Runtime
from tests.integrations.stage import PATIENCE, Memory, make_runtime, until

OPEN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everybody, namespace: shop}
spec: {rules: [{to: [{operation: {notPaths: [/admin]}}]}]}
"""
SECRET = "ledger-db-7.corp.internal"


def http(path: str = "/", *, method: str = "GET", headers: Sequence[tuple[bytes, bytes]] = (), **more: object) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": b"",
        "headers": [(b"host", b"server"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **more,
    }


class Exchange:
    """Plays the server's part for one request."""

    def __init__(self, app: App, scope: Scope, incoming: Sequence[Message] = ()) -> None:
        self.sent: list[Message] = []
        self._app = app
        self._scope = scope
        self._incoming = list(incoming) or [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive(self) -> Message:
        if self._incoming:
            return self._incoming.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self) -> "Exchange":
        await asyncio.wait_for(self._app(self._scope, self.receive, self.send), PATIENCE)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"]) if self.sent else 0

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])

    @property
    def incident(self) -> str:
        return str(json.loads(self.body)["incident"])


def ask(app: App, scope: Scope, incoming: Sequence[Message] = ()) -> Exchange:
    return asyncio.run(Exchange(app, scope, incoming).run())


async def hello(scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def raising(make: Callable[[], BaseException]) -> App:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise make()

    return app


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def runtime(memory: Memory) -> Iterator[Runtime]:
    running = make_runtime(memory, policy=OPEN, limits=Limits(body_bytes=100, body_seconds=0.2))
    yield running
    running.close()


def test_without_a_mesh_identity_strict_is_not_applied_but_denial_by_default_is(runtime: Runtime) -> None:
    assert ask(protect(hello, runtime), http("/a")).status == 200
    assert ask(protect(hello, runtime), http("/admin")).code == "HBK-300"
    assert ask(hello, http("/admin")).status == 200


def test_the_application_is_told_the_call_whose_actor_it_may_name(runtime: Runtime) -> None:
    told = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append(scope["hauberk.call"])
        await hello(scope, receive, send)

    forged = {**http("/orders/17"), "hauberk.call": "whoever the server wants"}
    assert ask(protect(app, runtime), forged).status == 200
    assert (told[0].path, told[0].method, told[0].address.ip) == ("/orders/17", "GET", "127.0.0.1")


def test_a_runtime_without_policies_denies_everything() -> None:
    closed = make_runtime(policy="")
    assert ask(protect(hello, closed), http("/")).code == "HBK-300"
    closed.close()


@pytest.mark.parametrize("kind", ["telnet", "http2", "", "HTTP", "lifespan2"])
def test_a_scope_of_an_unknown_type_never_reaches_the_application(runtime: Runtime, kind: str) -> None:
    reached: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        reached.append(scope["type"])

    assert ask(protect(app, runtime), http(type=kind)).sent == []
    assert reached == []


def test_a_server_that_gives_no_raw_path_is_served_where_the_path_is_plain(runtime: Runtime) -> None:
    scope = http("/a/b")
    del scope["raw_path"]
    assert ask(protect(hello, runtime), scope).body == b"/a/b"
    for path in ("/a//b", "/a/../admin", "/a;b", "/a b", "/a\x00"):
        assert ask(protect(hello, runtime), http(path, raw_path=None)).code == "HBK-402"


def test_a_path_that_is_no_text_is_refused_and_not_an_accident(runtime: Runtime) -> None:
    assert ask(protect(hello, runtime), http("/\ud800", raw_path=None)).code == "HBK-402"


@pytest.mark.parametrize("method", ["delete", "Delete", "DELETE ", "D\u00cbLETE"])
def test_a_method_that_a_framework_would_read_as_another_is_refused(method: str) -> None:
    deny = OPEN + (
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: no-deletes, namespace: shop}\n"
        "spec: {action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]}\n"
    )
    guarded = make_runtime(policy=deny)
    try:
        assert ask(protect(hello, guarded), http(method="DELETE")).code == "HBK-300"
        assert ask(protect(hello, guarded), http(method=method)).status in {400, 403}
    finally:
        guarded.close()


FAILURES: dict[str, Callable[[], BaseException]] = {
    "an error": lambda: ConnectionError(SECRET),
    "a group": lambda: ExceptionGroup("several", [ConnectionError(SECRET), ValueError("other")]),
    "recursion": lambda: RecursionError(SECRET),
    "the end of an iteration": lambda: StopAsyncIteration(SECRET),
    "a long story": lambda: RuntimeError(SECRET * 10_000),
    "a timeout": lambda: TimeoutError(SECRET),
    "an error of ours": lambda: RecordsError("HBK-703", SECRET),
    "a message that is no UTF-8": lambda: ValueError(SECRET + "\udcff"),
    "an exit": lambda: SystemExit(SECRET),
    "a cancellation of its own": lambda: asyncio.CancelledError(SECRET),
}


@pytest.mark.parametrize("name", FAILURES)
def test_whatever_an_application_raises_the_caller_reads_a_constant_and_the_ledger_the_cause(
    memory: Memory, runtime: Runtime, name: str
) -> None:
    exchange = ask(protect(raising(FAILURES[name]), runtime), http("/boom"))
    assert exchange.status in {500, 403}
    assert SECRET.encode() not in exchange.body
    (event,) = memory.events(incident=exchange.incident)
    assert event.outcome in {"failed", "deny"}
    assert len(str(event.data["cause"])) <= 2000
    assert type(FAILURES[name]()).__name__ in str(event.data["cause"]) or name == "a long story"


def test_a_decision_that_a_handler_enforces_is_a_denial_and_recorded_as_one(memory: Memory, runtime: Runtime) -> None:
    denied = Denied("HBK-300", SECRET, rule="ns[shop]-policy[own]-rule[0]")
    exchange = ask(protect(raising(lambda: denied), runtime), http("/boom"))
    assert (exchange.status, exchange.code) == (403, "HBK-300")
    assert SECRET.encode() not in exchange.body
    (event,) = memory.events(incident=exchange.incident)
    assert (event.type, event.rule) == ("policy.denied", "ns[shop]-policy[own]-rule[0]")
    assert event.data["reason"] == SECRET


def test_without_the_frame_the_cause_is_the_servers_business(runtime: Runtime) -> None:
    with pytest.raises(ConnectionError, match=SECRET):
        ask(raising(lambda: ConnectionError(SECRET)), http())
    assert ask(protect(raising(lambda: ConnectionError(SECRET)), runtime), http()).code == "HBK-406"


def test_a_response_that_breaks_after_its_beginning_raises_something_that_says_nothing(
    memory: Memory, runtime: Runtime
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, lambda message: send({**message, "more_body": True}))
        raise ConnectionError(SECRET)

    with pytest.raises(Exception) as broken:  # noqa: PT011  # a private type, on purpose
        ask(protect(app, runtime), http())
    assert str(broken.value) == ""
    assert broken.value.__cause__ is None
    assert broken.value.__context__ is None
    assert memory.wait_for(1, type="request.failed")[0].code == "HBK-406"


def test_a_500_in_pieces_is_replaced_as_a_whole(runtime: Runtime) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": [(b"x-host", SECRET.encode())]})
        for piece in ("Traceback", SECRET):
            await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})
        await send({"type": "http.response.body"})

    exchange = ask(protect(app, runtime), http())
    assert exchange.code == "HBK-406"
    assert SECRET not in repr(exchange.sent)
    assert len(exchange.sent) == 2


def pieces(*sizes: int) -> list[Message]:
    last = len(sizes) - 1
    return [{"type": "http.request", "body": b"a" * size, "more_body": n < last} for n, size in enumerate(sizes)]


async def reader(_scope: Scope, receive: Receive, send: Send) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


def test_a_body_is_bounded_whatever_it_announced(memory: Memory, runtime: Runtime) -> None:
    assert ask(protect(reader, runtime), http(method="POST"), pieces(50, 50)).body == b"100"
    for headers, incoming in (
        ([], pieces(50, 51)),
        ([], pieces(101)),
        ([(b"content-length", b"10")], pieces(60, 60)),
        ([(b"transfer-encoding", b"chunked")], pieces(*[1] * 101)),
    ):
        exchange = ask(protect(reader, runtime), http(method="POST", headers=headers), incoming)
        assert (exchange.status, exchange.code) == (413, "HBK-404")
        assert memory.events(incident=exchange.incident)
    assert ask(reader, http(method="POST"), pieces(50, 51)).body == b"101"


def test_an_application_that_swallows_the_refusal_of_a_body_changes_nothing(runtime: Runtime) -> None:
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await reader(scope, receive, send)
        except EdgeError:
            await hello(scope, receive, send)

    assert ask(protect(stubborn, runtime), http(), pieces(200)).code == "HBK-404"


def test_a_body_that_stops_coming_is_refused(runtime: Runtime) -> None:
    incoming: list[Message] = [{"type": "http.request", "body": b"a", "more_body": True}]
    exchange = ask(protect(reader, runtime), http(method="POST"), incoming)
    assert (exchange.status, exchange.code) == (408, "HBK-407")


def test_a_handler_that_takes_its_time_after_the_body_is_not_cut_off(runtime: Runtime) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.4)  # longer than a body may take; waits for the disconnect
        await hello(scope, receive, send)

    assert ask(protect(slow, runtime), http()).status == 200


class Broken:
    """A recorder that cannot: every receipt is the same error."""

    def submit(self, _event: Event) -> "Future[Receipt]":
        failed: Future[Receipt] = Future()
        failed.set_exception(RecordsError("HBK-703", SECRET))
        return failed

    def offer(self, event: Any) -> "Future[Receipt]":  # noqa: ANN401  # an event, or what makes one
        return self.submit(event)

    def close(self, timeout: float = 10.0) -> None:
        """Nothing to close."""


def test_what_cannot_be_recorded_does_not_happen() -> None:
    reached: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        reached.append(scope["path"])

    deaf = make_runtime(policy=OPEN, recorder=Broken())
    for path in ("/a", "/admin"):
        exchange = ask(protect(app, deaf), http(path))
        assert (exchange.status, exchange.code) == (503, "HBK-703")
        assert SECRET not in repr(exchange.sent)
    assert reached == []


def test_a_failure_that_cannot_be_recorded_is_still_a_constant_answer() -> None:
    class Forgetful(Broken):
        def offer(self, _event: object) -> None:  # type: ignore[override]  # it takes what it will lose
            return

    deaf = make_runtime(policy=OPEN, recorder=Forgetful())
    exchange = ask(protect(raising(lambda: ConnectionError(SECRET)), deaf), http())
    assert (exchange.status, exchange.code) == (503, "HBK-703")
    assert SECRET not in repr(exchange.sent)


def test_a_full_queue_slows_callers_down_and_loses_nothing() -> None:
    class Full(Broken):
        def __init__(self) -> None:
            self.taken: Future[Receipt] = Future()

        def offer(self, _event: object) -> "Future[Receipt]":
            return self.taken

    async def scenario() -> None:
        full = Full()
        exchange = Exchange(protect(hello, make_runtime(policy=OPEN, recorder=full)), http())
        task = asyncio.ensure_future(exchange.run())
        for _ in range(20):
            await asyncio.sleep(0)
        assert exchange.sent == []
        full.taken.set_result(Receipt(b"", None))
        await task
        assert exchange.status == 200

    asyncio.run(scenario())


class FullDisk(MemoryStore):
    """A store that works until the disk is full."""

    full = False

    def commit(self, write: Write) -> int:
        """Fail, or do as usual."""
        if self.full:
            raise RecordsError("HBK-703", "no space left")
        return super().commit(write)


def test_a_full_disk_refuses_what_waits_for_its_record() -> None:
    store = FullDisk()
    full = make_runtime(Memory(store), policy=OPEN)
    app = protect(hello, full)
    store.full = True
    assert ask(app, http("/admin")).code == "HBK-703"
    store.full = False
    assert ask(app, http("/admin")).code == "HBK-300"
    full.close()


def test_a_full_disk_soon_refuses_what_would_be_allowed_too() -> None:
    store = FullDisk()
    full = make_runtime(Memory(store), policy=OPEN)
    app = protect(hello, full)
    try:
        assert ask(app, http()).status == 200
        store.full = True
        statuses = []
        for _ in range(5):
            statuses.append(ask(app, http()).status)
            ask(app, http("/admin"))  # waits for a commit, so that the one before has failed
        assert statuses[-1] == 503
        store.full = False
        until(lambda: ask(app, http()).status == 200)
    finally:
        full.close()


def test_a_flood_of_denials_is_folded_and_every_one_is_counted(memory: Memory) -> None:
    flooded = make_runtime(memory, policy=OPEN)

    async def flood() -> list[Exchange]:
        app = protect(hello, flooded)
        return await asyncio.gather(*(Exchange(app, http("/admin")).run() for _ in range(500)))

    exchanges = asyncio.run(flood())
    assert {exchange.code for exchange in exchanges} == {"HBK-300"}
    flooded.close()
    single = memory.events(type="policy.denied")
    folded = memory.events(type="policy.denied.folded")
    assert len(single) + sum(int(str(event.data["count"])) for event in folded) == 500
    assert len(single) + len(folded) < 100
    told = {exchange.incident for exchange in exchanges}
    assert {event.incident for event in single} <= told


def test_a_caller_that_goes_away_takes_nobody_elses_answer_along(memory: Memory) -> None:
    flooded = make_runtime(memory, policy=OPEN)

    async def flood() -> list[Any]:
        app = protect(hello, flooded)
        tasks = [asyncio.ensure_future(Exchange(app, http("/admin")).run()) for _ in range(60)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[-1].cancel()
        return await asyncio.gather(*tasks[:-1], return_exceptions=True)

    answers = asyncio.run(flood())
    flooded.close()
    assert [getattr(answer, "status", type(answer).__name__) for answer in answers] == [403] * 59


def socket_scope(path: str = "/", headers: Sequence[tuple[bytes, bytes]] = ()) -> Scope:
    scope = http(path, headers=headers)
    del scope["method"]
    return {**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}


CONNECT: list[Message] = [{"type": "websocket.connect"}]


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": (await receive())["text"]})
    await send({"type": "websocket.close", "code": 1000})


def test_a_websocket_is_judged_like_a_request(memory: Memory, runtime: Runtime) -> None:
    text: Message = {"type": "websocket.receive", "text": "a" * 500}
    allowed = ask(protect(echo, runtime), socket_scope(), [*CONNECT, text])
    assert [message["type"] for message in allowed.sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    for scope in (socket_scope("/admin"), socket_scope("//"), socket_scope(headers=[(b"host", b"other")])):
        denied = ask(protect(echo, runtime), scope, CONNECT)
        assert denied.sent == [{"type": "websocket.close", "code": 1008}]
    assert len(memory.wait_for(1, type="policy.denied")) == 1
    assert len(memory.wait_for(2, type="edge.denied")) == 2


def test_a_websocket_scope_without_its_optional_parts_is_judged_too(runtime: Runtime) -> None:
    scope = socket_scope("/admin")
    for optional in ("http_version", "query_string", "raw_path"):
        del scope[optional]
    assert ask(protect(echo, runtime), scope, CONNECT).sent == [{"type": "websocket.close", "code": 1008}]


def test_an_application_that_fails_before_it_accepts_a_websocket_closes_it(memory: Memory, runtime: Runtime) -> None:
    app = protect(raising(lambda: ConnectionError(SECRET)), runtime)
    exchange = ask(app, socket_scope(), CONNECT)
    assert [message["type"] for message in exchange.sent] == ["websocket.close"]
    assert SECRET in str(memory.wait_for(1, type="request.failed")[0].data["cause"])


def test_an_application_that_fails_after_it_accepted_a_websocket_cuts_it(memory: Memory, runtime: Runtime) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        raise ConnectionError(SECRET)

    with pytest.raises(Exception) as broken:  # noqa: PT011  # a private type, on purpose
        ask(protect(app, runtime), socket_scope(), CONNECT)
    assert str(broken.value) == ""
    assert SECRET in str(memory.wait_for(1, type="request.failed")[0].data["cause"])


def ends_the_connection(runtime: Runtime, version: str) -> bool:
    doubtful = [(b"content-length", b"1"), (b"content-length", b"2")]
    exchange = ask(protect(hello, runtime), http(headers=doubtful, http_version=version))
    assert exchange.code == "HBK-405"
    return (b"connection", b"close") in exchange.sent[0]["headers"]


def test_after_a_message_of_doubtful_length_the_connection_ends(runtime: Runtime) -> None:
    assert ends_the_connection(runtime, "1.0")
    assert ends_the_connection(runtime, "1.1")
    assert (b"connection", b"close") not in ask(protect(hello, runtime), http("/admin")).sent[0]["headers"]


@pytest.mark.parametrize("version", ["2", "3"])
def test_a_version_that_multiplexes_never_hears_of_connection(runtime: Runtime, version: str) -> None:
    assert not ends_the_connection(runtime, version)


def test_lifespan_passes_through_untouched(runtime: Runtime) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "why"})

    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    exchange = ask(protect(app, runtime), scope, [{"type": "lifespan.startup"}])
    assert exchange.sent == [{"type": "lifespan.startup.failed", "message": "why"}]
    assert seen[0] is scope


def test_a_websocket_refused_by_the_application_with_a_500_shows_nothing_of_it(
    memory: Memory, runtime: Runtime
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 500, "headers": []})
        await send({"type": "websocket.http.response.body", "body": SECRET.encode()})

    exchange = ask(protect(app, runtime), socket_scope(), CONNECT)
    assert exchange.sent == [{"type": "websocket.close", "code": 1011}]
    assert memory.wait_for(1, type="request.failed")


def test_a_policy_on_a_header_is_not_fooled_by_white_space() -> None:
    deny = OPEN + (
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: no-admins, namespace: shop}\n"
        "spec: {action: DENY, rules: [{when: [{key: 'request.headers[x-role]', values: [admin]}]}]}\n"
    )
    guarded = make_runtime(policy=deny)
    try:
        assert ask(protect(hello, guarded), http()).status == 200
        for value in (b"admin", b"admin ", b"admin\t", b" admin"):
            headers = [(b"x-role", value)]
            assert ask(protect(hello, guarded), http(headers=headers)).code == "HBK-300"
    finally:
        guarded.close()
