"""Snapshots: what a stream has come to at one version, so that nobody has to read it all again.

A snapshot is an event of the ledger like any other, in the stream `/snapshots/order-17` beside `/streams/order-17`: it
cannot be changed unseen, and what it says about people is sealed under their keys, so erasing somebody takes their
snapshots along. Policies are asked about the stream itself: `append` to save one, `read` and `decrypt` to load it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from hauberk.core.event import Entry, Private
from hauberk.core.event import Event as Envelope
from hauberk.errors import Malformed, Oversized, UnknownType
from hauberk.records._encode import MAX_PART_BYTES
from hauberk.records.hidden import Erased, Redacted
from hauberk.records.keys import SubjectKeys
from hauberk.records.permission import Context
from hauberk.records.reading import Reader, typed
from hauberk.records.shape import finite, shape_of
from hauberk.records.streams import SNAPSHOTS, STREAMS
from hauberk.records.typed import Event

TYPE = "records.snapshot"
WHOLE = "state"  # path of a state that is sealed as a whole
_encode = msgspec.json.Encoder().encode
_decode_any = msgspec.json.Decoder().decode


class Snapshot(msgspec.Struct, frozen=True):
    """A state as it was saved.

    Args:
        version: of the stream.
        state: an event class's instance, or plain JSON; `Redacted` or `Erased` where that was one person's.
        position: in the ledger.
    """

    version: int
    state: Any
    position: int

    def __repr__(self) -> str:
        """Return a line for people; a typed state hides what is private itself, of a plain one nothing is shown."""
        state = repr(self.state) if isinstance(self.state, Event | Redacted | Erased) else "..."
        return f"Snapshot(version={self.version}, state={state}, position={self.position})"

    def __rich_repr__(self) -> Iterator[str]:  # type: ignore[override]  # what msgspec says here shows every value
        yield repr(self)


class _Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """The clear part of a snapshot: of a typed state its type and clear fields, else the state itself."""

    version: int
    kind: str = ""
    state: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Stored).decode


def snapshots_of(stream: str) -> str:
    """Return the stored stream of a stored stream's snapshots."""
    return SNAPSHOTS + stream.removeprefix(STREAMS)


def snapshot_event(reader: Reader, stream: str, version: int, state: object, *, subject: str, who: Context) -> Envelope:
    """Return the event that saves a state.

    Args:
        reader: of the store.
        stream: stored name.
        version: of the stream.
        state: a typed state, or plain JSON types.
        subject: whose all of a plain state is; empty for nobody's.
        who: saves it.

    Raises:
        Malformed: HBK-716 it has no JSON.
        Oversized: HBK-715.
        UnknownSubject: HBK-717.
        UnknownType: HBK-714 the class of the state has no type.
    """
    data: dict[str, object] = {"version": version}
    private: tuple[Private, ...] = ()
    if isinstance(state, Event):
        shape = shape_of(type(state))
        if not shape.kind:
            raise UnknownType("the class of the state has no type", type=type(state).__name__)
        facts, private = shape.store(state)
        data |= {"kind": shape.kind, "state": facts}
    else:
        plain, raw = _plain(state)
        if subject:
            private = (Private(WHOLE, subject, raw),)
        else:
            data["state"] = plain
    made = reader.permission.event(TYPE, snapshots_of(stream), who, data=data)
    return replace(made, private=private)


def _plain(state: object) -> tuple[object, bytes]:
    try:
        raw = _encode(state)
        plain = _decode_any(raw)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Malformed("a state is of JSON types, or a typed event") from error
    if b"null" in raw and not finite(msgspec.to_builtins(state)):
        raise Malformed("a number that is none, or without end, has no JSON")
    if len(raw) > MAX_PART_BYTES:
        raise Oversized("the state is too large", bytes=len(raw))
    return plain, raw


def read_snapshot(reader: Reader, entry: Entry, stream: str, who: Context) -> Snapshot:
    """Return a stored snapshot as the reader sees it.

    Raises:
        UnknownType: HBK-714 no class is registered for its state.
        Malformed: HBK-716 it is none, or not what its class says.
        Tampered: HBK-710 it is not what was recorded.
    """
    reader.checked(entry)
    keys = SubjectKeys.owners(entry) if entry.sealed else {}
    opened = reader.opened(who, entry, keys, stream)
    try:
        stored = _decode(entry.public)
        state = typed(stored.kind, bytes(stored.state), opened, strict=True) if stored.kind else _state(stored, opened)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed("what is stored is no snapshot", position=entry.position) from error
    return Snapshot(stored.version, state, entry.position)


def _state(stored: _Stored, opened: Mapping[str, object]) -> object:
    whole = opened.get(WHOLE, bytes(stored.state))
    return whole if isinstance(whole, Redacted | Erased) or not isinstance(whole, bytes) else _decode_any(whole)
