"""Statements of producers along a walk: each flagged entry is covered by exactly one, which holds.

Reading certificates takes a module of `cryptography` that loads others, so all that is loaded when a log has the first.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

import msgspec

from hauberk.core.event import SIGNED, Entry
from hauberk.errors import RecordsError
from hauberk.records.streams import ERASURES, HOLDS, RETENTION, SNAPSHOTS, STREAMS
from hauberk.records.verify.declared import CERTIFIED, PRODUCERS
from hauberk.records.verify.page import Page
from hauberk.records.verify.report import Kind, tampered

if TYPE_CHECKING:
    from hauberk.crypto.svid import SvidInfo
    from hauberk.records.statement import Signer, Statement

SERVICES, AUDIT = "/services/", "/audit/"
OWNED = (SERVICES, AUDIT)  # below these a stream belongs to the service it is named after
SIGNED_STREAMS = (SERVICES, AUDIT, STREAMS, SNAPSHOTS)  # what `Trust.require_signed` is about, in every log
SIGNED_RECORDS = frozenset({ERASURES, HOLDS, RETENTION})  # and in a log that has a producer of its own
OLDEST_NS = 30 * 86_400 * 10**9  # a statement when it arrives, as `records.batch` takes it
AHEAD_NS = 300 * 10**9
WAITING_NS = 3_600 * 10**9  # from there to the log, while its disk fails
Introduction = Callable[[int], bytes | None]
_TIME = slice(10, 18)  # of a leaf


class Trust(msgspec.Struct, frozen=True):
    """Whose statements count.

    With neither roots nor keys the log is taken at its word about who a producer is: then a statement keeps whoever
    writes the database from changing anything, and the log's operator from nothing.

    Args:
        roots: by trust domain, DER; chains are verified at the time of the statement, and a service speaks for its own
            streams only: `/services/NS/ACCOUNT`, `/audit/NS/ACCOUNT` and what is below.
        keys: fingerprints of plain keys to believe beside them.
        require_signed: entries without a statement are refused in `/services`, `/audit`, `/streams` and `/snapshots`,
            and, in a log that has a producer of its own, in `/records/erasures`, `/records/holds` and
            `/records/retention`. That is one in which a plain key signs, or anybody signs in a stream that is no
            service's, or of which the auditor names who may; an authority's log is none.
        services: SPIFFE ids that may sign in streams that are no service's own. With these or `keys` nobody else may;
            with neither the report says who did.
    """

    roots: Mapping[str, Sequence[bytes]] = MappingProxyType({})
    keys: frozenset[bytes] = frozenset()
    require_signed: bool = False
    services: frozenset[str] = frozenset()

    @property
    def named(self) -> bool:
        """Whether the auditor says who producers are."""
        return bool(self.roots or self.speaking)

    @property
    def speaking(self) -> bool:
        """Whether the auditor says who may sign in streams that are no service's own."""
        return bool(self.keys or self.services)


AT_ITS_WORD = Trust()


@cache
def _statement() -> ModuleType:
    """Return `records.statement`."""
    from hauberk.records import statement  # noqa: PLC0415  # see the module

    return statement


class _Run(msgspec.Struct):
    """Entries that one statement covers, as far as they were met."""

    first: int
    statement: "Statement"
    leaves: list[bytes]
    streams: set[str]


