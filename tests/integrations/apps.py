"""One small application in four dresses: a bare ASGI function, Starlette, FastAPI and Django, debug pages on.

`/peer` tells who is calling, `/boom` raises, `/own-500` answers with a page full of internals, `/late` raises after its
response began, `/stream` answers in pieces, `/echo` tells the length of what it read, `/teapot` answers 418, `/items/N`
wants a number.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path as django_path
from django.views.decorators.csrf import csrf_exempt
from fastapi import FastAPI, Request
from starlette import responses
from starlette.applications import Starlette
from starlette.routing import Route

from hauberk.integrations.asgi import App, Receive, Scope, Send

SECRET = "ledger-db-7.corp.internal"
PAGE = f"<h1>Error</h1> Traceback: could not reach {SECRET}"
PIECES = [b"one ", b"two ", b"three"]
LIFE: list[str] = []


class Unreachable(ConnectionError):
    """What a handler raises; names an internal host, as exceptions do."""

    def __init__(self) -> None:
        super().__init__(f"could not connect to {SECRET}:5432")


def peer_of(scope: Scope) -> str:
    return str(scope.get("extensions", {}).get("hauberk", {}).get("peer", type("Nobody", (), {"id": ""})).id)


async def pieces() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece


async def broken_pieces() -> AsyncIterator[bytes]:
    yield PIECES[0]
    raise Unreachable


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """No framework at all."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    path = scope["path"]
    if path == "/boom":
        raise Unreachable
    status, body = await _respond(scope, receive)
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    for piece in body:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        if path == "/late":
            raise Unreachable
    await send({"type": "http.response.body"})


async def _live(receive: Receive, send: Send) -> None:
    message = {"type": ""}
    while message["type"] != "lifespan.shutdown":
        message = dict(await receive())
        LIFE.append(message["type"])
        await send({"type": f"{message['type']}.complete"})


async def _respond(scope: Scope, receive: Receive) -> tuple[int, list[bytes]]:
    path = scope["path"]
    if path == "/peer":
        return 200, [json.dumps({"peer": peer_of(scope)}).encode()]
    if path == "/own-500":
        return 500, [PAGE.encode()]
    if path in {"/stream", "/late"}:
        return 200, PIECES
    if path == "/echo":
        return 200, [b"%d" % len(await _read(receive))]
    return {"/teapot": 418, "/items/x": 422}.get(path, 404), [b"the application's own words"]


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _peer(request: Request) -> responses.Response:
    return responses.JSONResponse({"peer": peer_of(request.scope)})


async def _boom(_: Request) -> responses.Response:
    raise Unreachable


async def _own_500(_: Request) -> responses.Response:
    return responses.HTMLResponse(PAGE, status_code=500)


async def _stream(_: Request) -> responses.Response:
    return responses.StreamingResponse(pieces())


async def _late(_: Request) -> responses.Response:
    return responses.StreamingResponse(broken_pieces())


async def _echo(request: Request) -> responses.Response:
    return responses.PlainTextResponse(str(len(await request.body())))


async def _teapot(_: Request) -> responses.Response:
    return responses.PlainTextResponse("the application's own words", status_code=418)


async def _item(request: Request) -> responses.Response:
    number = request.path_params["item"]
    return responses.PlainTextResponse("the application's own words", status_code=200 if number.isdigit() else 422)


@asynccontextmanager
async def _life(_: object) -> AsyncIterator[None]:
    LIFE.append("lifespan.startup")
    yield
    LIFE.append("lifespan.shutdown")


def starlette() -> Starlette:
    """The routes under Starlette."""
    return Starlette(
        debug=True,
        lifespan=_life,
        routes=[
            Route("/peer", _peer),
            Route("/boom", _boom),
            Route("/own-500", _own_500),
            Route("/stream", _stream),
            Route("/late", _late),
            Route("/echo", _echo, methods=["POST"]),
            Route("/teapot", _teapot),
            Route("/items/{item}", _item),
        ],
    )


def fastapi() -> FastAPI:
    """The routes under FastAPI, with a body and a path parameter it validates itself."""
    app = FastAPI(debug=True, lifespan=_life)
    for path, endpoint in (("/peer", _peer), ("/boom", _boom), ("/own-500", _own_500), ("/stream", _stream)):
        app.add_api_route(path, endpoint, response_model=None)
    app.add_api_route("/late", _late, response_model=None)
    app.add_api_route("/teapot", _teapot, response_model=None)
    app.add_api_route("/echo", _echo, methods=["POST"], response_model=None)

    @app.get("/items/{item}")
    async def item(item: int) -> int:
        return item

    @app.post("/orders")
    async def order(order: dict[str, int]) -> dict[str, int]:
        return order

    return app


async def _d_peer(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"peer": peer_of(request.scope)})


async def _d_boom(_: HttpRequest) -> HttpResponse:
    raise Unreachable


async def _d_own_500(_: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE, status=500)


async def _d_stream(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(pieces())


async def _d_late(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(broken_pieces())


@csrf_exempt  # type: ignore[untyped-decorator]
async def _d_echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


async def _d_teapot(_: HttpRequest) -> HttpResponse:
    return HttpResponse("the application's own words", status=418)


async def _d_item(_: HttpRequest, item: str) -> HttpResponse:
    return HttpResponse("the application's own words", status=200 if item.isdigit() else 422)


class _Urls:
    urlpatterns = [  # noqa: RUF012  # Django reads it, nobody changes it
        django_path("peer", _d_peer),
        django_path("boom", _d_boom),
        django_path("own-500", _d_own_500),
        django_path("stream", _d_stream),
        django_path("late", _d_late),
        django_path("echo", _d_echo),
        django_path("teapot", _d_teapot),
        django_path("items/<str:item>", _d_item),
    ]


@cache
def django() -> App:
    """The routes under Django, configured in this process; once, because settings are global."""
    settings.configure(
        DEBUG=True,
        SECRET_KEY="made up for a test",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=_Urls,
        LOGGING_CONFIG=None,
        DATABASES={},
    )
    app: App = get_asgi_application()
    return app


MAKERS: dict[str, Callable[[], App]] = {
    "bare": lambda: bare,
    "starlette": starlette,
    "fastapi": fastapi,
    "django": django,
}
