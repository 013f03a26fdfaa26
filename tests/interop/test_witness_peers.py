"""Another implementation at the other end: `aics-witness` cosigns our log, our witness cosigns a log of `aics-tlog`."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import pytest

from hauberk.adapters.sqlite import SqliteStore
from hauberk.authority.witness import OpenWitness
from hauberk.crypto.note import LogKey, encode_key
from hauberk.crypto.signing import SigningKey
from hauberk.errors import WitnessRefused
from hauberk.records.cosign import Cosigning
from hauberk.records.ledger import Ledger
from hauberk.records.log_policy import LogPolicy, examine
from hauberk.witness_client import WitnessClient
from tests.authority.test_witness import Serving
from tests.records.made import ORIGIN, PATIENCE, events
from tests.support.oracles import aics

NAME = "witness.example/aics"


def run(program: str, *arguments: object) -> str:
    command = [str(aics(program)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(note: Path, origin: str, log: str, witness: str) -> None:
    """Have `aics-tlog` verify a checkpoint with a quorum of one."""
    keys = ("--log-key", log, "--witness-key", witness, "--quorum", 1)
    run("aics-tlog", "verify-checkpoint", "--note", note, "--origin", origin, *keys)


class Aics:
    """`aics-witness serve` in a directory of its own, on a free port."""

    def __init__(self, directory: Path, log: str) -> None:
        self._config = directory / "witness.json"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        listen = self.url.removeprefix("http://")
        self.vkey = run("aics-witness", "init", "--config", self._config, "--name", NAME, "--listen", listen).strip()
        run("aics-witness", "add-log", "--config", self._config, "--origin", ORIGIN, "--vkey", log)

    def __enter__(self) -> Self:
        command = [str(aics("aics-witness")), "serve", "--config", str(self._config)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "listening on" in line:
                return self
        raise AssertionError("it ended before it listened")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE)

    @property
    def policy(self) -> LogPolicy:
        return LogPolicy.parse(f"witness aics {self.vkey} {self.url}\nquorum aics\n".encode())

    def status(self) -> str:
        return run("aics-witness", "status", "--config", self._config)


class Book:
    """Our log, with whatever database it has at the moment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = SigningKey.generate()
        self.vkey = encode_key(ORIGIN, self.key.public)
        self.policy: LogPolicy

    def open(self, name: str, *, cosigned: bool = True) -> "Opened":
        return Opened(self, name, cosigned=cosigned)


class Opened:
    """A ledger on one database file, cosigned over HTTP or not at all."""

    def __init__(self, book: Book, name: str, *, cosigned: bool) -> None:
        with ExitStack() as stack:
            store = stack.enter_context(closing(SqliteStore(book.directory / name)))
            self.cosigning: Cosigning | None = None
            if cosigned:
                send = stack.enter_context(WitnessClient())
                self.cosigning = Cosigning(store, ORIGIN, book.key.public, book.policy, send, patience=PATIENCE)
            self.ledger = stack.enter_context(closing(Ledger(store, book.key, ORIGIN, witnesses=self.cosigning)))
            self._stack = stack.pop_all()

    def write(self, count: int) -> int:
        return (self.ledger.append_batch(events(count)).result(PATIENCE)[-1].position or 0) + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


@pytest.fixture
def peer(book: Book, tmp_path: Path) -> Iterator[Aics]:
    directory = tmp_path / "aics"
    directory.mkdir()
    with Aics(directory, book.vkey) as one:
        book.policy = one.policy
        yield one


def test_their_witness_cosigns_our_log_as_it_grows_and_after_a_restart(book: Book, peer: Aics, tmp_path: Path) -> None:
    with book.open("log.db") as one:
        for count in (1, 2, 300, 513):
            note = one.ledger.cosigned(one.write(count)).result(PATIENCE)
    with book.open("log.db") as again:  # which knows nothing of its size any more, and is told by a 409
        note = again.ledger.cosigned(again.write(4)).result(PATIENCE)
    found = examine(note, book.policy, logs=[LogKey(ORIGIN, book.key.public)])
    assert found.checkpoint.size == 820
    assert "size    820" in peer.status()
    (tmp_path / "note").write_text(note, "utf-8")
    check(tmp_path / "note", ORIGIN, book.vkey, peer.vkey)