class Statements:
    """Follows the statements.

    Args:
        trust: whose count.
        introduced: positions of the producers that were introduced before, by fingerprint.
        introduction: returns the public part of the entry at a position.
    """

    def __init__(
        self,
        trust: Trust,
        introduced: Mapping[bytes, int] = MappingProxyType({}),
        introduction: Introduction | None = None,
    ) -> None:
        self.introduced = dict(introduced)
        self.signed = self.unsigned = 0
        self.producers: set[str] = set()
        self.speakers: set[str] = set()  # of them, who signed in streams that are no service's own
        self.own = False  # whether the log has a producer of its own
        self._trust = trust
        self._introduction = introduction
        self._signers: dict[bytes, Signer] = {}
        self._run: _Run | None = None
        self._unsigned_record = -1  # the first entry of the record that needs a statement if the log has a producer

    def missing(self) -> None:
        """The next entry was pruned, and with it all that was signed together with it.

        Raises:
            Tampered: HBK-710 the entry before was signed together with it.
        """
        self._closed()

    def _closed(self) -> None:
        if self._run is not None:
            raise tampered(Kind.FORGED, "the producer's statement covers entries that are not there", self._run.first)

    def introduce(self, entry: Entry) -> None:
        """Take an entry of the producers' stream."""
        if entry.type != CERTIFIED or entry.stream != PRODUCERS:
            return
        try:
            fingerprint, signer = _statement().read_signer(entry.public)
        except RecordsError as error:
            raise tampered(Kind.FORGED, f"a producer is introduced wrongly: {error.detail}", entry.position) from None
        self._signers[fingerprint] = signer
        self.introduced.setdefault(fingerprint, entry.position)

    def take(self, page: Page, at: int) -> None:
        """Take the entries of a page, themselves verified.

        Args:
            page: the entries.
            at: position of the first.

        Raises:
            Tampered: HBK-710 `forged-signature` or `unsigned`, with the first position the statement was to cover.
        """
        flags, count = page.flags, len(page.leaves)
        if self._run is None and not any(flags) and not any(page.statements):
            self._plain(page, at, 0, count)
            return
        index = 0
        while index < count:
            if self._run is not None:
                index = self._covered(page, flags, at, index)
            elif flags[index] & SIGNED:
                index = self._opened(page, flags, at, index)
            else:
                end = flags.find(SIGNED, index)
                end = count if end < 0 else end
                self._plain(page, at, index, end)
                index = end

    def _plain(self, page: Page, at: int, start: int, end: int) -> None:
        """Take entries without the flag."""
        self.unsigned += end - start
        if not self._trust.require_signed and not any(page.statements[start:end]):
            return
        for index in range(start, end):
            if page.statements[index]:
                raise tampered(Kind.FORGED, "a statement on an entry that says it has none", at + index)
            if not self._trust.require_signed:
                continue
            if page.streams[index].startswith(SIGNED_STREAMS):
                raise tampered(Kind.UNSIGNED, "no producer has signed the entry", at + index)
            if page.streams[index] in SIGNED_RECORDS and self._unsigned_record < 0:
                self._unsigned_record = at + index

    def _opened(self, page: Page, flags: bytes, at: int, index: int) -> int:
        """Begin the run of the statement that has to be on this entry."""
        carried = page.statements[index]
        if not carried:
            raise tampered(Kind.FORGED, "the producer's statement is gone", at + index)
        try:
            parsed = _statement().parse_statement(carried)
        except RecordsError:
            raise tampered(Kind.FORGED, "the producer's statement cannot be read", at + index) from None
        self._run = _Run(at + index, parsed, [], set())
        return self._covered(page, flags, at, index)

    def _covered(self, page: Page, flags: bytes, at: int, index: int) -> int:
        """Take what the open run covers of this page."""
        run = self._run
        if run is None:
            return index
        end = min(index + run.statement.count - len(run.leaves), len(page.leaves))
        rest = page.statements[index + 1 if at + index == run.first else index : end]
        if flags[index:end] != bytes((SIGNED,)) * (end - index) or any(rest):
            raise tampered(Kind.FORGED, "the producer's statement covers other entries than it says", run.first)
        run.leaves += page.leaves[index:end]
        run.streams.update(page.streams[index:end])
        if len(run.leaves) == run.statement.count:
            self._run = None
            self._check(run)
        return end

    def _check(self, run: _Run) -> None:
        self._recall(run.statement.signer)
        statement = _statement()
        who = statement.check_statement(run.statement, run.leaves, self._signers, self._trust.roots, position=run.first)
        _check_time(run)
        if self._trust.named:
            self._attribute(run, who)
        self.signed += len(run.leaves)
        name = run.statement.signer.hex() if who is None else str(who.spiffe_id)
        self.producers.add(name)
        shared = any(not stream.startswith(OWNED) for stream in run.streams)
        if shared:
            self.speakers.add(name)
        self.own = self.own or shared or bool(self._signers[run.statement.signer].key)

    def _attribute(self, run: _Run, who: "SvidInfo | None") -> None:
        """A plain key has to be one that is believed; a service speaks for its own streams, and nobody else does."""
        if who is None:
            if run.statement.signer not in self._trust.keys:
                raise tampered(Kind.FORGED, "signed with a key that the auditor does not trust", run.first)
            return
        service = f"{who.spiffe_id.namespace}/{who.spiffe_id.account}"
        own = tuple(f"{start}{service}/" for start in OWNED)
        for stream in run.streams:
            if f"{stream}/".startswith(own):
                continue
            if stream.startswith(OWNED):
                raise tampered(Kind.FORGED, "signed by another service than the stream is of", run.first)
            if self._trust.speaking and str(who.spiffe_id) not in self._trust.services:
                raise tampered(Kind.FORGED, "signed by a service that the auditor does not name for it", run.first)

    def _recall(self, fingerprint: bytes) -> None:
        """Read again who was introduced before the walk began. What is read proves itself by its fingerprint."""
        position = self.introduced.get(fingerprint)
        if fingerprint in self._signers or position is None or self._introduction is None:
            return
        public = self._introduction(position)
        with suppress(RecordsError):  # then nobody knows the signer, and that is told
            found, signer = _statement().read_signer(public or b"")
            self._signers[found] = signer

    def end(self) -> None:
        """Nothing comes behind.

        Raises:
            Tampered: HBK-710 a statement covers more than there is, or the log has a producer and does not use it.
        """
        self._closed()
        if self._unsigned_record >= 0 and (self.own or self._trust.speaking):
            raise tampered(Kind.UNSIGNED, "no producer has signed the entry", self._unsigned_record)


def _check_time(run: _Run) -> None:
    """A statement is about as old as its entries: else whoever has a key that expired could still use it.

    Raises:
        Tampered: HBK-710.
    """
    for leaf in run.leaves:
        age = int.from_bytes(leaf[_TIME]) - run.statement.time_ns
        if not -AHEAD_NS <= age <= OLDEST_NS + WAITING_NS:
            raise tampered(Kind.FORGED, "the producer's statement is of another time than its entries", run.first)
