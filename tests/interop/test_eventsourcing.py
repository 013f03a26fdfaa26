"""The library's own reusable tests of recorders, factories, applications and projections, on our store, encrypted."""

import atexit
import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from itertools import count
from typing import Any, ClassVar
from unittest import TestCase, mock
from uuid import UUID, uuid4

import pytest

pytest.importorskip("eventsourcing")

from eventsourcing.persistence import ApplicationRecorder as AnyApplicationRecorder
from eventsourcing.persistence import Tracking
from eventsourcing.utils import Environment

from hauberk.core.ports import Put
from hauberk.integrations.eventsourcing import (
    AggregateRecorder,
    ApplicationRecorder,
    Factory,
    ProcessRecorder,
    TrackingRecorder,
)
from tests.support.eventsourcing import application, persistence, projection
from tests.support.postgres import database

_numbers = count()
MODULE = "hauberk.integrations.eventsourcing"


class Counters(TrackingRecorder, projection.EventCountersView):
    """A view that keeps its numbers in rows, written together with how far it has come."""

    @property
    def _space(self) -> str:
        return f"counters of {self.namespace}"

    def _count(self, name: bytes) -> tuple[int, int]:
        row = self.store.get(self._space, name)
        return (int.from_bytes(row.value), row.revision) if row else (0, 0)

    def _raise(self, name: bytes, tracking: Tracking) -> None:
        count, revision = self._count(name)
        self.record_tracking(tracking, (Put(self._space, name, (count + 1).to_bytes(8), expected=revision),))

    def get_created_event_counter(self) -> int:
        return self._count(b"created")[0]

    def get_subsequent_event_counter(self) -> int:
        return self._count(b"subsequent")[0]

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self._raise(b"created", tracking)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self._raise(b"subsequent", tracking)


@cache
def shared() -> Mapping[str, str]:
    """Settings of a PostgreSQL database for all tests, each of which has logs under another name."""
    lent = ExitStack()
    atexit.register(lent.close)
    directory = lent.enter_context(tempfile.TemporaryDirectory())
    return {
        "HAUBERK_EVENTSOURCING_STORE": lent.enter_context(database()),
        "HAUBERK_EVENTSOURCING_KEYS": f"file:{directory}/keys",
    }


class Stage:
    """A store of its own for each test, and an environment that names it. Mixed into a test case of the library."""

    kind: ClassVar[str]

    def setUp(self) -> None:
        self.lent = ExitStack()
        self.settings = {"PERSISTENCE_MODULE": MODULE, "HAUBERK_EVENTSOURCING_LOG": f"test-{next(_numbers)}"}
        if self.kind == "postgres":
            self.settings |= shared()
        else:
            directory = self.lent.enter_context(tempfile.TemporaryDirectory())
            self.settings |= {
                "HAUBERK_EVENTSOURCING_STORE": f"sqlite:{directory}/events.db",
                "HAUBERK_EVENTSOURCING_KEYS": f"file:{directory}/keys",
            }
        self.prepare()
        super().setUp()  # type: ignore[misc]  # of the test case this is mixed into

    def prepare(self) -> None:
        """Make what this kind of test case needs."""
        made = Factory(Environment(name="test", env=self.settings))
        self.lent.callback(made.close)
        self.made = made

    def tearDown(self) -> None:
        super().tearDown()  # type: ignore[misc]  # of the test case this is mixed into
        self.lent.close()


class Aggregates(Stage):
    def create_recorder(self) -> AggregateRecorder:
        return self.made.aggregate_recorder()


class Snapshots(Stage):
    def create_recorder(self) -> AggregateRecorder:
        return self.made.aggregate_recorder("snapshots")


class TextAggregates(Aggregates):
    def new_originator_id(self) -> UUID | str:
        return f"customer {uuid4()}"


class Applications(Stage):
    def create_recorder(self) -> ApplicationRecorder:
        return self.made.application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()  # type: ignore[attr-defined]  # of the test case this is mixed into


