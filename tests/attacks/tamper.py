"""Which attack on a stored ledger is found by what: `python -m tests.attacks.tamper` prints the table.

Forty entries: a service's own, under statements of its SVID, and two customers' streams with sealed values, which the
operator states itself. A checkpoint was pinned at 30, the database copied at 20, and at 40 witnesses cosigned and the
high-water mark was raised. Each attack is carried out on a copy. Then everybody looks, each with the log's key and one
thing more; what only some of them find is missed without those, which is the twin in every row.

The seven attacks that take no key are those of `bench.tampering`, by the same names, so that both tables can be read
side by side; `outcomes` returns ours in its words.
"""

import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bench.tampering import ATTACKS as KEYLESS
from bench.tampering import Outcome
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.clock import ManualClock
from hauberk.core.event import Entry, Event, Private
from hauberk.core.ids import uuid7
from hauberk.crypto.cosignature import Algorithm, CosignerKey
from hauberk.crypto.keyring import Keyring
from hauberk.crypto.note import add_signature, encode_key, parse_note
from hauberk.crypto.signing import SigningKey
from hauberk.errors import HauberkError
from hauberk.records.batch import decode_batch
from hauberk.records.keys import SubjectKeys
from hauberk.records.ledger import Ledger
from hauberk.records.log_policy import LogPolicy, Witness
from hauberk.records.statement import Producer as Signer
from hauberk.records.statement import parse_statement
from hauberk.records.verify import Anchors, Kind, Trust, verify_store
from tests.records import forger
from tests.records.made import DOMAIN, NOW, ORIGIN, PATIENCE, Producer, certificate_authority, event

COPY, PIN, SERVICE, END = 20, 30, 32, 40  # sizes at which things happened; the service wrote again at `SERVICE`
OWNERS = {"alice": 3, "bob": 1_000}
MISSED = "-"


@dataclass(frozen=True)
class Scene:
    """A ledger before the attack, and what is kept elsewhere.

    Args:
        path: the database.
        copy: of it at `COPY`.
        pinned: the checkpoint at `PIN`.
        seen: the checkpoint at `END`, cosigned.
        mark: the checkpoint at `END`.
        signer: the log's key, which only its operator has.
        own: the key with which the operator states what it records itself.
        source: of the keyring.
        service: who writes `/services/production/payment-service`.
        roots: of its SVID.
        witness: who cosigned.
    """

    path: Path
    copy: Path
    pinned: str
    seen: str
    mark: str
    signer: SigningKey
    own: Signer
    source: FileKeySource
    service: Producer
    roots: Mapping[str, Sequence[bytes]]
    witness: CosignerKey

    @property
    def key(self) -> str:
        """The log's public key."""
        return encode_key(ORIGIN, self.signer.public)

    def moved(self, directory: Path) -> "Scene":
        """Return the same scene with a database of its own to attack."""
        path = directory / "log.db"
        shutil.copyfile(self.path, path)
        return Scene(**{**self.__dict__, "path": path})


def scene(directory: Path) -> Scene:
    """Play everything up to the attack."""
    signer, authority = SigningKey.generate(), certificate_authority()
    source = FileKeySource(directory / "keys", create=True)
    path, copy, service = directory / "log.db", directory / "copy.db", Producer(authority)
    roots = {DOMAIN: [authority.root_der]}
    store = SqliteStore(path)
    own = Signer.of_key(SigningKey.generate())
    keys, clock = SubjectKeys(store, Keyring(source)), ManualClock(NOW + 2)
    ledger = Ledger(store, signer, ORIGIN, keys=keys, producer=own, clock=clock)
    _record(ledger, service, roots, 9)  # behind the entry that introduces it; so are the others
    _deposit(ledger, COPY - 11)
    with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(copy)) as backup:
        live.backup(backup)
    _deposit(ledger, PIN - COPY)
    pinned = ledger.checkpoint()
    _deposit(ledger, SERVICE - PIN)
    _record(ledger, service, roots, 4)
    _deposit(ledger, 4)
    mark = ledger.checkpoint()
    ledger.close()
    store.close()
    for one in (path, copy):
        _sql(one, "PRAGMA journal_mode=DELETE")
    witness = CosignerKey("w.example/w", Algorithm.ED25519, SigningKey.generate().seed())
    seen = add_signature(mark, witness.cosign(parse_note(mark).text, NOW))
    return Scene(path, copy, pinned, seen, mark, signer, own, source, service, roots, witness)


