"""The quick way through a page accepts nothing that the rule refuses, entry by entry."""

from collections.abc import Callable
from hashlib import sha256
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.event import NO_KEY, Entry, Leaf
from hauberk.crypto.merkle import Frontier
from hauberk.errors import RecordsError
from hauberk.records._encode import encode_event
from hauberk.records.sealed import commitment_of
from hauberk.records.verify.edge import Edge, tile_root
from hauberk.records.verify.entries import Versions
from hauberk.records.verify.hashing import LEAF, NODE, hash_each
from hauberk.records.verify.page import Page, Row, check_entry, fitting
from tests.records.made import event

FIRST = 40
KEYS = ((b"k" * 16, b"c" * 32),)
SEALED = msgspec.msgpack.encode((KEYS, [["email", 0, b"n" * 40]]))
FIELDS = Entry.__struct_fields__


def row(position: int, version: int, *, stream: str = "/streams/a", sealed: bytes = b"", flags: int = 0) -> Row:
    one = event(position, stream=stream)
    meta, public = encode_event(one)
    key = commitment_of(KEYS) if sealed else NO_KEY
    first, second, third = (sha256(part).digest() for part in (meta, public, sealed))
    leaf = Leaf(position, one.time_ns, version, first, second, third, key, flags).encode()
    return (position, one.id, stream, one.type, version, leaf, meta, public, sealed, b"")


def page() -> list[Row]:
    """Five entries of two streams; one is sealed, one is signed."""
    return [
        row(FIRST, 8),
        row(FIRST + 1, 1, stream="/streams/b", sealed=SEALED),
        row(FIRST + 2, 9, flags=1),
        row(FIRST + 3, 2, stream="/streams/b"),
        row(FIRST + 4, 10, sealed=SEALED, flags=1),
    ]


def versions() -> Versions:
    return Versions(lambda stream: 7 if stream == "/streams/a" else 0)


def quick(rows: list[Row], seen: frozenset[bytes] = frozenset()) -> bool:
    return fitting(Page(rows), FIRST, seen, versions()) is not None


def by_rule(rows: list[Row], seen: frozenset[bytes] = frozenset()) -> bool:
    """Whether each entry is right on its own, and the versions follow one another."""
    ids, last = set(seen), versions()
    for at, one in enumerate(rows, FIRST):
        entry = Entry(*one)
        try:
            if entry.position != at or type(entry.position) is not int:
                return False
            check_entry(entry, at, ids, lambda _: None)
        except RecordsError:
            return False
        if entry.version != last[entry.stream] + 1:
            return False
        last[entry.stream] = entry.version
        ids.add(entry.id)
    return True


def test_an_honest_page_fits() -> None:
    rows = page()
    assert by_rule(rows)
    assert fitting(Page(rows), FIRST, frozenset(), versions()) == {"/streams/a": 10, "/streams/b": 2}


def swapped(field: str, value: object, at: int = 2) -> Callable[[list[Row]], None]:
    def change(rows: list[Row]) -> None:
        rows[at] = tuple(value if name == field else old for name, old in zip(FIELDS, rows[at], strict=True))  # type: ignore[assignment]  # whatever a database may hold

    return change


def releafed(**fields: object) -> Callable[[list[Row]], None]:
    """A leaf that is another one, and all hashes in it right: what whoever has the log's key can make."""

    def change(rows: list[Row]) -> None:
        leaf = msgspec.structs.replace(Leaf.decode(rows[2][5]), **fields).encode()
        swapped("leaf", leaf)(rows)

    return change


def remade(part: str, data: bytes) -> Callable[[list[Row]], None]:
    def change(rows: list[Row]) -> None:
        releafed(**{part: sha256(data).digest()})(rows)
        swapped(part, data)(rows)

    return change


