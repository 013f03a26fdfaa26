"""The commands that talk to an authority: data on stdout, people on stderr, four exit statuses, JSON everywhere."""

import base64
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hauberk.cli import COMMANDS
from hauberk.core.config import Config
from hauberk.crypto.merkle import leaf_hash, verify_inclusion
from hauberk.crypto.note import parse_checkpoint, parse_note
from hauberk.runtime import Runtime
from tests.authority.mesh import ALLOW, DOMAIN, Mesh
from tests.cli.terminal import Done, Terminal
from tests.records.parties import Grower
from tests.support.postgres import database

SPLIT = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: split, namespace: production}
spec:
  selector: {matchLabels: {app: shop}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/production/sa/front]}}]
  - to: [{operation: {methods: [GET]}}]
"""
ADMINISTRATION = [
    ("status",),
    ("entry", "list"),
    ("entry", "create", "x"),
    ("entry", "delete", "x"),
    ("entry", "token", "x"),
    ("svid", "list"),
    ("svid", "renew"),
    ("svid", "revoke", "ff"),
    ("svid", "rotate-root"),
    ("svid", "rotate-root", "prepare"),
    ("ledger", "list"),
    ("ledger", "show", "0"),
    ("ledger", "proof", "0"),
    ("ledger", "checkpoint"),
    ("policy", "export"),
    ("policy", "remove", "AuthorizationPolicy", "a/b"),
]
READING = [
    ("status",),
    ("entry", "list"),
    ("svid", "list"),
    ("svid", "rotate-root"),
    ("ledger", "list"),
    ("ledger", "list", "--type", "admin.entry.added", "--limit", "1"),
    ("ledger", "show", "0"),
    ("ledger", "proof", "0"),
    ("ledger", "checkpoint"),
    ("policy", "export"),
]


@pytest.fixture
def hauberk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Terminal:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HAUBERK_")]:
        monkeypatch.delenv(name)
    return Terminal(monkeypatch, capsys)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("mesh")) as made:
        made.register("shop")
        made.register("front")
        yield made


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "allow.yaml"
    path.write_text(ALLOW.replace("PATH", "/"))
    return path


def refused(done: Done, status: int, code: str) -> None:
    assert done.status == status
    assert done.out == ""
    assert done.err.splitlines()[0].startswith("error: ") or "error: " in done.err
    assert f"[{code}]" in done.err


# out of reach


@pytest.mark.parametrize("command", ADMINISTRATION, ids=" ".join)
def test_without_an_authority_every_command_says_so_with_a_hint(hauberk: Terminal, command: tuple[str, ...]) -> None:
    done = hauberk(*command)
    refused(done, 3, "HBK-902")
    assert done.err.splitlines()[1].startswith("hint: start it with: hauberk up")


def test_a_socket_nobody_listens_on_is_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "private" / "admin.sock"))
    done = subprocess.run(
        [sys.executable, "-m", "hauberk", "status", "--dir", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    refused(Done(done.returncode, done.stdout, done.stderr), 3, "HBK-902")


def test_run_without_an_authority_does_not_run_the_program(hauberk: Terminal, tmp_path: Path) -> None:
    done = hauberk("run", "--", "touch", tmp_path / "made")
    refused(done, 3, "HBK-902")
    assert not (tmp_path / "made").exists()


# data and people


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_every_reading_command_prints_json_and_nothing_else_when_asked(
    hauberk: Terminal, mesh: Mesh, command: tuple[str, ...]
) -> None:
    done = hauberk(*command, "--dir", mesh.path, "--json")
    assert (done.status, done.err) == (0, "")
    assert done.data
    plain = hauberk(*command, "--dir", mesh.path)
    assert (plain.status, plain.err) == (0, "")
    assert plain.out.strip()


def test_every_changing_command_prints_json_when_asked(hauberk: Terminal, mesh: Mesh, policy_file: Path) -> None:
    where = ("--dir", mesh.path, "--json")
    made = hauberk("entry", "create", "new", "--selector", "unix:uid:7", "--label", "a=b", "--ttl", "600", *where).data
    assert made == {
        "name": "new",
        "spiffe_id": "spiffe://example.org/ns/default/sa/new",
        "selectors": ["unix:uid:7"],
        "labels": {"a": "b"},
        "ttl": 600.0,
    }
    assert hauberk("entry", "token", "new", *where).data["token"].startswith("hbkjoin1.")
    assert hauberk("policy", "apply", policy_file, *where).data["revision"]
    assert hauberk("policy", "remove", "AuthorizationPolicy", "production/front-to-shop", *where).data["revision"]
    assert "ff" in hauberk("svid", "revoke", "ff", *where).data["revoked"]["serials"]
    assert hauberk("svid", "revoke", "--restore", "ff", *where).data["revoked"]["serials"] == []
    assert hauberk("svid", "renew", *where).data["number"]
    assert hauberk("entry", "delete", "new", *where).data == {"removed": "new"}


def test_policy_commands_on_files_print_json_when_asked(hauberk: Terminal, policy_file: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.yaml"
    who = "from: spiffe://example.org/ns/production/sa/front, to: production/shop"
    table.write_text(f"- {{{who}, method: GET, path: /, expect: allow}}\n")
    call = ("--to", "production/shop", "--method", "GET", "--path", "/")
    front = ("--from", "spiffe://example.org/ns/production/sa/front")
    for command, status in (
        (("policy", "lint", policy_file), 0),
        (("policy", "explain", policy_file, *front, *call), 0),
        (("policy", "explain", policy_file, *call), 1),
        (("policy", "who-can", policy_file, *call), 0),
        (("policy", "diff", policy_file, policy_file), 0),
        (("policy", "test", table, policy_file), 0),
        (("config",), 0),
    ):
        done = hauberk(*command, "--json")
        assert done.status == status, command
        assert done.data is not None


def test_export_gives_what_apply_took(hauberk: Terminal, mesh: Mesh, policy_file: Path, tmp_path: Path) -> None:
    first = hauberk("policy", "apply", policy_file, "--dir", mesh.path, "--json").data
    exported = tmp_path / "exported.yaml"
    exported.write_text(hauberk("policy", "export", "--dir", mesh.path).out)
    again = hauberk("policy", "apply", exported, "--replace", "--dir", mesh.path, "--json").data
    assert again["digest"] == first["digest"]
    assert again["revision"] > first["revision"]


# findings


def test_lint_errors_are_exit_status_one_and_show_the_corrected_policy(hauberk: Terminal, tmp_path: Path) -> None:
    (tmp_path / "split.yaml").write_text(SPLIT)
    done = hauberk("policy", "lint", tmp_path / "split.yaml")
    assert done.status == 1
    assert "corrected:" in done.out
    assert "1 errors" in done.err


def test_a_push_that_lint_refuses_shows_why_and_changes_nothing(hauberk: Terminal, mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "split.yaml").write_text(SPLIT)
    before = hauberk("policy", "export", "--dir", mesh.path, "--json").data["digest"]
    done = hauberk("policy", "apply", tmp_path / "split.yaml", "--dir", mesh.path)
    refused(done, 1, "HBK-303")
    assert "corrected:" in done.err
    assert "{" not in done.err.splitlines()[-2]  # no data structure in what people read
    assert done.err.splitlines()[-1].startswith("hint: ")
    assert hauberk("policy", "export", "--dir", mesh.path, "--json").data["digest"] == before
    assert hauberk("policy", "apply", tmp_path / "split.yaml", "--force", "--dir", mesh.path).status == 0
    assert hauberk("policy", "remove", "AuthorizationPolicy", "production/split", "--dir", mesh.path).status == 0


def test_a_typo_in_a_push_is_named_with_file_line_and_field(hauberk: Terminal, mesh: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text(ALLOW.replace("PATH", "/").replace("operation", "operatoin"))
    done = hauberk("policy", "apply", path, "--dir", mesh.path)
    refused(done, 1, "HBK-301")
    for part in (str(path), "line 9", "operatoin", "did you mean operation?"):
        assert part in done.err


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("entry", "create", "shop"), "HBK-213"),
        (("entry", "create", "Bad_Name"), "HBK-213"),
        (("entry", "create", "x", "--selector", "path:/usr/bin/python"), "HBK-213"),
        (("entry", "create", "x", "--namespace", "a/sa/b/ns/c"), "HBK-213"),
        (("entry", "create", "x", "--ttl", "1"), "HBK-213"),
        (("entry", "delete", "nobody"), "HBK-213"),
        (("entry", "delete", "a/b"), "HBK-906"),
        (("entry", "token", "nobody"), "HBK-213"),
        (("entry", "token", "shop", "--ttl", "1000000"), "HBK-204"),
        (("svid", "revoke", "shop"), "HBK-201"),
        (("svid", "revoke", "spiffe://Example.org/ns/a/sa/b"), "HBK-201"),
        (("svid", "rotate-root", "finish"), "HBK-906"),
        (("ledger", "proof", "999999"), "HBK-712"),
        (("policy", "remove", "AuthorizationPolicy", "a/b"), "HBK-301"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_the_authority_refuses_is_exit_status_one(
    hauberk: Terminal, mesh: Mesh, command: tuple[str, ...], code: str
) -> None:
    done = hauberk(*command, "--dir", mesh.path)
    assert done.status == 1
    assert done.out == ""
    assert "error: " in done.err
    assert code in done.err or code == "HBK-213"


def test_an_entry_of_the_ledger_that_is_not_there_is_exit_status_one(hauberk: Terminal, mesh: Mesh) -> None:
    done = hauberk("ledger", "show", "999999", "--dir", mesh.path)
    refused(done, 1, "HBK-707")
    assert "position 999999" in done.err


# usage


@pytest.mark.parametrize(
    "command",
    [
        ("nonsense",),
        ("status", "--nonsense"),
        ("entry", "create"),
        ("entry", "create", "x", "--label", "nonsense"),
        ("entry", "create", "x", "--ttl", "long"),
        ("svid", "revoke"),
        ("svid", "rotate-root", "explode"),
        ("ledger", "show"),
        ("ledger", "show", "1", "--incident", "x"),
        ("ledger", "proof", "-1"),
        ("ledger", "list", "--limit", "0"),
        ("ledger", "verify", "no-such-file", "--key", "k"),
        ("policy", "lint"),
        ("policy", "lint", "no-such-file"),
        ("policy", "remove", "AuthorizationPolicy", "no-slash"),
        ("policy", "remove", "Nonsense", "a/b"),
        ("run",),
        ("up", "--port", "x"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_status_two_and_prints_no_data(hauberk: Terminal, command: tuple[str, ...]) -> None:
    done = hauberk(*command)
    assert (done.status, done.out) == (2, "")
    assert "Error: " in done.err


# rotation


def test_a_root_is_rotated_in_three_commands(hauberk: Terminal, tmp_path: Path) -> None:
    with Mesh(tmp_path / "own") as own:
        where = ("--dir", own.path)
        settled = hauberk("svid", "rotate-root", *where)
        assert settled.out.splitlines()[0] == "state    settled"
        assert hauberk("svid", "rotate-root", "prepare", *where, "--json").data["step"] == "prepared"
        assert len(hauberk("svid", "rotate-root", *where).out.splitlines()) == 3
        assert hauberk("svid", "rotate-root", "activate", *where).status == 0
        done = hauberk("svid", "rotate-root", "finish", "--force", *where, "--json").data
        assert done["trusted"] == [done["signer"]]
        assert done["signer"] not in settled.out
        assert (own.path / "root.pem").read_bytes() == own.authority.ca.root_pem


# the ledger, offline


def test_a_ledger_verifies_offline_and_an_edited_one_names_the_first_bad_position(
    hauberk: Terminal, tmp_path: Path
) -> None:
    with Mesh(tmp_path / "own") as own:
        own.register("shop")
        database = own.authority.state.database
        key = own.path / "log.pub"
        checkpoint = tmp_path / "checkpoint"
        checkpoint.write_text(hauberk("ledger", "checkpoint", "--dir", own.path).out)
    good = hauberk("ledger", "verify", database, "--key", key, "--checkpoint", checkpoint, "--json")
    assert (good.status, good.data["verified"]) == (0, True)
    with sqlite3.connect(database) as edit:
        edit.execute("UPDATE entry SET public = replace(public, 'shop', 'evil') WHERE type = 'admin.entry.added'")
    edit.close()
    bad = hauberk("ledger", "verify", database, "--key", key.read_text().strip(), "--json")
    assert (bad.status, bad.data["verified"]) == (1, False)
    assert bad.data["position"] == 2
    assert hauberk("ledger", "verify", key, "--key", key).status == 1
    assert hauberk("ledger", "verify", database, "--key", "no key").status == 1


# loading


@pytest.mark.parametrize("name", [name for name in sorted(COMMANDS) if name != "up"])
def test_no_command_but_up_loads_the_server(name: str, tmp_path: Path) -> None:
    assert loaded_by(name, "--help", tmp_path=tmp_path).isdisjoint({"starlette", "uvicorn", "hauberk.authority"})


def test_working_on_policy_files_loads_neither_server_nor_client(tmp_path: Path, policy_file: Path) -> None:
    loaded = loaded_by("policy", "lint", str(policy_file), tmp_path=tmp_path)
    assert loaded.isdisjoint({"starlette", "uvicorn", "httpx2", "cryptography", "hauberk.authority", "hauberk.agent"})


def loaded_by(*arguments: str, tmp_path: Path) -> set[str]:
    program = (
        "import sys\nfrom hauberk.cli import main\n"
        f"sys.argv = {['hauberk', *arguments]!r}\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    return set(done.stdout.splitlines()[-1].split())


def test_the_ledger_of_an_embedded_application_is_read_where_no_authority_is(hauberk: Terminal, tmp_path: Path) -> None:
    runtime = Runtime.embedded(tmp_path / "state", config=Config())
    runtime.recorder.submit(runtime.event("test.made", incident="0123456789abcdef", code="HBK-406")).result(10)
    runtime.recorder.submit(runtime.event("test.other")).result(10)
    runtime.close()
    listed = hauberk("ledger", "list", "--dir", tmp_path / "state", "--json")
    assert [one["type"] for one in listed.data] == ["producer.certified", "test.made", "test.other"]
    shown = hauberk("ledger", "show", "--incident", "0123456789abcdef", "--dir", tmp_path / "state", "--json")
    assert [(one["position"], one["code"]) for one in shown.data] == [(1, "HBK-406")]
    assert hauberk("ledger", "show", "2", "--dir", tmp_path / "state", "--json").data["type"] == "test.other"
    assert hauberk("ledger", "show", "--incident", "beef", "--dir", tmp_path / "state").status == 1


@pytest.fixture(params=["sqlite", "postgres"])
def embedded(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state directory of an embedded application that has recorded, in its own file or in PostgreSQL."""
    if request.param == "sqlite":
        record_in(tmp_path)
        yield tmp_path / ".hauberk"
        return
    with database() as dsn:
        monkeypatch.setenv("DATABASE_URL", dsn)
        (tmp_path / "hauberk.toml").write_text('store = "env:DATABASE_URL"\n')
        record_in(tmp_path)
        yield tmp_path / ".hauberk"


