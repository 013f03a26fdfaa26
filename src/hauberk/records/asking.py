"""Asking one witness for a cosignature: the log's side of c2sp.org/tlog-witness, without threads and without waiting.

What a witness says is believed as far as it is proven. A cosignature counts when it verifies under a key that the
policy names for this very URL; lines of other keys are passed over. That the database is old, or holds another history,
is proven by a checkpoint under the log's own signature that does not fit it, which `Contradicted.proof` is; a witness
that only claims so has merely refused. Where another process appends to the same log the database may have grown since
the question was put: it is read again before anybody is called a liar.

A cosignature says what was the largest tree at its time, so an old one that somebody repeats would hide a rollback
since then: its time has to be that of the question.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.ports import Head, Store
from hauberk.crypto.note import Checkpoint, parse_note
from hauberk.crypto.signing import VerifyKey
from hauberk.errors import HauberkError, RecordsError
from hauberk.records._tiles import StoredTree
from hauberk.records.log_policy import Witness
from hauberk.records.mark import read_mark
from hauberk.records.witness_wire import Request, origin_hash, parse_cosignatures, parse_size

NO_ANSWER = 0  # what a transport returns instead of a status when there was none
MAX_SKEW = 60.0  # seconds between the time of a cosignature and ours
_QUESTIONS = 4  # in one go: the first, the one after a 409, and two more where somebody else is asking too
_WHY = {
    NO_ANSWER: "no answer",
    HTTPStatus.FORBIDDEN: "it does not take the signature of this log",
    HTTPStatus.NOT_FOUND: "it does not know this log",
}

Transport = Callable[[str, bytes | None], tuple[int, bytes]]
"""Sends a body to a URL with POST, or asks for it with GET when there is none, and returns status and body.

