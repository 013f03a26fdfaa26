"""`hauberk up` as a user runs it: the facts, Ctrl-C, a second run, and what stands in its way."""

import json
import signal
import socket
import ssl
import sys
from pathlib import Path

import pytest

from hauberk.agent.remote import authority_id
from hauberk.authority.authority import Authority
from hauberk.core.config import load
from hauberk.transport.contexts import bootstrap_context
from tests.e2e.processes import Up, ask, data, hauberk

SHOP = {"name": "shop", "namespace": "production", "account": "shop"}


def test_it_says_its_facts_serves_and_drains_on_ctrl_c(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        assert up.facts["address"].startswith("127.0.0.1:")
        host, _, port = up.facts["address"].rpartition(":")
        context = bootstrap_context(up.facts["root"], authority_id(up.facts["trust_domain"]))
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain) as wire,
        ):
            assert wire.version() == "TLSv1.3"
        published = json.loads((tmp_path / ".hauberk" / "authority.json").read_text())
        assert published["root"] == up.facts["root"]
        status, told = up.finish()
    assert status == 0
    assert told.splitlines() == ["ready; Ctrl-C stops", "drained and closed"]
    assert not (tmp_path / ".hauberk" / "workload.sock").exists()
    assert not (tmp_path / ".hauberk" / "private" / "admin.sock").exists()


def test_a_second_run_is_the_same_authority_and_goes_on_with_its_record(tmp_path: Path) -> None:
    with Up(tmp_path) as first:
        ask(tmp_path, "POST", "/admin/entries", SHOP)
        size = ask(tmp_path, "GET", "/admin/status")["ledger"]["size"]
        first.finish(signal.SIGTERM)
    with Up(tmp_path) as second:
        assert (second.facts["root"], second.facts["ledger_key"]) == (first.facts["root"], first.facts["ledger_key"])
        assert [one["name"] for one in ask(tmp_path, "GET", "/admin/entries")] == ["shop"]
        assert ask(tmp_path, "GET", "/admin/status")["ledger"]["size"] > size
        second.finish()
    database, key = tmp_path / ".hauberk" / "private" / "hauberk.db", tmp_path / ".hauberk" / "log.pub"
    assert data("ledger", "verify", database, "--key", key, cwd=tmp_path)["verified"]


def test_after_kill_it_starts_again_on_what_was_acknowledged(tmp_path: Path) -> None:
    with Up(tmp_path) as first:
        ask(tmp_path, "POST", "/admin/entries", SHOP)
        first.finish(signal.SIGKILL)
    with Up(tmp_path) as second:
        assert [one["name"] for one in ask(tmp_path, "GET", "/admin/entries")] == ["shop"]
        assert second.finish()[0] == 0


def test_two_of_them_on_one_directory_are_refused(tmp_path: Path) -> None:
    with Up(tmp_path):
        done = hauberk("up", "--port", 0, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert "another process uses this state directory" in done.stderr
        assert ask(tmp_path, "GET", "/admin/status")["trust_domain"] == "example.org"


def test_a_port_in_use_is_one_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = hauberk("up", "--port", taken.getsockname()[1], cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        error, hint = done.stderr.splitlines()
        assert error.startswith("error: ")
        assert f"127.0.0.1:{taken.getsockname()[1]}" in error
        assert "in use" in error
        assert hint.startswith("hint: ")


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::", ""])  # noqa: S104  # refused
def test_a_wildcard_is_no_address_to_tell_others(tmp_path: Path, wildcard: str) -> None:
    done = hauberk("up", "--host", wildcard, "--port", 0, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "authority.advertise" in done.stderr


def test_services_are_told_the_advertised_host(tmp_path: Path) -> None:
    with Up(tmp_path, "--advertise", "localhost", "--port", "0") as up:
        assert up.facts["address"].startswith("localhost:")


def test_it_refuses_to_start_on_files_that_are_open_and_as_another_trust_domain(tmp_path: Path) -> None:
    config = load(environ={}, arguments={"directory": str(tmp_path / ".hauberk")})
    Authority(tmp_path / ".hauberk", config).close()
    done = hauberk("up", "--port", 0, "--trust-domain", "other.test", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "HBK-210" in done.stderr
    (tmp_path / ".hauberk" / "private" / "ca.sealed").chmod(0o644)
    done = hauberk("up", "--port", 0, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the authority refuses to start: open to others")


def test_nothing_listens_beyond_loopback_unless_told_to(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        inodes = sockets_of(up.process.pid)
        listening = [
            fields[1]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{up.process.pid}/net/{table}").read_text().splitlines()[1:]
            if (fields := line.split())[3] == "0A" and fields[9] in inodes
        ]
    assert [address.partition(":")[0] for address in listening] == ["0100007F"]


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets; Linux only."""
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def test_a_plain_python_client_without_the_root_is_not_fooled(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        host, _, port = up.facts["address"].rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")


def test_ctrl_c_twice_is_no_traceback(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        up.process.send_signal(signal.SIGINT)
        status, told = up.finish()
    assert status == 0
    assert "Traceback" not in told
