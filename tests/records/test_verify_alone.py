"""The verifier can be handed to an auditor alone: importing and using it loads neither a store nor a network."""

import subprocess
import sys

import pytest

FOREIGN = ("sqlite3", "psycopg", "socket", "ssl", "http", "asyncio", "click", "httpx2", "hauberk.adapters")
LOADED = (
    "import sys; found = [name for name in sys.modules if name.split('.')[0] in FOREIGN or name.startswith(ADAPTERS)];"
    "sys.exit(' '.join(found))"
)


def loaded(code: str) -> str:
    """Return which foreign modules a fresh interpreter has after some code."""
    names = {name for name in FOREIGN if "." not in name}
    program = f"{code}\nFOREIGN = {names!r}\nADAPTERS = 'hauberk.adapters'\n{LOADED}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    return done.stderr.strip()


@pytest.mark.parametrize("module", ["hauberk.records.verify", "hauberk.records.verify.tiles"])
def test_importing_the_verifier_loads_neither_a_store_nor_a_network(module: str) -> None:
    assert loaded(f"import {module}") == ""


def test_the_check_would_notice() -> None:
    assert "hauberk.adapters.sqlite" in loaded("import hauberk.adapters.sqlite")
    assert "socket" in loaded("import socket")


def test_a_log_without_statements_is_verified_without_either() -> None:
    code = """
from hauberk.core.ports import Head
from hauberk.crypto.note import encode_key
from hauberk.crypto.signing import SigningKey
from hauberk.errors import Tampered
from hauberk.records.verify import verify_store
class Nothing:
    def head(self, log): return Head()
    def get(self, space, key): return None
    def entries(self, log, **named): return iter(())
    def stream(self, log, name, **named): return iter(())
try:
    verify_store(Nothing(), encode_key("example.org/ledger", SigningKey.generate().public))
except Tampered as found:
    assert found.context["kind"] == "deleted"
else:
    raise SystemExit("nothing was found")
"""
    assert loaded(code) == ""
