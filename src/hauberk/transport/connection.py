"""What is known about a connection, and the registry of the open ones.

The registry is how a revoked identity, a dropped root or mere age reaches connections that are open already: TLS itself
checks a peer once, at the handshake. Closing for age is gentle (the server lets the request in flight finish and says
`connection: close`); closing for lost trust is immediate.
"""

import itertools
import ssl
import threading
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.ports import PeerCredentials
from hauberk.core.principal import ANONYMOUS, Kind, Principal, Proof
from hauberk.crypto.x509 import SvidInfo, verify_chain
from hauberk.errors import IdentityError

REVOKED = "HBK-206"
UNTRUSTED = "HBK-209"
AGED = "HBK-104"


class ConnectionInfo(msgspec.Struct, frozen=True):
    """What the handshake negotiated.

    Args:
        version: such as `TLSv1.3`.
        cipher: such as `TLS_AES_256_GCM_SHA384`.
        group: the key exchange group, such as `X25519MLKEM768`; None where the stack cannot tell, which is every
            Python before 3.15.
        peer: the peer's verified SVID, or None when it presented none.
        sni: the server name the caller asked for (RFC 6066 section 3), empty when it named none.
    """

    version: str
    cipher: str
    group: str | None
    peer: SvidInfo | None
    sni: str = ""


def connection_info(tls: ssl.SSLObject | ssl.SSLSocket) -> ConnectionInfo:
    """Describe a finished handshake.

    Args:
        tls: from a context of `transport.contexts`; of any other the peer is None, because nobody verified it.
    """
    cipher = tls.cipher()
    group: Callable[[], str | None] = getattr(tls, "group", _unknown)
    return ConnectionInfo(
        tls.version() or "",
        cipher[0] if cipher else "",
        group(),
        getattr(tls, "peer_svid", None),
        getattr(tls, "server_name", ""),
    )


def _unknown() -> None:
    return None


def vouched_for(peer: SvidInfo, root: bytes) -> bool:
    """Tell whether this very root stands behind a peer that was verified before."""
    try:
        verify_chain(peer.chain, {peer.spiffe_id.trust_domain: (root,)}, at=peer.not_after)
    except IdentityError:
        return False
    return True


def peer_principal(peer: SvidInfo | None) -> Principal:
    """Return who a verified peer is; anonymous when there is none."""
    if peer is None:
        return ANONYMOUS
    proof = Proof("mtls", {"serial": peer.serial, "expires": peer.not_after})
    return Principal(Kind.WORKLOAD, str(peer.spiffe_id), proof=proof)


def local_principal(local: PeerCredentials) -> Principal:
    """Return who a process on this machine is, `uid:N`."""
    proof = Proof("local", {"pid": local.pid, "uid": local.uid, "gid": local.gid})
    return Principal(Kind.LOCAL, f"uid:{local.uid}", proof=proof)


class Connection:
    """One open connection in the registry.

    Args:
        number: rises with each connection of the registry.
        peer: the peer's SVID, or None.
        opened_at: seconds on the registry's monotonic clock.
        close: asked to close with a code; called at most once per code, from any thread, must not block.
    """

    __slots__ = ("_close", "checked", "closing", "number", "opened_at", "peer")

    def __init__(self, number: int, peer: SvidInfo | None, opened_at: float, close: Callable[[str], None]) -> None:
        self.number = number
        self.peer = peer
        self.opened_at = opened_at
        self.closing = ""
        self.checked: object = None  # the bundles under which the peer's root was found to stay
        self._close = close

    def close(self, code: str) -> None:
        """Close for the reason `code` stands for; `closing` tells it at once, so that no further request is served."""
        if self.closing in {"", AGED} and self.closing != code:
            self.closing = code
            self._close(code)

    def __repr__(self) -> str:
        return f"Connection({self.number})"


class Connections:
    """The open connections of a process. Thread-safe.

    Args:
        clock: for ages.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # guards _open
        self._open: dict[int, Connection] = {}

    def register(self, peer: SvidInfo | None, close: Callable[[str], None]) -> Connection:
        """Add one.

        Args:
            peer: the peer's SVID, or None.
            close: closes it, given `REVOKED`, `UNTRUSTED` or `AGED`; called from any thread.
        """
        connection = Connection(next(self._numbers), peer, self._clock.monotonic(), close)
        with self._lock:
            self._open[connection.number] = connection
        return connection

    def forget(self, connection: Connection) -> None:
        """Remove one that is closed. Forgetting twice is fine."""
        with self._lock:
            self._open.pop(connection.number, None)

    def close_where(self, choose: Callable[[Connection], bool], code: str) -> int:
        """Close those `choose` picks and return how many."""
        with self._lock:
            present = list(self._open.values())
        chosen = [connection for connection in present if choose(connection)]
        for connection in chosen:
            connection.close(code)
        return len(chosen)

    def close_revoked(self, serials: Collection[str] = (), ids: Collection[str] = ()) -> int:
        """Close those whose peer has one of these serials (lower-case hex) or SPIFFE ids, and return how many."""

        def revoked(connection: Connection) -> bool:
            peer = connection.peer
            return peer is not None and (peer.serial in serials or str(peer.spiffe_id) in ids)

        return self.close_where(revoked, REVOKED)

    def close_older_than(self, seconds: float) -> int:
        """Let those opened at least `seconds` ago finish what they are doing and close; return how many."""
        limit = self._clock.monotonic() - seconds
        return self.close_where(lambda connection: not connection.closing and connection.opened_at <= limit, AGED)

    def close_retiring(self, bundles: Mapping[str, Sequence[bytes]]) -> int:
        """Let those end gently whose peer's root is on its way out; return how many.

        Args:
            bundles: roots by trust domain, DER; the first of a domain is the one that signs.
        """

        def retiring(connection: Connection) -> bool:
            peer = connection.peer
            if peer is None or connection.closing or connection.checked is bundles:
                return False
            roots = bundles.get(peer.spiffe_id.trust_domain, ())
            if len(roots) > 1 and not vouched_for(peer, roots[0]):
                return True
            connection.checked = bundles  # signatures are checked once per connection and set of bundles
            return False

        return self.close_where(retiring, AGED)

    def close_untrusted(self, bundles: Mapping[str, Sequence[bytes]]) -> int:
        """Close those whose peer is not valid any more: its root was dropped, or it expired. Return how many.

        Args:
            bundles: roots by trust domain, DER.
        """
        now = self._clock.time()

        def untrusted(connection: Connection) -> bool:
            if connection.peer is None:
                return False
            try:
                verify_chain(connection.peer.chain, bundles, at=now)
            except IdentityError:
                return True
            return False

        return self.close_where(untrusted, UNTRUSTED)

    def __len__(self) -> int:
        return len(self._open)
