"""Key sources: a directory of key files, or environment variables."""

import os
import stat
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from pathlib import Path

from hauberk.core.ports import KeySource
from hauberk.errors import ConfigError

KEY_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_private(path: Path, *, directory: bool = False) -> None:
    """Return if `path` belongs to this process's user alone.

    Raises:
        ConfigError: HBK-905 missing, of another owner, open to others, or not of that kind.
    """
    try:
        found = path.lstat()
    except OSError:
        raise ConfigError("HBK-905", "missing", path=str(path)) from None
    if not (stat.S_ISDIR(found.st_mode) if directory else stat.S_ISREG(found.st_mode)):
        raise ConfigError("HBK-905", "of another kind", path=str(path))
    if found.st_uid != os.geteuid():
        raise ConfigError("HBK-905", "owned by somebody else", path=str(path))
    if found.st_mode & _OTHERS:
        raise ConfigError("HBK-905", "open to others", path=str(path), mode=f"{stat.S_IMODE(found.st_mode):04o}")


def write_private(path: Path, data: bytes) -> None:
    """Write a new file, mode 0600, durable when this returns; killed before, it leaves all of the file or nothing.

    Raises:
        ConfigError: HBK-905 it exists already, or cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)  # of a start that was killed
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        try:
            os.link(part, path, follow_symlinks=False)  # unlike a rename, never replaces what is there
        finally:
            part.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigError("HBK-905", f"cannot be made: {error.strerror}", path=str(path)) from None


def sync_directory(path: Path) -> None:
    """A new file is durable only once its name is."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FileKeySource:
    """Key files of 32 random bytes in a directory that is this user's alone. Implements `core.ports.KeySource`.

    Args:
        directory: made with mode 0700 when absent.
        create: make a missing key; False once the things it protects exist.
    """

    def __init__(self, directory: Path, *, create: bool = True) -> None:
        self._directory = directory
        self._create = create

    def key(self, name: str) -> bytes:
        """Return the 32 bytes of the file `name`.

        Raises:
            ConfigError: HBK-905.
        """
        path = self._directory / name
        if self._create and not path.exists():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, os.urandom(KEY_BYTES))
        check_private(self._directory, directory=True)
        check_private(path)
        data = path.read_bytes()
        if len(data) != KEY_BYTES:
            raise ConfigError("HBK-905", "a key has 32 bytes", path=str(path))
        return data

    def __repr__(self) -> str:
        return "FileKeySource()"


class EnvironmentKeySource:
    """Keys in variables `PREFIX_NAME`, base64 of 32 bytes. Implements `core.ports.KeySource`.

    Args:
        prefix: such as `HAUBERK_KEY`.
        environ: default the process environment.
    """

    def __init__(self, prefix: str = "HAUBERK_KEY", *, environ: Mapping[str, str] | None = None) -> None:
        self._prefix = prefix
        self._environ = os.environ if environ is None else environ

    def key(self, name: str) -> bytes:
        """Return the 32 bytes of the variable.

        Raises:
            ConfigError: HBK-905.
        """
        variable = f"{self._prefix}_{name.upper().replace('-', '_')}"
        try:
            data = b64decode(self._environ[variable], validate=True)
        except (KeyError, Base64Error, ValueError):
            raise ConfigError("HBK-905", "missing or not base64", variable=variable) from None
        if len(data) != KEY_BYTES:
            raise ConfigError("HBK-905", "a key has 32 bytes", variable=variable)
        return data

    def __repr__(self) -> str:
        return "EnvironmentKeySource()"


def key_source(reference: str, default: Path, *, create: bool = True) -> KeySource:
    """Return the source that a setting names: `file:DIRECTORY`, `env:PREFIX`, or empty for `default`.

    Raises:
        ConfigError: HBK-901 neither.
    """
    kind, colon, rest = reference.partition(":")
    if not reference:
        return FileKeySource(default, create=create)
    if colon and rest and kind == "file":
        return FileKeySource(Path(rest), create=create)
    if colon and rest and kind == "env":
        return EnvironmentKeySource(rest)
    raise ConfigError("HBK-901", "a key source is file:DIRECTORY or env:PREFIX", key="authority.keys")