It waits a bounded time, reads a bounded answer, follows no redirect, and raises nothing: without an answer the status
is `NO_ANSWER` and the body says why.
"""


class Target(msgspec.Struct, frozen=True):
    """A head that is to be cosigned: its signed note, and what that says."""

    note: str
    checkpoint: Checkpoint

    @classmethod
    def of(cls, head: Head, key: VerifyKey) -> "Target":
        """Return the target that a head is.

        Raises:
            RecordsError: HBK-711 it is not signed with this key.
        """
        note = head.checkpoint.decode("utf-8", "replace")
        return cls(note, read_mark(note, key))


class Cosignatures(msgspec.Struct, frozen=True):
    """The witness cosigned.

    Args:
        lines: signature lines by the name the policy has for their key.
        forgot: says that it has lost what it cosigned before, empty when it has not.
    """

    lines: Mapping[str, str]
    forgot: str = ""


class Overtaken(msgspec.Struct, frozen=True):
    """Somebody else had a newer head cosigned, which the database holds."""

    head: Head


class Failed(msgspec.Struct, frozen=True):
    """There is no cosignature, which may change."""

    why: str


class Contradicted(msgspec.Struct, frozen=True):
    """The witness knows another history, or more of it than the database holds.

    Args:
        status: 409 or 422.
        why: in words.
        proof: a checkpoint signed by this log that the database does not hold; empty when the witness shows none.
    """

    status: int
    why: str
    proof: str = ""


Outcome = Cosignatures | Overtaken | Failed | Contradicted


class Endpoint:
    """One URL at which one or more witnesses of a policy are asked. One thread at a time uses it.

    Args:
        url: prefix of its submissions.
        witnesses: of the policy that are there.
        send: the transport.
        store: where the log lives.
        log: its name in the store.
        key: of the log.
        clock: to compare the times of cosignatures with.
    """

    def __init__(  # noqa: PLR0917  # what it takes to ask, made in one place
        self,
        url: str,
        witnesses: Sequence[Witness],
        send: Transport,
        store: Store,
        log: str,
        key: VerifyKey,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.url = url
        self.witnesses = tuple(witnesses)
        self._send = send
        self._store = store
        self._log = log
        self._key = key
        self._clock = clock
        self._last = ("", 0)  # origin and size that it cosigned last, as far as is known

    @property
    def names(self) -> Collection[str]:
        """What the policy calls the witnesses here."""
        return [witness.name for witness in self.witnesses]

    def cosign(self, target: Target) -> Outcome:
        """Ask for cosignatures of a head."""
        try:
            return self._ask(target)
        except HauberkError as error:  # of the store: a tile is missing, it is closed, its disk fails
            return Failed(f"no proof could be made: {error.code}")

    def known(self, origin: str) -> Outcome:
        """Ask what the witness knows of a log that is empty here; nothing at all is an empty `Cosignatures`."""
        status, body = self._send(self._monitor(origin), None)
        if status == HTTPStatus.NOT_FOUND:
            return Cosignatures({})
        if status != HTTPStatus.OK:
            return Failed(_why(status, body))
        proof = self._contradiction(origin, body)
        if not proof:
            return Failed("it shows something that this log has not signed")
        return Contradicted(HTTPStatus.CONFLICT, "it knows a log that is gone here", proof)

    def _ask(self, target: Target) -> Outcome:
        origin, size = target.checkpoint.origin, target.checkpoint.size
        forgot = ""
        old = last = self._last[1] if self._last[0] == origin else 0
        for _ in range(_QUESTIONS):
            if old > size:
                return self._ahead(target, old)
            proof = StoredTree(self._store, self._log).consistency(old, size) if 0 < old < size else ()
            status, body = self._send(
                self.url.rstrip("/") + "/add-checkpoint", Request(old, tuple(proof), target.note).encode()
            )
            if status == HTTPStatus.OK:
                return self._signed(target, body, forgot)
            named = self._named(target, old, status, body)
            if not isinstance(named, int):
                return named
            if named < last:
                forgot = f"it has cosigned {last} entries, and remembers {named}"
            old = named
        return Failed("others have the same log cosigned, faster")

    def _named(self, target: Target, old: int, status: int, body: bytes) -> int | Outcome:
        """Return the size from which the witness wants to be asked, or what comes of an answer that names none."""
        if status == HTTPStatus.UNPROCESSABLE_ENTITY:
            return self._refused(target, status, "it says that this is not the log it has seen before")
        if status != HTTPStatus.CONFLICT:
            return Failed(_why(status, body))
        same = old == target.checkpoint.size
        try:
            named = parse_size(body)
        except RecordsError:
            named = old
        if named == old and same:  # how witnesses of an earlier version put another root of the same size
            return self._refused(target, status, "it has seen another tree of this log")
        return Failed("it contradicts itself") if named == old else named

    def _signed(self, target: Target, body: bytes, forgot: str) -> Outcome:
        """Take the lines that verify under a key of the policy; one that does not spoils the answer."""
        now = self._clock.time()
        text, lines = parse_note(target.note).text, {}
        try:
            answered = parse_cosignatures(body)
            for witness in self.witnesses:
                for line in answered:
                    if (line.name, line.key_id) == (witness.key.name, witness.key.key_id):
                        time = witness.key.check(text, line.value)
                        if abs(time - now) > MAX_SKEW:
                            return Failed(f"the time of its cosignature is {time - now:+.0f} s from ours")
                        lines[witness.name] = line.line()
        except RecordsError as error:
            return Failed(f"the cosignature is not valid: {error.detail}")
        if not lines:
            return Failed("no cosignature by a key of the policy")
        self._last = (target.checkpoint.origin, target.checkpoint.size)
        return Cosignatures(lines, forgot)

    def _ahead(self, target: Target, size: int) -> Outcome:
        """The witness has cosigned more than is asked for: either somebody else asked, or the database is old."""
        head = self._store.head(self._log)
        if head.size >= size:
            return Overtaken(head)
        why = f"it has cosigned {size} entries, and the database holds {head.size}"
        return self._refused(target, HTTPStatus.CONFLICT, why)

    def _refused(self, target: Target, status: int, why: str) -> Outcome:
        self._last = ("", 0)
        answered, body = self._send(self._monitor(target.checkpoint.origin), None)
        shown = self._contradiction(target.checkpoint.origin, body) if answered == HTTPStatus.OK else ""
        return Contradicted(status, why, shown)

    def _monitor(self, origin: str) -> str:
        return f"{self.url.rstrip('/')}/{origin_hash(origin)}/checkpoint"

    def _contradiction(self, origin: str, body: bytes) -> str:
        """Return the checkpoint if this log signed it and the database does not hold it; else an empty text."""
        note = body.decode("utf-8", "replace")
        try:
            shown = read_mark(note, self._key)
        except RecordsError:
            return ""
        head = self._store.head(self._log)
        if shown.origin != origin:
            return ""
        if shown.size <= head.size and StoredTree(self._store, self._log).root(shown.size) == shown.root:
            return ""
        return note


def _why(status: int, body: bytes) -> str:
    if status == NO_ANSWER:
        return f"{_WHY[NO_ANSWER]}: {body.decode('utf-8', 'replace')[:200]}"
    return _WHY.get(status, f"it answers with status {status}")


def endpoints(  # noqa: PLR0917  # as `Endpoint`
    witnesses: Sequence[Witness],
    send: Transport,
    store: Store,
    log: str,
    key: VerifyKey,
    clock: Clock = SYSTEM_CLOCK,
) -> list[Endpoint]:
    """Return the URLs of a policy; witnesses without one are not asked, those that share one are asked together."""
    at: dict[str, list[Witness]] = {}
    for witness in witnesses:
        if witness.url:
            at.setdefault(witness.url.rstrip("/"), []).append(witness)
    return [Endpoint(url, there, send, store, log, key, clock) for url, there in at.items()]
