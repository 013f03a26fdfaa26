"""Private fields of typed events: how they are declared, and what a reader gets who may not see them.

What stands in place of a value is a value too, never an exception: whoever follows a stream goes on with what it may
see. A type checker makes sure that all three cases are thought of: `Pii[str]` is `str | Redacted[str] | Erased[str]`.
"""

from typing import Annotated, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Redacted(msgspec.Struct, Generic[T], frozen=True, tag_field="private", tag="redacted"):
    """In place of a value that this reader may not decrypt.

    It is true like any object: there is a value, it is only not shown. Two of one person are equal, as long as the
    person's key is the same, so they can be counted and grouped.

    Args:
        key: hex id of the key, random; names nobody.
    """

    key: str

    def __str__(self) -> str:
        return "[redacted]"


class Erased(msgspec.Struct, Generic[T], frozen=True, tag_field="private", tag="erased"):
    """In place of a value whose key was destroyed: nobody will ever read it. It is true like any object.

    Args:
        key: hex id of the key, random; names nobody.
        certificate: position of the certificate of erasure in the ledger, None where that is not known.
    """

    key: str
    certificate: int | None = None

    def __str__(self) -> str:
        return "[erased]"


class Marker:
    """How annotations say that a field is private.

    Args:
        names: whether the field says whose data it is.
    """

    def __init__(self, *, names: bool) -> None:
        self.names = names


class About:
    """Whose a private value is, where an event has several subjects: `Annotated[Pii[str], About("seller")]`.

    Args:
        subject: the field that names the person.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject


Subject = Annotated[str | Redacted[str] | Erased[str], Marker(names=True)]
Pii = Annotated[T | Redacted[T] | Erased[T], Marker(names=False)]
