"""Receipts: small, verified offline, of this event and no other."""

import base64
import os
import re
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.core.event import Entry, Leaf, encode_leaf
from hauberk.crypto.cosignature import Algorithm, CosignerKey
from hauberk.crypto.merkle import Tree, leaf_hash, node_hash
from hauberk.crypto.note import Checkpoint, LogKey, add_signature, parse_note, sign_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError
from hauberk.records import receipt
from hauberk.records.ledger import Proof
from hauberk.records.log_policy import LogPolicy, TrustedLog, Witness
from hauberk.records.receipt import (
    MAX_PATH,
    MAX_RECEIPT_BYTES,
    NOTHING,
    Part,
    Shown,
    TlogProof,
    verify_receipt,
    write_receipt,
)
from hauberk.records.sealed import commitment_of
from tests.core.refusal import refuses
from tests.records.made import ORIGIN, Book, entry, event

SIGNER = SigningKey(bytes(range(32)))
POLICY = LogPolicy([TrustedLog(LogKey(ORIGIN, SIGNER.public))])
SEALED = msgspec.msgpack.encode([[[b"k" * 16, b"c" * 32]], [["email", 0, b"n" * 12 + b"ciphertext and tag"]]])
SIZE, POSITION = 11, 6


def sealed(one: Entry, data: bytes) -> Entry:
    leaf = Leaf.decode(one.leaf)
    key = commitment_of(((b"k" * 16, b"c" * 32),))
    return replace(one, sealed=data, leaf=replace(leaf, sealed=sha256(data).digest(), key=key).encode())


ENTRIES = [entry(at) for at in range(SIZE)]
ENTRIES[POSITION] = sealed(ENTRIES[POSITION], SEALED)
HASHES = [leaf_hash(one.leaf) for one in ENTRIES]
TREE = Tree(lambda at: HASHES[at])
NOTE = sign_checkpoint(Checkpoint(ORIGIN, SIZE, TREE.root(SIZE)), SIGNER)


def proof(position: int = POSITION) -> Proof:
    return Proof(position, ENTRIES[position].leaf, tuple(TREE.inclusion(position, SIZE)), NOTE)


RECEIPT = write_receipt(proof())
SHOWN = Shown.of(ENTRIES[POSITION])


def test_the_worked_example_in_the_source_is_what_we_write() -> None:
    block = re.search(r"```\n(c2sp.+?)\.\.\.\n```", receipt.__doc__ or "", re.DOTALL)
    assert block
    parsed = TlogProof.parse(block.group(1))
    assert parsed.encode() == block.group(1)
    one = entry(2, version=3)
    leaf = encode_leaf(2, 1_790_000_000_000_000_000, 3, sha256(one.meta).digest(), sha256(one.public).digest())
    assert TlogProof.parse(write_receipt(Proof(2, leaf, (), NOTE))).extra == parsed.extra


def test_a_receipt_proves_its_event() -> None:
    for position in range(SIZE):
        shown = Shown.of(ENTRIES[position])
        proven = verify_receipt(write_receipt(proof(position)), shown, POLICY)
        assert proven.leaf.encode() == ENTRIES[position].leaf
        assert (proven.vouched.checkpoint.size, proven.withheld) == (SIZE, NOTHING)


def test_a_receipt_of_a_real_ledger_proves_its_event_from_then_on(tmp_path: Path) -> None:
    book = Book(tmp_path, SIGNER)
    try:
        book.write(*(event(at) for at in range(300)))
        text = write_receipt(book.ledger.proof(200))
        book.write(*(event(at) for at in range(50)))
        shown = Shown.of(next(book.ledger.entries(after=199, limit=1)))
        proven = verify_receipt(text, shown, POLICY)
        assert (proven.leaf.position, proven.vouched.checkpoint.size) == (200, 300)
        with refuses("HBK-712"):
            verify_receipt(text, Shown.of(next(book.ledger.entries(after=200, limit=1))), POLICY)
    finally:
        book.close()


@pytest.mark.parametrize("part", ["meta", "public", "sealed"])
def test_no_other_event_passes_under_a_receipt(part: str) -> None:
    original: bytes = getattr(SHOWN, part)
    for other in (b"", original + b" ", original.replace(b"e", b"f"), SEALED, ENTRIES[5].meta):
        if other != original:
            for bits in range(8):
                with refuses("HBK-712"):
                    verify_receipt(write_receipt(proof(), withheld=Part(bits)), replace(SHOWN, **{part: other}), POLICY)


