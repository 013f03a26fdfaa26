"""Asking the audit log: by user, resource, action, outcome and time, each answer with the proof that it is in the log.

A person is looked for under the pseudonyms of every live epoch, so who asks has to have their key. Only streams the
policy allows are shown: `read` on the pattern that was asked for, then on each stream. Reading is recorded before
anything is shown, once a minute for each reader and question; those records are in a stream of their own, so asking
does not feed on itself.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import sha256
from itertools import islice
from typing import Protocol

import msgspec

from hauberk.core.call import Call
from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.event import Entry, Event, Leaf
from hauberk.core.ports import END, Store
from hauberk.crypto.merkle import leaf_hash, verify_inclusion
from hauberk.crypto.note import decode_key
from hauberk.errors import Malformed, RecordsError, Tampered
from hauberk.records._encode import decode_event
from hauberk.records._tiles import StoredTree
from hauberk.records.access import Reads
from hauberk.records.audit import MAX_ACTION, MAX_RESOURCE, ROOT
from hauberk.records.details import kept_text
from hauberk.records.heads import signed_frontier
from hauberk.records.permission import Actor, Context, Permission
from hauberk.records.streams import Pattern
from hauberk.records.view import entry_view

PAGE = 1_000  # entries looked at in one go
MAX_HITS = 1_000  # of one question
MAX_ASKED = 300  # characters of a question as it is recorded
_MANY = "*"  # at the end of a resource: all that start so


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which entries; what is empty may be anything.

    Args:
        user: whose actions, as the application knows them; or a workload's SPIFFE id.
        session: of the user.
        address: where from.
        resource: what was acted on; with a `*` at the end, whatever starts so.
        action: such as `read`.
        outcome: such as `denied`.
        kind: type of the entry, such as `audit.access`.
        stream: name or pattern of streams.
        since_ns: Unix nanoseconds, of what the producer says about when it was.
        until_ns: below this one.
        after: only above this position, and the first ones; None means the last ones.
        limit: how many at most.
    """

    user: str = ""
    session: str = ""
    address: str = ""
    resource: str = ""
    action: str = ""
    outcome: str = ""
    kind: str = ""
    stream: str = f"{ROOT}/*"
    since_ns: int = 0
    until_ns: int = END
    after: int | None = None
    limit: int = 100


class Owner:
    """Whoever may read the keys on disk may read what they hide; that it was done is recorded."""

    digest = "owner of the state directory"

    def decide(self, call: Call) -> Decision:
        """Allow it."""
        del call
        return Decision(Verdict.ALLOW, Layer.POLICY, reason=self.digest)


class Every(Protocol):
    """What computes pseudonyms over all live keys; see `records.epochs`."""

    def every(self, kind: str, value: str) -> tuple[str, ...]:
        """Return the pseudonyms, the latest first; none for an empty value."""


class Hit(msgspec.Struct, frozen=True):
    """An entry, and the proof that it is in the log.

    Args:
        entry: as stored.
        path: audit path from its leaf to the root.
    """

    entry: Entry
    path: tuple[bytes, ...]

    def view(self) -> Mapping[str, object]:
        """Return both as plain data."""
        proof = {"leaf": self.entry.leaf.hex(), "path": [step.hex() for step in self.path]}
        return {**entry_view(self.entry), "proof": proof}


class Answer(msgspec.Struct, frozen=True):
    """What a question brought.

    Args:
        hits: in the order of the log.
        checkpoint: signed note that every proof leads to; empty for an empty log.
        following: position up to which the log was read, for the next question's `after`; None at its end.
    """

    hits: tuple[Hit, ...]
    checkpoint: str
    following: int | None = None


