"""Who answers on the workload socket: a stranger there could say who we are, and whom to trust."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hauberk.agent.connect import connect
from hauberk.core.config import load
from hauberk.errors import HauberkError
from tests.authority.mesh import Mesh

LISTEN = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as line, open(sys.argv[1] + ".heard", "wb", buffering=0) as heard:
    os.setuid(1234)
    line.bind(sys.argv[1])
    line.listen()
    print("ready", flush=True)
    while True:
        peer, _ = line.accept()
        with peer:
            heard.write(peer.recv(4096))
"""


def refused(path: Path, **settings: object) -> str:
    config = load(environ={}, arguments={"directory": str(path), **settings})
    with pytest.raises(HauberkError) as caught:
        connect(config=config, environ={})
    return caught.value.code


def heard(shared: Path) -> bytes:
    return (shared / "workload.sock.heard").read_bytes()


@pytest.fixture
def taken() -> Iterator[Path]:
    """A directory of ours anybody may enter, where another user listens on what should be the workload socket."""
    with tempfile.TemporaryDirectory(prefix="hauberk-") as name:  # short enough for a socket
        shared = Path(name)
        shared.chmod(0o777)
        stranger = subprocess.Popen(
            [sys.executable, "-c", LISTEN, str(shared / "workload.sock")],
            stdout=subprocess.PIPE,
            text=True,
        )
        with stranger:
            try:
                assert stranger.stdout is not None
                assert stranger.stdout.readline() == "ready\n"
                yield shared
            finally:
                stranger.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_socket_that_another_user_listens_on_is_refused(taken: Path) -> None:
    assert refused(taken) == "HBK-207"
    assert heard(taken) == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_without_the_check_it_is_the_stranger_who_is_asked_who_we_are(
    taken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["hauberk.agent.connect"], "_check_listener", lambda _path: None)
    assert refused(taken) == "HBK-902"  # he hangs up on it; he could have answered
    assert heard(taken).startswith(b"POST /")


def test_a_socket_nobody_listens_on_any_more_is_out_of_reach(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "workload.sock"))
    assert refused(tmp_path) == "HBK-902"


def test_an_authority_of_another_trust_domain_than_the_configured_one_is_refused(tmp_path: Path) -> None:
    with Mesh(tmp_path / "own") as own:
        own.register("shop")
        assert refused(own.path, trust_domain="another.test") == "HBK-209"
        runtime = connect(config=load(environ={}, arguments={"directory": str(own.path)}), environ={})
        assert str(runtime.source.spiffe_id).endswith("/sa/shop") if runtime.source else False
        runtime.close()
