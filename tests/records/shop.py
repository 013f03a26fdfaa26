"""A shop that records what it does: event classes, policies, and an event store over them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.call import Call, Workload
from hauberk.core.clock import ManualClock
from hauberk.core.decision import Decision
from hauberk.core.event import Entry
from hauberk.core.ports import Bus, Store
from hauberk.core.principal import Kind, Principal
from hauberk.crypto.keyring import Keyring, Pseudonyms
from hauberk.crypto.signing import SigningKey
from hauberk.policy.engine import Engine
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.records.appending import Appended
from hauberk.records.hidden import About, Pii, Subject
from hauberk.records.keys import SubjectKeys
from hauberk.records.ledger import Ledger
from hauberk.records.permission import Context
from hauberk.records.retention import Retention
from hauberk.records.store import EventStore
from hauberk.records.typed import Event
from tests.records.made import NOW, ORIGIN, PATIENCE
from tests.support.postgres import database

ENGINES = ["memory", "sqlite", "postgres"]
TARGET = Workload("production", "order-service")


def workload(account: str) -> Principal:
    return Principal(Kind.WORKLOAD, f"spiffe://example.org/ns/production/sa/{account}")


OWNER = workload("owner")  # may do everything
CLERK = workload("clerk")  # appends to and reads orders, decrypts nothing
PACKER = workload("packer")  # subscribes to orders and decrypts them
STRANGER = workload("stranger")  # may do nothing
ANN = Principal(Kind.USER, "https://id.example.org/ann", {"role": "buyer"})

POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: records, namespace: production}
spec:
  rules:
  - from: [{source: {principals: [example.org/ns/production/sa/owner]}}]
  - from: [{source: {principals: [example.org/ns/production/sa/clerk]}}]
    to: [{operation: {methods: [append, read], paths: ["/streams/order-*"]}}]
  - from: [{source: {principals: [example.org/ns/production/sa/packer]}}]
    to: [{operation: {methods: [subscribe, decrypt], paths: ["/streams/order-*"]}}]
  - to: [{operation: {methods: [read], paths: ["/streams/mine-*"]}}]
    when: [{key: "request.auth.claims[role]", values: [buyer]}]
"""
NOBODY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: records, namespace: production}
spec: {}
"""


class Address(msgspec.Struct, frozen=True):
    street: str
    zip: str | None = None


class OrderPlaced(Event, type="shop.order.placed.v1"):
    order: str
    customer: Subject
    email: Pii[str]
    phone: Pii[str | None] = None
    home: Pii[Address | None] = None
    when: datetime | None = None
    lines: list[str] = msgspec.field(default_factory=list)
    total: int


class OrderPaid(Event, type="shop.order.paid.v1", sign="event"):
    order: str
    amount: int


class Sold(Event, type="shop.sold.v1"):
    buyer: Subject
    seller: Subject
    to: Annotated[Pii[str], About("buyer")]
    iban: Annotated[Pii[str], About("seller")]


class OrderState(Event, type="shop.order.state.v1"):
    customer: Subject
    email: Pii[str]
    total: int


def placed(number: int = 1, *, customer: str = "ann", **fields: object) -> OrderPlaced:
    made = OrderPlaced(order=f"order-{number}", customer=customer, email=f"{customer}@example.org", total=number)
    return msgspec.structs.replace(made, **fields)


def engine(policies: str = POLICIES) -> Engine:
    documents = PolicySet.default().with_documents(parse_documents(policies))
    return Engine(documents, TARGET)


@contextmanager
def stored(engine: str, directory: Path) -> Iterator[Store]:
    """Lend a store of one kind."""
    with ExitStack() as taken:
        made: Store
        if engine == "postgres":
            made = PostgresStore(taken.enter_context(database()))
        else:
            made = MemoryStore() if engine == "memory" else SqliteStore(directory / "shop.db")
        taken.callback(made.close)
        yield made


class InForce:
    """What decides, and can be exchanged: as a runtime does."""

    def __init__(self, policies: str = POLICIES) -> None:
        self.engine = engine(policies)
        self.moment = object()
        self.asked: list[Call] = []

    def apply(self, policies: str) -> None:
        self.engine = engine(policies)
        self.moment = object()

    def decide(self, call: Call) -> Decision:
        self.asked.append(call)
        return self.engine.decide(call)


class Shop:
    """A shop's event store, and what it takes to open it again."""

    def __init__(
        self, directory: Path, inner: Store | None = None, *, bus: Bus | None = None, shared: bool = False,
        poll: float = PATIENCE,
    ) -> None:  # fmt: skip
        self.inner: Store = MemoryStore() if inner is None else inner
        self.keyring = Keyring(FileKeySource(directory / "keys"))
        self.rows = AuthenticRows(self.inner, self.keyring)
        self.signer = SigningKey.generate()
        self.policy = InForce()
        self.clock = ManualClock(NOW)
        self.pseudonyms = Pseudonyms(b"p" * 32)
        self.bus = bus
        self.shared = shared
        self.poll = poll
        self.open()

    def open(self) -> None:
        self.keys = SubjectKeys(self.rows, self.keyring, shared=self.shared)
        self.ledger = Ledger(self.rows, self.signer, ORIGIN, keys=self.keys, clock=self.clock)
        self.store = EventStore(
            self.ledger, self.rows, policy=self.policy, pseudonyms=self.pseudonyms, target=TARGET, bus=self.bus,
            clock=self.clock, poll=self.poll,
        )  # fmt: skip

    def close(self) -> None:
        self.store.close()
        self.ledger.close()

    def again(self) -> None:
        """Stop, and start again on what was stored."""
        self.close()
        self.open()

    def append(
        self, stream: str, *events: Event, actor: Context | Principal | Call = OWNER, **options: object
    ) -> Appended:
        return self.store.append(stream, events, actor=actor, **options).result(PATIENCE)  # type: ignore[arg-type]  # as given

    def read(
        self, stream: str | Sequence[str] = "*", *, actor: Context | Principal = OWNER, **options: object
    ) -> list[Event]:
        return [item.event for item in self.store.read(stream, actor=actor, **options)]  # type: ignore[call-overload]  # as given

    def entry(self, position: int) -> Entry:
        return next(self.ledger.entries(after=position - 1, limit=1))

    def entries(self, stream: str) -> list[Entry]:
        return list(self.ledger.stream(stream))

    def retention(self, days: dict[str, int] | None = None, classes: dict[str, str] | None = None) -> Retention:
        return Retention(self.ledger, self.rows, self.store.permission, days=days or {}, classes=classes or {})