def test_a_receipt_does_not_prove_the_event_at_another_position_or_time() -> None:
    parsed = TlogProof.parse(RECEIPT)
    for index in (0, 5, 7, SIZE, 10**18):
        with refuses("HBK-712"):
            verify_receipt(replace(parsed, index=index).encode(), SHOWN, POLICY)
    for at in range(1, len(parsed.extra)):
        extra = bytearray(parsed.extra)
        extra[at] ^= 1
        with refuses("HBK-712"):
            verify_receipt(replace(parsed, extra=bytes(extra)).encode(), SHOWN, POLICY)


def test_a_leaf_made_up_of_what_its_holder_says_is_not_in_the_tree() -> None:
    """Without the path, the receipt's own words would be all there is: the very same leaf then passes."""
    forged = Leaf.decode(ENTRIES[POSITION].leaf)
    forged = replace(forged, time_ns=1, meta=sha256(b"forged").digest())
    text = write_receipt(Proof(POSITION, forged.encode(), proof().path, NOTE))
    with refuses("HBK-712"):
        verify_receipt(text, replace(SHOWN, meta=b"forged"), POLICY)
    alone = sign_checkpoint(Checkpoint(ORIGIN, 1, leaf_hash(replace(forged, position=0).encode())), SIGNER)
    text = write_receipt(Proof(0, replace(forged, position=0).encode(), (), alone))
    assert verify_receipt(text, replace(SHOWN, meta=b"forged"), POLICY).leaf.time_ns == 1


@pytest.mark.parametrize("bits", range(8))
def test_what_is_withheld_need_not_be_shown_and_what_is_not_must_be(bits: int) -> None:
    text = write_receipt(proof(), withheld=Part(bits))
    for hidden in range(8):
        shown = Shown(
            None if hidden & 1 else SHOWN.meta, None if hidden & 2 else SHOWN.public, None if hidden & 4 else SEALED
        )
        if hidden & ~bits:
            with refuses("HBK-712"):
                verify_receipt(text, shown, POLICY)
        else:
            proven = verify_receipt(text, shown, POLICY)
            assert (proven.withheld, proven.leaf.encode()) == (Part(hidden), ENTRIES[POSITION].leaf)


def test_a_sealed_part_that_nobody_can_read_is_no_event() -> None:
    odd = sealed(ENTRIES[POSITION], b"\xc1 not msgpack")
    with refuses("HBK-712"):
        verify_receipt(write_receipt(Proof(POSITION, odd.leaf, proof().path, NOTE)), Shown.of(odd), POLICY)


def test_the_log_and_the_quorum_of_the_policy_are_asked_for() -> None:
    witness = CosignerKey("w.example", Algorithm.ML_DSA_44, bytes(32))
    asking = LogPolicy(POLICY.logs, [Witness("w", witness.public)], [], "w")
    with refuses("HBK-711"):
        verify_receipt(RECEIPT, SHOWN, asking)
    cosigned = add_signature(NOTE, witness.cosign(parse_note(NOTE).text, 1_679_315_147))
    text = write_receipt(proof(), checkpoint=cosigned)
    assert verify_receipt(text, SHOWN, asking).vouched.cosigned == {"w": 1_679_315_147}
    assert verify_receipt(text, SHOWN, POLICY).leaf.position == POSITION
    with refuses("HBK-711"):
        verify_receipt(RECEIPT, SHOWN, LogPolicy([TrustedLog(LogKey(ORIGIN, SigningKey.generate().public))]))
    with refuses("HBK-723"):
        verify_receipt(RECEIPT, SHOWN, LogPolicy())
    assert verify_receipt(RECEIPT, SHOWN, LogPolicy(), logs=[LogKey(ORIGIN, SIGNER.public)]).withheld == NOTHING


