"""Write the vectors of the ledger's specification: `python scripts/spec_vectors.py`.

What the product writes for a few events under fixed keys, times and randomness, into `docs/spec/ledger-vectors.json`.
`tests/records/test_spec.py` makes them again from the rules of the page alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hauberk.adapters.memory import MemoryStore
from hauberk.core.clock import ManualClock
from hauberk.core.event import Event, Private
from hauberk.crypto.datakey import DataKey
from hauberk.crypto.keyring import Keyring
from hauberk.crypto.signing import SigningKey
from hauberk.records._tiles import StoredTree
from hauberk.records.keys import SubjectKeys
from hauberk.records.ledger import Ledger
from hauberk.records.statement import Producer

OUT = Path(__file__).resolve().parent.parent / "docs" / "spec" / "ledger-vectors.json"
LOG = "example.org/ledger"
TENANT = "default"
NOW = 1_790_000_000
LOG_SEED = bytes(range(32))
PRODUCER_SEED = bytes(range(32, 64))
PATIENCE = 10.0


class Zero:
    """A key source for vectors only."""

    def key(self, name: str) -> bytes:
        """Return 32 bytes that are no secret."""
        return name.encode().ljust(32, b"\0")


def counting() -> Callable[[int], bytes]:
    """Return a source of bytes that go up by one: what is random in real life is known here."""
    state = {"at": 0}

    def take(count: int) -> bytes:
        start, state["at"] = state["at"], state["at"] + count
        return bytes(at % 251 for at in range(start, start + count))

    return take


def event(number: int, kind: str, **more: Any) -> Event:  # noqa: ANN401  # whatever an event has
    """Return an event of the one stream there is."""
    return Event(
        id=bytes([number]) * 16, type=kind, stream="/streams/order-17", time_ns=NOW * 10**9,
        actor="spiffe://example.org/ns/production/sa/shop", **more,
    )  # fmt: skip


def events() -> list[Event]:
    """Return three events: clear, sealed for one, sealed for two."""
    shared = (Private("buyer", "cust-9", b'"Ann"'), Private("seller", "cust-4", b'{"name":"Bob"}'))
    return [
        event(1, "order.opened", data={"total": 3}),
        event(2, "order.placed", session="session:abc", private=(Private("email", "cust-9", b'"ann@example.org"'),)),
        event(3, "order.shared", alone=True, data={"note": "é"}, private=shared),
    ]


def made() -> dict[str, object]:
    """Return everything the page names."""
    store, clock = MemoryStore(), ManualClock(NOW)
    keys = SubjectKeys(store, Keyring(Zero(), random=counting()), TENANT, random=counting())
    producer = Producer.of_key(SigningKey(PRODUCER_SEED))
    ledger = Ledger(store, SigningKey(LOG_SEED), LOG, keys=keys, producer=producer, clock=clock)
    certified = events()
    ledger.append_batch(certified).result(PATIENCE)
    entries = list(ledger.entries())
    tree, size = StoredTree(store, LOG), ledger.head().size
    ids = {one: [key.hex() for key in keys.key_ids(one)] for one in ("cust-9", "cust-4")}
    found: dict[str, object] = {
        "log": LOG,
        "tenant": TENANT,
        "log_seed": LOG_SEED.hex(),
        "producer_seed": PRODUCER_SEED.hex(),
        "verifier": ledger.verifier,
        "keys": {one: {"id": key_ids[0], "key": opened(keys, store, key_ids[0])} for one, key_ids in ids.items()},
        "entries": [
            {
                "position": entry.position,
                "id": entry.id.hex(),
                "stream": entry.stream,
                "type": entry.type,
                "version": entry.version,
                "meta": entry.meta.decode(),
                "public": entry.public.decode(),
                "sealed": entry.sealed.hex(),
                "opened": {
                    path: value.decode() for path, value in keys.open(entry).items() if isinstance(value, bytes)
                },
                "leaf": entry.leaf.hex(),
                "statement": entry.statement.hex(),
                "proof": [step.hex() for step in tree.inclusion(entry.position, size)],
            }
            for entry in entries
        ],
        "tile": store.tile(LOG, 0, 0).hex(),
        "checkpoint": ledger.checkpoint(),
    }
    ledger.close()
    return found


def opened(keys: SubjectKeys, store: MemoryStore, key_id: str) -> str:
    """Return a subject's key in clear: these are vectors."""
    row = store.get("subject-key", bytes.fromhex(key_id))
    assert row is not None  # noqa: S101  # it was just made
    key = DataKey.unwrap(row.value[8:], keys._tenant_key())  # noqa: SLF001  # a vector needs what nobody else gets
    return key._raw.hex()  # noqa: SLF001  # the same


if __name__ == "__main__":
    OUT.write_text(json.dumps(made(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(OUT.name)
