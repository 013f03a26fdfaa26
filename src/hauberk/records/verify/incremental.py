"""What an auditor keeps between two verifications, so that the next one costs what was added.

The state is the auditor's own, as good as a checkpoint pinned before and better: it holds the unfinished tiles, from
which the new root follows with the new leaves alone, the version of every stream, and where producers were introduced.
So that the new entries continue what was verified is proven, not believed.

What was verified is not read again: an entry below the old size that was changed, or deleted, since then is found by
the next full verification and not by this one. That ids of new entries are not those of old ones is asked of the
store's index.

The file is msgpack of a list, behind its own SHA-256:

```
["hauberk audit state 2", log, key 32, epoch, note, [level...], size, streams, producers, [[epoch, position, lost]...],
    own]
```

`streams` has 24 bytes for each, sorted: the first 16 of SHA-256 of its name, and its last version. `producers` has 40
bytes for each: fingerprint, and the position of its introduction. `own` is whether the log has a producer of its own,
see `statements`.
"""

import struct
from bisect import bisect_left
from collections.abc import Mapping
from hashlib import sha256

import msgspec

from hauberk.errors import RecordsError
from hauberk.records.verify.edge import Edge
from hauberk.records.verify.report import Recovered

FORMAT = "hauberk audit state 2"
MAX_BYTES = 1 << 31  # of a file; 24 for each stream
_DIGEST = 32
_NAME = 16  # bytes of a stream's digest
_STREAM = 24
_PRODUCER = struct.Struct(">32sQ")
_CODE = "HBK-711"


class _File(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: str
    log: str
    key: bytes
    epoch: int
    note: str
    levels: tuple[bytes, ...]
    size: int
    streams: bytes
    producers: bytes
    recoveries: tuple[tuple[int, int, tuple[int, int] | None], ...]
    own: bool


_decode = msgspec.msgpack.Decoder(_File).decode


class Streams:
    """The last version of each stream, looked up in one sorted string of bytes: opening it costs nothing.

    Args:
        table: 24 bytes for each stream.
    """

    __slots__ = ("table",)

    def __init__(self, table: bytes = b"") -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table) // _STREAM

    def version(self, stream: str) -> int:
        """Return the last version of a stream, 0 when there is none."""
        if not self.table:
            return 0
        name = _digest(stream)
        at = self._index(name)
        found = self.table[at * _STREAM : (at + 1) * _STREAM]
        return int.from_bytes(found[_NAME:]) if found[:_NAME] == name else 0

    def _index(self, name: bytes) -> int:
        """Return the index of the first that is not smaller."""
        table = self.table
        return bisect_left(range(len(self)), name, key=lambda at: table[at * _STREAM : at * _STREAM + _NAME])

    def updated(self, versions: Mapping[str, int]) -> "Streams":
        """Return a table in which these streams have these versions."""
        fresh = sorted((_digest(stream), version) for stream, version in versions.items())
        parts, done = [], 0
        for name, version in fresh:
            at = self._index(name) * _STREAM
            parts += [self.table[done:at], name, version.to_bytes(_STREAM - _NAME)]
            done = at + _STREAM if self.table[at : at + _NAME] == name else at
        return Streams(b"".join([*parts, self.table[done:]]))


def _digest(stream: str) -> bytes:
    return sha256(stream.encode("utf-8", "surrogatepass")).digest()[:_NAME]


class State(msgspec.Struct, frozen=True):
    """What was verified.

    Args:
        log: name of the log.
        key: its public key.
        epoch: it was in.
        note: its checkpoint then.
        edge: of its tree then.
        streams: last versions.
        producers: positions of introductions, by fingerprint.
        recoveries: epochs before.
        own: whether the log has a producer of its own.
    """

    log: str
    key: bytes
    epoch: int
    note: str
    edge: Edge
    streams: Streams
    producers: Mapping[bytes, int]
    recoveries: tuple[Recovered, ...]
    own: bool = False

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        levels = tuple(b"".join(level) for level in self.edge.levels)
        producers = b"".join(_PRODUCER.pack(name, at) for name, at in sorted(self.producers.items()))
        recoveries = tuple((one.epoch, one.position, one.lost) for one in self.recoveries)
        body = msgspec.msgpack.encode(
            _File(
                FORMAT, self.log, self.key, self.epoch, self.note, levels, self.edge.size, self.streams.table,
                producers, recoveries, self.own,
            )
        )  # fmt: skip
        return sha256(body).digest() + body

    @classmethod
    def parse(cls, data: bytes) -> "State":
        """Parse a file.

        Raises:
            RecordsError: HBK-711 it is none, or damaged.
        """
        body = data[_DIGEST:]
        try:
            if len(data) > MAX_BYTES or sha256(body).digest() != data[:_DIGEST]:
                raise RecordsError(_CODE, "the state of an earlier verification is damaged")
            found = _decode(body)
            edge = Edge(found.size, found.levels)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise RecordsError(_CODE, "not the state of an earlier verification") from None
        if found.format != FORMAT or len(found.streams) % _STREAM or len(found.producers) % _PRODUCER.size:
            raise RecordsError(_CODE, "not the state of an earlier verification")
        recoveries = tuple(Recovered(*one) for one in found.recoveries)
        return cls(
            found.log, found.key, found.epoch, found.note, edge, Streams(found.streams),
            dict(_PRODUCER.iter_unpack(found.producers)), recoveries, found.own,
        )  # fmt: skip
