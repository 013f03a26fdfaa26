"""A log's key as people give it: the text itself, or a file that holds it."""

import re
from pathlib import Path

from hauberk.errors import RecordsError

_KEY = re.compile(r"[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+")  # c2sp.org/signed-note; no path looks like that


def key_text(given: str) -> str:
    """Return the text of a verifier key.

    Raises:
        RecordsError: HBK-711 it is neither a key nor a file that can be read.
    """
    if _KEY.fullmatch(given.strip()):
        return given.strip()
    try:
        return Path(given).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise RecordsError("HBK-711", "neither a key nor a file that holds one") from None