def test_their_witness_refuses_our_log_rewritten_and_shows_the_proof(book: Book, peer: Aics) -> None:
    with book.open("log.db") as one:
        one.ledger.cosigned(one.write(9)).result(PATIENCE)
    with book.open("rewritten.db", cosigned=False) as forger:
        forger.write(12)
    with book.open("rewritten.db") as one:
        assert one.cosigning is not None
        with pytest.raises(WitnessRefused) as found:
            one.cosigning.confirm(PATIENCE)
    assert found.value.context["status"] == 422
    assert str(found.value.context["proof"]).startswith(f"{ORIGIN}\n9\n")
    assert "EVIDENCE 1" in peer.status()


def test_their_witness_tells_that_our_database_is_old(book: Book, peer: Aics) -> None:
    with book.open("log.db") as one:
        one.write(1)
    shutil.copy(book.directory / "log.db", book.directory / "old.db")
    with book.open("log.db") as one:
        one.ledger.cosigned(one.write(5)).result(PATIENCE)
    with book.open("old.db") as old:
        assert old.cosigning is not None
        with pytest.raises(WitnessRefused) as found:
            old.cosigning.confirm(PATIENCE)
    assert "the database holds 1" in found.value.detail
    assert "size    6" in peer.status()


FEEDER = """
import sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from aics_tlog import Checkpoint, MerkleTree, sign_checkpoint, vkey_from_ed25519, format_vkey
from aics_witness.feeder import FeederError, WitnessClient, merge_cosignatures

url, witness, what = sys.argv[1:]
key = Ed25519PrivateKey.from_private_bytes(bytes(32))
origin = "aics.example/log"
vkey = format_vkey(vkey_from_ed25519(origin, key.public_key()))
if what == "key":
    print(vkey)
    raise SystemExit

def tree(size, story):
    made = MerkleTree()
    for number in range(size):
        made.append(f"{number} {story if number > 2 else 'a'}".encode())
    return made

def submit(client, size, story):
    made = tree(size, story)
    note = sign_checkpoint(Checkpoint(origin, size, made.root()), key, origin).to_bytes()
    try:
        lines = client.submit(note, made.consistency_proof)
    except FeederError as error:
        print(type(error).__name__, getattr(error, "status", ""))
        return
    sys.stdout.write(merge_cosignatures(note, lines).decode())

with WitnessClient(url, witness) as client:
    for size in (1, 5, 300):
        submit(client, size, "a")
with WitnessClient(url, witness) as client:
    submit(client, 300, "a")
    submit(client, 301, "b")
    submit(client, 9, "a")
"""


def test_our_witness_cosigns_a_log_of_theirs_and_refuses_its_fork(tmp_path: Path) -> None:
    python = aics("python")

    def feed(url: str, witness: str, what: str) -> str:
        done = subprocess.run(
            [str(python), "-c", FEEDER, url, witness, what], capture_output=True, text=True, check=False, timeout=60,
            env={"PATH": os.defpath},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    log = feed("", "", "key").strip()
    with closing(OpenWitness(tmp_path / "w", "hauberk.example/w")) as opened, Serving(opened) as serving:
        opened.witness.add_log(log)
        said = feed(serving.url, opened.facts.keys[0], "feed")
    sizes = re.findall(r"^aics.example/log\n(\d+)\n", said, re.MULTILINE)
    assert sizes == ["1", "5", "300", "300"]
    assert said.endswith("WitnessRejected 422\nWitnessAhead \n")
    note = "aics.example/log" + said.split("WitnessRejected")[0].split("\naics.example/log")[-1]
    (tmp_path / "note").write_text(note, "utf-8")
    check(tmp_path / "note", "aics.example/log", log, opened.facts.keys[0])