class _Filter:
    """A question made ready: everything computed that does not depend on the entry."""

    def __init__(self, wanted: Wanted, pseudonyms: Every) -> None:
        self.pattern = Pattern.of(wanted.stream)
        self._wanted = wanted
        users = (*pseudonyms.every("user", wanted.user), *((wanted.user,) if wanted.user else ()))
        self._marks: dict[str, Collection[str]] = {
            "actor": frozenset(users),
            "session": frozenset(pseudonyms.every("session", wanted.session)),
            "address": frozenset(pseudonyms.every("address", wanted.address)),
            "outcome": frozenset({wanted.outcome} - {""}),
        }
        self._marks = {name: values for name, values in self._marks.items() if values}
        self._bytes = [value.encode("utf-8", "replace") for value in self._marks.get("actor", ())]
        resource = wanted.resource.removesuffix(_MANY)
        self._resource = kept_text(resource, MAX_RESOURCE)[0]  # as it is kept
        self._exact = resource == wanted.resource
        self._action = kept_text(wanted.action, MAX_ACTION)[0]

    def takes(self, entry: Entry) -> bool:
        """Tell whether an entry is wanted. One that cannot be read is none of anybody's.

        Raises:
            Tampered: HBK-710 no ledger has written this.
        """
        if any(not isinstance(part, bytes) for part in (entry.id, entry.leaf, entry.meta, entry.public, entry.sealed)):
            raise Tampered("an entry holds something that is no bytes", position=entry.position)
        if not self.pattern.covers(entry.stream) or (self._wanted.kind and entry.type != self._wanted.kind):
            return False
        if self._bytes and not any(value in entry.meta for value in self._bytes):  # most are left out by this look
            return False
        try:
            event = decode_event(entry.meta, entry.public)
        except RecordsError:
            return False
        return (
            self._wanted.since_ns <= event.time_ns < self._wanted.until_ns
            and all(getattr(event, name) in values for name, values in self._marks.items())
            and self._fits(event)
        )

    def _fits(self, event: Event) -> bool:
        resource = str(event.data.get("resource", ""))
        if self._action and event.data.get("action") != self._action:
            return False
        return resource == self._resource if self._exact and self._resource else resource.startswith(self._resource)


class _Pages:
    """Reads a log page by page, one way or the other, and knows how far it came."""

    def __init__(self, store: Store, log: str, pattern: Pattern, wanted: Wanted, size: int) -> None:
        self._read = _reader(store, log, pattern, wanted)
        self._backward = wanted.after is None
        self.at = size if wanted.after is None else wanted.after
        self._size = size
        self.ended = False  # there is nothing beyond `at`

    def __iter__(self) -> Iterator[Entry]:
        page = self._page()
        while page:
            for entry in page:
                self.at = entry.position
                yield entry
            page = self._page() if len(page) == PAGE else []
        self.ended = True

    def _page(self) -> list[Entry]:
        if self._backward:
            return list(self._read(before=self.at, limit=PAGE, backward=True))
        return list(self._read(after=self.at, before=self._size, limit=PAGE))


def _reader(store: Store, log: str, pattern: Pattern, wanted: Wanted) -> Callable[..., Iterator[Entry]]:
    stream, kind = pattern.exact or None, wanted.kind or None

    def read(**bounds: int) -> Iterator[Entry]:
        return store.entries(log, stream=stream, kind=kind, **bounds)  # type: ignore[arg-type]  # positions, and a flag

    return read


class Prover:
    """Proves that entries are in a log as it was at one signed head.

    Args:
        store: where the log lives.
        log: its name there.
        verifier: the log's key in text form, `NAME+HASH+KEY`.

    Raises:
        Tampered: HBK-710 the stored head is not signed by this key.
    """

    def __init__(self, store: Store, log: str, verifier: str) -> None:
        head = store.head(log)
        self.store, self.log, self.size = store, log, head.size
        self.checkpoint = head.checkpoint.decode("utf-8", "replace")
        self._tree = StoredTree(store, log)
        self._root = signed_frontier(log, head, decode_key(verifier)[1]).root()

    def prove(self, entry: Entry) -> Hit:
        """Return an entry with its proof, after checking both: the parts lead to the leaf, the leaf to the signed root.

        Raises:
            Tampered: HBK-710 they do not; `position` is the entry's.
        """
        try:
            leaf, event = Leaf.decode(entry.leaf), decode_event(entry.meta, entry.public)
            path = tuple(self._tree.inclusion(entry.position, self.size))
            verify_inclusion(leaf_hash(entry.leaf), entry.position, self.size, path, self._root)
        except (ValueError, RecordsError) as error:
            raise Tampered("the entry is not in the signed tree", position=entry.position) from error
        parts = (entry.meta, leaf.meta), (entry.public, leaf.public), (entry.sealed, leaf.sealed)
        if leaf.position != entry.position or any(sha256(part).digest() != digest for part, digest in parts):
            raise Tampered("the entry is not what its leaf says", position=entry.position)
        columns = (entry.id, entry.stream, entry.type, entry.version)
        if columns != (event.id, event.stream, event.type, leaf.version):
            raise Tampered("a column differs from the entry", position=entry.position)
        return Hit(entry, path)


