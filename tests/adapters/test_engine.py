"""Which engine an address leads to, where a reference is read, and that both planes start on a database."""

import builtins
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hauberk.adapters.engine import Database, embedded, open_auditor, open_bus, open_store, resolved
from hauberk.adapters.local_bus import LocalBus
from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.postgres_bus import PostgresBus
from hauberk.adapters.sqlite import SqliteStore
from hauberk.authority.authority import Authority
from hauberk.core.address import BusAddress, StoreAddress
from hauberk.core.config import Config, DatabaseConfig, load
from hauberk.core.ports import Write
from hauberk.errors import HauberkError, RecordsError
from hauberk.records.verify import verify_store
from hauberk.runtime import Runtime
from tests.core.refusal import refuses
from tests.records.made import ORIGIN, PATIENCE, append, entry, event
from tests.support.postgres import database


@pytest.fixture
def dsn() -> Iterator[str]:
    with database() as lent:
        yield lent


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return f"file:{path}"


def test_a_reference_is_followed_once_and_never_further(tmp_path: Path) -> None:
    environ = {"A": " sqlite:there\n", "B": "env:A", "C": "mysql://me:hunter2@db"}
    assert resolved(StoreAddress("env:A"), environ) == StoreAddress("sqlite:there")
    assert resolved(StoreAddress("sqlite:x"), environ) == StoreAddress("sqlite:x")
    reference = private(tmp_path / "dsn", "postgresql://db/x\n")
    assert resolved(BusAddress(reference)) == BusAddress("postgresql://db/x")
    for name in ("B", "C", "D"):
        with refuses("HBK-901") as found:
            resolved(StoreAddress(f"env:{name}"), environ)
        assert "hunter2" not in found.value.diagnostics()
    with refuses("HBK-901"):
        resolved(StoreAddress(private(tmp_path / "bytes", "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"))))


def test_a_file_that_others_may_read_is_no_secret(tmp_path: Path) -> None:
    reference = private(tmp_path / "dsn", "postgresql://me:hunter2@db/x")
    assert resolved(StoreAddress(reference)).reveal() == "postgresql://me:hunter2@db/x"  # the twin
    (tmp_path / "dsn").chmod(0o640)
    with refuses("HBK-905"):
        resolved(StoreAddress(reference))
    with refuses("HBK-905"):
        resolved(StoreAddress(f"file:{tmp_path / 'nothing'}"))


def test_each_address_opens_its_engine(tmp_path: Path, dsn: str) -> None:
    cases: list[tuple[str, type]] = [
        ("sqlite:", SqliteStore),
        (f"sqlite:{tmp_path / 'other.db'}", SqliteStore),
        (dsn, PostgresStore),
        (private(tmp_path / "dsn", dsn), PostgresStore),
    ]
    for text, kind in cases:
        config = load(arguments={"store": text}, environ={})
        with closing(open_store(config, tmp_path / "own.db")) as store:
            assert type(store) is kind
            assert embedded(config) is (text == "sqlite:")
            store.commit(Write(append(entry(0), log=text[:20])))
    assert {path.name for path in tmp_path.glob("*.db")} == {"own.db", "other.db"}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.db")} == {0o600}
    for text, kind in (("local:", LocalBus), (dsn, PostgresBus)):
        with closing(open_bus(load(arguments={"bus": text}, environ={}))) as bus:
            assert type(bus) is kind


def test_a_file_elsewhere_is_used_only_while_it_is_ours_alone(tmp_path: Path) -> None:
    config = Config(store=StoreAddress(f"sqlite:{tmp_path / 'other.db'}"))
    open_store(config, tmp_path / "own.db").close()
    (tmp_path / "other.db").chmod(0o644)
    with refuses("HBK-905"):
        open_store(config, tmp_path / "own.db")


def test_an_auditor_opens_what_is_there_and_writes_nothing(tmp_path: Path, dsn: str) -> None:
    path = f"sqlite:{tmp_path / 's.db'}"
    for text in (path, dsn):
        with closing(open_store(Config(store=StoreAddress(text)), tmp_path / "own.db")) as store:
            store.commit(Write(append(entry(0))))
        with closing(open_auditor(StoreAddress(text))) as auditor:
            assert auditor.head(ORIGIN).size == 1
            with pytest.raises(HauberkError):
                auditor.commit(Write(append(entry(1))))
    with refuses("HBK-901"):
        open_auditor(StoreAddress("sqlite:"))


@pytest.mark.parametrize(
    "call",
    [
        lambda: open_store(Config(store=StoreAddress("postgresql://localhost/x")), Path("own.db")),
        lambda: open_bus(Config(bus=BusAddress("postgresql://localhost/x"))),
        lambda: open_auditor(StoreAddress("postgresql://localhost/x")),
        lambda: Database(StoreAddress("postgresql://localhost/x"), DatabaseConfig()),
        Database.roles_sql,
    ],
    ids=["store", "bus", "auditor", "database", "roles"],
)
def test_without_the_extra_it_says_what_to_install(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: object) -> object:
        if name.partition(".")[0] == "psycopg":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(builtins, "__import__", missing)
    with refuses("HBK-907") as found:
        call()
    assert found.value.detail == "install hauberk[postgres]"


def test_the_embedded_engine_loads_no_driver() -> None:
    program = (
        "import sys, hauberk.adapters.engine, hauberk.runtime\n"
        "sys.exit(any(name.partition('.')[0] == 'psycopg' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_embedded_runtime_records_in_the_database_and_takes_its_ledger_up_again(tmp_path: Path, dsn: str) -> None:
    config = load(arguments={"store": dsn, "directory": str(tmp_path / "state")}, environ={})
    for turn in range(2):
        runtime = Runtime.embedded(config=config)
        runtime.recorder.submit(event(turn)).result(PATIENCE)
        assert runtime.status()["insecure"] == []
        runtime.close()
    assert not (tmp_path / "state" / "private" / "hauberk.db").exists()
    with closing(open_auditor(config.store)) as auditor:
        key = (tmp_path / "state" / "log.pub").read_text().strip()
        assert verify_store(auditor, key).size >= 2
    other = load(arguments={"store": dsn, "directory": str(tmp_path / "another")}, environ={})
    with pytest.raises(RecordsError) as found:  # without the log's key and mark it does not go on with a log
        Runtime.embedded(config=other)
    assert found.value.code in {"HBK-710", "HBK-713"}


def test_an_authority_keeps_everything_in_the_database(tmp_path: Path, dsn: str) -> None:
    config = load(arguments={"store": dsn}, environ={})
    for turn in range(2):
        authority = Authority(tmp_path / "state", config)
        size = authority.ledger.head().size
        authority.record("identity.issued", actor=f"turn {turn}")
        assert authority.ledger.head().size == size + 1 >= 2
        authority.close()


def test_the_words_insecure_are_in_the_posture() -> None:
    config = load(environ={"HAUBERK_DATABASE_INSECURE_UNSYNCED": "true"})
    assert config.insecure() == ("database.insecure_unsynced",)
