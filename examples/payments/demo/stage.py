"""The stage: an authority, four services and a witness as real processes, set up with the commands a user types."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from examples.payments.demo.books import Books
from examples.payments.demo.proof import check, row_at
from hauberk.agent import connect
from hauberk.agent.remote import Remote
from hauberk.agent.state import Facts, admin, read_facts
from hauberk.authority.authority import Authority
from hauberk.core.clock import ManualClock
from hauberk.core.config import Config, load
from hauberk.core.spiffe import SpiffeId
from hauberk.core.wire import EntryForm, RevokeForm, TokenForm, TokenReply
from hauberk.crypto.x509 import WorkloadKey
from hauberk.errors import HauberkError
from hauberk.identity.jointoken import JoinToken
from hauberk.identity.registration import RegistrationEntry
from hauberk.records.ledger import Proof
from hauberk.runtime import Runtime

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
POLICIES = HERE.parent / "policies"
MESH = POLICIES / "mesh.yaml"
DOMAIN = "example.org"
ENTRIES = ("order-service", "payment-service", "evil-service", "storefront")
PATIENCE = 60.0  # seconds to wait for a process to be ready
EXPIRED = 7200.0  # seconds ago that the expired certificate was issued
_READ_ONLY = 0o755


class Wire:
    """A process of `examples.payments.intruder`: sends whatever bytes it is told to, under its identity."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ready(self) -> None:
        """Return once it has its identity.

        Raises:
            RuntimeError: it did not start.
        """
        said = self._process.stdout.readline() if self._process.stdout is not None else ""
        if said.strip() != '{"ready": true}':
            raise RuntimeError("an intruder did not start")

    def send(self, to: str, port: int, data: bytes, *, keep: str | None = None) -> dict[str, Any]:
        """Send bytes to a service and return `status`, `body`, `closed` and `error`."""
        command = {"to": to, "port": port, "data": base64.b64encode(data).decode(), "keep": keep}
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the intruder has no pipes")
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


