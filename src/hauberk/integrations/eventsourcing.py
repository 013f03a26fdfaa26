"""Our ledger for the `eventsourcing` library: `PERSISTENCE_MODULE=hauberk.integrations.eventsourcing`.

An application written for that library runs unchanged, and what it records is sealed under a key per aggregate, bound
to its place, and part of a signed tree. Each application has logs of its own, `events` and `snapshots`, so that its
notification ids are positions plus one and never interleave with anything else. Settings, all from its environment:

```
HAUBERK_EVENTSOURCING_STORE   sqlite:PATH, postgresql://..., env:NAME or file:PATH of either, memory: for tests
HAUBERK_EVENTSOURCING_KEYS    file:DIRECTORY or env:PREFIX, where the root secret is
HAUBERK_EVENTSOURCING_MARKS   directory of high-water marks; PATH.marks beside a SQLite file, none for PostgreSQL
HAUBERK_EVENTSOURCING_LOG     what names of logs begin with; `eventsourcing`
```

A stored event is an entry of the stream `/streams/eventsourcing/APPLICATION/PURPOSE/ID`. Its topic is the entry's type;
its version and whether the stream was written in order so far are clear; its state is sealed under a path that names
both again, so neither can be changed unseen. Ids that are UUIDs are clear, ids that are text are replaced by a keyed
pseudonym and sealed: they may be a name. What was erased is left out wherever it would have been read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event as Flag
from typing import Any, TypeVar, cast
from uuid import UUID

from hauberk.core.ports import Check, Delete, Put, Row, Store, Write
from hauberk.errors import (
    ConfigError,
    Conflict,
    HauberkError,
    IdTaken,
    Malformed,
    OutcomeUnknown,
    Oversized,
    RecordsError,
    Tampered,
)
from hauberk.integrations._originators import Entries, Written
from hauberk.integrations._place import Lease, lease, settings
from hauberk.records.keys import SubjectKeys
from hauberk.records.ledger import Ledger

try:
    from eventsourcing import persistence
    from eventsourcing.persistence import Notification, StoredEvent, Tracking
    from eventsourcing.utils import Environment, EnvType, resolve_topic
except ImportError:
    raise ConfigError("HBK-907", "install hauberk[eventsourcing]") from None

POLL_SECONDS = 0.5  # between two looks for what other processes have recorded; one's own is seen at once
TRACKING = "eventsourcing-tracking"  # space of the rows that say how far an application has followed another
_NUMBER = 8  # bytes of a tracked notification id
_Class = TypeVar("_Class")


@contextmanager
def _mapped() -> Iterator[None]:
    """Raise what the library's applications know how to handle; what happened is the cause."""
    try:
        yield
    except (Oversized, Malformed) as error:
        raise persistence.DataError(str(error)) from error
    except (Conflict, IdTaken) as error:
        raise persistence.IntegrityError(str(error)) from error
    except Tampered as error:
        raise persistence.InternalError(str(error)) from error
    except OutcomeUnknown as error:
        raise persistence.OperationalError(str(error)) from error
    except RecordsError as error:
        kind = persistence.InterfaceError if error.code == "HBK-706" else persistence.OperationalError
        raise kind(str(error)) from error


class _Recorder:
    """What every recorder has.

    Args:
        lease: of the open store.
        application: whose recorder it is.
        purpose: of its log.
    """

    def __init__(self, lease: Lease, application: str, purpose: str = "events") -> None:
        self._lease = lease  # keeps the store open as long as any recorder lives
        self.application = application
        self.purpose = purpose

    @property
    def store(self) -> Store:
        """Where rows are; what a view writes there it hands to `record_tracking`."""
        return self._lease.place.store

    @property
    def namespace(self) -> str:
        """What tells this application's rows from those of others in the same store."""
        return self._lease.place.name_of(self.application, "")


