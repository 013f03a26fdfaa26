"""The frame under servers that are not ours: Starlette's test client, and uvicorn as it comes, with either parser."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from hauberk.core.config import Config
from hauberk.errors import PolicyError
from hauberk.integrations.asgi import App, Receive, Scope, Send, protect
from hauberk.runtime import Runtime
from tests.integrations.stage import PATIENCE, Answer, Wire

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open-door, namespace: default}
spec: {rules: [{to: [{operation: {methods: [GET, POST], paths: [/hello, /ws, /echo]}}]}]}
"""
HOST = b"Host: server\r\n"


async def _hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.headers.get("x-forwarded-for", "nobody"))


async def _echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def _socket(socket_: WebSocket) -> None:
    await socket_.accept()
    await socket_.send_text(await socket_.receive_text())
    await socket_.close()


def application() -> Starlette:
    return Starlette(
        routes=[
            Route("/hello", _hello),
            Route("/admin", _hello),
            Route("/echo", _echo, methods=["POST"]),
            WebSocketRoute("/ws", _socket),
            WebSocketRoute("/admin-ws", _socket),
        ]
    )


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    with contextlib.closing(Runtime.embedded(tmp_path / "state", policies=policy, config=Config())) as running:
        yield running


def test_an_existing_application_is_protected_with_two_lines(runtime: Runtime) -> None:
    client = TestClient(protect(application(), runtime))
    assert client.get("/hello").text == "nobody"
    denied = client.get("/admin")
    assert (denied.status_code, denied.json()["code"]) == (403, "HBK-300")
    assert client.delete("/hello").status_code == 403
    assert TestClient(application()).get("/admin").status_code == 200


def test_forged_headers_and_crooked_paths_stop_at_the_frame(runtime: Runtime) -> None:
    forged = {"X-Forwarded-For": "127.0.0.1"}
    client = TestClient(protect(application(), runtime))
    assert client.get("/hello", headers=forged).text == "nobody"
    assert client.get("/hello/%2e%2e/admin").status_code in {400, 403}
    assert client.get("/hello;/x").json()["code"] == "HBK-402"
    assert TestClient(application()).get("/hello", headers=forged).text == "127.0.0.1"


def test_websockets_are_judged_too(runtime: Runtime) -> None:
    client = TestClient(protect(application(), runtime))
    with client.websocket_connect("/ws") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)), client.websocket_connect("/admin-ws"):
        pass


def test_without_any_policy_nothing_is_served_and_a_wrong_one_does_not_start(tmp_path: Path) -> None:
    with contextlib.closing(Runtime.embedded(tmp_path / "a", config=Config())) as runtime:
        assert TestClient(protect(application(), runtime)).get("/hello").status_code == 403
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(POLICY.replace("operation", "operatoin"))
    with pytest.raises(PolicyError) as refused:
        Runtime.embedded(tmp_path / "b", policies=wrong, config=Config())
    assert refused.value.code == "HBK-301"


@contextlib.contextmanager
def plain_uvicorn(app: App, parser: str) -> Iterator[int]:
    """Serve with uvicorn as it comes, and yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=parser, ws="none", log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


def ask(port: int, data: bytes) -> Answer:
    with Wire(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)) as wire:
        return wire.ask(data)


AMBIGUOUS = [
    b"GET /hello HTTP/1.1\r\n\r\n",
    b"GET /hello HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    b"GET /hello HTTP/1.1\r\nHost: a/../x\r\n\r\n",
    b"GET /hello HTTP/1.1\r\nHost: user@server\r\n\r\n",
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"GET /hello/%2e%2e/hello HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET //hello HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /hello%00 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /hello HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: 1\r\n" % number for number in range(99)) + b"X-A: 1\r\n\r\n",
]

MERGED_BY_H11 = [  # it hands on one length, so that no application can tell
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 3, 3\r\n\r\nabc",
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
]


@pytest.mark.parametrize("parser", ["h11", "httptools"])
def test_the_frame_refuses_what_the_parser_of_another_server_lets_through(runtime: Runtime, parser: str) -> None:
    reached: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["raw_path"])
        await application()(scope, receive, send)

    with plain_uvicorn(protect(app, runtime), parser) as port:
        for data in AMBIGUOUS + (MERGED_BY_H11 if parser == "httptools" else []):
            answer = ask(port, data)
            assert answer.status == 0 or 400 <= answer.status < 500
        assert reached == []
        assert ask(port, b"GET /hello HTTP/1.1\r\n" + HOST + b"X_Forwarded_For: 1\r\n\r\n").body == b"nobody"
        chunked = b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        assert ask(port, chunked + b"3\r\nabc\r\n0\r\n\r\n").body == b"3"
        piece = b"80000\r\n" + b"a" * 0x80000 + b"\r\n"
        assert ask(port, chunked + piece * 3 + b"0\r\n\r\n").code == "HBK-404"


@pytest.mark.parametrize("parser", ["h11", "httptools"])
def test_without_the_frame_several_of_those_are_served(parser: str) -> None:
    with plain_uvicorn(application(), parser) as port:
        served = [data for data in AMBIGUOUS if ask(port, data).status == 200]
    assert len(served) >= 4
