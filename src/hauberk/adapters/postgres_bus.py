"""The bus between processes: NOTIFY on one channel of the database, and a local bus in each process.

It carries hints such as "position N exists". A message is lost when the connection is, or when nobody listens; whoever
needs more than hints reads the store, now and then unasked. Nothing secret belongs in it, and nothing may be believed
because of it: whoever may log in to the database can notify and listen.

A payload is the JSON array `[sender, number, subject, data in base64]`, at most 7,999 bytes, which is NOTIFY's limit.
The number makes each payload another one, as NOTIFY folds equal ones. PostgreSQL delivers in the order of commits, the
same to everybody. So a subscription begins with a message of its own: what the listener sees before that was published
before.
"""

import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from itertools import count

import msgspec
import psycopg

from hauberk.adapters.local_bus import QUEUE, LocalBus
from hauberk.adapters.postgres_connect import STRICT, Connection, Target, Terms, Unreachable, lost, mapped, told
from hauberk.core.ports import Subscription
from hauberk.errors import Oversized, RecordsError

CHANNEL = "hauberk"
MAX_BYTES = 7_999  # of a payload
_BEGIN_SECONDS = 5.0  # a subscription that has not seen its own message by then begins anyway
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between two attempts to connect, doubled each time
_FLUSH_SECONDS = 5.0  # for what was published just before the end
_AT_ONCE = 500  # messages per statement
_MARK = ""  # the subject of a message that begins a subscription; no real one is empty
_log = logging.getLogger("hauberk.bus")


class _Message(msgspec.Struct, array_like=True, frozen=True):
    """The payload."""

    sender: str
    number: int
    subject: str
    data: bytes


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Message).decode


class _Beginning:
    """A subscription that waits for its place in the order of messages."""

    def __init__(self, bus: LocalBus, pattern: str, deliver: Callable[[str, bytes], None]) -> None:
        self._bus = bus
        self._pattern = pattern
        self._deliver = deliver
        self._lock = threading.Lock()  # guards _made
        self._made: Subscription | None = None
        self._begun = threading.Event()

    def begin(self) -> Subscription:
        """Deliver from now on; a second time changes nothing."""
        with self._lock:
            if self._made is None:
                self._made = self._bus.subscribe(self._pattern, self._deliver)
                self._begun.set()
            return self._made

    def wait(self) -> Subscription:
        """Return once it delivers."""
        self._begun.wait(_BEGIN_SECONDS)
        return self.begin()


