"""The shape of an event class: which fields are clear, which are sealed and whose they are; storing and reading by it.

The clear fields are one JSON object, the public part of an entry. Each private field is JSON by itself and sealed under
the key of its subject; its path is the field's name. What goes in is read back before it is taken, so an event that
breaks its own types is refused instead of stored.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from hauberk.core.event import Private
from hauberk.errors import Malformed, Oversized, UnknownSubject
from hauberk.records._encode import MAX_PART_BYTES
from hauberk.records.hidden import About, Erased, Marker, Redacted

if TYPE_CHECKING:
    from hauberk.records.typed import Event

MAX_SUBJECT = 512  # characters of a subject's name
_SCALARS = frozenset({str, int, bool, type(None)})  # what is plain JSON as it stands, and never changes on the way
_encode = msgspec.json.Encoder().encode
_decode_any = msgspec.json.Decoder().decode
_HIDDEN = (Redacted, Erased)


class Hidden(msgspec.Struct, frozen=True):
    """One private field: the field that names its subject, and how its value is read."""

    subject: str
    decode: Callable[[bytes], object]


class Shape(msgspec.Struct, frozen=True):
    """What an event class says.

    Args:
        cls: the class.
        kind: its type.
        alone: the producer signs each event by itself.
        clear: names of the clear fields.
        plain: their values are JSON as they stand.
        decode: reads the clear fields; the result has them as attributes.
        hidden: the private fields.
    """

    cls: "type[Event]"
    kind: str
    alone: bool
    clear: tuple[str, ...]
    plain: bool
    decode: Callable[[bytes], object]
    hidden: Mapping[str, Hidden]

    def store(self, event: "Event") -> tuple[Mapping[str, object], tuple[Private, ...]]:
        """Return the clear facts of an event and its private values.

        Raises:
            Malformed: HBK-716 a value is not what its field says.
            Oversized: HBK-715 a part is larger than a record may be.
            UnknownSubject: HBK-717 a private value is nobody's.
        """
        facts = {name: getattr(event, name) for name in self.clear}
        raw = _checked(facts, self.decode, self.kind)
        private = tuple(self._private(event, path, hidden) for path, hidden in self.hidden.items())
        size = max(len(raw), sum(len(one.path) + len(one.value) for one in private))
        if size > MAX_PART_BYTES:
            raise Oversized("a part of the event is too large", type=self.kind, bytes=size)
        return facts if self.plain else _decode_any(raw), private

    def _private(self, event: "Event", path: str, hidden: Hidden) -> Private:
        subject = getattr(event, hidden.subject)
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT:
            raise UnknownSubject("a private value names nobody", type=self.kind, field=hidden.subject)
        return Private(path, subject, _checked(getattr(event, path), hidden.decode, self.kind))

    def read(self, public: bytes, private: Mapping[str, object]) -> "Event":
        """Return the event.

        Args:
            public: the clear part.
            private: by path, the JSON bytes, or what stands in their place.

        Raises:
            Malformed: HBK-716 the parts are not an event of this class.
        """
        try:
            clear = self.decode(public)
            values = {name: getattr(clear, name) for name in self.clear}
            for path, hidden in self.hidden.items():
                if path in private:
                    value = private[path]
                    values[path] = hidden.decode(value) if isinstance(value, bytes) else value
            return self.cls(**values)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            raise Malformed("what is stored is no event of its class", type=self.kind) from error


def _checked(value: object, decode: Callable[[bytes], object], kind: str) -> bytes:
    """Return the JSON of a value that its own field can read again."""
    if isinstance(value, _HIDDEN):
        raise Malformed("a value that was hidden from its reader cannot be stored again", type=kind)
    try:
        raw = _encode(value)
        decode(raw)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Malformed("a value is not what its field says", type=kind) from error
    if b"null" in raw and not finite(msgspec.to_builtins(value)):
        raise Malformed("a number that is none, or without end, has no JSON", type=kind)
    return raw


def finite(value: object) -> bool:
    """Tell whether there is no NaN and no infinity in a value; JSON would make nothing of them."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(finite(one) for one in value.values())
    return not isinstance(value, list | tuple | set | frozenset) or all(finite(one) for one in value)


# from a class to its shape


_shapes: dict[type, Shape] = {}  # made once each, whichever thread is first


