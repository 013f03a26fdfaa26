"""Logs that can be forked, witnesses in this process, and the wire between them."""

import threading
from collections.abc import Callable

from hauberk.adapters.memory import MemoryStore
from hauberk.core.clock import SYSTEM_CLOCK, Clock, ManualClock
from hauberk.core.ports import Store
from hauberk.crypto.cosignature import Algorithm, Cosigner, CosignerKey
from hauberk.crypto.merkle import EMPTY_ROOT, Tree, leaf_hash
from hauberk.crypto.note import Checkpoint, encode_key, sign_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError
from hauberk.records.asking import NO_ANSWER
from hauberk.records.log_policy import LogPolicy
from hauberk.records.log_policy import Witness as Trusted
from hauberk.records.witness import Witness
from hauberk.records.witness_wire import Answer, Request

LOG = "log.example/ledger"
BOTH = (Algorithm.ED25519, Algorithm.ML_DSA_44)


class Grower:
    """A log of made-up leaves; `fork` has the same key and other leaves from some position on."""

    def __init__(self, origin: str = LOG, *, seed: int = 1, story: str = "a", since: int = 0) -> None:
        self.origin = origin
        self.key = SigningKey(bytes([seed]) * 32)
        self.vkey = encode_key(origin, self.key.public)
        self._seed = seed
        self._tree = Tree(lambda at: leaf_hash(b"%d %s" % (at, (story if at >= since else "a").encode())))

    def fork(self, since: int) -> "Grower":
        return Grower(self.origin, seed=self._seed, story="another", since=since)

    def root(self, size: int) -> bytes:
        return self._tree.root(size)

    def proof(self, old: int, size: int) -> tuple[bytes, ...]:
        return tuple(self._tree.consistency(old, size)) if 0 < old < size else ()

    def note(self, size: int, *, root: bytes | None = None) -> str:
        return sign_checkpoint(Checkpoint(self.origin, size, self.root(size) if root is None else root), self.key)

    def request(self, old: int, size: int, *, root: bytes | None = None) -> bytes:
        return Request(old, self.proof(old, size), self.note(size, root=root)).encode()


def cosigners(name: str = "witness.example/w", *algorithms: Algorithm, seed: int = 99) -> list[CosignerKey]:
    chosen = algorithms or (Algorithm.ED25519,)
    return [CosignerKey(name, one, bytes([seed + at]) * 32) for at, one in enumerate(chosen)]


def witness(
    *vkeys: str, store: Store | None = None, clock: Clock | None = None, keys: list[CosignerKey] | None = None
) -> Witness:
    made = Witness(store or MemoryStore(), keys or cosigners(), clock=clock or ManualClock())
    for vkey in vkeys:
        made.add_log(vkey)
    return made


def offer(one: Witness, log: Grower, size: int) -> Answer:
    """Have a checkpoint cosigned as a log would: where the old size is wrong, with the right one."""
    answer = one.add_checkpoint(log.request(0, size))
    if answer.status == 409:
        old = int(answer.body)
        if old <= size:
            answer = one.add_checkpoint(log.request(old, size))
    return answer


class Party(Witness):
    """A witness with a store of its own, and what a policy says about it."""

    def __init__(self, number: int = 1, *, clock: Clock | None = None, store: Store | None = None) -> None:
        self.public = f"w{number}"
        self.url = f"http://127.0.0.1:1/{self.public}"
        keys = cosigners(f"{self.public}.example/w", Algorithm.ED25519, seed=100 + number)
        self.verifier: Cosigner = keys[0].public
        super().__init__(store or MemoryStore(), keys, clock=clock or SYSTEM_CLOCK)

    @property
    def trusted(self) -> Trusted:
        return Trusted(self.public, self.verifier, self.url)


class Wire:
    """The transport to witnesses of this process; each can be cut off, slowed down or replaced."""

    def __init__(self, *parties: Party) -> None:
        self.parties = {party.url: party for party in parties}
        self.down: set[str] = set()
        self.instead: dict[str, Callable[[str, bytes | None], tuple[int, bytes]]] = {}
        self.asked: list[tuple[str, bytes | None]] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, url: str, body: bytes | None) -> tuple[int, bytes]:
        self.asked.append((url, body))
        assert self.open.wait(20)
        place = next(place for place in self.parties if url.startswith(place))
        party, rest = self.parties[place], url.removeprefix(place)
        if party.public in self.down:
            return NO_ANSWER, b"connection refused"
        if party.public in self.instead:
            return self.instead[party.public](rest, body)
        return self.serve(party, rest, body)

    @staticmethod
    def serve(party: Party, rest: str, body: bytes | None) -> tuple[int, bytes]:
        if rest == "/add-checkpoint" and body is not None:
            answer = party.add_checkpoint(body)
            return answer.status, answer.body
        try:
            return 200, party.checkpoint(rest.split("/")[1]).encode()
        except RecordsError:
            return 404, b""


def policy(*parties: Party, quorum: str = "", group: str = "") -> LogPolicy:
    """A policy of these witnesses; `group` such as `2`, `any` or `all`, of all of them."""
    lines = [f"witness {one.public} {one.verifier.vkey} {one.url}" for one in parties]
    if group:
        lines.append(f"group all-of-them {group} {' '.join(one.public for one in parties)}")
    lines.append(f"quorum {quorum or ('all-of-them' if group else parties[0].public)}")
    return LogPolicy.parse("".join(line + "\n" for line in lines).encode())


EMPTY = EMPTY_ROOT
