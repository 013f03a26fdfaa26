"""Runs: the neighbouring entries that one statement of a producer covers. They are kept, pruned and restored together.

A statement stands on the first of its entries. Without that one nobody could tell what the others are worth, and
without one of the others nobody could verify it. Runs of the ledger itself end with each segment; that of a batch which
a service signed lies where it came in.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from hauberk.core.event import SIGNED, Entry
from hauberk.records.statement import Signer, Statement, check_statement, parse_statement


class Run(msgspec.Struct):
    """One entry that nobody signed, or entries that were signed together, as far as they are there.

    Args:
        entries: in order, without a gap.
        statement: that covers them; None for an entry nobody signed, or when the first of them is not there.
    """

    entries: list[Entry]
    statement: Statement | None

    @property
    def first(self) -> int:
        """Position of the first entry."""
        return self.entries[0].position

    @property
    def signed(self) -> bool:
        """Whether a statement covers, or covered, the entries."""
        return is_signed(self.entries[0])

    @property
    def count(self) -> int:
        """How many entries it has when it is whole; 0 when that is not known."""
        if self.statement is not None:
            return self.statement.count
        return 0 if self.signed else 1

    @property
    def whole(self) -> bool:
        """Whether every entry is there."""
        return len(self.entries) == self.count

    @property
    def fits(self) -> bool:
        """Whether there is a statement exactly where the flag of the leaf says so."""
        return self.signed == (self.statement is not None)

    def check(self, signers: Mapping[bytes, Signer]) -> None:
        """Check the statement of a whole run; the chain of its signer is taken at its word.

        Raises:
            Tampered: HBK-710 with kind `forged-signature`.
        """
        if self.statement is not None:
            leaves = [entry.leaf for entry in self.entries]
            check_statement(self.statement, leaves, signers, {}, position=self.first)

    def _goes_on(self, entry: Entry) -> bool:
        follows = entry.position == self.entries[-1].position + 1 and is_signed(entry) and not entry.statement
        return self.signed and follows and not self.whole


def is_signed(entry: Entry) -> bool:
    """Tell whether a leaf says that a statement covers the entry."""
    return bool(entry.leaf[1] & SIGNED)


def runs_of(entries: Iterable[Entry]) -> Iterator[Run]:
    """Yield the runs of entries that are in order.

    Raises:
        RecordsError: HBK-712 a statement cannot be read.
    """
    run: Run | None = None
    for entry in entries:
        if run is not None and run._goes_on(entry):  # noqa: SLF001  # of this module
            run.entries.append(entry)
            continue
        if run is not None:
            yield run
        run = Run([entry], parse_statement(entry.statement) if entry.statement else None)
    if run is not None:
        yield run
