"""Key files and key variables: only what is this user's alone, and the right length."""

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hauberk.adapters.keys import (
    EnvironmentKeySource,
    FileKeySource,
    check_private,
    key_source,
    write_private,
)
from hauberk.errors import ConfigError

SECRET = bytes(range(32))


def refused(path: Path, *, directory: bool = False) -> str:
    with pytest.raises(ConfigError) as found:
        check_private(path, directory=directory)
    assert found.value.code == "HBK-905"
    return found.value.detail


def test_a_key_is_made_once_with_mode_0600_in_a_directory_of_mode_0700(tmp_path: Path) -> None:
    source = FileKeySource(tmp_path / "keys")
    key = source.key("root")
    assert len(key) == 32
    assert source.key("root") == FileKeySource(tmp_path / "keys", create=False).key("root") == key
    assert source.key("other") != key
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_a_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    source = FileKeySource(tmp_path / "keys")
    source.key("root")
    (tmp_path / "keys" / "root").chmod(mode)
    with pytest.raises(ConfigError) as found:
        source.key("root")
    assert (found.value.code, found.value.detail) == ("HBK-905", "open to others")


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711, 0o777])
def test_a_key_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    source = FileKeySource(tmp_path / "keys")
    source.key("root")
    (tmp_path / "keys").chmod(mode)
    with pytest.raises(ConfigError):
        source.key("root")


@pytest.mark.parametrize("data", [b"", b"short", bytes(31), bytes(33), bytes(64)])
def test_a_key_of_the_wrong_length_is_refused(tmp_path: Path, data: bytes) -> None:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    write_private(directory / "root", data)
    with pytest.raises(ConfigError) as found:
        FileKeySource(directory).key("root")
    assert found.value.code == "HBK-905"


def test_a_missing_key_is_not_made_again_once_things_depend_on_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        FileKeySource(tmp_path / "keys", create=False).key("root")
    assert found.value.code == "HBK-905"
    assert not (tmp_path / "keys").exists()


def test_a_link_in_place_of_a_key_is_refused_even_to_a_good_one(tmp_path: Path) -> None:
    good = FileKeySource(tmp_path / "good")
    good.key("root")
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / "root").symlink_to(tmp_path / "good" / "root")
    with pytest.raises(ConfigError):
        FileKeySource(tmp_path / "keys").key("root")
    (tmp_path / "linked").symlink_to(tmp_path / "good", target_is_directory=True)
    with pytest.raises(ConfigError):
        FileKeySource(tmp_path / "linked").key("root")


def test_what_is_missing_or_of_another_kind_is_not_private(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_private(file, b"x")
    check_private(file)
    assert refused(tmp_path / "nothing") == "missing"
    assert refused(file, directory=True) == "of another kind"
    assert refused(tmp_path) == "of another kind"
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert refused(tmp_path / "pipe") == "of another kind"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_somebody_else_owns_is_not_private(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_private(file, b"x")
    os.chown(file, 12345, -1)
    assert refused(file) == "owned by somebody else"


def test_writing_a_private_file_never_replaces_or_follows_what_is_there(tmp_path: Path) -> None:
    there = tmp_path / "there"
    write_private(there, b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for path in (there, tmp_path / "link"):
        with pytest.raises(ConfigError):
            write_private(path, b"new")
    assert there.read_bytes() == b"old"
    assert not (tmp_path / "target").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
    with pytest.raises(ConfigError):
        write_private(tmp_path / "no" / "folder", b"x")


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from hauberk.adapters import keys
os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
keys.write_private(Path(sys.argv[1]), b"secret")
"""


def test_a_process_killed_while_it_wrote_leaves_nothing_by_that_name_and_the_next_start_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "file"
    child = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False, timeout=30)
    assert child.returncode == -signal.SIGKILL
    assert not path.exists()
    write_private(path, b"secret")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_variable_holds_base64_of_32_bytes_and_nothing_else() -> None:
    environ = {
        "P_ROOT": base64.b64encode(SECRET).decode(),
        "P_LOG_KEY": base64.b64encode(SECRET[::-1]).decode(),
        "P_SHORT": base64.b64encode(SECRET[:31]).decode(),
        "P_LONG": base64.b64encode(SECRET + b"x").decode(),
        "P_JUNK": base64.b64encode(SECRET).decode() + "!",
        "P_URLSAFE": "-_" * 22,
        "P_WORDS": "schlüssel",
        "P_EMPTY": "",
    }
    source = EnvironmentKeySource("P", environ=environ)
    assert source.key("root") == SECRET
    assert source.key("log-key") == SECRET[::-1]
    for name in ("short", "long", "junk", "urlsafe", "words", "empty", "missing"):
        with pytest.raises(ConfigError) as found:
            source.key(name)
        assert found.value.code == "HBK-905"


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAUBERK_KEY_ROOT", base64.b64encode(SECRET).decode())
    assert EnvironmentKeySource().key("root") == SECRET


def test_no_source_shows_anything_of_a_key(tmp_path: Path) -> None:
    source = EnvironmentKeySource("P", environ={"P_ROOT": base64.b64encode(SECRET[:31]).decode()})
    with pytest.raises(ConfigError) as found:
        source.key("root")
    shown = f"{source!r} {FileKeySource(tmp_path)!r} {found.value!r} {found.value} {found.value.diagnostics()}"
    assert base64.b64encode(SECRET).decode()[:8] not in shown


@pytest.mark.parametrize("reference", ["file:", "env:", "vault:x", "file", "x", ":"])
def test_a_reference_names_a_directory_or_a_prefix(reference: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        key_source(reference, tmp_path)
    assert found.value.code == "HBK-901"


def test_a_good_reference_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE_ROOT", base64.b64encode(SECRET).decode())
    assert key_source("env:MINE", tmp_path).key("root") == SECRET
    made = key_source(f"file:{tmp_path}/elsewhere", tmp_path / "default").key("root")
    assert (tmp_path / "elsewhere" / "root").read_bytes() == made
    assert key_source("", tmp_path / "default").key("root") == (tmp_path / "default" / "root").read_bytes()
