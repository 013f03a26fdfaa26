"""`hauberk witness`: its own directory, keys for policies, a watchlist that a running witness follows, a clean end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hauberk.records.log_policy import LogPolicy
from hauberk.records.witness_wire import Request, origin_hash
from tests.cli.terminal import Terminal
from tests.e2e.processes import PATIENCE, environment
from tests.records.parties import LOG, Grower

NAME = "witness.example/w"


@pytest.fixture
def hauberk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Terminal:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HAUBERK_")]:
        monkeypatch.delenv(name)
    return Terminal(monkeypatch, capsys)


@pytest.fixture
def made(hauberk: Terminal) -> Terminal:
    assert hauberk("witness", "key", "--name", NAME).status == 0
    return hauberk


@pytest.fixture
def log() -> Grower:
    return Grower()


class Running:
    """`hauberk witness serve` in a process of its own."""

    def __init__(self, cwd: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hauberk", "witness", "serve", "--json", "--listen", "127.0.0.1:0", *arguments],
            cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            line = self.process.stdout.readline()
            assert line, self.process.communicate()
            lines.append(line)
        self.facts: dict[str, Any] = json.loads("".join(lines))

    def post(self, body: bytes) -> httpx2.Response:
        return httpx2.post(f"{self.facts['url']}/add-checkpoint", content=body, trust_env=False)

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err


@pytest.fixture
def running(made: Terminal, tmp_path: Path, log: Grower) -> Iterator[Running]:
    del made
    one = Running(tmp_path, "--log", log.vkey)
    yield one
    if one.process.poll() is None:
        one.end(signal.SIGKILL)


def test_key_makes_a_witness_once_and_prints_lines_that_a_policy_takes(hauberk: Terminal) -> None:
    first = hauberk("witness", "key", "--name", NAME, "--url", "https://witness.example/")
    again = hauberk("witness", "key", "--url", "https://witness.example/")
    assert first.out == again.out
    ed, ml = (line.split()[1] for line in first.out.splitlines())
    policy = LogPolicy.parse(f"{first.out}group g any {ed} {ml}\nquorum g\n".encode())
    assert [one.url for one in policy.witnesses] == ["https://witness.example/"] * 2
    assert hauberk("witness", "key", "--json").data["name"] == NAME


def test_another_name_is_refused(made: Terminal) -> None:
    done = made("witness", "key", "--name", "other.example/w")
    assert done.status == 1
    assert "a directory of its own" in done.err


def test_logs_are_added_listed_and_removed(made: Terminal, tmp_path: Path, log: Grower) -> None:
    (tmp_path / "log.pub").write_text(log.vkey + "\n")
    assert made("witness", "add", "log.pub", "--json").data == {"added": [LOG]}
    assert made("witness", "add", log.vkey, "--origin", "other.example/x").out == "added other.example/x\n"
    assert [one["origin"] for one in made("witness", "list", "--json").data] == [LOG, "other.example/x"]
    assert made("witness", "list").out.splitlines()[0] == f"{LOG}  size 0  keys 1"
    assert made("witness", "remove", log.vkey).out == "removed 1\n"
    assert made("witness", "list").out.splitlines()[0] == f"{LOG}  size 0  keys 0"


def test_another_log_of_the_same_name_is_refused_and_changes_nothing(made: Terminal, log: Grower) -> None:
    other = Grower(seed=9)
    made("witness", "add", log.vkey)
    assert made("witness", "add", log.vkey).status == 0  # once more is nothing
    refused = made("witness", "add", other.vkey)
    assert (refused.status, refused.out) == (1, "")
    assert "known under another key" in refused.err
    assert "trust domain of its own" in refused.err
    assert "--replace-key" in refused.err
    assert made("witness", "list", "--json").data[0]["keys"] == [log.vkey]
    assert made("witness", "serve", "--log", other.vkey, "--listen", "127.0.0.1:0").status == 1
    assert made("witness", "add", other.vkey, "--replace-key").status == 0
    assert made("witness", "list", "--json").data[0]["keys"] == [other.vkey]


def test_evidence_of_nothing_says_so_and_of_nobody_is_an_error(made: Terminal, log: Grower) -> None:
    made("witness", "add", log.vkey)
    none = made("witness", "evidence", LOG)
    assert (none.status, none.out) == (0, "")
    assert "no evidence" in none.err
    unknown = made("witness", "evidence", "no.example/log")
    assert unknown.status == 1
    assert "HBK-707" in unknown.err


@pytest.mark.parametrize("key", ["nonsense", "a+b+c", "no-such-file"])
def test_what_is_no_key_is_refused(made: Terminal, key: str) -> None:
    done = made("witness", "add", key)
    assert done.status == 1
    assert "HBK-711" in done.err


@pytest.mark.parametrize("command", [("list",), ("add", Grower().vkey), ("evidence", LOG), ("accept-clock", LOG)])
def test_without_a_witness_the_commands_say_how_to_make_one(hauberk: Terminal, command: tuple[str, ...]) -> None:
    done = hauberk("witness", *command)
    assert done.status == 1
    assert "hauberk witness key" in done.err


def test_where_others_reach_it_it_is_not_served_by_itself(made: Terminal) -> None:
    done = made("witness", "serve", "--listen", "0.0.0.0:0")
    assert done.status == 1
    assert "--insecure-plaintext" in done.err


def test_it_says_what_belongs_into_a_policy_and_cosigns(running: Running, log: Grower) -> None:
    lines = running.facts["policy"]
    policy = LogPolicy.parse(f"{lines[0]}\nquorum {lines[0].split()[1]}\n".encode())
    answer = running.post(log.request(0, 5))
    assert policy.witnesses[0].key.verify(log.note(5).partition("\n\n")[0] + "\n", answer.text.split("\n")[0])
    assert policy.witnesses[0].url == running.facts["url"]
    assert running.facts["logs"] == [LOG]


def test_a_running_witness_follows_the_watchlist_and_a_second_one_is_refused(
    running: Running, made: Terminal, tmp_path: Path
) -> None:
    other = Grower("other.example/log")
    assert running.post(other.request(0, 5)).status_code == 404
    assert made("witness", "add", other.vkey).status == 0
    assert running.post(other.request(0, 5)).status_code == 200
    assert "other.example/log  size 5  keys 1" in made("witness", "list").out
    command = [sys.executable, "-m", "hauberk", "witness", "serve", "--listen", "127.0.0.1:0"]
    second = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "another process" in second.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly(running: Running, number: signal.Signals) -> None:
    status, err = running.end(number)
    assert status == 0
    assert "drained and closed" in err


def test_after_kill_9_it_remembers_and_a_fork_is_refused_and_kept(
    running: Running, made: Terminal, tmp_path: Path, log: Grower
) -> None:
    assert running.post(log.request(0, 5)).status_code == 200
    assert running.end(signal.SIGKILL)[0] == -signal.SIGKILL
    again, forked = Running(tmp_path), log.fork(2)
    try:
        assert again.facts["keys"] == running.facts["keys"]
        assert again.post(forked.request(0, 8)).content == b"5\n"
        assert again.post(forked.request(5, 8)).status_code == 422
        assert again.post(Request(5, (), forked.note(5)).encode()).status_code == 422
        assert again.post(log.request(5, 8)).status_code == 200
        seen = httpx2.get(f"{again.facts['url']}/{origin_hash(LOG)}/checkpoint", trust_env=False).text
        assert seen.startswith(f"{LOG}\n8\n")
        assert made("witness", "evidence", LOG).out.rstrip("\n") == forked.note(5).rstrip("\n")
        assert "EVIDENCE 1" in made("witness", "list").out
        assert made("witness", "accept-clock", LOG).status == 0
    finally:
        again.end(signal.SIGTERM)
