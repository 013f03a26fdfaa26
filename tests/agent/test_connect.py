"""Where a first identity comes from, and that a secret is used once and kept out of sight."""

import os
import socket
from pathlib import Path

import pytest

from hauberk.agent.connect import connect
from hauberk.agent.remote import Remote, join
from hauberk.agent.state import admin, read_facts
from hauberk.core.config import load
from hauberk.errors import HauberkError
from hauberk.identity.jointoken import JoinToken


def refused(code: str, environ: dict[str, str], tmp_path: Path) -> None:
    config = load(environ={}, arguments={"directory": str(tmp_path)})
    with pytest.raises(HauberkError) as caught:
        connect(config=config, environ=environ)
    assert caught.value.code == code


def test_with_nothing_to_show_there_is_no_identity(tmp_path: Path) -> None:
    refused("HBK-211", {}, tmp_path)


@pytest.mark.parametrize("text", ["x", "hbkjoin1.", "hbkjoin1.!!!!", "hbkjoin1." + "A" * 600])
def test_a_text_that_is_no_token_is_refused_and_taken_out_of_the_environment(tmp_path: Path, text: str) -> None:
    environ = {"HAUBERK_JOIN_TOKEN": text}
    refused("HBK-204", environ, tmp_path)
    assert environ == {}


def test_a_token_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused("HBK-204", {"HAUBERK_JOIN_TOKEN_FILE": str(tmp_path / "none")}, tmp_path)


def test_a_descriptor_that_was_read_already_is_refused(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    os.close(reader)
    environ = {"HAUBERK_IDENTITY_FD": str(reader)}
    refused("HBK-211", environ, tmp_path)
    assert environ == {}


@pytest.mark.parametrize("text", ["-1", "x", "999999"])
def test_a_descriptor_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    refused("HBK-211", {"HAUBERK_IDENTITY_FD": text}, tmp_path)


def test_an_authority_that_is_not_there_is_out_of_reach() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        token = JoinToken(f"127.0.0.1:{unused.getsockname()[1]}", "00" * 32, bytes(32))
        with pytest.raises(HauberkError) as caught:
            join(token, b"", "example.org")
    assert caught.value.code == "HBK-902"


def test_a_line_that_was_closed_is_out_of_reach_and_not_a_crash(tmp_path: Path) -> None:
    line = Remote.over_socket(tmp_path / "workload.sock")
    line.close()
    with pytest.raises(HauberkError) as caught:
        line.call("GET", "/")
    assert caught.value.code == "HBK-902"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"trust_domain": 5}'])
def test_facts_that_are_none_are_an_authority_that_never_ran(tmp_path: Path, text: str) -> None:
    (tmp_path / "authority.json").write_text(text)
    with pytest.raises(HauberkError) as caught:
        read_facts(tmp_path)
    assert caught.value.code == "HBK-902"


def test_a_directory_without_a_running_authority_has_no_administration(tmp_path: Path) -> None:
    with pytest.raises(HauberkError) as caught:
        admin(tmp_path)
    assert caught.value.code == "HBK-902"