HASH = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v1\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n\n",
        "c2sp.org/tlog-proof@v2\nindex 0\n\ncheckpoint\n",
        " c2sp.org/tlog-proof@v1\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\r\nindex 0\r\n\r\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\n\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\n\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nextra \nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nextra\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nextra YQ\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nextra YR==\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nextra YQ==\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nextra YQ==\nextra YQ==\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex 0\nextra YQ==\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex  0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex 00\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex -5\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex +5\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex \u0665\n\ncheckpoint\n",
        f"c2sp.org/tlog-proof@v1\nindex {'9' * 20}\n\ncheckpoint\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{HASH[:-1]}\n\ncheckpoint\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n {HASH}\n\ncheckpoint\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{base64.b64encode(bytes(64)).decode()}\n\ncheckpoint\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{HASH}" + f"\n{HASH}" * MAX_PATH + "\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n\n" + "x" * MAX_RECEIPT_BYTES,
    ],
)
def test_a_receipt_has_one_spelling(text: str) -> None:
    with refuses("HBK-712"):
        TlogProof.parse(text)


@pytest.mark.parametrize(
    "extra",
    [b"", b"x", bytes(19), b"\x02" + bytes(18), b"\x01" + bytes(19), b"\x01\0\x08" + bytes(16), b"\x01\0\x01" * 9],
)
def test_a_receipt_of_another_application_proves_nothing_here(extra: bytes) -> None:
    with refuses("HBK-712"):
        verify_receipt(replace(TlogProof.parse(RECEIPT), extra=extra).encode(), SHOWN, POLICY)


def test_a_leaf_of_another_format_gets_no_receipt() -> None:
    with refuses("HBK-712"):
        write_receipt(Proof(0, b"another leaf", (), NOTE))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**19 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_PATH),
    st.text(min_size=1, max_size=50),
    st.binary(max_size=60),
)
def test_every_proof_comes_back(index: int, path: list[bytes], checkpoint: str, extra: bytes) -> None:
    made = TlogProof(index, tuple(path), checkpoint, extra)
    assert TlogProof.parse(made.encode()) == made


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_changed_character_of_a_receipt_goes_unnoticed(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(RECEIPT) - 1))
    other = data.draw(st.sampled_from(["", "\n", "A", "1", "=", " ", "—", "\0", "\ud800", RECEIPT[at] * 2]))
    changed = RECEIPT[:at] + other + RECEIPT[at + 1 :]
    if changed == RECEIPT:
        return
    with pytest.raises(RecordsError) as caught:
        verify_receipt(changed, SHOWN, POLICY)
    assert caught.value.code in {"HBK-711", "HBK-712"}


def million() -> tuple[str, Shown]:
    """A receipt among a million entries, under a tree of which only the path exists."""
    one, size = entry(777_777), 1_000_000
    path: list[bytes] = []
    at, last, value = one.position, size - 1, leaf_hash(one.leaf)
    while last:
        path.append(os.urandom(32))
        if at & 1 or at == last:
            value = node_hash(path[-1], value)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            value = node_hash(value, path[-1])
        at, last = at >> 1, last >> 1
    note = sign_checkpoint(Checkpoint(ORIGIN, size, value), SIGNER)
    return write_receipt(Proof(one.position, one.leaf, tuple(path), note)), Shown.of(one)


def fastest(attempt: Callable[[], object]) -> float:
    """Return microseconds of the fastest of many runs."""
    times = []
    for _ in range(400):
        started = time.perf_counter()
        attempt()
        times.append(time.perf_counter() - started)
    return min(times) * 1e6


def test_a_receipt_among_a_million_is_small_and_soon_verified() -> None:
    """At most 1.2 kB and 100 microseconds; the log's signature, which is the library's, counts on first sight only."""
    text, shown = million()
    known = fastest(lambda: verify_receipt(text, shown, POLICY))
    signature = SIGNER.sign(b"x" * 80)
    library = fastest(lambda: SIGNER.public.verify(b"x" * 80, signature))

    def first() -> None:
        POLICY.held.cache_clear()
        verify_receipt(text, shown, POLICY)

    print(  # noqa: T201  # a measurement, shown with -s
        f"\nreceipt at 1,000,000: {len(text.encode())} bytes; verified in {known:.0f} us under a known checkpoint, "
        f"{fastest(first):.0f} us under a new one, of which one Ed25519 verification is {library:.0f} us"
    )
    assert len(text.encode()) <= 1_200
    assert known <= 100
    assert fastest(first) <= library + 100
