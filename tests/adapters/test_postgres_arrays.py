"""What we pack ourselves arrives as it was: arrays as parameters, and rows for COPY."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.postgres_arrays import Blobs, Numbers, Texts, arrays
from hauberk.adapters.postgres_connect import Connection, Target
from hauberk.core.event import Entry
from hauberk.core.ports import Append, Head, Write
from tests.support.postgres import administrator, database

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
entries = st.lists(
    st.builds(
        Entry, st.just(0), st.binary(min_size=16, max_size=16), texts, texts, st.integers(1, 2**63 - 1), st.binary(),
        st.binary(), st.binary(), st.binary(), st.binary(),
    ),
    min_size=1, max_size=4, unique_by=(lambda one: one.id, lambda one: (one.stream, one.version)),
)  # fmt: skip
patient = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with closing(Target(administrator()).connect()) as made:
        yield made


@pytest.fixture(scope="module")
def store() -> Iterator[PostgresStore]:
    with database() as dsn, closing(PostgresStore(dsn)) as made:
        yield made


@patient
@given(st.lists(texts), st.lists(st.binary()), st.lists(numbers))
def test_arrays_of_any_length_arrive_as_they_were(
    connection: Connection, words: list[str], blobs: list[bytes], integers: list[int]
) -> None:
    values = (Texts(words), Blobs(blobs), Numbers(integers))
    assert connection.execute("SELECT %s, %s, %s", values, binary=True).fetchall() == [(words, blobs, integers)]
    kinds = connection.execute("SELECT pg_typeof(%s)::text, pg_typeof(%s)::text, pg_typeof(%s)::text", values)
    assert kinds.fetchall() == [("text[]", "bytea[]", "bigint[]")]


def test_rows_become_columns_and_no_rows_none() -> None:
    assert arrays([]) == []
    columns = arrays([("a", b"b", 1, None), ("c", b"d", 2, 0.5)])
    assert [type(column) for column in columns] == [Texts, Blobs, Numbers, list]


@patient
@given(entries, st.integers(0, 2**32).map("log {}".format))
def test_entries_arrive_as_they_were_whether_copied_or_inserted(
    store: PostgresStore, drawn: list[Entry], log: str
) -> None:
    log = f"{log} {store.commit(Write())}"  # one of its own
    filler = [
        Entry(0, b"%016d" % at, f"filler {at}", "t", at + 1, b"l", b"m", b"p") for at in range(60 - len(drawn))
    ]  # enough for COPY
    for name, all_ in ((f"{log} copied", drawn + filler), (f"{log} inserted", drawn)):
        dense = [replace(one, position=at) for at, one in enumerate(all_)]
        store.commit(Write(Append(name, 0, dense, Head(len(dense)))))
        assert list(store.entries(name)) == dense
