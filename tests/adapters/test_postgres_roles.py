"""Who may do what in the database: each attack on the log by the application's login, what stops it, and the twin."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from msgspec.structs import replace

from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.postgres_check import inspect
from hauberk.adapters.postgres_connect import Target
from hauberk.core.finding import Severity
from hauberk.core.ports import Delete, Put, Tile, Write
from hauberk.crypto.signing import SigningKey
from hauberk.records.ledger import Ledger
from hauberk.records.verify import verify_store
from tests.core.refusal import refuses
from tests.records.made import ORIGIN, PATIENCE, append, entry, events
from tests.support.postgres import address, database, execute, login

# Whoever has stolen the login of the application tries to change history, or to take the guards away.
CHANGES = {
    "rewrite an entry": "UPDATE hauberk.entry SET public = 'x'",
    "move an entry": "UPDATE hauberk.entry SET position = position + 100",
    "delete an entry": "DELETE FROM hauberk.entry WHERE position = 1",
    "empty the log": "TRUNCATE hauberk.entry",
    "cut the tail off": "UPDATE hauberk.head SET size = 1",
    "step back an epoch": "UPDATE hauberk.head SET epoch = -1",
    "forget the head": "DELETE FROM hauberk.head",
    "empty the heads": "TRUNCATE hauberk.head",
    "rewrite a tile": "UPDATE hauberk.tile SET data = 'x'",
    "shorten a tile": "UPDATE hauberk.tile SET data = substring(data FROM 1 FOR 31)",
    "delete a tile": "DELETE FROM hauberk.tile",
    "empty the tiles": "TRUNCATE hauberk.tile",
}
GUARDS = {
    "drop the log": "DROP TABLE hauberk.entry",
    "drop everything": "DROP SCHEMA hauberk CASCADE",
    "disable the triggers": "ALTER TABLE hauberk.entry DISABLE TRIGGER USER",
    "drop a trigger": "DROP TRIGGER entry_kept ON hauberk.entry",
    "replace what a trigger does": "CREATE OR REPLACE FUNCTION hauberk.refuse() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN RETURN NULL; END'",
    "pass the triggers by": "SET session_replication_role = replica",
    "become the retention role": "SET ROLE hauberk_retention",
    "take the log over": "ALTER TABLE hauberk.entry OWNER TO CURRENT_USER",
    "pretend another release": "DELETE FROM hauberk.migration",
    "read another's files": "COPY hauberk.entry TO PROGRAM 'cat'",
}


@pytest.fixture
def app() -> Iterator[str]:
    """The address of a database, as a login that is in `hauberk_app`, with something in it."""
    with login("hauberk_app") as name, database() as owner:
        dsn = address(owner, user=name, password="p")
        with closing(PostgresStore(dsn)) as store:
            store.commit(Write(replace(append(entry(0), entry(1), entry(2)), tiles=(Tile(0, 0, b"h" * 96),))))
        yield dsn


def owner_of(dsn: str) -> str:
    return address(dsn, user="postgres", password="")


def name_of(dsn: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(dsn)["user"])


def attack(dsn: str, statement: str) -> None:
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        connection.execute(statement.encode())


def refused(dsn: str, statement: str) -> bool:
    with closing(PostgresStore(owner_of(dsn))) as store:
        before = [list(store.entries(ORIGIN)), store.head(ORIGIN), store.tile(ORIGIN, 0, 0)]
        try:
            attack(dsn, statement)
        except psycopg.errors.InsufficientPrivilege:
            assert [list(store.entries(ORIGIN)), store.head(ORIGIN), store.tile(ORIGIN, 0, 0)] == before
            return True
        return False


TABLES = ("entry", "head", "tile")
NO_TRIGGERS = [f"ALTER TABLE hauberk.{table} DISABLE TRIGGER USER" for table in TABLES]


@pytest.mark.parametrize("what", CHANGES)
def test_neither_privileges_nor_triggers_alone_have_to_stop_the_application(app: str, what: str) -> None:
    statement = CHANGES[what]
    assert refused(app, statement)  # as shipped
    execute(owner_of(app), f"GRANT ALL ON ALL TABLES IN SCHEMA hauberk TO {name_of(app)}")
    assert refused(app, statement)  # with every privilege: the triggers
    assert refused(owner_of(app), statement) or what == "delete an entry"  # even a superuser, who is in every role
    execute(owner_of(app), *NO_TRIGGERS)
    assert not refused(app, statement)  # the twin: without both it succeeds


@pytest.mark.parametrize(
    "what", [what for what in CHANGES if "size" not in CHANGES[what] and "epoch" not in CHANGES[what]]
)
def test_privileges_alone_stop_what_they_can(app: str, what: str) -> None:
    execute(owner_of(app), *NO_TRIGGERS)
    assert refused(app, CHANGES[what]) is (
        "tile SET" not in CHANGES[what]
    )  # whether a tile only grows, no privilege says


@pytest.mark.parametrize("what", GUARDS)
def test_the_application_cannot_take_the_guards_away(app: str, what: str) -> None:
    assert refused(app, GUARDS[what])


@pytest.mark.parametrize("what", [what for what in GUARDS if "pretend" not in what])
def test_the_twin_whoever_may_do_everything_can(app: str, what: str) -> None:
    execute(owner_of(app), f"ALTER ROLE {name_of(app)} SUPERUSER")
    attack(app, GUARDS[what])


def test_the_twin_without_the_triggers_of_the_table_its_owner_deletes(app: str) -> None:
    name = name_of(app)
    execute(owner_of(app), *(f"ALTER TABLE hauberk.{table} OWNER TO {name}" for table in TABLES))
    assert refused(app, CHANGES["delete an entry"])  # the trigger binds the owner
    attack(app, GUARDS["disable the triggers"])  # until the owner takes it away
    attack(app, CHANGES["delete an entry"])
    attack(app, GUARDS["drop the log"])


def test_the_applications_login_is_enough_for_a_ledger_and_its_rows() -> None:
    signer = SigningKey.generate()
    with login("hauberk_app") as name, database() as owner, closing(PostgresStore(address(owner, user=name))) as store:
        ledger = Ledger(store, signer, ORIGIN)
        for size in (1, 300, 2, 600):
            ledger.append_batch(events(size)).result(PATIENCE)
        ledger.close()
        assert verify_store(store, ledger.verifier).size == 903
        store.commit(Write(rows=(Put("s", b"k", b"v"), Put("s", b"l", b"v"), Delete("s", b"m"))))
        store.commit(Write(rows=(Put("s", b"k", b"w", expected=1), Delete("s", b"l"))))
        with refuses("HBK-706"):
            store.prune(ORIGIN, range(10))
        assert len(list(store.entries(ORIGIN, limit=2000))) == 903


def test_retention_prunes_and_restores_and_does_nothing_else(app: str) -> None:
    with login("hauberk_retention") as name:
        dsn = address(app, user=name)
        with closing(PostgresStore(dsn)) as store:
            kept = list(store.entries(ORIGIN))
            assert store.prune(ORIGIN, range(9)) == 2
            assert store.restore(ORIGIN, kept) == 2
            assert list(store.entries(ORIGIN)) == kept
            with refuses("HBK-706"):
                store.commit(Write(append(entry(3))))
            with refuses("HBK-706"):
                store.commit(Write(rows=(Put("s", b"k", b"v"),)))
        for what, statement in (CHANGES | GUARDS).items():
            assert refused(dsn, statement) is (what not in {"delete an entry", "become the retention role"})


def test_an_auditor_reads_and_does_nothing_else(app: str) -> None:
    with login("hauberk_auditor") as name:
        dsn = address(app, user=name)
        with closing(PostgresStore(dsn)) as store:
            assert len(list(store.entries(ORIGIN))) == 3
            assert store.get("s", b"k") is None
            calls = [Write(append(entry(3))), Write(rows=(Put("s", b"k", b"v"),)), Write()]
            for call in calls:
                with refuses("HBK-706"):
                    store.commit(call)
        for statement in (CHANGES | GUARDS).values():
            assert refused(dsn, statement)


def test_who_is_in_none_of_the_roles_sees_nothing(app: str) -> None:
    with login() as name:
        with refuses("HBK-706"):
            PostgresStore(address(app, user=name))
        for table in ("entry", "head", "tile", "row", "revision", "migration"):
            assert refused(address(app, user=name), f"SELECT FROM hauberk.{table}")


# the check


def rules(dsn: str) -> set[tuple[str, Severity]]:
    return {(one.rule, one.severity) for one in inspect(Target(dsn)) if one.subject != "data_checksums"}


def test_the_check_has_nothing_to_say_against_the_application_and_warns_of_stronger_logins(app: str) -> None:
    assert rules(app) == set()
    assert rules(owner_of(app)) == {("login", Severity.WARNING)}
    with login("hauberk_retention") as name:
        assert rules(address(app, user=name)) == {("login", Severity.WARNING)}


@pytest.mark.parametrize(
    ("weakened", "rule"),
    [
        ("GRANT UPDATE ON hauberk.entry TO hauberk_app", "privilege"),
        ("GRANT UPDATE (public) ON hauberk.entry TO hauberk_app", "privilege"),
        ("GRANT DELETE ON hauberk.entry TO PUBLIC", "privilege"),
        ("GRANT TRUNCATE ON hauberk.tile TO hauberk_retention", "privilege"),
        ("GRANT CREATE ON SCHEMA hauberk TO hauberk_app", "privilege"),
        ("ALTER TABLE hauberk.entry DISABLE TRIGGER entry_kept", "trigger"),
        ("ALTER TABLE hauberk.tile ENABLE TRIGGER tile_grows", "trigger"),  # but not ALWAYS
        ("DROP TRIGGER head_forward ON hauberk.head", "trigger"),
        ("DELETE FROM hauberk.migration", "schema"),
    ],
)
def test_the_check_finds_what_was_weakened(app: str, weakened: str, rule: str) -> None:
    execute(owner_of(app), weakened)
    assert rules(app) == {(rule, Severity.ERROR)}
