"""The attacks, in the order in which they are carried out."""

import functools
import json
import os
import socket
import ssl
import struct
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.payments.demo import remembering
from examples.payments.demo.attack import Attack, Outcome, answered, request
from examples.payments.demo.stage import DOMAIN, POLICIES, Stage, replay
from hauberk.agent.remote import join, new_request
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.x509 import CertificateAuthority, WorkloadKey, to_pem
from hauberk.errors import HauberkError

PAYMENT = b'{"order": "o-evil", "amount": 1}'
ORDERS = SpiffeId.service(DOMAIN, "production", "order-service")
PAYEE = "/services/production/payment-service"
NOBODY = 65_534  # the user "nobody"
TIMEOUT = 5.0
CLOSE = "Connection: close\r\n"
MEGABYTE = 1024 * 1024
TRICKS = {
    "empty segment //": "/admin//delete",
    "encoded slash %2f": "/admin%2fdelete",
    "dot segments /../": "/api/payments/../../admin/delete",
    "path parameter ;": "/admin;x=1/delete",
    "encoded NUL %00": "/admin/delete%00.json",
    "needless escape %61": "/%61dmin/delete",
}


# transport


def plaintext(stage: Stage) -> Outcome:
    """Speak HTTP without TLS to the mutual TLS port."""
    with socket.create_connection(("127.0.0.1", stage.payments), TIMEOUT) as wire:
        wire.sendall(request("POST", "/api/payments", body=PAYMENT))
        data = _received(wire)
    stopped = b"HTTP/1.1" not in data
    return Outcome(stopped, "connection closed" if stopped else _line(data), "HBK-101", hints=("http request", PAYEE))


def _line(data: bytes) -> str:
    return data.partition(b"\r\n")[0].decode("latin-1")


def _received(wire: socket.socket) -> bytes:
    try:
        return wire.recv(4096)
    except OSError:
        return b""


def _tls(stage: Stage, why: str, key: WorkloadKey | None = None, chain: tuple[bytes, ...] = ()) -> Outcome:
    """Shake hands with a certificate of our own choice, or none, and ask for something.

    Args:
        stage: where.
        why: what the ledger has to give as the reason of the refusal.
        key: the attacker's.
        chain: the certificate for it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # an attacker does not care whom he talks to
    if key is not None:
        with tempfile.TemporaryDirectory() as directory:
            pem = Path(directory) / "it.pem"
            pem.write_bytes(key.pem() + to_pem(chain))
            context.load_cert_chain(pem)
    try:
        with (
            socket.create_connection(("127.0.0.1", stage.payments), TIMEOUT) as plain,
            context.wrap_socket(plain) as wire,
        ):
            wire.sendall(request("GET", "/api/payments/p-1"))
            data = wire.recv(4096)
    except OSError as refused:
        reason = getattr(refused, "reason", "") or type(refused).__name__
        saw = str(reason).lower().replace("_", " ")
        return Outcome(stopped=True, saw=saw, code="HBK-101", hints=(why, PAYEE))
    return Outcome(not data, _line(data) or "connection closed", "HBK-101", hints=(why, PAYEE))


def no_certificate(stage: Stage) -> Outcome:
    """Shake hands without a client certificate."""
    return _tls(stage, "did not return a certificate")


def rogue_authority(stage: Stage) -> Outcome:
    """A certificate for order-service's own id, from a CA of our own for the same trust domain."""
    rogue, key = CertificateAuthority.create(DOMAIN), WorkloadKey.generate()
    return _tls(stage, "certificate verify failed", key, rogue.issue(key.request(ORDERS), ORDERS).chain)


def expired(stage: Stage) -> Outcome:
    """A certificate that the real authority issued two hours ago for a minute."""
    return _tls(stage, "certificate has expired", *stage.expired)


# identity and policy


def forbidden_method(stage: Stage) -> Outcome:
    """The right service, a method it was not given."""
    return answered(
        stage.replica.send("payment-service", stage.payments, request("DELETE", "/api/payments")), "HBK-300"
    )


def forbidden_path(stage: Stage) -> Outcome:
    """The right service, a path that a DENY rule names."""
    answer = stage.replica.send("payment-service", stage.payments, request("POST", "/admin/delete"))
    return answered(answer, "HBK-300", hint="nobody-deletes")


def wrong_service(stage: Stage) -> Outcome:
    """A real identity of the mesh that nobody allowed anything."""
    answer = stage.evil.send("payment-service", stage.payments, request("POST", "/api/payments", body=PAYMENT))
    return answered(answer, "HBK-300", hint="sa/evil-service")