class PostgresBus:
    """Implements `core.ports.Bus` between all processes that use one database. Connects again by itself.

    Args:
        dsn: `postgresql://...`; never shown.
        terms: what the session is held to.

    Raises:
        ConfigError: HBK-901 it is no address, or leads to another machine without verified TLS.
        RecordsError: HBK-703 the server cannot be reached.
    """

    def __init__(self, dsn: str, *, terms: Terms = STRICT) -> None:
        self._target = Target(dsn, terms)
        self._local = LocalBus()
        self._sender = os.urandom(8).hex()
        self._numbers = count(1)
        self._lock = threading.Lock()  # guards _outgoing, _beginnings and _dropped
        self._outgoing: deque[tuple[int, bytes]] = deque()
        self._beginnings: dict[int, _Beginning] = {}
        self._dropped = False  # it has been said that messages were
        self._closing = threading.Event()
        with mapped(self._target.password):
            connection = self._listen()
        self._bell, self._rung = socket.socketpair()
        self._bell.setblocking(False)
        self._thread = threading.Thread(target=self._run, args=(connection,), name="bus postgresql", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return "PostgresBus()"

    def publish(self, subject: str, data: bytes) -> None:
        """Hand `data` to all present subscribers of every process.

        Raises:
            Oversized: HBK-715 it does not fit a notification.
        """
        self._send(subject, data)

    def _send(self, subject: str, data: bytes, beginning: _Beginning | None = None) -> None:
        with self._lock:
            number = next(self._numbers)
            payload = _encode(_Message(self._sender, number, subject, data))
            if len(payload) > MAX_BYTES:
                raise Oversized("a message of the bus does not fit a notification", bytes=len(payload), most=MAX_BYTES)
            if beginning is not None:
                self._beginnings[number] = beginning
            self._outgoing.append((number, payload))
            if len(self._outgoing) > QUEUE:
                self._drop()
        self._ring()

    def _drop(self) -> None:
        """The database takes nothing at present: what waits for longest goes."""
        number, _ = self._outgoing.popleft()
        if not self._dropped:
            self._dropped = True
            _log.warning("messages were dropped while the database could not be reached")
        beginning = self._beginnings.pop(number, None)
        if beginning is not None:
            beginning.begin()

    def _ring(self) -> None:
        try:
            self._bell.send(b"!")
        except BlockingIOError:  # it rings already
            return
        except OSError:  # the bus has been closed
            return

    def subscribe(self, pattern: str, deliver: Callable[[str, bytes], None]) -> Subscription:
        """Call `deliver(subject, data)` from one thread until closed."""
        beginning = _Beginning(self._local, pattern, deliver)
        if not self._closing.is_set():
            self._send(_MARK, b"", beginning)
        return beginning.wait()

    def close(self) -> None:
        """Send what waits, if the database can be reached, and close every subscription."""
        self._closing.set()
        self._ring()
        if threading.current_thread() is not self._thread:
            self._thread.join(_FLUSH_SECONDS)
        self._local.close()
        self._bell.close()
        self._rung.close()

    # the thread

    def _listen(self) -> Connection:
        connection = self._target.connect()
        try:
            connection.add_notify_handler(lambda notice: self._arrived(notice.payload))
            connection.execute("SELECT set_config('synchronous_commit', 'off', false)")  # there is nothing to keep
            connection.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error as error:
            connection.close()
            raise Unreachable(told(error, self._target.password)) from None
        return connection

    def _run(self, connection: Connection | None) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                with closing(connection or self._listen()) as connected:
                    pause = _FIRST_PAUSE
                    self._begin_all()  # what they wait for may be lost; and nothing from before can come any more
                    self._serve(connected)
            except (psycopg.Error, Unreachable, RecordsError, OSError) as error:
                _log.warning("the bus has lost the database: %s", told(error, self._target.password))
            else:
                return
            connection = None
            if self._closing.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _begin_all(self) -> None:
        with self._lock:
            waiting, self._beginnings = list(self._beginnings.values()), {}
        for beginning in waiting:
            beginning.begin()

    def _serve(self, connection: Connection) -> None:
        """Send and receive until the end, or until the connection is lost, which raises."""
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._rung, selectors.EVENT_READ)
            while not self._closing.is_set():
                if not self._forward(connection):
                    for key, _ in selector.select():
                        if key.fileobj is self._rung:
                            self._rung.recv(4096)
                    self._receive(connection)
            while self._forward(connection):
                pass

    def _forward(self, connection: Connection) -> bool:
        """Send what waits and tell whether anything did. What is on its way when the connection ends is lost."""
        with self._lock:
            some = [self._outgoing.popleft()[1].decode() for _ in range(min(len(self._outgoing), _AT_ONCE))]
            self._dropped = self._dropped and bool(self._outgoing)
        if some:
            try:
                connection.execute("SELECT pg_notify(%s, message) FROM unnest(%s::text[]) AS message", (CHANNEL, some))
            except psycopg.Error as error:
                if lost(connection, error):
                    raise
                _log.warning("messages were refused: %s", told(error, self._target.password))
        return bool(some)

    def _receive(self, connection: Connection) -> None:
        connection.pgconn.consume_input()
        while notice := connection.pgconn.notifies():
            self._arrived(notice.extra.decode("utf-8", "replace"))

    def _arrived(self, payload: str) -> None:
        try:
            message = _decode(payload)
        except msgspec.MsgspecError:  # somebody else's
            return
        if message.subject != _MARK:
            self._local.publish(message.subject, message.data)
        elif message.sender == self._sender:
            with self._lock:
                beginning = self._beginnings.pop(message.number, None)
            if beginning is not None:
                beginning.begin()
