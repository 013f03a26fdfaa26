"""Attacks on the authority, on what it sends to services, and on the record. Real authority, feed and ledger.

A control is left out by doing what the code around it does, without it; what refused is read from the typed error, and
for what the authority refuses the ledger has to say the same.
"""

import os
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from examples.payments.demo import tampering
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.agent.feed import FeedState
from hauberk.agent.follower import Follower
from hauberk.agent.remote import Remote
from hauberk.authority.authority import Authority
from hauberk.authority.publisher import Publisher
from hauberk.core.clock import ManualClock
from hauberk.core.config import Config
from hauberk.core.event import Event
from hauberk.core.feed import POLICIES, REVOCATIONS, Message, PolicyBody, Resource, RevocationBody
from hauberk.core.ids import uuid7
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto import x509 as pki
from hauberk.crypto.keyring import Keyring, Purpose
from hauberk.crypto.signing import SigningKey
from hauberk.crypto.x509 import CertificateAuthority, WorkloadKey, parse_svid
from hauberk.errors import HauberkError
from hauberk.identity.attest import peer_credentials
from hauberk.identity.bundle import BundleSet
from hauberk.identity.jointoken import redemption
from hauberk.identity.registration import RegistrationEntry, choose
from hauberk.identity.source import SvidSource
from hauberk.policy.model import OPERATION_FIELDS, SOURCE_FIELDS
from hauberk.records.batch import batch_events, decode_batch, encode_batch
from hauberk.records.ledger import Ledger
from hauberk.records.verify import verify_store
from tests.attacks.arena import DOMAIN, EVIL, MESH, ORDERS, Arena, Stop, arena, authority, home, identity, request
from tests.attacks.catalogue import PAY, Attack

InPlace = Callable[[sqlite3.Connection], None]  # a change of the database
Anew = Callable[[list[Event]], list[Event]]  # the same change of what the ledger is made from
SINGLE = "join tokens are used up"
SELECTORS = "the kernel proves all selectors of an entry"
CSR = "an id comes from the entry, never from the request"
FILES = "key files are plain files of this user alone"
SEAL = "secrets are sealed under the key-encryption key"
PARSE = "the authority refuses unknown fields"
SERVICE_PARSE = "the service refuses unknown fields"
LINT = "lint errors refuse a push"
FEED_KEY = "feed messages are signed"
NUMBER = "feed numbers never go back"
FRESH = "feed messages expire"
STREAMS = "a service writes its own streams only"
SIGNED = "batches are signed by their producer"
PRODUCER = "a batch is delivered by its producer"
IDS = "an event id is stored once"
LEAVES = "every leaf and the root are computed again"
HEAD_SIGNED = "the head is signed"
KEPT = "a checkpoint kept elsewhere"
SPLIT = (Path(__file__).parents[2] / "examples" / "payments" / "policies" / "split.yaml").read_text("utf-8")
TYPO = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody-deletes, namespace: production}
spec:
  selector: {matchLabels: {app: payment-service}}
  acton: DENY
  rules:
  - to: [{operation: {paths: ["/admin/*"]}}]
"""
BY_NAMESPACE = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: neighbours, namespace: production}
spec: {rules: [{from: [{source: {namespaces: [production]}}]}]}
"""
ALIASED = SpiffeId.parse(f"spiffe://{DOMAIN}/ns/dev/sa/x/ns/production/sa/order-service")


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hauberk-attack-") as directory:
        yield Path(directory)


@contextmanager
def opened() -> Iterator[Authority]:
    """Open an authority with one registered service, `order-service`, that somebody else's uid may have."""
    with scratch() as directory:
        found = Authority(directory / "state", Config())
        try:
            found.add_entry(entry(f"unix:uid:{os.getuid() + 1}"), "uid:0")
            yield found
        finally:
            found.close()


def entry(*selectors: str, spiffe_id: SpiffeId = ORDERS) -> RegistrationEntry:
    labels = {"app": spiffe_id.account or ""}
    return RegistrationEntry(
        name=spiffe_id.account or "", spiffe_id=spiffe_id, selectors=frozenset(selectors), labels=labels
    )


