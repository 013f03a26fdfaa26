"""What a database looks like to somebody who wonders whether its log can be changed: who may, and what would stop them.

The offline verifier finds every change of the log anyhow; this is about how many could make one. It reads privileges,
triggers and settings, and reports what is weaker than `roles.sql` and the migrations make it.
"""

from collections.abc import Iterator
from typing import LiteralString

from hauberk.adapters.postgres_connect import Connection, Target, mapped
from hauberk.adapters.postgres_schema import check_schema
from hauberk.core.finding import Finding, Severity
from hauberk.errors import RecordsError

# What anybody but the owner may do, by table; SELECT may be given to anybody.
_MAY: dict[str, dict[str, frozenset[str]]] = {
    "hauberk_app": {
        "entry": frozenset({"INSERT"}),
        "head": frozenset({"INSERT"}),
        "tile": frozenset({"INSERT"}),
        "row": frozenset({"INSERT", "DELETE", "MAINTAIN"}),
    },
    "hauberk_retention": {"entry": frozenset({"INSERT", "DELETE"})},
}
_COLUMNS = {("hauberk_app", table) for table in ("head", "tile", "row", "revision")}  # may UPDATE some of them
_TRIGGERS = frozenset({
    ("entry", "entry_fixed"), ("entry", "entry_kept"), ("head", "head_forward"), ("head", "head_kept"),
    ("tile", "tile_grows"), ("tile", "tile_kept"),
})  # fmt: skip
_PRIVILEGES: LiteralString = """
SELECT relname, coalesce(rolname, 'PUBLIC'), privilege_type
FROM pg_class, aclexplode(relacl) LEFT JOIN pg_roles ON pg_roles.oid = grantee
WHERE relnamespace = 'hauberk'::regnamespace AND relkind = 'r' AND grantee <> relowner ORDER BY 1, 2, 3
"""
_COLUMN_PRIVILEGES: LiteralString = """
SELECT DISTINCT relname, coalesce(rolname, 'PUBLIC'), privilege_type || ' of columns'
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid, aclexplode(attacl)
LEFT JOIN pg_roles ON pg_roles.oid = grantee
WHERE relnamespace = 'hauberk'::regnamespace AND grantee <> relowner AND privilege_type <> 'SELECT' ORDER BY 1, 2, 3
"""
_IN_FORCE: LiteralString = """
SELECT relname, tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE relnamespace = 'hauberk'::regnamespace AND tgenabled = 'A'
"""
_LOGIN: LiteralString = """
SELECT rolsuper,
  EXISTS (SELECT FROM pg_class WHERE relnamespace = 'hauberk'::regnamespace AND pg_has_role(relowner, 'USAGE')),
  to_regrole('hauberk_retention') IS NOT NULL AND pg_has_role('hauberk_retention', 'USAGE')
FROM pg_roles WHERE rolname = current_user
"""
_MAKERS: LiteralString = """
SELECT coalesce(rolname, 'PUBLIC') FROM pg_namespace, aclexplode(nspacl) LEFT JOIN pg_roles ON pg_roles.oid = grantee
WHERE nspname = 'hauberk' AND privilege_type = 'CREATE' AND grantee <> nspowner
"""
_OFF: LiteralString = """
SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'data_checksums') AND setting <> 'on'
"""


def inspect(target: Target) -> list[Finding]:
    """Return what is weaker than it could be; an empty list says that nothing is.

    Raises:
        RecordsError: HBK-703 the server cannot be reached, HBK-706 this login may not read the tables.
    """
    with mapped(target.password), target.connect() as connection:
        try:
            check_schema(connection)
        except RecordsError as error:
            if error.code != "HBK-724":
                raise
            return [_finding("schema", error.detail, Severity.ERROR)]
        return [*_login(connection), *_privileges(connection), *_triggers(connection), *_settings(connection)]


def _finding(rule: str, message: str, severity: Severity, subject: str = "") -> Finding:
    return Finding(source="posture", rule=rule, severity=severity, message=message, subject=subject)


def _login(connection: Connection) -> Iterator[Finding]:
    superuser, owner, retention = connection.execute(_LOGIN).fetchall()[0]
    why = "is a superuser" if superuser else "owns the tables" if owner else "is in hauberk_retention"
    if superuser or owner or retention:
        text = f"this login {why} and could change the log: give the application one that is in hauberk_app alone"
        yield _finding("login", text, Severity.WARNING, connection.info.user)


def _privileges(connection: Connection) -> Iterator[Finding]:
    for table, role, privilege in connection.execute(_PRIVILEGES).fetchall():
        if privilege != "SELECT" and privilege not in _MAY.get(role, {}).get(table, ()):
            yield _finding("privilege", f"{role} may {privilege} {table}", Severity.ERROR, role)
    for table, role, privilege in connection.execute(_COLUMN_PRIVILEGES).fetchall():
        if (role, table) not in _COLUMNS or privilege != "UPDATE of columns":
            yield _finding("privilege", f"{role} may {privilege} of {table}", Severity.ERROR, role)
    for (role,) in connection.execute(_MAKERS).fetchall():
        yield _finding("privilege", f"{role} may make objects in the schema", Severity.ERROR, role)


def _triggers(connection: Connection) -> Iterator[Finding]:
    found = {(table, name) for table, name in connection.execute(_IN_FORCE).fetchall()}
    for table, name in sorted(_TRIGGERS - found):
        yield _finding("trigger", f"the trigger {name} of {table} is not in force", Severity.ERROR, table)


def _settings(connection: Connection) -> Iterator[Finding]:
    for (name,) in connection.execute(_OFF).fetchall():
        severity = Severity.WARNING if name == "data_checksums" else Severity.ERROR
        yield _finding("setting", f"{name} is off", severity, name)
    if connection.info.host and not connection.info.host.startswith("/") and not connection.pgconn.ssl_in_use:
        yield _finding("plaintext", "the connection is not encrypted", Severity.WARNING, connection.info.host)
