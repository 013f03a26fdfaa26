"""The second look at a peer, right after the handshake and before any application data.

`ssl.SSLObject` serves asyncio, uvloop and anyio; `ssl.SSLSocket` serves blocking code. Both end their handshake in
`do_handshake`, so this is the one place that sees every connection. A refused peer surfaces as `ssl.SSLError`, which
every TLS client maps to its own connect error already.
"""

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from hauberk.crypto.x509 import SvidInfo
from hauberk.errors import HauberkError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

Check = Callable[[Sequence[bytes]], SvidInfo]
Again = Callable[[SvidInfo, object], object]  # takes and returns what the peer was last held against, None at first


class PeerRefused(ssl.SSLCertVerificationError):
    """The handshake was sound, the peer is not acceptable.

    Args:
        error: why.
    """

    def __init__(self, error: HauberkError) -> None:
        super().__init__(1, str(error))
        self.error = error
        self.reason = error.code
        self.verify_code = 1
        self.verify_message = error.public

    @property
    def code(self) -> str:
        """The `HBK-###` of the reason."""
        return self.error.code


class Verifying(Protocol):
    """What a context brings along."""

    check: Check
    on_failure: Callable[[str], None] | None


class Calling(Verifying, Protocol):
    """What a client's context brings along."""

    again: Again


class VerifiedObject(ssl.SSLObject):
    """TLS over memory buffers whose peer is verified; `peer_svid` is its SVID, or None when it sent none."""

    peer_svid: SvidInfo | None = None
    server_name = ""  # what the caller asked for

    def do_handshake(self) -> None:
        """Shake hands, then verify the peer."""
        _step(cast("Verifying", self.context), super().do_handshake)
        self.peer_svid = _verified(self)


class VerifiedSocket(ssl.SSLSocket):
    """TLS over a socket whose peer is verified; `peer_svid` is its SVID, or None when it sent none."""

    peer_svid: SvidInfo | None = None
    server_name = ""  # what the caller asked for

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # the standard library's signature
        """Shake hands, then verify the peer."""
        _step(cast("Verifying", self.context), lambda: super(VerifiedSocket, self).do_handshake(block))
        self.peer_svid = _verified(self)


class CallerObject(VerifiedObject):
    """The client's end over memory buffers: before anything is sent, the callee still has to be acceptable."""

    _seen: object = None

    def write(self, data: "Buffer") -> int:
        """Send, unless the callee was revoked or lost its root since the handshake."""
        self._seen = _again(self, self.peer_svid, self._seen)
        return super().write(data)


class CallerSocket(VerifiedSocket):
    """The client's end over a socket: before anything is sent, the callee still has to be acceptable."""

    _seen: object = None

    def send(self, data: "Buffer", flags: int = 0) -> int:
        """Send, unless the callee was revoked or lost its root since the handshake; `sendall` comes here too."""
        self._look()
        return super().send(data, flags)

    def write(self, data: "Buffer") -> int:
        """Send, as `send` does."""
        self._look()
        return super().write(data)

    def _look(self) -> None:
        try:
            self._seen = _again(self, self.peer_svid, self._seen)
        except PeerRefused:
            self.shutdown(socket.SHUT_RDWR)  # HTTP clients would go on and wait for an answer
            raise


def reason_of(error: ssl.SSLError) -> str:
    """Say in constant words why a handshake failed; nothing of it is under the peer's control."""
    if isinstance(error, PeerRefused):
        return str(error.error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    return (error.reason or type(error).__name__).lower().replace("_", " ")


def _step(context: Verifying, handshake: Callable[[], None]) -> None:
    try:
        handshake()
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise
    except ssl.SSLError as error:
        _report(context, error)
        raise


def _verified(tls: ssl.SSLObject | ssl.SSLSocket) -> SvidInfo | None:
    context = cast("Verifying", tls.context)
    try:
        chain = _sent_chain(tls)
        if not chain and tls.server_side and tls.context.verify_mode is not ssl.CERT_REQUIRED:
            return None
        return context.check(chain)
    except HauberkError as refused:
        error = PeerRefused(refused)
        _report(context, error)
        raise error from None


def _again(tls: ssl.SSLObject | ssl.SSLSocket, peer: SvidInfo | None, seen: object) -> object:
    """Look at the peer of an open connection again; returns what to hand in the next time."""
    if peer is None:
        return seen
    try:
        return cast("Calling", tls.context).again(peer, seen)
    except HauberkError as refused:
        raise PeerRefused(refused) from None


def _sent_chain(tls: ssl.SSLObject | ssl.SSLSocket) -> Sequence[bytes]:
    """What the peer sent, DER, leaf first; public since Python 3.13, below the surface before."""
    leaf = tls.getpeercert(binary_form=True)
    if leaf is None:
        return ()
    public: Callable[[], Sequence[bytes]] | None = getattr(tls, "get_unverified_chain", None)
    if public is not None:
        return public() or (leaf,)
    raw = tls._sslobj.get_unverified_chain()  # type: ignore[union-attr]  # noqa: SLF001  # no other way before 3.13
    # A session resumed in TLS 1.2 keeps the leaf only, which is enough when the leaf was signed by a root.
    return tuple(_der(certificate) for certificate in raw or ()) or (leaf,)


def _der(certificate: "_RawCertificate") -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.public_bytes())


class _RawCertificate(Protocol):
    def public_bytes(self) -> str:
        """Return the certificate as PEM text."""


def _report(context: Verifying, error: ssl.SSLError) -> None:
    if context.on_failure is not None:
        context.on_failure(reason_of(error))