def ask(prover: Prover, wanted: Wanted, pseudonyms: Every) -> Answer:
    """Answer a question; who may ask it, and what is recorded of it, is for the caller to see to.

    Args:
        prover: of the log, at the head to look at.
        wanted: which entries.
        pseudonyms: of people, sessions and addresses.

    Raises:
        Malformed: HBK-716 the limit, or the pattern of streams, is none.
        Tampered: HBK-710 an entry is not in the signed tree.
    """
    return _answer(prover, wanted, _Filter(wanted, pseudonyms), lambda _: True)


def _answer(prover: Prover, wanted: Wanted, chosen: _Filter, shown: Callable[[str], bool]) -> Answer:
    if not 0 < wanted.limit <= MAX_HITS:
        raise Malformed("a question has 1 to 1,000 answers", limit=wanted.limit)
    pages = _Pages(prover.store, prover.log, chosen.pattern, wanted, prover.size)
    found = (entry for entry in pages if chosen.takes(entry) and shown(entry.stream))
    hits = sorted(map(prover.prove, islice(found, wanted.limit)), key=lambda hit: hit.entry.position)
    more = wanted.after is not None and not pages.ended
    return Answer(tuple(hits), prover.checkpoint, pages.at if more else None)


class AuditReader:
    """Answers those whom the policy lets read the audit log, and records that it did.

    Args:
        store: where the log lives.
        log: its name there.
        verifier: the log's key in text form.
        pseudonyms: of all live epochs.
        permission: asks the policy: `read` on the path of a stream or pattern, such as `/audit/*`.
        reads: records reading.
    """

    def __init__(
        self, store: Store, log: str, verifier: str, pseudonyms: Every, *, permission: Permission, reads: Reads
    ) -> None:
        self._store = store
        self._log = log
        self._verifier = verifier
        self._pseudonyms = pseudonyms
        self._permission = permission
        self._reads = reads

    def ask(self, wanted: Wanted, actor: Actor) -> Answer:
        """Answer one question.

        Raises:
            Denied: HBK-300 the policy does not let `actor` read these streams; that is recorded.
            Malformed: HBK-716 the limit, or the pattern of streams, is none.
            Tampered: HBK-710 an entry is not in the signed tree.
            RecordsError: HBK-703, HBK-706 the reading cannot be recorded.
        """
        who = Context.of(actor)
        chosen = _Filter(wanted, self._pseudonyms)
        self._permission.enforce(who, "read", chosen.pattern.path)
        prover = Prover(self._store, self._log, self._verifier)
        answer = _answer(prover, wanted, chosen, lambda stream: self._permission.allows(who, "read", stream))
        self._reads.note(who, asked(wanted, self._pseudonyms), len(answer.hits))
        return answer

    def all(self, wanted: Wanted, actor: Actor) -> Iterator[Hit]:
        """Yield every answer there is, in the order of the log; see `ask`."""
        at: int | None = -1 if wanted.after is None else wanted.after
        while at is not None:
            answer = self.ask(msgspec.structs.replace(wanted, after=at, limit=MAX_HITS), actor)
            yield from answer.hits
            at = answer.following


def asked(wanted: Wanted, pseudonyms: Every) -> str:
    """Return a question as it is recorded: the streams, then what was looked for, people under their pseudonyms."""
    told = [wanted.stream]
    for name, kind in (("user", "user"), ("session", "session"), ("address", "address")):
        told.extend(f"{name}={hidden}" for hidden in pseudonyms.every(kind, getattr(wanted, name))[:1])
    for name, limit in (
        ("resource", MAX_RESOURCE),
        ("action", MAX_ACTION),
        ("outcome", MAX_ACTION),
        ("kind", MAX_ACTION),
    ):
        if text := getattr(wanted, name):
            told.append(f"{name}={kept_text(text, limit)[0]}")
    return " ".join(told)[:MAX_ASKED]