def record_in(path: Path) -> None:
    runtime = Runtime.embedded(path / ".hauberk", policies=())
    for kind in ("test.made", "test.other"):
        runtime.recorder.submit(runtime.event(kind)).result(30)
    runtime.close()


def test_an_embedded_ledger_is_read_and_proven_wherever_its_store_is(
    hauberk: Terminal, embedded: Path, tmp_path: Path
) -> None:
    key = (embedded / "log.pub").read_text().strip()
    assert hauberk("ledger", "key").out == f"{key}\n"
    assert "p@" not in hauberk("ledger", "key", "--json").data["ledger"]
    listed = hauberk("ledger", "list", "--json").data
    assert [one["type"] for one in listed] == ["producer.certified", "test.made", "test.other"]
    assert hauberk("ledger", "show", "1", "--json").data["type"] == "test.made"
    kept = hauberk("ledger", "checkpoint", "--json").data
    (tmp_path / "kept").write_text(kept["checkpoint"])
    assert kept["key"] == key
    source = "env:DATABASE_URL" if "DATABASE_URL" in os.environ else embedded / "private" / "hauberk.db"
    assert hauberk("ledger", "verify", source, "--key", key, "--checkpoint", tmp_path / "kept").status == 0
    proven = hauberk("ledger", "proof", "1", "--json").data
    leaf, path = base64.b64decode(proven["leaf"]), [base64.b64decode(step) for step in proven["path"]]
    checkpoint = parse_checkpoint(parse_note(proven["checkpoint"]).text)
    verify_inclusion(leaf_hash(leaf), 1, checkpoint.size, path, checkpoint.root)
    refused(hauberk("ledger", "proof", "9"), 1, "HBK-707")
    written = hauberk("proof", "write", source, "1", "receipt", "event.json")  # it finds the only log itself
    assert (written.status, written.err) == (0, "")
    assert hauberk("proof", "verify", "receipt", "event.json", "--key", key).status == 0


