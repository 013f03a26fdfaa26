"""A clinic's appointments, written for the `eventsourcing` library: `python -m examples.eventsourcing.clinic`.

It knows nothing of us. Run as it is, everything stays in memory. Three variables put the same program on our ledger:

```
PERSISTENCE_MODULE=hauberk.integrations.eventsourcing
HAUBERK_EVENTSOURCING_STORE=sqlite:clinic.db
HAUBERK_EVENTSOURCING_KEYS=file:keys
```
"""

from datetime import date
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import AggregateNotFoundError, Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, DomainEventProtocol, event
from eventsourcing.system import ProcessApplication, SingleThreadedRunner, System


class Patient(Aggregate):
    """Somebody and their appointments."""

    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name = name
        self.appointments: dict[str, str] = {}

    class Booked(Aggregate.Event):
        """An appointment was made."""

        day: str
        reason: str

    @event(Booked)
    def book(self, day: str, reason: str) -> None:
        """Make an appointment."""
        self.appointments[day] = reason

    @event("Cancelled")
    def cancel(self, day: str) -> None:
        """Cancel what is on a day."""
        del self.appointments[day]


class Clinic(Application[UUID]):
    """Its front desk."""

    is_snapshotting_enabled = True

    def register(self, name: str) -> UUID:
        """Register a patient."""
        patient = Patient(name)
        self.save(patient)
        return patient.id

    def book(self, patient: UUID, day: date, reason: str) -> None:
        """Make an appointment."""
        found: Patient = self.repository.get(patient)
        found.book(day.isoformat(), reason)
        self.save(found)

    def cancel(self, patient: UUID, day: date) -> None:
        """Cancel what is on a day."""
        found: Patient = self.repository.get(patient)
        found.cancel(day.isoformat())
        self.save(found)

    def appointments(self, patient: UUID) -> dict[str, str]:
        """Return a patient's appointments."""
        found: Patient = self.repository.get(patient)
        return found.appointments


class Day(Aggregate):
    """How busy a day is."""

    def __init__(self, day: str) -> None:
        self.day = day
        self.booked = 0

    @staticmethod
    def create_id(day: str) -> UUID:
        """Return the id of a day."""
        return uuid5(NAMESPACE_URL, f"/days/{day}")

    @event("Counted")
    def count(self) -> None:
        """One appointment more."""
        self.booked += 1


class Calendar(ProcessApplication[UUID]):
    """Follows the clinic and counts."""

    @singledispatchmethod
    def policy(self, domain_event: DomainEventProtocol[UUID], processing_event: ProcessingEvent[UUID]) -> None:
        """Do nothing about other events."""

    @policy.register
    def _(self, domain_event: Patient.Booked, processing_event: ProcessingEvent[UUID]) -> None:
        try:
            day: Day = self.repository.get(Day.create_id(domain_event.day))
        except AggregateNotFoundError:
            day = Day(domain_event.day)
        day.count()
        processing_event.collect_events(day)

    def booked(self, day: date) -> int:
        """Return how many appointments were made for a day."""
        found: Day = self.repository.get(Day.create_id(day.isoformat()))
        return found.booked


def main() -> None:
    """Spend a morning at the front desk."""
    monday, tuesday = date(2026, 3, 2), date(2026, 3, 3)
    with SingleThreadedRunner[UUID](System(pipes=[[Clinic, Calendar]])) as runner:
        clinic, calendar = runner.get(Clinic), runner.get(Calendar)
        alice, bob = clinic.register("Alice Example"), clinic.register("Bob Example")
        clinic.book(alice, monday, "vaccination")
        clinic.book(alice, tuesday, "blood test")
        clinic.take_snapshot(alice)
        clinic.book(bob, monday, "check-up")
        clinic.cancel(alice, monday)
        print("alice:", clinic.appointments(alice))
        print("bob:", clinic.appointments(bob))
        print("made for", monday, calendar.booked(monday))
        print("recorded:", clinic.recorder.max_notification_id(), calendar.recorder.max_notification_id())


if __name__ == "__main__":
    main()