def _record(ledger: Ledger, service: Producer, roots: Mapping[str, Sequence[bytes]], count: int) -> None:
    data = service.sign([event(number) for number in range(count)])
    received = decode_batch(data, roots, now_ns=NOW * 10**9 + 2 * 10**9)
    ledger.append_signed(received.pairs, received.signed).result(PATIENCE)


def _deposit(ledger: Ledger, count: int) -> None:
    ledger.append_batch([_deposited(list(OWNERS)[at % 2], at) for at in range(count)]).result(PATIENCE)


def _deposited(owner: str, number: int) -> Event:
    amount = str(OWNERS[owner] + number).encode()
    return Event(
        id=uuid7(), type="account.deposited", stream=f"/streams/{owner}", time_ns=NOW * 10**9 + number,
        data={"number": number}, private=(Private("amount", owner, amount),),
    )  # fmt: skip


# attacks: by whoever may write the database, then by whoever else


def _sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def edit(here: Scene) -> None:
    """Change what an event says."""
    _sql(here.path, "UPDATE entry SET public = CAST('{\"number\":9}' AS BLOB) WHERE position = 13")


def paste(here: Scene) -> None:
    """Put bob's ciphertext in the place of alice's."""
    _sql(here.path, "UPDATE entry SET sealed = (SELECT sealed FROM entry WHERE position = 14) WHERE position = 13")


def reorder(here: Scene) -> None:
    """Swap two events of a stream, their numbers too."""
    swap = "UPDATE entry SET position = {}, version = {} WHERE position = {}"
    _sql(here.path, swap.format(-1, 0, 13), swap.format(13, 2, 17), swap.format(17, 4, -1))


def replay(here: Scene) -> None:
    """Append a copy of an old event under a new id and the next number of its stream."""
    _sql(
        here.path,
        "INSERT INTO entry SELECT log, 40, randomblob(16), stream, type, (SELECT MAX(version) + 1 FROM entry other"
        " WHERE other.stream = entry.stream), leaf, meta, public, sealed, statement FROM entry WHERE position = 13",
    )


def delete(here: Scene) -> None:
    """Delete an event in the middle and close the gap."""
    _sql(here.path, "DELETE FROM entry WHERE position = 15")


def truncate(here: Scene) -> None:
    """Delete the last events, and nothing else."""
    _sql(here.path, "DELETE FROM entry WHERE position >= 37")


def replace_stream(here: Scene) -> None:
    """Let bob's stream pass for alice's."""
    _sql(
        here.path,
        "UPDATE entry SET stream = '/streams/nobody' WHERE stream = '/streams/alice'",
        "UPDATE entry SET stream = '/streams/alice' WHERE stream = '/streams/bob'",
    )


def roll_back(here: Scene) -> None:
    """Put the old copy of the whole database back, with the checkpoint it had."""
    shutil.copyfile(here.copy, here.path)


def _sign(here: Scene, change: forger.Change) -> None:
    """Write another history, stated and signed with every key that the operator has."""

    def stated(entries: list[Entry]) -> Sequence[Entry]:
        made = list(change(entries))
        for at, entry in enumerate(made):
            said = parse_statement(entry.statement) if entry.statement else None
            if said is not None and said.signer == here.own.fingerprint:
                leaves = [one.leaf for one in made[at : at + said.count]]
                made[at] = replace(entry, statement=here.own.state(said.time_ns, leaves))
        return made

    forger.rewrite(here.path, here.signer, stated)


def _said(entry: Entry, number: int) -> Entry:
    changed = replace(entry, public=msgspec.json.encode({"number": number}))
    return forger.leafed(changed, entry.position, entry.version)