def refusal(layer: str, control: str, call: Callable[[], object], *, by: Authority | None = None) -> Stop | None:
    """Call and return what refused, or None when nothing did; what an authority refuses is in its ledger."""
    try:
        call()
    except HauberkError as refused:
        if by is not None:
            recorded = [it for it in by.ledger.entries() if f'"code":"{refused.code}"'.encode() in it.meta]
            assert recorded, "an attack was stopped and nothing was recorded"
        return Stop(layer, refused.code, control)
    return None


# identity


def token_replay(off: frozenset[str]) -> Stop | None:
    """Two processes use one join token."""
    with opened() as found:
        token = found.token("order-service", "uid:0")

        def join() -> None:
            csr = WorkloadKey.generate().request(None)
            if SINGLE not in off:
                found.join(token.secret, csr)
                return
            name, _ = redemption(found.store, token.secret)
            found._issue(found.registry.entry(name), csr, "join token", actor="")

        join()
        return refusal("identity", SINGLE, join, by=found)


def other_uid(off: frozenset[str]) -> Stop | None:
    """A process asks for the identity of an entry that is for another uid."""
    with opened() as found:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs:
            peer = peer_credentials(ours)
        csr = WorkloadKey.generate().request(None)

        def ask() -> None:
            if SELECTORS not in off:
                found.attest(peer, csr, "order-service")
                return
            claimed = frozenset({f"unix:uid:{os.getuid() + 1}"})  # believed, because the caller says so
            found._issue(choose(found.registry.entries(), claimed, "order-service"), csr, "claim", actor="")

        return refusal("identity", SELECTORS, ask, by=found)


def second_namespace(off: frozenset[str]) -> Stop | None:
    """A workload of `dev` asks for an id that contains production's, for policies that name a namespace."""
    key = WorkloadKey.generate()
    if CSR not in off:
        with opened() as found:
            found.add_entry(entry(spiffe_id=SpiffeId.service(DOMAIN, "dev", "x")), "uid:0")
            token = found.token("x", "uid:0")
            return refusal("identity", CSR, lambda: found.join(token.secret, key.request(ALIASED)), by=found)
    with arena(off, policies=BY_NAMESPACE) as ground:
        ground.send(SvidSource(key, parse_svid((obliging(key),)), BundleSet(home())), PAY)
        return None if ground.till.did("POST", "/api/payments") else ground.stop()


def obliging(key: WorkloadKey) -> bytes:
    """Return what a CA would sign that takes the id from the request."""
    ca = authority()
    builder = pki._certificate(
        x509.Name([]), ca._root.subject, key._key.public_key(), time.time() - 60, time.time() + 3600
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(pki._usage(ca=False), critical=True)
    builder = builder.add_extension(pki._uri_san(ALIASED), critical=True)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca._key.public_key()), False)
    return builder.sign(ca._key, hashes.SHA256()).public_bytes(Encoding.DER)


def swapped_key_file(off: frozenset[str]) -> Stop | None:
    """The file of the CA key is replaced by a link to one with a CA of the attacker's own."""
    with scratch() as directory:
        state, mine = directory / "state", directory / "mine"
        Authority(state, Config()).close()
        keys = state / "private" / "keys" if SEAL in off else directory / "keys"
        forged = CertificateAuthority.create(DOMAIN)
        secret = msgspec.msgpack.encode((forged.key_der(), forged.root_der))
        mine.write_bytes(Keyring(FileKeySource(keys)).seal(Purpose.CA_KEY, secret, aad=f"{DOMAIN}/ca".encode()))
        path = state / "private" / "ca.sealed"
        path.unlink()
        path.symlink_to(mine)
        if FILES not in off:
            return refusal("identity", FILES, lambda: Authority(state, Config()).close())
        ring = Keyring(FileKeySource(state / "private" / "keys", create=False))
        aad = f"{DOMAIN}/ca".encode()
        return refusal("data", SEAL, lambda: ring.open(Purpose.CA_KEY, path.read_bytes(), aad=aad))


