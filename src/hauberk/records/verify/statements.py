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
from hauberk.records.verify.declared import CERTIFIED, PRODUCERS
from hauberk.records.verify.page import Page
from hauberk.records.verify.report import Kind, tampered

if TYPE_CHECKING:
    from hauberk.crypto.svid import SvidInfo
    from hauberk.records.statement import Signer, Statement

SERVICES = "/services/"
Introduction = Callable[[int], bytes | None]
SIGNED_STREAMS = (SERVICES, "/streams/")  # what `Trust.require_signed` is about


class Trust(msgspec.Struct, frozen=True):
    """Whose statements count.

    With neither roots nor keys the log is taken at its word about who a producer is: then a statement keeps whoever
    writes the database from changing anything, and the log's operator from nothing.

    Args:
        roots: by trust domain, DER; chains are verified at the time of the statement, and a service speaks for its own
            streams only.
        keys: fingerprints of plain keys to believe beside them.
        require_signed: entries of services and of the application without a statement are refused.
    """

    roots: Mapping[str, Sequence[bytes]] = MappingProxyType({})
    keys: frozenset[bytes] = frozenset()
    require_signed: bool = False

    @property
    def named(self) -> bool:
        """Whether the auditor says who producers are."""
        return bool(self.roots or self.keys)


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
        self.signed = self.unsigned = self.unchecked = 0
        self.producers: set[str] = set()
        self._trust = trust
        self._introduction = introduction
        self._signers: dict[bytes, Signer] = {}
        self._run: _Run | None = None
        self._broken = False  # the entry before is missing, or has lost its statement with one that is

    def missing(self) -> None:
        """The next entry was pruned, and whatever it carried.

        Raises:
            Tampered: HBK-710.
        """
        if self._run is not None:  # what is left of the run cannot be checked any more
            self.unchecked += len(self._run.leaves)
            self._run = None
        self._broken = True

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
        self._broken = False
        self.unsigned += end - start
        if not self._trust.require_signed and not any(page.statements[start:end]):
            return
        for index in range(start, end):
            if page.statements[index]:
                raise tampered(Kind.FORGED, "a statement on an entry that says it has none", at + index)
            if self._trust.require_signed and page.streams[index].startswith(SIGNED_STREAMS):
                raise tampered(Kind.UNSIGNED, "no producer has signed the entry", at + index)

    def _opened(self, page: Page, flags: bytes, at: int, index: int) -> int:
        """Begin the run of the statement that has to be on this entry."""
        carried = page.statements[index]
        if not carried:
            if not self._broken:
                raise tampered(Kind.FORGED, "the producer's statement is gone", at + index)
            self.unchecked += 1
            return index + 1
        self._broken = False
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
        if self._trust.named:
            self._attribute(run, who)
        self.signed += len(run.leaves)
        self.producers.add(run.statement.signer.hex() if who is None else str(who.spiffe_id))

    def _attribute(self, run: _Run, who: "SvidInfo | None") -> None:
        """A plain key has to be one that is believed; a service speaks for its own streams, and nobody else does."""
        if who is None:
            if run.statement.signer not in self._trust.keys:
                raise tampered(Kind.FORGED, "signed with a key that the auditor does not trust", run.first)
            return
        own = f"{SERVICES}{who.spiffe_id.namespace}/{who.spiffe_id.account}"
        for stream in run.streams:
            if stream.startswith(SERVICES) and stream != own and not stream.startswith(own + "/"):
                raise tampered(Kind.FORGED, "signed by another service than the stream is of", run.first)

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
            Tampered: HBK-710 a statement covers more than there is.
        """
        if self._run is not None:
            raise tampered(Kind.FORGED, "the producer's statement covers entries that are not there", self._run.first)
