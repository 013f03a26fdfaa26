"""Which store and which bus: what `store` and `bus` of the configuration lead to."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, TypeVar

from hauberk.adapters.keys import check_private
from hauberk.adapters.local_bus import LocalBus
from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.address import Address
from hauberk.core.config import Config, DatabaseConfig
from hauberk.core.finding import Finding
from hauberk.core.ports import Bus, Store
from hauberk.errors import ConfigError

if TYPE_CHECKING:
    from hauberk.adapters.postgres_connect import Target, Terms

MAX_BYTES = 4_096  # of a file that holds an address
_A = TypeVar("_A", bound=Address)


def resolved(address: _A, environ: Mapping[str, str] | None = None) -> _A:
    """Return the address itself, or the one it refers to.

    Args:
        address: where a store or bus is, or where that is written.
        environ: default the process environment.

    Raises:
        ConfigError: HBK-901 there is none, or it refers to another reference; HBK-905 its file is open to others.
    """
    if address.scheme not in {"env", "file"}:
        return address
    text = _variable(address.rest, environ) if address.scheme == "env" else _file(Path(address.rest))
    try:
        found = type(address)(text)
    except ValueError as error:
        raise ConfigError("HBK-901", str(error), at=str(address)) from None
    if found.scheme in {"env", "file"}:
        raise ConfigError("HBK-901", "a reference leads to an address, not to another reference", at=str(address))
    return found


def _variable(name: str, environ: Mapping[str, str] | None) -> str:
    text = (os.environ if environ is None else environ).get(name)
    if text is None:
        raise ConfigError("HBK-901", "there is no such variable", at=f"env:{name}")
    return text.strip()


def _file(path: Path) -> str:
    check_private(path)
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError("HBK-901", "the file cannot be read", at=f"file:{path}") from None


def embedded(config: Config) -> bool:
    """Tell whether the database is the file in the state directory."""
    address = resolved(config.store)
    return address.scheme == "sqlite" and not address.rest


def open_store(config: Config, file: Path, *, now: Callable[[], float] = time) -> Store:
    """Open the store of the configuration.

    Args:
        config: `store` and `database`.
        file: the database in the state directory, for `sqlite:`.
        now: Unix seconds, for expiry.

    Raises:
        ConfigError: HBK-901 the address, HBK-905 its file, HBK-907 the extra is not installed.
        RecordsError: HBK-703 it cannot be reached, HBK-706 it is not usable, HBK-724 its tables are of another release.
    """
    address = resolved(config.store)
    if address.scheme == "postgresql":
        return _postgres(address, config.database, now=now, readonly=False)
    if address.rest and Path(address.rest).exists():
        check_private(Path(address.rest))
    return SqliteStore(Path(address.rest) if address.rest else file, now=now)


def open_auditor(address: Address, database: DatabaseConfig | None = None) -> Store:
    """Open a store that is there already for reading only.

    Raises:
        ConfigError: HBK-901 the address, HBK-905 its file, HBK-907 the extra is not installed.
        RecordsError: HBK-703, HBK-706 it cannot be opened, HBK-724 its tables are of another release.
    """
    found = resolved(address)
    if found.scheme == "postgresql":
        return _postgres(found, database or DatabaseConfig(), now=time, readonly=True)
    if not found.rest:
        raise ConfigError("HBK-901", "say which file: sqlite:PATH", at=str(address))
    return open_readonly(found.rest)


def _postgres(address: Address, database: DatabaseConfig, *, now: Callable[[], float], readonly: bool) -> Store:
    _need_driver()
    from hauberk.adapters.postgres import PostgresStore  # noqa: PLC0415  # needs an extra

    chosen = terms(database, readonly=readonly)
    return PostgresStore(address.reveal(), now=now, connections=database.connections, terms=chosen)


def terms(database: DatabaseConfig, *, readonly: bool = False) -> "Terms":
    """Return what the sessions of a PostgreSQL database are held to.

    Raises:
        ConfigError: HBK-907 the extra is not installed.
    """
    _need_driver()
    from hauberk.adapters.postgres_connect import Terms  # noqa: PLC0415  # needs an extra

    return Terms(
        readonly=readonly,
        insecure_unsynced=database.insecure_unsynced,
        insecure_plaintext=database.insecure_plaintext,
    )


class Database:
    """A PostgreSQL database as whoever looks after it sees it.

    Args:
        address: where it is.
        config: `database` of the configuration.

    Raises:
        ConfigError: HBK-901 the address, or it is no PostgreSQL database; HBK-905 its file, HBK-907 the extra is not
            installed.
    """

    def __init__(self, address: Address, config: DatabaseConfig) -> None:
        found = resolved(address)
        if found.scheme != "postgresql":
            raise ConfigError("HBK-901", "not a PostgreSQL database", at=str(address))
        _need_driver()
        self._address = found
        self._config = config

    def _at(self, *, readonly: bool = False) -> "Target":
        from hauberk.adapters.postgres_connect import Target  # noqa: PLC0415  # needs an extra

        return Target(self._address.reveal(), terms(self._config, readonly=readonly))

    def migrate(self, *, roles: bool = True) -> list[int]:
        """Bring the tables up to this release and return the numbers of what was run.

        Raises:
            RecordsError: HBK-703 it cannot be reached, HBK-706 this login may not do that, HBK-724 the tables are of a
                newer release.
        """
        from hauberk.adapters.postgres_schema import migrate  # noqa: PLC0415  # needs an extra

        return migrate(self._at(), roles=roles)

    def inspect(self) -> list[Finding]:
        """Return what is weaker than it could be.

        Raises:
            RecordsError: HBK-703 it cannot be reached, HBK-706 this login may not look.
        """
        from hauberk.adapters.postgres_check import inspect  # noqa: PLC0415  # needs an extra

        return inspect(self._at(readonly=True))

    def scrub(self) -> bool:
        """Overwrite what was deleted, and tell whether nothing of it is left.

        Raises:
            RecordsError: HBK-703 it cannot be reached.
        """
        from hauberk.adapters.postgres_scrub import scrub_target  # noqa: PLC0415  # needs an extra

        return scrub_target(self._at())

    @staticmethod
    def roles_sql() -> str:
        """Return who may do what, as SQL.

        Raises:
            ConfigError: HBK-907 the extra is not installed.
        """
        _need_driver()
        from hauberk.adapters.postgres_schema import roles_sql  # noqa: PLC0415  # needs an extra

        return roles_sql()


def open_bus(config: Config) -> Bus:
    """Open the bus of the configuration.

    Raises:
        ConfigError: HBK-901 the address, HBK-905 its file, HBK-907 the extra is not installed.
        RecordsError: HBK-703 the database cannot be reached.
    """
    address = resolved(config.bus)
    if address.scheme == "local":
        return LocalBus()
    _need_driver()
    from hauberk.adapters.postgres_bus import PostgresBus  # noqa: PLC0415  # needs an extra

    return PostgresBus(address.reveal(), terms=terms(config.database))


def _need_driver() -> None:
    try:
        import psycopg  # noqa: F401, PLC0415  # an extra, for whoever uses it
    except ImportError:  # not there, or without libpq
        raise ConfigError("HBK-907", "install hauberk[postgres]") from None