# policy


def prune(value: object) -> object:
    """Drop what is not known, as lenient readers do."""
    known = {
        *("apiVersion", "kind", "metadata", "name", "namespace", "spec", "selector", "matchLabels", "app", "action"),
        *("rules", "from", "source", "to", "operation", "when", *SOURCE_FIELDS, *OPERATION_FIELDS),
    }
    if isinstance(value, dict):
        return {name: prune(item) for name, item in value.items() if name in known}
    return [prune(item) for item in value] if isinstance(value, list) else value


def typo(off: frozenset[str]) -> Stop | None:
    """A DENY with one letter wrong is pushed: does anybody get to what it was to protect?"""
    with opened() as found, arena() as ground:
        found.apply_policies([("mesh.yaml", MESH)], "uid:0", force=False, replace=False)
        before = found.policies.current().digest
        if PARSE not in off:
            push = partial(found.apply_policies, [("typo.yaml", TYPO)], "uid:0", force=True, replace=False)
            stop = refusal("policy", PARSE, push, by=found)
            assert found.policies.current().digest == before
            return stop
        text = found.policies.current().export() + "---\n" + TYPO  # passed on as it came
        if SERVICE_PARSE in off:
            text = yaml.safe_dump_all([prune(it) for it in yaml.safe_load_all(text)])
        body = PolicyBody(text, "hauberk-system", ("cluster.local",))
        found.publisher.put(POLICIES, body)
        resource = found.publisher.get(POLICIES)
        assert resource is not None
        follow(ground, resource)
        ground.send(identity(EVIL), request("POST", "/admin/delete"))
        if ground.till.did("POST", "/admin/delete"):
            return None
        return Stop("policy", ground.runtime.last_error.rpartition(" ")[2], SERVICE_PARSE)


def follow(ground: Arena, resource: Resource) -> None:
    """Have the arena's service take a resource, as its follower does."""
    remote = Remote.over_socket(Path("nowhere"))
    follower = Follower(ground.runtime, ground.source, remote, bytes(range(32)))
    try:
        follower.take(resource)
    finally:
        follower.close()


def split_rule(off: frozenset[str]) -> Stop | None:
    """The sample that looks like one rule and is two."""
    with opened() as found:
        push = partial(found.apply_policies, [("split.yaml", SPLIT)], "uid:0", force=LINT in off, replace=False)
        stop = refusal("policy", LINT, push, by=found)
        policies = found.policies.current().export()
    if stop is not None:
        return stop
    with arena(policies=policies) as ground:
        ground.send(identity(EVIL), PAY)
        return None if ground.till.did("POST", "/api/payments") else ground.stop()


def _published(key: SigningKey, *revoked: str, clock: ManualClock) -> list[bytes]:
    """Return the snapshot before and after identities were revoked."""
    publisher = Publisher(MemoryStore(), key, DOMAIN, clock=clock)
    publisher.put(REVOCATIONS, RevocationBody())
    before = publisher.message(0)
    clock.advance(60)
    publisher.put(REVOCATIONS, RevocationBody(revoked))
    return [before, publisher.message(0)]


def forged_feed(off: frozenset[str]) -> Stop | None:
    """Somebody on the way answers a poll with a message of his own that takes a revocation back."""
    clock, ours, theirs = ManualClock(), SigningKey.generate(), SigningKey.generate()
    forged = _published(theirs, clock=clock)[1]
    trusted = theirs if FEED_KEY in off else ours  # off: the attacker has the feed key
    state = FeedState(trusted.public, DOMAIN, clock=clock)
    return refusal("policy", FEED_KEY, lambda: state.apply(forged))


class _Forgetful(FeedState):
    """Compares no numbers, only times."""

    def _check(self, message: Message) -> None:
        self.number, self._issued = 0, 0.0
        super()._check(message)


