"""Registration entries: which process may have which identity.

An entry lists selectors; a process that the kernel proves to have all of them may have the entry's SPIFFE id. There is
no selector for the executable's path: for Python that is the interpreter, so it would say nothing. An entry without
selectors is reached by join token only.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from hauberk.core.spiffe import SpiffeId
from hauberk.errors import IdentityError

MIN_TTL = 60.0  # seconds; below, renewal would be all a service does
MAX_TTL = 86_400.0  # seconds; a stolen key is good for no longer than a day
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")  # RFC 1123 label, as Kubernetes names are
_SELECTOR = re.compile(r"(unix:(uid|gid):[0-9]{1,10}|unix:cgroup:/\S{0,1000}|systemd:unit:[\w@:.\\-]{1,255})\Z")
_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class RegistrationEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of "who is who".

    Args:
        name: unique, such as `order-service`.
        spiffe_id: a service id.
        selectors: all of them have to be proven; empty: join token only.
        labels: of the workload, for policy selectors, such as `{"app": "order-service"}`.
        ttl: life of its SVIDs, in seconds.
    """

    name: str
    spiffe_id: SpiffeId
    selectors: frozenset[str] = frozenset()
    labels: Mapping[str, str] = _NO_LABELS
    ttl: float = 3600.0

    def validate(self) -> "RegistrationEntry":
        """Return this entry if it is one.

        Raises:
            IdentityError: HBK-213 a field is wrong, HBK-201 not a service id.
        """
        if not _NAME.match(self.name):
            raise IdentityError("HBK-213", "the name is no RFC 1123 label", name=self.name[:80])
        if self.spiffe_id.namespace is None:
            raise IdentityError("HBK-201", "not a service id", spiffe_id=str(self.spiffe_id))
        for selector in self.selectors:
            if not _SELECTOR.match(selector):
                raise IdentityError("HBK-213", "unknown selector", selector=selector[:80])
        if not MIN_TTL <= self.ttl <= MAX_TTL:
            raise IdentityError("HBK-213", "the TTL is out of range", ttl=self.ttl)
        return self

    def encode(self) -> bytes:
        """Return the stored form, JSON."""
        return msgspec.json.encode(
            {
                "name": self.name,
                "spiffe_id": str(self.spiffe_id),
                "selectors": sorted(self.selectors),
                "labels": dict(self.labels),
                "ttl": self.ttl,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "RegistrationEntry":
        """Read the stored form.

        Raises:
            IdentityError: HBK-213 not that form, HBK-201 not a service id.
        """
        try:
            stored = msgspec.json.decode(data, type=_Stored)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as bad:
            raise IdentityError("HBK-213", str(bad)[:200]) from None
        return cls(
            name=stored.name,
            spiffe_id=SpiffeId.parse(stored.spiffe_id),
            selectors=frozenset(stored.selectors),
            labels=MappingProxyType(dict(stored.labels)),
            ttl=stored.ttl,
        ).validate()


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    spiffe_id: str
    selectors: list[str]
    labels: dict[str, str]
    ttl: float


def matching(entries: Iterable[RegistrationEntry], proven: frozenset[str]) -> tuple[RegistrationEntry, ...]:
    """Return the entries a process with these proven selectors may have, the most specific first, then by name."""
    found = [entry for entry in entries if entry.selectors and entry.selectors <= proven]
    return tuple(sorted(found, key=lambda entry: (-len(entry.selectors), entry.name)))


def choose(entries: Iterable[RegistrationEntry], proven: frozenset[str], name: str | None = None) -> RegistrationEntry:
    """Return the entry called `name`, or without a name the most specific one.

    Raises:
        IdentityError: HBK-205 none matches, the named one does not, or without a name several are equally specific.
    """
    found = matching(entries, proven)
    if name is None and len(found) > 1 and len(found[0].selectors) == len(found[1].selectors):
        raise IdentityError("HBK-205", "several entries match, name one", entries=[entry.name for entry in found])
    chosen = next((entry for entry in found if name is None or entry.name == name), None)
    if chosen is None:
        raise IdentityError("HBK-205", "no entry matches", wanted=name, proven=sorted(proven))
    return chosen
