"""Older events read as newer ones: a chain of functions from one version of a type to the next.

```
@upcast("shop.order.placed.v1", to="shop.order.placed.v2")
def currency(data: Fields) -> Fields:
    data["mail"] = data.pop("email")        # a private field under another name: it stays sealed
    return data | {"currency": "EUR"}
```

A function gets the fields as plain JSON and returns them as the next version has them. Private fields are `Sealed`:
they can be moved, left out, and changed by a function that runs only if the reader may decrypt them, but not looked
into, so none gets among the clear fields. Nothing that is stored changes.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import msgspec

from hauberk.errors import Malformed
from hauberk.records.shape import Shape

Fields = dict[str, Any]
Step = Callable[[Fields], Fields]
F = TypeVar("F", bound=Step)
_steps: dict[str, tuple[str, Step]] = {}  # by type, to which next one and how; filled while modules are loaded
_MISTAKES = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_any = msgspec.json.Decoder().decode


class Sealed:
    """A private value on its way to a newer version: it can be moved, not read.

    Args:
        path: under which it is sealed.
        changes: what is done with its JSON value once it is open.
    """

    __slots__ = ("changes", "path")

    def __init__(self, path: str, changes: tuple[Callable[[Any], Any], ...] = ()) -> None:
        self.path = path
        self.changes = changes

    def then(self, change: Callable[[Any], Any]) -> "Sealed":
        """Return the same value, changed by `change` if and when the reader may see it."""
        return Sealed(self.path, (*self.changes, change))

    def __repr__(self) -> str:
        return f"Sealed({self.path!r})"

    def value(self, opened: Mapping[str, object]) -> object:
        """Return its JSON bytes, changed, or what stands in its place."""
        found = opened[self.path]
        if not self.changes or not isinstance(found, bytes):
            return found
        value = _decode_any(found)
        for change in self.changes:
            value = change(value)
        return _encode(value)


def upcast(kind: str, *, to: str) -> Callable[[F], F]:
    """Register a function that turns the fields of one type into those of a newer one.

    Args:
        kind: the older type.
        to: the newer type; may itself have a function to a still newer one.

    Raises:
        TypeError: there is one for `kind` already, or the chain would lead back to it.
    """

    def register(step: F) -> F:
        known = _steps.get(kind)
        if known is not None and _named(known[1]) != _named(step):
            raise TypeError(f"{kind} is turned into {known[0]} already")
        if kind in chain(to):
            raise TypeError(f"{kind} would become itself again")
        _steps[kind] = (to, step)
        return step

    return register


def _named(step: Step) -> tuple[str, str]:
    return getattr(step, "__module__", ""), getattr(step, "__qualname__", repr(step))


def chain(kind: str) -> tuple[str, ...]:
    """Return the types an event of this type goes through when it is read, its own first."""
    found = [kind]
    while (step := _steps.get(found[-1])) is not None:
        found.append(step[0])
    return tuple(found)


def sources(kinds: Collection[str]) -> frozenset[str]:
    """Return every type that is read as one of these, themselves included."""
    return frozenset(kinds) | {one for one in _steps if chain(one)[-1] in kinds}


def upcasted(kind: str, public: bytes, paths: Collection[str]) -> tuple[Fields, Mapping[str, Sealed]]:
    """Return the newest form of an event's fields: clear ones, and private ones by their new path.

    Args:
        kind: as it was stored.
        public: its clear part.
        paths: of its private fields.

    Raises:
        Malformed: HBK-716 a function cannot take these fields, or lets a private value out.
    """
    try:
        fields = _decode(public) | {path: Sealed(path) for path in paths}
        for one in chain(kind)[:-1]:
            fields = _steps[one][1](fields)
        sealed = {name: value for name, value in fields.items() if isinstance(value, Sealed)}
        return {name: value for name, value in fields.items() if name not in sealed}, sealed
    except (*_MISTAKES, msgspec.MsgspecError) as error:
        raise Malformed("an older event does not become a newer one", type=kind) from error


def build(shape: Shape, clear: Fields, sealed: Mapping[str, Sealed], opened: Mapping[str, object]) -> Any:  # noqa: ANN401  # an event of the shape's class
    """Return the event of what `upcasted` gave.

    Args:
        shape: of the newest class.
        clear: fields that are not sealed; one that the class calls private is taken as it is.
        sealed: the others.
        opened: by their old path, JSON bytes or what stands in their place.

    Raises:
        Malformed: HBK-716 it is no event of that class.
    """
    lost = sealed.keys() - shape.hidden.keys()
    if lost & set(shape.clear):
        raise Malformed("a private value would become a clear one", type=shape.kind)
    try:
        private = {name: one.value(opened) for name, one in sealed.items() if name not in lost}
        private |= {name: _encode(clear[name]) for name in clear.keys() & shape.hidden.keys()}
        public = _encode({name: value for name, value in clear.items() if name not in shape.hidden})
    except (*_MISTAKES, msgspec.MsgspecError) as error:
        raise Malformed("an older event does not become a newer one", type=shape.kind) from error
    return shape.read(public, private)
