"""A small mesh for benches: an authority as a real process, and identities in this one."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from hauberk.agent import connect
from hauberk.agent.remote import Remote
from hauberk.agent.state import admin
from hauberk.core.config import load
from hauberk.core.wire import EntryForm, PolicyFile, PolicyForm
from hauberk.errors import HauberkError
from hauberk.runtime import Runtime

ROOT = Path(__file__).resolve().parent.parent
POLICY = ROOT / "examples" / "payments" / "policies" / "mesh.yaml"
ENTRIES = ("order-service", "payment-service", "storefront")
PATIENCE = 10.0


class Mesh:
    """An authority with the services of the example registered and its policies in force."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hauberk-bench-"))
        self.state = self.directory / "state"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.admin: Remote

    def __enter__(self) -> Self:
        self.spawn(sys.executable, "-m", "hauberk", "up", "--dir", str(self.state), "--port", "0")
        until = time.monotonic() + PATIENCE
        while not self._ready():
            if time.monotonic() > until:
                raise RuntimeError("the authority did not start")
            time.sleep(0.02)
        for name in ENTRIES:
            form = EntryForm(name, "production", name, (f"unix:uid:{os.getuid()}",), {"app": name})
            self.admin.call("POST", "/admin/entries", form)
        self.apply(POLICY.read_text("utf-8"))
        return self

    def _ready(self) -> bool:
        try:
            self.admin = admin(self.state)
            self.admin.call("GET", "/admin/status")
        except HauberkError:
            return False
        return True

    def apply(self, text: str) -> None:
        """Push policies."""
        self.admin.call("POST", "/admin/policies", PolicyForm((PolicyFile("bench", text),)))

    def environment(self) -> dict[str, str]:
        """The environment of children."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HAUBERK_")}
        return {**kept, "PYTHONPATH": str(ROOT), "HAUBERK_DIRECTORY": str(self.state)}

    def spawn(self, *command: str) -> "subprocess.Popen[bytes]":
        """Start a process that ends with the mesh."""
        process = subprocess.Popen(
            command, cwd=self.directory, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._processes.append(process)
        return process

    def join(self, entry: str) -> Runtime:
        """Give this process an identity."""
        config = load(environ={}, arguments={"directory": str(self.state)})
        return connect(config=config, environ={"HAUBERK_IDENTITY_ENTRY": entry})

    def __exit__(self, *_: object) -> None:
        self.admin.close()
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()
