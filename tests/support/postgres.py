"""A database for each test, on the server that `HAUBERK_TEST_POSTGRES` names, or on one of our own out of a wheel.

One server serves every test of a session, and each database is made from a template that has the schema.
"""

import atexit
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from itertools import count
from urllib.parse import quote

import psycopg
from psycopg.conninfo import make_conninfo

from hauberk.adapters.postgres_connect import Target
from hauberk.adapters.postgres_schema import migrate
from tests.support.postgres_server import Server

__all__ = ["Server", "address", "administrator", "database", "execute", "login", "template"]
TEMPLATE = "hauberk_template"
_numbers = count(1)


@cache
def administrator() -> str:
    """Return the address of a database whose user may do everything, on a server that all tests share."""
    given = os.environ.get("HAUBERK_TEST_POSTGRES")
    if given:
        return given
    server = Server()
    atexit.register(server.remove)
    server.start()
    return server.dsn()


def execute(dsn: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def address(dsn: str, **parts: str) -> str:
    """Return the address with other parts, such as `dbname` or `user`."""
    found = psycopg.conninfo.conninfo_to_dict(make_conninfo(dsn, **parts))
    host, name, user = (quote(str(found.pop(key, "")), safe="") for key in ("host", "dbname", "user"))
    password = ":" + quote(str(found.pop("password")), safe="") if "password" in found else ""
    port = f":{found.pop('port')}" if "port" in found else ""
    query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in found.items())
    return f"postgresql://{user}{password}@{host}{port}/{name}" + (f"?{query}" if query else "")


@cache
def template() -> str:
    """Return the name of a database with our schema and roles."""
    name = f"{TEMPLATE}_{os.getpid()}"
    admin = administrator()
    execute(admin, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}")
    atexit.register(_drop, name)
    migrate(Target(address(admin, dbname=name)))
    return name


def _drop(name: str) -> None:
    try:
        execute(administrator(), f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    except psycopg.OperationalError:  # the server is ours and has ended already
        return


@contextmanager
def database(*, empty: bool = False) -> Iterator[str]:
    """Lend a database of one's own, with our schema unless `empty`; yields the address of its owner."""
    name = f"hauberk_test_{os.getpid()}_{next(_numbers)}"
    source = "template0 ENCODING 'UTF8'" if empty else template()
    execute(administrator(), f"CREATE DATABASE {name} TEMPLATE {source}")
    try:
        yield address(administrator(), dbname=name)
    finally:
        _drop(name)


@contextmanager
def login(*groups: str) -> Iterator[str]:
    """Lend a role that may log in and is in these groups."""
    name = f"hauberk_test_{os.getpid()}_role_{next(_numbers)}"
    template()  # which makes the groups
    grants = [f"GRANT {group} TO {name}" for group in groups]
    execute(administrator(), f"CREATE ROLE {name} LOGIN PASSWORD 'p'", *grants)
    try:
        yield name
    finally:
        execute(administrator(), f"DROP OWNED BY {name}", f"DROP ROLE {name}")