class AggregateRecorder(_Recorder, persistence.AggregateRecorder):
    """Sequences of aggregates, or their snapshots."""

    def __init__(self, lease: Lease, application: str, purpose: str = "events") -> None:
        super().__init__(lease, application, purpose)
        with _mapped():
            self._entries = Entries(lease.place, application, purpose)

    @property
    def ledger(self) -> Ledger:
        """The log, for proofs: an event's position is its notification id less one."""
        return self._entries.ledger

    @property
    def verifier(self) -> str:
        """The public key that `hauberk ledger verify --key` takes."""
        return self._entries.ledger.verifier

    @property
    def keys(self) -> SubjectKeys:
        """Keys of aggregates."""
        return self._lease.place.keys

    def subject(self, originator_id: UUID | str) -> str:
        """Return the name of the subject under whose key an aggregate is sealed; erasing it erases the aggregate."""
        return self._entries.subject(originator_id)

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:  # noqa: ANN401  # the library's
        """Write events, all or none.

        Raises:
            IntegrityError: an originator has this version already.
        """
        self._insert(stored_events, **kwargs)
        return None

    def _insert(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int]:  # noqa: ANN401  # the library's
        with _mapped():
            return self._entries.write([_written(one) for one in stored_events])

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return events of one originator by version; none of one that was erased."""
        with _mapped():
            return [
                StoredEvent(one.originator, one.version, one.topic, one.state)
                for one in self._entries.read(originator_id, gt=gt, lte=lte, desc=desc, limit=limit)
            ]


class ApplicationRecorder(AggregateRecorder, persistence.ApplicationRecorder):
    """Sequences of aggregates and the one of the application."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:  # noqa: ANN401  # the library's
        """Write events, all or none, and return their notification ids.

        Raises:
            IntegrityError: an originator has this version already.
        """
        ids = self._insert(stored_events, **kwargs)
        self._entries.notify()
        return ids

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return notifications in order; what was erased is left out."""
        after = -1 if start is None else start - 2 if inclusive_of_start else start - 1
        with _mapped():
            return [
                Notification(one.originator, one.version, one.topic, one.state, id=position + 1)
                for position, one in self._entries.follow(after=after, before=stop, limit=limit, topics=topics)
            ]

    def max_notification_id(self) -> int | None:
        """Return the id of the last notification."""
        with _mapped():
            last = self._entries.last()
        return None if last is None else last + 1

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> "persistence.Subscription[persistence.ApplicationRecorder]":
        """Return an iterator of notifications, recorded already or yet to come, by this process or another."""
        return cast("persistence.Subscription[persistence.ApplicationRecorder]", Subscription(self, gt, topics))

    def listen(self, flag: Flag) -> None:
        """Set a flag whenever this process records something."""
        self._entries.listen(flag)

    def unlisten(self, flag: Flag) -> None:
        """Set it no more."""
        self._entries.unlisten(flag)


class Subscription(persistence.ListenNotifySubscription[ApplicationRecorder]):
    """Follows one application; what other processes record is found by looking again."""

    def __init__(self, recorder: ApplicationRecorder, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder, gt, topics)
        recorder.listen(self._has_been_notified)
        self._has_been_notified.set()  # something may have come between the first look and now

    def stop(self) -> None:
        """Stop the subscription."""
        super().stop()
        self._recorder.unlisten(self._has_been_notified)

    def _loop_on_pull(self) -> None:
        try:
            while not self._has_been_stopped:
                self._pull()
                self._has_been_notified.wait(POLL_SECONDS)
        except (persistence.PersistenceError, HauberkError) as error:
            self._thread_error = error
        finally:  # whatever ends it, whoever iterates must not wait for ever
            self.stop()


class TrackingRecorder(_Recorder, persistence.TrackingRecorder):
    """How far an application has followed others. Views derive from it and write their rows along."""

    def record_tracking(self, tracking: Tracking, rows: Sequence[Put | Delete | Check] = ()) -> None:
        """Record a tracking object and, in the same write, rows of a view.

        Raises:
            IntegrityError: this far has been recorded already, or a row is not as expected.
        """
        with _mapped():
            while True:
                row = self._tracking_row(tracking)
                try:
                    self.store.commit(Write(rows=(row, *rows)))
                except Conflict as error:
                    if error.context.get("space") != TRACKING:
                        raise
                else:
                    return

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record a tracking object.

        Raises:
            IntegrityError: this far has been recorded already.
        """
        self.record_tracking(tracking)

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the largest recorded notification id of that application."""
        with _mapped():
            row = self._tracked(application_name)
        return None if row is None else int.from_bytes(row.value)

    def _key(self, application_name: str) -> bytes:
        names = (self.namespace.encode(), application_name.encode())
        return b"".join(len(name).to_bytes(4) + name for name in names)

    def _tracked(self, application_name: str) -> Row | None:
        return self.store.get(TRACKING, self._key(application_name))

    def _tracking_row(self, tracking: Tracking) -> Put:
        row = self._tracked(tracking.application_name)
        if row is not None and int.from_bytes(row.value) >= tracking.notification_id:
            raise persistence.IntegrityError(f"tracking {tracking.notification_id} is recorded already")
        value = tracking.notification_id.to_bytes(_NUMBER)
        return Put(TRACKING, self._key(tracking.application_name), value, expected=row.revision if row else 0)


class ProcessRecorder(TrackingRecorder, ApplicationRecorder, persistence.ProcessRecorder):
    """An application that follows others: its events and how far it has come are one write."""

    def _insert(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        tracking: Tracking | None = None,
        **_: Any,  # noqa: ANN401  # the library's
    ) -> Sequence[int]:
        with _mapped():
            written = [_written(one) for one in stored_events]
            while True:
                rows = () if tracking is None else (self._tracking_row(tracking),)
                try:
                    return self._entries.write(written, rows)
                except Conflict as error:
                    if error.context.get("space") != TRACKING:
                        raise


def _written(stored: StoredEvent) -> Written:
    return Written(stored.originator_id, stored.originator_version, stored.topic, stored.state)


class Factory(persistence.InfrastructureFactory[TrackingRecorder]):
    """What `PERSISTENCE_MODULE` names. All factories of a process that name the same store share it.

    Args:
        env: the library's environment; see the module.

    Raises:
        ConfigError: HBK-901 a setting is missing or wrong, HBK-905 there is no key, HBK-907 an extra is not installed.
        RecordsError: HBK-703, HBK-706 the store cannot be opened.
    """

    aggregate_recorder_class = AggregateRecorder
    application_recorder_class = ApplicationRecorder
    tracking_recorder_class = TrackingRecorder
    process_recorder_class = ProcessRecorder

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._lease = lease(settings(self.env))
        self._name = self.env.name or "stored"

    def _chosen(self, topic: str, default: type[_Class]) -> type[_Class]:
        """Return the class that the environment names, which has to be one of ours."""
        name = self.env.get(topic)
        return _checked(resolve_topic(name), default) if name else default

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return a recorder of aggregates' events or, for the purpose `snapshots`, of their snapshots."""
        return self.aggregate_recorder_class(self._lease, self._name, purpose)

    def application_recorder(self) -> ApplicationRecorder:
        """Return a recorder of an application's events."""
        made = self._chosen(self.APPLICATION_RECORDER_TOPIC, self.application_recorder_class)
        return made(self._lease, self._name)

    def tracking_recorder(self, tracking_recorder_class: type[TrackingRecorder] | None = None) -> TrackingRecorder:
        """Return a recorder of how far others were followed, or a view."""
        made = tracking_recorder_class or self._chosen(self.TRACKING_RECORDER_TOPIC, self.tracking_recorder_class)
        return _checked(made, TrackingRecorder)(self._lease, self._name)

    def process_recorder(self) -> ProcessRecorder:
        """Return a recorder of an application that follows others."""
        made = self._chosen(self.PROCESS_RECORDER_TOPIC, self.process_recorder_class)
        return made(self._lease, self._name)

    def close(self) -> None:
        """Let the store go; it closes with the last one that uses it."""
        self._lease.close()


def _checked(made: type[Any], kind: type[_Class]) -> type[_Class]:
    if not issubclass(made, kind):
        raise ConfigError("HBK-901", "a recorder class derives from ours", found=made.__qualname__, key=kind.__name__)
    return made
