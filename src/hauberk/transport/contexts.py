"""TLS contexts that know SPIFFE (X509-SVID section 5, RFC 8446, RFC 9325).

OpenSSL verifies a peer against one store, which would let the root of any known domain vouch for any id. So each
handshake is verified twice: by OpenSSL, which gives proper alerts, and then, before the first byte is read or written,
against the bundle of the one domain the peer's id names. A client names the exact id it expects. There is no host name
check because SVIDs have no host names; there are no session tickets because a ticket outlives a revoked root; private
keys reach OpenSSL through anonymous memory, never a file.

A context made here makes an inner one from the source's current material and hands each new connection to it, so a
renewed leaf or a changed bundle is used by the next handshake and disturbs no open connection. A client looks at its
callee again before it sends: one that was revoked or lost its root since then hears nothing more. On a stack that can
set key exchange groups (Python 3.15) X25519MLKEM768 comes first; others negotiate OpenSSL's default, X25519 first.
"""

import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol, Self

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.x509 import SvidInfo, WorkloadKey, fingerprint, to_pem, verify_chain
from hauberk.errors import TransportError
from hauberk.transport.handshake import Again, CallerObject, CallerSocket, Check, VerifiedObject, VerifiedSocket

if TYPE_CHECKING:
    import socket

Profile = Literal["internal", "modern", "intermediate"]
GROUPS = "X25519MLKEM768:X25519:secp256r1"  # hybrid first, as draft-ietf-tls-ecdhe-mlkem; then RFC 8446 section 9.1
# The six ECDHE AEAD suites of Mozilla's intermediate profile 5.8; TLS 1.3 suites are not affected by this string.
INTERMEDIATE_CIPHERS = ":".join(
    f"ECDHE-{signature}-{suite}"
    for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signature in ("ECDSA", "RSA")
)


class Identity(Protocol):
    """One moment of an identity."""

    @property
    def key(self) -> WorkloadKey:
        """The private key."""

    @property
    def svid(self) -> SvidInfo:
        """The chain it belongs to."""

    @property
    def roots(self) -> Mapping[str, tuple[bytes, ...]]:
        """Roots by trust domain, DER."""


class Source(Protocol):
    """Where contexts take identities from; `identity.source.SvidSource` is one."""

    def current(self) -> Identity:
        """Return the identity of this moment; the same object until something changes. Thread-safe."""


class RotatingContext(ssl.SSLContext):
    """What servers and clients hold: every new connection is made by a context of the current material.

    It carries no key and no root itself, so whatever goes around `wrap_socket` and `wrap_bio` fails its handshake.

    Args:
        protocol: `ssl.PROTOCOL_TLS_SERVER` or `ssl.PROTOCOL_TLS_CLIENT`.
        source: the identity.
        build: makes the inner context.
    """

    def __new__(cls, protocol: int, *_: object) -> Self:
        """Create the bare context."""
        return super().__new__(cls, protocol)

    def __init__(self, protocol: int, source: Source, build: Callable[[Identity], ssl.SSLContext]) -> None:  # noqa: ARG002  # used by __new__
        self._source = source
        self._build = build
        self._alpn: tuple[str, ...] = ()
        self._inner: tuple[Identity, ssl.SSLContext] | None = None

    def fresh(self) -> ssl.SSLContext:
        """Return the context of the source's current material.

        Raises:
            TransportError: HBK-105 OpenSSL does not take the material.
        """
        identity, inner = self._source.current(), self._inner
        if inner is None or inner[0] is not identity:
            context = self._build(identity)
            if self._alpn:
                context.set_alpn_protocols(self._alpn)
            # Two threads may both build one; either is right, and the exchange of one reference is atomic.
            self._inner = inner = (identity, context)
        return inner[1]

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Announce protocols (RFC 7301) on every inner context from now on."""
        wanted = tuple(alpn_protocols)
        if wanted != self._alpn:  # HTTP clients say the same before each connection
            self._alpn = wanted
            self._inner = None

    def wrap_socket(  # noqa: PLR0917  # the standard library's signature
        self,
        sock: "socket.socket",
        server_side: bool = False,  # noqa: FBT001, FBT002  # the standard library's signature
        do_handshake_on_connect: bool = True,  # noqa: FBT001, FBT002  # the standard library's signature
        suppress_ragged_eofs: bool = True,  # noqa: FBT001, FBT002  # the standard library's signature
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """Wrap a socket with the current material; see `ssl.SSLContext.wrap_socket`."""
        return self.fresh().wrap_socket(
            sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, session
        )

    def wrap_bio(  # the standard library's signature
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002  # the standard library's signature
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Wrap memory buffers with the current material; see `ssl.SSLContext.wrap_bio`."""
        return self.fresh().wrap_bio(incoming, outgoing, server_side, server_hostname, session)


