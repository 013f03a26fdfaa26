"""Where a store or a bus is. An address may hold a password, which it shows nowhere: not in `str()`, not in `repr()`.

```
sqlite:                       hauberk.db in the state directory
sqlite:PATH                   another file
local:                        within the process
postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full
env:NAME, file:PATH           the address is in a variable, or in a file that is this user's alone
```

In a `postgresql:` address what is special in URLs (RFC 3986, section 2.2) is percent-encoded in each part. An address
that could be read in two ways is refused: one of them might show a part of the password.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import ClassVar

_POSTGRES = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:@/?#\s]*)(?P<password>:[^:@/?#\s]*)?@)?(?P<place>[^@/?#\s]*(?:/[^@/?#\s]*)?)"
    r"(?:\?(?P<query>[^@?#\s]*))?"
)
_VARIABLE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
# Parameters that are shown. Of the first other one, known or not, only the name is, and nothing of what follows it.
_SHOWN = frozenset({
    "application_name", "connect_timeout", "dbname", "host", "hostaddr", "port", "sslmode", "sslrootcert",
    "target_session_attrs", "user",
})  # fmt: skip


class Address:
    """A place, or a reference to where one is written.

    Args:
        text: see the module.

    Raises:
        ValueError: it is none; the message does not repeat it.
    """

    schemes: ClassVar[frozenset[str]] = frozenset({"sqlite", "local", "postgresql"})
    __slots__ = ("_text", "scheme")

    def __init__(self, text: str) -> None:
        scheme, colon, rest = text.partition(":")
        self.scheme = "postgresql" if scheme == "postgres" else scheme
        self._text = text
        if not colon or "\0" in text or self.scheme not in {*self.schemes, "env", "file"}:
            raise ValueError("an address begins with " + ": or ".join(sorted({*self.schemes, "env", "file"})) + ":")
        if self.scheme == "postgresql" and not _POSTGRES.fullmatch(text):
            raise ValueError("write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, what is special percent-encoded")
        if self.scheme == "env" and not _VARIABLE.fullmatch(text):
            raise ValueError("write env:NAME")
        if self.scheme == "file" and not rest:
            raise ValueError("write file:PATH")
        if self.scheme == "local" and rest:
            raise ValueError("write local:")

    @property
    def rest(self) -> str:
        """What is after the scheme; of `env:` a name, of `file:` and `sqlite:` a path."""
        return self._text.partition(":")[2]

    def reveal(self) -> str:
        """Return the whole address, password and all, for whoever connects."""
        return self._text

    def __str__(self) -> str:
        found = _POSTGRES.fullmatch(self._text)
        if found is None:
            return self._text
        user = found["user"]
        hidden = ":***" if found["password"] else ""
        at = "" if user is None else f"{user}{hidden}@"
        query = "" if found["query"] is None else "?" + "&".join(_shown(found["query"]))
        return f"postgresql://{at}{found['place']}{query}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def _shown(query: str) -> Iterator[str]:
    """Yield the parameters up to the first that is hidden: what follows that may be the rest of its value."""
    for text in query.split("&"):
        name, equals, _ = text.partition("=")
        if name not in _SHOWN or not equals:
            yield f"{name}{equals}***"
            return
        yield text


class StoreAddress(Address):
    """Where a store is: `sqlite:`, `sqlite:PATH`, `postgresql://...`, `env:NAME` or `file:PATH`."""

    schemes = frozenset({"sqlite", "postgresql"})
    __slots__ = ()


class BusAddress(Address):
    """Where a bus is: `local:`, `postgresql://...`, `env:NAME` or `file:PATH`."""

    schemes = frozenset({"local", "postgresql"})
    __slots__ = ()


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, seen from itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
