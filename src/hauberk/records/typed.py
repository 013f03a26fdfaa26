"""Typed events: what an application declares about its facts, and whose data is in them.

```
class OrderPlaced(Event, type="shop.order.placed.v1"):
    order: str
    customer: Subject                       # whose data the private fields are; sealed itself
    email: Pii[str]                         # sealed under the key of `customer`
    total: int                              # clear
```

An event is a frozen record with keyword arguments. Private fields hold their plain value when an event is made, and
what the reader may see when it is read: the value, `Redacted` or `Erased`. With several `Subject` fields each `Pii`
says whose it is: `email: Annotated[Pii[str], About("seller")]`. What a class says is checked when it is made; what an
event holds is checked when it is appended, so whatever is stored can be read again.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, dataclass_transform

import msgspec

from hauberk.records.hidden import Erased, Redacted
from hauberk.records.shape import check_class, shape_of

MAX_TYPE = 128  # characters of a type
_NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")
# What the planes record themselves; an application's event must not pass for one of those.
RESERVED = frozenset(
    {
        *("admin", "audit", "authority", "edge", "identity", "ledger", "policy", "producer", "pseudonyms", "records"),
        *("request", "transport", "untyped"),
    }
)
_classes: dict[str, "type[Event]"] = {}  # by type; filled while modules are loaded


M = TypeVar("M", bound="EventMeta")


class EventMeta(msgspec.StructMeta):
    """Makes event classes: frozen, keyword arguments, registered under their type."""

    def __new__(  # noqa: D102, PYI019  # see the class; PEP 673 has no Self in a metaclass
        mcs: type[M],
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, object],
        /,
        *,
        type: str = "",  # noqa: A002  # reads as the event's own word
        sign: Literal["batch", "event"] = "batch",
        frozen: Literal[True] = True,
    ) -> M:
        if sign not in {"batch", "event"}:
            raise TypeError(f'{name}: sign="batch" or sign="event"')
        namespace |= {"__event_type__": type, "__event_alone__": sign == "event"}
        made = super().__new__(mcs, name, bases, namespace, frozen=frozen, kw_only=True)
        check_class(made)
        if type:
            _register(type, made)
        return made


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, metaclass=EventMeta, frozen=True):
    """The base of typed events; a class without `type` is a base too and cannot be appended.

    Args:
        type: name and version, such as `shop.order.placed.v1`; stands for this class for ever.
        sign: `batch`, or `event` when the producer has to sign each event of this type by itself.
    """

    __event_type__: ClassVar[str] = ""
    __event_alone__: ClassVar[bool] = False

    if TYPE_CHECKING:

        def __init_subclass__(
            cls,
            *,
            type: str = "",  # noqa: A002  # reads as the event's own word
            sign: Literal["batch", "event"] = "batch",
        ) -> None:
            """Tell type checkers what the metaclass takes."""

    def __repr__(self) -> str:
        hidden = shape_of(type(self)).hidden
        shown = (f"{name}={self._shown(name, hidden=name in hidden)}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __rich_repr__(self) -> Iterator[str]:  # type: ignore[override]  # what msgspec says here shows every value
        yield repr(self)

    def _shown(self, name: str, *, hidden: bool) -> str:
        """Return a field for people; private values stay out of logs and tracebacks."""
        value = getattr(self, name)
        return "..." if hidden and not isinstance(value, Redacted | Erased) else repr(value)


class Untyped(Event):
    """What is read where there is no class: the planes' own records, and types this program does not know.

    Args:
        data: the fields, private ones among them as plain JSON, `Redacted` or `Erased`.
    """

    data: Mapping[str, object]

    def __repr__(self) -> str:
        """Return the names of the fields: which values were private is not known here, so none is shown."""
        shown = (
            f"{name}={value if isinstance(value, Redacted | Erased) else '...'}" for name, value in self.data.items()
        )
        return f"Untyped({', '.join(shown)})"


def _register(kind: str, made: type[Any]) -> None:
    if not _NAME.fullmatch(kind) or len(kind) > MAX_TYPE:
        raise TypeError(f"{made.__name__}: a type is dotted and lower-case, such as shop.order.placed.v1")
    if kind.partition(".")[0] in RESERVED:
        raise TypeError(f"{made.__name__}: types of {kind.partition('.')[0]} are recorded by hauberk itself")
    known = _classes.get(kind)
    if known is not None and (known.__module__, known.__qualname__) != (made.__module__, made.__qualname__):
        raise TypeError(f"{made.__name__}: the type {kind} is that of {known.__module__}.{known.__qualname__}")
    _classes[kind] = made


def class_of(kind: str) -> "type[Event] | None":
    """Return the class registered for a type."""
    return _classes.get(kind)


def registered() -> "Iterator[tuple[str, type[Event]]]":
    """Yield every type that has a class, with it."""
    yield from list(_classes.items())
