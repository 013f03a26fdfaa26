"""`hauberk run -- CMD`: the program gets its identity, and nobody who looks at it gets a secret."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import hauberk as library
from hauberk.agent import connect
from hauberk.core.config import load
from hauberk.core.wire import EntryForm, PolicyFile, PolicyForm, RevokeForm
from tests.authority.mesh import ALLOW
from tests.e2e.processes import Up, ask, data, environment, hauberk, wait_for

PEEK = """
import json, os, sys
pipe = os.fdopen(int(os.environ["HAUBERK_IDENTITY_FD"]), "rb")
secret = pipe.read()
seen = b"".join(open(f"/proc/self/{name}", "rb").read() for name in ("cmdline", "environ"))
print(json.dumps({"secret": secret.decode(), "hidden": secret not in seen and secret[9:40] not in seen,
                  "names": sorted(name for name in os.environ if name.startswith("HAUBERK_")),
                  "again": pipe.read().decode(), "arguments": sys.argv[1:]}))
"""
SERVE = """
import sys
import hauberk

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})

runtime = hauberk.connect()
hauberk.serve(hauberk.protect(app, runtime), port=0, runtime=runtime,
              on_ready=lambda port: print(port, runtime.source.spiffe_id, flush=True))
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("up")) as running:
        for name in ("shop", "front"):
            form = EntryForm(name, "production", name, (f"unix:uid:{os.getuid()}",), {"app": name})
            ask(running.cwd, "POST", "/admin/entries", form)
        ask(running.cwd, "POST", "/admin/policies", PolicyForm((PolicyFile("allow", ALLOW.replace("PATH", "/")),)))
        yield running


def run(up: Up, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return hauberk("run", "--entry", "shop", "--", sys.executable, "-c", *arguments, cwd=up.cwd)


def test_the_secret_is_neither_in_the_arguments_nor_in_the_environment(up: Up) -> None:
    done = run(up, PEEK, "--port", "1")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["secret"].startswith("hbkjoin1.")
    assert seen["hidden"]
    assert seen["names"] == ["HAUBERK_DIRECTORY", "HAUBERK_IDENTITY_FD", "HAUBERK_TRUST_DOMAIN"]
    assert seen["again"] == ""
    assert seen["arguments"] == ["--port", "1"]  # options of the program are the program's


def test_the_program_is_who_it_was_registered_as(up: Up) -> None:
    done = run(up, "import hauberk; r = hauberk.connect(); print(r.source.spiffe_id); r.close()")
    assert done.stdout.strip() == "spiffe://example.org/ns/production/sa/shop", done.stderr


def test_a_second_look_at_the_descriptor_gives_nobody_an_identity(up: Up) -> None:
    program = (
        "import os, hauberk\n"
        "fd = os.environ['HAUBERK_IDENTITY_FD']\n"
        "hauberk.connect().close()\n"
        "print('HAUBERK_IDENTITY_FD' in os.environ)\n"
        "os.environ['HAUBERK_IDENTITY_FD'] = fd\n"
        "try:\n    hauberk.connect()\nexcept hauberk.HauberkError as error:\n    print(error.code)\n"
    )
    done = run(up, program)
    assert done.stdout.split() == ["False", "HBK-211"], done.stderr


def test_the_programs_own_exit_status_is_the_commands(up: Up) -> None:
    assert run(up, "raise SystemExit(7)").returncode == 7


def test_a_program_that_is_not_there_is_wrong_usage(up: Up) -> None:
    done = hauberk("run", "--entry", "shop", "--", "/no/such/program", cwd=up.cwd)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: cannot run /no/such/program: No such file or directory\n"


def test_an_entry_that_does_not_match_runs_nothing(up: Up) -> None:
    done = hauberk("run", "--entry", "nobody", "--", "touch", "made", cwd=up.cwd)
    assert (done.returncode, done.stdout) == (1, "")
    assert "HBK-205" in done.stderr
    assert not (up.cwd / "made").exists()


def start(up: Up) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "hauberk", "run", "--entry", "shop", "--", sys.executable, "-c", SERVE],
        cwd=up.cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def front(up: Up) -> library.Runtime:
    arguments = {"directory": str(up.cwd / ".hauberk"), "records.spool": str(up.cwd / "front-spool")}
    return connect(config=load(environ={}, arguments=arguments), environ={"HAUBERK_IDENTITY_ENTRY": "front"})


def test_two_processes_talk_are_told_apart_and_the_record_proves_it(up: Up) -> None:
    service, runtime = start(up), front(up)
    try:
        assert service.stdout is not None
        port, name = service.stdout.readline().split()
        assert name == "spiffe://example.org/ns/production/sa/shop"
        with library.client(to="shop", runtime=runtime, base_url=f"https://127.0.0.1:{port}") as http:
            assert http.get("/").text == "hello"
            answer = http.get("/admin")
            assert answer.status_code == 403
            incident = answer.json()["incident"]
            (shown,) = data("ledger", "show", "--incident", incident, cwd=up.cwd)
            assert shown["actor"].endswith("/sa/front")
            assert data("ledger", "proof", shown["position"], cwd=up.cwd)["leaf"]
            old = ask(up.cwd, "GET", "/admin/svids")
            assert hauberk("svid", "renew", cwd=up.cwd).returncode == 0
            wait_for(lambda: len(ask(up.cwd, "GET", "/admin/svids")) > len(old) + 1)
            assert http.get("/").text == "hello"
            front_id = "spiffe://example.org/ns/production/sa/front"
            assert hauberk("svid", "revoke", front_id, cwd=up.cwd).returncode == 0
            wait_for(lambda: refused(http))
            ask(up.cwd, "POST", "/admin/revocations", RevokeForm((front_id,), restore=True))
    finally:
        runtime.close()
        service.terminate()
        out, err = service.communicate(timeout=30)
    assert service.returncode == 0, err
    assert out == ""


def refused(http: httpx2.Client) -> bool:
    try:
        return http.get("/").status_code == 403
    except httpx2.TransportError:
        return True


def test_the_state_directory_may_be_anywhere(up: Up, tmp_path: Path) -> None:
    done = hauberk("status", "--json", cwd=tmp_path, HAUBERK_DIRECTORY=str(up.cwd / ".hauberk"))
    assert json.loads(done.stdout)["trust_domain"] == "example.org"
