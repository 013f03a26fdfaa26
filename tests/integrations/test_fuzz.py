"""Any bytes at all: never a word about the inside, never a hang, and the next caller is served."""

import logging
import re
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.limits import Limits
from tests.integrations.apps import SECRET, bare
from tests.integrations.stage import PATIENCE, Memory, Service, make_runtime, serving, until

OPEN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everybody, namespace: shop}
spec: {rules: [{to: [{operation: {notPaths: [/admin]}}]}]}
"""
PIECES = [
    *(b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b"PRI "),
    *(b"/", b"/echo", b"/boom", b"/late", b"/own-500", b"/admin", b"/peer", b"//", b"/%2e%2e", b"*", b"http://a/echo"),
    *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b":", b"\x00"),
    *(b"Host: a\r\n", b"Host: a\r\n", b"Content-Length: 5\r\n", b"Content-Length: 99999999\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    *(b"Expect: 100-continue\r\n", b"X_Forwarded_For: 1\r\n", b"X-A: " + b"a" * 3000 + b"\r\n"),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nX-T: 1\r\n\r\n", b"hello", b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"),
]
SENDS = st.lists(st.one_of(st.sampled_from(PIECES), st.sampled_from(PIECES), st.binary(max_size=40)), max_size=14)
ANSWERS = re.compile(rb"(?:HTTP/1\.1 (?:100 Continue\r\n\r\n|\d{3} [ -~]*\r\n(?s:.)*))?\Z")
INTERNALS = re.compile(rb"Traceback|File \"|\.py|Unreachable|Exception|HttpParser|" + SECRET.encode())


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    logging.disable(logging.CRITICAL)  # each malformed request is a line of the server's log
    limits = Limits(header_bytes=4000, body_bytes=1000, body_seconds=1.0)
    with serving(bare, make_runtime(Memory(), policy=OPEN, limits=limits), tls=False, head_seconds=1.0) as running:
        yield running
    logging.disable(logging.NOTSET)


def everything(service: Service, sends: list[bytes]) -> bytes:
    """Send piece by piece, hang up, and read all there is; a time-out is a hang."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as sock:
        received = b""
        try:
            for data in sends:
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while chunk := sock.recv(65_536):
                received += chunk
        except (ConnectionError, OSError) as gone:
            if isinstance(gone, TimeoutError):
                raise
        return received


@settings(max_examples=300, deadline=None)
@given(SENDS)
def test_no_bytes_bring_out_internals_hang_a_connection_or_stop_the_server(
    service: Service, sends: list[bytes]
) -> None:
    received = everything(service, sends)
    assert ANSWERS.match(received)
    assert not INTERNALS.search(received)
    assert service.get("/echo", method="POST", headers="Content-Length: 0\r\n").body == b"0"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"b"]), max_size=5), st.lists(st.integers(0, 200), max_size=6))
def test_a_good_request_cut_into_any_pieces_is_the_same_request(
    service: Service, pieces: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(b"1\r\n%s\r\n" % piece for piece in pieces) + b"0\r\n\r\n"
    whole = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    with service.connect() as wire:
        for start, end in pairwise(edges):
            wire.send(whole[start:end])
        assert wire.answer("POST").body == b"%d" % len(pieces)


def test_after_all_that_no_task_is_left(service: Service) -> None:
    until(lambda: service.tasks() == 0)
    until(lambda: len(service.server.connections) == 0)
