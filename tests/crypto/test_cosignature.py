"""Cosignatures: the two types byte for byte as C2SP writes them, and no statement that was not made."""

import base64
import copy
import pickle
import re
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.crypto import cosignature
from hauberk.crypto.cosignature import MAX_TIME, Algorithm, Cosigner, CosignerKey
from hauberk.crypto.note import (
    MAX_SIGNATURES,
    Checkpoint,
    LogKey,
    add_signature,
    encode_vkey,
    parse_note,
    sign_checkpoint,
    signed_by,
    verify_checkpoint,
)
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError
from tests.core.refusal import refuses

SEED = bytes(range(32))
LOG = SigningKey(SEED)
ORIGIN = "example.org/ledger"
CHECKPOINT = Checkpoint(ORIGIN, 3, bytes(range(32)))
TEXT = CHECKPOINT.text()
NAME = "witness.example/w1"
TIME = 1_679_315_147
KEYS = {algorithm: CosignerKey(NAME, algorithm, SEED) for algorithm in Algorithm}
both = pytest.mark.parametrize("algorithm", list(Algorithm))


def value(line: str) -> bytes:
    return base64.b64decode(line.split(" ")[2])


def test_the_worked_example_in_the_source_is_what_we_write_and_read() -> None:
    block = re.search(r"```\n(.+?\n)\n(.+?\n)```", cosignature.__doc__ or "", re.DOTALL)
    assert block
    key = CosignerKey("w.example/w1", Algorithm.ED25519, SEED)
    assert key.cosign(block.group(1), TIME) == block.group(2)
    assert key.public.verify(block.group(1), block.group(2)) == TIME


def test_an_ed25519_cosignature_is_the_bytes_of_the_specification() -> None:
    made = value(KEYS[Algorithm.ED25519].cosign(TEXT, TIME))
    assert made[:4] == KEYS[Algorithm.ED25519].public.key_id
    assert made[4:12] == struct.pack(">Q", TIME)
    signed = f"cosignature/v1\ntime {TIME}\n{TEXT}".encode()
    Ed25519PublicKey.from_public_bytes(LOG.public.raw).verify(made[12:], signed)


def test_an_ml_dsa_44_cosignature_is_the_bytes_of_the_specification() -> None:
    key = KEYS[Algorithm.ML_DSA_44]
    made = value(key.cosign(TEXT, TIME))
    assert (made[:4], made[4:12], len(made)) == (key.public.key_id, struct.pack(">Q", TIME), 4 + 8 + 2420)
    signed = b"".join(
        (
            b"subtree/v1\n\0",
            bytes((len(NAME),)),
            NAME.encode(),
            struct.pack(">Q", TIME),
            bytes((len(ORIGIN),)),
            ORIGIN.encode(),
            struct.pack(">QQ", 0, 3),
            CHECKPOINT.root,
        )
    )
    MLDSA44PublicKey.from_public_bytes(key.public.raw).verify(made[12:], signed)


def test_the_specification_of_the_example_key_line_is_read() -> None:
    # The example of c2sp.org/tlog-cosignature names no key, so only its shape can be checked.
    example = "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA=="  # noqa: E501  # one line of a note
    assert int.from_bytes(value(example)[4:12]) == TIME
    assert len(value(example)) == 4 + 8 + 64


