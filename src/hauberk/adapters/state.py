"""The state directory: who may read what, and secrets that are on disk only in sealed form.

```
.hauberk/            0755   public: root.pem, log.pub, authority.json, workload.sock
.hauberk/private/    0700   hauberk.db, ledger.mark, sealed secrets (*.sealed), admin.sock, lock
.hauberk/private/keys/root  0600   the key-encryption key, unless a setting names another place
```

Secrets are made on the first start and never again: a missing one afterwards is an error, because making a new one
would silently start another trust domain or another log.
"""

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

from hauberk.adapters.keys import check_private, key_source, sync_directory, write_private
from hauberk.crypto.keyring import Keyring, Purpose
from hauberk.errors import ConfigError, HauberkError, IdentityError

DATABASE = "hauberk.db"
MARK = "ledger.mark"
PUBLISHED = ("root.pem", "log.pub")  # written once every secret has been made
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


class StateDirectory:
    """One process's state; holds a lock until closed.

    Args:
        path: made when absent.
        trust_domain: what sealed secrets belong to.
        keys: reference to the key-encryption key, see `adapters.keys.key_source`.
        database: whether the database is a file in it, and has to be there after the first start.

    Raises:
        IdentityError: HBK-210 something is missing or open to others.
        ConfigError: HBK-906 another process has it.
    """

    def __init__(self, path: Path, trust_domain: str, *, keys: str = "", database: bool = True) -> None:
        self.path = path
        self.private = path / "private"
        self._trust_domain = trust_domain
        self._complete = self.private / "complete"
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                "HBK-901", "the state directory cannot be made", path=str(path), why=error.strerror
            ) from None
        _check_shared(path)
        # What is public was made from secrets: where it is, they were, and none may be made anew.
        self._published = any(path.joinpath(name).exists() for name in PUBLISHED)
        if not self.private.exists() and not self._published:
            self.private.mkdir(mode=0o700)
        _before_start(lambda: check_private(self.private, directory=True))
        self._lock = self._take_lock()
        try:
            self._open(keys, database=database)
        except HauberkError:
            self.close()
            raise

    def _open(self, keys: str, *, database: bool) -> None:
        # A start that was killed before it was complete has promised nothing yet: what it made is taken up.
        self.first = not self._complete.exists()
        self._make = self.first and not self._published
        self.keyring = Keyring(key_source(keys, self.private / "keys", create=self._make))
        if database and not self.first:
            _before_start(lambda: check_private(self.database))

    def _take_lock(self) -> int:
        fd = os.open(self.private / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ConfigError("HBK-906", "another process uses this state directory", path=str(self.path)) from None
        return fd

    @property
    def mark(self) -> Path:
        """The path of the ledger's high-water mark."""
        return self.private / MARK

    @property
    def database(self) -> Path:
        """The path of the database."""
        return self.private / DATABASE

    def secret(self, name: str, purpose: Purpose, make: Callable[[], bytes]) -> bytes:
        """Return a secret, made on the first start and sealed on disk.

        Args:
            name: file name without suffix.
            purpose: which key seals it.
            make: makes it.

        Raises:
            IdentityError: HBK-210 it is missing or open to others.
            ConfigError: HBK-904 it does not open with this key in this trust domain, HBK-905 the key is missing.
        """
        path = self._sealed(name)
        if self._make and not path.exists():
            secret = make()
            write_private(path, self.keyring.seal(purpose, secret, aad=self._aad(name)))
            return secret
        _before_start(lambda: check_private(path))
        return self.keyring.open(purpose, path.read_bytes(), aad=self._aad(name))

    def replace_secret(self, name: str, purpose: Purpose, secret: bytes) -> None:
        """Put another secret in the place of `name`, atomically and durably."""
        path = self._sealed(name)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)  # of a replacement that was killed before it counted
        write_private(part, self.keyring.seal(purpose, secret, aad=self._aad(name)))
        part.replace(path)
        sync_directory(self.private)

    def _sealed(self, name: str) -> Path:
        return self.private / f"{name}.sealed"

    def _aad(self, name: str) -> bytes:
        return f"{self._trust_domain}/{name}".encode()

    def complete(self) -> None:
        """Say that everything has been made: from now on whatever is missing was taken away."""
        if self.first:
            write_private(self._complete, b"")
            self.first = False

    def publish(self, name: str, data: bytes) -> Path:
        """Write a public file atomically, mode 0644, and return its path."""
        path = self.path / name
        part = path.with_name(f".{name}.part")
        part.unlink(missing_ok=True)  # of a start that was killed; a link, if it is one, and not what it points to
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
        part.replace(path)
        return path

    def close(self) -> None:
        """Release the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _check_shared(path: Path) -> None:
    """Refuse a directory in which anybody could exchange `private` or the sockets.

    Raises:
        IdentityError: HBK-210.
    """
    found = path.stat()
    if found.st_uid not in {0, os.geteuid()}:
        raise IdentityError("HBK-210", "the directory belongs to another user", path=str(path), owner=found.st_uid)
    if found.st_mode & _WRITABLE:
        raise IdentityError("HBK-210", "open to others", path=str(path), mode=f"{stat.S_IMODE(found.st_mode):04o}")


def _before_start(check: Callable[[], None]) -> None:
    """Run a check of files and turn its refusal into one to start.

    Raises:
        IdentityError: HBK-210.
    """
    try:
        check()
    except ConfigError as error:
        raise IdentityError("HBK-210", error.detail, **error.context) from None
