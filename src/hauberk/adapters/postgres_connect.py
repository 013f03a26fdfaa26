"""Connections to PostgreSQL: how one is opened, what a session is held to, and how a driver's exceptions end here.

A session never acknowledges what is not on disk (`synchronous_commit` is `on` whatever the server, database or role
say, unless they say `remote_apply`), never waits for ever (statement, lock and idle timeouts) and finds no object but
by its full name (`search_path`). A server that runs without `fsync` or `full_page_writes` is refused, and so is a
connection to another machine whose certificate is not verified.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo, TransactionStatus

from hauberk.adapters.postgres_arrays import register
from hauberk.core.address import is_loopback
from hauberk.errors import ConfigError, Conflict, Malformed, RecordsError

Connection = psycopg.Connection[tuple[Any, ...]]
_T = TypeVar("_T")
OLDEST = 150_000  # the oldest server version we are tested with
CONNECT_SECONDS = 5
SHORT = 4  # characters; a shorter password cannot be masked in a text
# A writer that has stopped in the middle is ended by the server before those who wait for it give up.
STATEMENT_SECONDS = 60.0
LOCK_SECONDS = 30.0
IDLE_SECONDS = 15.0  # within a transaction
_VERIFIED = frozenset({"verify-ca", "verify-full"})
_DURABLE = ("fsync", "full_page_writes")
# Connection exceptions, shutdowns, a transaction that idled too long, and a server that is no longer the primary.
_ENDED = ("08", "57P", "25P03", "25006")
_TOO_MUCH = "54"  # program limits: the same statement would fail for ever
# There is an index for whatever is asked, so a statement is planned once, and not by how full a table was just then.
_PLANS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}
_DEFAULTS = {
    "connect_timeout": CONNECT_SECONDS, "application_name": "hauberk", "tcp_user_timeout": 15_000,
    "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3,
}  # fmt: skip


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is held to.

    Args:
        statement_seconds: a statement that takes longer is ended, in seconds.
        lock_seconds: a lock that takes longer to get is given up, in seconds.
        idle_seconds: a transaction in which nothing happens for longer is ended, in seconds.
        readonly: write nothing.
        insecure_unsynced: accept a server that may lose what it acknowledged.
        insecure_plaintext: accept a connection to another machine without verified TLS.
    """

    statement_seconds: float = STATEMENT_SECONDS
    lock_seconds: float = LOCK_SECONDS
    idle_seconds: float = IDLE_SECONDS
    readonly: bool = False
    insecure_unsynced: bool = False
    insecure_plaintext: bool = False


STRICT = Terms()


class Unreachable(Exception):
    """There is no connection, or not any more. Inside this package only; `mapped` turns it into HBK-703."""


@contextmanager
def mapped(password: str = "") -> Iterator[None]:
    """Keep driver exceptions inside.

    Args:
        password: never part of what is told.

    Raises:
        Conflict: an entry is there already.
        Malformed: HBK-716 the values cannot be stored in a database at all, whoever tries.
        RecordsError: HBK-703 the engine failed, HBK-706 this login may not do that.
    """
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        raise Conflict("an event id, stream version or position is there already", what="entry") from error
    except (psycopg.DataError, psycopg.IntegrityError, UnicodeError) as error:
        raise Malformed("a value that PostgreSQL cannot hold", why=told(error, password)) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise RecordsError("HBK-706", told(error, password)) from error
    except psycopg.Error as error:
        if (error.sqlstate or "").startswith(_TOO_MUCH):
            raise Malformed("a value that is too large for PostgreSQL", why=told(error, password)) from error
        raise RecordsError("HBK-703", told(error, password)) from error
    except Unreachable as error:
        raise RecordsError("HBK-703", told(error, password)) from error


def told(error: Exception, password: str = "") -> str:
    """Return the first line of what the driver says, without the password.

    A very short password would be found everywhere, and each *** would show where: then only the class is told.
    """
    if password and len(password) < SHORT:
        return type(error).__name__
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return line.replace(password, "***") if password else line


class Target:
    """A database to connect to.

    Args:
        dsn: `postgresql://...`; never shown.
        terms: what each session is held to.

    Raises:
        ConfigError: HBK-901 it is no address, or leads to another machine without verified TLS.
    """

    def __init__(self, dsn: str, terms: Terms = STRICT) -> None:
        self.terms = terms
        try:
            given = conninfo_to_dict(dsn)
        except psycopg.Error:  # whose text may hold the password
            raise ConfigError("HBK-901", "not the address of a PostgreSQL database", key="store") from None
        self._password = str(given.get("password") or "")
        self._parameters: Mapping[str, object] = {**_DEFAULTS, **_guarded(_resolved(given), terms)}

    def __repr__(self) -> str:
        return "Target()"

    @property
    def password(self) -> str:
        """What must not be told."""
        return self._password

    def connect(self) -> Connection:
        """Open a session and hold it to the terms.

        Raises:
            Unreachable: there is no server, or it does not let us in.
            RecordsError: HBK-706 it may lose what it acknowledges, or is too old.
        """
        try:
            connection = psycopg.connect(autocommit=True, prepare_threshold=0, **self._parameters)  # type: ignore[arg-type]  # of libpq
        except psycopg.Error as error:
            raise Unreachable(told(error, self._password)) from None
        try:
            register(connection)
            self._hold(connection)
        except psycopg.Error as error:
            connection.close()
            raise Unreachable(told(error, self._password)) from None
        except RecordsError:
            connection.close()
            raise
        return connection

    def _hold(self, connection: Connection) -> None:
        terms = self.terms
        self._check(connection)
        wanted = {
            "search_path": "pg_catalog",
            "statement_timeout": str(int(terms.statement_seconds * 1000)),
            "lock_timeout": str(int(terms.lock_seconds * 1000)),
            "idle_in_transaction_session_timeout": str(int(terms.idle_seconds * 1000)),
            "default_transaction_isolation": "read committed",
            "default_transaction_read_only": "on" if terms.readonly else "off",
            **_PLANS,
        }
        connection.execute(
            "SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = 'remote_apply'"
            " THEN 'remote_apply' ELSE 'on' END, false), set_config('client_min_messages', 'warning', false)"
        )
        connection.execute(
            "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)",
            (list(wanted), list(wanted.values())),
        )

    def _check(self, connection: Connection) -> None:
        info = connection.info
        if info.server_version < OLDEST:
            raise RecordsError("HBK-706", "the server is too old", version=info.server_version, oldest=OLDEST)
        if info.parameter_status("server_encoding") != "UTF8":
            raise RecordsError("HBK-706", "the database is not encoded in UTF8")
        if self.terms.insecure_unsynced or self.terms.readonly:
            return
        rows = connection.execute("SELECT name FROM pg_catalog.pg_settings WHERE name = ANY(%s) AND setting <> 'on'",
                                  (list(_DURABLE),)).fetchall()  # fmt: skip
        if rows:
            off = ", ".join(sorted(str(name) for (name,) in rows))
            raise RecordsError("HBK-706", "the server may lose what it acknowledged", off=off)


