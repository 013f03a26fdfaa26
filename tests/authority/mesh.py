"""An authority that serves in a thread of this process, on ports and sockets of its own."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from hauberk.agent import connect
from hauberk.agent.remote import Remote
from hauberk.agent.state import Facts, admin, read_facts
from hauberk.authority.authority import Authority
from hauberk.authority.serve import run
from hauberk.core.clock import SystemClock
from hauberk.core.config import Config, load
from hauberk.core.wire import EntryForm, PolicyFile, PolicyForm, RevokeForm, TokenForm, TokenReply
from hauberk.integrations.uvicorn import new_loop
from hauberk.runtime import Runtime

DOMAIN = "example.org"
PATIENCE = 20.0
ALLOW = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: front-to-shop, namespace: production}
spec:
  selector: {matchLabels: {app: shop}}
  rules:
  - from: [{source: {principals: [example.org/ns/production/sa/front]}}]
    to: [{operation: {methods: [GET], paths: [PATH]}}]
"""


class LeapingClock(SystemClock):
    """The machine's clock, ahead by as much as a test says."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead

    def time_ns(self) -> int:
        return super().time_ns() + int(self.ahead * 1e9)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class Mesh:
    """Use it as a context manager; `restart` closes the authority and opens it again on the same directory."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.path = path / "state"
        self.clock = LeapingClock()
        self._arguments = {"authority.port": 0, "trust_domain": DOMAIN, "directory": str(self.path), **settings}
        self.authority: Authority
        self.facts: Facts
        self.admin: Remote
        self._runtimes: list[Runtime] = []
        self._joined = 0
        self._closing: list[threading.Thread] = []

    def config(self, **more: object) -> Config:
        return load(environ={}, arguments={**self._arguments, **more})

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        self.authority = Authority(self.path, self.config(), clock=self.clock)
        ready = threading.Event()
        self._loop = new_loop()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None

        def serve() -> None:
            try:
                self._loop.run_until_complete(run(self.authority, lambda _facts: ready.set(), self._stop))
                self._loop.run_until_complete(self._loop.shutdown_default_executor())
            except BaseException as error:
                self._failure = error
                ready.set()
                raise
            finally:
                self._loop.close()

        self._thread = threading.Thread(target=serve, name="authority")
        self._thread.start()
        assert ready.wait(PATIENCE)
        if self._failure is not None:
            raise self._failure
        self.facts = read_facts(self.path)
        self.admin = admin(self.path)

    def stop(self) -> None:
        self.admin.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        self.authority.close()

    def __exit__(self, *_: object) -> None:
        self.leave_all()
        for thread in self._closing:
            thread.join(PATIENCE)
        self.stop()

    def restart(self) -> None:
        self.stop()
        self._arguments["authority.port"] = int(self.facts.address.rpartition(":")[2])
        self.start()

    def register(self, name: str, *, namespace: str = "production", **more: Any) -> None:  # noqa: ANN401  # fields of EntryForm
        fields = {"selectors": (f"unix:uid:{os.getuid()}",), "labels": {"app": name}, **more}
        self.admin.call("POST", "/admin/entries", EntryForm(name, namespace, name, **fields))

    def token(self, name: str, ttl: float | None = None) -> str:
        return self.admin.ask("POST", "/admin/tokens", TokenReply, TokenForm(name, ttl)).token

    def join(self, name: str) -> Runtime:
        self._joined += 1
        config = self.config(**{"records.spool": str(self.path.parent / f"spool-{self._joined}")})
        runtime = connect(config=config, environ={"HAUBERK_JOIN_TOKEN": self.token(name)})
        self._runtimes.append(runtime)
        return runtime

    def leave(self, runtime: Runtime) -> None:
        self._runtimes.remove(runtime)
        runtime.close()

    def leave_all(self) -> None:
        """Close what joined, without waiting: a poll under way takes up to a second to end."""
        for runtime in self._runtimes:
            self._closing.append(threading.Thread(target=runtime.close))
            self._closing[-1].start()
        self._runtimes.clear()

    def apply(self, text: str, **more: bool) -> Any:  # noqa: ANN401  # JSON
        form = PolicyForm((PolicyFile("test", text),), **more)
        return msgspec.json.decode(self.admin.call("POST", "/admin/policies", form))

    def allow(self, path: str) -> Any:  # noqa: ANN401  # JSON
        return self.apply(ALLOW.replace("PATH", path))

    def revoke(self, *ids: str, serials: tuple[str, ...] = (), restore: bool = False) -> None:
        self.admin.call("POST", "/admin/revocations", RevokeForm(ids, serials, restore))

    def rotate(self, step: str, *, force: bool = False) -> Any:  # noqa: ANN401  # JSON
        answer = self.admin.call("POST", "/admin/roots", {"step": step, "force": force})
        return msgspec.json.decode(answer)

    def get(self, path: str) -> Any:  # noqa: ANN401  # JSON
        return msgspec.json.decode(self.admin.call("GET", path))

    def events(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(f"/admin/ledger?type={kind}&limit=1000")
        return found


def wait_for(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Poll with a deadline."""
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, "it never came to pass"
        time.sleep(0.005)
