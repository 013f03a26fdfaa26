"""Trust policies (c2sp.org/tlog-policy): which logs a checkpoint may come from, and which witnesses must have seen it.

A policy is a text file. Items of a line are separated by spaces and tabs; lines that start with `#` are comments:

```
log example.org/ledger+5f5b716d+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4
witness a w.example/w1+2aa85059+BAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4 https://w.example/
group two-of-three 2 a b c
quorum two-of-three
```

A log's key has type 0x01 (Ed25519) or 0x06 (ML-DSA-44), a witness's type 0x04 or 0x06. What is named was defined on a
line above, every name is a member of one group at most, and there is exactly one quorum line; `quorum none` asks for no
witness. A policy holds no secret, and whoever may write it decides what is believed.

Octets above 0x7E are opaque: names are kept as Python strings with `surrogateescape`, so no two of them fall together.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType

import msgspec

from hauberk.crypto.cosignature import Cosigner
from hauberk.crypto.note import (
    ED25519,
    Checkpoint,
    LogKey,
    Note,
    Verifier,
    decode_vkey,
    parse_checkpoint,
    parse_note,
)
from hauberk.errors import RecordsError

MAX_POLICY_BYTES = 1 << 20  # above a hundred keys of ML-DSA-44 in each role; C2SP asks for 32
REMEMBERED = 16  # notes a policy has held for; at half a megabyte each, were they of the longest, 8 MB
NONE = "none"  # the quorum that asks for no witness
_CODE = "HBK-723"
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_ITEM = re.compile(r"[^ \t\n]+")
_COUNT = re.compile(r"[1-9][0-9]{0,6}\Z")


class TrustedLog(msgspec.Struct, frozen=True):
    """A `log` line.

    Args:
        key: its name is the origin of the log's checkpoints.
        url: where the log is, or empty.
    """

    key: LogKey | Cosigner
    url: str = ""


class Witness(msgspec.Struct, frozen=True):
    """A `witness` line.

    Args:
        name: within the policy, and nowhere else.
        key: what it cosigns with.
        url: the prefix of its submissions, or empty.
    """

    name: str
    key: Cosigner
    url: str = ""


class Group(msgspec.Struct, frozen=True):
    """A `group` line: it has witnessed a checkpoint when `threshold` of its members have."""

    name: str
    threshold: int
    members: tuple[str, ...]


class Vouched(msgspec.Struct, frozen=True):
    """A checkpoint under a policy.

    Args:
        checkpoint: what was signed.
        cosigned: time of the cosignature of each witness that has one, by its name in the policy, in seconds since the
            epoch. The quorum is reached; some of them may be more than it asks for.
    """

    checkpoint: Checkpoint
    cosigned: Mapping[str, int]


class LogPolicy:
    """A policy, checked as a whole when it is made. Immutable.

    Args:
        logs: whose checkpoints are accepted; may be empty where the log is known otherwise.
        witnesses: that may count.
        groups: in an order in which each names only what comes before it.
        quorum: name of a witness or a group, or `none`.

    Raises:
        RecordsError: HBK-723.
    """

    __slots__ = ("groups", "held", "logs", "quorum", "witnesses")

    def __init__(
        self,
        logs: Sequence[TrustedLog] = (),
        witnesses: Sequence[Witness] = (),
        groups: Sequence[Group] = (),
        quorum: str = NONE,
    ) -> None:
        self.logs = tuple(logs)
        self.witnesses = tuple(witnesses)
        self.groups = tuple(groups)
        self.quorum = quorum
        draft = _Draft()
        for log in self.logs:
            draft.log(log)
        for witness in self.witnesses:
            draft.witness(witness)
        for group in self.groups:
            draft.group(group)
        draft.set_quorum(quorum)
        self.held = lru_cache(REMEMBERED)(partial(_examined, self))

    @classmethod
    def parse(cls, data: bytes) -> "LogPolicy":
        """Parse a policy file.

        Raises:
            RecordsError: HBK-723 with `line`, the number of the one that is wrong, where it is one.
        """
        if len(data) > MAX_POLICY_BYTES:
            raise RecordsError(_CODE, "the policy is too long", bytes=len(data))
        if found := _FORBIDDEN.search(data):
            above = data.count(b"\n", 0, found.start())
            raise RecordsError(_CODE, "a control character that is neither tab nor newline", line=above + 1)
        draft = _Draft()
        for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
            items = _ITEM.findall(line)
            if items and not items[0].startswith("#"):
                try:
                    draft.take(items)
                except RecordsError as error:
                    raise RecordsError(_CODE, error.detail, line=number) from None
        if draft.quorum is None:
            raise RecordsError(_CODE, "there is no quorum line")
        return cls(draft.logs, draft.witnesses, draft.groups, draft.quorum)

    def encode(self) -> bytes:
        """Return the policy file."""
        lines = [f"log {log.key.vkey} {log.url}" for log in self.logs]
        lines += [f"witness {one.name} {one.key.vkey} {one.url}" for one in self.witnesses]
        lines += [f"group {group.name} {group.threshold} {' '.join(group.members)}" for group in self.groups]
        lines.append(f"quorum {self.quorum}")
        return "".join(f"{line.rstrip(' ')}\n" for line in lines).encode("utf-8", "surrogateescape")

    def missing(self, cosigned: Collection[str]) -> str:
        """Return what the quorum lacks when these witnesses have cosigned, empty when it is reached. Linear."""
        reached = set(cosigned)
        for group in self.groups:
            if sum(member in reached for member in group.members) >= group.threshold:
                reached.add(group.name)
        if self.quorum == NONE or self.quorum in reached:
            return ""
        for group in self.groups:
            if group.name == self.quorum:
                has = sum(member in reached for member in group.members)
                return f"group {group.name} needs {group.threshold} of {len(group.members)}, and has {has}"
        return f"witness {self.quorum} has not cosigned"

    def __repr__(self) -> str:
        return f"LogPolicy({len(self.logs)} logs, {len(self.witnesses)} witnesses, quorum {self.quorum!r})"


class _Draft:
    """A policy of which each part is checked against those before it."""

    def __init__(self) -> None:
        self.logs: list[TrustedLog] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.quorum: str | None = None
        self._defined: set[str] = set()
        self._members: set[str] = set()
        self._keys: set[tuple[str, bytes]] = set()
        self._ids: set[tuple[str, str, bytes]] = set()

    def take(self, items: list[str]) -> None:
        """Take one line."""
        takers: Mapping[str, Callable[[list[str]], None]] = {
            "log": self._take_log,
            "witness": self._take_witness,
            "group": self._take_group,
            "quorum": self._take_quorum,
        }
        if items[0] not in takers:
            raise _bad("a line starts with log, witness, group, quorum or #")
        takers[items[0]](items[1:])

    def _take_log(self, items: list[str]) -> None:
        _counted(items, 1, 2, "log VKEY [URL]")
        self.log(TrustedLog(read_log_key(items[0]), *items[1:]))

    def _take_witness(self, items: list[str]) -> None:
        _counted(items, 2, 3, "witness NAME VKEY [URL]")
        self.witness(Witness(items[0], Cosigner.parse(items[1]), *items[2:]))

    def _take_group(self, items: list[str]) -> None:
        _counted(items, 3, MAX_POLICY_BYTES, "group NAME all|any|K MEMBER...")
        name, count, *members = items
        counts = {"any": 1, "all": len(members)}
        if count not in counts and not _COUNT.match(count):
            raise _bad("a group needs all, any, or a decimal number of its members")
        self.group(Group(name, counts[count] if count in counts else int(count), tuple(members)))

    def _take_quorum(self, items: list[str]) -> None:
        _counted(items, 1, 1, "quorum NAME")
        self.set_quorum(items[0])

    def log(self, log: TrustedLog) -> None:
        """Add a log."""
        self._key("log", log.key, log.url)
        self.logs.append(log)

    def witness(self, witness: Witness) -> None:
        """Add a witness."""
        self._key("witness", witness.key, witness.url)
        self._define(witness.name)
        self.witnesses.append(witness)

    def group(self, group: Group) -> None:
        """Add a group."""
        if not 1 <= group.threshold <= len(group.members):
            raise _bad("a group needs at least one of its members, and at most all")
        for member in group.members:
            if member not in self._defined:
                raise _bad("a member of a group is not defined above it")
            if member in self._members:
                raise _bad("a name is a member of one group, once")
            self._members.add(member)
        self._define(group.name)
        self.groups.append(group)

    def set_quorum(self, name: str) -> None:
        """Set the quorum."""
        if self.quorum is not None:
            raise _bad("there is more than one quorum line")
        if name != NONE and name not in self._defined:
            raise _bad("the quorum is not defined above its line")
        self.quorum = name

    def _define(self, name: str) -> None:
        if name == NONE or not _ITEM.fullmatch(name) or _FORBIDDEN.search(name.encode("utf-8", "surrogateescape")):
            raise _bad("not a name of a witness or group")
        if name in self._defined:
            raise _bad("a name is defined twice")
        self._defined.add(name)

    def _key(self, role: str, key: LogKey | Cosigner, url: str) -> None:
        if url and (not _ITEM.fullmatch(url) or _FORBIDDEN.search(url.encode("utf-8", "surrogateescape"))):
            raise _bad("not a URL")
        if (role, key.raw) in self._keys:
            raise _bad(f"two {role} lines have the same key")
        if (role, key.name, key.key_id) in self._ids:
            raise _bad(f"two {role} lines have keys of the same name and id")
        self._keys.add((role, key.raw))
        self._ids.add((role, key.name, key.key_id))


def _bad(why: str) -> RecordsError:
    return RecordsError(_CODE, why)


def _counted(items: list[str], least: int, most: int, form: str) -> None:
    if not least <= len(items) <= most:
        raise _bad(f"the line must be: {form}")


def read_log_key(vkey: str) -> LogKey | Cosigner:
    """Parse the verifier key of a log, type 0x01 or 0x06.

    Raises:
        RecordsError: HBK-711.
    """
    _, kind, _ = decode_vkey(vkey)
    if kind == ED25519:
        return LogKey.parse(vkey)
    key = Cosigner.parse(vkey)
    if kind != b"\x06":
        raise RecordsError("HBK-711", "a key of type 0x04 is a witness's")
    return key


def examine(note: str, policy: LogPolicy, *, logs: Sequence[Verifier] = ()) -> Vouched:
    """Return what a note says if the policy holds, and which witnesses cosigned it.

    A policy remembers the last notes it held for, so that thousands of receipts under one checkpoint cost its
    signatures once.

    Args:
        note: a checkpoint with its signatures.
        policy: what to believe.
        logs: further logs to accept, for a policy that lists none.

    Raises:
        RecordsError: HBK-711 with the reason: no note or checkpoint, no signature of a log, a signature under a known
            key that is wrong, another log's checkpoint, no quorum; HBK-723 no log to accept at all.
    """
    return policy.held(note, tuple(logs))


def _examined(policy: LogPolicy, note: str, logs: tuple[Verifier, ...]) -> Vouched:
    parsed = parse_note(note)
    checkpoint = parse_checkpoint(parsed.text)
    accepted: list[Verifier] = [*(log.key for log in policy.logs), *logs]
    if not accepted:
        raise RecordsError(_CODE, "the policy lists no log, and none was given")
    lines = _lines(parsed)
    _require_log(lines, parsed.text, checkpoint.origin, accepted)
    cosigned = {}
    for witness in policy.witnesses:
        times = _times(lines, parsed.text, witness.key, "witness")
        if times:
            cosigned[witness.name] = max(times)
    if why := policy.missing(cosigned):
        raise RecordsError("HBK-711", f"the quorum of witnesses is not reached: {why}", cosigned=len(cosigned))
    return Vouched(checkpoint, MappingProxyType(cosigned))


_Lines = Mapping[tuple[str, bytes], list[bytes]]  # name and key id -> values of signatures


def _lines(note: Note) -> _Lines:
    lines: dict[tuple[str, bytes], list[bytes]] = {}
    for one in note.signatures:
        lines.setdefault((one.name, one.key_id), []).append(one.value)
    return lines


def _require_log(lines: _Lines, text: str, origin: str, accepted: Sequence[Verifier]) -> None:
    signers = [key for key in accepted if _times(lines, text, key, "log")]
    if not signers:
        raise RecordsError("HBK-711", "no log that the policy accepts has signed it")
    if all(key.name != origin for key in signers):
        raise RecordsError("HBK-711", "the checkpoint is of another log than its signature")


def _times(lines: _Lines, text: str, key: Verifier, role: str) -> list[int]:
    """Check every signature under a key and return their times."""
    try:
        return [key.check(text, value) for value in lines.get((key.name, key.key_id), ())]
    except RecordsError:
        raise RecordsError("HBK-711", f"the signature of the {role} {key.name} is wrong") from None


def verify_checkpoint_under(note: str, policy: LogPolicy, *, logs: Sequence[Verifier] = ()) -> Checkpoint:
    """Return the checkpoint of a note that the policy holds for; see `examine`.

    Raises:
        RecordsError: HBK-711 or HBK-723.
    """
    return examine(note, policy, logs=logs).checkpoint
