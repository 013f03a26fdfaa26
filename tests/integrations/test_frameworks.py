"""Four frameworks behind the frame, under real uvicorn over mutual TLS: same denials, same silence about internals."""

import gc
import logging
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.integrations.apps import LIFE, MAKERS, PIECES, SECRET, django
from tests.integrations.stage import (
    CALLER,
    PATIENCE,
    STRANGER,
    Answer,
    Memory,
    Service,
    Wire,
    identity,
    make_runtime,
    serving,
    until,
)

# When sending or receiving fails, Django leaves its buffer of the body to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")


class Dressed(NamedTuple):
    name: str
    service: Service
    memory: Memory
    bare: Service  # the same application without protection


@pytest.fixture(scope="module", params=sorted(MAKERS))
def dressed(request: pytest.FixtureRequest) -> Iterator[Dressed]:
    memory = Memory()
    make = MAKERS[request.param]
    logging.disable(logging.CRITICAL)  # frameworks and servers print the tracebacks this is about
    with serving(make(), make_runtime(memory, source=identity("server"))) as service, serving(make()) as bare:
        yield Dressed(request.param, service, memory, bare)
    logging.disable(logging.NOTSET)
    gc.collect()


def post(body: bytes, path: str = "/echo") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def assert_silent(answer: Answer) -> None:
    """Nothing of the inside is in an answer."""
    everything = answer.body + repr(answer.headers).encode()
    for word in (SECRET.encode(), b"Traceback", b"Unreachable", b".py", b"<html", b"Error</h1>"):
        assert word not in everything


def test_an_allowed_caller_is_served_and_the_application_sees_who_it_is(dressed: Dressed) -> None:
    answer = dressed.service.get("/peer")
    assert (answer.status, answer.json()) == (200, {"peer": CALLER})
    found = until(lambda: [event for event in dressed.memory.events(outcome="allow") if event.data["path"] == "/peer"])
    assert found[0].actor == CALLER
    assert found[0].rule == "ns[shop]-policy[callers]-rule[0]"


def test_a_stranger_is_denied_and_the_denial_is_recorded_before_the_answer(dressed: Dressed) -> None:
    answer = dressed.service.get("/peer", "stranger")
    assert (answer.status, answer.code) == (403, "HBK-300")
    (event,) = dressed.memory.events(incident=answer.json()["incident"])
    assert (event.actor, event.outcome, event.type) == (STRANGER, "deny", "policy.denied")
    assert_silent(answer)
    assert dressed.bare.get("/peer", "stranger").status == 200


def test_a_denied_path_is_denied_to_everybody(dressed: Dressed) -> None:
    assert dressed.service.get("/admin").code == "HBK-300"
    assert dressed.service.get("/admin/x", method="POST").code == "HBK-300"


def test_an_exception_becomes_a_constant_answer_and_its_cause_is_in_the_ledger(dressed: Dressed) -> None:
    answer = dressed.service.get("/boom")
    assert (answer.status, answer.code) == (500, "HBK-406")
    assert_silent(answer)
    (event,) = dressed.memory.events(incident=answer.json()["incident"])
    assert (event.type, event.outcome, event.actor) == ("request.failed", "failed", CALLER)
    if dressed.name == "django":  # it answers instead of raising, unless told otherwise: see below
        assert event.data["cause"] == "the application answered 500"
    else:
        assert SECRET in str(event.data["cause"])
        assert "Unreachable" in str(event.data["cause"])


def test_django_hands_the_cause_over_when_it_is_told_to_propagate() -> None:
    from django.test import override_settings  # noqa: PLC0415  # needs the settings made by django()

    memory = Memory()
    app = django()
    with override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True):
        with serving(app, make_runtime(memory, source=identity("server"))) as service:
            answer = service.get("/boom")
        assert answer.code == "HBK-406"
        (event,) = memory.events(incident=answer.json()["incident"])
        assert SECRET in str(event.data["cause"])


def test_a_500_of_the_frameworks_own_is_replaced(dressed: Dressed) -> None:
    answer = dressed.service.get("/own-500")
    assert (answer.status, answer.code) == (500, "HBK-406")
    assert_silent(answer)


def test_without_protection_internals_are_told(dressed: Dressed) -> None:
    assert SECRET.encode() in dressed.bare.get("/own-500").body
    if dressed.name != "bare":  # debug pages
        assert (
            SECRET.encode() in dressed.bare.ask(b"GET /boom HTTP/1.1\r\nHost: server\r\nAccept: text/html\r\n\r\n").body
        )