def replayed_feed(off: frozenset[str]) -> Stop | None:
    """A message from before a revocation is sent again, soon and after an hour."""
    clock, key = ManualClock(), SigningKey.generate()
    before, after = _published(key, str(EVIL), clock=clock)
    state = (_Forgetful if NUMBER in off else FeedState)(key.public, DOMAIN, clock=clock)
    state.apply(after)
    clock.advance(3600)
    stop = refusal("policy", NUMBER, lambda: state.apply(before))
    if stop is not None and NUMBER not in off:
        return stop
    if FRESH in off:
        clock.advance(-3600)  # the service's clock is set back
        return refusal("policy", FRESH, lambda: state.apply(before))
    return refusal("policy", FRESH, lambda: state.apply(before))


# records


def event(who: SpiffeId) -> Event:
    stream = f"/services/{who.namespace}/{who.account}"
    return Event(id=uuid7(), type="request.allowed", stream=stream, time_ns=time.time_ns(), actor=str(who))


def batch(signer: SvidSource, *events: Event, as_: SvidSource | None = None) -> bytes:
    chain = (as_ or signer).current().svid.chain
    return encode_batch(chain, time.time_ns(), events, signer.current().key.sign)


def workload(found: Authority, spiffe_id: SpiffeId) -> SvidSource:
    """Return an identity that this authority issued."""
    key = WorkloadKey.generate()
    return SvidSource(key, found.ca.issue(key.request(spiffe_id), spiffe_id), found.bundles)


def deliver(found: Authority, by: SvidSource, wire: bytes, control: str) -> Stop | None:
    """Hand a batch to the authority; what it refuses is in its ledger."""
    return refusal("records", control, lambda: found.take_batch(by.current().svid, wire), by=found)


def foreign_stream(off: frozenset[str]) -> Stop | None:
    """A service records something in the name of another."""
    with opened() as found:
        evil = workload(found, EVIL)
        wire = batch(evil, event(ORDERS))
        if STREAMS not in off:
            return deliver(found, evil, wire, STREAMS)
        unchecked(found, wire)
        return None


def foreign_signature(off: frozenset[str]) -> Stop | None:
    """A service signs a batch with its own key and puts another's certificate beside it."""
    with opened() as found:
        orders = workload(found, ORDERS)
        wire = batch(workload(found, EVIL), event(ORDERS), as_=orders)
        if SIGNED not in off:
            return deliver(found, orders, wire, SIGNED)
        unchecked(found, wire)
        return None


def unchecked(found: Authority, wire: bytes) -> None:
    """Record whatever a batch holds, whoever signed it."""
    found.ledger.append_batch(batch_events(wire)).result(10)


def replayed_batch(off: frozenset[str]) -> Stop | None:
    """A batch that order-service once sent is delivered again by evil-service."""
    with opened() as found:
        orders = workload(found, ORDERS)
        wire = batch(orders, event(ORDERS))
        assert deliver(found, orders, wire, PRODUCER) is None
        if PRODUCER not in off:
            return deliver(found, workload(found, EVIL), wire, PRODUCER)
        events = decode_batch(wire, found.bundles.roots, now_ns=time.time_ns()).events
        if IDS in off:
            events = tuple(msgspec.structs.replace(it, id=uuid7()) for it in events)
        size = found.ledger.head().size
        found.ledger.append_batch(events).result(10)
        return Stop("records", "", IDS) if found.ledger.head().size == size else None


def history(path: Path, key: SigningKey, count: int, *, but: Anew | None = None) -> str:
    """Write a ledger of `count` events, the same ones each time, or what `but` makes of them; return its checkpoint."""
    store = SqliteStore(path)
    ledger = Ledger(store, key, f"{DOMAIN}/ledger")
    events = [
        Event(id=bytes((0,) * 15 + (at,)), type="request.allowed", stream="/s", time_ns=at, outcome="ok")
        for at in range(count)
    ]
    ledger.append_batch(but(events) if but is not None else events).result(10)
    checkpoint = ledger.checkpoint()
    ledger.close()
    store.close()
    return checkpoint