def shape_of(cls: "type[Event]") -> Shape:
    """Return the shape of an event class.

    Raises:
        TypeError: the class says what cannot be kept.
    """
    found = _shapes.get(cls)
    if found is None:
        found = _shapes[cls] = _shape(cls)
    return found


def check_class(cls: type[Any]) -> None:
    """Refuse a class that says what cannot be kept; one that names classes still to come is looked at when it is used.

    Raises:
        TypeError: with what to write instead.
    """
    with suppress(NameError):
        shape_of(cls)


def _shape(cls: "type[Event]") -> Shape:
    fields = msgspec.structs.fields(cls)
    if any(one.name != one.encode_name for one in fields):
        raise TypeError(f"{cls.__name__}: a field is stored under its own name")
    hints = get_type_hints(cls, include_extras=True)
    markers = {one.name: _marker(cls, one.name, hints[one.name]) for one in fields}
    subjects = [name for name, marker in markers.items() if marker is not None and marker.names]
    hidden = {
        name: Hidden(_owner(cls, name, hints[name], marker, subjects), _decoder(_inner(hints[name])))
        for name, marker in markers.items()
        if marker is not None
    }
    clear = tuple(one for one in fields if markers[one.name] is None)
    names = tuple(one.name for one in clear)
    reader = msgspec.defstruct(
        f"{cls.__name__}Clear", [_definition(one, hints[one.name]) for one in clear], kw_only=True, frozen=True
    )
    return Shape(
        cls,
        cls.__event_type__,
        cls.__event_alone__,
        names,
        all(set(get_args(hints[name]) or (hints[name],)) <= _SCALARS for name in names),
        _decoder(reader),
        hidden,
    )


def _definition(one: msgspec.structs.FieldInfo, hint: object) -> tuple[str, Any] | tuple[str, Any, Any]:
    if not one.required:
        kept = {"default": one.default, "default_factory": one.default_factory}
        return one.name, hint, msgspec.field(**{key: it for key, it in kept.items() if it is not msgspec.NODEFAULT})
    return one.name, hint


def _decoder(hint: Any) -> Callable[[bytes], object]:  # noqa: ANN401  # any type there is
    return msgspec.json.Decoder(hint).decode


def _marker(cls: type, name: str, hint: object) -> Marker | None:
    """Return how a field is private, None for a clear one; private data inside something else is refused."""
    marker = next((one for one in _extras(hint) if isinstance(one, Marker)), None)
    inside = _inner(hint) if marker is not None else hint
    if _hides(inside, set()):
        raise TypeError(f"{cls.__name__}.{name}: Pii[...] and Subject stand at the outside, such as Pii[list[str]]")
    return marker


def _extras(hint: object) -> tuple[object, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _inner(hint: object) -> object:
    """Return `T` of `Pii[T]`: what `Redacted` stands for."""
    union = get_args(hint)[0]
    return next(get_args(one)[0] for one in get_args(union) if get_origin(one) is Redacted)


def _hides(hint: object, seen: set[object]) -> bool:
    """Tell whether private data is declared anywhere inside a type."""
    if isinstance(hint, type) and hint not in seen and getattr(hint, "__annotations__", None):
        seen.add(hint)
        return any(_hides(one, seen) for one in get_type_hints(hint, include_extras=True).values())
    return any(isinstance(one, Marker) or _hides(one, seen) for one in _parts(hint))


def _parts(hint: object) -> Iterator[object]:
    yield from get_args(hint)
    origin = get_origin(hint)
    if isinstance(origin, type):
        yield origin


def _owner(cls: type, name: str, hint: object, marker: Marker, subjects: list[str]) -> str:
    """Return the field that says whose data a private field is."""
    named = [one.subject for one in _extras(hint) if isinstance(one, About)]
    if marker.names:
        if named:
            raise TypeError(f"{cls.__name__}.{name}: a Subject is about itself")
        return name
    chosen = named or subjects
    if len(chosen) != 1:
        what = "no field says" if not chosen else "several fields say"
        raise TypeError(f'{cls.__name__}.{name}: {what} whose data this is; mark one Subject, or add About("FIELD")')
    if chosen[0] not in subjects:
        raise TypeError(f"{cls.__name__}.{name}: {chosen[0]} is no field marked Subject")
    return chosen[0]