def _rewritten(here: Scene, at: int) -> None:
    _sign(here, lambda all_: [*all_[:at], _said(all_[at], 99), *all_[at + 1 :]])


def sign_again(here: Scene) -> None:
    """Cut the log at 36, behind the pin, and sign that."""
    _sign(here, lambda entries: entries[:36])


def rewrite_old(here: Scene) -> None:
    """The operator changes an event before the pin, in every hash and signature it has the keys for."""
    _rewritten(here, 13)


def rewrite_new(here: Scene) -> None:
    """The operator changes an event behind the pin only."""
    _rewritten(here, 38)


def split_view(here: Scene) -> None:
    """The operator shows this reader another end, as long as the one that everybody else sees."""
    _sign(here, lambda entries: [*entries[:36], *(_said(entry, 99) for entry in entries[36:])])


def forge(here: Scene) -> None:
    """The operator makes a service say something else, before any witness has seen it, and leaves the statement."""
    _service_says(here, lambda entries: entries)


def forge_signed(here: Scene) -> None:
    """The operator states it with a key of its own, which it introduces."""
    own = Signer.of_key(SigningKey.generate())

    def stated(entries: list[Entry]) -> list[Entry]:
        meta = {**msgspec.json.decode(entries[0].meta), "id": uuid7().hex()}
        introduced = replace(entries[0], meta=msgspec.json.encode(meta), public=msgspec.json.encode(own.certificate))
        made = forger.renumbered([*entries[:SERVICE], introduced, *entries[SERVICE:]])
        at = SERVICE + 1
        made[at] = replace(made[at], statement=own.state(NOW * 10**9, [entry.leaf for entry in made[at : at + 4]]))
        return made

    _service_says(here, stated)


def forge_unsigned(here: Scene) -> None:
    """The operator makes the service say it without a statement, as if it never made any."""

    def bare(entries: list[Entry]) -> list[Entry]:
        cut = range(SERVICE, SERVICE + 4)
        return [
            forger.leafed(replace(entry, statement=b""), entry.position, entry.version, flags=0)
            if entry.position in cut
            else entry
            for entry in entries
        ]

    _service_says(here, bare)


def _service_says(here: Scene, change: Callable[[list[Entry]], list[Entry]]) -> None:
    """Change what the service said behind the pin. The witnesses and the mark see this history and no other."""
    at = SERVICE + 2
    _sign(here, lambda all_: change([*all_[:at], _said(all_[at], 99), *all_[at + 1 :]]))


ATTACKS: dict[str, tuple[str, Callable[[Scene], None]]] = {
    **{
        name: (KEYLESS[name], attack)
        for name, attack in {
            "edit": edit, "paste": paste, "reorder": reorder, "replay": replay, "delete": delete, "truncate": truncate,
            "replace": replace_stream,
        }.items()
    },
    "rolled-back": ("put the whole database back, with its checkpoint", roll_back),
    "re-signed": ("cut the log behind the pin and sign it again", sign_again),
    "rewrite-old": ("operator rewrites an event before the pin", rewrite_old),
    "rewrite-new": ("operator rewrites an event behind the pin", rewrite_new),
    "split-view": ("operator shows another end to one reader", split_view),
    "forge": ("operator changes what a service said", forge),
    "forge-signed": ("... and states it with a key of its own", forge_signed),
    "forge-unsigned": ("... and leaves the statement out", forge_unsigned),
}  # fmt: skip
UNSEEN = frozenset({"forge", "forge-signed", "forge-unsigned"})  # carried out before witnesses and mark see anything


# who looks


def reading(here: Scene) -> None:
    """Read every stream in order and open what is sealed, as an application does."""
    with closing(SqliteStore(here.path)) as store:
        keys = SubjectKeys(store, Keyring(here.source))
        for owner in OWNERS:
            for number, entry in enumerate(store.stream(ORIGIN, f"/streams/{owner}", limit=END), 1):
                if entry.version != number or not isinstance(keys.open(entry)["amount"], bytes):
                    raise HauberkError("HBK-710", "a version is missing")