def test_a_store_that_is_away_is_an_error_and_not_an_empty_ledger(
    hauberk: Terminal, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "DATABASE_URL" not in os.environ:
        (embedded / "private" / "hauberk.db").write_bytes(b"x" * 5_000)
    else:
        monkeypatch.delenv("DATABASE_URL")
    done = hauberk("ledger", "list")
    assert (done.status, done.out) == (1, "")
    assert "[HBK-" in done.err


def test_a_database_that_was_never_migrated_says_how(hauberk: Terminal) -> None:
    with database(empty=True) as dsn:
        done = hauberk("database", "check", "--dsn", dsn)
    assert done.status == 1
    assert "[HBK-724]" in done.out
    assert "hint: hauberk database migrate" in done.err


def test_tiles_that_nobody_serves_are_no_question_of_hauberk_up(hauberk: Terminal) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = hauberk("ledger", "verify", f"http://127.0.0.1:{unused.getsockname()[1]}", "--key", "a+b+c")
        key = Grower().vkey
        done = hauberk("ledger", "verify", f"http://127.0.0.1:{unused.getsockname()[1]}", "--key", key)
    refused(done, 3, "HBK-902")
    assert 'authority.tiles = "HOST:PORT"' in done.err
    assert "hauberk up" not in done.err


def test_a_refusal_is_one_json_document_too(hauberk: Terminal, tmp_path: Path) -> None:
    done = hauberk("status", "--dir", tmp_path, "--json")
    assert done.status == 3
    assert done.data["error"]["code"] == "HBK-902"


def test_explain_asks_the_authority_when_it_is_given_no_files(hauberk: Terminal, mesh: Mesh) -> None:
    mesh.allow("/explained")
    call = ("policy", "explain", "--dir", mesh.path, "--to", "production/shop", "--json")
    caller = ("--from", f"spiffe://{DOMAIN}/ns/production/sa/front")
    told = hauberk(*call, *caller, "--path", "/explained")
    assert told.status == 0
    assert told.data["digest"] == mesh.get("/admin/status")["policy"]
    assert hauberk(*call, *caller, "--path", "/other").status == 1


@pytest.mark.parametrize("wrong", [("--to", "shop"), ("--to", "a/b/c"), ("--to", "a/b", "--from", "order-service")])
def test_a_caller_or_callee_that_is_none_is_wrong_usage(
    hauberk: Terminal, tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    (tmp_path / "p.yaml").write_text("")
    assert hauberk("policy", "explain", tmp_path / "p.yaml", *wrong).status == 2


def test_revoking_somebody_nobody_knows_says_so(hauberk: Terminal, mesh: Mesh) -> None:
    done = hauberk("svid", "revoke", f"spiffe://{DOMAIN}/ns/production/sa/shpo", "--dir", mesh.path)
    assert done.status == 0
    assert "is it spelled right?" in done.err
