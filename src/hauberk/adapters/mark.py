"""The high-water mark of a log in a file of its own, outside the database.

It has three places of 4 KiB, each `SHA-256 of the rest 32 | number 8 | length 2 | signed note`. The first note goes
into the first place and is synced; the later ones into the other two in turn, so that a write cut short leaves what was
before. Those are not synced: the mark guards against a database that was put back, not against a power failure, after
which it may be a little behind the database, as it may always be.
"""

import os
import threading
from hashlib import sha256
from pathlib import Path

from hauberk.adapters.keys import check_private, sync_directory
from hauberk.errors import ConfigError, RecordsError

PLACE_BYTES = 4_096
_DIGEST = 32
_HEAD = _DIGEST + 10


class FileMark:
    """Implements `core.ports.Mark`. Thread-safe.

    Args:
        path: made with mode 0600 when absent.

    Raises:
        RecordsError: HBK-706 it cannot be opened, or others may write it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()  # guards the file and _number
        self._directory = path.parent
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            check_private(path)
            self._number, _ = self._newest()
        except (OSError, ConfigError) as error:
            raise RecordsError("HBK-706", "the high-water mark cannot be opened", path=str(path)) from error

    def _newest(self) -> tuple[int, str]:
        return max(self._place(which) for which in range(3))

    def _place(self, which: int) -> tuple[int, str]:
        return _parsed(os.pread(self._fd, PLACE_BYTES, which * PLACE_BYTES))

    def read(self) -> str:
        """Return the newest note."""
        with self._lock:
            return self._newest()[1]

    def write(self, note: str) -> None:
        """Keep a newer note."""
        text = note.encode()
        if len(text) > PLACE_BYTES - _HEAD:
            raise RecordsError("HBK-703", "the checkpoint is too long for the high-water mark")
        with self._lock:
            number = self._number + 1
            body = number.to_bytes(8) + len(text).to_bytes(2) + text
            try:
                which = 1 + number % 2 if number > 1 else 0
                os.pwrite(self._fd, sha256(body).digest() + body, which * PLACE_BYTES)
                if number == 1:
                    os.fsync(self._fd)
                    sync_directory(self._directory)
            except OSError as error:
                raise RecordsError("HBK-703", "the high-water mark cannot be written") from error
            self._number = number

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def _parsed(data: bytes) -> tuple[int, str]:
    """Return number and note of one place; 0 and nothing when it was never or only half written."""
    length = int.from_bytes(data[_HEAD - 2 : _HEAD])
    body = data[_DIGEST : _HEAD + length]
    if len(data) < _HEAD or sha256(body).digest() != data[:_DIGEST]:
        return 0, ""
    return int.from_bytes(body[:8]), body[10:].decode("utf-8", "replace")


def read_mark_file(path: Path) -> str:
    """Return the newest note of a mark as an auditor got it, wherever the file is and whoever may write it.

    Raises:
        RecordsError: HBK-706 it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordsError("HBK-706", "the high-water mark cannot be opened", path=str(path)) from error
    return max(_parsed(data[at : at + PLACE_BYTES]) for at in range(0, 3 * PLACE_BYTES, PLACE_BYTES))[1]