def _verified(here: Scene, anchors: Anchors = Anchors(), trust: Trust = Trust()) -> None:  # noqa: B008  # both frozen
    with closing(open_readonly(here.path)) as store:
        verify_store(store, here.key, anchors=anchors, trust=trust)


def _policy(here: Scene) -> LogPolicy:
    return LogPolicy(witnesses=[Witness("w", here.witness.public)], quorum="w")


def _trust(here: Scene, *, required: bool = False) -> Trust:
    return Trust(here.roots, frozenset({here.own.fingerprint}), required)


LOOKS: dict[str, Callable[[Scene], None]] = {
    "AEAD": reading,
    "key": _verified,
    "pinned": lambda here: _verified(here, Anchors(checkpoints=(here.pinned,))),
    "mark": lambda here: _verified(here, Anchors(mark=here.mark)),
    "witness": lambda here: _verified(here, Anchors(checkpoints=(here.seen,), policy=_policy(here))),
    "statement": lambda here: _verified(here, trust=_trust(here)),
    "required": lambda here: _verified(here, trust=_trust(here, required=True)),
}


def look(here: Scene, name: str) -> str:
    """Return the kind of tampering that one of `LOOKS` finds, or `MISSED`."""
    try:
        LOOKS[name](here)
    except HauberkError as found:
        return str(found.context.get("kind", found.code))
    return MISSED


def seen_again(here: Scene) -> Scene:
    """Return the scene after mark and witnesses have seen the history that is there now, and no other."""
    with closing(open_readonly(here.path)) as store:
        note = store.head(ORIGIN).checkpoint.decode()
    seen = add_signature(note, here.witness.cosign(parse_note(note).text, NOW))
    return Scene(**{**here.__dict__, "mark": note, "seen": seen})


def attacked(before: Scene, name: str, directory: Path) -> Mapping[str, str]:
    """Carry out one attack and return what each who looks finds.

    Raises:
        AssertionError: somebody finds something in a log that nobody touched.
    """
    here = before.moved(directory)
    assert {look(here, one) for one in LOOKS} == {MISSED}
    ATTACKS[name][1](here)
    if name in UNSEEN:
        here = seen_again(here)
    return {one: look(here, one) for one in LOOKS}


def table() -> dict[str, Mapping[str, str]]:
    """Return what each who looks finds, by attack."""
    with tempfile.TemporaryDirectory() as name:
        before = scene(Path(name))
        found = {}
        for number, attack in enumerate(ATTACKS):
            directory = Path(name) / str(number)
            directory.mkdir()
            found[attack] = attacked(before, attack, directory)
        return found


def outcomes() -> Mapping[str, str]:
    """Return our outcomes of the attacks of `bench.tampering`, with the log's key and nothing else."""
    found = table()
    return {name: Outcome.MISSED if found[name]["key"] == MISSED else Outcome.CAUGHT for name in KEYLESS}


def found_by(cells: Mapping[str, str]) -> tuple[str, ...]:
    """Return what finds it: what is in the log itself, where that is enough, else each thing from elsewhere that does.

    In the log are its signed checkpoint and the statements of producers, which take no more than the log's key to read.
    """
    if cells["key"] != MISSED:
        return ("statement",) if cells["key"] == Kind.FORGED else ("checkpoint",)
    return tuple(name for name in LOOKS if cells[name] != MISSED and name != "AEAD")


def text(found: Mapping[str, Mapping[str, str]]) -> str:
    """Return a table to read."""
    width = max(len(title) for title, _ in ATTACKS.values()) + 2
    column = max(len(kind) for kind in Kind) + 2
    lines = [" " * width + "".join(name.ljust(column) for name in LOOKS) + "found by"]
    for attack, cells in found.items():
        told = "".join(cells[name].ljust(column) for name in LOOKS)
        lines.append(ATTACKS[attack][0].ljust(width) + told + " or ".join(found_by(cells)))
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    sys.stdout.write(f"{text(table())}\n")
