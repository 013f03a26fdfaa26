"""The authority: issues identities, keeps policies and revocations in force, records for everybody.

No HTTP here; `authority.api` puts these methods on the wire. Every issue, refusal and command is in the ledger before
it takes effect or is answered: what cannot be recorded is not done.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hauberk.adapters.sqlite import SqliteStore
from hauberk.adapters.state import StateDirectory
from hauberk.authority.policies import Applied, PolicyBook
from hauberk.authority.publisher import Publisher
from hauberk.authority.registry import Registry
from hauberk.core.call import Workload
from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.config import Config
from hauberk.core.event import Event, Receipt
from hauberk.core.feed import BUNDLES, RENEWAL, REVOCATIONS, BundleBody, RenewalBody, RevocationBody
from hauberk.core.ids import uuid7
from hauberk.core.ports import PeerCredentials, Write
from hauberk.core.spiffe import SpiffeId
from hauberk.core.wire import Grant
from hauberk.crypto.keyring import Purpose
from hauberk.crypto.signing import SigningKey
from hauberk.crypto.x509 import CertificateAuthority, SvidInfo, WorkloadKey, fingerprint
from hauberk.errors import ConfigError, HauberkError, IdentityError, RecordsError
from hauberk.identity.attest import LinuxAttestor
from hauberk.identity.bundle import BundleSet, TrustBundle
from hauberk.identity.jointoken import JoinToken, grant, redeem
from hauberk.identity.registration import RegistrationEntry, choose
from hauberk.identity.revocation import NO_REVOCATIONS, Revocations
from hauberk.identity.source import SvidSource
from hauberk.records.batch import decode_batch
from hauberk.records.fold import Folder
from hauberk.records.ledger import Ledger

NAMESPACE = "hauberk-system"
ACCOUNT = "authority"
HANDOVER_SECONDS = 60.0  # `hauberk run` hands its token on at once
RECORD_SECONDS = 10.0  # what cannot be recorded by then is refused
_IDENTITY = "/authority/identity"
_ADMIN = "/authority/admin"


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
        self.state = StateDirectory(directory, config.trust_domain, keys=config.authority.keys)
        try:
            self._open(clock)
        except HauberkError:
            self.state.close()
            raise

    def _open(self, clock: Clock) -> None:
        state, domain = self.state, self.config.trust_domain
        self.ca = self._load_ca(state, domain, clock)
        log_key = SigningKey(state.secret("log", Purpose.LOG_KEY, lambda: SigningKey.generate().seed()))
        self.feed_key = SigningKey(state.secret("feed", Purpose.FEED_KEY, lambda: SigningKey.generate().seed()))
        self.store = SqliteStore(state.database, now=clock.time)
        self.ledger = Ledger(self.store, log_key, f"{domain}/ledger", queue_size=self.config.records.queue, clock=clock)
        self.recorder = Folder(self.ledger, rate=self.config.records.fold_rate, clock=clock)
        self.registry = Registry(self.store)
        self.publisher = Publisher(self.store, self.feed_key, domain, clock=clock)
        self.policies = PolicyBook(self.publisher, self.config)
        self.bundles = BundleSet(TrustBundle.of(domain, self.ca.root_der))
        self.address = ""  # where the TLS listener is, once there is one
        self._attestor = LinuxAttestor()
        self.attests = hasattr(os, "pidfd_open")
        state.publish("root.pem", self.ca.root_pem)
        state.publish("log.pub", self.ledger.verifier.encode() + b"\n")
        state.complete()
        self._publish_bundles()

    @staticmethod
    def _load_ca(state: StateDirectory, domain: str, clock: Clock) -> CertificateAuthority:
        made: list[CertificateAuthority] = []

        def make() -> bytes:
            made.append(CertificateAuthority.create(domain, clock=clock))
            return msgspec.msgpack.encode((made[0].key_der(), made[0].root_der))

        try:
            key, root = msgspec.msgpack.decode(state.secret("ca", Purpose.CA_KEY, make), type=tuple[bytes, bytes])
        except ConfigError as error:
            if error.code != "HBK-904":
                raise
            raise IdentityError(
                "HBK-210", "the CA key is of another trust domain or key", trust_domain=domain
            ) from None
        return CertificateAuthority.load(key, root)

    def _publish_bundles(self) -> None:
        roots = {domain: tuple(roots) for domain, roots in self.bundles.roots.items()}
        found = self.publisher.get(BUNDLES)
        if found is None or msgspec.json.decode(found.body, type=BundleBody).roots != roots:
            self.publisher.put(BUNDLES, BundleBody(roots))
        if self.publisher.get(REVOCATIONS) is None:
            self.publisher.put(REVOCATIONS, RevocationBody())

    # the record

    def record(self, kind: str, stream: str = _IDENTITY, outcome: str = "ok", **fields: object) -> Receipt:
        """Record something the authority did or refused; durable when this returns.

        Raises:
            RecordsError: HBK-703 it could not be recorded.
        """
        now = self._clock.time_ns()
        event = Event(id=uuid7(now_ns=now), type=kind, stream=stream, time_ns=now, outcome=outcome)
        event = msgspec.structs.replace(event, **fields) if fields else event
        try:
            return self.recorder.submit(event).result(RECORD_SECONDS)
        except TimeoutError:
            raise RecordsError("HBK-703", "recording took too long") from None

    def command(self, actor: str, what: str, **data: object) -> Receipt:
        """Record an administrator's command."""
        return self.record(f"admin.{what}", _ADMIN, actor=actor, data=data)

    def take_batch(self, peer: SvidInfo, wire: bytes) -> list[int]:
        """Append a service's batch and return the positions of its events.

        Raises:
            RecordsError: HBK-705 the batch is refused, or is another service's than the peer.
        """
        producer, events = decode_batch(wire, self.bundles.roots, now_ns=self._clock.time_ns())
        if producer.spiffe_id != peer.spiffe_id:
            raise RecordsError("HBK-705", "signed by another service", producer=str(producer.spiffe_id))
        receipts = self.ledger.append_batch(events).result(RECORD_SECONDS)
        return [receipt.position for receipt in receipts if receipt.position is not None]

    # identities

    def own_source(self) -> SvidSource:
        """Return the authority's own identity, freshly issued."""
        key = WorkloadKey.generate()
        return SvidSource(key, self._own_svid(key), self.bundles)

    def _own_svid(self, key: WorkloadKey) -> SvidInfo:
        me = SpiffeId.service(self.config.trust_domain, NAMESPACE, ACCOUNT)
        svid = self.ca.issue(key.request(me), me, ttl=self.config.authority.svid_seconds, clock=self._clock)
        self.record("identity.issued", actor=str(me), data={"serial": svid.serial, "spiffe_id": str(me), "by": "self"})
        return svid

    def renew_own(self, source: SvidSource) -> None:
        """Give the authority's own identity a new key and certificate."""
        key = WorkloadKey.generate()
        source.update(key=key, svid=self._own_svid(key))

    def join(self, secret: bytes, csr: bytes) -> Grant:
        """First SVID for a join token, which is used up.

        Raises:
            IdentityError: HBK-204 the token, HBK-203, HBK-212 the request, HBK-206 the identity is revoked.
        """
        with self._refusals("join"):
            entry = self.registry.entry(redeem(self.store, secret, clock=self._clock))
            return self._issue(entry, csr, "join token", actor=str(entry.spiffe_id))

    def attest(self, peer: PeerCredentials, csr: bytes, name: str | None) -> Grant:
        """First SVID for a process the kernel vouches for.

        Raises:
            IdentityError: HBK-207 not attested, HBK-205 no entry, HBK-203, HBK-212 the request, HBK-206 revoked.
        """
        with self._refusals("attest", f"uid:{peer.uid}"):
            entry = choose(self.registry.entries(), self._attestor.attest(peer), name)
            return self._issue(entry, csr, "kernel", actor=f"uid:{peer.uid}")

    def handover(self, peer: PeerCredentials, name: str | None) -> JoinToken:
        """Return a short-lived join token for a process the kernel vouches for, to be handed to what it becomes.

        Raises:
            IdentityError: HBK-207 not attested, HBK-205 no entry.
        """
        with self._refusals("attest", f"uid:{peer.uid}"):
            entry = choose(self.registry.entries(), self._attestor.attest(peer), name)
            return self._token(entry.name, HANDOVER_SECONDS, f"uid:{peer.uid}")

    def renew(self, peer: SvidInfo, csr: bytes) -> Grant:
        """Next SVID for the holder of a current one.

        Raises:
            IdentityError: HBK-205 not registered any more, HBK-203, HBK-212 the request, HBK-206 revoked.
        """
        with self._refusals("renew", str(peer.spiffe_id)):
            self.revocations.refuse(str(peer.spiffe_id), peer.serial)
            return self._issue(self.registry.entry_of(str(peer.spiffe_id)), csr, "renewal", actor=str(peer.spiffe_id))

    def _refusals(self, what: str, actor: str = "") -> "_Refusals":
        return _Refusals(self, what, actor)

    def _issue(self, entry: RegistrationEntry, csr: bytes, by: str, *, actor: str) -> Grant:
        self.revocations.refuse(str(entry.spiffe_id), "")
        svid = self.ca.issue(csr, entry.spiffe_id, ttl=entry.ttl, clock=self._clock)
        self.registry.issued(svid, self._clock.time())
        data = {"serial": svid.serial, "spiffe_id": str(entry.spiffe_id), "entry": entry.name, "by": by}
        self.record("identity.issued", actor=actor, data=data)
        return Grant(
            svid.chain,
            {domain: tuple(roots) for domain, roots in self.bundles.roots.items()},
            dict(entry.labels),
            self.feed_key.public.raw,
            self.state.keyring.pseudonym_key(),
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
        self.command(actor, "entry.added", name=entry.name, spiffe_id=str(entry.spiffe_id))
        self.registry.add(entry)

    def remove_entry(self, name: str, actor: str) -> None:
        """Unregister a workload: it gets no further SVID.

        Raises:
            IdentityError: HBK-213 there is none.
        """
        self.registry.entry(name)
        self.command(actor, "entry.removed", name=name)
        self.registry.remove(name)

    def token(self, name: str, actor: str, ttl: float | None = None) -> JoinToken:
        """Return a join token for an entry.

        Raises:
            IdentityError: HBK-213 there is no such entry.
        """
        self.registry.entry(name)
        return self._token(name, ttl or self.config.authority.token_seconds, actor)

    def _token(self, name: str, ttl: float, actor: str) -> JoinToken:
        token = JoinToken.create(self.address, fingerprint(self.ca.root_der))
        self.record("identity.token", actor=actor, data={"entry": name, "seconds": ttl})
        self.store.commit(Write(rows=(grant(token, name, ttl=ttl, clock=self._clock),)))
        return token

    @property
    def revocations(self) -> Revocations:
        """What is revoked."""
        found = self.publisher.get(REVOCATIONS)
        if found is None:
            return NO_REVOCATIONS
        body = msgspec.json.decode(found.body, type=RevocationBody)
        return Revocations.of(body.ids, body.serials)

    def revoke(self, actor: str, *, ids: Sequence[str] = (), serials: Sequence[str] = (), restore: bool = False) -> int:
        """Revoke identities or single certificates, or with `restore` take that back; returns the feed's number.

        Raises:
            IdentityError: HBK-201 no SPIFFE id.
        """
        change, now = Revocations.of(ids, serials), self.revocations
        self.command(
            actor, "restored" if restore else "revoked", ids=sorted(change.ids), serials=sorted(change.serials)
        )
        new_ids = now.ids - change.ids if restore else now.ids | change.ids
        new_serials = now.serials - change.serials if restore else now.serials | change.serials
        return self.publisher.put(REVOCATIONS, RevocationBody(tuple(sorted(new_ids)), tuple(sorted(new_serials))))

    def renew_all(self, actor: str) -> int:
        """Have every workload renew its SVID now, such as after a key may have leaked; returns the feed's number."""
        self.command(actor, "renewal")
        return self.publisher.put(RENEWAL, RenewalBody(self._clock.time()))

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
        try:
            applied = self.policies.apply(files, workloads, force=force, replace=replace)
        except HauberkError as error:
            data = {"files": names, "why": error.detail[:200]}
            self.record("policy.refused", "/authority/policy", "deny", actor=actor, code=error.code, data=data)
            raise
        self.record(
            "policy.applied",
            "/authority/policy",
            actor=actor,
            digest=applied.digest,
            data={"files": names, "revision": applied.revision, "forced": force},
        )
        return applied

    def remove_policy(self, kind: str, namespace: str, name: str, actor: str) -> int:
        """Take one policy out of force and return the feed's number.

        Raises:
            PolicyError: HBK-301 there is none.
        """
        number = self.policies.remove(kind, namespace, name)
        self.record(
            "policy.removed", "/authority/policy", actor=actor, data={"kind": kind, "name": f"{namespace}/{name}"}
        )
        return number

    def status(self) -> Mapping[str, object]:
        """Return what is in force, as plain data."""
        head = self.ledger.head()
        return {
            "trust_domain": self.config.trust_domain,
            "root": fingerprint(self.ca.root_der),
            "entries": len(self.registry.entries()),
            "feed": self.publisher.number,
            "policy": self.policies.current().digest,
            "revoked": len(self.revocations.ids) + len(self.revocations.serials),
            "ledger": {"origin": self.ledger.origin, "size": head.size},
            "insecure": list(self.config.insecure()),
        }

    def close(self) -> None:
        """Write what waits to be recorded and release everything."""
        self.recorder.close()
        self.store.close()
        self.state.close()


class _Refusals:
    """Records a refusal before it is answered."""

    def __init__(self, authority: Authority, what: str, actor: str) -> None:
        self._authority = authority
        self._what = what
        self._actor = actor

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Record what was refused, if anything was."""
        if isinstance(error, IdentityError):
            self._authority.record(
                "identity.denied", outcome="deny", actor=self._actor, code=error.code, rule=self._what
            )
