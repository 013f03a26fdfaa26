"""Every store against a naive model: whatever is done to them, all of them say the same."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.clock import ManualClock
from hauberk.core.event import Entry
from hauberk.core.ports import ANY, Append, Check, Delete, Head, Put, Row, Store, Tile, Write
from hauberk.errors import Conflict, RecordsError
from tests.support.postgres import database

LOGS = ("a", "b")
SPACES = ("s", "t")
KEYS = (b"", b"k", b"k\x00", b"k\xff", b"l")
logs = st.sampled_from(LOGS)
spaces = st.sampled_from(SPACES)
keys = st.sampled_from(KEYS)
expectations = st.sampled_from([ANY, ANY, 0, 1, 2, 3])
rows = st.lists(
    st.one_of(
        st.builds(Put, spaces, keys, st.binary(max_size=2), expectations, st.none() | st.integers(1, 5).map(float)),
        st.builds(Delete, spaces, keys, expectations),
        st.builds(Check, spaces, keys, st.integers(0, 2)),
    ),
    max_size=3,
)


class Model:
    """What a store is, written down as plainly as possible."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.heads: dict[str, Head] = {}
        self.entries: dict[str, list[Entry]] = {log: [] for log in LOGS}
        self.tiles: dict[tuple[str, int, int], bytes] = {}
        self.rows: dict[tuple[str, bytes], Row] = {}
        self.revision = 0

    def live(self, space: str, key: bytes) -> Row | None:
        row = self.rows.get((space, key))
        return row if row and (row.expires is None or row.expires > self.clock.time()) else None

    def commit(self, write: Write) -> int | None:
        """Return the revision, or None when the write has to be refused."""
        kept = (
            dict(self.heads),
            {log: list(all_) for log, all_ in self.entries.items()},
            dict(self.tiles),
            dict(self.rows),
        )
        fine = write.append is None or self.append(write.append)
        for row in sorted(write.rows, key=lambda row: (row.space, row.key)):
            fine = fine and self.row(row)
        if not fine:
            self.heads, self.entries, self.tiles, self.rows = kept
            return None
        self.revision += 1
        return self.revision

    def append(self, batch: Append) -> bool:
        there, known = self.heads.get(batch.log, Head()), {one.id for one in self.entries[batch.log]}
        ids = [one.id for one in batch.entries]
        if (
            batch.expected != there.size
            or batch.head.epoch < there.epoch
            or len(set(ids)) < len(ids)
            or known & set(ids)
        ):
            return False
        self.heads[batch.log] = batch.head
        self.entries[batch.log] += batch.entries
        self.tiles.update({(batch.log, tile.level, tile.index): tile.data for tile in batch.tiles})
        return True

    def row(self, row: Put | Delete | Check) -> bool:
        live, old = self.live(row.space, row.key), self.rows.get((row.space, row.key))
        if row.expected not in {ANY, live.revision if live else 0}:
            return False
        if isinstance(row, Put):
            self.rows[row.space, row.key] = Row(row.key, row.value, old.revision + 1 if old else 1, row.expires)
        elif isinstance(row, Delete):
            self.rows.pop((row.space, row.key), None)
        return True


