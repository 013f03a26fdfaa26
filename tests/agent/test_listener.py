"""Who answers on the workload socket: a stranger there could say who we are, and whom to trust."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hauberk.agent.connect import connect
from hauberk.core.config import load
from hauberk.errors import HauberkError
from tests.authority.mesh import Mesh

LISTEN = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    os.setuid(1234)
    line.bind(sys.argv[1])
    line.listen()
    print("ready", flush=True)
    sys.stdin.read()
"""


def refused(path: Path, **settings: object) -> str:
    config = load(environ={}, arguments={"directory": str(path), **settings})
    with pytest.raises(HauberkError) as caught:
        connect(config=config, environ={})
    return caught.value.code


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_socket_that_another_user_listens_on_is_refused(tmp_path: Path) -> None:
    with socket.socket() as free:  # a name short enough for a socket, in a directory of ours anybody may enter
        free.bind(("127.0.0.1", 0))
        shared = Path(f"/tmp/hauberk-test-{free.getsockname()[1]}")  # made here and removed below
    shared.mkdir()
    shared.chmod(0o777)
    path = shared / "workload.sock"
    stranger = subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "ready\n"
        assert refused(shared) == "HBK-207"
    finally:
        stranger.communicate("", timeout=10)
        path.unlink()
        shared.rmdir()
    assert tmp_path.exists()


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
