"""Offline verification of a ledger from public material: the stored entries and the log's verifier key, nothing else.

Walks the log once in order and recomputes everything a leaf covers, see `entries`, up to the root, which must be the
one in the signed checkpoint. The first thing that does not fit is named by its position and by what was done to it. The
log's own signature finds whatever a writer of the database did; what the log's operator did, or whoever put an old
database back, is found with `anchors` from elsewhere and with the statements of producers.

This package reads a store that it is given and imports none, nor anything that reaches a network, so that it can be
handed to an auditor alone.
"""

from collections.abc import Callable, Sequence

from hauberk.core.event import Entry
from hauberk.core.ports import Head, Store
from hauberk.crypto.merkle import verify_consistency
from hauberk.crypto.note import Checkpoint, decode_key
from hauberk.errors import RecordsError
from hauberk.records._tiles import StoredTree
from hauberk.records.heads import split_name
from hauberk.records.positions import Positions
from hauberk.records.verify.anchors import (
    NO_ANCHORS,
    Anchor,
    Anchors,
    Named,
    differing,
    read_anchors,
    shorter,
)
from hauberk.records.verify.declared import Declared, claimed_gone
from hauberk.records.verify.edge import Edge
from hauberk.records.verify.entries import Walk
from hauberk.records.verify.incremental import State, Streams
from hauberk.records.verify.page import position_of
from hauberk.records.verify.report import Kind, Met, Recovered, VerifyReport, tampered
from hauberk.records.verify.statements import AT_ITS_WORD, Statements, Trust
from hauberk.records.verify.tiles import verify_tiles

__all__ = [
    "Anchors", "Kind", "Met", "Recovered", "State", "Trust", "VerifyReport", "kept_notes", "verify_since",
    "verify_store", "verify_tiles",
]  # fmt: skip
KEPT = "cosigned"  # space of the row in which a store keeps the newest cosigned checkpoint
TAG_BYTES = 32  # in front of a row's value where rows are authenticated; see `adapters.authentic`
Told = Callable[[int, int], None]  # leaves done, and of how many


def verify_store(
    store: Store,
    key_text: str,
    *,
    known: str = "",
    anchors: Anchors = NO_ANCHORS,
    trust: Trust = AT_ITS_WORD,
    told: Told | None = None,
) -> VerifyReport:
    """Verify the whole log that `key_text` names.

    Args:
        store: where it lives; only read.
        key_text: the log's verifier key, `NAME+HASH+KEY`, of the log or of the epoch it is in.
        known: a signed checkpoint from before, to find rollback and truncation by the signer itself.
        anchors: what else the auditor has from elsewhere.
        trust: which producers to believe.
        told: called now and then with how far it is.

    Raises:
        Tampered: HBK-710 with `position`, the first that is wrong (0 where there is nothing at all of that log), and
            `kind`, one of `Kind`; HBK-713 when the log is shorter than an anchor.
        NotCosigned: HBK-720 the policy's quorum of witnesses is missing.
        RecordsError: HBK-711 when a key or checkpoint is malformed, or of another log or epoch.
    """
    return _audit(store, key_text, None, _with(anchors, known), trust).run(told)


def verify_since(
    store: Store,
    key_text: str,
    state: State | None,
    *,
    known: str = "",
    anchors: Anchors = NO_ANCHORS,
    trust: Trust = AT_ITS_WORD,
    told: Told | None = None,
) -> tuple[VerifyReport, State]:
    """Verify what a log has more than the last time, and return what to keep for the next.

    Args:
        store: where it lives; only read.
        key_text: the log's verifier key.
        state: of the last time; None to verify the whole log.
        known: a signed checkpoint from before.
        anchors: what else the auditor has from elsewhere.
        trust: which producers to believe.
        told: called now and then with how far it is.

    Raises:
        Tampered: as `verify_store`; HBK-713 also when the log is shorter than it was the last time.
        NotCosigned: HBK-720.
        RecordsError: HBK-711, also when the state is another log's.
    """
    audit = _audit(store, key_text, state, _with(anchors, known), trust)
    return audit.run(told), audit.state()


