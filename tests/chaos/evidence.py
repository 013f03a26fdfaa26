"""What torture has to be innocent of: everything that was promised is kept, and held against the log afterwards."""

from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.mark import FileMark
from hauberk.core.event import Entry
from hauberk.core.ports import END, Store
from hauberk.crypto.keyring import Keyring
from hauberk.crypto.merkle import Frontier, leaf_hash
from hauberk.crypto.note import Checkpoint, encode_key, verify_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.records.keys import SubjectKeys
from hauberk.records.verify import verify_store
from tests.chaos.load import LOG, SEED

KEY = encode_key(LOG, SigningKey(SEED).public)


class Broken(AssertionError):
    """A promise was broken."""


class Evidence:
    """Acknowledgements and signed checkpoints of one log, whoever gave them, in the order of their arrival.

    Args:
        journal: where they are kept, so that a later run can go on.
    """

    def __init__(self, journal: Path) -> None:
        self.acknowledged: dict[bytes, int] = {}
        self.taken: set[bytes] = set()  # into a queue, nobody waits: in the log after an end in order
        self.notes: dict[int, bytes] = {}  # root by size
        self._frontier = Frontier()
        self._positions: dict[bytes, int] = {}
        self._unseen: list[bytes] = []  # acknowledged since the last look
        self._journal = journal.open("a+")
        self._journal.seek(0)
        for line in self._journal:
            if line.endswith("\n"):  # the last one may have been cut off
                self._take(line.split())

    @property
    def newest(self) -> int:
        """The largest size that was ever signed."""
        return max(self.notes, default=0)

    def keep(self) -> None:
        """Write down what was said so far, so that an interrupted run can go on."""
        self._journal.flush()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def take(self, words: list[str]) -> None:
        """Keep what a child has said.

        Raises:
            Broken: it contradicts what was said before.
        """
        if words[0] in {"ack", "note", "took"}:
            self._journal.write(" ".join(words) + "\n")
            self._take(words)

    def _take(self, words: list[str]) -> None:
        if words[0] == "took":
            self.taken.add(bytes.fromhex(words[1]))
        elif words[0] == "ack":
            one, position = bytes.fromhex(words[1]), int(words[2])
            if self.acknowledged.setdefault(one, position) != position:
                raise Broken(f"{one.hex()} was acknowledged at {self.acknowledged[one]} and at {position}")
            self._unseen.append(one)
        else:
            self.note(b64decode(words[1]).decode())

    def note(self, text: str) -> None:
        """Keep a signed checkpoint.

        Raises:
            Broken: there is another one of that size.
        """
        checkpoint: Checkpoint = verify_checkpoint(text, LOG, SigningKey(SEED).public)
        if self.notes.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            raise Broken(f"two signed checkpoints of {checkpoint.size} leaves")

    def _found(self, note: str) -> None:
        """Keep a signed checkpoint that lay somewhere, as if somebody had said it."""
        self.take(["note", b64encode(note.encode()).decode()])

    def mark(self, path: Path) -> None:
        """Keep what the high-water mark says."""
        with closing(FileMark(path)) as mark:
            if text := mark.read():
                self._found(text)

    def look(self, store: Store, *, quiet: bool = True) -> int:
        """Hold what is new in the log against what was promised, and return its size.

        Args:
            store: where it is.
            quiet: nobody writes meanwhile, so whatever was promised is there now.

        Raises:
            Broken: an acknowledged event is not where it was said to be, a position is missing, or a checkpoint that
                was signed is not of this log.
        """
        head = store.head(LOG)
        if head.size:
            self._found(head.checkpoint.decode())
        if head.size < self._frontier.size:
            raise Broken(f"the log had {self._frontier.size} entries and has {head.size}")
        for entry in _all(store, self._frontier.size, head.size):
            if entry.position != self._frontier.size:
                raise Broken(f"position {self._frontier.size} is missing")
            if self._positions.setdefault(entry.id, entry.position) != entry.position:
                raise Broken(f"{entry.id.hex()} is in the log twice")
            self._frontier.append(leaf_hash(entry.leaf))
            self._compare()
        if self._frontier.size != head.size or (quiet and next(_all(store, head.size, END), None) is not None):
            raise Broken(f"{head.size} entries are signed, {self._frontier.size} or more are there")
        self._kept(quiet=quiet)
        return head.size

    def _compare(self) -> None:
        size = self._frontier.size
        if self.notes.get(size, self._frontier.root()) != self._frontier.root():
            raise Broken(f"the signed checkpoint of {size} leaves is of another history")

    def _kept(self, *, quiet: bool) -> None:
        size = self._frontier.size
        later = [] if quiet else [one for one in self._unseen if self.acknowledged[one] >= size]
        for one in self._unseen:
            if (quiet or self.acknowledged[one] < size) and self._positions.get(one) != self.acknowledged[one]:
                raise Broken(f"acknowledged at {self.acknowledged[one]}, and there is {self._positions.get(one)}")
        self._unseen = later
        if quiet and self.newest > size:
            raise Broken(f"{self.newest} leaves were signed, and {size} are in the log")

    def everything(self, store: Store, keys: Path) -> int:
        """Verify the whole log from its beginning with public keys only, then open every sealed value.

        Raises:
            Broken: see `look`.
            Tampered: the verifier found something.
        """
        self._frontier, self._positions, self._unseen = Frontier(), {}, list(self.acknowledged)
        size = self.look(store)
        report = verify_store(store, KEY)
        if report.size != size:
            raise Broken(f"{report.size} entries were verified of {size}")
        keyring = Keyring(FileKeySource(keys, create=False))
        opener = SubjectKeys(AuthenticRows(store, keyring), keyring)
        versions: dict[str, int] = {}
        for entry in _all(store, 0, size):
            if entry.version != versions.get(entry.stream, 0) + 1:
                raise Broken(f"version {entry.version} follows {versions.get(entry.stream, 0)} in {entry.stream}")
            versions[entry.stream] = entry.version
            opener.open(entry)
        return size

    def all_taken(self) -> None:
        """After an end in order, what nobody waited for is there too.

        Raises:
            Broken: one is not.
        """
        missing = self.taken - self._positions.keys()
        if missing:
            raise Broken(f"{len(missing)} events that were taken are not in the log")


def _all(store: Store, start: int, end: int) -> Iterator[Entry]:
    while page := list(store.entries(LOG, after=start - 1, before=end, limit=2_000)):
        yield from page
        start = page[-1].position + 1