def server_context(
    source: Source,
    *,
    profile: Profile = "internal",
    require_client: bool = True,
    on_failure: Callable[[str], None] | None = None,
    admit: Callable[[SvidInfo], None] | None = None,
    send_root: bool = False,
    clock: Clock = SYSTEM_CLOCK,
) -> RotatingContext:
    """Return a context for servers.

    Args:
        source: the server's identity and whom it trusts.
        profile: `internal` and `modern` are TLS 1.3 only; `intermediate` adds TLS 1.2 with six ECDHE AEAD suites.
        require_client: False lets callers without a certificate in, as anonymous; with `internal` the server still asks
            for one, with the edge profiles it does not, because browsers would prompt for it.
        on_failure: told a constant reason for each failed handshake, from the thread or loop of the connection. A peer
            that hangs up in the middle is not reported: no handshake step fails then.
        admit: raises a `HauberkError` to refuse a verified peer, such as a revoked one.
        send_root: append the own root to the chain, for callers that know no more than its fingerprint.
        clock: at which time peers have to be valid.
    """
    mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
    if profile != "internal" and not require_client:
        mode = ssl.CERT_NONE

    def build(identity: Identity) -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_SERVER, identity, send_root=send_root)
        if profile == "intermediate":
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(INTERMEDIATE_CIPHERS)
        context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        context.verify_mode = mode
        context.check = _checker(identity, admit, clock)
        context.on_failure = on_failure
        context.sni_callback = _note_name
        return context

    return RotatingContext(ssl.PROTOCOL_TLS_SERVER, source, build)


