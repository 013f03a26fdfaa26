"""The one configuration tree: defaults <- `hauberk.toml` <- environment (`HAUBERK_...`) <- arguments.

Every value knows where it came from (`Config.origins`), unknown keys are errors, and secrets appear only as references
(`file:DIRECTORY`, `env:PREFIX`). A setting that weakens a control has `insecure_` in its name and is listed by
`Config.insecure()`, so status and posture can show it. The environment name of `limits.body_bytes` is
`HAUBERK_LIMITS_BODY_BYTES`; lists are written `a,b` and tables `key=value,key=value` there.
"""

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, cast, get_origin, get_type_hints

import msgspec

from hauberk.core.address import Address, BusAddress, StoreAddress
from hauberk.core.limits import Count, Limits, WithinDay
from hauberk.errors import ConfigError

PREFIX = "HAUBERK_"
FILE = "hauberk.toml"
DEFAULT = "default"
ARGUMENT = "argument"
# Not settings but hand-overs (how a process gets its identity, its keys or the place of the file itself), and the
# settings of `integrations.eventsourcing`, which that library reads from an environment of its own.
RESERVED = frozenset({"HAUBERK_CONFIG", "HAUBERK_SOCKET"})
RESERVED_PREFIXES = ("HAUBERK_EVENTSOURCING_", "HAUBERK_IDENTITY_", "HAUBERK_JOIN_", "HAUBERK_KEY_", "HAUBERK_TEST_")

_NOWHERE: Mapping[str, str] = MappingProxyType({})
_ADDRESSES = (StoreAddress, BusAddress)
_WHERE = re.compile(r"`\$\.([\w.]+)")  # how msgspec names the place: "... - at `$.limits.body_bytes`"
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A PostgreSQL database.

    Args:
        connections: how many of this process at most; each is a process of the server.
        insecure_unsynced: accept a server that may lose what it acknowledged: `fsync` or `full_page_writes` is off.
        insecure_plaintext: accept a server on another machine whose certificate is not verified.
    """

    connections: Count = 8
    insecure_unsynced: bool = False
    insecure_plaintext: bool = False


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who this process is when no authority says so.

    Args:
        namespace: such as `production`.
        account: service account, such as `payment-service`.
        labels: what policy selectors match.
    """

    namespace: str = "default"
    account: str = "default"
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class PolicyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where rules come from.

    Args:
        files: YAML files or directories of an embedded runtime; empty means deny everything.
        root_namespace: whose policies apply to every namespace, Istio's `istio-system`.
        aliases: other names of the trust domain that rules may use.
    """

    files: tuple[str, ...] = ()
    root_namespace: str = "hauberk-system"
    aliases: tuple[str, ...] = ("cluster.local",)


class EdgeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to believe about who called them.

    Args:
        trusted_hops: SPIFFE ids of gateways whose forwarding headers are kept; everybody else's are dropped.
    """

    trusted_hops: tuple[str, ...] = ()


class RecordsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where events go and what happens when they cannot.

    Args:
        queue: events waiting in memory before callers are slowed down.
        spool: directory of the on-disk spool; empty means `spool` in the state directory.
        spool_bytes: size of the on-disk spool used while the authority is away, in bytes.
        fold_rate: equal denials per caller, rule and second that get an entry of their own; the rest are counted.
        mark: file of the ledger's high-water mark, which tells when an old database was put back; empty means
            `ledger.mark` in the state directory. Best on another disk than the database.
        witnesses: file that says which witnesses have to sign the head of the log, and how many (c2sp.org/tlog-policy);
            empty means none.
        cosign_seconds: how long an event of level `cosigned` waits for them, in seconds.
        uncosigned: what happens to it then: `refuse` is an error, `report` a receipt and an entry that says so.
        insecure_unrecorded: go on when an event can be recorded nowhere, instead of refusing the call.
    """

    queue: Count = 10_000
    spool: str = ""
    spool_bytes: Count = 67_108_864
    fold_rate: Count = 10
    mark: str = ""
    witnesses: str = ""
    cosign_seconds: WithinDay = 5.0
    uncosigned: Literal["refuse", "report"] = "refuse"
    insecure_unrecorded: bool = False


class TransportConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connections.

    Args:
        max_connection_seconds: a connection older than this is closed, so that a revoked or rotated identity cannot
            live on in it, in seconds; at most a day.
    """

    max_connection_seconds: WithinDay = 3_600.0


class AuthorityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control plane.

    Args:
        host: address to listen on; loopback unless told otherwise.
        port: TCP port, 0 for a free one.
        advertise: host that tokens and grants name; empty means `host`, which then must not be a wildcard.
        svid_seconds: lifetime of an X.509-SVID, in seconds; one hour as in SPIRE and Istio, at most a day.
        tiles: `HOST:PORT` of a plain HTTP listener where anybody may check the log; empty means there is none, and
            only holders of an SVID may.
        token_seconds: lifetime of a join token, in seconds; at most a day.
        keys: where the key-encryption key is: `file:DIRECTORY` or `env:PREFIX`; empty means the state directory.
    """

    host: str = "127.0.0.1"
    port: Port = 8_440
    advertise: str = ""
    svid_seconds: WithinDay = 3_600.0
    tiles: str = ""
    token_seconds: WithinDay = 600.0
    keys: str = ""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tree.

    Args:
        trust_domain: SPIFFE trust domain.
        directory: state directory.
        store: where everything is kept: `sqlite:` is `hauberk.db` in the state directory, `sqlite:PATH` another file,
            `postgresql://...` a database that several processes may share; `env:NAME` or `file:PATH` say where that is
            written. A password in it is never shown.
        bus: how processes tell each other: `local:` is within one, `postgresql://...` between all that use a database;
            `env:` and `file:` as for the store.
        database: a PostgreSQL database.
        service: who this process is.
        policy: where rules come from.
        limits: bounds of one request.
        edge: forwarding headers.
        records: the ledger.
        transport: connections.
        authority: the control plane.
        origins: dotted key to `default`, the file's name, the variable's name or `argument`.
    """

    trust_domain: str = "example.org"
    directory: str = ".hauberk"
    store: StoreAddress = StoreAddress("sqlite:")
    bus: BusAddress = BusAddress("local:")
    database: DatabaseConfig = DatabaseConfig()
    service: ServiceConfig = ServiceConfig()
    policy: PolicyConfig = PolicyConfig()
    limits: Limits = Limits()
    edge: EdgeConfig = EdgeConfig()
    records: RecordsConfig = RecordsConfig()
    transport: TransportConfig = TransportConfig()
    authority: AuthorityConfig = AuthorityConfig()
    origins: Mapping[str, str] = _NOWHERE

    def items(self) -> Iterator[tuple[str, object, str]]:
        """Yield dotted key, value and origin of every setting, in the order of the tree."""
        for key in KEYS:
            value: object = self
            for part in key.split("."):
                value = getattr(value, part)
            yield key, str(value) if isinstance(value, Address) else value, self.origins.get(key, DEFAULT)

    def insecure(self) -> tuple[str, ...]:
        """Return the dotted keys of the dangerous settings that are on."""
        return tuple(key for key, value, _ in self.items() if key.rpartition(".")[2].startswith("insecure_") and value)


