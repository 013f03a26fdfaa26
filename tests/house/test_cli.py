"""The command line as a whole: help without loading, exit statuses, errors and hints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hauberk.cli import COMMANDS, main
from hauberk.cli._group import cli


def hauberk(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "hauberk", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_help_loads_neither_click_nor_any_command() -> None:
    program = (
        "import sys\nfrom hauberk.cli import main\nsys.argv = ['hauberk', '--help']\nmain()\n"
        "print(sorted(name for name in sys.modules if name == 'click' or name.startswith('hauberk.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_short_cut_for_help_says_what_click_would_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["hauberk", "--help"])
    main()
    assert capsys.readouterr().out == CliRunner().invoke(cli, ["--help"], prog_name="hauberk").output


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_no_authority_is_exit_status_three_with_a_hint(tmp_path: Path) -> None:
    done = hauberk("status", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "error:" in done.stderr
    assert "hint: start it with: hauberk up" in done.stderr


def test_wrong_usage_is_exit_status_two(tmp_path: Path) -> None:
    assert hauberk("ledger", "show", cwd=tmp_path).returncode == 2
    assert hauberk("no-such-command", cwd=tmp_path).returncode == 2


def test_config_shows_where_values_come_from(tmp_path: Path) -> None:
    (tmp_path / "hauberk.toml").write_text('trust_domain = "shop.test"\n')
    done = hauberk("config", "--json", cwd=tmp_path)
    rows = {row["key"]: row for row in json.loads(done.stdout)}
    assert rows["trust_domain"]["value"] == "shop.test"
    assert rows["trust_domain"]["origin"] == "hauberk.toml"


def test_an_unknown_setting_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "hauberk.toml").write_text('trust_domian = "shop.test"\n')
    done = hauberk("config", cwd=tmp_path)
    assert done.returncode == 1
    assert "trust_domian" in done.stderr
