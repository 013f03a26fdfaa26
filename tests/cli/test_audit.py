"""`hauberk audit`: asking through the authority and beside an application, and lines for other systems."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hauberk.core.event import Leaf
from hauberk.crypto.merkle import leaf_hash, verify_inclusion
from hauberk.crypto.note import decode_key
from hauberk.integrations.cose import verify_receipt
from hauberk.integrations.logging import AuditSink
from hauberk.records.mark import read_mark
from hauberk.runtime import Runtime
from tests.authority.mesh import Mesh
from tests.cli.terminal import Terminal

ALICE, BOB = "alice@example.org", "bob@example.org"
FORGED = '/x\nCEF:0|Hauberk|hauberk|1|audit.access|audit.access|3|suser=bob\n{"actor":"bob"}\x1b[2K\u202e'


@pytest.fixture
def hauberk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Terminal:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HAUBERK_")]:
        monkeypatch.delenv(name)
    return Terminal(monkeypatch, capsys)


def fill(runtime: Runtime) -> None:
    runtime.audit.access(ALICE, "/orders/17", "read", address="10.0.0.1", details={"password": "Tr0ub4dor"})
    runtime.audit.access(BOB, "/orders/18", "refund", "denied", reason="not theirs")
    runtime.audit.access(BOB, FORGED, FORGED, "failed", reason=FORGED)
    runtime.audit.access(ALICE, "/orders/19", "read", level="receipt").result()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Runtime]:
    """An application that runs here."""
    runtime = Runtime.embedded(tmp_path / ".hauberk", policies=())
    fill(runtime)
    yield runtime
    runtime.close()


@pytest.fixture
def left(app: Runtime) -> Runtime:
    """An application that ran here."""
    app.close()
    return app


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("mesh")) as made:
        made.register("shop")
        shop = made.join("shop")
        fill(shop)
        made.leave(shop)
        yield made


def resources(data: dict[str, Any]) -> list[str]:
    return [one["data"]["resource"] for one in data["entries"]]


# asking


def test_through_the_authority(hauberk: Terminal, mesh: Mesh) -> None:
    done = hauberk("audit", "query", "--user", ALICE, "--json", "--dir", mesh.path)
    assert done.status == 0
    assert resources(done.data) == ["/orders/17", "/orders/19"]
    assert ALICE not in done.out
    assert [one["stream"] for one in done.data["entries"]] == ["/audit/production/shop"] * 2


def test_beside_an_application_that_is_not_running_and_that_is_recorded(hauberk: Terminal, left: Runtime) -> None:
    done = hauberk("audit", "query", "--user", ALICE, "--json")
    assert done.status == 0
    assert resources(done.data) == ["/orders/17", "/orders/19"]
    reads = hauberk("ledger", "list", "--stream", "/records/reads", "--json").data
    hidden = left.pseudonyms.of("user", ALICE)
    assert [one["type"] for one in reads] == ["records.read", "records.read.counted"]
    assert reads[0]["actor"] == f"uid:{os.geteuid()}"
    assert reads[0]["data"]["stream"] == f"/audit/* user={hidden}"
    assert reads[1]["data"]["entries"] == 2


@pytest.mark.usefixtures("app")
def test_beside_one_that_is_running_it_says_that_it_could_not_be_recorded(hauberk: Terminal) -> None:
    done = hauberk("audit", "query", "--user", ALICE, "--json")
    assert done.status == 0
    assert resources(done.data) == ["/orders/17", "/orders/19"]
    assert "not recorded: another process" in done.err


def test_where_nothing_ever_ran_it_says_so(hauberk: Terminal) -> None:
    done = hauberk("audit", "query")
    assert done.status == 3
    assert "[HBK-902]" in done.err


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((), ["/orders/17", "/orders/18", FORGED, "/orders/19"]),
        (("--user", BOB), ["/orders/18", FORGED]),
        (("--address", "10.0.0.1"), ["/orders/17"]),
        (("--resource", "/orders/*"), ["/orders/17", "/orders/18", "/orders/19"]),
        (("--resource", "/orders/18"), ["/orders/18"]),
        (("--action", "read", "--limit", "1"), ["/orders/19"]),
        (("--outcome", "denied"), ["/orders/18"]),
        (("--type", "audit.login"), []),
        (("--since", "2h"), ["/orders/17", "/orders/18", FORGED, "/orders/19"]),
        (("--until", "2h"), []),
        (("--since", "2020-01-01", "--until", "2021-01-01T00:00:00+02:00"), []),
        (("--stream", "/audit/default/default"), ["/orders/17", "/orders/18", FORGED, "/orders/19"]),
        (("--stream", "/audit/production/*"), []),
        (("--session", "nobody's"), []),
    ],
)
def test_by_what_is_known(hauberk: Terminal, asked: tuple[str, ...], found: list[str]) -> None:
    done = hauberk("audit", "query", *asked, "--json")
    assert done.status == 0
    assert resources(done.data) == found
    assert (f"{len(found)} entries" if found else "no entry") in done.err


@pytest.mark.parametrize(
    "wrong", [("--since", "soon"), ("--limit", "0"), ("--until", "99999999w"), ("--format", "xml")]
)
def test_wrong_usage_is_exit_status_two(hauberk: Terminal, wrong: tuple[str, ...]) -> None:
    assert hauberk("audit", "query", *wrong).status == 2


@pytest.mark.usefixtures("left")
def test_each_entry_comes_with_its_proof(hauberk: Terminal) -> None:
    found = hauberk("audit", "query", "--proof", "--json").data
    signed = read_mark(found["checkpoint"], decode_key(found["key"])[1])
    for one in found["entries"]:
        leaf, path = bytes.fromhex(one["proof"]["leaf"]), [bytes.fromhex(step) for step in one["proof"]["path"]]
        verify_inclusion(leaf_hash(leaf), Leaf.decode(leaf).position, signed.size, path, signed.root)
    shown = hauberk("audit", "query", "--proof", "--limit", "1").out
    assert " leaf 01" in shown
    assert shown.rstrip().splitlines()[-1].startswith("— example.org/ledger ")


def test_an_edited_database_is_a_finding(hauberk: Terminal, app: Runtime, tmp_path: Path) -> None:
    app.close()
    database = tmp_path / ".hauberk" / "private" / "hauberk.db"
    data = database.read_bytes()
    assert data.count(b"/orders/18") == 1
    database.write_bytes(data.replace(b"/orders/18", b"/orders/99"))
    done = hauberk("audit", "query")
    assert done.status == 1
    assert "[HBK-710]" in done.err
    assert hauberk("audit", "query", "--user", ALICE).status == 0  # what was not touched is proven


@pytest.mark.usefixtures("left")
def test_people_see_one_line_an_entry_whatever_is_in_it(hauberk: Terminal) -> None:
    lines = hauberk("audit", "query").out.splitlines()
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert "denied  refund  /orders/18  not theirs" in lines[1]
    assert "\\u000aCEF:0" in lines[2]


def test_of_a_log_message_people_see_the_beginning(hauberk: Terminal, app: Runtime) -> None:
    log = logging.Logger("shop.orders")  # noqa: LOG001  # one of its own
    log.addHandler(AuditSink(app.audit))
    log.warning("refund of order %s refused\x1b[2K\n%s", "o-17", "x" * 500, extra={"user": ALICE})
    app.close()
    [line] = hauberk("audit", "query", "--type", "audit.log").out.splitlines()
    assert "WARNING  shop.orders  refund of order o-17 refused\\u001b[2K\\u000axxx" in line
    assert line.isprintable()
    assert len(line) < 400


@pytest.mark.usefixtures("left")
def test_no_hit_is_no_entry(hauberk: Terminal) -> None:
    done = hauberk("audit", "query", "--user", "nobody@example.org")
    assert (done.status, done.out, done.err) == (0, "", "no entry\n")


# exporting


@pytest.mark.parametrize("form", ["jsonl", "cef", "syslog"])
def test_every_entry_is_one_line(hauberk: Terminal, left: Runtime, form: str) -> None:
    done = hauberk("audit", "export", "--format", form)
    assert done.status == 0
    lines = done.out.splitlines()
    assert len(lines) == 4
    for bad in ("Tr0ub4dor", ALICE, BOB, "\x1b", "\u202e"):
        assert bad not in done.out
    assert all(left.pseudonyms.of("user", ALICE) in lines[at] for at in (0, 3))
    start = {"jsonl": '{"position":', "cef": "CEF:0|Hauberk|", "syslog": "<11"}[form]
    starts = {"syslog": ("<110>1", "<108>1", "<107>1")}.get(form, (start,))
    assert all(line.startswith(starts) for line in lines)


def test_the_whole_record_can_be_exported_for_detection(hauberk: Terminal, mesh: Mesh) -> None:
    done = hauberk("audit", "export", "--stream", "/*", "--dir", mesh.path)
    kinds = {json.loads(line)["type"] for line in done.out.splitlines()}
    assert {"authority.created", "identity.issued", "audit.access"} <= kinds


@pytest.mark.usefixtures("left")
def test_to_a_new_file_and_never_over_an_old_one(hauberk: Terminal, tmp_path: Path) -> None:
    done = hauberk("audit", "export", "--user", BOB, "--output", "bob.jsonl", "--json")
    assert done.data == {"written": 2, "file": "bob.jsonl"}
    written = (tmp_path / "bob.jsonl").read_text("utf-8")
    assert [json.loads(line)["data"]["action"] for line in written.splitlines()] == ["refund", FORGED[:64] + "[cut]"]
    assert hauberk("audit", "export", "--output", "bob.jsonl").status == 2
    assert (tmp_path / "bob.jsonl").read_text("utf-8") == written


@pytest.mark.usefixtures("left")
def test_a_message_names_the_host_and_the_enterprise(hauberk: Terminal) -> None:
    out = hauberk("audit", "export", "--format", "syslog", "--host", "log1", "--enterprise", "64000").out
    assert " log1 hauberk - audit.access [hauberk@64000 " in out.splitlines()[0]


@pytest.mark.usefixtures("left")
def test_a_cose_receipt_of_an_entry(hauberk: Terminal, tmp_path: Path) -> None:
    data = hauberk("audit", "receipt", "2", "entry.cose", "--json").data
    key = decode_key((tmp_path / ".hauberk" / "log.pub").read_text())[1]
    receipt = (tmp_path / "entry.cose").read_bytes()
    assert verify_receipt(receipt, bytes.fromhex(data["leaf"]), key).position == 2
    assert hauberk("audit", "receipt", "2", "entry.cose").status == 2
    assert (tmp_path / "entry.cose").read_bytes() == receipt
    done = hauberk("audit", "receipt", "99", "none.cose")
    assert done.status == 1
    assert "[HBK-712]" in done.err
    assert not (tmp_path / "none.cose").exists()


def test_a_cose_receipt_through_the_authority(hauberk: Terminal, mesh: Mesh, tmp_path: Path) -> None:
    leaf = hauberk("audit", "receipt", "0", "entry.cose", "--dir", mesh.path).out.split()[1]
    key = decode_key(mesh.authority.ledger.verifier)[1]
    assert verify_receipt((tmp_path / "entry.cose").read_bytes(), bytes.fromhex(leaf), key).position == 0


# keys


def test_keys_of_pseudonyms_change_and_old_entries_are_found_until_theirs_is_destroyed(
    hauberk: Terminal, left: Runtime, tmp_path: Path
) -> None:
    assert hauberk("audit", "epochs", "--json").data == {"live": [0]}
    assert hauberk("audit", "epochs", "--begin").out == "live 1 0\n"
    with_new_key = Runtime.embedded(tmp_path / ".hauberk", policies=())
    with_new_key.audit.access(ALICE, "/orders/20", "read", level="receipt").result()
    assert with_new_key.pseudonyms.of("user", ALICE) != left.pseudonyms.of("user", ALICE)
    done = hauberk("audit", "epochs", "--begin")
    assert done.status == 1  # while the application runs
    assert "[HBK-906]" in done.err
    with_new_key.close()
    found = resources(hauberk("audit", "query", "--user", ALICE, "--json").data)
    assert found == ["/orders/17", "/orders/19", "/orders/20"]
    assert hauberk("audit", "epochs", "--retire", "0", "--json").data == {"retired": 0, "scrubbed": True, "live": [1]}
    assert resources(hauberk("audit", "query", "--user", ALICE, "--json").data) == ["/orders/20"]
    told = hauberk("ledger", "list", "--stream", "/audit/admin", "--json").data
    assert [(one["type"], one["data"]["epoch"]) for one in told] == [
        ("admin.pseudonyms.begun", 1), ("admin.pseudonyms.retired", 0),
    ]  # fmt: skip


@pytest.mark.usefixtures("left")
def test_the_key_in_use_is_not_destroyed(hauberk: Terminal) -> None:
    done = hauberk("audit", "epochs", "--retire", "0")
    assert done.status == 1
    assert "[HBK-906]" in done.err
    assert hauberk("audit", "epochs", "--retire", "0", "--begin").status == 2


def test_through_the_authority_too(hauberk: Terminal, mesh: Mesh) -> None:
    assert hauberk("audit", "epochs", "--dir", mesh.path).out == "live 0\n"
    assert hauberk("audit", "epochs", "--begin", "--dir", mesh.path, "--json").data == {"begun": 1, "live": [1, 0]}
