"""The spool: a bounded queue of record batches on disk, for the time the authority cannot be reached.

Frames are `length 4 | SHA-256 of the body 32 | body`, appended to `spool.log` and synced before `put` returns; how far
the front has been forwarded is kept in `spool.at`, replaced atomically. A torn frame at the end, left by a crash in
the middle of a write that nobody was told had succeeded, is dropped on open. One process owns a spool at a time
(`flock`), so several replicas of one service each take a directory of their own.
"""

import fcntl
import os
import threading
from collections import deque
from hashlib import sha256
from pathlib import Path

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.errors import RecordsError

MAX_BYTES = 64 * 1024 * 1024
MAX_REPLICAS = 1000  # directories tried by `claim`
_HEAD = 4 + 32
_COMPACT_BYTES = 8 * 1024 * 1024  # forwarded bytes kept at the front before the file is rewritten


class Spool:
    """First in, first out, on disk. Thread-safe.

    Args:
        directory: made with mode 0700 when absent.
        max_bytes: of waiting frames.
        clock: for the age.

    Raises:
        RecordsError: HBK-706 another process has it, or it cannot be written.
    """

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = directory / "spool.log"
        self._at_path = directory / "spool.at"
        self._max = max_bytes
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RecordsError("HBK-706", "the spool cannot be opened", path=str(directory)) from error
        self._frames: deque[tuple[int, int, float]] = deque()  # offset and length of the body, when it was put
        self._front = self._read_front()
        self._end = self._recover()

    @classmethod
    def claim(cls, directory: Path, name: str, *, max_bytes: int = MAX_BYTES) -> "Spool":
        """Open the first spool of `name` that no living process has; so a restarted service takes up its own.

        Raises:
            RecordsError: HBK-706 none can be had.
        """
        for number in range(MAX_REPLICAS):
            try:
                return cls(directory / f"{name}.{number}", max_bytes=max_bytes)
            except RecordsError as error:
                if not isinstance(error.__cause__, BlockingIOError):
                    raise
        raise RecordsError("HBK-706", "every spool is taken", name=name)

    def _read_front(self) -> int:
        try:
            return int(self._at_path.read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def _recover(self) -> int:
        """Find the frames that wait, and cut off a torn one."""
        size, at = os.fstat(self._fd).st_size, 0
        while at + _HEAD <= size:
            head = os.pread(self._fd, _HEAD, at)
            length = int.from_bytes(head[:4])
            body = os.pread(self._fd, length, at + _HEAD)
            if len(body) < length or sha256(body).digest() != head[4:]:
                break
            if at >= self._front:
                self._frames.append((at + _HEAD, length, self._clock.time()))
            at += _HEAD + length
        os.ftruncate(self._fd, at)
        self._front = min(self._front, at)
        return at

    def put(self, body: bytes) -> None:
        """Append one batch; it is durable when this returns.

        Raises:
            RecordsError: HBK-704 full, HBK-703 the disk failed; the batch is not in the spool.
        """
        with self._lock:
            if self._end - self._front + _HEAD + len(body) > self._max:
                raise RecordsError("HBK-704", "the spool is full", bytes=self._max)
            frame = len(body).to_bytes(4) + sha256(body).digest() + body
            try:
                written = os.pwrite(self._fd, frame, self._end)
                if written == len(frame):
                    os.fdatasync(self._fd)
            except OSError as error:
                raise RecordsError("HBK-703", "the spool cannot be written") from error
            if written != len(frame):
                os.ftruncate(self._fd, self._end)
                raise RecordsError("HBK-703", "the disk is full")
            self._frames.append((self._end + _HEAD, len(body), self._clock.time()))
            self._end += len(frame)

    def peek(self) -> bytes | None:
        """Return the oldest batch, or None."""
        with self._lock:
            if not self._frames:
                return None
            offset, length, _ = self._frames[0]
            return os.pread(self._fd, length, offset)

    def drop(self) -> None:
        """Forget the oldest batch, which has arrived. After a crash right now it would be sent again, which is fine."""
        with self._lock:
            offset, length, _ = self._frames.popleft()
            self._front = offset + length
            if not self._frames:
                os.ftruncate(self._fd, 0)
                self._front = self._end = 0
            elif self._front > _COMPACT_BYTES:
                self._compact()
            part = self._at_path.with_suffix(".part")
            part.write_text(str(self._front), "ascii")
            part.replace(self._at_path)

    def _compact(self) -> None:
        """Move what waits to the front; a crash in between leaves the old file."""
        waiting = os.pread(self._fd, self._end - self._front, self._front)
        part = self._path.with_suffix(".part")
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, waiting)
        os.fsync(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._at_path.unlink(missing_ok=True)  # before the exchange: at worst batches are sent twice
        part.replace(self._path)
        os.close(self._fd)
        self._fd = fd
        moved = self._front
        self._frames = deque((offset - moved, length, at) for offset, length, at in self._frames)
        self._front, self._end = 0, self._end - moved

    @property
    def depth(self) -> int:
        """How many batches wait."""
        return len(self._frames)

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return self._end - self._front

    def age(self) -> float:
        """Return how long the oldest batch has waited, in seconds; 0 when none does."""
        with self._lock:
            return max(0.0, self._clock.time() - self._frames[0][2]) if self._frames else 0.0

    def close(self) -> None:
        """Release the file and its lock; what waits stays."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
