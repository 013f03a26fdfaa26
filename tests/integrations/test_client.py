"""`hauberk.client` talks to the named service over TLS or to nobody, whatever address, hook or option it meets."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

import hauberk
from hauberk.runtime import Runtime
from tests.core.refusal import refuses
from tests.integrations.stage import PATIENCE, Service, identity, make_runtime, serving

OPTIONS: dict[str, Any] = {
    "cert": "client.pem",
    "mounts": {"all://": None},
    "proxy": "http://127.0.0.1:9",
    "transport": httpx2.MockTransport(lambda _: httpx2.Response(200)),
    "trust_env": True,
    "verify": False,
}


@pytest.fixture
def caller() -> Iterator[Runtime]:
    runtime = make_runtime(source=identity("caller"))
    yield runtime
    runtime.close()


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """A thief without TLS: what reaches it is kept, and answered."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    wire, _ = server.accept()
                except OSError:
                    return
                with wire:
                    heard.append(wire.recv(65_536))
                    wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield server.getsockname()[1], heard
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


async def application(scope: Any, _receive: Any, send: Any) -> None:  # noqa: ANN401  # an ASGI application
    """Send whoever asks for /to/WHERE there; say 200 to anything else."""
    if scope["type"] != "http":
        return
    status, headers = 200, [(b"content-length", b"0")]
    if scope["query_string"]:
        status, headers = 302, [*headers, (b"location", scope["query_string"])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


@contextmanager
def served() -> Iterator[Service]:
    with serving(application, make_runtime(source=identity("server"))) as service:
        yield service


def get(kind: str, runtime: Runtime, url: str, *, before: Callable[[Any], None] | None = None, **options: Any) -> int:  # noqa: ANN401  # of httpx2
    """Ask with one of the two clients and return the status; `before` may spoil the client."""
    if kind == "client":
        with hauberk.client(to="server", runtime=runtime, **options) as http:
            if before:
                before(http)
            return http.get(url).status_code

    async def ask() -> int:
        async with hauberk.async_client(to="server", runtime=runtime, **options) as http:
            if before:
                before(http)
            return (await http.get(url)).status_code

    return asyncio.run(ask())


@pytest.mark.parametrize("kind", ["client", "async_client"])
def test_a_plaintext_address_is_refused_and_nothing_is_sent(kind: str, caller: Runtime) -> None:
    with listening() as (port, heard):
        base = f"http://127.0.0.1:{port}"
        for url in (f"{base}/x", f"ws://127.0.0.1:{port}/x", f"HTTP://127.0.0.1:{port}/x", "ftp://127.0.0.1/x"):
            with refuses("HBK-103"):
                get(kind, caller, url)
            with refuses("HBK-103"):
                get(kind, caller, url, base_url="https://127.0.0.1:1")

        def rebase(http: Any) -> None:  # noqa: ANN401  # either client
            http.base_url = base

        with refuses("HBK-103"):
            get(kind, caller, "/x", before=rebase)
        with refuses("HBK-901") as caught:
            get(kind, caller, "/x", base_url=base)
        assert caught.value.context["option"] == "base_url"
    assert heard == []


def test_an_ordinary_client_would_have_told_the_thief_everything() -> None:
    with listening() as (port, heard), httpx2.Client(trust_env=False) as http:
        http.get(f"http://127.0.0.1:{port}/x", headers={"authorization": "secret"})
    assert b"secret" in heard[0]


@pytest.mark.parametrize("kind", ["client", "async_client"])
def test_a_hook_that_leads_elsewhere_is_refused_and_so_is_one_that_replaces_all_hooks(
    kind: str, caller: Runtime
) -> None:
    with listening() as (port, heard):

        def lead(request: httpx2.Request) -> None:
            request.url = httpx2.URL(f"http://127.0.0.1:{port}/x")

        async def lead_later(request: httpx2.Request) -> None:
            lead(request)

        hooks = {"request": [lead if kind == "client" else lead_later]}
        with refuses("HBK-103"):
            get(kind, caller, "https://127.0.0.1:1/x", event_hooks=hooks)

        def rehook(http: Any) -> None:  # noqa: ANN401  # either client
            http.event_hooks = {}

        with refuses("HBK-103"):
            get(kind, caller, f"http://127.0.0.1:{port}/x", before=rehook)
    assert heard == []


@pytest.mark.parametrize("kind", ["client", "async_client"])
def test_hooks_and_ordinary_options_of_the_user_still_work(kind: str, caller: Runtime) -> None:
    seen: list[object] = []

    async def later(it: httpx2.Request | httpx2.Response) -> None:
        seen.append(type(it))

    def hook(it: httpx2.Request | httpx2.Response) -> None:
        seen.append(type(it))

    one = hook if kind == "client" else later
    with served() as service:
        status = get(
            kind, caller, "/x", base_url=f"https://127.0.0.1:{service.port}", headers={"a": "b"}, timeout=PATIENCE,
            limits=httpx2.Limits(max_connections=1), http1=True, event_hooks={"request": [one], "response": [one]},
        )  # fmt: skip
    assert (status, seen) == (200, [httpx2.Request, httpx2.Response])


@pytest.mark.parametrize("kind", ["client", "async_client"])
def test_a_redirect_is_followed_only_when_asked_and_only_to_https(kind: str, caller: Runtime) -> None:
    with served() as service, listening() as (port, heard):
        base = f"https://127.0.0.1:{service.port}"
        assert get(kind, caller, f"/a?http://127.0.0.1:{port}/", base_url=base) == 302
        assert get(kind, caller, f"/a?{base}/there", base_url=base, follow_redirects=True) == 200
        with refuses("HBK-103"):
            get(kind, caller, f"/a?http://127.0.0.1:{port}/", base_url=base, follow_redirects=True)
    assert heard == []


@pytest.mark.parametrize("kind", ["client", "async_client"])
@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_an_option_that_would_replace_the_pin_is_refused_by_name(kind: str, option: str, caller: Runtime) -> None:
    with refuses("HBK-901") as caught:
        get(kind, caller, "https://127.0.0.1:1/", **{option: OPTIONS[option]})
    assert caught.value.context["option"] == option


@pytest.mark.parametrize("kind", ["client", "async_client"])
def test_a_server_with_another_identity_or_none_is_a_connect_error(kind: str, caller: Runtime) -> None:
    with serving(application, make_runtime(source=identity("stranger"))) as service:
        with pytest.raises(httpx2.ConnectError, match="HBK-103"):
            get(kind, caller, f"https://127.0.0.1:{service.port}/x")
        unpinned = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unpinned.check_hostname, unpinned.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", service.port)) as plain, unpinned.wrap_socket(plain) as wire:
            assert wire.version() == "TLSv1.3"  # who does not look finds nothing odd
