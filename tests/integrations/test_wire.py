"""Bytes at a real socket, over mutual TLS: what is malformed never reaches the application, and nobody hangs."""

import asyncio
import select
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.config import Config, EdgeConfig
from hauberk.core.limits import Limits
from hauberk.crypto.keyring import Pseudonyms
from hauberk.integrations.asgi import Receive, Scope, Send
from hauberk.integrations.uvicorn import new_loop
from tests.integrations.stage import (
    CALLER,
    PATIENCE,
    POLICY,
    Answer,
    Memory,
    Service,
    Wire,
    identity,
    make_runtime,
    serving,
    until,
)

HOST = b"Host: server\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
LIMITS = Limits(body_bytes=50_000, header_bytes=20_000)


class Listener:
    """An application that notes which requests it got whole, and answers with what it read."""

    def __init__(self) -> None:
        self.whole: list[str] = []
        self.started: list[str] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.ended = threading.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.started.append(scope["path"])
        self.headers.append(list(scope["headers"]))
        try:
            if scope["path"] == "/wait":
                while (await receive())["type"] != "http.disconnect":
                    pass
                return
            if scope["path"] == "/stream":
                await self._stream(receive, send)
                return
            body = await self._body(receive)
            if body is None:
                return
            self.whole.append(scope["path"])
            scope["headers"].append((b"x-added", b"by the application"))
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
            )
            await send({"type": "http.response.body", "body": body})
        finally:
            self.ended.release()

    async def _body(self, receive: Receive) -> bytes | None:
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += bytes(message["body"])
            if not message["more_body"]:
                return body

    async def _stream(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(self._gone(receive))
        while not gone.done():
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})
            await asyncio.wait([gone], timeout=0.02)

    async def _gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


APP = Listener()
MEMORY = Memory()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    runtime = make_runtime(MEMORY, source=identity("server"), limits=LIMITS)
    with serving(APP, runtime) as running:
        yield running


@pytest.fixture(scope="module")
def hasty() -> Iterator[Service]:
    """Waits for nobody longer than a second or two."""
    runtime = make_runtime(source=identity("server"), limits=Limits(body_seconds=1.0, header_bytes=1000))
    with serving(APP, runtime, head_seconds=1.0, keep_alive=2) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh() -> None:
    APP.whole.clear()
    APP.started.clear()
    APP.headers.clear()


def te(value: bytes, version: bytes = b"1.1") -> bytes:
    return b"POST / HTTP/%s\r\n" % version + HOST + b"Transfer-Encoding:" + value + b"\r\n\r\n0\r\n\r\n"


def cl(*values: bytes) -> bytes:
    return POST + b"".join(b"Content-Length:%s\r\n" % value for value in values) + b"\r\nhello"


