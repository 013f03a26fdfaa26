"""Real servers and real clients: plain sockets, httpx2, asyncio; rotation and revocation under load."""

import asyncio
import ssl
from typing import Any

import httpx2
import pytest

from hauberk.core.limits import Limits
from hauberk.crypto.x509 import CertificateAuthority
from hauberk.identity.bundle import BundleSet, TrustBundle
from hauberk.identity.revocation import Revocations
from hauberk.identity.source import SvidSource
from hauberk.integrations.uvicorn import App
from hauberk.transport.connection import Connections
from hauberk.transport.contexts import client_context, server_context
from tests.transport.parties import (
    CA,
    DOMAIN,
    Load,
    answer,
    client,
    dial,
    ends,
    get,
    issued,
    named,
    outsider,
    serving,
    source,
    wait_for,
)

PATIENCE = 20.0


def remembering(received: list[str]) -> App:
    async def remember(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # an ASGI application
        if scope["type"] == "http":
            received.append(scope["path"])
        await answer(scope, receive, send)

    return remember


def test_a_blocking_client_and_a_plain_socket_are_known_by_their_names() -> None:
    context = client_context(source("front"), named("shop"))
    with serving(answer, tls=server_context(source("shop"))) as server:
        with client(context, server.port) as http:
            text = http.get("/").text
        assert text.startswith(f"{named('front')} TLSv1.3 TLS_")
        with dial(context, server.port) as wire:
            assert get(wire).endswith(text.encode())


def test_an_asynchronous_client_is_known_by_its_name() -> None:
    context = client_context(source("front"), named("shop"))

    async def call(port: int) -> str:
        base = f"https://127.0.0.1:{port}"
        async with httpx2.AsyncClient(verify=context, base_url=base, trust_env=False) as http:
            return (await http.get("/")).text

    with serving(answer, tls=server_context(source("shop"))) as server:
        assert asyncio.run(call(server.port)).startswith(str(named("front")))


def test_a_callee_of_another_name_is_an_ordinary_connect_error_sync_and_async() -> None:
    context = client_context(source("front"), named("shop"))

    async def call(port: int) -> None:
        async with httpx2.AsyncClient(verify=context, trust_env=False) as http:
            await http.get(f"https://127.0.0.1:{port}/")

    with serving(answer, tls=server_context(source("evil"))) as server:
        with client(context, server.port) as http, pytest.raises(httpx2.ConnectError):
            http.get("/")
        with pytest.raises(httpx2.ConnectError):
            asyncio.run(call(server.port))
        with pytest.raises(ssl.SSLError, match="HBK-103"):
            dial(context, server.port)


def test_neither_plaintext_nor_a_nameless_caller_reaches_the_application() -> None:
    reasons: list[str] = []
    tls = server_context(source("shop"), on_failure=reasons.append)
    with serving(answer, tls=tls) as server:
        with pytest.raises(httpx2.HTTPError):
            httpx2.get(f"http://127.0.0.1:{server.port}/", trust_env=False)
        with dial(outsider(), server.port) as wire:
            assert ends(wire)
        wait_for(lambda: len(reasons) == 2)
    assert sorted(reasons) == ["http request", "peer did not return a certificate"]


def test_a_revoked_caller_is_cut_off_on_its_open_connection() -> None:
    registry = Connections()
    context = client_context(source("front"), named("shop"))
    with serving(answer, tls=server_context(source("shop")), connections=registry) as server:
        with dial(context, server.port) as wire:
            assert get(wire)
            assert registry.close_revoked(ids=[str(named("front"))]) == 1
            assert ends(wire)
        wait_for(lambda: len(registry) == 0)


def test_a_caller_of_a_dropped_root_is_cut_off_on_its_open_connection() -> None:
    registry = Connections()
    context = client_context(source("front"), named("shop"))
    with (
        serving(answer, tls=server_context(source("shop")), connections=registry) as server,
        dial(context, server.port) as wire,
    ):
        assert get(wire)
        assert registry.close_untrusted({DOMAIN: (CertificateAuthority.create(DOMAIN).root_der,)}) == 1
        assert ends(wire)


def test_a_connection_ends_at_its_maximum_age_with_the_answer_it_is_at() -> None:
    registry = Connections()
    context = client_context(source("front"), named("shop"))
    with (
        serving(answer, tls=server_context(source("shop")), connections=registry, max_age=0.0) as server,
        dial(context, server.port) as wire,
    ):
        wait_for(lambda: registry.close_older_than(0.0) == 0 and len(registry) == 1)
        head = get(wire)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in head.lower()
        assert ends(wire)


def test_a_pooled_connection_to_a_revoked_callee_carries_nothing_more() -> None:
    revoked = [Revocations()]
    received: list[str] = []

    context = client_context(
        source("front"), named("shop"), admit=lambda peer: revoked[0].refuse(str(peer.spiffe_id), peer.serial)
    )
    with (
        serving(remembering(received), tls=server_context(source("shop"))) as server,
        client(context, server.port) as http,
    ):
        http.get("/before")
        revoked[0] = Revocations.of([str(named("shop"))])
        for _ in range(2):
            with pytest.raises(httpx2.TransportError):
                http.get("/secret")
    assert received == ["/before"]


def test_a_pooled_asynchronous_connection_to_a_revoked_callee_carries_nothing_more() -> None:
    revoked = [Revocations()]
    received: list[str] = []

    context = client_context(
        source("front"), named("shop"), admit=lambda peer: revoked[0].refuse(str(peer.spiffe_id), peer.serial)
    )

    async def call(port: int) -> None:
        base = f"https://127.0.0.1:{port}"
        async with httpx2.AsyncClient(verify=context, base_url=base, trust_env=False) as http:
            await http.get("/before")
            revoked[0] = Revocations.of([str(named("shop"))])
            with pytest.raises((httpx2.TransportError, ssl.SSLError)):
                await http.get("/secret")
            with pytest.raises(httpx2.ConnectError):
                await http.get("/secret")

    with serving(remembering(received), tls=server_context(source("shop"))) as server:
        asyncio.run(call(server.port))
    assert received == ["/before"]


def test_leaves_and_the_root_are_exchanged_mid_traffic_without_a_failed_request() -> None:
    new = CertificateAuthority.create(DOMAIN)
    registry, shop, front = Connections(), source("shop"), source("front")
    steps = (
        [TrustBundle.of(DOMAIN, CA.root_der, new.root_der)],
        [TrustBundle.of(DOMAIN, new.root_der, CA.root_der)],
        [TrustBundle.of(DOMAIN, new.root_der)],
    )

    def renew(party: SvidSource, name: str, ca: CertificateAuthority) -> None:
        key, svid = issued(name, ca=ca)
        party.update(key=key, svid=svid)

    with (
        serving(answer, tls=server_context(shop), connections=registry) as server,
        Load(client_context(front, named("shop")), server.port) as load,
    ):
        load.more()
        renew(shop, "shop", CA)
        load.more()
        for bundles in steps:
            for party in (shop, front):
                party.update(bundles=BundleSet(*bundles))
            if len(bundles[0].roots) > 1 and bundles[0].roots[0] == new.root_der:
                renew(shop, "shop", new)
                registry.close_older_than(0.0)
                load.more()
                renew(front, "front", new)
            for _ in range(3):  # what services do each second
                registry.close_retiring(shop.current().roots)
                load.more()
            if len(bundles[0].roots) == 1:
                assert registry.close_untrusted(shop.current().roots) == 0
        load.more()
    assert load.failures == []
    assert load.done > 100


def test_dropping_the_root_without_the_steps_before_does_fail_requests() -> None:
    new = CertificateAuthority.create(DOMAIN)
    registry, shop, front = Connections(), source("shop"), source("front")
    with (
        serving(answer, tls=server_context(shop), connections=registry) as server,
        Load(client_context(front, named("shop")), server.port) as load,
    ):
        load.more()
        shop.update(bundles=BundleSet(TrustBundle.of(DOMAIN, new.root_der)))
        registry.close_untrusted(shop.current().roots)
        wait_for(lambda: load.failures)
    assert load.failures


def test_limits_of_a_server_are_its_own() -> None:
    context = client_context(source("front"), named("shop"))
    with (
        serving(answer, tls=server_context(source("shop")), limits=Limits(header_bytes=512)) as server,
        client(context, server.port) as http,
    ):
        assert http.get("/", headers={"x-big": "x" * 2000}).status_code == 431
        assert http.get("/").status_code == 200