def _resolved(given: Mapping[str, object]) -> Mapping[str, object]:
    """Return the parameters with what the environment would add to where they lead.

    Raises:
        ConfigError: HBK-901 a file of services says where.
    """
    known = {option.keyword.decode(): (option.val or b"").decode() for option in Conninfo.get_defaults()}
    if given.get("service") or known.get("service"):
        raise ConfigError("HBK-901", "the address of the database may not come from a service file", key="store")
    filled = {name: known[name] for name in ("host", "hostaddr") if known.get(name) and not given.get(name)}
    return {**given, **({} if given.get("host") or given.get("hostaddr") else filled)}


def _guarded(given: Mapping[str, object], terms: Terms) -> Mapping[str, object]:
    """Return the parameters with verified TLS wherever they lead to another machine.

    Raises:
        ConfigError: HBK-901 they ask for less.
    """
    if terms.insecure_plaintext or all(map(_here, _places(given))):
        return given
    mode = given.get("sslmode")
    if mode is not None and mode not in _VERIFIED:
        raise ConfigError("HBK-901", "a database on another machine needs sslmode=verify-full", key="store", found=mode)
    roots = {} if mode is not None or "sslrootcert" in given else {"sslrootcert": "system"}
    return {**given, **roots, "sslmode": mode or "verify-full", "gssencmode": "disable"}


def _places(given: Mapping[str, object]) -> list[str]:
    """Return where libpq will connect to: addresses before names, a Unix socket when there is neither."""
    return str(given.get("hostaddr") or given.get("host") or "").split(",")


def _here(place: str) -> bool:
    return not place or place.startswith(("/", "@")) or is_loopback(place)


class Pool:
    """A few connections, each used by one thread at a time; broken ones are thrown away and made anew.

    Args:
        target: where to.
        size: how many at most; whoever needs one more waits for it.
    """

    def __init__(self, target: Target, size: int) -> None:
        self._target = target
        self._free = threading.BoundedSemaphore(size)
        self._idle: deque[Connection] = deque()  # nobody uses them; taken and put atomically
        self._closed = False

    def run(self, work: Callable[[Connection], _T]) -> _T:
        """Return what `work` does with a connection. It may be done twice: what idled may have died meanwhile.

        A transaction that `work` leaves open is rolled back.

        Raises:
            RecordsError: HBK-706 the pool is closed, HBK-703 no connection became free in time.
        """
        self.check_open()
        if not self._free.acquire(timeout=self._target.terms.lock_seconds):
            raise RecordsError("HBK-703", "no connection to the database is free")
        try:
            self.check_open()
            connection = self._next_idle()
            if connection is not None:
                with suppress(_Stale):
                    return self._use(connection, work, idled=True)
            return self._use(self._target.connect(), work, idled=False)
        finally:
            self._free.release()

    def _next_idle(self) -> Connection | None:
        with suppress(IndexError):  # somebody else takes them too
            return self._idle.pop()
        return None

    def check_open(self) -> None:
        """Raise unless the pool is open.

        Raises:
            RecordsError: HBK-706.
        """
        if self._closed:
            raise RecordsError("HBK-706", "the store is closed")

    def _use(self, connection: Connection, work: Callable[[Connection], _T], *, idled: bool) -> _T:
        try:
            return work(connection)
        except psycopg.Error as error:
            if lost(connection, error):
                connection.close()
                self._close_idle()  # most likely they have all gone the same way
                if idled:
                    raise _Stale from error
            raise
        finally:
            self._take_back(connection)

    def _take_back(self, connection: Connection) -> None:
        status = connection.info.transaction_status
        if status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
                status = connection.info.transaction_status
        if status is not TransactionStatus.IDLE:
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:  # perhaps only since the look at the others
            self._close_idle()

    def _close_idle(self) -> None:
        while (connection := self._next_idle()) is not None:
            connection.close()

    def close(self) -> None:
        """Close what is idle now, and what is in use as soon as it is not."""
        self._closed = True
        self._close_idle()


class _Stale(Exception):
    """A connection had died while nobody used it."""


def lost(connection: Connection, error: psycopg.Error) -> bool:
    """Tell whether this is the end of a connection, or it leads to a server that takes no writes any more."""
    return connection.closed or connection.broken or (error.sqlstate or "").startswith(_ENDED)