def _audit(store: Store, key_text: str, state: State | None, anchors: Anchors, trust: Trust) -> "_Audit":
    named, head = _named(store, key_text)
    if state is not None and (state.log, state.key) != (named.log, named.key.raw):
        raise RecordsError("HBK-711", "the state is of a verification of another log, or under another key")
    pinned = read_anchors(named, anchors, head, kept_notes(store, named.log))
    return _Audit(store, named, head, anchors=pinned, state=state, trust=trust)


def _with(anchors: Anchors, known: str) -> Anchors:
    if not known:
        return anchors
    return Anchors((known, *anchors.checkpoints), anchors.mark, anchors.policy, anchors.not_before)


def _named(store: Store, key_text: str) -> tuple[Named, Head]:
    """Return the log that a key is of, and its head."""
    name, key = decode_key(key_text)
    head = _head(store, name)
    log, epoch = split_name(name)
    if head.size or epoch is None:
        return Named(name, key, None), head
    head = _head(store, log)
    if head.epoch < epoch and head.size:
        raise tampered(Kind.ROLLED_BACK, "the key is of a later epoch than the log is in", head.size, epoch=head.epoch)
    if head.epoch > epoch:
        why = f"the key is of epoch {epoch}, and the log is in epoch {head.epoch}: take the key of that epoch"
        raise RecordsError("HBK-711", why, kind=Kind.WRONG_KEY.value)
    return Named(log, key, epoch), head


def _head(store: Store, log: str) -> Head:
    try:
        return store.head(log)
    except RecordsError as error:
        raise tampered(Kind.UNREADABLE, error.detail or "the head of the log cannot be read", 0) from error


def kept_notes(store: Store, log: str) -> Sequence[str]:
    """Return the cosigned checkpoint that a store keeps, with and without what may stand in front; not verified."""
    try:
        row = store.get(KEPT, log.encode())
    except RecordsError:
        return ()
    if row is None or not isinstance(row.value, bytes):
        return ()
    return [row.value[start:].decode("utf-8", "replace") for start in (0, TAG_BYTES)]


