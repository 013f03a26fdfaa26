"""The spool: acknowledged means durable, whatever crash, corruption or full disk comes next."""

import os
import signal
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hauberk.core.clock import ManualClock
from hauberk.errors import RecordsError
from hauberk.records import spool as spool_module
from hauberk.records.spool import Spool

HEAD = 36


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4) + sha256(body).digest() + body


def waiting(directory: Path) -> list[bytes]:
    """What a restart finds, oldest first; takes it all out."""
    spool = Spool(directory)
    found = []
    while (body := spool.peek()) is not None:
        found.append(body)
        spool.drop()
    spool.close()
    return found


def filled(directory: Path, *bodies: bytes) -> None:
    spool = Spool(directory)
    for body in bodies:
        spool.put(body)
    spool.close()


def test_batches_come_out_in_order_and_survive_a_restart(tmp_path: Path) -> None:
    filled(tmp_path / "s", b"one", b"", b"three")
    assert waiting(tmp_path / "s") == [b"one", b"", b"three"]
    assert waiting(tmp_path / "s") == []


def test_what_was_forwarded_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    for body in (b"one", b"two", b"three"):
        spool.put(body)
    spool.drop()
    assert (spool.depth, spool.size, spool.peek()) == (2, 2 * HEAD + 8, b"two")
    spool.close()
    assert waiting(tmp_path / "s") == [b"two", b"three"]


def test_a_lost_front_file_means_everything_is_sent_again_and_nothing_is_lost(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    for body in (b"one", b"two"):
        spool.put(body)
    spool.drop()
    spool.close()
    (tmp_path / "s" / "spool.at").unlink()
    assert waiting(tmp_path / "s") == [b"one", b"two"]


@pytest.mark.parametrize("text", ["", "junk", "39", "39 zz", "-1 00", f"39 {'0' * 64}", "999999 " + "0" * 64])
def test_a_damaged_front_file_loses_nothing(tmp_path: Path, text: str) -> None:
    filled(tmp_path / "s", b"one", b"two")
    (tmp_path / "s" / "spool.at").write_text(text)
    assert waiting(tmp_path / "s") == [b"one", b"two"]


def test_a_front_from_before_never_hides_batches_put_since(tmp_path: Path) -> None:
    """A crash between emptying the log and noting it leaves a stale front beside new frames of the same lengths."""
    spool = Spool(tmp_path / "s")
    for body in (b"one", b"two", b"end"):
        spool.put(body)
    spool.drop()
    spool.drop()
    stale = (tmp_path / "s" / "spool.at").read_bytes()
    spool.drop()
    for body in (b"ONE", b"TWO", b"END"):
        spool.put(body)
    spool.close()
    (tmp_path / "s" / "spool.at").write_bytes(stale)
    assert waiting(tmp_path / "s") == [b"ONE", b"TWO", b"END"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.data())
def test_a_torn_last_frame_is_dropped_and_nothing_before_it(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("torn") / "s"
    filled(directory, *bodies)
    log = directory / "spool.log"
    whole = log.read_bytes()
    cut = data.draw(st.integers(1, len(frame(bodies[-1]))))
    log.write_bytes(whole[:-cut] + data.draw(st.binary(max_size=min(cut - 1, 3))))
    spool = Spool(directory)
    assert spool.depth == len(bodies) - 1
    spool.put(b"next")
    spool.close()
    assert waiting(directory) == [*bodies[:-1], b"next"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2), st.integers(0, 7), st.integers(4, HEAD + 8))
def test_a_damaged_frame_takes_no_other_with_it(
    tmp_path_factory: pytest.TempPathFactory, number: int, bit: int, at: int
) -> None:
    bodies = [bytes([65 + index]) * 9 for index in range(4)]
    directory = tmp_path_factory.mktemp("damaged") / "s"
    filled(directory, *bodies)
    log = directory / "spool.log"
    raw = bytearray(log.read_bytes())
    raw[number * (HEAD + 9) + at] ^= 1 << bit
    log.write_bytes(raw)
    spool = Spool(directory)
    assert spool.damaged == 1
    spool.close()
    assert waiting(directory) == bodies[:number] + bodies[number + 1 :]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=80))
def test_any_bytes_at_all_open_as_some_spool(tmp_path_factory: pytest.TempPathFactory, log: bytes, at: bytes) -> None:
    directory = tmp_path_factory.mktemp("any") / "s"
    directory.mkdir(mode=0o700)
    (directory / "spool.log").write_bytes(frame(b"good") + log)
    (directory / "spool.at").write_bytes(at)
    assert waiting(directory)[:1] == [b"good"]


