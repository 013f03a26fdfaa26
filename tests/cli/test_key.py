"""A key is a text or a file, and which of the two is never in doubt."""

from pathlib import Path

import pytest

from hauberk.cli._key import key_text
from hauberk.errors import RecordsError

KEY = "example.org/ledger+33d7b496+AeHZzLDO1dJQH1bZy5k8b1MtQdmGr1KbPfHgX1x9J6Zd"


def test_a_key_is_itself_whatever_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planted = tmp_path / KEY
    planted.parent.mkdir()
    planted.write_text("somebody else's")
    assert key_text(f" {KEY}\n") == KEY


def test_a_file_may_have_a_plus_in_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a+b" / "log+1.pub"
    path.parent.mkdir()
    path.write_text(f"{KEY}\n")
    assert key_text(str(path)) == KEY


@pytest.mark.parametrize("text", ["", "no key", "a+b", "name+XYZ+key", "."])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RecordsError, match="HBK-711"):
        key_text(text)
