"""Policies from files and directories of files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hauberk.errors import PolicyError
from hauberk.policy.model import Document
from hauberk.policy.parse import parse_documents

_YAML = frozenset({".yaml", ".yml"})


def parse_files(policies: str | Path | Iterable[str | Path]) -> Sequence[Document]:
    """Return the documents of YAML files; of a directory, those of its files in the order of their names.

    Raises:
        PolicyError: HBK-301 a file is not there, cannot be read, or is no policy.
    """
    names = (policies,) if isinstance(policies, str | Path) else policies
    files = _files(Path(name) for name in names)
    return [document for path in files for document in parse_documents(_text(path), file=str(path))]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError("HBK-301", f"cannot be read: {error}", file=str(path)) from None


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        found.extend(sorted(it for it in path.iterdir() if it.suffix in _YAML) if path.is_dir() else [path])
    for path in found:
        if not path.is_file():
            raise PolicyError("HBK-301", "no such file", file=str(path))
    return found