def test_a_full_spool_refuses_and_takes_again_once_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=2 * (HEAD + 10))
    spool.put(b"0123456789")
    spool.put(b"0123456789")
    with pytest.raises(RecordsError) as found:
        spool.put(b"")
    assert found.value.code == "HBK-704"
    assert spool.depth == 2
    spool.drop()
    spool.put(b"0123456789")
    assert spool.depth == 2
    spool.close()


def test_the_age_is_that_of_the_oldest_batch(tmp_path: Path) -> None:
    clock = ManualClock()
    spool = Spool(tmp_path / "s", clock=clock)
    assert spool.age() == 0
    spool.put(b"one")
    clock.advance(5)
    spool.put(b"two")
    clock.advance(2)
    assert spool.age() == 7
    spool.drop()
    assert spool.age() == 2
    spool.close()


def test_compaction_keeps_every_byte_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_COMPACT_BYTES", 1000)
    monkeypatch.setattr(spool_module, "_CHUNK", 64)
    bodies = [bytes([number]) * (number % 90) for number in range(200)]
    spool = Spool(tmp_path / "s")
    got, largest = [], 0
    for number, body in enumerate(bodies):
        spool.put(body)
        if number % 3:
            got.append(spool.peek())
            spool.drop()
            largest = max(largest, (tmp_path / "s" / "spool.log").stat().st_size - spool.size)
    assert largest < 1000 + spool.size + HEAD + 90
    spool.close()
    assert got + waiting(tmp_path / "s") == bodies


def test_what_arrives_whole_leaves_an_empty_file(tmp_path: Path) -> None:
    filled(tmp_path / "s", b"x" * 1000)
    waiting(tmp_path / "s")
    assert (tmp_path / "s" / "spool.log").stat().st_size == 0


def test_one_owner_at_a_time_also_after_a_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_COMPACT_BYTES", 10)
    spool = Spool(tmp_path / "s")
    for _ in range(2):
        with pytest.raises(RecordsError) as found:
            Spool(tmp_path / "s")
        assert found.value.code == "HBK-706"
        for _ in range(4):
            spool.put(b"x" * 50)
        spool.drop()
        spool.drop()
        spool.drop()
    spool.close()
    Spool(tmp_path / "s").close()


def test_replicas_take_a_directory_each_and_a_restart_takes_up_the_first(tmp_path: Path) -> None:
    first, second = Spool.claim(tmp_path, "a"), Spool.claim(tmp_path, "a")
    first.put(b"of the first")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.0", "a.1"]
    first.close()
    again = Spool.claim(tmp_path, "a")
    assert again.peek() == b"of the first"
    again.close()
    second.close()


def test_claiming_among_many_leaves_no_descriptors_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [Spool.claim(tmp_path, "a") for _ in range(3)]
    monkeypatch.setattr(spool_module, "MAX_REPLICAS", 3)
    before = os.dup(0)
    os.close(before)
    with pytest.raises(RecordsError) as found:
        Spool.claim(tmp_path, "a")
    assert found.value.code == "HBK-706"
    after = os.dup(0)
    os.close(after)
    assert after == before  # the lowest free descriptor is the same
    for spool in held:
        spool.close()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o750, 0o701])
def test_a_directory_others_could_touch_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(mode)
    with pytest.raises(RecordsError) as found:
        Spool(tmp_path / "s")
    assert found.value.code == "HBK-706"


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "s").symlink_to(tmp_path / "real", target_is_directory=True)
    with pytest.raises(RecordsError):
        Spool(tmp_path / "s")
    (tmp_path / "t").mkdir(mode=0o700)
    (tmp_path / "victim").write_bytes(b"not a spool")
    (tmp_path / "t" / "spool.log").symlink_to(tmp_path / "victim")
    with pytest.raises(RecordsError):
        Spool(tmp_path / "t")
    assert (tmp_path / "victim").read_bytes() == b"not a spool"


