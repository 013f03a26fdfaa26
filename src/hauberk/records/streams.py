"""Names of streams, and patterns over them.

An application's stream `order-17` is stored as `/streams/order-17`, and that is also the path policies see. A name that
starts with a slash is a stored one: `/services/...` is what services record, `/audit/...` the audit log, `/records/...`
the record of the plane itself. A pattern is a name with a `*` at its end: `order-*`, `*` for every stream of the
application, `/*` for all there is.

A name stays readable for ever, so it holds nobody's name or address: there is no `@` in it.
"""

import re
from collections.abc import Sequence

import msgspec

from hauberk.errors import Malformed

STREAMS = "/streams/"
SNAPSHOTS = "/snapshots/"
READS = "/records/reads"  # who read streams of the record; reading this one is not recorded
DENIED = "/records/denied"
ERASURES = "/records/erasures"
HOLDS = "/records/holds"
RETENTION = "/records/retention"
MAX_NAME = 300  # characters of a stored name; far above any that people choose
_RECORDED = ("/audit/", "/records/")  # reading these is itself recorded
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:+=-]*(/[A-Za-z0-9][A-Za-z0-9._~:+=-]*)*")


def own_stream_of(name: str) -> str:
    """Return the stored name of an application's stream.

    Raises:
        Malformed: HBK-716 not such a name.
    """
    short = name.removeprefix(STREAMS)
    if not _NAME.fullmatch(short) or len(short) > MAX_NAME - len(STREAMS):
        raise Malformed("a stream is named by letters, digits and ._~:+=-, such as order-17", stream=name[:MAX_NAME])
    return STREAMS + short


def shown_stream(stored: str) -> str:
    """Return the name an application knows a stream by."""
    return stored.removeprefix(STREAMS)


class Pattern(msgspec.Struct, frozen=True):
    """One stream, or all whose stored names start alike.

    Args:
        path: what policies are asked about; ends with `*` for many streams.
    """

    path: str

    @classmethod
    def of(cls, name: str) -> "Pattern":
        """Return the pattern of a name as people write it.

        Raises:
            Malformed: HBK-716 not a name or pattern.
        """
        stored = name if name.startswith("/") else STREAMS + name
        start = stored.removesuffix("*")
        if "*" in start or not start.isprintable() or len(stored) > MAX_NAME or start == STREAMS == stored:
            raise Malformed("a stream is NAME, or NAME* for all that start so", stream=name[:MAX_NAME])
        return cls(stored)

    @property
    def exact(self) -> str:
        """The stored name of the one stream this is, empty when it is many."""
        return "" if self.path.endswith("*") else self.path

    def covers(self, stored: str) -> bool:
        """Tell whether a stream is meant."""
        return stored == self.path if self.exact else stored.startswith(self.path[:-1])


def patterns(names: str | Sequence[str]) -> tuple[Pattern, ...]:
    """Return the patterns of one name or several.

    Raises:
        Malformed: HBK-716 there is none, or one is no name.
    """
    found = tuple(Pattern.of(name) for name in ((names,) if isinstance(names, str) else names))
    if not found:
        raise Malformed("no stream is named")
    return found


def is_recorded(stored: str) -> bool:
    """Tell whether reading a stream is itself recorded."""
    return stored.startswith(_RECORDED) and stored != READS