class Stores(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock(0)
        self.directory = Path(tempfile.mkdtemp())
        self.model = Model(self.clock)
        self.path = self.directory / "s.db"
        self.sqlite = SqliteStore(self.path, now=self.clock.time)
        self.memory = MemoryStore(self.clock.time)
        self.lent = ExitStack()
        self.dsn = self.lent.enter_context(database())
        self.postgres = PostgresStore(self.dsn, now=self.clock.time)

    @property
    def stores(self) -> tuple[Store, Store, Store]:
        return self.memory, self.sqlite, self.postgres

    @rule(
        log=logs,
        ids=st.lists(st.integers(0, 30), min_size=1, max_size=3),
        off=st.sampled_from([0, 0, 0, 1, -1]),
        epoch=st.sampled_from([0, 0, 0, 1]),
        changes=rows,
    )
    def append(self, log: str, ids: list[int], off: int, epoch: int, changes: list[Put | Delete | Check]) -> None:
        size = max(0, len(self.model.entries[log]) + off)
        made = [
            Entry(at, bytes([number]) * 16, f"/{number % 2}", f"t.{number % 3}", at + 1, b"leaf", b"m", b"p")
            for at, number in enumerate(ids, size)
        ]
        head = Head(size + len(made), bytes([size % 256]), b"c", epoch)
        self.write(Write(Append(log, size, made, head, (Tile(0, size // 4, b"h" * (size % 4 + 1)),)), changes))

    @rule(changes=rows)
    def change(self, changes: list[Put | Delete | Check]) -> None:
        self.write(Write(rows=changes))

    def write(self, write: Write) -> None:
        now = self.clock.time()
        relative = [
            replace(one, expires=now + one.expires) if isinstance(one, Put) and one.expires else one
            for one in write.rows
        ]
        write = replace(write, rows=relative)
        expected = self.model.commit(write)
        for store in self.stores:
            try:
                got: int | None = store.commit(write)
            except Conflict:
                got = None
            assert got == expected, type(store)

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def reopen(self) -> None:
        self.sqlite.close()
        self.sqlite = SqliteStore(self.path, now=self.clock.time)
        self.postgres.close()
        self.postgres = PostgresStore(self.dsn, now=self.clock.time)

    @rule(
        log=logs,
        after=st.integers(-2, 6),
        before=st.integers(0, 9),
        stream=st.none() | st.just("/1"),
        kind=st.none() | st.just("t.0"),
        backward=st.booleans(),
    )
    def read_entries(  # noqa: PLR0917  # drawn
        self,
        log: str,
        after: int,
        before: int,
        stream: str | None,
        kind: str | None,
        backward: bool,  # noqa: FBT001  # drawn
    ) -> None:
        known = self.model.entries[log][:: -1 if backward else 1]
        expected = [
            one
            for one in known
            if after < one.position < before and stream in {None, one.stream} and kind in {None, one.type}
        ]
        for store in self.stores:
            found = store.entries(log, after=after, before=before, stream=stream, kind=kind, limit=3, backward=backward)
            assert list(found) == expected[:3]

    @rule(log=logs, above=st.integers(-1, 6), below=st.integers(0, 9), backward=st.booleans())
    def read_stream(self, log: str, above: int, below: int, backward: bool) -> None:  # noqa: FBT001  # drawn
        known = self.model.entries[log][:: -1 if backward else 1]
        expected = [one for one in known if one.stream == "/1" and above < one.version < below]
        for store in self.stores:
            assert list(store.stream(log, "/1", above=above, below=below, limit=3, backward=backward)) == expected[:3]

    @rule(space=spaces, prefix=st.sampled_from([b"", b"k", b"l", b"x"]), after=keys, limit=st.integers(0, 3))
    def read_rows(self, space: str, prefix: bytes, after: bytes, limit: int) -> None:
        known = (self.model.live(space, key) for key in sorted(KEYS) if key.startswith(prefix) and key > after)
        expected = [row for row in known if row][:limit]
        for store in self.stores:
            assert list(store.scan(space, prefix, after=after, limit=limit)) == expected

    @rule(log=logs, level=st.integers(0, 1), index=st.integers(0, 2))
    def read_tile(self, log: str, level: int, index: int) -> None:
        for store in self.stores:
            try:
                got: bytes | None = store.tile(log, level, index)
            except RecordsError:
                got = None
            assert got == self.model.tiles.get((log, level, index))

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "model"):
            return
        for log in LOGS:
            known = self.model.entries[log]
            versions: dict[str, int] = {}
            for one in known:
                versions[one.stream] = max(versions.get(one.stream, 0), one.version)
            for store in self.stores:
                assert store.head(log) == self.model.heads.get(log, Head())
                assert store.find(log, [bytes([number]) * 16 for number in range(31)]) == {
                    one.id: one.position for one in known
                }
                assert store.versions(log, ["/0", "/1", "/2"]) == versions
        for space in SPACES:
            for key in KEYS:
                assert [store.get(space, key) for store in self.stores] == [self.model.live(space, key)] * 3

    def teardown(self) -> None:
        if hasattr(self, "postgres"):
            self.sqlite.close()
            self.postgres.close()
            self.lent.close()
            shutil.rmtree(self.directory)


Stores.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestStoresAgreeWithTheModel = Stores.TestCase