def path_trick(path: str, stage: Stage) -> Outcome:
    """A path that one parser reads as harmless and another as `/admin/delete`."""
    return answered(stage.replica.send("payment-service", stage.payments, request("POST", path)), "HBK-402")


def forged_headers(stage: Stage) -> Outcome:
    """Claim in headers, as a proxy would, to be order-service."""
    claim = f"X-Forwarded-Client-Cert: By=spiffe://x;URI={ORDERS}\r\nX-Forwarded-For: 127.0.0.1\r\n"
    data = request("POST", "/api/payments", body=PAYMENT, headers=claim)
    return answered(stage.evil.send("payment-service", stage.payments, data), "HBK-300", hint="sa/evil-service")


# edge


def smuggling(stage: Stage) -> Outcome:
    """Two lengths: a proxy that believes one and a server that believes the other see different requests."""
    data = request("POST", "/api/payments", headers="Transfer-Encoding: chunked\r\nContent-Length: 4\r\n")
    data += b"0\r\n\r\nGET /admin/delete HTTP/1.1\r\nHost: payments\r\n\r\n"
    return _refused_framing(stage.replica.send("payment-service", stage.payments, data))


def two_lengths(stage: Stage) -> Outcome:
    """The same length twice, with different values."""
    data = request("POST", "/api/payments", headers="Content-Length: 2\r\nContent-Length: 40\r\n") + b"{}"
    return _refused_framing(stage.replica.send("payment-service", stage.payments, data))


def _refused_framing(answer: dict[str, Any]) -> Outcome:
    code = str(json.loads(answer["body"] or "{}").get("code", ""))
    return answered(answer, code if code in {"HBK-401", "HBK-405"} else "HBK-405")


def huge_header(stage: Stage) -> Outcome:
    """A header of one megabyte."""
    data = request("GET", "/api/payments/p-1", headers=f"X-Big: {'a' * MEGABYTE}\r\n")
    return answered(stage.replica.send("payment-service", stage.payments, data), "HBK-403")


def huge_body(stage: Stage) -> Outcome:
    """A body over the limit."""
    data = request("POST", "/api/payments", body=b" " * (MEGABYTE + 1))
    return answered(stage.replica.send("payment-service", stage.payments, data), "HBK-404")


def huge_chunked_body(stage: Stage) -> Outcome:
    """The same without saying so beforehand."""
    piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    data = request("POST", "/api/payments", headers="Transfer-Encoding: chunked\r\n") + piece * 17 + b"0\r\n\r\n"
    return answered(stage.replica.send("payment-service", stage.payments, data), "HBK-404")


def leaking_error(stage: Stage) -> Outcome:
    """Provoke a bug whose message names an internal host."""
    answer = stage.replica.send("payment-service", stage.payments, request("POST", "/api/settlements"))
    return answered(answer, "HBK-406", hint="ledger-db-7.corp.internal", secret="corp.internal")  # noqa: S106  # not a password


# administration and identity


def typo(stage: Stage) -> Outcome:
    """Push a DENY with one letter wrong; it must neither open nor close anything."""
    before = _digest(stage)
    done = stage.policy("apply", str(POLICIES / "typo.yaml"))
    named = "operatoin" in done.stderr
    refused = done.returncode == 1 and named and _digest(stage) == before
    return Outcome(refused, "refused, last good kept" if refused else "something changed", "HBK-301")


def _digest(stage: Stage) -> str:
    return str(json.loads(stage.admin.call("GET", "/admin/policies"))["digest"])


def replayed_token(stage: Stage) -> Outcome:
    """Use a join token a second time."""
    token = replay(stage.token("evil-service"))
    _, csr = new_request()
    join(token, csr, DOMAIN)
    try:
        join(token, csr, DOMAIN)
    except HauberkError as refused:
        return Outcome(refused.code == "HBK-204", f"403 {refused.code}", "HBK-204")
    return Outcome(stopped=False, saw="a second certificate", code="HBK-204")


def other_user(stage: Stage) -> Outcome:
    """Another user of this machine asks for order-service's identity."""
    _, csr = new_request()
    body = json.dumps({"csr": b64encode(csr).decode(), "entry": "order-service"}).encode()
    data = _as_nobody(stage.state / "workload.sock", request("POST", "/v1/attest", body=body, headers=CLOSE))
    refused = b"HBK-205" in data
    return Outcome(refused, "403 HBK-205" if refused else _line(data), "HBK-205", hints=(f"uid:{NOBODY}",))


