"""`hauberk ledger verify`, `hauberk ledger fsck` and `hauberk proof` as an auditor uses them."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hauberk.adapters.mark import FileMark
from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.ports import Put, Write
from hauberk.crypto.svid import to_pem
from hauberk.records.ledger import Ledger
from hauberk.records.tile_paths import MAX_BUNDLE_BYTES
from tests.cli.terminal import Terminal
from tests.records.forger import rewrite
from tests.records.made import ORIGIN, PATIENCE, event
from tests.records.test_verify import KEY, SIGNER, SIZE, checkpoint, mixed, rebuilt, sql
from tests.records.test_verify_anchors import POLICY, TIME, cosigned
from tests.records.test_verify_attribution import service, told_log
from tests.records.test_verify_declared import AUTHORITY, OTHER, PRODUCER, SERVICE, original, unflagged
from tests.records.test_verify_tiles import export
from tests.support.postgres import address, database

__all__ = ["original"]


SOUND = "no damage found; what was done on purpose is found by: hauberk ledger verify\n"


@pytest.fixture
def hauberk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return rebuilt(tmp_path / "log", mixed(SIZE))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "log.pub"
    file.write_text(f"{KEY}\n", "utf-8")
    return file


def test_a_log_is_verified_with_its_key_alone(hauberk: Terminal, path: Path, key: Path) -> None:
    done = hauberk("ledger", "verify", path, "--key", key)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"verified {SIZE} entries in 3 streams of {ORIGIN}"
    report = hauberk("ledger", "verify", path, "--key", KEY, "--json").data
    assert (report["verified"], report["report"]["size"]) == (True, SIZE)


def test_exit_status_one_names_the_position_and_what_was_done(hauberk: Terminal, path: Path, key: Path) -> None:
    sql(path, "DELETE FROM entry WHERE position = 137")
    done = hauberk("ledger", "verify", path, "--key", key)
    assert (done.status, done.err) == (1, "")
    assert done.out == "TAMPERED (deleted) at position 137: an entry is missing [HBK-710]\n"
    done = hauberk("ledger", "verify", path, "--key", key, "--json")
    assert (done.status, done.data) == (
        1,
        {"verified": False, "code": "HBK-710", "position": 137, "kind": "deleted", "why": "an entry is missing"},
    )


# anchors


def test_a_database_that_was_put_back_is_found_with_a_checkpoint_or_the_mark(
    hauberk: Terminal, path: Path, key: Path, tmp_path: Path
) -> None:
    pinned, kept = tmp_path / "pinned", tmp_path / "ledger.mark"
    pinned.write_text(checkpoint(path), "utf-8")
    mark = FileMark(kept)
    mark.write(checkpoint(path))
    mark.close()
    older = rebuilt(tmp_path / "older", mixed(100))
    assert hauberk("ledger", "verify", older, "--key", key).status == 0  # the twin
    for anchor in (("--checkpoint", pinned), ("--mark", kept), ("--mark", pinned)):
        done = hauberk("ledger", "verify", older, "--key", key, *anchor, "--json")
        assert (done.status, done.data["kind"], done.data["code"]) == (1, "rolled-back", "HBK-713")
        done = hauberk("ledger", "verify", path, "--key", key, *anchor)
        assert (done.status, f"of {SIZE} entries" in done.out) == (0, True)
    empty = tmp_path / "empty.mark"
    empty.touch()
    assert "mark is gone" in hauberk("ledger", "verify", path, "--key", key, "--mark", empty).out


def test_a_policy_names_the_log_and_asks_for_its_witnesses(
    hauberk: Terminal, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, seen = tmp_path / "policy", tmp_path / "seen"
    policy.write_bytes(f"log {KEY}\n".encode() + POLICY.encode())
    done = hauberk("ledger", "verify", path, "--policy", policy)
    assert (done.status, done.out.startswith("NOT COSIGNED: ")) == (1, True)
    seen.write_text(cosigned(checkpoint(path), 0, 1), "utf-8")
    done = hauberk("ledger", "verify", path, "--policy", policy, "--checkpoint", seen)
    assert (done.status, "witnesses of 300 entries by w0 by w1" in done.out) == (0, True)
    store = SqliteStore(path)
    store.commit(Write(rows=[Put("cosigned", ORIGIN.encode(), seen.read_bytes())]))
    store.close()
    assert hauberk("ledger", "verify", path, "--policy", policy).status == 0
    monkeypatch.setattr("hauberk.cli._verify.time", lambda: TIME + 100.0)
    assert hauberk("ledger", "verify", path, "--policy", policy, "--fresh", "100").status == 0
    done = hauberk("ledger", "verify", path, "--policy", policy, "--fresh", "99", "--json")
    assert (done.status, done.data["kind"]) == (1, "not-cosigned")


def test_a_service_that_speaks_for_the_application_is_named(hauberk: Terminal, key: Path, tmp_path: Path) -> None:
    path = told_log(tmp_path, (service(OTHER), event(stream="/streams/order-1")))
    roots = tmp_path / "root.pem"
    roots.write_bytes(to_pem([AUTHORITY.root_der]))
    given = ("ledger", "verify", path, "--key", key, "--roots", roots, "--require-signed")
    assert f"itself: {OTHER.svid.spiffe_id}" in hauberk(*given).out  # the twin: told, but taken
    assert hauberk(*given, "--producer", str(OTHER.svid.spiffe_id)).status == 0
    done = hauberk(*given, "--producer", str(SERVICE.svid.spiffe_id), "--json")
    assert (done.status, done.data["kind"], done.data["position"]) == (1, "forged-signature", 1)
    done = hauberk("ledger", "verify", path, "--key", key, "--producer", str(SERVICE.svid.spiffe_id))
    assert (done.status, "--roots" in done.err) == (2, True)


def test_services_are_who_the_roots_say(hauberk: Terminal, original: Path, key: Path, tmp_path: Path) -> None:
    path, roots, producer = tmp_path / "log.db", tmp_path / "root.pem", tmp_path / "producer.pub"
    path.write_bytes(original.read_bytes())
    roots.write_bytes(to_pem([AUTHORITY.root_der]))
    believed = ("--key", key, "--roots", roots, "--producer", PRODUCER.fingerprint.hex(), "--require-signed")
    done = hauberk("ledger", "verify", path, *believed)
    assert (done.status, "13 entries are signed by 2 producers" in done.out) == (0, True)
    assert hauberk("ledger", "verify", path, "--key", key, "--roots", f"example.com={roots}").status == 1
    assert f"signed for the application and the record itself: {PRODUCER.fingerprint.hex()}" in done.out
    rewrite(path, SIGNER, unflagged)
    assert hauberk("ledger", "verify", path, "--key", key).status == 0  # the twin
    done = hauberk("ledger", "verify", path, *believed, "--json")
    assert (done.status, done.data["kind"], done.data["position"]) == (1, "unsigned", 1)
    assert not producer.exists()
    assert hauberk("ledger", "verify", path, "--key", key, "--producer", producer).status == 1
    assert hauberk("ledger", "verify", path, "--key", key, "--roots", producer).status == 2


# incremental


def test_what_was_added_since_the_last_time(hauberk: Terminal, path: Path, key: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = hauberk("ledger", "verify", path, "--key", key, "--since", state, "--json")
    assert (done.status, done.data["report"]["start"]) == (0, 0)
    done = hauberk("ledger", "verify", path, "--key", key, "--since", state)
    assert f"entries below {SIZE} were verified before and not read again" in done.out
    before = state.read_bytes()
    sql(path, "UPDATE head SET checkpoint = x''")
    assert hauberk("ledger", "verify", path, "--key", key, "--since", state).status == 1
    assert state.read_bytes() == before  # a finding moves nothing
    state.write_bytes(before[:-1])
    assert hauberk("ledger", "verify", path, "--key", key, "--since", state).status == 1


# sources


@pytest.fixture
def url(path: Path, tmp_path: Path) -> Iterator[str]:
    """A web server that shows the exported log, and nothing else."""
    folder = export(path, tmp_path / "tiles")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it has there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Endless(BaseHTTPRequestHandler):
    """Answers every question for as long as anybody listens."""

    sent = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while Endless.sent < 64 * MAX_BUNDLE_BYTES:  # the twin: one who reads on gets all of it
                Endless.sent += self.wfile.write(bytes(1 << 16))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it has there
        pass


def test_a_server_that_never_ends_its_answer_is_left_after_what_a_log_can_hold(hauberk: Terminal, key: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        done = hauberk("ledger", "verify", f"http://127.0.0.1:{server.server_port}/", "--key", key)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert done.status != 0
    assert "longer than any of a log" in done.err
    assert MAX_BUNDLE_BYTES < Endless.sent < 32 * MAX_BUNDLE_BYTES  # what was on its way included


def test_a_log_is_verified_from_its_tiles_here_or_served(
    hauberk: Terminal, url: str, key: Path, tmp_path: Path
) -> None:
    for source in (tmp_path / "tiles", url):
        done = hauberk("ledger", "verify", source, "--key", key)
        assert (done.status, done.out.splitlines()[0]) == (0, f"verified {SIZE} entries of {ORIGIN}")
    (tmp_path / "tiles" / "tile" / "1" / "000.p" / "1").write_bytes(bytes(32))
    for source in (tmp_path / "tiles", url):
        done = hauberk("ledger", "verify", source, "--key", key, "--json")
        assert (done.status, done.data["kind"], done.data["position"]) == (1, "tile", 0)
    assert hauberk("ledger", "verify", url, "--key", key, "--since", tmp_path / "state").status == 2


def test_a_log_in_postgresql_is_verified_where_it_is(
    hauberk: Terminal, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database() as dsn:
        with closing(PostgresStore(dsn)) as store:
            ledger = Ledger(store, SIGNER, ORIGIN)
            ledger.append_batch(mixed(SIZE)).result(PATIENCE)
            ledger.close()
        monkeypatch.setenv("DATABASE_URL", address(dsn))
        done = hauberk("ledger", "verify", "env:DATABASE_URL", "--key", key, "--since", tmp_path / "state")
        assert (done.status, done.out.splitlines()[0]) == (0, f"verified {SIZE} entries in 3 streams of {ORIGIN}")
        before = (tmp_path / "state").read_bytes()
        assert hauberk("ledger", "verify", address(dsn), "--key", key, "--since", tmp_path / "state").status == 0
        assert (tmp_path / "state").read_bytes() == before


def test_a_server_out_of_reach_is_exit_status_three(hauberk: Terminal, key: Path) -> None:
    assert hauberk("ledger", "verify", "http://127.0.0.1:1/log", "--key", key).status == 3


@pytest.mark.parametrize("arguments", [(), ("--fresh", "5", "--key", KEY), ("--checkpoint", "no-such-file")])
def test_wrong_usage(hauberk: Terminal, path: Path, arguments: tuple[str, ...]) -> None:
    assert hauberk("ledger", "verify", path, *arguments).status == 2
    assert hauberk("ledger", "verify", path.parent, "--key", KEY).status == 2


class Screen:
    """A terminal for standard error."""

    def __init__(self) -> None:
        self.shown = ""

    def write(self, text: str) -> int:
        self.shown += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_to_people_on_a_terminal_only(
    hauberk: Terminal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for more, shown in (((), True), (("--quiet",), False), (("--json",), False)):
        screen = Screen()
        monkeypatch.setattr(sys, "stderr", screen)
        assert hauberk("ledger", "verify", path, "--key", KEY, *more).status == 0
        assert ("100%" in screen.shown) is shown


# fsck


def test_fsck_names_what_is_broken_and_repairs_what_is_derived(hauberk: Terminal, path: Path, key: Path) -> None:
    done = hauberk("ledger", "fsck", path)
    assert (done.status, done.out) == (0, SOUND)
    sql(path, "DELETE FROM tile WHERE level = 1", "UPDATE head SET frontier = x''")
    done = hauberk("ledger", "fsck", path)
    assert (done.status, "tile 1/0 is missing" in done.out, "--repair" in done.out) == (1, True, True)
    assert hauberk("ledger", "fsck", path, "--repair").status == 2
    done = hauberk("ledger", "fsck", path, "--key", key, "--repair", "--json")
    assert (done.status, done.data["repaired"]) == (0, [ORIGIN])
    assert hauberk("ledger", "fsck", path, "--key", key).out == SOUND
    assert hauberk("ledger", "verify", path, "--key", key).status == 0


def test_fsck_finds_a_part_that_is_not_that_of_its_leaf(hauberk: Terminal, path: Path, key: Path) -> None:
    sql(path, "UPDATE entry SET public = x'7b7d' WHERE position = 9", "UPDATE entry SET meta = 7 WHERE position = 11")
    sql(path, "DELETE FROM tile WHERE level = 1")
    done = hauberk("ledger", "fsck", path, "--key", key, "--repair")
    assert done.status == 1
    assert "the content of entry 9 is not that of its leaf" in done.out
    assert "entry 11" in done.out
    assert "made again" in done.out  # what follows from the leaves, which are the signed ones
    assert "hauberk ledger verify" in done.out


def test_fsck_repairs_nothing_that_the_log_did_not_sign(hauberk: Terminal, path: Path, key: Path) -> None:
    sql(path, "UPDATE entry SET leaf = zeroblob(154) WHERE position = 9", "DELETE FROM tile WHERE level = 1")
    done = hauberk("ledger", "fsck", path, "--key", key, "--repair", "--json")
    assert (done.status, done.data["repaired"]) == (1, [])


def test_fsck_tells_what_waits_in_a_spool(hauberk: Terminal, path: Path) -> None:
    spool = path.parent / "spool" / "orders.0"
    spool.mkdir(parents=True)
    (spool / "spool.log").write_bytes(b"x" * 50)
    (spool / "spool.at").write_text("20 00", "ascii")
    done = hauberk("ledger", "fsck", path)
    assert (done.status, "30 bytes wait" in done.out) == (0, True)
    (spool / "spool.refused").write_bytes(b"x")
    assert hauberk("ledger", "fsck", path).status == 1


# proof


def test_a_receipt_proves_its_event_and_no_other(hauberk: Terminal, path: Path, key: Path, tmp_path: Path) -> None:
    receipt, event, other = tmp_path / "r.tlog-proof", tmp_path / "event.json", tmp_path / "other.json"
    assert hauberk("proof", "write", path, "17", receipt, event).status == 0
    assert hauberk("proof", "write", path, "18", tmp_path / "second", other).status == 0
    done = hauberk("proof", "verify", receipt, event, "--key", key)
    assert (done.status, f"proven: entry 17 of the {SIZE} of {ORIGIN}" in done.out) == (0, True)
    assert hauberk("proof", "verify", receipt, event, "--key", key, "--json").data["position"] == 17
    assert hauberk("proof", "verify", receipt, other, "--key", key).status == 1
    event.write_text(event.read_text().replace("paid", "lost"), "utf-8")
    done = hauberk("proof", "verify", receipt, event, "--key", key)
    assert (done.status, "HBK-712" in done.err) == (1, True)
    event.write_text("junk", "utf-8")
    assert hauberk("proof", "verify", receipt, event, "--key", key).status == 1
    assert hauberk("proof", "verify", receipt, other).status == 2
    assert hauberk("proof", "write", path, str(SIZE), tmp_path / "new", tmp_path / "new.json").status == 1
    assert not (tmp_path / "new").exists()


def test_a_receipt_is_written_over_nothing(hauberk: Terminal, path: Path, tmp_path: Path) -> None:
    for there, name in ((tmp_path / "r", "r"), (tmp_path / "e", "e")):
        there.write_text("mine")
        done = hauberk("proof", "write", path, "17", tmp_path / "r", tmp_path / "e")
        assert (done.status, f"{name} exists" in done.err, there.read_text()) == (2, True, "mine")
        there.unlink()
    assert list(tmp_path.glob("[re]")) == []


def test_a_receipt_under_witnesses_lets_its_holder_withhold_a_part(
    hauberk: Terminal, path: Path, tmp_path: Path
) -> None:
    policy, receipt, event = tmp_path / "policy", tmp_path / "r", tmp_path / "event.json"
    policy.write_bytes(f"log {KEY}\n".encode() + POLICY.encode())
    hauberk("proof", "write", path, "17", receipt, event)
    assert hauberk("proof", "verify", receipt, event, "--policy", policy).status == 1  # nobody has cosigned
    store = SqliteStore(path)
    store.commit(Write(rows=[Put("cosigned", ORIGIN.encode(), cosigned(checkpoint(path), 0, 1).encode())]))
    store.close()
    receipt, event = tmp_path / "r2", tmp_path / "event2.json"
    hauberk("proof", "write", path, "17", receipt, event, "--withhold", "public")
    shown = json.loads(event.read_text())
    event.write_text(json.dumps({"meta": shown["meta"], "sealed": ""}), "utf-8")
    done = hauberk("proof", "verify", receipt, event, "--policy", policy, "--json")
    assert (done.status, done.data["withheld"], sorted(done.data["cosigned"])) == (0, ["public"], ["w0", "w1"])