@both
def test_keys_come_back_from_their_text_and_seed(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    assert Cosigner.parse(key.verifier) == key.public
    assert Cosigner.parse(key.verifier).vkey == key.verifier
    assert CosignerKey(NAME, algorithm, key.seed()).verifier == key.verifier
    assert CosignerKey.generate(NAME, algorithm).verifier != key.verifier
    assert {key.public} == {Cosigner.parse(key.verifier)}


@both
def test_a_private_key_shows_itself_nowhere(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    assert SEED.hex() not in repr(key)
    for copying in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            copying(key)


@both
@settings(max_examples=40, deadline=None)
@given(st.integers(0, MAX_TIME), st.integers(0, (1 << 63) - 1), st.binary(min_size=32, max_size=32))
def test_every_cosignature_verifies_and_says_when(algorithm: Algorithm, time: int, size: int, root: bytes) -> None:
    text = Checkpoint(ORIGIN, size, root).text()
    line = KEYS[algorithm].cosign(text, time)
    assert line.startswith(f"— {NAME} ")
    assert line.endswith("\n")
    public = Cosigner.parse(KEYS[algorithm].verifier)
    assert public.verify(text, line) == public.verify(text, line.removesuffix("\n")) == time


@both
@settings(max_examples=120, deadline=None)
@given(st.data())
def test_no_changed_character_goes_unnoticed(algorithm: Algorithm, data: st.DataObject) -> None:
    text, line = TEXT, KEYS[algorithm].cosign(TEXT, TIME).removesuffix("\n")
    other = data.draw(st.sampled_from(["", "A", "1", "=", " ", "+", "—", "\n", "\0", "\ud800"]))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        changed = text[:at] + other + text[at + 1 :]
        if changed != text:
            with refuses("HBK-711"):
                KEYS[algorithm].public.verify(changed, line)
    else:
        at = data.draw(st.integers(0, len(line) - 1))
        changed = line[:at] + other + line[at + 1 :]
        if changed not in {line, line + "\n"}:
            with refuses("HBK-711"):
                KEYS[algorithm].public.verify(text, changed)


@both
def test_a_time_that_was_moved_is_refused(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    made = value(key.cosign(TEXT, TIME))
    for time in (TIME + 1, 0, 1 << 63, (1 << 64) - 1):
        moved = base64.b64encode(made[:4] + struct.pack(">Q", time) + made[12:]).decode()
        with refuses("HBK-711"):
            key.public.verify(TEXT, f"— {NAME} {moved}")


@both
def test_what_is_no_cosignature_of_a_checkpoint_is_not_made(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    for text in ("", "text\n", TEXT.removesuffix("\n"), TEXT + "\n", TEXT.replace("\n3\n", "\n03\n")):
        with refuses("HBK-711"):
            key.cosign(text, TIME)
    for time in (-1, MAX_TIME + 1):
        with refuses("HBK-711"):
            key.cosign(TEXT, time)


@both
def test_a_line_of_another_key_name_or_algorithm_is_refused(algorithm: Algorithm) -> None:
    line = KEYS[algorithm].cosign(TEXT, TIME)
    other = next(other for other in Algorithm if other is not algorithm)
    for public in (
        CosignerKey.generate(NAME, algorithm).public,
        CosignerKey("witness.example/w2", algorithm, SEED).public,
        KEYS[other].public,
    ):
        with refuses("HBK-711"):
            public.verify(TEXT, line)


def test_an_ml_dsa_44_cosignature_commits_to_the_cosigner_and_an_ed25519_one_does_not() -> None:
    """Which is why C2SP forbids one Ed25519 key under two names, and why ours signs under one."""
    for algorithm, moves in ((Algorithm.ED25519, True), (Algorithm.ML_DSA_44, False)):
        other = CosignerKey("witness.example/w2", algorithm, SEED).public
        made = value(KEYS[algorithm].cosign(TEXT, TIME))[4:]
        if moves:
            assert other.check(TEXT, made) == TIME
        else:
            with refuses("HBK-711"):
                other.check(TEXT, made)


def test_extension_lines_are_covered_by_ed25519_and_not_by_ml_dsa_44() -> None:
    extended = TEXT + "extension\n"
    with refuses("HBK-711"):
        KEYS[Algorithm.ED25519].public.verify(extended, KEYS[Algorithm.ED25519].cosign(TEXT, TIME))
    line = KEYS[Algorithm.ML_DSA_44].cosign(TEXT, TIME)
    assert KEYS[Algorithm.ML_DSA_44].public.verify(extended, line) == TIME


@both
def test_a_name_that_cannot_be_signed_is_no_cosigner(algorithm: Algorithm) -> None:
    for name in ("", "two words", "plus+sign", "n" * 256, "é" * 128, "line\nbreak", "\ud800"):
        with refuses("HBK-711"):
            CosignerKey(name, algorithm, SEED)
    assert CosignerKey("n" * 255, algorithm, SEED).cosign(TEXT, 1)


def test_an_origin_longer_than_its_length_byte_is_not_signed_with_ml_dsa_44() -> None:
    text = Checkpoint("o" * 256, 3, bytes(32)).text()
    with refuses("HBK-711"):
        KEYS[Algorithm.ML_DSA_44].cosign(text, TIME)
    assert KEYS[Algorithm.ED25519].cosign(text, TIME)


def test_a_key_that_does_not_cosign_or_has_another_length_is_refused() -> None:
    public = KEYS[Algorithm.ML_DSA_44].public
    for kind, raw in (
        (b"\x01", LOG.public.raw),
        (b"\x02", bytes(65)),
        (b"\x04", LOG.public.raw + b"x"),
        (b"\x06", LOG.public.raw),
        (b"\x06", public.raw[:-1]),
        (b"\x06", public.raw + b"x"),
        (b"\xff", b""),
        (b"", b""),
    ):
        with refuses("HBK-711"):
            Cosigner.parse(encode_vkey(NAME, kind, raw))
    with refuses("HBK-711"):
        CosignerKey(NAME, Algorithm.ML_DSA_44, bytes(31))


@both
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_a_value_of_any_bytes_is_a_typed_refusal(algorithm: Algorithm, data: bytes) -> None:
    with refuses("HBK-711"):
        KEYS[algorithm].public.check(TEXT, data)


def test_a_checkpoint_signed_twice_and_cosigned_is_read_by_each_of_its_readers() -> None:
    own = CosignerKey(ORIGIN, Algorithm.ML_DSA_44, bytes(32))  # the log signs as ML-DSA-44 too, without a time
    note = sign_checkpoint(CHECKPOINT, LOG)
    for line in (own.cosign(TEXT, 0), *(key.cosign(TEXT, TIME) for key in KEYS.values())):
        note = add_signature(note, line)
    assert verify_checkpoint(note, ORIGIN, LOG.public) == CHECKPOINT
    parsed = parse_note(note)
    assert parsed.encode() == note
    assert signed_by(parsed, LogKey(ORIGIN, LOG.public)) == 0
    assert signed_by(parsed, own.public) == 0
    assert [signed_by(parsed, key.public) for key in KEYS.values()] == [TIME, TIME]
    assert signed_by(parsed, CosignerKey.generate(NAME).public) is None


def test_a_newer_cosignature_takes_the_place_of_the_older_one() -> None:
    key = KEYS[Algorithm.ML_DSA_44]
    note = add_signature(sign_checkpoint(CHECKPOINT, LOG), key.cosign(TEXT, TIME))
    newer = add_signature(note, key.cosign(TEXT, TIME + 5))
    assert len(parse_note(newer).signatures) == 2
    assert signed_by(parse_note(newer), key.public) == TIME + 5
    both_lines = note + key.cosign(TEXT, TIME + 5)
    assert signed_by(parse_note(both_lines), key.public) == TIME + 5


@both
def test_a_false_line_under_a_known_key_spoils_the_note_and_under_an_unknown_one_does_not(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    note = add_signature(sign_checkpoint(CHECKPOINT, LOG), key.cosign(TEXT, TIME))
    elsewhere = Checkpoint(ORIGIN, 4, bytes(32)).text()
    for spoilt in (note + key.cosign(elsewhere, TIME), add_signature(note, key.cosign(elsewhere, TIME))):
        with refuses("HBK-711"):
            signed_by(parse_note(spoilt), key.public)
        assert signed_by(parse_note(spoilt), CosignerKey.generate(NAME, algorithm).public) is None


def test_a_note_has_room_for_a_hundred_of_the_longest_signatures_and_no_more() -> None:
    note = sign_checkpoint(CHECKPOINT, LOG)
    for at in range(MAX_SIGNATURES - 1):
        note = add_signature(note, encoded(f"witness.example/{at}", bytes(4) + bytes(3000)))
    assert len(parse_note(note).signatures) == MAX_SIGNATURES
    with pytest.raises(RecordsError):
        add_signature(note, encoded("one.more", bytes(5)))
    assert add_signature(note, encoded("witness.example/0", bytes(5)))


def encoded(name: str, data: bytes) -> str:
    return f"— {name} {base64.b64encode(data).decode()}\n"
