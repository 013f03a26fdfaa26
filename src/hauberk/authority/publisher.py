"""The authority's side of the feed: numbers resources, keeps them, and answers long polls with deltas or snapshots."""

import threading
from collections.abc import Callable

import msgspec

from hauberk.authority.registry import each_row
from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.feed import Message, Resource, digest_of
from hauberk.core.ports import Put, Store, Write
from hauberk.crypto.feed import sign_message
from hauberk.crypto.signing import SigningKey

SPACE = "feed"
KEPT = 1_000  # numbers a delta may span; whoever is further behind gets a snapshot
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Resource).decode


class Publisher:
    """Holds the resources in force and signs messages about them. Thread-safe.

    Args:
        store: where resources are kept.
        key: the feed key.
        trust_domain: whose feed this is.
        clock: time source.
    """

    def __init__(self, store: Store, key: SigningKey, trust_domain: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._store = store
        self._key = key
        self._trust_domain = trust_domain
        self._clock = clock
        self._lock = threading.Lock()  # guards _resources, number and _listeners
        self._listeners: list[Callable[[], None]] = []
        rows = [_decode(row.value) for row in each_row(store, SPACE)]
        self._resources = {resource.name: resource for resource in rows}
        self.number = max((resource.number for resource in rows), default=0)

    def put(self, name: str, body: msgspec.Struct) -> int:
        """Put a resource in force, durable when this returns, and return the feed's new number."""
        with self._lock:
            resource = Resource(name, self.number + 1, msgspec.json.encode(body))
            self._store.commit(Write(rows=(Put(SPACE, name.encode(), _encode(resource)),)))
            self._resources[name] = resource
            self.number = resource.number
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()
        return resource.number

    def get(self, name: str) -> Resource | None:
        """Return a resource in force, or None."""
        return self._resources.get(name)

    def message(self, after: int) -> bytes:
        """Return a signed message for somebody who has number `after`; a heartbeat when there is nothing new."""
        with self._lock:
            resources, number = tuple(self._resources.values()), self.number
        base = after if 0 < after <= number and number - after <= KEPT else 0
        changed = tuple(resource for resource in resources if resource.number > base)
        return sign_message(
            Message(self._trust_domain, base, number, self._clock.time(), digest_of(resources), changed), self._key
        )

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call `call` after each change, from the thread that made it; the returned function ends that."""
        with self._lock:
            self._listeners.append(call)

        def forget() -> None:
            with self._lock:
                self._listeners.remove(call)

        return forget