class TextApplications(Applications):
    def new_originator_id(self) -> UUID | str:
        return f"customer {uuid4()}"


class Trackings(Stage):
    def create_recorder(self) -> TrackingRecorder:
        return self.made.tracking_recorder()


class Processes(Stage):
    def create_recorder(self) -> ProcessRecorder:
        return self.made.process_recorder()


class Notifications(Stage):
    def create_recorder(self) -> AnyApplicationRecorder:
        return self.made.application_recorder()


class Factories(Stage):
    def prepare(self) -> None:
        self.env = Environment(name="test", env=self.settings)

    def expected_factory_class(self) -> type[Factory]:
        return Factory

    def expected_aggregate_recorder_class(self) -> type[AggregateRecorder]:
        return AggregateRecorder

    def expected_application_recorder_class(self) -> type[ApplicationRecorder]:
        return ApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[TrackingRecorder]:
        return TrackingRecorder

    def tracking_recorder_subclass(self) -> type[TrackingRecorder]:
        return Counters

    def expected_process_recorder_class(self) -> type[ProcessRecorder]:
        return ProcessRecorder


@pytest.mark.filterwarnings("default::DeprecationWarning")
class Everywhere(Stage):
    """Settings are in the environment of the process, as an application finds them."""

    expected_factory_topic = f"{MODULE}:Factory"

    def prepare(self) -> None:
        self.lent.enter_context(mock.patch.dict(os.environ, self.settings))


class Views(Stage):
    def construct_event_counters_view(self) -> Counters:
        view = self.made.tracking_recorder(Counters)
        assert isinstance(view, Counters)
        return view


class Projections(Stage):
    view_class = Counters

    def prepare(self) -> None:
        self.env = self.settings


class TaggedProjections(Projections):
    """The application is one of the library's own, in memory; the view is ours."""

    def prepare(self) -> None:
        self.env = {
            **self.settings,
            "PERSISTENCE_MODULE": "eventsourcing.dcb.popo",
            "MAPPER_TOPIC": "eventsourcing.dcb.msgpack:MessagePackMapper",
            "EVENTCOUNTERS_PERSISTENCE_MODULE": MODULE,
        }


CASES: Mapping[type[Stage], type[TestCase]] = {
    Aggregates: persistence.AggregateRecorderTestCase,
    Snapshots: persistence.AggregateRecorderTestCase,
    TextAggregates: persistence.AggregateRecorderTestCase,
    Applications: persistence.ApplicationRecorderTestCase,
    TextApplications: persistence.ApplicationRecorderTestCase,
    Trackings: persistence.TrackingRecorderTestCase,
    Processes: persistence.ProcessRecorderTestCase,
    Notifications: persistence.NonInterleavingNotificationIDsBaseCase,
    Factories: persistence.InfrastructureFactoryTestCase,
    type("Examples", (Everywhere,), {}): application.ExampleApplicationTestCase,
    Everywhere: application.ApplicationTestCase,
    Views: projection.EventCountersViewTestCase,
    Projections: projection.AggregateEventCountersProjectionTestCase,
    type("Sourced", (Projections,), {}): projection.EventSourcedProjectionTestCase,
    TaggedProjections: projection.TaggedDecisionCountersProjectionTestCase,
}


def _made() -> Mapping[str, type]:
    return {
        f"Test{stage.__name__}On{kind.title()}": type(stage.__name__, (stage, case), {"kind": kind})
        for stage, case in CASES.items()
        for kind in ("sqlite", "postgres")
    }


globals().update(_made())


def test_every_reusable_test_case_of_the_library_is_used() -> None:
    """Except those of its own encoding of events, which is not the store's."""
    present: set[Any] = {
        one
        for module in (persistence, application, projection)
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, TestCase) and one.__module__ == module.__name__
    }
    unused = present - set(CASES.values()) - {TestCase}
    assert {one.__name__ for one in unused} == {"RecorderTestCase", "TranscoderTestCase"}
