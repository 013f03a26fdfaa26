"""A witness in a process of its own, a service that has its log cosigned, and an operator who turns time back."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hauberk.core.config import load
from hauberk.errors import NotCosigned, WitnessRefused
from hauberk.records.log_policy import LogPolicy, verify_checkpoint_under
from hauberk.runtime import Runtime
from tests.e2e.processes import PATIENCE, data, environment


class Witness:
    """`hauberk witness serve`, stopped with Ctrl-C at the end."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        command = [sys.executable, "-m", "hauberk", "witness", "serve", "--listen", "127.0.0.1:0", "--json"]
        self.process = subprocess.Popen(
            [*command, "--dir", "witness", "--name", "example.org/w1"],
            cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        text = ""
        while True:
            text += self.process.stdout.readline()
            try:
                self.facts = json.loads(text)
            except ValueError:
                continue
            return

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=PATIENCE)


class House:
    """A service, and what its operator can reach."""

    def __init__(self, directory: Path, witness: Witness) -> None:
        self.directory, self.witness = directory, witness
        self.policy = directory / "witnesses"
        self.policy.write_text(f"witness {self._line()}\nquorum w1\n")

    def _line(self) -> str:
        words = self.witness.facts["policy"][0].split()
        return f"w1 {words[2]} {self.witness.facts['url']}" if words[0] == "witness" else " ".join(words)

    def open(self, *, watched: bool = True) -> Runtime:
        settings = {"records.witnesses": str(self.policy) if watched else "", "records.cosign_seconds": 5.0}
        return Runtime.embedded(self.directory / "state", policies=(), config=load(environ={}, arguments=settings))

    def write(self, count: int, *, watched: bool = True) -> None:
        runtime = self.open(watched=watched)
        try:
            level = "cosigned" if watched else "receipt"
            for number in range(count):
                runtime.audit.access("ann", f"/orders/{number}", "read", level=level).result(PATIENCE)
        finally:
            runtime.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    witness = Witness(tmp_path)
    try:
        made = House(tmp_path, witness)
        made.open(watched=False).close()
        data("witness", "add", (tmp_path / "state" / "log.pub").read_text().strip(), "--dir", "witness", cwd=tmp_path)
        yield made
    finally:
        witness.stop()


def test_an_entry_of_level_cosigned_is_under_the_witness_when_its_receipt_is_there(house: House) -> None:
    runtime = house.open()
    receipt = runtime.audit.access("ann", "/orders/1", "read", level="cosigned").result(PATIENCE)
    assert receipt.position is not None
    note = runtime.status()["ledger"]["witnesses"]  # type: ignore[index]  # plain data
    assert note["cosigned"] > receipt.position
    key = (house.directory / "state" / "log.pub").read_text().strip()
    policy = LogPolicy.parse(f"log {key}\n{house.policy.read_text()}".encode())
    recording = runtime._recording
    assert recording is not None
    assert verify_checkpoint_under(recording.checkpoint(), policy).size > receipt.position
    runtime.close()


def test_a_state_directory_that_was_put_back_whole_is_refused_because_the_witness_remembers(house: House) -> None:
    house.write(2)
    shutil.copytree(house.directory / "state", house.directory / "copy")
    house.write(3)
    shutil.rmtree(house.directory / "state")
    shutil.copytree(house.directory / "copy", house.directory / "state")
    with pytest.raises(WitnessRefused):
        house.write(1)
    house.write(1, watched=False)  # the twin: without the witness the copy, mark and all, signs a second history


def test_a_witness_that_is_away_is_never_silent(house: House) -> None:
    house.write(1)
    house.witness.stop()
    runtime = house.open()
    pending = runtime.audit.access("ann", "/orders/1", "read", level="cosigned")
    with pytest.raises(NotCosigned):
        pending.result(PATIENCE)
    assert runtime.audit.access("ann", "/orders/2", "read", level="receipt").result(PATIENCE).position
    runtime.close()