class Stage:
    """Everything that runs. Use it as a context manager; afterwards nothing is left.

    Args:
        policies: what is in force.
        tell: told what has been started.
    """

    def __init__(self, *, policies: Path = MESH, tell: Callable[[str], None] = print) -> None:
        self._policies = policies
        self._tell = tell
        self.directory = Path(tempfile.mkdtemp(prefix="hauberk-demo-"))
        self.directory.chmod(_READ_ONLY)  # so that another user can knock at the workload socket
        self.state = self.directory / "state"
        (self.directory / "hauberk.toml").touch()  # instead of one that may lie where the demo is started
        # Without root every service would run as one user, whom the kernel cannot tell apart: join tokens can.
        self.kernel = sys.platform == "linux" and hasattr(os, "pidfd_open") and os.geteuid() == 0
        self._processes: list[subprocess.Popen[str]] = []
        self.orders, self.payments = free_port(), free_port()
        self.facts: Facts
        self.admin: Remote
        self.storefront: Runtime
        self.books: Books  # the event store of payment-service, and the witness of it
        self.evil: Wire
        self.replica: Wire  # a compromised replica of order-service
        self.early = self.directory  # a copy of the ledger before the traffic
        self.before = self.directory  # a copy of the event store from before a customer was erased
        self.secrets: list[bytes] = []  # what nobody may find after that
        self.expired: tuple[WorkloadKey, tuple[bytes, ...]]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # setting up

    def _start(self) -> None:
        self.expired = self._issue_in_the_past()
        watch = ("--dir", "witness", "--name", f"{DOMAIN}/witness", "--listen", "127.0.0.1:0", "--json")
        witness = self.spawn("witness", "serve", *watch, log="witness", piped=True)
        authority = self.spawn("up", "--dir", str(self.state), "--port", "0", log="authority")
        self.wait_for((self.state / "private" / "admin.sock").is_socket, "authority", authority)
        self.facts = read_facts(self.state)
        self.admin = admin(self.state)
        self.wait_for(self._answers, "authority", authority)
        how = "by the kernel" if self.kernel else "by single-use join tokens"
        self._tell(f"authority: up, with its keys and its ledger; services get their identities {how}")
        for name in ENTRIES:
            self.register(name)
        applied = self.policy("apply", str(self._policies))
        if applied.returncode:
            raise RuntimeError(f"the policies were not taken: {applied.stderr[-500:]}")
        self._tell(f"policies: {self._policies.name}, and whatever it does not allow is denied")
        self.books = self._open_books(witness)
        self._tell(f"witness: {self.books.witness['name']}, who has to sign the head of what payment-service remembers")
        self._tell("services: order-service, payment-service, storefront")
        self._tell("attackers: evil-service, and a stolen replica of order-service")
        witnesses = {"HAUBERK_RECORDS_WITNESSES": str(self.books.policy)}
        arguments = (self.payments, self.books.directory)
        pays = self.serve("payment-service", "examples.payments.payment_service", *arguments, environ=witnesses)
        orders = self.serve("order-service", "examples.payments.order_service", self.orders, self.payments)
        self.evil = Wire(self.serve("evil-service", "examples.payments.intruder", piped=True))
        self.replica = Wire(self.serve("order-service", "examples.payments.intruder", piped=True, log="replica"))
        self.wait_for(self.books.key.exists, "payment-service", pays)
        added = self.command("witness", "add", str(self.books.key), "--dir", "witness")
        if added.returncode:
            raise RuntimeError(f"the witness does not take the log: {added.stderr[-500:]}")
        self.storefront = self.join("storefront")
        self.wait_for(lambda: listens(self.payments), "payment-service", pays)
        self.wait_for(lambda: listens(self.orders), "order-service", orders)
        self.evil.ready()
        self.replica.ready()

    def _open_books(self, witness: "subprocess.Popen[str]") -> Books:
        """Wait for the witness, and make it one that payment-service has to have: `records.witnesses` is a file."""
        said = ""
        while not said.endswith("}\n"):
            line = witness.stdout.readline() if witness.stdout is not None else ""
            if not line:
                raise RuntimeError("the witness did not start")
            said += line
        facts = json.loads(said)
        policy = self.directory / "witnesses"
        policy.write_text(f"{facts['policy'][0]}\nquorum {facts['policy'][0].split()[1]}\n", "utf-8")
        return Books(self.directory / "events", policy, facts)

    def _answers(self) -> bool:
        try:
            self.admin.call("GET", "/admin/status")
        except HauberkError:
            return False
        return True

    def _issue_in_the_past(self) -> tuple[WorkloadKey, tuple[bytes, ...]]:
        """What the authority issued two hours ago for a minute: a certificate that was good once."""
        clock = ManualClock(time.time() - EXPIRED)
        authority = Authority(self.state, self.config, clock=clock)
        try:
            spiffe_id = SpiffeId.service(DOMAIN, "production", "order-service")
            entry = RegistrationEntry(name="order-service-old", spiffe_id=spiffe_id, ttl=60.0)
            authority.add_entry(entry, "uid:0")
            token = authority.token("order-service-old", "uid:0")
            key = WorkloadKey.generate()
            grant = authority.join(token.secret, key.request(spiffe_id))
            authority.remove_entry("order-service-old", "uid:0")
        finally:
            authority.close()
        return key, grant.chain

    @property
    def config(self) -> Config:
        """The settings of this process."""
        arguments = {"directory": str(self.state), "trust_domain": DOMAIN}
        return load(self.directory / "hauberk.toml", environ={}, arguments=arguments)

    def wait_for(self, condition: Callable[[], bool], name: str, process: "subprocess.Popen[str]") -> None:
        """Wait until `condition()` holds.

        Raises:
            RuntimeError: it does not, and what the process said last.
        """
        until = time.monotonic() + PATIENCE
        while not condition():
            if process.poll() is not None or time.monotonic() > until:
                said = (self.directory / f"{name}.log").read_text("utf-8")[-2000:]
                raise RuntimeError(f"{name} did not get ready\n{said}")
            time.sleep(0.02)

    def register(self, name: str) -> None:
        """Register a workload, by this process's user where the kernel can attest it."""
        selectors = (f"unix:uid:{os.getuid()}",) if self.kernel else ()
        form = EntryForm(name, "production", name, selectors, {"app": name})
        self.admin.call("POST", "/admin/entries", form)

    def token(self, name: str, ttl: float | None = None) -> str:
        """Return a join token."""
        return self.admin.ask("POST", "/admin/tokens", TokenReply, TokenForm(name, ttl)).token

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a child: this one, without anything of another Hauberk."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HAUBERK_")}
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **more}

    def spawn(
        self, *arguments: str, log: str, piped: bool = False, environ: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start `hauberk ARGUMENTS` and remember it."""
        with (self.directory / f"{log}.log").open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "hauberk", *arguments],
                cwd=self.directory,
                env=self.environment(**(environ or {})),
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else file,
                stderr=file,
                text=True,
            )
        self._processes.append(process)
        return process

    def serve(
        self,
        entry: str,
        module: str,
        *arguments: int | Path,
        piped: bool = False,
        log: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[str]":
        """Start a service under `hauberk run`, or with a join token where the kernel cannot attest."""
        program = [sys.executable, "-m", module, *map(str, arguments)]
        if self.kernel:
            command = ["run", "--dir", str(self.state), "--entry", entry, "--", *program]
            process = self.spawn(*command, log=log or entry, piped=piped, environ=environ)
        else:
            joining = {"HAUBERK_JOIN_TOKEN": self.token(entry), "HAUBERK_DIRECTORY": str(self.state), **(environ or {})}
            process = self._spawn_program(program, joining, log or entry, piped=piped)
        return process

    def _spawn_program(
        self, program: list[str], environ: Mapping[str, str], log: str, *, piped: bool
    ) -> "subprocess.Popen[str]":
        with (self.directory / f"{log}.log").open("w") as file:
            process = subprocess.Popen(
                program,
                cwd=self.directory,
                env=self.environment(**environ),
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else file,
                stderr=file,
                text=True,
            )
        self._processes.append(process)
        return process

    def join(self, entry: str) -> Runtime:
        """Give this process an identity."""
        environ = {"HAUBERK_IDENTITY_ENTRY": entry} if self.kernel else {"HAUBERK_JOIN_TOKEN": self.token(entry)}
        return connect(config=self.config, environ=environ)

    # what the commands do

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `hauberk ARGUMENTS` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "hauberk", *arguments],
            cwd=self.directory,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def policy(self, verb: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `hauberk policy VERB` against the authority."""
        return self.command("policy", verb, "--dir", str(self.state), *arguments)

    def serials(self, entry: str) -> set[str]:
        """Return the serials of the certificates of one service that are out there."""
        found = msgspec.json.decode(self.admin.call("GET", "/admin/svids"))
        return {one["serial"] for one in found if one["spiffe_id"].endswith(f"/sa/{entry}")}

    def revoke_serial(self, serial: str) -> None:
        """Revoke one certificate."""
        self.admin.call("POST", "/admin/revocations", RevokeForm(serials=(serial,)))

    # the record

    def ledger_size(self) -> int:
        """Return how many entries the ledger has."""
        size: int = msgspec.json.decode(self.admin.call("GET", "/admin/status"))["ledger"]["size"]
        return size

    def entries(self, after: int) -> list[dict[str, Any]]:
        """Return the entries above a position."""
        found: list[dict[str, Any]] = msgspec.json.decode(
            self.admin.call("GET", f"/admin/ledger?after={after}&limit=1000")
        )
        return found

    @property
    def database(self) -> Path:
        """The file of the ledger."""
        return self.state / "private" / "hauberk.db"

    def proof(self, position: int) -> Proof:
        """Fetch the proof of an entry."""
        return self.admin.ask("GET", f"/admin/ledger/{position}/proof", Proof)

    def proves(self, entry: dict[str, Any]) -> bool:
        """Tell whether the ledger holds this very entry, by its public key alone."""
        position, key = int(entry["position"]), self.facts.ledger_key
        try:
            check(self.proof(position), entry, row_at(self.database, key, position), key)
        except HauberkError:
            return False
        return True

    # the end

    def close(self) -> None:
        """Stop everything, wait for it, and remove the directory."""
        for process in reversed(self._processes):
            process.terminate()
        if hasattr(self, "storefront"):
            self.storefront.close()
        if hasattr(self, "admin"):
            self.admin.close()
        for process in reversed(self._processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def left(self) -> list[str]:
        """Return what is still there after `close`: processes and files."""
        running = [f"process {process.pid}" for process in self._processes if process.poll() is None]
        return running + ([str(self.directory)] if self.directory.exists() else [])


def replay(token: str) -> JoinToken:
    """Read a token's text."""
    return JoinToken.parse(token)


def free_port() -> int:
    """Return a port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Tell whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
