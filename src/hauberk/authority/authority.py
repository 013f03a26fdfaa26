"""The authority: issues identities, keeps policies and revocations in force, records for everybody.

No HTTP here; `authority.api` puts these methods on the wire. Every issue, refusal and command is in the ledger before
it takes effect or is answered: what cannot be recorded is not done.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import msgspec

from hauberk.adapters.engine import embedded
from hauberk.adapters.state import StateDirectory
from hauberk.authority.audience import Audience
from hauberk.authority.audit import AuditDesk
from hauberk.authority.policies import Applied, PolicyBook
from hauberk.authority.publisher import Publisher
from hauberk.authority.refusals import Attempt, Refusals, in_time
from hauberk.authority.registry import Registry, parse_serial
from hauberk.authority.roots import Roots, check_ready
from hauberk.core.call import Workload
from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.config import Config
from hauberk.core.event import Event, Receipt
from hauberk.core.feed import (
    BUNDLES,
    RENEWAL,
    REVOCATIONS,
    BundleBody,
    RenewalBody,
    Resource,
    RevocationBody,
)
from hauberk.core.ids import uuid7
from hauberk.core.ports import PeerCredentials, Write
from hauberk.core.spiffe import SpiffeId
from hauberk.core.wire import Grant
from hauberk.crypto.keyring import Purpose
from hauberk.crypto.signing import SigningKey
from hauberk.crypto.x509 import CertificateAuthority, SvidInfo, WorkloadKey, fingerprint
from hauberk.errors import HauberkError, IdentityError, PolicyError, RecordsError
from hauberk.identity.attest import LinuxAttestor
from hauberk.identity.bundle import BundleSet
from hauberk.identity.jointoken import JoinToken, grant, redeem
from hauberk.identity.registration import RegistrationEntry, choose
from hauberk.identity.revocation import NO_REVOCATIONS, Revocations
from hauberk.identity.source import SvidSource
from hauberk.policy.posture import weakened
from hauberk.recording import Recording
from hauberk.records.batch import decode_batch
from hauberk.records.fold import Folder

NAMESPACE = "hauberk-system"
ACCOUNT = "authority"
HANDOVER_SECONDS = 60.0  # `hauberk run` hands its token on at once
MAX_TOKEN_SECONDS = 86_400.0  # a join token that lies about for longer is a password
_IDENTITY = "/authority/identity"
_ADMIN = "/authority/admin"
_POLICY = "/authority/policy"


class Authority:
    """The control plane of one trust domain, on one state directory. Thread-safe.

    Args:
        directory: state directory; made on the first start.
        config: settings.
        clock: time source.

    Raises:
        IdentityError: HBK-210 files are missing, open to others, or of another trust domain.
        ConfigError: HBK-904, HBK-905 keys do not fit; HBK-906 another process uses the directory.
        Tampered: HBK-710 the ledger does not fit its checkpoint.
    """

    def __init__(self, directory: Path, config: Config, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.config = config
        self._clock = clock
        self.state = StateDirectory(
            directory, config.trust_domain, keys=config.authority.keys, database=embedded(config)
        )
        try:
            self._open(clock)
        except HauberkError:
            if hasattr(self, "recording"):
                self.recording.close()
            self.state.close()
            raise

    def _open(self, clock: Clock) -> None:
        state, domain = self.state, self.config.trust_domain
        self.roots = Roots(state, domain, clock=clock)
        self.feed_key = SigningKey(state.secret("feed", Purpose.FEED_KEY, lambda: SigningKey.generate().seed()))
        self.recording = Recording(state, self.config, signing=False, clock=clock)
        self.store, self.ledger = self.recording.store, self.recording.ledger
        if not state.first and not self.ledger.head().size:
            raise IdentityError("HBK-210", "the ledger is empty, though this authority has run before")
        self.recorder = Folder(self.ledger, rate=self.config.records.fold_rate, clock=clock)
        self.audit = AuditDesk(self.recording, state.keyring, self.recorder, clock)
        self.registry = Registry(self.store)
        self.publisher = Publisher(self.store, self.feed_key, domain, clock=clock)
        # Held from the moment a command looks at what is in force until it is recorded and done.
        self._lock = threading.Lock()
        self.policies = PolicyBook(self.publisher, self.config, self._lock)
        self.audience = Audience(clock=clock)
        self.address = ""  # where the TLS listener is, once there is one
        self._attestor = LinuxAttestor()
        self._revoked: tuple[Resource | None, Revocations] = (None, NO_REVOCATIONS)
        if state.first:  # so that a ledger without entries is never that of a finished start
            me = str(SpiffeId.service(domain, NAMESPACE, ACCOUNT))
            self.record("authority.created", actor=me, data={"root": self.roots.signer})
        state.complete()
        self._publish_bundles()
        self._publish_revocations()

    @property
    def ca(self) -> CertificateAuthority:
        """Who signs."""
        return self.roots.ca

    @property
    def bundles(self) -> BundleSet:
        """Whom to trust."""
        return self.roots.bundles

    def _publish_bundles(self) -> None:
        """Bring what is published in line with the sealed file, which may be a step ahead after a crash."""
        self.state.publish("root.pem", b"".join(bundle.pem for bundle in self.bundles))
        roots = {domain: tuple(roots) for domain, roots in self.bundles.roots.items()}
        found = self.publisher.get(BUNDLES)
        if found is None or msgspec.json.decode(found.body, type=BundleBody).roots != roots:
            self.publisher.put(BUNDLES, BundleBody(roots))

    def _publish_revocations(self, ids: frozenset[str] | None = None) -> int:
        """Bring the published list in line with the rows, from which expired certificates drop out by themselves."""
        now = self.revocations
        wanted = Revocations(now.ids if ids is None else ids, self.registry.revoked())
        if wanted == now and self.publisher.get(REVOCATIONS) is not None:
            return self.publisher.number
        return self.publisher.put(REVOCATIONS, RevocationBody(tuple(sorted(wanted.ids)), tuple(sorted(wanted.serials))))

    # the record

    def record(self, kind: str, stream: str = _IDENTITY, outcome: str = "ok", **fields: object) -> Receipt:
        """Record something the authority did or refused; durable when this returns.

        Raises:
            RecordsError: HBK-703 it could not be recorded.
        """
        return in_time(self._record(kind, stream, outcome, **fields))

    def _record(self, kind: str, stream: str = _IDENTITY, outcome: str = "ok", **fields: object) -> Future[Receipt]:
        now = self._clock.time_ns()
        event = Event(id=uuid7(now_ns=now), type=kind, stream=stream, time_ns=now, outcome=outcome)
        return self.recorder.submit(msgspec.structs.replace(event, **fields) if fields else event)

    def command(self, actor: str, what: str, **data: object) -> Receipt:
        """Record an administrator's command."""
        return self.record(f"admin.{what}", _ADMIN, actor=actor, data=data)

    def take_batch(self, peer: SvidInfo, wire: bytes, attempt: Attempt | None = None) -> list[int]:
        """Append a service's batch and return the positions of its events.

        Raises:
            RecordsError: HBK-705 the batch is refused, or is another service's than the peer.
        """
        with self._refusals("records", str(peer.spiffe_id), attempt):
            batch = decode_batch(wire, self.roots.for_records, now_ns=self._clock.time_ns())
            if batch.producer.spiffe_id != peer.spiffe_id:
                raise RecordsError("HBK-705", "signed by another service", producer=str(batch.producer.spiffe_id))
        receipts = in_time(self.ledger.append_signed(batch.pairs, batch.signed))
        return [receipt.position for receipt in receipts if receipt.position is not None]

    # identities; a method that takes an `attempt` leaves the receipt of a refusal there instead of waiting for it

    def own_source(self) -> SvidSource:
        """Return the authority's own identity, freshly issued."""
        key = WorkloadKey.generate()
        return SvidSource(key, self._own_svid(key), self.bundles)

    def _own_svid(self, key: WorkloadKey) -> SvidInfo:
        me = SpiffeId.service(self.config.trust_domain, NAMESPACE, ACCOUNT)
        ca = self.ca
        svid = ca.issue(key.request(me), me, ttl=self.config.authority.svid_seconds, clock=self._clock)
        self.registry.issued(svid, self._clock.time(), root=fingerprint(ca.root_der))
        self.record("identity.issued", actor=str(me), data={"serial": svid.serial, "spiffe_id": str(me), "by": "self"})
        return svid

    def renew_own(self, source: SvidSource) -> None:
        """Give the authority's own identity a new key and certificate."""
        key = WorkloadKey.generate()
        source.update(key=key, svid=self._own_svid(key))

    def join(self, secret: bytes, csr: bytes, attempt: Attempt | None = None) -> Grant:
        """First SVID for a join token, which is used up.

        Raises:
            IdentityError: HBK-204 the token, HBK-203, HBK-212 the request, HBK-206 the identity is revoked.
        """
        with self._refusals("join", "", attempt):
            entry = self.registry.entry(redeem(self.store, secret, clock=self._clock))
            return self._issue(entry, csr, "join token", actor=str(entry.spiffe_id))

    def attest(self, peer: PeerCredentials, csr: bytes, name: str | None, attempt: Attempt | None = None) -> Grant:
        """First SVID for a process the kernel vouches for.

        Raises:
            IdentityError: HBK-207 not attested, HBK-205 no entry, HBK-203, HBK-212 the request, HBK-206 revoked.
        """
        with self._refusals("attest", f"uid:{peer.uid}", attempt):
            entry = choose(self.registry.entries(), self._attestor.attest(peer), name)
            return self._issue(entry, csr, "kernel", actor=f"uid:{peer.uid}")

    def handover(self, peer: PeerCredentials, name: str | None, attempt: Attempt | None = None) -> JoinToken:
        """Return a short-lived join token for a process the kernel vouches for, to be handed to what it becomes.

        Raises:
            IdentityError: HBK-207 not attested, HBK-205 no entry, HBK-206 revoked.
        """
        with self._refusals("attest", f"uid:{peer.uid}", attempt):
            entry = choose(self.registry.entries(), self._attestor.attest(peer), name)
            self.revocations.refuse(str(entry.spiffe_id), "")
            return self._token(entry.name, HANDOVER_SECONDS, f"uid:{peer.uid}")

    def renew(self, peer: SvidInfo, csr: bytes, attempt: Attempt | None = None) -> Grant:
        """Next SVID for the holder of a current one.

        Raises:
            IdentityError: HBK-205 not registered any more, HBK-203, HBK-212 the request, HBK-206 revoked.
        """
        with self._refusals("renew", str(peer.spiffe_id), attempt):
            me = str(peer.spiffe_id)
            return self._issue(self.registry.entry_of(me), csr, "renewal", actor=me, parent=peer.serial)

    def refuse(self, error: HauberkError, what: str, actor: str, attempt: Attempt) -> None:
        """Record that a request was refused before any method here saw it, such as for its form."""
        self._refusals(what, actor, attempt).record(error)

    def _refusals(self, what: str, actor: str, attempt: Attempt | None) -> Refusals:
        return Refusals(self._record, what, actor, attempt)

    def _issue(self, entry: RegistrationEntry, csr: bytes, by: str, *, actor: str, parent: str = "") -> Grant:
        me, ca = str(entry.spiffe_id), self.ca
        self.revocations.refuse(me, parent)
        svid = ca.issue(csr, entry.spiffe_id, ttl=entry.ttl, clock=self._clock)
        self.registry.issued(svid, self._clock.time(), root=fingerprint(ca.root_der), parent=parent)
        # Once more, now that it is on file: a revocation or removal at this moment sees the file, or is seen here.
        self.revocations.refuse(me, parent)
        self.registry.entry_of(me)
        data = {"serial": svid.serial, "spiffe_id": str(entry.spiffe_id), "entry": entry.name, "by": by}
        self.record("identity.issued", actor=actor, data=data)
        return Grant(
            svid.chain,
            {domain: tuple(roots) for domain, roots in self.bundles.roots.items()},
            dict(entry.labels),
            self.feed_key.public.raw,
            self.audit.pseudonyms.key(),
            self.address,
            self.config.policy.root_namespace,
            self.config.policy.aliases,
        )

    # administration

    def add_entry(self, entry: RegistrationEntry, actor: str) -> None:
        """Register a workload.

        Raises:
            IdentityError: HBK-213 not valid, or the name is taken; HBK-201 of another trust domain.
        """
        entry.validate()
        if entry.spiffe_id.trust_domain != self.config.trust_domain or entry.spiffe_id.namespace == NAMESPACE:
            raise IdentityError("HBK-201", "not an id this authority gives away", spiffe_id=str(entry.spiffe_id))
        with self._lock:
            self.registry.check_free(entry)
            self.command(actor, "entry.added", name=entry.name, spiffe_id=str(entry.spiffe_id))
            self.registry.add(entry)

    def remove_entry(self, name: str, actor: str) -> None:
        """Unregister a workload: it gets no further SVID.

        Raises:
            IdentityError: HBK-213 there is none.
        """
        with self._lock:
            self.registry.entry(name)
            self.command(actor, "entry.removed", name=name)
            self.registry.remove(name)

    def token(self, name: str, actor: str, ttl: float | None = None) -> JoinToken:
        """Return a join token for an entry.

        Raises:
            IdentityError: HBK-213 there is no such entry, HBK-204 it would live too long or not at all.
        """
        seconds = self.config.authority.token_seconds if ttl is None else ttl
        if not 0 < seconds <= MAX_TOKEN_SECONDS:
            raise IdentityError("HBK-204", "a token lives for a day at most", ttl=seconds)
        return self._token(name, seconds, actor)

    def _token(self, name: str, ttl: float, actor: str) -> JoinToken:
        with self._lock:
            self.registry.entry(name)
            token = JoinToken.create(self.address, self.roots.signer)
            self.record("identity.token", actor=actor, data={"entry": name, "seconds": ttl})
            self.store.commit(Write(rows=(grant(token, name, ttl=ttl, clock=self._clock),)))
        return token

    @property
    def revocations(self) -> Revocations:
        """What is revoked."""
        found = self.publisher.get(REVOCATIONS)
        known, revoked = self._revoked
        if found is not known and found is not None:
            body = msgspec.json.decode(found.body, type=RevocationBody)
            revoked = Revocations.of(body.ids, body.serials)
            self._revoked = (found, revoked)
        return revoked

    def revoke(self, actor: str, *, ids: Sequence[str] = (), serials: Sequence[str] = (), restore: bool = False) -> int:
        """Revoke identities or single certificates, or with `restore` take that back; returns the feed's number.

        What was renewed from a certificate goes with it: whoever stole a key may have renewed it already.

        Raises:
            IdentityError: HBK-201 neither a SPIFFE id nor a serial.
        """
        change, first = Revocations.of(ids), frozenset(parse_serial(text) for text in serials)
        verb, done = "restored" if restore else "revoked", frozenset[str]()
        with self._lock:
            now_ids = self.revocations.ids
            new_ids = now_ids - change.ids if restore else now_ids | change.ids
            number, fresh = 0, self.registry.family(first)
            while fresh or not number:
                self.command(actor, verb, ids=sorted(change.ids), serials=sorted(fresh))
                if restore:
                    self.registry.restore(fresh)
                else:
                    self.registry.revoke(fresh, self._clock.time())
                number = self._publish_revocations(new_ids)
                done |= fresh
                fresh = self.registry.family(first) - done  # renewed after the look and before the list was out
        return number

    def renew_all(self, actor: str) -> int:
        """Have every workload renew its SVID now, such as after a key may have leaked; returns the feed's number."""
        with self._lock:
            self.command(actor, "renewal")
            return self._order_renewal()

    def _order_renewal(self) -> int:
        # Certificates keep whole seconds: what was issued within this one has to be renewed too.
        return self.publisher.put(RENEWAL, RenewalBody(self._clock.time() + 1))

    def rotate_root(self, step: str, actor: str, *, force: bool = False) -> Mapping[str, object]:
        """Take the next step of a rotation of the root; see `authority.roots`.

        Args:
            step: `prepare`, `activate` or `finish`.
            actor: who wants it.
            force: take it although somebody is not ready and will be cut off.

        Raises:
            ConfigError: HBK-906 it is not the next step, or (without `force`) somebody is not ready for it.
        """
        with self._lock:
            self.roots.expect(step)
            if not force:
                check_ready(step, self.roots, self.audience, self.registry, self.publisher, now=self._clock.time())
            self.command(actor, f"root.{step}", signer=self.roots.signer, forced=force)
            getattr(self.roots, step)()
            self._publish_bundles()
            if step == "activate":
                self._order_renewal()
            return self.rotation()

    def rotation(self) -> Mapping[str, object]:
        """Return how far a rotation of the root is, as plain data."""
        roots = [fingerprint(root) for bundle in self.bundles for root in bundle.roots]
        return {"step": self.roots.step, "signer": self.roots.signer, "trusted": roots, "number": self.publisher.number}

    def apply_policies(self, files: Sequence[tuple[str, str]], actor: str, *, force: bool, replace: bool) -> Applied:
        """Put policies in force.

        Raises:
            PolicyError: HBK-301, HBK-302 not valid, HBK-303 lint errors; recorded, and nothing changes.
        """
        workloads = [
            Workload(entry.spiffe_id.namespace or "", entry.spiffe_id.account or "", entry.labels)
            for entry in self.registry.entries()
        ]
        names = [name for name, _ in files]

        def record(applied: Applied) -> None:
            data = {"files": names, "revision": applied.revision, "forced": force}
            self.record("policy.applied", _POLICY, actor=actor, digest=applied.digest, data=data)

        try:
            return self.policies.apply(files, workloads, force=force, replace=replace, record=record)
        except PolicyError as error:
            data = {"files": names, "why": error.detail[:200]}
            self.record("policy.refused", _POLICY, "deny", actor=actor, code=error.code, data=data)
            raise

    def remove_policy(self, kind: str, namespace: str, name: str, actor: str) -> int:
        """Take one policy out of force and return the feed's number.

        Raises:
            PolicyError: HBK-301 there is none.
        """

        def record(applied: Applied) -> None:
            data = {"kind": kind, "name": f"{namespace}/{name}", "revision": applied.revision}
            self.record("policy.removed", _POLICY, actor=actor, digest=applied.digest, data=data)

        return self.policies.remove(kind, namespace, name, record=record).revision

    def status(self) -> Mapping[str, object]:
        """Return what is in force, as plain data."""
        head = self.ledger.head()
        return {
            "trust_domain": self.config.trust_domain,
            "root": self.roots.signer,
            "rotation": self.roots.step,
            "entries": len(self.registry.entries()),
            "feed": self.publisher.number,
            "policy": self.policies.current().digest,
            "revoked": len(self.revocations.ids) + len(self.revocations.serials),
            "services": [
                {"spiffe_id": line.spiffe_id, "number": line.number, "ago": round(self._clock.monotonic() - line.at, 1)}
                for line in self.audience.present()
            ],
            "ledger": {"origin": self.ledger.origin, "size": head.size},
            "insecure": [*self.config.insecure(), *weakened(self.policies.current())],
        }

    def close(self) -> None:
        """Write what waits to be recorded and release everything."""
        self.audit.close()
        self.recorder.close()
        self.recording.close()
        self.state.close()