META = page()[2][6]
CHANGES: dict[str, Callable[[list[Row]], None]] = {
    "position as a float": swapped("position", float(FIRST + 2)),
    "position of another": swapped("position", FIRST + 3),
    "version as text": swapped("version", "9"),
    "version as a float": swapped("version", 9.0),
    "id of another": lambda rows: swapped("id", rows[0][1])(rows),
    "id as text": lambda rows: swapped("id", rows[2][1].hex())(rows),
    "stream of another": swapped("stream", "/streams/b"),
    "stream as bytes": swapped("stream", b"/streams/a"),
    "type of another": swapped("type", "order.lost"),
    "leaf as text": swapped("leaf", "x" * 154),
    "leaf gone": swapped("leaf", None),
    "leaf longer": lambda rows: swapped("leaf", rows[2][5] + b"x")(rows),
    "leaf shorter, the next one longer": lambda rows: (
        swapped("leaf", rows[2][5][:-1])(rows),
        swapped("leaf", rows[2][5][-1:] + rows[3][5], 3)(rows),
    )[0],
    "format of the leaf": lambda rows: swapped("leaf", b"\x02" + rows[2][5][1:])(rows),
    "flags nobody knows": releafed(flags=3),
    "position in the leaf": releafed(position=FIRST),
    "version in the leaf": releafed(version=10),
    "key in the leaf": releafed(key=b"x" * 32),
    "meta as text": lambda rows: swapped("meta", rows[2][6].decode())(rows),
    "public gone": swapped("public", None),
    "sealed gone": swapped("sealed", None),
    "sealed as empty text": swapped("sealed", ""),
    "sealed as zero": swapped("sealed", 0),
    "statement gone": swapped("statement", None),
    "meta with a field nobody knows": remade("meta", META[:-1] + b',"more":"x"}'),
    "meta that names its stream twice": remade("meta", META[:-1] + b',"stream":"/streams/b"}'),
    "meta of another type": remade("meta", META[:-1] + b',"actor":5}'),
    "meta that is two": remade("meta", META + b"," + META),
    "meta that does not end": remade("meta", META[:-1]),
    "public that is no object": remade("public", b"[]"),
    "public that does not end": remade("public", b'{"a":'),
    "public with a number no reader takes": remade("public", b'{"a":1e999}'),
    "public with broken text": remade("public", b'{"a":"\xff"}'),
    "sealed that is none": remade("sealed", b"\xc1"),
    "sealed under other keys than the leaf says": remade("sealed", SEALED),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_rule_refuses_does_not_fit(name: str) -> None:
    rows = page()
    CHANGES[name](rows)
    assert not by_rule(rows)
    assert not quick(rows)


def test_an_id_that_was_there_before_does_not_fit() -> None:
    rows = page()
    seen = frozenset({rows[3][1]})
    assert (quick(rows, seen), by_rule(rows, seen)) == (False, False)


anything = st.one_of(st.none(), st.integers(-3, 300), st.floats(), st.text(max_size=4), st.binary(max_size=160))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_quick_way_accepts_nothing_that_the_rule_refuses(data: st.DataObject) -> None:
    rows = page()
    for _ in range(data.draw(st.integers(0, 2))):
        at, field = data.draw(st.integers(0, 4)), data.draw(st.sampled_from(FIELDS))
        other = rows[data.draw(st.integers(0, 4))][FIELDS.index(field)]
        swapped(field, data.draw(st.one_of(anything, st.just(other))), at)(rows)
    if quick(rows):
        assert by_rule(rows)


@given(st.lists(st.integers(1, 256), max_size=12), st.randoms(use_true_random=False))
def test_the_edge_is_the_tree_of_rfc_6962(steps: list[int], random: Random) -> None:
    edge, frontier = Edge(), Frontier()
    for step in steps:
        hashes = [random.randbytes(32) for _ in range(min(step, edge.room))]
        edge.extend(hashes)
        frontier.extend(hashes)
        edge = edge.copy()
        assert edge.frontier().encode() == frontier.encode()
        assert edge.root() == frontier.root()


@pytest.mark.parametrize("size", [-1, 1, 255, 256, 300])
def test_an_edge_that_does_not_fit_its_size_is_refused(size: int) -> None:
    with pytest.raises(RecordsError):
        Edge(size, (bytes(64),))


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_many_hashes_are_what_each_is(parts: list[bytes]) -> None:
    for prefix in (b"", LEAF, NODE):
        assert hash_each(parts, prefix) == [sha256(prefix + part).digest() for part in parts]


def test_the_root_of_a_tile_is_that_of_its_leaves() -> None:
    hashes = [sha256(bytes([at])).digest() for at in range(256)]
    frontier = Frontier()
    frontier.extend(hashes)
    assert tile_root(hashes) == frontier.root()
