"""What happened is provable: events, the ledger under them, and erasing people from both.

Nothing is loaded until a name is used (PEP 562).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hauberk.core.ports import ANY
    from hauberk.records.appending import NO_STREAM, Appended, Batch
    from hauberk.records.audit import AuditLog, Level, Outcome
    from hauberk.records.audit_query import AuditReader, Wanted
    from hauberk.records.cloudevents import Imported, encode_cloudevents, from_cloudevent, to_cloudevent
    from hauberk.records.epochs import PseudonymEpochs
    from hauberk.records.erasure import Certificate
    from hauberk.records.hidden import About, Erased, Pii, Redacted, Subject
    from hauberk.records.keys import SubjectKeys
    from hauberk.records.ledger import Ledger, Proof
    from hauberk.records.pending import Pending
    from hauberk.records.permission import Actor, Context
    from hauberk.records.projection import Projection
    from hauberk.records.reading import Reading, Recorded
    from hauberk.records.retention import Archive, Pruned, Retention
    from hauberk.records.snapshot import Snapshot
    from hauberk.records.store import EventStore
    from hauberk.records.subscription import Subscription
    from hauberk.records.typed import Event, Untyped
    from hauberk.records.upcasting import Fields, Sealed, upcast
    from hauberk.records.witnessed import Uncosigned

_HOME = {
    "ANY": "hauberk.core.ports",
    "About": "hauberk.records.hidden",
    "Actor": "hauberk.records.permission",
    "Appended": "hauberk.records.appending",
    "Archive": "hauberk.records.retention",
    "AuditLog": "hauberk.records.audit",
    "AuditReader": "hauberk.records.audit_query",
    "Batch": "hauberk.records.appending",
    "Certificate": "hauberk.records.erasure",
    "Context": "hauberk.records.permission",
    "Erased": "hauberk.records.hidden",
    "Event": "hauberk.records.typed",
    "EventStore": "hauberk.records.store",
    "Fields": "hauberk.records.upcasting",
    "Imported": "hauberk.records.cloudevents",
    "Ledger": "hauberk.records.ledger",
    "Level": "hauberk.records.audit",
    "NO_STREAM": "hauberk.records.appending",
    "Outcome": "hauberk.records.audit",
    "Pending": "hauberk.records.pending",
    "Pii": "hauberk.records.hidden",
    "Projection": "hauberk.records.projection",
    "Proof": "hauberk.records.ledger",
    "Pruned": "hauberk.records.retention",
    "PseudonymEpochs": "hauberk.records.epochs",
    "Reading": "hauberk.records.reading",
    "Recorded": "hauberk.records.reading",
    "Redacted": "hauberk.records.hidden",
    "Retention": "hauberk.records.retention",
    "Sealed": "hauberk.records.upcasting",
    "Snapshot": "hauberk.records.snapshot",
    "Subject": "hauberk.records.hidden",
    "SubjectKeys": "hauberk.records.keys",
    "Subscription": "hauberk.records.subscription",
    "Uncosigned": "hauberk.records.witnessed",
    "Untyped": "hauberk.records.typed",
    "Wanted": "hauberk.records.audit_query",
    "encode_cloudevents": "hauberk.records.cloudevents",
    "from_cloudevent": "hauberk.records.cloudevents",
    "to_cloudevent": "hauberk.records.cloudevents",
    "upcast": "hauberk.records.upcasting",
}
__all__ = [
    "ANY",
    "NO_STREAM",
    "About",
    "Actor",
    "Appended",
    "Archive",
    "AuditLog",
    "AuditReader",
    "Batch",
    "Certificate",
    "Context",
    "Erased",
    "Event",
    "EventStore",
    "Fields",
    "Imported",
    "Ledger",
    "Level",
    "Outcome",
    "Pending",
    "Pii",
    "Projection",
    "Proof",
    "Pruned",
    "PseudonymEpochs",
    "Reading",
    "Recorded",
    "Redacted",
    "Retention",
    "Sealed",
    "Snapshot",
    "Subject",
    "SubjectKeys",
    "Subscription",
    "Uncosigned",
    "Untyped",
    "Wanted",
    "encode_cloudevents",
    "from_cloudevent",
    "to_cloudevent",
    "upcast",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home on first use."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'hauberk.records' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # loaded on use: nothing here may slow the facade

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
