"""What a service knows from the feed. Pure: messages in, resources out; no sockets, no threads.

A message is applied whole or not at all. Refused are bad signatures, other trust domains, numbers lower than the one
in force, replays of old messages, deltas with a gap, and results whose digest is not the signed one. After a gap the
next request asks for a snapshot; the last good state stays in force meanwhile.
"""

from collections.abc import Mapping

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.feed import LIFETIME, Message, Resource, digest_of
from hauberk.crypto.feed import open_message
from hauberk.crypto.signing import VerifyKey
from hauberk.errors import PolicyError

SLACK = 300.0  # seconds the authority's clock may be ahead of ours


class FeedState:
    """The resources in force here.

    Args:
        key: the authority's feed key.
        trust_domain: whose feed to accept.
        clock: time source.
    """

    def __init__(self, key: VerifyKey, trust_domain: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._key = key
        self._trust_domain = trust_domain
        self._clock = clock
        self._resources: Mapping[str, Resource] = {}
        self._issued = 0.0
        self._heard = clock.monotonic()
        self.number = 0
        self._gap = False

    @property
    def after(self) -> int:
        """What to ask for: changes after this number, 0 for a snapshot."""
        return 0 if self._gap else self.number

    def age(self) -> float:
        """Return how long ago the last good message came, in seconds."""
        return self._clock.monotonic() - self._heard

    def get(self, name: str) -> Resource | None:
        """Return a resource in force, or None."""
        return self._resources.get(name)

    def apply(self, wire: bytes) -> tuple[Resource, ...]:
        """Take a message and return the resources that changed, by name.

        Raises:
            PolicyError: HBK-304 older than what is in force, HBK-305 not genuine, a replay, or a gap; nothing changes.
        """
        message = open_message(wire, self._key)
        self._check(message)
        resources = dict(self._resources) if message.base else {}
        resources.update({resource.name: resource for resource in message.resources})
        if digest_of(resources.values()) != message.digest:
            self._gap = True
            raise PolicyError("HBK-305", "the state does not come out as signed", number=message.number)
        changed = tuple(
            resource
            for name, resource in sorted(resources.items())
            if (old := self._resources.get(name)) is None or old != resource
        )
        self._resources = resources
        self.number = message.number
        self._issued = message.issued
        self._heard = self._clock.monotonic()
        self._gap = False
        return changed

    def _check(self, message: Message) -> None:
        if message.trust_domain != self._trust_domain:
            raise PolicyError("HBK-305", "of another trust domain", found=message.trust_domain)
        if message.number < self.number or message.issued < self._issued:
            raise PolicyError("HBK-304", "older", offered=message.number, in_force=self.number)
        now = self._clock.time()
        if not now - LIFETIME - SLACK <= message.issued <= now + SLACK:
            raise PolicyError("HBK-305", "issued at another time", issued=message.issued)
        if message.base and message.base != self.number:
            self._gap = True
            raise PolicyError("HBK-305", "there is a gap", base=message.base, in_force=self.number)
