"""Attacks on an event store: by readers, by whoever writes its database, and by the operator who has every key of it.

Real store, ledger and witness. A control is left out by building the parts without it, or by giving the attacker what
defeats it: a leaf that fits, the high-water mark, the key of the producer.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.mark import FileMark
from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.call import Call, Workload
from hauberk.core.decision import Decision
from hauberk.core.event import Entry, Leaf
from hauberk.core.event import Event as Envelope
from hauberk.core.ids import uuid7
from hauberk.core.ports import Authorizer, Store
from hauberk.core.principal import Kind, Principal
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.keyring import Keyring, Pseudonyms
from hauberk.crypto.note import encode_key
from hauberk.crypto.signing import SigningKey
from hauberk.errors import HauberkError
from hauberk.policy.engine import Engine
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.records import Erased, Event, EventStore, Pii, Redacted, Subject, SubjectKeys
from hauberk.records.cosign import Cosigning
from hauberk.records.evidence import Evidence
from hauberk.records.keys import ERASED as GONE
from hauberk.records.keys import KEY, SUBJECT
from hauberk.records.ledger import Ledger
from hauberk.records.statement import Producer
from hauberk.records.verify import Trust, verify_store
from tests.attacks.arena import DOMAIN, EVIL, MESH, ORDERS, PATIENCE, PAYMENTS, Stop
from tests.attacks.catalogue import Attack
from tests.records.parties import Party, Wire, policy

LOG = f"{DOMAIN}/events"
FRONT = SpiffeId.service(DOMAIN, "production", "storefront")
LEAF = "what is read is what its leaf says"
TREE = "what is read is in the signed tree"
PLACE = "a value is sealed for its place"
TAGS = "rows are kept behind tags"
MARK = "a high-water mark outside the database"
WITNESS = "a witness that remembers"
PRODUCER = "services sign what they record"
KNOWN = "the auditor knows who signs"
DECRYPT = "decryption is a right of its own"
READ = "event store: policy"
DESTROYED = "erasure destroys the key"
ASKED = "what was destroyed is asked of the ledger"
_CONTROLS = {"HBK-722": WITNESS, "HBK-713": MARK}


class Paid(Event, type="attacks.paid.v1"):
    customer: Subject
    email: Pii[str]


def paid(who: str) -> Paid:
    return Paid(customer=who, email=f"{who}@mail.test")


def workload(of: SpiffeId) -> Principal:
    return Principal(Kind.WORKLOAD, str(of))


class Placeless(SubjectKeys):
    """Seals for any place."""

    def place(self, _stream: str, _version: int) -> bytes:
        return b""


class Trusting(SubjectKeys):
    """Believes the rows alone."""

    def watch(self, evidence: Evidence) -> Evidence:
        return evidence


class Believing:
    """Believes leaves."""

    def check(self, entry: Entry) -> None:
        """Look nothing up."""


class Undivided:
    """Whoever may read may decrypt."""

    def __init__(self, inner: Authorizer) -> None:
        self._inner = inner

    def decide(self, call: Call) -> Decision:
        return self._inner.decide(msgspec.structs.replace(call, method=call.method.replace("decrypt", "read")))


class House:
    """An event store on a disk, with everything that guards it but what is `off`."""

    def __init__(self, directory: Path, off: frozenset[str]) -> None:
        self.database, self._mark = directory / "hauberk.db", directory / "ledger.mark"
        self.off = off
        self.keyring = Keyring(FileKeySource(directory / "keys"))
        self.signer, self.producer = SigningKey.generate(), Producer.of_key(SigningKey.generate())
        self.key = encode_key(LOG, self.signer.public)
        self._party = Party()
        self._party.add_log(self.key)
        self._wire = Wire(self._party)

    def _policy(self) -> Authorizer:
        target = Workload("production", "payment-service", {"app": "payment-service"})
        documents = PolicySet.default(aliases=("cluster.local",)).with_documents(parse_documents(MESH))
        engine = Engine(PolicySet.of(()) if READ in self.off else documents, target)
        return Undivided(engine) if DECRYPT in self.off else engine

    @contextmanager
    def opened(self) -> Iterator[EventStore]:
        """Start it, as `hauberk.recording` does, and stop it again.

        Raises:
            HauberkError: it does not start.
        """
        with ExitStack() as stack:
            ledger, rows = self._ledger(stack, self.producer, guarded=True)
            store = EventStore(ledger, rows, policy=self._policy(), pseudonyms=Pseudonyms(bytes(32)))
            stack.callback(store.close)
            if TREE in self.off:
                store._reader._tree = Believing()  # type: ignore[assignment]  # an attack leaves it out
            yield store
            if WITNESS not in self.off and ledger.head().size:
                ledger.cosigned(ledger.head().size).result(PATIENCE)

    def _ledger(self, stack: ExitStack, producer: Producer | None, *, guarded: bool) -> tuple[Ledger, Store]:
        inner = SqliteStore(self.database)
        stack.callback(inner.close)
        rows: Store = inner if TAGS in self.off else AuthenticRows(inner, self.keyring)
        cosigning = mark = None
        if guarded and WITNESS not in self.off:
            cosigning = Cosigning(rows, LOG, self.signer.public, policy(self._party), self._wire)
            stack.callback(cosigning.close)
            cosigning.confirm(PATIENCE)
        if guarded and MARK not in self.off:
            mark = FileMark(self._mark)
            stack.callback(mark.close)
        kind = Placeless if PLACE in self.off else Trusting if ASKED in self.off else SubjectKeys
        keys = kind(rows, self.keyring)
        ledger = Ledger(rows, self.signer, LOG, keys=keys, producer=producer, mark=mark, witnesses=cosigning)
        stack.callback(ledger.close)
        return ledger, rows

    def start(self) -> None:
        """Start it and stop it again.

        Raises:
            HauberkError: it does not start.
        """
        with self.opened():
            pass

    # who is there

    def take(self, *who: str) -> None:
        """Have payments taken: the first is in the stream `payment-1`."""
        with self.opened() as store:
            for number, one in enumerate(who, 1):
                store.append(f"payment-{number}", [paid(one)], actor=workload(PAYMENTS)).result(PATIENCE)

    def forget(self, who: str) -> None:
        with self.opened() as store:
            store.erase(who, actor=workload(FRONT), reason="asked").result(PATIENCE)

    def read(self, stream: str = "payment-1", by: SpiffeId = FRONT) -> list[Event]:
        with self.opened() as store:
            return [one.event for one in store.read(stream, actor=workload(by))]

    def write(self, statement: str, *values: object) -> None:
        """Do something to the database."""
        database = sqlite3.connect(self.database)
        with database:
            assert database.execute(statement, values).rowcount
        database.close()

    # what its operator does

    def make_up(self, producer: Producer | None, count: int = 1) -> None:
        """Append payments that never were, under the key of the log; nobody is asked."""
        with ExitStack() as stack:
            ledger, _ = self._ledger(stack, producer, guarded=False)
            events = [
                Envelope(id=uuid7(), type="attacks.paid.v1", stream="/streams/payment-1", time_ns=at)
                for at in range(count)
            ]
            ledger.append_batch(events).result(PATIENCE)

    def audit(self) -> None:
        """Verify it as an auditor does who knows the producer.

        Raises:
            HauberkError: what is wrong.
        """
        keys = frozenset() if KNOWN in self.off else frozenset({self.producer.fingerprint})
        trust = Trust(keys=keys, require_signed=PRODUCER not in self.off)
        store = open_readonly(self.database)
        try:
            verify_store(store, self.key, trust=trust)
        finally:
            store.close()


@contextmanager
def house(off: frozenset[str]) -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="hauberk-attack-") as directory:
        yield House(Path(directory), off)


def stopped(control: str, call: Callable[[], object]) -> Stop | None:
    """Call and return what refused, or None when nothing did.

    Args:
        control: what it was, where the code does not say.
        call: to make.
    """
    try:
        call()
    except HauberkError as refused:
        return Stop("records", refused.code, _CONTROLS.get(refused.code, control))
    return None


# readers


def whose(off: frozenset[str]) -> Stop | None:
    """A service that may read what happened looks for whose it was."""
    with house(off) as here:
        here.take("ann")
        (event,) = here.read(by=ORDERS)
        assert isinstance(event, Paid)
        if isinstance(event.email, Redacted):
            return Stop("records", "", DECRYPT)
        assert event == paid("ann")
        return None


def unread(off: frozenset[str]) -> Stop | None:
    """A service of the mesh reads a stream it was not given."""
    with house(off) as here:
        here.take("ann")
        stop = stopped(READ, lambda: here.read(by=EVIL))
        with here.opened() as store:
            recorded = [it for it in store.ledger.entries(kind="records.denied") if b'"HBK-300"' in it.meta]
        assert bool(recorded) == (stop is not None)
        return stop


def forgotten(off: frozenset[str]) -> Stop | None:
    """Whoever may read everything reads somebody who was erased."""
    with house(off) as here:
        here.take("ann")
        store = open_readonly(here.database)
        (kept,) = store.scan(KEY)
        store.close()
        here.forget("ann")
        if DESTROYED in off:  # somebody has a backup of it, and may write the database
            here.write("INSERT INTO row (space, key, value, revision) VALUES (?, ?, ?, 1)", KEY, kept.key, kept.value)
            here.write("DELETE FROM row WHERE space = ?", GONE)
        (event,) = here.read()
        assert isinstance(event, Paid)
        if isinstance(event.email, Erased):
            return Stop("records", "", ASKED if DESTROYED in off else DESTROYED)
        assert event == paid("ann")
        return None


# whoever writes the database


def pasted(off: frozenset[str]) -> Stop | None:
    """The ciphertext of one customer is written over that of another: what he did, she did."""
    with house(off) as here:
        here.take("ann", "bob")
        store = open_readonly(here.database)
        ann, bob = (next(store.stream(LOG, f"/streams/payment-{number}")) for number in (1, 2))
        store.close()
        leaf = ann.leaf
        if LEAF in off:
            own, its = Leaf.decode(ann.leaf), Leaf.decode(bob.leaf)
            leaf = msgspec.structs.replace(own, sealed=sha256(bob.sealed).digest(), key=its.key).encode()
        here.write("UPDATE entry SET sealed = ?, leaf = ? WHERE position = ?", bob.sealed, leaf, ann.position)
        stop = stopped(next((one for one in (LEAF, TREE) if one not in off), PLACE), here.read)
        assert stop is not None or here.read() == [paid("bob")]
        return stop


def exchanged(off: frozenset[str]) -> Stop | None:
    """The rows that say whose a key is change places: erasing her would erase him, and keep her."""
    with house(off) as here:
        here.take("ann", "bob")
        database = sqlite3.connect(here.database)
        (one, its), (other, others) = database.execute("SELECT key, value FROM row WHERE space = ?", (SUBJECT,))
        database.close()
        for key, value in ((one, others), (other, its)):
            here.write("UPDATE row SET value = ? WHERE space = ? AND key = ?", value, SUBJECT, key)
        stop = stopped(TAGS, lambda: here.forget("ann"))
        assert stop is not None or here.read() == [paid("ann")]
        return stop


def put_back(off: frozenset[str]) -> Stop | None:
    """The database of before an erasure is put back, with the key that was destroyed in it."""
    with house(off) as here:
        here.take("ann")
        old = shutil.copy(here.database, here.database.with_suffix(".old"))
        here.forget("ann")
        shutil.copy(old, here.database)
        stop = stopped(MARK, here.read)
        assert stop is not None or here.read() == [paid("ann")]
        return stop


# the operator


def rewritten(off: frozenset[str]) -> Stop | None:
    """An old database is put back and goes on with other events, until it is longer than the true one: all signed."""
    with house(off) as here:
        here.take("ann")
        old = shutil.copy(here.database, here.database.with_suffix(".old"))
        here.take("bob")
        shutil.copy(old, here.database)
        here.make_up(here.producer if PRODUCER in off else None, 9)
        return stopped(MARK, here.start) or stopped(PRODUCER, here.audit)


def made_up(signed: bool, off: frozenset[str]) -> Stop | None:  # noqa: FBT001  # which of two attacks
    """A payment that never was is appended, signed by nobody but the log, or by somebody the log introduces."""
    with house(off) as here:
        here.take("ann")
        here.make_up(Producer.of_key(SigningKey.generate()) if signed else None)
        here.start()  # store, mark and witness have nothing against it: the log has grown
        return stopped(KNOWN if signed else PRODUCER, here.audit)


def catalogue() -> list[Attack]:
    """Return every attack on an event store."""
    return [
        Attack("events: whose it is, without decrypt", "events", whose),
        Attack("events: a stream, without read", "events", unread),
        Attack("events: a forgotten customer, again", "events", forgotten),
        Attack("events: ciphertext pasted over another", "events", pasted),
        Attack("events: keys of two customers exchanged", "events", exchanged),
        Attack("events: an old database put back", "events", put_back),
        Attack("events: rewritten with the log's key", "events", rewritten),
        Attack("events: made up by the operator", "events", partial(made_up, False)),
        Attack("events: made up, and signed by a key of his own", "events", partial(made_up, True)),
    ]