def test_a_closed_spool_refuses_with_a_code(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    spool.put(b"one")
    spool.close()
    spool.close()
    for call in (lambda: spool.put(b"two"), spool.peek, spool.drop):
        with pytest.raises(RecordsError) as found:
            call()
        assert found.value.code == "HBK-706"
    assert waiting(tmp_path / "s") == [b"one"]


def test_what_is_set_aside_is_kept_beside_the_spool_up_to_the_bound(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=2 * (HEAD + 3))
    spool.set_aside(b"bad")
    spool.set_aside(b"bad")
    with pytest.raises(RecordsError) as found:
        spool.set_aside(b"bad")
    assert found.value.code == "HBK-704"
    assert (tmp_path / "s" / "spool.refused").read_bytes() == frame(b"bad") * 2
    assert spool.depth == 0
    spool.close()


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from hauberk.records import spool
one = spool.Spool(Path(sys.argv[1]))
one.put(b"acknowledged")
write = os.pwrite
def half(fd, data, at):
    write(fd, bytes(data[:len(data) // 2]), at)
    os.kill(os.getpid(), signal.SIGKILL)
os.pwrite = half
one.put(b"never acknowledged")
"""

DISK_FULL = """
import resource, sys
from pathlib import Path
from hauberk.errors import RecordsError
from hauberk.records.spool import Spool
spool = Spool(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
done = 0
while True:
    try:
        spool.put(b"%03d" % done + b"x" * 97)
    except RecordsError as error:
        print(done, error.code)
        break
    done += 1
try:
    spool.put(b"y" * 500)
except RecordsError as error:
    print(error.code)
spool.put(b"short")
spool.drop()
spool.close()
"""


def child(program: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, str(directory)], check=False, timeout=30, capture_output=True, text=True
    )


def test_a_process_killed_in_the_middle_of_a_write_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    assert child(KILLED_WHILE_WRITING, tmp_path / "s").returncode == -signal.SIGKILL
    assert (tmp_path / "s" / "spool.log").stat().st_size > len(frame(b"acknowledged"))
    assert waiting(tmp_path / "s") == [b"acknowledged"]


def test_a_full_disk_is_refused_and_spoils_nothing(tmp_path: Path) -> None:
    """The file may not grow beyond 1,000 bytes: the system takes a part of a frame, then nothing."""
    done = child(DISK_FULL, tmp_path / "s")
    assert done.stdout.split() == ["7", "HBK-703", "HBK-703"], done.stderr
    bodies = [b"%03d" % number + b"x" * 97 for number in range(7)]
    assert waiting(tmp_path / "s") == [*bodies[1:], b"short"]


class Crashes(RuleBasedStateMachine):
    """Puts, drops, clean restarts and crashes that lose any part of what was not promised, against a plain list."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp()) / "s"
        self.spool = Spool(self.directory)
        self.waits: list[bytes] = []
        self.number = 0
        self.at: list[bytes] = []  # every front file there has been

    @rule(size=st.integers(0, 40))
    def put(self, size: int) -> None:
        self.number += 1
        body = self.number.to_bytes(4) + bytes(size)
        self.spool.put(body)
        self.waits.append(body)

    @rule()
    def forward(self) -> None:
        assert self.spool.peek() == (self.waits[0] if self.waits else None)
        if self.waits:
            self.spool.drop()
            self.waits.pop(0)
        path = self.directory / "spool.at"
        if path.exists():
            self.at.append(path.read_bytes())

    @rule(torn=st.binary(max_size=50), data=st.data())
    def crash(self, torn: bytes, data: st.DataObject) -> None:
        """A torn frame at the end, and a front file of any earlier moment, or none."""
        self.spool.close()
        with (self.directory / "spool.log").open("ab") as log:
            log.write(torn)
        if self.at:
            kept = data.draw(st.sampled_from([None, *self.at]))
            path = self.directory / "spool.at"
            path.unlink(missing_ok=True)
            if kept is not None:
                path.write_bytes(kept)
        self.spool = Spool(self.directory)
        again: list[bytes] = []
        while (body := self.spool.peek()) is not None and body not in self.waits[:1]:
            again.append(body)  # sent twice, which the ledger stores once
            self.spool.drop()
        assert not set(again) & set(self.waits)

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "spool"):
            assert self.spool.depth == len(self.waits)
            assert self.spool.peek() == (self.waits[0] if self.waits else None)

    def teardown(self) -> None:
        if not hasattr(self, "spool"):
            return
        self.spool.close()
        assert waiting(self.directory) == self.waits
        for path in self.directory.iterdir():
            path.unlink()
        self.directory.rmdir()
        self.directory.parent.rmdir()


Crashes.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestNoOrderOfCrashesLosesABatch = Crashes.TestCase