@pytest.mark.parametrize("path", ["/nothing-here", "/teapot", "/items/x"])
def test_errors_the_application_means_are_left_alone(dressed: Dressed, path: str) -> None:
    answer, plain = dressed.service.get(path), dressed.bare.get(path)
    expected = {"/nothing-here": 404, "/teapot": 418, "/items/x": 422}[path]
    assert answer.status == plain.status == expected
    assert answer.body == plain.body or dressed.name == "django"  # its page for 404 names the port
    assert answer.headers["content-type"] == plain.headers["content-type"]


def test_streams_come_through_unchanged(dressed: Dressed) -> None:
    answer = dressed.service.get("/stream")
    assert (answer.status, answer.body) == (200, b"".join(PIECES))
    assert answer.headers["transfer-encoding"] == "chunked"


def test_an_exception_after_the_response_began_cuts_the_connection(dressed: Dressed) -> None:
    with dressed.service.connect() as wire:
        answer = wire.ask(b"GET /late HTTP/1.1\r\nHost: server\r\n\r\n")
        assert (answer.status, answer.body, answer.error) == (200, PIECES[0], "cut")
        assert wire.everything() == b""
    found = until(lambda: [e for e in dressed.memory.events(type="request.failed") if e.data["path"] == "/late"])
    assert SECRET in str(found[0].data["cause"])


def test_bodies_arrive_whole(dressed: Dressed) -> None:
    assert dressed.service.ask(post(b"a" * 100_000)).body == b"100000"
    chunked = (
        b"POST /echo HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert dressed.service.ask(chunked).body == b"5"


def test_an_announced_body_over_the_limit_is_refused(dressed: Dressed) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: server\r\nContent-Length: 1048577\r\n\r\n"
    assert dressed.service.ask(head).code == "HBK-404"


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_chunked_body_over_the_limit_is_refused_and_without_protection_read(name: str) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked = head + (b"40000\r\n" + b"a" * 0x40000 + b"\r\n") * 5 + b"0\r\n\r\n"
    with serving(MAKERS[name](), make_runtime(source=identity("server"))) as service:
        answer = service.ask(chunked)
        assert (answer.status, answer.code) == (413, "HBK-404")
    with serving(MAKERS[name]()) as bare:
        assert bare.ask(chunked).body == b"%d" % (5 * 0x40000)
    gc.collect()


def test_nobody_without_a_certificate_gets_as_far_as_http(dressed: Dressed) -> None:
    request = b"GET /peer HTTP/1.1\r\nHost: server\r\n\r\n"
    with socket.create_connection(("127.0.0.1", dressed.service.port), timeout=PATIENCE) as plain:
        plain.sendall(request)
        assert not plain.recv(1000).startswith(b"HTTP")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", dressed.service.port), timeout=PATIENCE) as plain:
        anonymous = Wire(context.wrap_socket(plain))  # TLS 1.3: the client finds out when it reads
        anonymous.send(request)
        assert anonymous.answer().status == 0
        anonymous.close()


def test_head_requests_get_the_same_without_a_body(dressed: Dressed) -> None:
    answer = dressed.service.get("/admin", method="HEAD")
    assert (answer.status, answer.body) == (403, b"")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", ["bare", "starlette", "fastapi"])
def test_startup_and_shutdown_reach_the_application(name: str) -> None:
    LIFE.clear()
    with serving(MAKERS[name](), make_runtime(source=identity("server"))) as service:
        assert LIFE == ["lifespan.startup"]
        assert service.get("/peer").status == 200
    assert LIFE == ["lifespan.startup", "lifespan.shutdown"]


def test_fastapi_validation_still_answers_422_and_an_oversized_json_body_does_not_become_400() -> None:
    with serving(MAKERS["fastapi"](), make_runtime(source=identity("server"))) as service:
        answer = service.ask(post(b'{"a": "x"}', "/orders"))
        assert (answer.status, answer.json()["detail"][0]["loc"]) == (422, ["body", "a"])
        piece = b"80000\r\n" + b"1" * 0x80000 + b"\r\n"
        head = b"POST /orders HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\n"
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        assert service.ask(head + piece * 3 + b"0\r\n\r\n").code == "HBK-404"
