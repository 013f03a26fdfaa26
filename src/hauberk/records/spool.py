"""The spool: a bounded queue of record batches on disk, for the time the authority cannot be reached.

Frames are `length 4 | SHA-256 of the body 32 | body`, appended to `spool.log` and synced before `put` returns. What has
arrived is kept in `spool.at`, replaced atomically, as `OFFSET DIGEST`: where the last frame that arrived ends, and its
digest. If the log has no such frame there, the front is unknown and everything is sent again, which the ledger stores
once; so no order of crashes can make a frame that waits look as if it had arrived.

A torn frame at the end, left by a crash in the middle of a write that nobody was told had succeeded, is dropped on
open; a damaged one in the middle is skipped and counted. What the authority refused for good is kept in
`spool.refused` for people. One process owns a spool at a time (`flock` on `spool.lock`), so several replicas of one
service each take a directory of their own.
"""

import fcntl
import logging
import os
import stat
import threading
from collections import deque
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.errors import RecordsError

MAX_BYTES = 64 * 1024 * 1024
MAX_REPLICAS = 1000  # directories tried by `claim`
_DIGEST = 32
_HEAD = 4 + _DIGEST
_COMPACT_BYTES = 8 * 1024 * 1024  # forwarded bytes kept at the front before the file may be rewritten
_CHUNK = 1024 * 1024  # copied at once
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_log = logging.getLogger("hauberk.records")


