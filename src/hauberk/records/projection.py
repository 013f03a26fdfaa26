"""Projections: whatever a program makes of events, kept up to date and able to forget."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from hauberk.records.evidence import ERASED
from hauberk.records.pending import Pending
from hauberk.records.permission import Actor
from hauberk.records.reading import Recorded
from hauberk.records.streams import ERASURES
from hauberk.records.subscription import Subscription
from hauberk.records.typed import Untyped

if TYPE_CHECKING:
    from hauberk.records.store import EventStore


class Projection(ABC):
    """Give it a `name`, the `streams` it is made of, and `apply`.

    Events come at least once, in the order of the ledger; the cursor follows `apply` closely. Fields may be
    `Redacted` or `Erased`. A projection that keeps what it was shown also has to forget it: `forget` is called with the
    ids of destroyed keys, which are those in `Recorded.keys` of the events they came from.
    """

    name: ClassVar[str]
    streams: ClassVar[tuple[str, ...]] = ("*",)

    @abstractmethod
    def apply(self, item: Recorded[Any]) -> None:
        """Take one event."""

    def forget(self, keys: frozenset[str]) -> None:  # noqa: B027  # most keep nothing of anybody
        """Forget everything that came under these keys; by default there is nothing to forget."""

    def subscribe(self, store: "EventStore", actor: Actor) -> Subscription[Any]:
        """Return what `follow` goes through; close it to end that."""
        return store.subscribe((*self.streams, ERASURES), name=self.name, actor=actor, unknown="keep")

    def follow(self, subscription: Subscription[Any]) -> None:
        """Apply events until the subscription is closed.

        Raises:
            Denied: HBK-300 the right to subscribe has ended.
        """
        moved: Pending[None] | None = None
        for item in subscription:
            self.take(item)
            if moved is not None and moved.done():
                moved.result()  # or somebody else has taken over
            moved = subscription.ack(item)
        if moved is not None:
            moved.result()

    async def follow_async(self, subscription: Subscription[Any]) -> None:
        """Apply events until the subscription is closed; `apply` runs in the event loop.

        Raises:
            Denied: HBK-300 the right to subscribe has ended.
        """
        moved: Pending[None] | None = None
        async for item in subscription:
            self.take(item)
            if moved is not None and moved.done():
                await moved
            moved = subscription.ack(item)
        if moved is not None:
            await moved

    def take(self, item: Recorded[Any]) -> None:
        """Apply an event, or forget by a certificate of erasure."""
        if item.stream != ERASURES:
            self.apply(item)
        elif item.type == ERASED and isinstance(item.event, Untyped):
            self.forget(frozenset(str(key["id"]) for key in _keys(item.event)))


def _keys(event: Untyped) -> list[dict[str, object]]:
    found = event.data.get("keys")
    return found if isinstance(found, list) else []