def _as_nobody(path: Path, data: bytes) -> bytes:
    """Send bytes to a Unix socket as the user nobody and return the answer."""
    reader, writer = os.pipe()
    child = os.fork()  # a new interpreter might be out of that user's reach; the child only talks to sockets
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as wire:
                wire.settimeout(TIMEOUT)
                wire.connect(str(path))
                wire.sendall(data)
                while piece := wire.recv(4096):
                    os.write(writer, piece)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def _needs_root(stage: Stage) -> str:
    if os.geteuid() != 0:
        return "becoming another user needs root; identities came from join tokens"
    return "" if stage.kernel else "this kernel cannot attest processes; identities came from join tokens"


def split_rule(stage: Stage) -> Outcome:
    """The sample policy that looks like one rule and is two; forced, both of its holes are shown, then closed."""
    split = str(POLICIES / "split.yaml")
    linted, refused = stage.command("policy", "lint", split), stage.policy("apply", split)
    stage.policy("apply", "--force", split)
    anybody = _until(lambda: _evil_pays(stage), 201)
    anything = stage.replica.send("payment-service", stage.payments, request("DELETE", "/api/payments"))["status"]
    stage.policy("remove", "AuthorizationPolicy", "production/service-access-control")
    closed = _until(lambda: _evil_pays(stage), 403)
    stopped = (linted.returncode, refused.returncode) == (1, 1) and closed
    shown = anybody and anything not in {0, 403}
    saw = "lint refused; forced: both holes shown, then closed"
    return Outcome(stopped and shown, saw if stopped and shown else "the holes did not open or close", "HBK-303")


def _evil_pays(stage: Stage) -> int:
    answer = stage.evil.send("payment-service", stage.payments, request("POST", "/api/payments", body=PAYMENT))
    return int(answer["status"])


def _until(probe: Callable[[], int], wanted: int) -> bool:
    """Ask until policies have reached the service: milliseconds, a second at most."""
    until = time.monotonic() + TIMEOUT
    while probe() != wanted:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def revoked(stage: Stage) -> Outcome:
    """Revoke the compromised replica while it holds an open connection; the honest replica goes on."""
    wire, port = stage.replica, stage.payments
    first = wire.send("payment-service", port, request("GET", "/api/payments/p-1"), keep="open")
    honest = _honest_serial(stage)
    for serial in stage.serials("order-service") - honest:
        stage.revoke_serial(serial)
    statuses = [200]
    until = time.monotonic() + TIMEOUT
    while statuses[-1] == 200 and time.monotonic() < until:  # noqa: PLR2004  # HTTP
        statuses.append(wire.send("payment-service", port, request("GET", "/api/payments/p-1"), keep="open")["status"])
    again = wire.send("payment-service", port, request("GET", "/api/payments/p-1"))
    stopped = first["status"] == 200 and statuses[-1] != 200 and again["status"] in {0, 403}  # noqa: PLR2004  # HTTP
    if not stopped:
        return Outcome(stopped=False, saw=f"{first['status']}, {statuses[-1]}, {again['status']}", code="")
    return Outcome(stopped, "connection cut, next handshake refused", "HBK-101", hints=("HBK-206",))


def _honest_serial(stage: Stage) -> set[str]:
    """The serial that the honest order-service presents."""
    context = stage.storefront.client_context("order-service")
    with (
        socket.create_connection(("127.0.0.1", stage.orders), TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname="hauberk.invalid") as wire,
    ):
        svid = getattr(wire, "peer_svid", None)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return {svid.serial} if svid is not None else set()


def catalogue() -> list[Attack]:
    """Return every attack on the running mesh."""
    tricks = [Attack(f"path trick: {name}", functools.partial(path_trick, path)) for name, path in TRICKS.items()]
    return [
        Attack("plaintext to the mutual TLS port", plaintext),
        Attack("no client certificate", no_certificate),
        Attack("right id from a rogue CA", rogue_authority),
        Attack("expired certificate", expired),
        Attack("right identity, forbidden method", forbidden_method),
        Attack("right identity, forbidden path", forbidden_path),
        Attack("wrong service", wrong_service),
        *tricks,
        Attack("forged forwarding headers", forged_headers),
        Attack("smuggling: chunked beside a length", smuggling),
        Attack("smuggling: two lengths", two_lengths),
        Attack("header of 1 MB", huge_header),
        Attack("body over the limit", huge_body),
        Attack("body over the limit, chunked", huge_chunked_body),
        Attack("error with an internal host name", leaking_error),
        *remembering.catalogue(),
        Attack("policy push with a typo in a DENY", typo),
        Attack("join token replayed", replayed_token),
        Attack("another user asks for an identity", other_user, _needs_root),
        Attack("policy that looks like one rule (R9)", split_rule),
        Attack("revoked on an open connection", revoked),
    ]