class Spool:
    """First in, first out, on disk. Thread-safe.

    Args:
        directory: made with mode 0700 when absent; has to be this user's alone.
        max_bytes: of waiting frames; the file has at most twice that.
        clock: for the age.

    Raises:
        RecordsError: HBK-706 another process has it, others may touch it, or it cannot be written.
    """

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES, clock: Clock = SYSTEM_CLOCK) -> None:
        self._directory = directory
        self._path = directory / "spool.log"
        self._at_path = directory / "spool.at"
        self._max = max_bytes
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below
        self._fd = self._held = -1
        self._unsynced = True  # the name of the file may not be durable yet
        self._frames: deque[tuple[int, int, float]] = deque()  # offset and length of the body, when it was put
        self._front = self._end = 0
        self.damaged = 0  # frames skipped on open
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(directory)
            self._held = os.open(directory / "spool.lock", _CREATE, 0o600)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._fd = os.open(self._path, _CREATE, 0o600)
            self._recover()
        except OSError as error:
            self.close()
            raise RecordsError("HBK-706", "the spool cannot be opened", path=str(directory)) from error

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

    def _read_front(self) -> tuple[int, bytes]:
        try:
            offset, digest = self._at_path.read_text("ascii").split()
            return int(offset), bytes.fromhex(digest)
        except (OSError, ValueError):
            return 0, b""

    def _recover(self) -> None:
        """Find the frames that wait and cut off a torn one."""
        arrived = self._read_front()
        size, at, bad, now = os.fstat(self._fd).st_size, 0, 0, self._clock.time()
        while at + _HEAD <= size:
            head = os.pread(self._fd, _HEAD, at)
            body, length = at + _HEAD, int.from_bytes(head[:4])
            at = body + length
            if at > size:
                break
            if sha256(os.pread(self._fd, length, body)).digest() != head[4:]:
                bad += 1
                continue
            self.damaged, bad, self._end = self.damaged + bad, 0, at
            self._frames.append((body, length, now))
            if (at, head[4:]) == arrived:
                self._frames.clear()
                self._front = at
        if self.damaged:
            _log.error("%d damaged frames of the spool were skipped", self.damaged)
        os.ftruncate(self._fd, self._end)

    def put(self, body: bytes) -> None:
        """Append one batch; it is durable when this returns.

        Raises:
            RecordsError: HBK-704 full, HBK-703 the disk failed, HBK-706 closed; the batch is not in the spool.
        """
        with self._lock:
            self._check_open()
            if self._end - self._front + _HEAD + len(body) > self._max:
                raise RecordsError("HBK-704", "the spool is full", bytes=self._max)
            try:
                _write(self._fd, len(body).to_bytes(4) + sha256(body).digest() + body, self._end)
                os.fdatasync(self._fd)
                self._sync_directory()
            except OSError as error:
                with suppress(OSError):  # a torn frame behind the end is skipped on open, and overwritten by the next
                    os.ftruncate(self._fd, self._end)
                raise RecordsError("HBK-703", "the spool cannot be written") from error
            self._frames.append((self._end + _HEAD, len(body), self._clock.time()))
            self._end += _HEAD + len(body)

    def _check_open(self) -> None:
        if self._fd < 0:
            raise RecordsError("HBK-706", "the spool is closed")

    def _sync_directory(self) -> None:
        """A new file is durable only once its name is."""
        if self._unsynced:
            fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            self._unsynced = False

    def peek(self) -> bytes | None:
        """Return the oldest batch, or None.

        Raises:
            RecordsError: HBK-703 the disk failed, HBK-706 closed.
        """
        with self._lock:
            self._check_open()
            if not self._frames:
                return None
            offset, length, _ = self._frames[0]
            try:
                return os.pread(self._fd, length, offset)
            except OSError as error:
                raise RecordsError("HBK-703", "the spool cannot be read") from error

    def drop(self) -> None:
        """Forget the oldest batch, which has arrived. After a crash right now it would be sent again, which is fine.

        Raises:
            RecordsError: HBK-706 closed.
        """
        with self._lock:
            self._check_open()
            offset, length, _ = self._frames.popleft()
            self._front = offset + length
            try:
                self._note(os.pread(self._fd, _DIGEST, offset - _DIGEST))
            except OSError:
                _log.warning("the front of the spool cannot be noted: after a crash batches are sent twice")

    def _note(self, digest: bytes) -> None:
        """Write down what has arrived, and give back the room it took."""
        if not self._frames:
            os.ftruncate(self._fd, 0)
            self._front = self._end = 0
            self._at_path.unlink(missing_ok=True)
        elif self._front > max(_COMPACT_BYTES, self._end - self._front):
            self._compact()
            self._at_path.unlink(missing_ok=True)
        else:
            part = self._at_path.with_suffix(".part")
            part.write_text(f"{self._front} {digest.hex()}", "ascii")
            part.replace(self._at_path)

    def _compact(self) -> None:
        """Move what waits to the front of a new file; a crash in between leaves the old one."""
        part = self._path.with_suffix(".part")
        fd = os.open(part, _CREATE | os.O_TRUNC, 0o600)
        try:
            for at in range(self._front, self._end, _CHUNK):
                _write(fd, os.pread(self._fd, min(_CHUNK, self._end - at), at), at - self._front)
            os.fsync(fd)
            part.replace(self._path)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._unsynced = fd, True
        moved = self._front
        self._frames = deque((offset - moved, length, at) for offset, length, at in self._frames)
        self._front, self._end = 0, self._end - moved

    def set_aside(self, body: bytes) -> None:
        """Keep for people what will never be taken, in frames like those that wait; at most `max_bytes` of it.

        Raises:
            RecordsError: HBK-703 the disk failed, HBK-704 there is too much of it already.
        """
        with self._lock:
            try:
                fd = os.open(self._path.with_suffix(".refused"), _CREATE, 0o600)
                try:
                    size = os.fstat(fd).st_size
                    if size + _HEAD + len(body) > self._max:
                        raise RecordsError("HBK-704", "too much has been refused already", bytes=self._max)
                    _write(fd, len(body).to_bytes(4) + sha256(body).digest() + body, size)
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                raise RecordsError("HBK-703", "what was refused cannot be kept") from error

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
            for fd in (self._fd, self._held):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._held = -1


def _check_private(directory: Path) -> None:
    """Return if nobody else can read, add or take away frames.

    Raises:
        RecordsError: HBK-706.
    """
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
        raise RecordsError("HBK-706", "the spool is open to others", path=str(directory))


def _write(fd: int, data: bytes, at: int) -> None:
    """Write all of `data`; the system may take less at a time.

    Raises:
        OSError: the disk is full or failed.
    """
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written
