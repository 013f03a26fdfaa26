"""The cases transparency-dev/witness checks itself with, by meaning, against our witness, with the log it published."""

import base64
import json
from hashlib import sha256
from pathlib import Path

import pytest

from hauberk.adapters.memory import MemoryStore
from hauberk.crypto.cosignature import Algorithm, CosignerKey
from hauberk.crypto.merkle import EMPTY_ROOT
from hauberk.crypto.note import Checkpoint, LogKey, parse_note, sign_checkpoint, signed_by
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError
from hauberk.records.witness import Witness
from hauberk.records.witness_wire import Request, parse_request
from tests.core.refusal import refuses

PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text("utf-8"))
SEEDS = {name: base64.b64decode(row[1])[1:] for name, row in PUBLISHED["seeds"].items()}
MONKEYS = LogKey("monkeys", SigningKey(SEEDS["monkeys"]).public)
WITNESS = CosignerKey("witness", Algorithm.ED25519, SEEDS["witness"])
FIVE, EIGHT = PUBLISHED["notes"]["monkeys 5"], PUBLISHED["notes"]["monkeys 8"]
PROOF = tuple(bytes.fromhex(part) for part in PUBLISHED["monkeys_proof"])
ROOT = bytes.fromhex("e35b268c1522014ef412d2a54fa94838862d453631617b0307e5c77dcbeefc11")
OTHER = b"\xff" * 8 + ROOT[8:]
NOTE = PUBLISHED["armored_witness"]


def signed(size: int, root: bytes) -> str:
    return sign_checkpoint(Checkpoint("monkeys", size, root), SigningKey(SEEDS["monkeys"]))


def started(first: str = "") -> Witness:
    made = Witness(MemoryStore(), [WITNESS])
    made.add_log(MONKEYS.vkey)
    if first:
        assert made.add_checkpoint(Request(0, (), first).encode()).status == 200
    return made


@pytest.mark.parametrize(
    ("first", "old", "note", "proof", "status"),
    [
        (signed(5, ROOT), 5, EIGHT, PROOF, 200),
        (signed(5, ROOT), 2, EIGHT, PROOF, 409),
        (signed(0, EMPTY_ROOT), 0, signed(5, ROOT), PROOF, 422),
        (signed(0, EMPTY_ROOT), 0, signed(5, ROOT), (b"\x02" * 32,), 422),
        (signed(0, EMPTY_ROOT), 0, signed(5, ROOT), (), 200),
        (signed(5, ROOT), 5, signed(5, ROOT), (), 200),
        (signed(5, ROOT), 5, signed(5, OTHER), (), 422),  # 409 over there; C2SP: 422
        (signed(4, ROOT), 4, signed(5, ROOT), (), 422),
        (EIGHT, 8, FIVE, PROOF, 400),
        (FIVE, 5, EIGHT, (b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32, b"\xdd" * 32), 422),
    ],
)
def test_updates(first: str, old: int, note: str, proof: tuple[bytes, ...], status: int) -> None:
    answer = started(first).add_checkpoint(Request(old, proof, note).encode())
    assert answer.status == status
    if status == 409:
        assert (answer.body, answer.kind) == (b"5\n", "text/x.tlog.size")
    if status == 200:
        assert signed_by(parse_note(note + answer.body.decode()), WITNESS.public)


def test_hashes_of_two_bytes_are_no_proof() -> None:
    body = f"old 5\nqqo=\nu7s=\nzMw=\n3d0=\n\n{EIGHT}".encode()
    assert started(FIVE).add_checkpoint(body).status in {400, 422}


@pytest.mark.parametrize(
    ("note", "status"),
    [
        (sign_checkpoint(Checkpoint("bananas", 5, ROOT), SigningKey(SEEDS["bananas"])), 404),
        (sign_checkpoint(Checkpoint("monkeys", 5, ROOT), SigningKey(SEEDS["bananas"])), 403),
        (FIVE.replace("\n5\n", "\n6\n"), 403),
        (NOTE, 404),
    ],
)
def test_logs_it_does_not_know_and_signatures_that_are_wrong(note: str, status: int) -> None:
    assert started().add_checkpoint(Request(0, (), note).encode()).status == status


def test_bodies() -> None:
    hashes = bytes(32), bytes(range(32))
    lines = [base64.b64encode(part).decode() for part in hashes]
    assert parse_request(f"old 10\n{lines[0]}\n{lines[1]}\n\n{NOTE}".encode()) == Request(10, hashes, NOTE)
    for body in (
        f"10 stuff\n{lines[0]}\n{lines[1]}\n\n{NOTE}",
        f"10\nZ043\n423ed\n{NOTE}",
        f"10\n{lines[0]}\n{lines[1]}\n{NOTE}",
    ):
        with refuses("HBK-711"):
            parse_request(body.encode())


@pytest.mark.parametrize(
    ("origin", "first", "there"), [("monkeys", FIVE, True), ("bananas", FIVE, False), ("monkeys", "", False)]
)
def test_what_its_monitors_see(origin: str, first: str, there: bool) -> None:  # noqa: FBT001  # a column of the table
    asked = started(first)
    hashed = sha256(origin.encode()).hexdigest()
    if there:
        note = parse_note(asked.checkpoint(hashed))
        assert signed_by(note, MONKEYS) == 0
        assert signed_by(note, WITNESS.public)
        assert len(note.signatures) == 2
    else:
        with pytest.raises(RecordsError):
            asked.checkpoint(hashed)
