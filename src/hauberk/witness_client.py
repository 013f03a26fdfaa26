"""Reaching witnesses over HTTP: the transport of `records.cosign`, on httpx2.

Nothing is taken from the environment (proxies, certificates), redirects are not followed, answers are bounded, and
each question ends in time whatever the other side does. Plain HTTP is for this machine only; what a witness says is
signed either way, but who asks for what is nobody else's business.
"""

import ipaddress
import time
from types import TracebackType
from typing import Self

import httpx2

from hauberk.errors import ConfigError
from hauberk.records.asking import NO_ANSWER
from hauberk.records.log_policy import LogPolicy

TIMEOUT = 5.0  # seconds to connect, to send and to answer, each; a witness needs milliseconds and a round trip
MAX_ANSWER_BYTES = 262_144  # above a checkpoint that sixty ML-DSA-44 keys have signed
_TEXT = {"content-type": "text/plain; charset=utf-8", "accept-encoding": "identity", "user-agent": "hauberk"}


class WitnessClient:
    """Implements `records.asking.Transport`. Thread-safe; connections are kept.

    Args:
        timeout: seconds to connect, to send and to answer, each.
        http: the client, by default a new one; closed with this.
    """

    def __init__(self, *, timeout: float = TIMEOUT, http: httpx2.Client | None = None) -> None:
        self._timeout = timeout
        self._http = http or httpx2.Client(trust_env=False, follow_redirects=False, timeout=timeout)

    def __call__(self, url: str, body: bytes | None) -> tuple[int, bytes]:
        """Send a body to a URL, or ask for it when there is none, and return status and body."""
        try:
            check_url(url)
            return self._ask(url, body)
        except ConfigError as error:
            return NO_ANSWER, error.detail.encode()
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, ValueError) as error:
            return NO_ANSWER, type(error).__name__.encode()

    def _ask(self, url: str, body: bytes | None) -> tuple[int, bytes]:
        method = "GET" if body is None else "POST"
        found = b""
        with self._http.stream(method, url, content=body, headers=_TEXT) as answer:
            until = time.monotonic() + self._timeout
            for chunk in answer.iter_raw():
                found += chunk
                if len(found) > MAX_ANSWER_BYTES:
                    return NO_ANSWER, b"the answer is too long"
                if time.monotonic() > until:
                    return NO_ANSWER, b"the answer takes too long"
        return answer.status_code, found

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

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


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, seen from itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