def client_context(
    source: Source,
    expect: SpiffeId,
    *,
    on_failure: Callable[[str], None] | None = None,
    admit: Callable[[SvidInfo], None] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> RotatingContext:
    """Return a context for clients: TLS 1.3, presents the SVID, talks to `expect` and nobody else.

    Args:
        source: the client's identity and whom it trusts.
        expect: the exact id of the callee.
        on_failure: told a constant reason for each failed handshake.
        admit: raises a `HauberkError` to refuse a verified peer, such as a revoked one.
        clock: at which time the peer has to be valid.
    """

    def build(identity: Identity) -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
        context.check = _checker(identity, admit, clock, expect)
        context.on_failure = on_failure
        context.again = lambda peer, seen: again(peer, seen or identity.roots)
        context.sslobject_class, context.sslsocket_class = CallerObject, CallerSocket
        return context

    def again(peer: SvidInfo, seen: object) -> object:
        if admit is not None:
            admit(peer)
        roots = source.current().roots
        if roots is not seen:  # signatures are checked once per connection and set of bundles
            verify_chain(peer.chain, roots, at=clock.time())
        return roots

    return RotatingContext(ssl.PROTOCOL_TLS_CLIENT, source, build)


def bootstrap_context(root_fingerprint: str, expect: SpiffeId, *, clock: Clock = SYSTEM_CLOCK) -> ssl.SSLContext:
    """Return a client context for the first contact, when no more than the root's fingerprint is known.

    The server must send its root (`server_context(send_root=True)`); it is believed because of its fingerprint.

    Args:
        root_fingerprint: SHA-256 of the root's DER, hex, from a join token.
        expect: the exact id of the callee.
        clock: at which time the peer has to be valid.
    """

    def check(chain: Sequence[bytes]) -> SvidInfo:
        roots = tuple(der for der in chain[1:] if fingerprint(der) == root_fingerprint)
        return _expected(verify_chain(chain, {expect.trust_domain: roots}, at=clock.time()), expect)

    context = _bare(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_NONE  # OpenSSL has no root to verify with; `check` verifies everything
    context.check = check
    return context


def _note_name(tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
    """Keep the server name a caller asked for; nothing is decided by it here."""
    if name and isinstance(tls, VerifiedObject | VerifiedSocket):
        tls.server_name = name.lower()


class _Context(ssl.SSLContext):
    """An inner context: what `handshake` asks after the handshake."""

    sslobject_class: type[VerifiedObject] = VerifiedObject
    sslsocket_class: type[VerifiedSocket] = VerifiedSocket
    check: Check
    again: Again
    on_failure: Callable[[str], None] | None = None


def _bare(protocol: int) -> _Context:
    context = _Context(protocol)
    if protocol == ssl.PROTOCOL_TLS_CLIENT:
        context.check_hostname = False  # SVIDs have no host names; the exact id is checked instead
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION
    set_groups: Callable[[str], None] | None = getattr(context, "set_groups", None)
    if set_groups is not None:
        set_groups(GROUPS)
    return context


def _context(protocol: int, identity: Identity, *, send_root: bool = False) -> _Context:
    context = _bare(protocol)
    own = identity.roots.get(identity.svid.spiffe_id.trust_domain, ())
    chain = identity.svid.chain + (own if send_root else ())
    roots = b"".join(root for domain in identity.roots.values() for root in domain)
    try:
        with _in_memory(identity.key.pem(), to_pem(chain)) as (key_path, chain_path):
            context.load_cert_chain(chain_path, key_path)
        if roots:
            context.load_verify_locations(cadata=roots)
    except (ssl.SSLError, OSError) as bad:
        raise TransportError("HBK-105", "OpenSSL refuses the material", errno=bad.errno) from None
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a SPIFFE bundle may hold intermediates as roots
    return context


@contextmanager
def _in_memory(key: bytes, chain: bytes) -> Iterator[tuple[str, str]]:
    """Paths OpenSSL can read the two from once, without any file: the standard library takes paths only."""
    fds = [_filled(key), _filled(chain)]
    prefix = "/proc/self/fd" if hasattr(os, "memfd_create") else "/dev/fd"
    try:
        yield f"{prefix}/{fds[0]}", f"{prefix}/{fds[1]}"
    finally:
        for fd in fds:
            os.close(fd)


def _filled(data: bytes) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("hauberk", os.MFD_CLOEXEC)
        os.write(fd, data)
        return fd
    fd, writer = os.pipe()  # not Linux: a pipe, read once; what is written fits its buffer
    os.write(writer, data)
    os.close(writer)
    return fd


def _checker(
    identity: Identity,
    admit: Callable[[SvidInfo], None] | None,
    clock: Clock,
    expect: SpiffeId | None = None,
) -> Check:
    roots = identity.roots

    def check(chain: Sequence[bytes]) -> SvidInfo:
        peer = verify_chain(chain, roots, at=clock.time())
        if expect is not None:
            _expected(peer, expect)
        if admit is not None:
            admit(peer)
        return peer

    return check


def _expected(peer: SvidInfo, expect: SpiffeId) -> SvidInfo:
    if peer.spiffe_id != expect:
        raise TransportError("HBK-103", "another id", found=str(peer.spiffe_id), expected=str(expect))
    return peer