MALFORMED = {
    "length and coding": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "equal lengths": cl(b" 5", b" 5"),
    "different lengths": cl(b" 5", b" 6"),
    "listed lengths": cl(b" 5, 5"),
    "signed length": cl(b" +5"),
    "negative length": cl(b" -5"),
    "hexadecimal length": cl(b" 0x5"),
    "empty length": cl(b" "),
    "split length": cl(b" 1 2"),
    "endless length": cl(b" " + b"9" * 30),
    "length before its colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "gzip": te(b" gzip"),
    "chunked then identity": te(b" chunked, identity"),
    "identity": te(b" identity"),
    "almost chunked": te(b" xchunked"),
    "quoted chunked": te(b' "chunked"'),
    "chunked after a vertical tab": te(b"\x0bchunked"),
    "folded coding": te(b"\r\n chunked"),
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding before its colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "coding in 1.0": te(b" chunked", b"1.0"),
    "folded value": GET + b"X-A: b\r\n c\r\n\r\n",
    "folded first line": b"GET / HTTP/1.1\r\n Host: server\r\n\r\n",
    "NUL in a value": GET + b"X-A: b\x00c\r\n\r\n",
    "bare CR in a value": GET + b"X-A: b\rc\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: server\n\n",
    "bare LF in a value": GET + b"X-A: b\nX-C: d\r\n\r\n",
    "control byte in a value": GET + b"X-A: b\x01c\r\n\r\n",
    "DEL in a value": GET + b"X-A: b\x7fc\r\n\r\n",
    "nameless field": GET + b": x\r\n\r\n",
    "space in a name": GET + b"X A: x\r\n\r\n",
    "bracket in a name": GET + b"X(A: x\r\n\r\n",
    "NUL in a name": GET + b"X\x00A: x\r\n\r\n",
    "no colon": GET + b"XA\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the target": b"GET /a\x00b HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the query": b"GET /?a=\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw bytes in the target": b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "another host in the target": b"GET http://evil/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "another port in the target": b"GET http://server:80/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a relative target": b"GET admin HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel": b"CONNECT server:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "lower-case method": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown method": b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n",
    "leading space": b" GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "tabs": b"GET\t/\tHTTP/1.1\r\n" + HOST + b"\r\n",
    "trailing space": b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "version 1": b"GET / HTTP/1\r\n" + HOST + b"\r\n",
    "version 0.9 without version": b"GET /\r\n\r\n",
    "lower-case version": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS in TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "signed chunk": CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
    "hexadecimal chunk": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk with LF": CHUNKED + b"3\nabc\n0\n\n",
    "chunk that ends late": CHUNKED + b"3\r\nabcXX0\r\n\r\n",
    "endless chunk": CHUNKED + b"FFFFFFFFFFFFFFFFFF\r\nabc",
    "chunk and space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n",
    "chunk extension with LF": CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "a length in the trailer": CHUNKED + b"0\r\nContent-Length: 9\r\n\r\n",
}
REFUSED_BY_GUARDS = {
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": GET + HOST + b"\r\n",
    "Host with a user": b"GET / HTTP/1.1\r\nHost: a@server\r\n\r\n",
    "Host with a path": b"GET / HTTP/1.1\r\nHost: server/x\r\n\r\n",
    "Host with a space": b"GET / HTTP/1.1\r\nHost: a server\r\n\r\n",
    "Hosts listed": b"GET / HTTP/1.1\r\nHost: server, evil\r\n\r\n",
    "empty Host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "Host with a wordy port": b"GET / HTTP/1.1\r\nHost: server:http\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "encoded dots": b"GET /%2e%2e/admin HTTP/1.1\r\n" + HOST + b"\r\n",
    "encoded slash": b"GET /a%2fadmin HTTP/1.1\r\n" + HOST + b"\r\n",
    "double slash": b"GET //admin HTTP/1.1\r\n" + HOST + b"\r\n",
    "path parameter": b"GET /;/admin HTTP/1.1\r\n" + HOST + b"\r\n",
    "encoded NUL": b"GET /a%00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "double slash in an absolute target": b"GET https://server//admin HTTP/1.1\r\n" + HOST + b"\r\n",
    "200 fields": GET + b"".join(b"X-%d: 1\r\n" % number for number in range(200)) + b"\r\n",
    "a long target": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
}


AMBIGUOUS = {
    "gzip then chunked": te(b" gzip, chunked"),
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": GET + HOST + b"\r\n",
}
LET_THROUGH = {
    "version 2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "version 0.9": b"GET / HTTP/0.9\r\n" + HOST + b"\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "userinfo": b"GET https://evil@server/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "scheme": b"GET ftp://server/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "another scheme than the connection's": b"GET http://server/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "tunnel to a path": b"CONNECT / HTTP/1.1\r\n" + HOST + b"\r\n",
    "upgrade with a body": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    "WebSocket": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}


def assert_refused(answer: Answer) -> None:
    """A problem of the 4xx kind, or a connection that is closed without a word."""
    assert answer.status == 0 or 400 <= answer.status < 500
    if answer.status:
        assert answer.code.startswith("HBK-")


@pytest.fixture(scope="module")
def battery(service: Service) -> dict[str, tuple[Answer, int, list[str]]]:
    """What each malformed request got, how many answers followed, and what the application got whole meanwhile."""
    APP.whole.clear()
    wires = {name: service.connect() for name in MALFORMED}
    for name, wire in wires.items():
        wire.send(MALFORMED[name] + SMUGGLED)
    first = {name: wire.answer() for name, wire in wires.items()}
    second = {name: wire.answer().status for name, wire in wires.items()}
    for wire in wires.values():
        wire.close()
    return {name: (first[name], second[name], list(APP.whole)) for name in MALFORMED}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_and_what_is_smuggled_behind_it_never_reach_the_application(
    battery: dict[str, tuple[Answer, int, list[str]]], name: str
) -> None:
    answer, second, whole = battery[name]
    assert_refused(answer)
    assert answer.headers.get("connection", "close") == "close"
    assert second == 0
    assert whole == []


