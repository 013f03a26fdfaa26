"""Talking to the authority: over mutual TLS as a workload, over a Unix socket as a process of this machine."""

from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import httpx2
import msgspec

from hauberk.core.spiffe import SpiffeId
from hauberk.core.wire import (
    AttestRequest,
    BatchReply,
    Grant,
    HandoverRequest,
    JoinRequest,
    RenewRequest,
    TokenReply,
)
from hauberk.crypto.x509 import WorkloadKey
from hauberk.errors import REGISTRY, ConfigError, HauberkError, IdentityError, PolicyError, RecordsError
from hauberk.identity.jointoken import JoinToken
from hauberk.transport.contexts import RotatingContext, bootstrap_context
from hauberk.transport.handshake import PeerRefused

AUTHORITY_PATH = "/ns/hauberk-system/sa/authority"
REFUSED = "HBK-906"  # whoever answers is there and does not know such a request
TIMEOUT = 10.0  # seconds for an answer
FEED_TIMEOUT = 5.0  # seconds; heartbeats come each second
_Form = TypeVar("_Form")
_FAMILIES: dict[str, type[HauberkError]] = {"2": IdentityError, "3": PolicyError, "7": RecordsError}


class _Problem(msgspec.Struct):
    code: str = "HBK-902"
    detail: str = ""
    context: dict[str, object] = msgspec.field(default_factory=dict)


def authority_id(trust_domain: str) -> SpiffeId:
    """Return the SPIFFE id of a domain's authority."""
    return SpiffeId(trust_domain, AUTHORITY_PATH)


class Remote:
    """One authority, one way to reach it. Thread-safe.

    Args:
        http: the client; closed with this.
    """

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    @classmethod
    def over_socket(cls, path: Path) -> "Remote":
        """Reach it over a Unix socket."""
        transport = httpx2.HTTPTransport(uds=str(path))
        return cls(httpx2.Client(transport=transport, base_url="http://authority", timeout=TIMEOUT, trust_env=False))

    @classmethod
    def over_tls(cls, address: str, context: RotatingContext) -> "Remote":
        """Reach it over mutual TLS."""
        return cls(httpx2.Client(verify=context, base_url=f"https://{address}", timeout=TIMEOUT, trust_env=False))

    def call(self, method: str, path: str, body: object = None, *, timeout: float = TIMEOUT) -> bytes:
        """Return the body of a successful answer.

        Args:
            method: HTTP method.
            path: such as `/admin/status`, with its query.
            body: sent as JSON, or as it is when it is bytes.
            timeout: seconds.

        Raises:
            ConfigError: HBK-902 out of reach, or no answer in time.
            HauberkError: what the authority refused, with its code.
        """
        content = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
        try:
            answer = self._http.request(method, path, content=content, timeout=timeout)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError) as error:  # RuntimeError: closed here
            refused = _refusal_in(error)
            if refused is not None:
                raise refused from error
            raise ConfigError("HBK-902", "no answer") from error
        if answer.is_success:
            return answer.content
        raise _refused(answer)

    def ask(self, method: str, path: str, form: type[_Form], body: object = None) -> _Form:
        """Return the decoded answer; see `call`."""
        try:
            return msgspec.json.decode(self.call(method, path, body), type=form)
        except msgspec.DecodeError:
            raise ConfigError("HBK-902", "the answer is not one of this version") from None

    def attest(self, csr: bytes, entry: str | None) -> Grant:
        """Ask for a first SVID as a process the kernel vouches for."""
        return self.ask("POST", "/v1/attest", Grant, AttestRequest(csr, entry))

    def handover(self, entry: str | None) -> str:
        """Ask for a token to hand on."""
        return self.ask("POST", "/v1/handover", TokenReply, HandoverRequest(entry)).token

    def renew(self, csr: bytes) -> Grant:
        """Ask for the next SVID."""
        return self.ask("POST", "/v1/renew", Grant, RenewRequest(csr))

    def feed(self, after: int) -> bytes:
        """Wait for the next feed message."""
        return self.call("GET", f"/v1/feed?after={after}", timeout=FEED_TIMEOUT)

    def record(self, wire: bytes) -> tuple[int, ...]:
        """Deliver a batch of records."""
        return self.ask("POST", "/v1/records", BatchReply, wire).positions

    def close(self) -> None:
        """Release the connections."""
        self._http.close()


def join(token: JoinToken, csr: bytes, trust_domain: str) -> Grant:
    """Use a join token up, at the authority whose root has the token's fingerprint and no other.

    Raises:
        IdentityError: HBK-204, HBK-203, HBK-206 refused.
        ConfigError: HBK-902 out of reach, or somebody else answers there.
    """
    context = bootstrap_context(token.root_fingerprint, authority_id(trust_domain))
    with httpx2.Client(verify=context, base_url=f"https://{token.address}", timeout=TIMEOUT, trust_env=False) as http:
        return Remote(http).ask("POST", "/v1/join", Grant, JoinRequest(token.secret, csr))


def new_request() -> tuple[WorkloadKey, bytes]:
    """Make a key that never leaves this process, and a request for it that names nobody: the authority knows who."""
    key = WorkloadKey.generate()
    return key, key.request(None)


def _refusal_in(error: BaseException | None) -> HauberkError | None:
    """Return why we refused the authority in the handshake, if that is what happened."""
    while error is not None:
        if isinstance(error, PeerRefused):
            return error.error
        error = error.__cause__ or error.__context__
    return None


def _refused(answer: httpx2.Response) -> HauberkError:
    try:
        problem = msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.DecodeError:
        there = HTTPStatus.MULTIPLE_CHOICES <= answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
        problem = _Problem(REFUSED if there else "HBK-902", f"status {answer.status_code}")
    if problem.code not in REGISTRY:
        return ConfigError("HBK-902", f"unknown code {problem.code[:20]}")
    error = _FAMILIES.get(problem.code[4], ConfigError)(problem.code, problem.detail)
    error.context = problem.context
    return error