def edited(events: list[Event]) -> list[Event]:
    at = tampering.EDITED
    return [*events[:at], msgspec.structs.replace(events[at], outcome="no"), *events[at + 1 :]]


def _deleted(events: list[Event]) -> list[Event]:
    return [*events[: tampering.EDITED], *events[tampering.EDITED + 1 :]]


def _swapped(events: list[Event]) -> list[Event]:
    at = tampering.EDITED
    return [*events[:at], events[at + 1], events[at], *events[at + 2 :]]


def _replayed(events: list[Event]) -> list[Event]:
    at = tampering.EDITED
    return [*events[: at + 1], msgspec.structs.replace(events[at], id=uuid7()), *events[at + 2 :]]


def _truncated(events: list[Event]) -> list[Event]:
    return events[:-3]


ENTRIES = 12


def tampered(in_place: InPlace, anew: Anew, off: frozenset[str]) -> Stop | None:
    """Change the ledger's database: first the rows, then with every hash made anew, then with the stolen log key."""
    key = SigningKey.generate()
    with scratch() as directory:
        path, forged = directory / "hauberk.db", directory / "forged.db"
        known = history(path, key, ENTRIES)
        public = Ledger(MemoryStore(), key, f"{DOMAIN}/ledger").verifier
        if LEAVES not in off:
            change(path, forged, in_place)
        else:
            history(forged, key if HEAD_SIGNED in off else SigningKey.generate(), ENTRIES, but=anew)
        control = LEAVES if LEAVES not in off else HEAD_SIGNED if HEAD_SIGNED not in off else KEPT
        return refusal("records", control, lambda: verify(forged, public, known if control == KEPT not in off else ""))


def change(path: Path, forged: Path, how: InPlace) -> None:
    """Copy a ledger and change the copy."""
    source, target = sqlite3.connect(path), sqlite3.connect(forged)
    try:
        source.backup(target)
        with target:
            how(target)
    finally:
        source.close()
        target.close()


def verify(path: Path, key: str, known: str) -> None:
    store = open_readonly(path)
    try:
        verify_store(store, key, known=known)
    finally:
        store.close()


def rolled_back(off: frozenset[str]) -> Stop | None:
    """The database is replaced by an honest, signed copy of an older state."""
    key = SigningKey.generate()
    with scratch() as directory:
        known = history(directory / "now.db", key, ENTRIES)
        history(directory / "then.db", key, ENTRIES - 4)
        public = Ledger(MemoryStore(), key, f"{DOMAIN}/ledger").verifier
        return refusal("records", KEPT, lambda: verify(directory / "then.db", public, "" if KEPT in off else known))


def catalogue() -> list[Attack]:
    """Return every attack on authority, feed and record."""
    ledger: dict[str, tuple[InPlace, Anew]] = {
        "ledger: an entry edited": (tampering.edit, edited),
        "ledger: an entry deleted": (tampering.delete, _deleted),
        "ledger: two entries swapped": (tampering.reorder, _swapped),
        "ledger: an entry replayed": (tampering.replay, _replayed),
        "ledger: the end cut off": (tampering.truncate, _truncated),
    }
    return [
        Attack("join token replayed", "identity", token_replay),
        Attack("another uid asks for an identity", "identity", other_uid),
        Attack("second namespace in a request", "identity", second_namespace),
        Attack("CA key file swapped for a link", "identity", swapped_key_file),
        Attack("policy push with a typo in a DENY", "policy", typo),
        Attack("policy that looks like one rule (R9)", "policy", split_rule),
        Attack("forged feed message", "policy", forged_feed),
        Attack("replayed feed message", "policy", replayed_feed),
        Attack("record in another service's stream", "records", foreign_stream),
        Attack("batch signed by another service", "records", foreign_signature),
        Attack("batch of another service replayed", "records", replayed_batch),
        *(Attack(name, "records", partial(tampered, *ways)) for name, ways in ledger.items()),
        Attack("ledger: rolled back to an older state", "records", rolled_back),
    ]