def test_the_battery_is_large() -> None:
    assert len(MALFORMED) >= 30


@pytest.mark.parametrize("name", REFUSED_BY_GUARDS)
def test_a_request_that_is_not_canonical_never_reaches_the_application(service: Service, name: str) -> None:
    assert_refused(service.ask(REFUSED_BY_GUARDS[name]))
    assert APP.started == []


@pytest.mark.parametrize("name", sorted(AMBIGUOUS))
def test_after_ambiguous_framing_nothing_more_is_read(service: Service, name: str) -> None:
    with service.connect() as wire:
        answer = wire.ask(AMBIGUOUS[name] + SMUGGLED)
        assert answer.status == 400
        assert answer.headers.get("connection") == "close"
        assert wire.answer().status == 0
    assert APP.whole == []


@pytest.mark.parametrize("name", sorted(LET_THROUGH))
def test_what_the_parser_lets_through_is_refused_too(service: Service, name: str) -> None:
    assert_refused(service.ask(LET_THROUGH[name]))
    assert APP.started == []


def test_sane_requests_of_every_shape_are_served(service: Service) -> None:
    for data, body in (
        (GET + b"\r\n", b""),
        (b"\r\n\r\n" + GET + b"\r\n", b""),
        (b"GET https://server/ HTTP/1.1\r\n" + HOST + b"\r\n", b""),
        (b"GET / HTTP/1.0\r\n\r\n", b""),
        (POST + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (POST + b"Content-Length: 0\r\n\r\n", b""),
        (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde"),
        (POST + b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", b""),
    ):
        answer = service.ask(data)
        assert (answer.status, answer.body) == (200, body)


def test_a_trailer_is_not_appended_to_the_headers(service: Service) -> None:
    answer = service.ask(CHUNKED + b"1\r\na\r\n0\r\nX-Team: admins\r\n\r\n")
    assert answer.body == b"a"
    assert b"x-team" not in dict(APP.headers[0])


def test_no_upgrade_ever_switches_protocols(service: Service) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert service.ask(GET + upgrade + key).status != 101
    assert service.ask(GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n").status != 101


def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    with service.connect() as wire:
        wire.send(b"".join(POST.replace(b"/ ", b"/%d " % n) + b"Content-Length: 1\r\n\r\n%d" % n for n in range(9)))
        assert [wire.answer().body for _ in range(9)] == [b"%d" % n for n in range(9)]
    assert APP.whole == [f"/{n}" for n in range(9)]


def test_a_refusal_in_the_middle_of_a_pipeline_takes_its_turn(service: Service) -> None:
    with service.connect() as wire:
        wire.send(GET + b"\r\n" + GET.replace(b"/ ", b"/admin ") + b"\r\n" + GET + b"\r\n")
        assert [wire.answer().status for _ in range(3)] == [200, 403, 200]


def test_rubbish_after_a_good_request_ends_the_connection_after_the_good_answer(service: Service) -> None:
    with service.connect() as wire:
        wire.send(GET + b"\r\n" + b"\x00\x01rubbish\r\n\r\n" + SMUGGLED)
        assert wire.answer().status == 200
        assert_refused(wire.answer())
    assert "/smuggled" not in APP.whole


def test_what_an_application_does_to_its_headers_is_gone_with_the_request(service: Service) -> None:
    with service.connect() as wire:
        for _ in range(3):
            assert wire.ask(GET + b"X-Team: a\r\n\r\n").status == 200
    with service.connect() as wire:
        assert wire.ask(GET + b"X-Team: a\r\n\r\n").status == 200
    assert APP.headers == [[(b"host", b"server"), (b"x-team", b"a")]] * 4


def test_a_forged_header_reaches_nobody_and_without_the_guard_it_does(service: Service) -> None:
    forged = GET + b"X-Forwarded-Client-Cert: By=spiffe://x;URI=spiffe://boss\r\nX_Forwarded_For: 127.0.0.1\r\n\r\n"
    with service.connect() as wire:
        for _ in range(2):  # the second time over the same connection
            assert wire.ask(forged).status == 200
    assert APP.headers == [[(b"host", b"server")]] * 2
    with serving(APP) as bare:
        assert bare.ask(forged).status == 200
    assert dict(APP.headers[-1])[b"x-forwarded-client-cert"] == b"By=spiffe://x;URI=spiffe://boss"
    assert dict(APP.headers[-1])[b"x_forwarded_for"] == b"127.0.0.1"


def test_a_trusted_hop_keeps_its_claims_and_nobody_else_does() -> None:
    config = Config(edge=EdgeConfig(trusted_hops=(CALLER,)))
    policy = POLICY.replace("sa/caller]", "sa/caller, cluster.local/ns/shop/sa/other]")
    runtime = make_runtime(policy=policy, source=identity("server"), config=config)
    forged = GET + b"X-Forwarded-For: 10.9.9.9\r\nX_Real_Ip: 10.9.9.9\r\n\r\n"
    with serving(APP, runtime) as service, service.connect() as hop, service.connect("other") as other:
        for _ in range(2):
            assert hop.ask(forged).status == 200
            assert dict(APP.headers[-1])[b"x-forwarded-for"] == b"10.9.9.9"
            assert dict(APP.headers[-1])[b"x_real_ip"] == b"10.9.9.9"
            assert other.ask(forged).status == 200
            assert APP.headers[-1] == [(b"host", b"server")]


REQUESTS = [
    GET + b"\r\n",
    GET + b"\r\n",
    GET.replace(b"/ ", b"/admin ") + b"\r\n",
    GET.replace(b"/ ", b"/?a=b ") + b"\r\n",
    GET.replace(b"GET", b"DELETE") + b"\r\n",
    GET + b"X-Forwarded-For: 1\r\n\r\n",
    GET + b"X-Team: a\r\n\r\n",
    GET + b"X-Team: b\r\n\r\n",
    GET.replace(b"server", b"other") + b"\r\n",
    POST + b"Content-Length: 3\r\n\r\nabc",
    POST + b"Content-Length: 3\r\n\r\nxyz",
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    CHUNKED + b"0\r\n\r\n",
]
FIRST_ANSWERS: dict[bytes, tuple[int, bytes, str]] = {}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=10))
def test_no_answer_depends_on_what_the_connection_was_used_for_before(service: Service, requests: list[bytes]) -> None:
    APP.headers.clear()
    with service.connect() as wire:
        for request in requests:
            answer = wire.ask(request)
            headers = repr(APP.headers[-1]) if answer.status == 200 else ""
            said = (answer.status, answer.body if answer.status == 200 else b"", headers)
            assert said == FIRST_ANSWERS.setdefault(request, said)
            assert (answer.status == 200) is (b"/admin" not in request)
            assert "forwarded" not in headers
    assert len(APP.headers) == sum(b"/admin" not in request for request in requests)


def test_a_body_over_the_limit_is_refused_on_a_connection_that_was_just_allowed_an_equal_head(
    service: Service,
) -> None:
    with service.connect() as wire:
        for _ in range(2):
            assert wire.ask(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n").body == b"abc"
        assert wire.ask(CHUNKED + (b"2710\r\n" + b"a" * 10_000 + b"\r\n") * 6 + b"0\r\n\r\n").code == "HBK-404"


def test_without_the_frame_the_same_requests_reach_the_application() -> None:
    with serving(APP) as bare:
        for name in ("no Host", "two Hosts", "Host with a user", "encoded dots", "double slash", "path parameter"):
            assert bare.ask(REFUSED_BY_GUARDS[name]).status == 200
    assert len(APP.whole) == 6


def test_a_header_of_a_megabyte_is_refused(service: Service) -> None:
    answer = service.ask(GET + b"X-A: " + b"a" * 1_000_000 + b"\r\n\r\n")
    assert (answer.status, answer.code) == (431, "HBK-403")
    assert APP.started == []


def test_an_endless_head_is_refused_before_it_ends(service: Service) -> None:
    with service.connect() as wire:
        wire.send(GET)
        for _ in range(200):
            wire.send(b"X-A: a\r\n" * 500)
            if select.select([wire.sock], [], [], 0.02)[0]:
                break
        answer = wire.answer()
        assert (answer.status, answer.code) == (431, "HBK-403")


def test_an_unfinished_head_over_the_limit_is_refused_at_once_and_not_when_its_time_is_over(hasty: Service) -> None:
    answer = hasty.ask(GET + b"X-A: a\r\n" * 500)
    assert (answer.status, answer.code) == (431, "HBK-403")


def test_an_announced_body_over_the_limit_is_refused_before_it_is_read(service: Service) -> None:
    answer = service.ask(POST + b"Content-Length: 50001\r\n\r\n")
    assert (answer.status, answer.code) == (413, "HBK-404")
    assert APP.started == []


def test_a_chunked_body_over_the_limit_is_refused_while_it_is_read(service: Service) -> None:
    answer = service.ask(CHUNKED + (b"2710\r\n" + b"a" * 10_000 + b"\r\n") * 6 + b"0\r\n\r\n")
    assert (answer.status, answer.code) == (413, "HBK-404")
    assert APP.whole == []
    (event,) = MEMORY.wait_for(1, incident=answer.json()["incident"])
    assert (event.type, event.code, event.outcome) == ("edge.denied", "HBK-404", "deny")


def test_bodies_at_the_limit_are_served(service: Service) -> None:
    whole = b"a" * 50_000
    assert service.ask(POST + b"Content-Length: 50000\r\n\r\n" + whole).body == whole
    assert service.ask(CHUNKED + b"c350\r\n" + whole + b"\r\n0\r\n\r\n").body == whole


@pytest.mark.parametrize("head", [POST + b"Content-Length: 1000\r\n\r\nabc", CHUNKED + b"3\r\nabc\r\n"])
def test_a_body_that_does_not_come_is_given_up(hasty: Service, head: bytes) -> None:
    answer = hasty.ask(head)
    assert (answer.status, answer.code) == (408, "HBK-407")
    assert APP.whole == []


def test_a_head_that_does_not_end_is_given_up(hasty: Service) -> None:
    with hasty.connect() as wire:
        answer = wire.ask(GET + b"X-A: a")
        assert (answer.status, answer.code) == (408, "HBK-407")
        assert wire.answer().status == 0


def test_a_connection_on_which_nothing_is_said_is_closed(hasty: Service) -> None:
    with hasty.connect() as wire:
        assert wire.everything() == b""


def test_a_body_that_drips_in_after_its_answer_is_given_up(hasty: Service) -> None:
    with hasty.connect() as wire:
        assert wire.ask(POST.replace(b"/ ", b"/admin ") + b"Content-Length: 1000\r\n\r\n").status == 403
        assert closes_while_dripping(wire.sock, seconds=PATIENCE)


def closes_while_dripping(sock: socket.socket, seconds: float) -> bool:
    """Send a byte now and then; tell whether the other side closed."""
    end = time.monotonic() + seconds
    sock.settimeout(0.2)
    while time.monotonic() < end:
        try:
            sock.sendall(b"a")
            if sock.recv(1) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_a_client_that_leaves_ends_the_task_and_the_record_stays(service: Service) -> None:
    with service.connect() as wire:
        wire.send(GET.replace(b"/ ", b"/wait ") + b"\r\n")
        until(lambda: "/wait" in APP.started)
    until(lambda: service.tasks() == 0)
    until(lambda: [event for event in MEMORY.events(outcome="allow") if event.data["path"] == "/wait"])


def test_a_client_that_leaves_in_the_middle_of_a_body_or_a_stream_leaves_no_task(service: Service) -> None:
    with service.connect() as wire:
        wire.send(POST + b"Content-Length: 100\r\n\r\nabc")
        until(lambda: "/" in APP.started)
    with service.connect() as wire:
        wire.send(GET.replace(b"/ ", b"/stream ") + b"\r\n")
        assert wire.sock.recv(20)
    until(lambda: service.tasks() == 0)


@pytest.mark.parametrize("path", ["/wait", "/stream"])
def test_a_client_that_leaves_with_requests_in_the_pipeline_leaves_no_task(path: str) -> None:
    runtime = make_runtime(source=identity("server"))
    with serving(APP, runtime) as service:
        with service.connect() as wire:
            wire.send((GET.replace(b"/ ", path.encode() + b" ") + b"\r\n") * 2)
            until(lambda: path in APP.started)
        until(lambda: service.tasks() == 0)


def test_refusals_by_the_parser_are_recorded_under_the_incident_the_caller_was_told(service: Service) -> None:
    answer = service.ask(GET + b"X-A: b\x00c\r\n\r\n")
    (event,) = MEMORY.wait_for(1, incident=answer.json()["incident"])
    assert (event.type, event.code, event.actor) == ("edge.denied", "HBK-401", "spiffe://example.org/ns/shop/sa/caller")


def test_many_clients_at_once_are_all_answered(service: Service) -> None:
    statuses: list[int] = []

    def client() -> None:
        with service.connect() as wire:
            statuses.extend(wire.ask(GET + b"\r\n").status for _ in range(20))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert statuses == [200] * 160


# more connections than there is room for


def idle(service: Service, count: int) -> list[socket.socket]:
    """Connect and say nothing, not even the first byte of a handshake."""
    return [socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) for _ in range(count)]


def hung_up(sock: socket.socket) -> bool:
    """Tell whether the server closed this connection, without waiting."""
    sock.setblocking(False)  # the standard library's signature
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_stalled_handshakes_are_bounded_and_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvloop, "new_event_loop", partial(new_loop, handshake_seconds=1.0))
    with serving(APP, make_runtime(source=identity("server")), max_connections=8) as service:
        silent = idle(service, 30)
        until(lambda: sum(map(hung_up, silent)) >= 22)  # at once: there is no room for them
        assert len(service.server.room) <= 8
        until(lambda: all(map(hung_up, silent)))  # a handshake may not take longer than a second
        assert service.ask(GET + b"\r\n").status == 200
        for sock in silent:
            sock.close()


def test_without_a_small_bound_and_a_short_time_all_of_them_keep_their_descriptors() -> None:
    with serving(APP, make_runtime(source=identity("server"))) as service:
        silent = idle(service, 30)
        until(lambda: len(service.server.room) == 30)
        assert not any(map(hung_up, silent))
        for sock in silent:
            sock.close()


def test_failed_handshakes_take_up_no_room() -> None:
    with serving(APP, make_runtime(source=identity("server")), max_connections=4) as service:
        for _ in range(5):
            rubbish = idle(service, 4)
            for sock in rubbish:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            until(lambda: len(service.server.room) == 0)
            for sock in rubbish:
                sock.close()
        assert service.ask(GET + b"\r\n").status == 200


def test_on_a_loop_of_asyncio_handshakes_that_ended_give_their_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvloop, "new_event_loop", asyncio.new_event_loop)
    with serving(APP, make_runtime(source=identity("server")), max_connections=4) as service:
        silent = idle(service, 10)
        until(lambda: sum(map(hung_up, silent)) >= 6)
        for sock in silent:
            sock.close()
        until(lambda: len(service.server.room) == 0)
        assert service.ask(GET + b"\r\n").status == 200


