"""The state directory: it starts once, resumes always, and refuses whatever looks taken away or exposed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hauberk.adapters.sqlite import SqliteStore
from hauberk.adapters.state import StateDirectory
from hauberk.crypto.keyring import Purpose
from hauberk.errors import ConfigError, HauberkError, IdentityError

DOMAIN = "example.org"
PATIENCE = 30


def start(path: Path, domain: str = DOMAIN, *, complete: bool = True) -> bytes:
    """One start of a program on a state directory: returns its secret."""
    state = StateDirectory(path, domain)
    try:
        secret = state.secret("log", Purpose.LOG_KEY, lambda: b"made on the first start")
        SqliteStore(state.database).close()
        state.publish("log.pub", b"public")
        if complete:
            state.complete()
        return secret
    finally:
        state.close()


def refusal(path: Path, domain: str = DOMAIN) -> str:
    with pytest.raises(HauberkError) as found:
        start(path, domain)
    return found.value.code


def test_the_first_start_makes_everything_and_the_next_ones_resume(tmp_path: Path) -> None:
    path = tmp_path / "state"
    secret = start(path)
    key = (path / "private" / "keys" / "root").read_bytes()
    assert start(path) == start(path) == secret
    assert (path / "private" / "keys" / "root").read_bytes() == key
    assert path.stat().st_mode & 0o777 == 0o755
    assert (path / "log.pub").stat().st_mode & 0o777 == 0o644
    for one in [path / "private", *(path / "private").rglob("*")]:
        assert one.stat().st_mode & 0o077 == 0, one


def test_a_secret_is_on_disk_only_in_sealed_form(tmp_path: Path) -> None:
    secret = start(tmp_path / "state")
    for file in (tmp_path / "state").rglob("*"):
        assert file.is_dir() or secret not in file.read_bytes(), file


@pytest.mark.parametrize("gone", ["private/log.sealed", "private/keys/root", "private/hauberk.db", "private"])
def test_what_is_missing_afterwards_is_an_error_and_never_made_again(tmp_path: Path, gone: str) -> None:
    path = tmp_path / "state"
    start(path)
    (path / gone).rename(tmp_path / "taken away")
    assert refusal(path) in {"HBK-210", "HBK-905"}
    assert not (path / gone).exists()
    (tmp_path / "taken away").rename(path / gone)
    start(path)


def test_an_emptied_private_directory_is_no_first_start(tmp_path: Path) -> None:
    path = tmp_path / "state"
    start(path)
    (path / "private").rename(tmp_path / "taken away")
    (path / "private").mkdir(mode=0o700)
    assert refusal(path) in {"HBK-210", "HBK-905"}
    assert not list((path / "private").glob("*.sealed"))


def test_a_start_that_was_killed_before_it_was_complete_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "state"
    secret = start(path, complete=False)
    assert start(path) == secret


@pytest.mark.parametrize(
    "what", ["private", "private/log.sealed", "private/keys", "private/keys/root", "private/hauberk.db"]
)
@pytest.mark.parametrize("more", [0o040, 0o004, 0o020])
def test_what_others_could_touch_is_refused(tmp_path: Path, what: str, more: int) -> None:
    path = tmp_path / "state"
    start(path)
    mode = (path / what).stat().st_mode & 0o777
    (path / what).chmod(mode | more)
    assert refusal(path) in {"HBK-210", "HBK-905"}
    (path / what).chmod(mode)
    start(path)


def test_a_directory_in_which_anybody_could_exchange_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(0o777)
    assert refusal(path) == "HBK-210"
    with pytest.MonkeyPatch.context() as without:
        without.setattr("hauberk.adapters.state._check_shared", lambda _path: None)
        start(path)  # the twin: secrets are made where anybody can put a directory of his own in their place
    assert refusal(path) == "HBK-210"
    path.chmod(0o755)
    start(path)


@pytest.mark.parametrize("what", ["private", "private/log.sealed", "private/hauberk.db"])
def test_a_link_in_place_of_what_is_private_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state"
    start(path)
    (path / what).rename(tmp_path / "moved")
    (path / what).symlink_to(tmp_path / "moved")
    assert refusal(path) in {"HBK-210", "HBK-905"}


def test_secrets_of_another_trust_domain_do_not_open(tmp_path: Path) -> None:
    path = tmp_path / "state"
    start(path)
    assert refusal(path, "evil.example") == "HBK-904"


def test_secrets_under_another_key_or_another_name_do_not_open(tmp_path: Path) -> None:
    path, other = tmp_path / "state", tmp_path / "other"
    start(path)
    start(other)
    sealed = path / "private" / "log.sealed"
    kept = sealed.read_bytes()
    sealed.write_bytes((other / "private" / "log.sealed").read_bytes())
    assert refusal(path) == "HBK-904"
    sealed.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert refusal(path) == "HBK-904"
    sealed.write_bytes(b"")
    assert refusal(path) == "HBK-904"
    sealed.write_bytes(kept)
    (path / "private" / "feed.sealed").write_bytes(kept)
    (path / "private" / "feed.sealed").chmod(0o600)
    state = StateDirectory(path, DOMAIN)
    with pytest.raises(ConfigError):
        state.secret("feed", Purpose.LOG_KEY, lambda: b"never")
    with pytest.raises(ConfigError):
        state.secret("log", Purpose.CA_KEY, lambda: b"never")
    state.close()


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "state"
    start(path)
    hold = (
        "import sys; from pathlib import Path; from hauberk.adapters.state import StateDirectory;"
        "state = StateDirectory(Path(sys.argv[1]), 'example.org'); print('held', flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ConfigError) as found:
            StateDirectory(path, DOMAIN)
        assert found.value.code == "HBK-906"
        first.kill()
        first.wait(PATIENCE)
    start(path)


def test_a_refused_start_lets_go_of_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "state"
    start(path)
    database = path / "private" / "hauberk.db"
    database.chmod(0o644)
    assert refusal(path) == "HBK-210"
    database.chmod(0o600)
    start(path)


def test_publishing_replaces_atomically_and_for_all_to_read(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state", DOMAIN)
    first = state.publish("root.pem", b"one")
    with first.open("rb") as reader:
        state.publish("root.pem", b"two")
        assert reader.read() == b"one"
    assert first.read_bytes() == b"two"
    assert first.stat().st_mode & 0o777 == 0o644
    state.close()
    state.close()


def test_the_two_kinds_of_refusal_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "state"
    start(path)
    (path / "private" / "log.sealed").chmod(0o644)
    with pytest.raises(IdentityError) as found:
        start(path)
    assert found.value.code == "HBK-210"
    assert found.value.context["path"] == str(path / "private" / "log.sealed")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused_and_nothing_is_written_through_his_link(tmp_path: Path) -> None:
    path, victim = tmp_path / "state", tmp_path / "victim"
    path.mkdir(mode=0o755)
    victim.write_text("precious")
    (path / ".log.pub.part").symlink_to(victim)
    os.chown(path, 1234, 1234)
    assert refusal(path) == "HBK-210"
    os.chown(path, 0, 0)  # even in a directory of ours a link left there is not followed
    start(path)
    assert victim.read_text() == "precious"
    assert (path / "log.pub").read_bytes() == b"public"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_directory_a_group_or_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    start(tmp_path / "state")
    (tmp_path / "state").chmod(mode)
    assert refusal(tmp_path / "state") == "HBK-210"


def test_a_place_where_no_directory_can_be_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as found:
        StateDirectory(tmp_path / "file", DOMAIN)
    assert found.value.code == "HBK-901"
