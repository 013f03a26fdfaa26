"""Finding the authority of this machine: what `hauberk up` left in the state directory."""

from pathlib import Path

import msgspec

from hauberk.agent.remote import Remote
from hauberk.errors import ConfigError


class Facts(msgspec.Struct, frozen=True):
    """The public facts in `authority.json`.

    Args:
        trust_domain: such as `example.org`.
        address: `HOST:PORT` of the TLS listener.
        root: SHA-256 of the root certificate, hex.
        workload_socket: path.
        ledger: path of the database.
        ledger_key: verifier key of the ledger.
        tiles: `HOST:PORT` where anybody may check the log, empty when nobody may.
    """

    trust_domain: str
    address: str
    root: str
    workload_socket: str
    ledger: str
    ledger_key: str
    tiles: str = ""


def read_facts(directory: Path) -> Facts:
    """Return the facts of the authority that runs, or ran, on this directory.

    Raises:
        ConfigError: HBK-902 there has never been one.
    """
    try:
        return msgspec.json.decode((directory / "authority.json").read_bytes(), type=Facts)
    except (OSError, msgspec.DecodeError):
        raise ConfigError("HBK-902", "no authority has run here", directory=str(directory)) from None


def admin(directory: Path) -> Remote:
    """Return the administrator's line to the authority.

    Raises:
        ConfigError: HBK-902 it is not there, or not for us.
    """
    path = directory / "private" / "admin.sock"
    try:
        present = path.is_socket()
    except PermissionError:
        raise ConfigError("HBK-902", "only the user who runs the authority may administer it") from None
    if not present:
        raise ConfigError("HBK-902", "no authority is running here", directory=str(directory))
    return Remote.over_socket(path)
