"""Arrays as parameters, packed at once. psycopg looks up how to pack every element, which costs more than the rest.

PostgreSQL's binary form of an array of one dimension: dimensions 4, whether there are nulls 4, type of an element 4,
count 4, number of the first 4, and each element behind its length.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from struct import Struct
from typing import ClassVar

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEAD = Struct(">iiIii")
_LENGTH = Struct(">i").pack
_NUMBER = Struct(">iq").pack


class Packed:
    """An array, packed."""

    element: ClassVar[int]  # type of an element
    oid: ClassVar[int]  # type of the array
    __slots__ = ("data",)

    def __init__(self, parts: Iterable[bytes], count: int) -> None:
        if not count:
            self.data = _HEAD.pack(0, 0, self.element, 0, 1)[:12]
        else:
            self.data = b"".join((_HEAD.pack(1, 0, self.element, count, 1), *parts))


class Texts(Packed):
    """An array of text."""

    element, oid = 25, 1009
    __slots__ = ()

    def __init__(self, values: Sequence[str]) -> None:
        encoded = [value.encode() for value in values]
        super().__init__(chain.from_iterable((_LENGTH(len(value)), value) for value in encoded), len(encoded))


class Blobs(Packed):
    """An array of bytea."""

    element, oid = 17, 1001
    __slots__ = ()

    def __init__(self, values: Sequence[bytes]) -> None:
        super().__init__(chain.from_iterable((_LENGTH(len(value)), value) for value in values), len(values))


class Numbers(Packed):
    """An array of int8."""

    element, oid = 20, 1016
    __slots__ = ()

    def __init__(self, values: Sequence[int]) -> None:
        super().__init__((_NUMBER(8, value) for value in values), len(values))


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> bytes:
        return obj.data


class _TextsDumper(_PackedDumper):
    oid = Texts.oid


class _BlobsDumper(_PackedDumper):
    oid = Blobs.oid


class _NumbersDumper(_PackedDumper):
    oid = Numbers.oid


def register(context: AdaptContext) -> None:
    """Let the statements of a connection take such arrays."""
    for kind, dumper in ((Texts, _TextsDumper), (Blobs, _BlobsDumper), (Numbers, _NumbersDumper)):
        if context.adapters is not None:
            context.adapters.register_dumper(kind, dumper)


def arrays(rows: Sequence[Sequence[object]]) -> list[object]:
    """Turn rows into columns, each an array of what its first value is; one of floats or nulls is left to psycopg."""
    return [_array(column) for column in zip(*rows, strict=True)]


def _array(column: Sequence[object]) -> object:
    kind = type(column[0])
    if kind is bytes:
        return Blobs(column)  # type: ignore[arg-type]  # columns have one type
    if kind is str:
        return Texts(column)  # type: ignore[arg-type]  # the same
    if kind is int:
        return Numbers(column)  # type: ignore[arg-type]  # the same
    return list(column)
