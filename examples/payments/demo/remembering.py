"""What payment-service remembers: who sees whose payment it was, a customer who is forgotten, and a bad operator."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import msgspec

import hauberk
from examples.payments.demo.attack import Attack, Found, Outcome, answered, request
from examples.payments.demo.insider import DATABASE, copied, made_up, refusal, start, started
from examples.payments.demo.stage import DOMAIN, Stage
from hauberk.core.call import Workload
from hauberk.core.event import Entry, Leaf
from hauberk.core.principal import ANONYMOUS
from hauberk.crypto.keyring import Pseudonyms
from hauberk.crypto.x509 import from_pem
from hauberk.errors import HauberkError
from hauberk.policy.engine import Engine
from hauberk.policy.set import PolicySet
from hauberk.records import EventStore
from hauberk.records.keys import SubjectKeys
from hauberk.records.log_policy import verify_checkpoint_under
from hauberk.records.verify import Anchors, Trust, VerifyReport, verify_store

HERS, OTHERS = "payment-1", "payment-2"  # of the customer who is forgotten, and of another one
OK, CREATED = 200, 201
EVERYTHING = Engine(PolicySet.of(()), Workload("production", "payment-service"))  # what an operator allows himself


@dataclass(frozen=True)
class Forgotten:
    """What became of an erasure.

    Args:
        good: everything is as it has to be.
        text: the same in words, in two lines.
        position: of the certificate.
    """

    good: bool
    text: str
    position: int | None = None


@contextmanager
def storefront(stage: Stage) -> Iterator[httpx2.Client]:
    """Speak to payment-service as the storefront, which may see whose a payment was, and forget customers."""
    url = f"https://127.0.0.1:{stage.payments}"
    with hauberk.client(to="payment-service", runtime=stage.storefront, base_url=url) as shop:
        yield shop


def first(shop: httpx2.Client, stream: str) -> dict[str, Any]:
    """Return the first event of a stream, `position` and `event`.

    Raises:
        ValueError: it is not shown.
    """
    answer = shop.get(f"/api/streams/{stream}")
    found: list[dict[str, Any]] = answer.json() if answer.status_code == OK else []
    if not found:
        raise ValueError(f"nothing of {stream} is shown: {answer.status_code}")
    return found[0]


def in_clear(event: dict[str, Any]) -> list[bytes]:
    """Return what an event says about its customer.

    Raises:
        ValueError: it is not shown in clear.
    """
    found = [event[name] for name in ("customer", "email")]
    if not all(isinstance(one, str) for one in found):
        raise ValueError("whose it was is not shown in clear")
    return [one.encode() for one in found]


def _keys_of(entry: Entry | None) -> set[str]:
    """Return the ids of the keys under which an entry holds something, hex."""
    return set(SubjectKeys.owners(entry).values()) if entry is not None and entry.sealed else set()


# a customer is forgotten


def forget(stage: Stage) -> Forgotten:
    """Have the customer of the first payment erased, and look at everything that is left of her."""
    try:
        with storefront(stage) as shop:
            return _forgotten(stage, shop)
    except (HauberkError, httpx2.HTTPError, OSError, ValueError, RuntimeError) as broken:
        return Forgotten(good=False, text=f"nobody could be forgotten: {broken}")


def _forgotten(stage: Stage, shop: httpx2.Client) -> Forgotten:
    books = stage.books
    seen = first(shop, HERS)
    (key,) = _keys_of(books.row(seen["position"]))
    stage.secrets = [*in_clear(seen["event"]), books.wrapped(key)]
    known = books.files_with(stage.secrets[-1])  # so that a search which finds nothing later says something
    hers = [row.position for row in books.rows() if key in _keys_of(row)]
    checkpoint = books.cosigned(max(hers))
    receipts = {position: books.receipt(position, checkpoint) for position in hers}
    stage.before = copied(stage, "events-before")
    answer = shop.post("/api/erasures", json={"customer": seen["event"]["customer"]})
    if answer.status_code != CREATED:
        raise ValueError(f"the storefront may not: {answer.status_code}")
    done, left = answer.json(), first(shop, HERS)["event"]["email"]
    position = done["certificate"]
    books.cosigned(position)
    hold = [at for at, receipt in receipts.items() if books.holds(receipt, books.row(at), books.trust)]
    found = [name for secret in stage.secrets for name in books.files_with(secret)]
    good = bool(known) and left == {"private": "erased", "key": key, "certificate": position} and done["keys"] == [key]
    good = good and done["scrubbed"] and hold == hers and not found and books.proves(position)
    scrubbed = "scrubbed" if done["scrubbed"] else "NOT SCRUBBED"
    text = (
        f"the storefront reads in clear whose a payment was, and has {seen['event']['customer']} forgotten:\n"
        f"  certificate #{position}, {len(done['keys'])} key destroyed, {scrubbed}; {len(hold)} of {len(hers)} proofs "
        f"made before hold; key and text in {len(found)} of {len(books.files())} files"
    )
    return Forgotten(good, text, position)


# readers


def _found(stage: Stage, position: int, *, proven: bool) -> Found:
    return Found(stage.books.log, "records", position, proven)


def redacted(stage: Stage) -> Outcome:
    """A service that may read what happened, and not whose it is, looks for that."""
    with storefront(stage) as shop:
        secrets = in_clear(first(shop, OTHERS)["event"])
    answer = stage.replica.send("payment-service", stage.payments, request("GET", f"/api/streams/{OTHERS}"))
    (shown,) = json.loads(answer["body"])
    entry = stage.books.row(shown["position"])
    if entry is None or any(secret in answer["body"].encode() for secret in secrets):
        return Outcome(stopped=False, saw=f"{answer['status']}, and whose it is", code="")
    same = all(shown["event"][name] == value for name, value in json.loads(entry.public).items())
    stored = entry.meta + entry.public + entry.sealed
    proven = same and stage.books.proves(entry.position) and not any(secret in stored for secret in secrets)
    saw = f"{answer['status']}, what it was; whose: {shown['event']['email']['private']}"
    return Outcome(stopped=True, saw=saw, code="", found=_found(stage, entry.position, proven=proven))


def unreadable(stage: Stage) -> Outcome:
    """A service that may ask, and may read nothing, asks for a stream."""
    before = stage.books.size()
    answer = stage.evil.send("payment-service", stage.payments, request("GET", f"/api/streams/{OTHERS}"))
    outcome = answered(answer, "HBK-300")
    denied = [row for row in stage.books.rows() if row.position >= before and row.type == "records.denied"]
    entry = next((row for row in denied if b"sa/evil-service" in row.meta and b'"HBK-300"' in row.meta), None)
    if entry is None:
        return outcome
    return replace(outcome, found=_found(stage, entry.position, proven=stage.books.proves(entry.position)))


def erased(stage: Stage) -> Outcome:
    """Whoever may see everything reads the events of a customer who was forgotten; somebody else searches the disk."""
    if not stage.secrets:
        raise ValueError("nobody was forgotten")
    with storefront(stage) as shop:
        event = first(shop, HERS)["event"]
    files = [name for secret in stage.secrets for name in stage.books.files_with(secret)]
    if isinstance(event["email"], str):
        return Outcome(stopped=False, saw="whose it was", code="")
    entry = stage.books.row(event["email"]["certificate"])
    if entry is None or files or event["email"]["private"] != "erased":
        return Outcome(stopped=False, saw=f"found in {', '.join(files)}" if files else "whose it was", code="")
    named = any(secret in entry.meta + entry.public for secret in stage.secrets)
    proven = entry.type == "records.erased" and event["email"]["key"].encode() in entry.public and not named
    found = _found(stage, entry.position, proven=proven and stage.books.proves(entry.position))
    return Outcome(stopped=True, saw="erased, and its key is in no file", code="", found=found)


# whoever may write the database, and the operator


def _lost(stage: Stage, position: int, copy: Path) -> Found:
    """Return that the true log, as its witness has signed it, proves an entry which is not at that place in a copy."""
    books = stage.books
    true, there = books.row(position), books.row(position, copy)
    receipt = books.receipt(position, books.cosigned(position))
    return _found(stage, position, proven=books.holds(receipt, true, books.trust) and not books.holds(receipt, there))


def _refused(stage: Stage, refused: HauberkError | None, position: int, copy: Path, saw: str = "") -> Outcome:
    if refused is None:
        return Outcome(stopped=False, saw="nothing noticed", code="")
    return Outcome(stopped=True, saw=saw + refused.detail, code=refused.code, found=_lost(stage, position, copy))


def pasted(stage: Stage) -> Outcome:
    """Write the ciphertext of one customer over that of another, so that her events say it was him."""
    copy, books = copied(stage, "events-pasted"), stage.books
    victim, other = (next(row for row in books.rows() if row.stream == f"/streams/payment-{at}") for at in (2, 3))
    own, its = Leaf.decode(victim.leaf), Leaf.decode(other.leaf)
    leaf = msgspec.structs.replace(own, sealed=sha256(other.sealed).digest(), key=its.key).encode()
    database = sqlite3.connect(copy / DATABASE)
    with database:
        row = (other.sealed, leaf, victim.position)
        database.execute("UPDATE entry SET sealed = ?, leaf = ? WHERE position = ?", row)
    database.close()
    with started(stage, copy, watched=False) as recording:
        events = EventStore(recording.ledger, recording.store, policy=EVERYTHING, pseudonyms=Pseudonyms(bytes(32)))
        refused = refusal(lambda: list(events.read("payment-2", actor=ANONYMOUS, unknown="keep")))
        events.close()
    return _refused(stage, refused, victim.position, copy)


def old_database(stage: Stage) -> Outcome:
    """Put the database of before the erasure back: the key of the forgotten customer is in it."""
    copy = copied(stage, "events-old")
    shutil.copy(stage.before / DATABASE, copy / DATABASE)
    refused = refusal(lambda: start(stage, copy, watched=False))
    return _refused(stage, refused, stage.books.size(copy), copy)


def old_mark(stage: Stage) -> Outcome:
    """The same with the mark that tells of it."""
    copy = stage.directory / "events-older"
    shutil.copytree(stage.before, copy)
    start(stage, copy, watched=False)  # nobody else notices
    refused = refusal(lambda: start(stage, copy, watched=True))
    return _refused(stage, refused, stage.books.size(copy), copy)


def rewritten(stage: Stage) -> Outcome:
    """Go on from the old state with payments that never were, until the log is as long as the true one: all signed."""
    copy = stage.directory / "events-rewritten"
    shutil.copytree(stage.before, copy)
    position, size = stage.books.size(copy), stage.books.size()
    with started(stage, copy, watched=False) as recording:
        made_up(recording, size - position)
    if refusal(lambda: verified(stage, copy, Trust())) is not None:
        raise ValueError("the forged log does not verify by its key")
    refused = refusal(lambda: start(stage, copy, watched=True))
    return _refused(stage, refused, position, copy, "verifies by its key; ")


def forged(stage: Stage) -> Outcome:
    """Append a payment that never was to the true log, under its own key: who reads it asks who has signed that."""
    copy = copied(stage, "events-forged")
    position = stage.books.size(copy)
    with started(stage, copy, watched=False) as recording:
        made_up(recording, 1)
    if refusal(lambda: verified(stage, copy, Trust())) is not None:
        raise ValueError("the forged log does not verify by its key")
    refused = refusal(lambda: verified(stage, copy, producers(stage)))
    if refused is None or refused.context.get("position") != position:
        return Outcome(stopped=False, saw="nothing noticed", code="")
    receipt = stage.books.receipt(position, directory=copy)
    proven = stage.books.holds(receipt, stage.books.row(position, copy)) and producers_hold(stage)
    return Outcome(stopped=True, saw=refused.detail, code=refused.code, found=_found(stage, position, proven=proven))


def producers(stage: Stage) -> Trust:
    """Return whom to believe: services with an identity of this trust domain, and nobody without."""
    return Trust(roots={DOMAIN: from_pem((stage.state / "root.pem").read_bytes())}, require_signed=True)


def producers_hold(stage: Stage) -> bool:
    """Tell whether everything in the true log is signed by whoever it says has recorded it."""
    return refusal(lambda: verified(stage, stage.books.directory, producers(stage))) is None


def verified(stage: Stage, directory: Path, trust: Trust, checkpoint: str = "") -> VerifyReport:
    """Verify an event store offline, from its public key.

    Raises:
        HauberkError: the first thing that is wrong.
    """
    store = stage.books.at(directory)
    anchors = Anchors((checkpoint,), policy=stage.books.trust) if checkpoint else Anchors()
    try:
        return verify_store(store, stage.books.verifier, anchors=anchors, trust=trust)
    finally:
        store.close()


def remembered(stage: Stage) -> tuple[bool, str]:
    """Verify the event store: every leaf, who has signed it, and that it is the log its witness has seen."""
    checkpoint = stage.books.cosigned(stage.books.size() - 1)
    try:
        report = verified(stage, stage.books.directory, producers(stage), checkpoint)
    except HauberkError as wrong:
        return False, f"{wrong.code} {wrong.detail}"
    seen = verify_checkpoint_under(checkpoint, stage.books.trust).size
    who = ", ".join(name.rpartition("/")[2] for name in report.producers)
    text = f"{report.size} entries, {report.signed} signed by {who}, {seen} under its witness, verified offline"
    return report.signed > 0 and seen == report.size, text


def catalogue() -> list[Attack]:
    """Return every attack on the event store."""
    return [
        Attack("events: whose it is, without decrypt", redacted),
        Attack("events: a stream, without read", unreadable),
        Attack("events: a forgotten customer, again", erased),
        Attack("events: ciphertext pasted over another", pasted),
        Attack("events: an old database put back", old_database),
        Attack("events: its old mark put back as well", old_mark),
        Attack("events: rewritten with the log's key", rewritten),
        Attack("events: made up by the operator", forged),
    ]
