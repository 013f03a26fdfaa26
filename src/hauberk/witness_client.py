"""Reaching witnesses over HTTP: the transport of `records.cosign`, on httpx2.

Nothing is taken from the environment (proxies, certificates), redirects are not followed, answers are bounded, and
each question ends in time whatever the other side does: it is put in a thread of its own, which is left alone, and its
connection cut, when the time is over. Looking up a name, connecting, and an answer that comes byte by byte are within
that time too. Plain HTTP is for this machine only; what a witness says is signed either way, but who asks for what is
nobody else's business.
"""

import socket
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import httpx2

from hauberk.core.address import is_loopback
from hauberk.errors import ConfigError
from hauberk.records.asking import NO_ANSWER
from hauberk.records.log_policy import LogPolicy

TIMEOUT = 5.0  # seconds for a question and its whole answer; a witness needs milliseconds and a round trip
MAX_ANSWER_BYTES = 262_144  # above a checkpoint that sixty ML-DSA-44 keys have signed
MAX_LEFT = 4  # questions to one witness whose threads have not ended, say because a name is still looked up
_TEXT = {"content-type": "text/plain; charset=utf-8", "accept-encoding": "identity", "user-agent": "hauberk"}
_LATE = b"the answer takes too long"
Answer = tuple[int, bytes]


class _CutError(Exception):
    """Nobody waits for the answer any more."""


class _Line:
    """One connection to one witness, for one question at a time."""

    def __init__(self, context: ssl.SSLContext, timeout: float) -> None:
        limits = httpx2.Limits(max_connections=1)
        # The time of each step is only for threads that were left: whoever waits does so for half of that at most.
        self._http = httpx2.Client(
            verify=context, trust_env=False, follow_redirects=False, timeout=2 * timeout, limits=limits
        )
        self._lock = threading.Lock()  # guards _socket and cut
        self._socket: socket.socket | None = None
        self.cut = False

    def put(self, url: str, body: bytes | None) -> Answer:
        """Put a question; whatever is wrong is no answer."""
        try:
            return self._ask(url, body)
        except _CutError:
            return NO_ANSWER, _LATE
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, ValueError) as error:
            return NO_ANSWER, type(error).__name__.encode()

    def _ask(self, url: str, body: bytes | None) -> Answer:
        method, found = "GET" if body is None else "POST", b""
        extensions = {"trace": self._told}
        with self._http.stream(method, url, content=body, headers=_TEXT, extensions=extensions) as answer:
            for chunk in answer.iter_raw():
                found += chunk
                if len(found) > MAX_ANSWER_BYTES:
                    return NO_ANSWER, b"the answer is too long"
        return answer.status_code, found

    def _told(self, event: str, info: Mapping[str, object]) -> None:
        """Hear of each step of a question (an extension of httpx2), and learn the connection."""
        if event not in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            return
        stream: Any = info["return_value"]
        with self._lock:
            self._socket = stream.get_extra_info("socket")
            cut = self.cut
        if cut:
            stream.close()
            raise _CutError

    def end(self) -> None:
        """Cut the connection under whoever uses it. From any thread."""
        with self._lock:
            self.cut = True
            if self._socket is not None:
                try:
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # of TLS too without a word: only this wakes
                except OSError:  # it is closed already
                    return

    def close(self) -> None:
        """Close it; from the thread that used it last."""
        self._http.close()


class WitnessClient:
    """Implements `records.asking.Transport`. Thread-safe; connections are kept.

    Args:
        timeout: seconds for a question and its whole answer.
        tls: whom to trust, by default the authorities that httpx2 brings.
    """

    def __init__(self, *, timeout: float = TIMEOUT, tls: ssl.SSLContext | None = None) -> None:
        self._timeout = timeout
        self._tls = tls or httpx2.create_ssl_context(trust_env=False)
        self._lock = threading.Lock()  # guards all below
        self._idle: dict[str, list[_Line]] = {}  # by scheme, host and port
        self._busy: dict[str, set[_Line]] = {}  # those that were left too, until their threads end
        self._closed = False

    def __call__(self, url: str, body: bytes | None) -> Answer:
        """Send a body to a URL, or ask for it when there is none, and return status and body."""
        try:
            check_url(url)
        except ConfigError as error:
            return NO_ANSWER, error.detail.encode()
        there = str(httpx2.URL(url).copy_with(path="/", query=None, fragment=None))
        line = self._taken(there)
        if line is None:
            return NO_ANSWER, b"closed" if self._closed else b"earlier questions hang"
        done: Future[Answer] = Future()
        threading.Thread(target=self._put, args=(there, line, url, body, done), name="witness", daemon=True).start()
        try:
            return done.result(self._timeout)
        except TimeoutError:
            line.end()
            return NO_ANSWER, _LATE

    def _put(self, there: str, line: _Line, url: str, body: bytes | None, done: "Future[Answer]") -> None:
        answer: Answer = NO_ANSWER, b"the question could not be put"
        try:
            answer = line.put(url, body)
        finally:
            self._back(there, line)
            done.set_result(answer)

    def _taken(self, there: str) -> _Line | None:
        with self._lock:
            busy = self._busy.setdefault(there, set())
            if self._closed or sum(line.cut for line in busy) >= MAX_LEFT:
                return None
            idle = self._idle.get(there)
            line = idle.pop() if idle else _Line(self._tls, self._timeout)
            busy.add(line)
            return line

    def _back(self, there: str, line: _Line) -> None:
        with self._lock:
            self._busy[there].discard(line)
            if not self._closed and not line.cut:
                self._idle.setdefault(there, []).append(line)
                return
        line.close()

    def close(self) -> None:
        """Cut every connection; what is under way ends without an answer."""
        with self._lock:
            self._closed = True
            idle, self._idle = [line for lines in self._idle.values() for line in lines], {}
            busy = [line for lines in self._busy.values() for line in lines]
        for line in busy:
            line.end()
        for line in idle:
            line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def check_url(url: str) -> None:
    """Refuse a URL at which no witness may be asked.

    Raises:
        ConfigError: HBK-901 neither https, nor http on this machine; or with a name and password in it.
    """
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError):
        raise ConfigError("HBK-901", "not a URL", url=url) from None
    if parsed.userinfo or not parsed.host or parsed.scheme not in {"http", "https"}:
        raise ConfigError("HBK-901", "a witness is at an https URL without a name and password", url=url)
    if parsed.scheme == "http" and not is_loopback(parsed.host):
        raise ConfigError("HBK-901", "plain http is for witnesses on this machine", url=url)


def check_policy(policy: LogPolicy) -> None:
    """Refuse a policy that names a URL at which no witness may be asked; for a start, so that it is found then.

    Raises:
        ConfigError: HBK-901.
    """
    for witness in policy.witnesses:
        if witness.url:
            check_url(witness.url)
