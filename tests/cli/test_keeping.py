"""Whoever keeps a ledger: erase, hold, export, archive, prune, restore, recover, in a directory nobody has open."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hauberk.core.config import Config
from hauberk.core.principal import Kind, Principal
from hauberk.errors import RecordsError
from hauberk.records import Erased, Event, Pii, Subject
from hauberk.runtime import Runtime
from tests.e2e.processes import hauberk

ME = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/default/sa/default")
ALLOW = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all, namespace: default}
spec: {rules: [{}]}
"""


class Signup(Event, type="test.keeping.signup.v1"):
    customer: Subject
    email: Pii[str]
    plan: str


class Shop:
    """An embedded service that has run, and whose directory is free now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "all.yaml").write_text(ALLOW)
        runtime = self.runtime()
        made = [Signup(customer=f"cust-{number % 3}", email=f"{number}@example.org", plan="a") for number in range(600)]
        for at in range(0, len(made), 20):  # what is appended at once is signed together, and pruned together
            runtime.events.append("signups", made[at : at + 20], actor=ME).result(30)
        runtime.close()

    def runtime(self) -> Runtime:
        return Runtime.embedded(self.path / ".hauberk", policies=self.path / "all.yaml", config=Config())

    def read(self) -> list[Any]:
        runtime = self.runtime()
        try:
            return [item.event for item in runtime.events.read("signups", actor=ME)]
        finally:
            runtime.close()

    def run(self, *arguments: object, code: int = 0) -> Any:  # noqa: ANN401  # JSON
        done = hauberk(*arguments, "--json", cwd=self.path)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if code == 0 else done.stderr

    def verified(self) -> int:
        key = self.path / ".hauberk" / "log.pub"
        database = self.path / ".hauberk" / "private" / "hauberk.db"
        found = self.run("ledger", "verify", database, "--key", key)
        assert found["verified"] is True
        size: int = found["report"]["size"]
        return size


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_person_is_erased_and_everybody_elses_data_stays(shop: Shop) -> None:
    done = shop.run("subject", "erase", "cust-1", "--reason", "Art. 17")
    assert (len(done["keys"]), done["scrubbed"]) == (1, True)
    events = shop.read()
    assert {type(event.email) for event in events[1::3]} == {Erased}
    assert [event.email for event in events[:1]] == ["0@example.org"]
    assert shop.verified() > 600
    assert b"HBK-717" in shop.run("subject", "erase", "cust-1", "--reason", "again", code=1).encode()


def test_a_hold_refuses_with_its_reason_until_it_is_lifted(shop: Shop) -> None:
    shop.run("subject", "hold", "cust-2", "--reason", "case 17")
    refused = shop.run("subject", "erase", "cust-2", "--reason", "Art. 17", code=1)
    assert "HBK-719" in refused
    assert "case 17" in refused
    shop.run("subject", "lift", "cust-2", "--reason", "case closed")
    again = shop.run("subject", "lift", "cust-2", "--reason", "case closed", code=1)
    assert "nothing forbids erasing this subject" in again
    assert "HBK-707" in again
    shop.run("subject", "erase", "cust-2", "--reason", "Art. 17")


def test_what_is_archived_and_pruned_verifies_and_comes_back(shop: Shop, tmp_path: Path) -> None:
    archived = shop.run("ledger", "archive", tmp_path / "archive")
    assert len(archived["files"]) == 2
    gone = shop.run(
        "ledger", "prune", "--before", 512, "--type", "test.keeping.signup.v1", "--archive", tmp_path / "archive"
    )
    assert gone["entries"] == 511  # all but the producer's introduction: statements end with their segments
    assert len(shop.read()) == 600 - gone["entries"]
    shop.verified()
    back = [shop.run("ledger", "restore", file)["restored"] for file in archived["files"]]
    assert sum(back) == gone["entries"]
    assert len(shop.read()) == 600
    shop.verified()


def test_a_log_is_exported_as_files(shop: Shop, tmp_path: Path) -> None:
    done = shop.run("ledger", "export", tmp_path / "tiles")
    assert done["size"] > 600
    assert (tmp_path / "tiles" / "checkpoint").read_text().startswith("example.org/ledger\n")
    assert (tmp_path / "tiles" / "tile" / "0" / "000").stat().st_size == 256 * 32


def test_a_database_that_was_put_back_goes_on_in_a_new_epoch(shop: Shop, tmp_path: Path) -> None:
    database = tmp_path / ".hauberk" / "private" / "hauberk.db"
    shutil.copy(database, tmp_path / "old.db")
    shop.run("subject", "erase", "cust-1", "--reason", "Art. 17")
    shutil.copy(tmp_path / "old.db", database)
    assert "HBK-713" in shop.run("subject", "erase", "cust-2", "--reason", "x", code=1)
    done = shop.run("ledger", "recover", "--new-epoch")
    assert done["origin"] == "example.org/ledger/epoch-1"
    assert done["lost"][0] == 601
    assert (tmp_path / ".hauberk" / "recovered-1.txt").read_text().count("example.org/ledger\n") == 2
    shop.verified()
    shop.run("subject", "erase", "cust-2", "--reason", "x")
    assert "HBK-906" in shop.run("ledger", "recover", "--new-epoch", code=1)


def test_a_directory_in_use_and_one_where_nothing_ran_are_refused(shop: Shop, tmp_path: Path) -> None:
    runtime = shop.runtime()
    busy = shop.run("subject", "erase", "cust-1", "--reason", "x", code=1)
    assert "HBK-906" in busy
    assert "stop that process first, or have it do so: runtime.events.erase(" in busy
    assert "authority.tiles" in shop.run("ledger", "export", tmp_path / "tiles", code=1)
    assert "hint: stop that process first" in shop.run("ledger", "recover", "--new-epoch", code=1)
    runtime.close()
    assert "HBK-902" in shop.run("subject", "erase", "a", "--reason", "x", "--dir", tmp_path / "nowhere", code=3)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"hello\n"])
def test_a_published_key_that_is_none_is_an_error_and_no_traceback(shop: Shop, content: bytes) -> None:
    place = shop.path / ".hauberk" / "log.pub"
    kept = place.read_bytes()
    asked = [("ledger", "list"), ("ledger", "proof", 0), ("ledger", "checkpoint"), ("audit", "query", "--user", "ann")]
    for words in asked:
        shop.run(*words)
    place.write_bytes(content)
    for words in asked:
        told = shop.run(*words, code=1)
        assert told.startswith("error: ")
        assert "[HBK-711]" in told
        assert "Traceback" not in told
    with pytest.raises(RecordsError) as caught:
        shop.runtime()
    assert caught.value.code == "HBK-711"
    place.write_bytes(kept)
    assert shop.verified()
