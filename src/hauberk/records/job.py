"""What waits for the sequencer: events that share one fate, with what they expect and what goes along with them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType

import msgspec

from hauberk.core.event import Event, Receipt
from hauberk.core.ports import Check, Delete, Draft, Put, made
from hauberk.errors import RecordsError
from hauberk.records._encode import encode_event
from hauberk.records.keys import KEY
from hauberk.records.statement import Producer, Statement

NOTHING_EXPECTED: Mapping[str, int] = MappingProxyType({})
_log = logging.getLogger("hauberk.records")


class Pair(msgspec.Struct, gc=False):
    """An event and its two clear parts as encoded. Thousands are alive at once, and none is part of a cycle."""

    event: Event
    meta: bytes
    public: bytes


class Signed(msgspec.Struct, gc=False):
    """What another producer signed about the events of a job; its `count` is filled in by the sequencer."""

    producer: Producer
    statement: Statement


class Job(msgspec.Struct, gc=False):
    """Events that commit together or not at all. What nobody waits for has no future, and is encoded by the sequencer.

    Args:
        drafts: events, or what makes them.
        pairs: the same, encoded.
        done: who waits.
        expected: the version that each of these streams must have.
        rows: written in the same commit.
        signed: by somebody else than the log's own producer.
    """

    drafts: Sequence[Event | Draft]
    pairs: Sequence[Pair] = ()
    done: "Future[list[Receipt]] | None" = None
    expected: Mapping[str, int] = NOTHING_EXPECTED
    rows: Sequence[Put | Delete | Check] = ()
    signed: Signed | None = None

    @property
    def erased(self) -> frozenset[bytes]:
        """Ids of the keys that this job destroys; such a job is committed alone."""
        return frozenset(row.key for row in self.rows if isinstance(row, Delete) and row.space == KEY)

    def prepare(self) -> bool:
        """Encode what nobody waits for; what cannot be encoded is reported and left out: False."""
        if not self.pairs and self.drafts:
            try:
                self.pairs = encoded(made(draft) for draft in self.drafts)
            except RecordsError as error:
                self.settle(error)
                return False
        return True

    def settle(self, outcome: "list[Receipt] | RecordsError") -> None:
        """Tell whoever waits."""
        if self.done is None:
            if isinstance(outcome, RecordsError):
                _log.error("an event could not be recorded: %s", outcome.code)
        elif self.done.done():
            return
        elif isinstance(outcome, RecordsError):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)


def weight(job: Job) -> int:
    """Return how many events a job is."""
    return len(job.drafts)


def encoded(events: Iterable[Event]) -> list[Pair]:
    """Return events with their clear parts.

    Raises:
        RecordsError: HBK-715, HBK-716 one cannot be stored.
    """
    return [Pair(event, *encode_event(event)) for event in events]