class _Audit:
    """One verification."""

    def __init__(
        self,
        store: Store,
        named: Named,
        head: Head,
        *,
        anchors: Sequence[Anchor],
        state: State | None,
        trust: Trust,
    ) -> None:
        self._store = store
        self._named = named
        self._head = head
        self._anchors = anchors
        self._streams = state.streams if state else Streams()
        self._declared = Declared(named, state.epoch if state else 0)
        self._declared.recoveries = list(state.recoveries) if state else []
        self._statements = Statements(trust, state.producers if state else {}, self._introduction)
        self._statements.own = state is not None and state.own
        self.start = state.edge.size if state else 0
        self._edge = state.edge.copy() if state else Edge()
        self._walk = Walk(
            store,
            named.log,
            anchors=[anchor for anchor in anchors if anchor.size > self.start or not self.start],
            declared=self._declared,
            statements=self._statements,
            edge=self._edge,
            before=self._streams.version,
            gone=self._gone(),
        )

    def _gone(self) -> Positions:
        try:
            return claimed_gone(self._store, self._named.log)
        except RecordsError:  # what cannot be read is found by the walk
            return Positions()

    def _introduction(self, position: int) -> bytes | None:
        try:
            found = self._store.entries(self._named.log, after=position - 1, before=position + 1, limit=1)
            return next((entry.public for entry in found), None)
        except RecordsError:
            return None

    def run(self, told: Told | None) -> VerifyReport:
        """Verify."""
        walk, size = self._walk, self._head.size
        if self.start > size:
            why = "the log is shorter than it was when it was last verified"
            raise tampered(Kind.ROLLED_BACK, why, size, known=self.start)
        self._before()
        walk.begin()
        surplus = walk.run(size, None if told is None else lambda done: told(done, size))
        self._reached(surplus)
        walk.finish()
        self._signed()
        return self._report()

    def _before(self) -> None:
        """Compare the anchors that are not above the old size: with the tree that was verified then, by proofs."""
        if not self.start:
            return
        tree, root = StoredTree(self._store, self._named.log), self._edge.root()
        for anchor in self._anchors:
            if not 0 < anchor.size <= self.start:
                continue
            left = self._declared.left(anchor.epoch, anchor.size)
            if left is not None:
                raise shorter(anchor, left.position, left.position)
            try:
                proof = tree.consistency(anchor.size, self.start)
                verify_consistency(anchor.size, self.start, anchor.checkpoint.root, root, proof)
            except RecordsError:
                raise differing(anchor) from None

    def _reached(self, surplus: Entry | None) -> None:
        """Compare how many entries there are with what was signed.

        Raises:
            Tampered: there are more or fewer.
        """
        size, walk = self._head.size, self._walk
        if not size and surplus is None:
            for anchor in self._anchors:
                if anchor.size:
                    raise shorter(anchor, 0)
            # A log is made with its first entry, so there is none here: it was wiped, or the key is another log's.
            raise tampered(Kind.DELETED, "there is no entry of this log here", 0, log=self._named.log)
        shortest = next((anchor for anchor in self._anchors if anchor.size > walk.size), None)
        if shortest is not None:
            left = self._declared.left(shortest.epoch, shortest.size)
            raise shorter(shortest, walk.size, left.position if left else None)
        signed = self._checkpoint()
        least = min(signed.size, size, walk.size)
        if walk.size < max(size, signed.size):
            raise tampered(Kind.TRUNCATED, "entries at the end are missing", least)
        if signed.size < size:
            raise tampered(Kind.ADDED, "the log and its checkpoint differ in size", least)
        if surplus is not None and self._store.head(self._named.log) == self._head:
            kind = Kind.REPLAYED if 0 <= position_of(surplus.leaf) < size else Kind.ADDED
            raise tampered(kind, "there is an entry behind the signed end", size)

    def _checkpoint(self) -> Checkpoint:
        """Return what the log's own head says, once it is signed by the log in its epoch.

        Raises:
            Tampered: HBK-710 it is not.
        """
        note = self._head.checkpoint.decode("utf-8", "replace")
        if not note:
            raise tampered(Kind.DELETED, "the checkpoint is gone", 0)
        try:
            signed, epoch = self._named.signed(note)
        except RecordsError as error:
            raise tampered(Kind.RESIGNED, "the checkpoint is not signed by this key", 0) from error
        if epoch != self._head.epoch:
            raise tampered(Kind.EPOCH, "the checkpoint is of another epoch than the head", 0)
        return signed

    def _signed(self) -> None:
        """Compare the root with the signed one, and what is derived from the leaves with them."""
        walk, signed = self._walk, self._checkpoint()
        if signed.root != walk.edge.root():
            raise tampered(Kind.REWRITTEN, "the entries do not lead to the signed root", walk.size - 1)
        walk.settle()
        if self._declared.epoch != self._head.epoch:
            raise tampered(Kind.EPOCH, "no entry declares the epoch that the log is in", walk.size - 1)
        if self._head.frontier != walk.edge.frontier().encode():
            raise tampered(Kind.TILE, "the stored frontier is not that of the entries", walk.size - 1)
        if self.start:
            self._once()

    def _once(self) -> None:
        """Ask the store whether ids of new entries are those of old ones."""
        ids = sorted(self._walk.seen)
        again = {one for one, at in self._store.find(self._named.log, ids).items() if at < self.start}
        if not again:
            return
        new = self._store.entries(self._named.log, after=self.start - 1, limit=self._head.size)
        at = min((entry.position for entry in new if entry.id in again), default=self.start)
        raise tampered(Kind.REPLAYED, "an event was replayed", at)

    def _report(self) -> VerifyReport:
        statements, declared = self._statements, self._declared
        streams = len(self._streams) + self._walk.versions.new
        return VerifyReport(
            origin=self._named.origin(self._head.epoch),
            size=self._walk.size,
            root=self._edge.root().hex(),
            streams=streams,
            start=self.start,
            pruned=self._walk.pruned,
            signed=statements.signed,
            unsigned=statements.unsigned,
            producers=tuple(sorted(statements.producers)),
            speakers=tuple(sorted(statements.speakers)),
            anchors=tuple(anchor.met for anchor in self._anchors),
            recoveries=tuple(declared.recoveries),
        )

    def state(self) -> State:
        """Return what to keep for the next time."""
        return State(
            log=self._named.log,
            key=self._named.key.raw,
            epoch=self._declared.epoch,
            note=self._head.checkpoint.decode(),
            edge=self._edge,
            streams=self._streams.updated(self._walk.versions),
            producers=self._statements.introduced,
            recoveries=tuple(self._declared.recoveries),
            own=self._statements.own,
        )
