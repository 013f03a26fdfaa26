"""The runtime: the one place where the planes meet. It holds what is in force right now and runs the guards.

Guards run in this order; `Runtime.guards` is the list:

```
connection identity   revoked, closing, or anonymous where mutual TLS is STRICT      transport, identity
canonical request     framing, sizes, path; forwarding headers of strangers go       edge
policy                AuthorizationPolicy, deny by default                           policy
```

What is in force (policies, revocations, the identity) is exchanged as whole objects while requests run: a request sees
one moment or another, never a mixture.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from hauberk.adapters.engine import embedded
from hauberk.adapters.state import StateDirectory
from hauberk.core.call import Call, Workload
from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.config import Config, load
from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.event import Event, Receipt
from hauberk.core.ids import uuid7
from hauberk.core.inbound import Inbound
from hauberk.core.limits import Limits
from hauberk.core.ports import Guard, Recorder
from hauberk.core.principal import Principal
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.keyring import Pseudonyms
from hauberk.edge.guard import CanonicalRequest
from hauberk.errors import ConfigError, IdentityError, PolicyError, explained
from hauberk.identity.naming import resolve
from hauberk.identity.revocation import NO_REVOCATIONS, Revocations
from hauberk.policy.engine import Engine
from hauberk.policy.files import parse_files
from hauberk.policy.set import PolicySet
from hauberk.recording import Recording
from hauberk.records.epochs import PseudonymEpochs
from hauberk.records.fold import Folder
from hauberk.records.requests import MAX_PATH, AllowedDraft, denied, failed
from hauberk.transport.connection import Connections
from hauberk.transport.contexts import RotatingContext, client_context
from hauberk.transport.guard import ConnectionIdentity

if TYPE_CHECKING:
    from hauberk.crypto.x509 import SvidInfo
    from hauberk.identity.source import SvidSource
    from hauberk.records.audit import AuditLog
    from hauberk.records.store import EventStore

_ALLOWED = Decision(Verdict.ALLOW, Layer.EDGE)
_REVOKED = Decision(Verdict.DENY, Layer.IDENTITY, "HBK-206", reason="the caller's identity is revoked")


class _PolicyGuard:
    """May they: the engine in force."""

    name = "policy"
    layer = Layer.POLICY

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def check(self, inbound: Inbound) -> Decision | None:
        """Decide the call the canonical guard made."""
        if inbound.call is None:
            return Decision(Verdict.DENY, Layer.POLICY, "HBK-300", reason="there is no canonical call to decide")
        return self.engine.decide(inbound.call)


class Violation(Protocol):
    """What a server reports about bytes that never became a request; see `integrations.uvicorn_protocol`."""

    @property
    def incident(self) -> str:
        """What the caller was told."""

    @property
    def peer(self) -> Principal:
        """Who sent them."""

    @property
    def address(self) -> str:
        """From where; empty on a Unix socket."""


class Runtime:
    """What protects one service. Make one with `Runtime.embedded()` or `hauberk.connect()`; close it at the end.

    Args:
        config: settings.
        workload: who this service is.
        policies: what is in force at first.
        recorder: where events go; closed with the runtime.
        pseudonyms: how addresses and user ids appear in the record.
        source: the service's identity, or None without mutual TLS.
        revision: number of the policies, 0 when local.
        on_close: called at the end of `close`.
        recording: the ledger of this process, when it has one.
        record_allows: record what was let through too, not only what was refused.
        clock: time source.
    """

    def __init__(
        self,
        *,
        config: Config,
        workload: Workload,
        policies: PolicySet,
        recorder: Recorder,
        pseudonyms: Pseudonyms,
        source: "SvidSource | None" = None,
        revision: int = 0,
        on_close: Sequence[Callable[[], None]] = (),
        recording: Recording | None = None,
        record_allows: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.config = config
        self.workload = workload
        self.recorder = recorder
        self.pseudonyms = pseudonyms
        self.source = source
        self.connections = Connections(clock=clock)
        self.stream = f"/services/{workload.namespace}/{workload.account}"
        self._clock = clock
        self._on_close = list(on_close)
        self._recording = recording
        self._stores: list[tuple[EventStore, Callable[[], None]]] = []  # and what to close after each
        self._more_status: list[Callable[[], Mapping[str, object]]] = []
        self._record_allows = record_allows
        self._lock = threading.Lock()  # guards exchanges of the engine, _revocations and moment
        self._closed = False
        self._policy = _PolicyGuard(Engine(policies, workload, revision=revision))
        self.moment = object()  # another one whenever something else is in force: policies, revocations
        self._policies_at = clock.time()
        self._revocations = NO_REVOCATIONS
        self.last_error = ""  # of the last push that was refused
        self.guards: tuple[Guard, ...] = (
            ConnectionIdentity(self._mtls_mode, self._revoked),
            CanonicalRequest(workload, config.limits, frozenset(config.edge.trusted_hops)),
            self._policy,
        )

    @classmethod
    @explained()
    def embedded(
        cls,
        directory: str | Path | None = None,
        *,
        policies: str | Path | Iterable[str | Path] | None = None,
        config: Config | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> "Runtime":
        """Return a runtime that needs nothing else: policies from files, the ledger in one SQLite file.

        Args:
            directory: state directory; default from the configuration, `.hauberk`.
            policies: YAML files or directories of them; default from the configuration. None at all denies everything.
            config: settings; default `hauberk.toml` and the environment.
            clock: time source.

        Raises:
            PolicyError: HBK-301 a policy is not valid.
            ConfigError: HBK-901 a setting is not valid, HBK-906 another process uses the directory.
            IdentityError: HBK-210 files are missing or open to others.
            Tampered: HBK-710 the stored ledger does not fit its checkpoint.
        """
        config = load() if config is None else config
        documents = parse_files(config.policy.files if policies is None else policies)
        chosen = PolicySet.default(
            root_namespace=config.policy.root_namespace,
            trust_domain=config.trust_domain,
            aliases=config.policy.aliases,
        ).with_documents(documents)
        with ExitStack() as taken:  # a start that fails gives back what it took
            path = Path(directory or config.directory)
            state = StateDirectory(path, config.trust_domain, keys=config.authority.keys, database=embedded(config))
            taken.callback(state.close)
            recording = Recording(state, config, clock=clock)
            taken.callback(recording.close)
            state.complete()
            service = config.service
            runtime = cls(
                config=config,
                workload=Workload(service.namespace, service.account, service.labels),
                policies=chosen,
                recorder=Folder(recording.ledger, rate=config.records.fold_rate, clock=clock),
                pseudonyms=PseudonymEpochs(recording.store, state.keyring).latest(),
                recording=recording,
                on_close=(recording.close, state.close),
                clock=clock,
            )
            taken.pop_all()
        return runtime

    # decisions

    @property
    def engine(self) -> Engine:
        """The policies in force, compiled for this service."""
        return self._policy.engine

    @property
    def limits(self) -> Limits:
        """How much a caller may send."""
        return self.config.limits

    @property
    def max_age(self) -> float:
        """Seconds after which a connection ends."""
        return self.config.transport.max_connection_seconds

    def decide(self, call: Call) -> Decision:
        """Ask what is in force about any call, HTTP or not; nobody who is revoked may do anything."""
        revoked = self._revoked()
        if revoked is not None and any(
            revoked.covers(one.id, str(one.proof.detail.get("serial", "")))
            for one in (call.peer, *call.peer.via, *call.user.via)
        ):
            return _REVOKED
        return self._policy.engine.decide(call)

    def check(self, inbound: Inbound) -> Decision:
        """Run the guards over a request; the first refusal ends it."""
        answer = _ALLOWED
        for guard in self.guards:
            decision = guard.check(inbound)
            if decision is not None:
                if decision.verdict is not Verdict.ALLOW:
                    return decision
                answer = decision
        return answer

    def _mtls_mode(self, port: int) -> str:
        return self._policy.engine.mtls_mode(port) if self.source is not None else "DISABLE"

    def _revoked(self) -> Revocations | None:
        return None if self._revocations is NO_REVOCATIONS else self._revocations

    # what is in force

    def apply_policies(self, policies: PolicySet, revision: int = 0) -> None:
        """Put other policies in force, for open connections too; on any error the old ones stay.

        Raises:
            PolicyError: HBK-304 `revision` is lower than the one in force.
        """
        engine = Engine(policies, self.workload, revision=revision)
        with self._lock:
            if revision < self.engine.revision:
                raise PolicyError("HBK-304", "older", offered=revision, in_force=self.engine.revision)
            self._policy.engine = engine
            self.moment = object()
            self._policies_at = self._clock.time()
            self.last_error = ""

    @property
    def revocations(self) -> Revocations:
        """What is revoked."""
        return self._revocations

    def revoke(self, revocations: Revocations) -> int:
        """Exchange the list, close the open connections of whoever is on it, and return how many those were."""
        with self._lock:
            self._revocations = revocations if revocations.ids or revocations.serials else NO_REVOCATIONS
            self.moment = object()
        return self.connections.close_revoked(revocations.serials, revocations.ids)

    def admit(self, peer: "SvidInfo") -> None:
        """Refuse a revoked peer at the handshake.

        Raises:
            IdentityError: HBK-206.
        """
        self._revocations.refuse(str(peer.spiffe_id), peer.serial)

    def client_context(self, to: str | SpiffeId) -> RotatingContext:
        """Return a TLS context that presents our SVID and talks to `to` and nobody else.

        Args:
            to: `payment-service`, `namespace/payment-service` or a SPIFFE id.

        Raises:
            IdentityError: HBK-211 this runtime has no identity, HBK-201 no service name.
        """
        if self.source is None:
            raise IdentityError("HBK-211", "an embedded runtime has no identity of a mesh")
        callee = resolve(to, self.source.spiffe_id)
        return client_context(self.source, callee, admit=self.admit, clock=self._clock)

    # the record

    def event(self, kind: str, outcome: str = "", **fields: object) -> Event:
        """Return an event of this service's stream with id and time filled in; `fields` are those of `Event`."""
        now = self._clock.time_ns()
        base = Event(id=uuid7(now_ns=now), type=kind, stream=self.stream, time_ns=now, outcome=outcome)
        return msgspec.structs.replace(base, **fields) if fields else base

    def record_denial(self, inbound: Inbound, decision: Decision, incident: str) -> Future[Receipt]:
        """Record a refusal; wait for the receipt before the answer leaves."""
        now = self._clock.time_ns()
        return self.recorder.submit(
            denied(self.stream, now, inbound, decision, incident=incident, pseudonyms=self.pseudonyms)
        )

    def record_allow(self, call: Call, decision: Decision, time: float | None = None) -> Future[Receipt] | None:
        """Record what was let through, behind the bounded queue; a future is back-pressure to wait for.

        Args:
            call: what was let through.
            decision: on what ground.
            time: Unix seconds, default the call's own.
        """
        if not self._record_allows:
            return None
        at = call.time if time is None else time
        return self.recorder.offer(AllowedDraft(self.stream, call.peer, call.method, call.path, decision, at))

    def record_failure(self, inbound: Inbound, incident: str, cause: str) -> Future[Receipt]:
        """Record why the application failed, under the incident id the caller was told."""
        return self.recorder.submit(failed(self.stream, self._clock.time_ns(), inbound, incident, cause))

    def report_violation(self, code: str, violation: Violation) -> None:
        """Take note of bytes that never became a request; called by the server."""
        actor, address = violation.peer.id, self.pseudonyms.of("address", violation.address)
        self.recorder.offer(
            self.event("edge.denied", "deny", actor=actor, address=address, code=code, incident=violation.incident)
        )

    def report_handshake(self, reason: str) -> None:
        """Take note of a failed handshake; called by the server.

        The record names no address, and such records are folded together whoever caused them: the TLS object that
        fails knows its peer's bytes and not its socket.
        """
        self.recorder.offer(self.event("transport.denied", "deny", code="HBK-101", rule=reason[:MAX_PATH]))

    @cached_property
    def audit(self) -> "AuditLog":
        """The audit log of this service: who had access to what."""
        from hauberk.records.audit import AuditLog  # noqa: PLC0415  # for whoever uses it
        from hauberk.records.witnessed import Uncosigned  # noqa: PLC0415  # the same

        recorder = self.recorder if self._recording is None else self._recording.ledger
        service, uncosigned = self.stream.removeprefix("/services/"), Uncosigned(self.config.records.uncosigned)
        return AuditLog(recorder, self.pseudonyms, service, uncosigned=uncosigned, clock=self._clock)

    @cached_property
    def events(self) -> "EventStore":
        """The event store of an embedded runtime, in its own ledger.

        Raises:
            ConfigError: HBK-906 this runtime records through an authority: see `event_store`.
        """
        if self._recording is None:
            raise ConfigError("HBK-906", "this runtime has no ledger of its own: use event_store(DIRECTORY)")
        return self._opened(self._recording, _nothing)

    def event_store(self, directory: str | Path) -> "EventStore":
        """Return an event store in a directory of its own, whose events this service signs with its identity.

        Raises:
            ConfigError: HBK-906 another process uses the directory.
            IdentityError: HBK-210 files are missing or open to others.
            Tampered: HBK-710, HBK-713 the stored ledger is not the one that was signed.
        """
        state = StateDirectory(Path(directory), self.config.trust_domain, keys=self.config.authority.keys)
        with ExitStack() as taken:
            taken.callback(state.close)
            log = f"{self.config.trust_domain}{self.stream.removeprefix('/services')}/events"  # a name of its own
            recording = Recording(state, self.config, source=self.source, log=log, clock=self._clock)
            taken.callback(recording.close)
            state.complete()
            return self._opened(recording, taken.pop_all().close)

    def _opened(self, recording: Recording, release: Callable[[], None]) -> "EventStore":
        from hauberk.records.store import EventStore  # noqa: PLC0415  # for whoever uses it

        store = EventStore(
            recording.ledger, recording.store, policy=self, pseudonyms=self.pseudonyms, target=self.workload,
            bus=recording.bus, clock=self._clock,
        )  # fmt: skip
        self._stores.append((store, release))
        return store

    # life

    def status(self) -> Mapping[str, object]:
        """Return what is in force, as plain data."""
        engine, source = self.engine, self.source
        status: dict[str, object] = {
            "service": self.stream.removeprefix("/services/"),
            "identity": str(source.spiffe_id) if source else None,
            "guards": [guard.name for guard in self.guards],
            "policy": {
                "revision": engine.revision,
                "digest": engine.digest,
                "age": round(self._clock.time() - self._policies_at, 3),
                "last_error": self.last_error,
            },
            "revoked": len(self._revocations.ids) + len(self._revocations.serials),
            "connections": len(self.connections),
            "insecure": list(self.config.insecure()),
        }
        if self._recording is not None:
            status["ledger"] = self._recording.status()
        for more in self._more_status:
            status.update(more())
        return status

    def attach(
        self,
        *,
        status: Callable[[], Mapping[str, object]] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """Join something to this runtime's life: its part of `status`, and what to do at the end."""
        if status is not None:
            self._more_status.append(status)
        if on_close is not None:
            self._on_close.append(on_close)

    def close(self) -> None:
        """Write what waits to be recorded and release everything. Closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for store, close in self._stores:
            store.close()
            close()
        if "audit" in self.__dict__:  # it was used
            self.audit.close()
        self.recorder.close()
        for release in self._on_close:
            release()


def _nothing() -> None:
    """Leave it to whoever opened it."""