def _walk(kind: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _walk(hint, f"{prefix}{name}.")
        elif name != "origins":
            yield f"{prefix}{name}", hint


KEYS: dict[str, object] = dict(_walk(Config))
TABLES = frozenset(key.rpartition(".")[0] for key in KEYS)


def variable(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return PREFIX + key.upper().replace(".", "_")


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    arguments: Mapping[str, object] | None = None,
) -> Config:
    """Put the tree together.

    Args:
        path: the file; None means `$HAUBERK_CONFIG`, else `hauberk.toml` here if there is one.
        environ: default the process environment.
        arguments: dotted key to value; values of None are left out.

    Raises:
        ConfigError: HBK-901 unknown key, wrong type, unreadable or malformed file; the context names key and origin.
            Also a `hauberk.toml` here that others may have written: who starts us may not have chosen the directory.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, tuple[object, str]] = {}
    for source in (_from_file(path, environ), _from_environment(environ), _from_arguments(arguments or {})):
        values.update(source)
    tree: dict[str, object] = {}
    for key, (value, _) in values.items():
        _place(tree, key, value)
    origins = {key: origin for key, (_, origin) in values.items()}
    return msgspec.structs.replace(_convert(tree, origins), origins=origins)


def _convert(tree: Mapping[str, object], origins: Mapping[str, str]) -> Config:
    try:
        return msgspec.convert(tree, Config, dec_hook=_address)
    except msgspec.ValidationError as error:
        place = _WHERE.search(str(error))
        key = next((key for key in origins if place and f"{place.group(1)}.".startswith(f"{key}.")), "")
        raise ConfigError("HBK-901", str(error), key=key, origin=origins.get(key, "")) from None


def _address(kind: type, value: object) -> object:
    """Make what msgspec cannot.

    Raises:
        TypeError, ValueError: it is no address of this kind.
    """
    if isinstance(value, kind):
        return value
    if not issubclass(kind, Address) or not isinstance(value, str):
        raise TypeError("an address is a text")
    return kind(value)


def _place(tree: dict[str, object], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        tree = cast("dict[str, object]", tree.setdefault(parent, {}))
    tree[last] = value


def _known(key: str, origin: str) -> str:
    if key not in KEYS:
        raise ConfigError("HBK-901", "unknown key", key=key, origin=origin)
    return key


def _from_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    wanted = path or (Path(environ["HAUBERK_CONFIG"]) if "HAUBERK_CONFIG" in environ else None)
    found = wanted or Path(FILE)
    if wanted is None and not found.exists():
        return {}
    try:
        table = tomllib.loads(found.read_text("utf-8") if wanted else _read_own(found))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("HBK-901", f"cannot read the file: {error}", file=str(found)) from None
    return {_known(key, found.name): (value, found.name) for key, value in _flatten(table)}


def _read_own(path: Path) -> str:
    """Return the text of a file that nobody named, if only we and root can have written it.

    What was opened is what is looked at; a link counts too, for whoever made it chose the file.
    """
    with open(path, encoding="utf-8", opener=_at_once) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError("HBK-901", "not a regular file", file=str(path.absolute()))
        if not {found.st_uid, path.lstat().st_uid} <= {0, os.geteuid()}:
            raise ConfigError("HBK-901", "the file belongs to somebody else", file=str(path.absolute()))
        if found.st_mode & stat.S_IWOTH:
            raise ConfigError("HBK-901", "everybody may write the file", file=str(path.absolute()))
        return file.read()


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for somebody at the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _flatten(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key in TABLES:
            yield from _flatten(value, f"{key}.")
        else:
            yield key, value


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    names = {variable(key): key for key in KEYS}
    found: dict[str, tuple[object, str]] = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in RESERVED or name.startswith(RESERVED_PREFIXES):
            continue
        key = names.get(name)
        if key is None:
            raise ConfigError("HBK-901", "unknown variable", key=name, origin="environment")
        found[key] = (_read(key, text), name)
    return found


def _read(key: str, text: str) -> object:
    """Turn the text of a variable into what its key holds; texts, numbers and booleans are msgspec's lax reading."""
    hint = KEYS[key]
    if get_origin(hint) is tuple:
        return [item.strip() for item in text.split(",") if item.strip()]
    if get_origin(hint) is dict:
        pairs = [item.partition("=") for item in text.split(",") if item.strip()]
        if not all(name.strip() and equals for name, equals, _ in pairs):
            raise ConfigError("HBK-901", "a table is written key=value,key=value", key=key, origin=variable(key))
        return {name.strip(): value.strip() for name, _, value in pairs}
    try:
        return text if hint in _ADDRESSES else msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError("HBK-901", str(error), key=key, origin=variable(key)) from None


def _from_arguments(arguments: Mapping[str, object]) -> dict[str, tuple[object, str]]:
    return {_known(key, ARGUMENT): (value, ARGUMENT) for key, value in arguments.items() if value is not None}
