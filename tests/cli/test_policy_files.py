"""Which files `hauberk policy` reads, and that nothing in them reaches a terminal as anything but text."""

import json
import os
from pathlib import Path

import pytest

from hauberk.cli._output import printable
from tests.authority.mesh import ALLOW
from tests.cli.terminal import Terminal

OPEN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: production}
spec:
  rules:
  - {}
"""
EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\nerror: forged"
CALL = ("--to", "production/shop", "--from", "spiffe://example.org/ns/production/sa/front")


@pytest.fixture
def hauberk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Terminal:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HAUBERK_")]:
        monkeypatch.delenv(name)
    return Terminal(monkeypatch, capsys)


def folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def is_clean(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


def test_a_rule_cannot_hide_from_lint_in_a_file_that_a_runtime_reads(hauberk: Terminal, tmp_path: Path) -> None:
    where = folder(tmp_path / "policies", a_yaml=ALLOW.replace("PATH", "/"), b_yml=OPEN)
    named = {found["file"] for found in hauberk("policy", "lint", where, "--json").data}
    assert str(where / "b.yml") in named
    assert hauberk("policy", "explain", where, *CALL, "--path", "/hidden").status == 0
    assert "open" in hauberk("policy", "who-can", where, "--to", "production/shop").out
    only = folder(tmp_path / "only", a_yaml=ALLOW.replace("PATH", "/"))
    assert "open" in hauberk("policy", "diff", only, where).out
    assert hauberk("policy", "explain", only, *CALL, "--path", "/hidden").status == 1


@pytest.mark.parametrize("command", ["lint", "explain", "who-can", "diff", "apply", "test"])
def test_nothing_to_read_is_an_error_and_not_a_clean_result(hauberk: Terminal, tmp_path: Path, command: str) -> None:
    full = folder(tmp_path / "full", a_yaml=OPEN)
    (tmp_path / "table.yaml").write_text("[]")
    for empty in (
        folder(tmp_path / "empty"),
        folder(tmp_path / "other", notes_txt="x", a_json="{}"),
        folder(tmp_path / "comment", a_yaml="# nothing\n---\n", b_yml=""),
    ):
        words = {"diff": (full, empty), "test": ("table.yaml", empty)}.get(command, (empty,))
        more = ("--to", "production/shop") if command in {"explain", "who-can"} else ()
        done = hauberk("policy", command, *words, *more)
        assert (done.status, done.out) == (1, "")
        assert "[HBK-301]" in done.err
        assert str(empty) in done.err


def test_an_empty_file_beside_a_full_one_is_no_error(hauberk: Terminal, tmp_path: Path) -> None:
    where = folder(tmp_path / "policies", a_yaml=ALLOW.replace("PATH", "/"), b_yaml="# later\n")
    assert hauberk("policy", "lint", where).status == 0
    empty = folder(tmp_path / "empty")
    assert hauberk("policy", "lint", where, empty).status == 1


def test_a_directory_is_no_table(hauberk: Terminal, tmp_path: Path) -> None:
    where = folder(tmp_path / "policies", a_yaml=OPEN)
    done = hauberk("policy", "test", where, where)
    assert done.status == 1
    assert "[HBK-301]" in done.err


@pytest.mark.parametrize("command", [("lint",), ("explain", *CALL), ("apply",)])
def test_a_yaml_key_cannot_write_escapes_to_the_terminal(
    hauberk: Terminal, tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(OPEN.replace("name: open", f"name: open, {json.dumps(EVIL)}: 1"))
    done = hauberk("policy", command[0], path, *command[1:])
    assert done.status != 0
    assert is_clean(done.out + done.err)
    assert not any(line.startswith("error: forged") for line in done.err.splitlines())
    if command[0] != "apply":  # which finds no authority here
        assert "\\u001b]0;owned\\u0007" in done.err


def test_a_file_name_cannot_write_escapes_to_the_terminal(hauberk: Terminal, tmp_path: Path) -> None:
    path = tmp_path / f"a{EVIL.replace('/', '')}.yaml"
    path.write_text(OPEN)
    undecodable = Path(os.fsdecode(os.fsencode(tmp_path / "b") + b"\xff.yaml"))
    undecodable.write_text(OPEN)
    for one in (path, undecodable, tmp_path):
        for more in ((), ("--json",)):
            done = hauberk("policy", "lint", one, *more)
            assert is_clean(done.out + done.err)
            assert done.out
    assert "\\u001b[2J" in hauberk("policy", "lint", path).out
    path.write_text("a: [")
    done = hauberk("policy", "lint", path)
    assert "[HBK-301]" in done.err
    assert is_clean(done.err)
    assert len(done.err.splitlines()) == 2  # error and hint


def test_values_of_a_policy_cannot_write_escapes_to_the_terminal(hauberk: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    evil = json.dumps(f"/{EVIL}")
    path.write_text(OPEN.replace("- {}", f"- to: [{{operation: {{paths: [{evil}]}}}}]\n  - from: [{{source: {{}}}}]"))
    for command in (("lint", path), ("explain", path, *CALL, "--path", f"/{EVIL}"), ("diff", path, path)):
        for more in ((), ("--json",)):
            done = hauberk("policy", *command, *more)
            assert is_clean(done.out + done.err)
            if more and done.out:
                json.loads(done.out)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢", "plain é 漢"),
        ("a\x1bb", "a\\u001bb"),
        ("a\nb\tc", "a\\u000ab\\u0009c"),
        ("\x9b\x7f\u202e\u2028", "\\u009b\\u007f\\u202e\\u2028"),
        ("\U000e0001", "\\udb40\\udc01"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_cannot_be_printed_is_written_as_json_writes_it(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert json.loads(f'"{shown}"') == text
