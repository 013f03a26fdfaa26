"""A bound on the connections of one server, those that have not finished their handshake included.

A server's protocol hears of a TLS connection only after the handshake, while the descriptor is taken from the moment
of accepting. So handshakes under way are counted where each begins, in `wrap_bio`, and refused there: the event loop
then closes the socket before a byte from it was looked at.
"""

import gc
import ssl
from typing import Self
from weakref import WeakSet


class Room:
    """How many connections a server has, and may have. For use in one event loop.

    Args:
        limit: open connections, established or shaking hands.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._established = 0
        # A handshake that fails or times out is told to nobody; its TLS object dies with it.
        self._shaking: WeakSet[ssl.SSLObject] = WeakSet()

    def __len__(self) -> int:
        return self._established + len(self._shaking)

    def begin(self, tls: ssl.SSLObject) -> None:
        """Count a handshake."""
        self._shaking.add(tls)

    def enter(self, tls: ssl.SSLObject | None) -> bool:
        """Count a connection, over the TLS that shook hands for it; False when there is no room for it."""
        if tls is not None:
            self._shaking.discard(tls)
        if len(self) >= self.limit:
            return False
        self._established += 1
        return True

    def sweep(self) -> None:
        """Find out which handshakes have ended, when it matters; called about once a second.

        uvloop lets go of a TLS object by itself; asyncio's own loop leaves it in a cycle for the collector.
        """
        if self._shaking and len(self) >= self.limit:
            gc.collect()

    def leave(self) -> None:
        """Stop counting a connection that had entered."""
        self._established -= 1


class _TurnedAway(ssl.SSLObject):
    """What a connection gets for which there is no room: its handshake fails at the first step, before any byte.

    Raising in `wrap_bio` itself would do on uvloop; asyncio's own loop would forget to close the socket.
    """

    def do_handshake(self) -> None:
        """Fail, in the way after which event loops close the socket and log nothing."""
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, "no room for another connection")


class RoomyContext(ssl.SSLContext):
    """A server's context that begins no handshake for which there is no room.

    Args:
        inner: makes the TLS objects.
        room: how many.
    """

    def __new__(cls, *_: object) -> Self:
        """Create the bare context; it has neither key nor root."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, inner: ssl.SSLContext, room: Room) -> None:
        self._inner = inner
        self._room = room
        self.sslobject_class = _TurnedAway

    def wrap_bio(  # the standard library's signature
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002  # the standard library's signature
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a handshake, or one that fails at once; see `ssl.SSLContext.wrap_bio`."""
        if len(self._room) >= self._room.limit:
            return super().wrap_bio(incoming, outgoing, server_side)
        tls = self._inner.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        self._room.begin(tls)
        return tls