@pytest.mark.parametrize("tls", [True, False])
def test_a_connection_beyond_the_bound_is_closed_before_anything_is_parsed(*, tls: bool) -> None:
    APP.started.clear()
    with serving(APP, tls=tls, max_connections=3) as service:
        wires = [service.connect() for _ in range(3)]
        until(lambda: len(service.server.room) == 3)
        assert [wire.ask(GET + b"\r\n").status for wire in wires] == [200] * 3
        (one_more,) = idle(service, 1)
        until(lambda: hung_up(one_more))
        one_more.close()
        assert len(APP.started) == 3
        wires.pop().close()
        until(lambda: len(service.server.room) == 2)
        assert service.ask(GET + b"\r\n").status == 200
        for wire in wires:
            wire.close()


def test_no_bound_is_beyond_half_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hauberk.integrations.uvicorn.resource.getrlimit", lambda _: (1024, 1024))
    with serving(APP, tls=False) as service:
        assert service.server.room.limit == 512


# from where


def test_a_flood_of_rubbish_from_one_address_does_not_hide_that_of_another() -> None:
    memory = Memory()
    with serving(APP, make_runtime(memory), tls=False) as service:

        def rubbish(address: str) -> str:
            with socket.create_connection(
                ("127.0.0.1", service.port), timeout=PATIENCE, source_address=(address, 0)
            ) as sock:
                return str(Wire(sock).ask(GET + b"X-A: b\x00c\r\n\r\n").json()["incident"])

        for _ in range(30):
            rubbish("127.0.0.1")
        incident = rubbish("127.0.0.2")
        (event,) = memory.wait_for(1, incident=incident)
    assert (event.type, event.actor) == ("edge.denied", "")
    assert event.address == Pseudonyms(bytes(32)).of("address", "127.0.0.2")


def test_a_header_reaches_the_application_without_the_white_space_behind_it(service: Service) -> None:
    assert service.ask(GET + b"X-Role: admin \t\r\n\r\n").status == 200
    assert (b"x-role", b"admin") in APP.headers[-1]
