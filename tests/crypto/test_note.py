"""Signed notes and checkpoints: byte for byte what C2SP writes, and nothing that was touched is believed."""

import base64
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.crypto import note
from hauberk.crypto.merkle import Frontier, leaf_hash
from hauberk.crypto.note import (
    ED25519,
    MAX_NOTE_BYTES,
    Checkpoint,
    LogKey,
    Note,
    Signature,
    add_signature,
    decode_key,
    encode_key,
    key_id,
    parse_checkpoint,
    parse_note,
    parse_signature,
    sign,
    sign_checkpoint,
    signed_by,
    verify,
    verify_checkpoint,
)
from hauberk.crypto.signing import SigningKey, VerifyKey
from hauberk.errors import RecordsError
from tests.core.refusal import refuses
from tests.support.vectors import vectors

KEY = SigningKey(bytes(range(32)))
ORIGIN = "example.org/ledger"
# The example of golang.org/x/mod/sumdb/note, whose format C2SP took over.
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_NOTE = (
    GO_TEXT
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"

names = st.text(st.characters(codec="utf-8", exclude_characters="+", exclude_categories=["Z", "C"]), min_size=1).filter(
    lambda name: not re.search(r"\s", name)
)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\n"), max_size=200)


def _root(*leaves: bytes) -> bytes:
    frontier = Frontier()
    frontier.extend(map(leaf_hash, leaves))
    return frontier.root()


def test_the_worked_example_in_the_source_is_what_we_write_and_read() -> None:
    block = re.search(r"```\n(.+?)\n```", note.__doc__ or "", re.DOTALL)
    assert block
    checkpoint = Checkpoint(ORIGIN, 3, _root(b"one", b"two", b"three"))
    assert sign_checkpoint(checkpoint, KEY) == block.group(1) + "\n"
    assert verify_checkpoint(block.group(1) + "\n", ORIGIN, KEY.public) == checkpoint


def test_the_published_example_is_reproduced_byte_for_byte() -> None:
    name, key = decode_key(GO_KEY)
    assert encode_key(name, key) == GO_KEY
    assert SigningKey(GO_SEED).public == key
    assert sign(GO_TEXT, name, SigningKey(GO_SEED)) == GO_NOTE
    assert verify(GO_NOTE, name, key) == GO_TEXT


def test_a_real_log_of_another_implementation_is_read_and_its_roots_are_ours() -> None:
    log = vectors("tessera", "testdata", "log")
    name, key = decode_key(TESSERA_KEY)
    for size in range(16):
        checkpoint = verify_checkpoint((log / f"checkpoint.{size}").read_text("utf-8"), name, key)
        hashes = (log / f"tile/0/000.p/{size}").read_bytes() if size else b""
        bundle = (log / f"tile/entries/000.p/{size}").read_bytes() if size else b""
        leaves = []
        while bundle:
            length = int.from_bytes(bundle[:2])
            leaves.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
        assert b"".join(map(leaf_hash, leaves)) == hashes
        assert (checkpoint.size, checkpoint.root) == (size, _root(*leaves)) == (len(leaves), checkpoint.root)


@settings(max_examples=100, deadline=None)
@given(texts, names, st.binary(min_size=32, max_size=32))
def test_every_text_comes_back_out_of_its_note(text: str, name: str, seed: bytes) -> None:
    key = SigningKey(seed)
    signed = sign(text + "\n", name, key)
    assert verify(signed, name, key.public) == text + "\n"
    assert decode_key(encode_key(name, key.public)) == (name, key.public)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_changed_character_goes_unnoticed(data: st.DataObject) -> None:
    signed = sign_checkpoint(Checkpoint(ORIGIN, 7, bytes(32)), KEY)
    at = data.draw(st.integers(0, len(signed) - 1))
    other = data.draw(st.sampled_from(["", "\n", "A", "1", "=", " ", "—", "\x00", "\ud800"]))
    changed = signed[:at] + other + signed[at + 1 :]
    if changed == signed:
        return
    with refuses("HBK-711"):
        verify_checkpoint(changed, ORIGIN, KEY.public)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=80), st.text("abc\n— +=019", max_size=80)))
def test_garbage_is_a_typed_refusal_or_the_one_spelling_of_something(text: str) -> None:
    with refuses("HBK-711"):
        verify(text, ORIGIN, KEY.public)
    reads: list[Callable[[], str]] = [lambda: encode_key(*decode_key(text)), lambda: parse_checkpoint(text).text()]
    for read in reads:
        try:
            written = read()
        except RecordsError as refused:
            assert refused.code == "HBK-711"  # noqa: PT017  # one of two outcomes
        else:
            assert text.strip().startswith(written.strip())


signatures = st.builds(Signature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=100))


@settings(max_examples=100, deadline=None)
@given(texts, st.lists(signatures, min_size=1, max_size=5))
def test_every_note_comes_back_from_its_parts(text: str, lines: list[Signature]) -> None:
    note = Note(text + "\n", tuple(lines))
    assert parse_note(note.encode()) == note
    for line in lines:
        assert parse_signature(line.line()) == parse_signature(line.line().removesuffix("\n")) == line


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_mutated_note_is_a_typed_refusal_or_the_one_spelling_of_another(data: st.DataObject) -> None:
    note = add_signature(sign(GO_TEXT, ORIGIN, KEY), GO_NOTE.split("\n")[-2])
    at = data.draw(st.integers(0, len(note)))
    changed = note[:at] + data.draw(st.text("ab\n—+ =\0", max_size=3)) + note[at + data.draw(st.integers(0, 3)) :]
    try:
        assert parse_note(changed).encode() == changed
    except RecordsError as refused:
        assert refused.code == "HBK-711"  # noqa: PT017  # one of two outcomes


def test_a_note_says_who_of_those_one_trusts_signed_it() -> None:
    note = add_signature(sign(GO_TEXT, ORIGIN, KEY), GO_NOTE.split("\n")[-2])
    go = LogKey.parse(GO_KEY)
    assert go.vkey == GO_KEY
    assert signed_by(parse_note(note), go) == signed_by(parse_note(note), LogKey(ORIGIN, KEY.public)) == 0
    assert signed_by(parse_note(note), LogKey(ORIGIN, SigningKey.generate().public)) is None
    same_id = Signature(go.name, go.key_id, bytes(64)).line()
    with refuses("HBK-711"):
        signed_by(parse_note(note + same_id), go)
    assert signed_by(parse_note(note + Signature("another.name", go.key_id, bytes(64)).line()), go) == 0
    assert signed_by(parse_note(note + Signature(go.name, bytes(4), bytes(64)).line()), go) == 0


def test_a_signature_is_not_added_to_what_is_no_note_nor_in_more_than_one_line() -> None:
    line = GO_NOTE.split("\n")[-2]
    for text, added in (("text\n", line), (GO_NOTE, "text"), (GO_NOTE, f"{line}\n{line}"), (GO_NOTE, "")):
        with refuses("HBK-711"):
            add_signature(text, added)


def test_another_key_name_or_log_is_not_believed() -> None:
    signed = sign_checkpoint(Checkpoint(ORIGIN, 7, bytes(32)), KEY)
    other = SigningKey.generate()
    with refuses("HBK-711"):
        verify_checkpoint(signed, ORIGIN, other.public)
    with refuses("HBK-711"):
        verify_checkpoint(signed, "example.org/other", KEY.public)
    relabelled = signed.replace(f"— {ORIGIN} ", "— example.org/other ")
    with refuses("HBK-711"):
        verify_checkpoint(relabelled, "example.org/other", KEY.public)
    foreign = sign(Checkpoint("example.org/other", 9, bytes(32)).text(), ORIGIN, KEY)
    assert verify(foreign, ORIGIN, KEY.public)
    with refuses("HBK-711"):
        verify_checkpoint(foreign, ORIGIN, KEY.public)


def test_a_wrong_signature_under_our_key_id_is_refused_even_beside_a_right_one() -> None:
    signed = sign_checkpoint(Checkpoint(ORIGIN, 7, bytes(32)), KEY)
    forged = base64.b64encode(key_id(ORIGIN, KEY.public) + bytes(64)).decode()
    with refuses("HBK-711"):
        verify_checkpoint(f"{signed}— {ORIGIN} {forged}\n", ORIGIN, KEY.public)


def test_signatures_of_witnesses_are_passed_over_wherever_they_stand() -> None:
    text = Checkpoint(ORIGIN, 7, bytes(32)).text()
    ours = sign(text, ORIGIN, KEY).removeprefix(text + "\n")
    witness = sign(text, "witness.example/w1", SigningKey.generate()).removeprefix(text + "\n")
    for lines in (ours + witness, witness + ours, witness * 50 + ours):
        assert verify_checkpoint(f"{text}\n{lines}", ORIGIN, KEY.public).size == 7
    for lines in (witness, witness * 100 + ours, "", "— x\n" + ours, "- x AAAAAAA=\n" + ours, "— x AAAAAA==\n" + ours):
        with refuses("HBK-711"):
            verify_checkpoint(f"{text}\n{lines}", ORIGIN, KEY.public)


@pytest.mark.parametrize("text", ["no newline", "", "tab\t\n", "lone \ud800\n", "nul\0\n"])
def test_what_would_not_come_back_is_not_signed(text: str) -> None:
    with refuses("HBK-711"):
        sign(text, ORIGIN, KEY)


@pytest.mark.parametrize("name", ["", "two words", "plus+sign", "line\nbreak", "no\u00a0break"])
def test_a_name_that_breaks_the_line_is_not_signed_under(name: str) -> None:
    with refuses("HBK-711"):
        sign("text\n", name, KEY)


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n07\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n-1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n+1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n1e3\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n٣\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n{'9' * 20}\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"{ORIGIN}\n1\n{base64.b64encode(bytes(32)).decode().rstrip('=')}\n",
        f"{ORIGIN}\n1\n{base64.b64encode(bytes(32)).decode()[:-2]}B=\n",
        f"\n1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n1\n{base64.b64encode(bytes(32)).decode()}",
        f"{ORIGIN}\n1\n{base64.b64encode(bytes(32)).decode()}\n\nextension\n",
        f"{ORIGIN}\n1\n",
    ],
)
def test_a_checkpoint_has_one_spelling(text: str) -> None:
    with refuses("HBK-711"):
        parse_checkpoint(text)


def test_extension_lines_of_a_checkpoint_are_passed_over() -> None:
    text = Checkpoint(ORIGIN, 1, bytes(32)).text()
    assert parse_checkpoint(text + "extension 1\n") == parse_checkpoint(text)


def test_an_oversized_note_is_refused_before_it_is_looked_at() -> None:
    for filler in ("x", "é"):
        with refuses("HBK-711"):
            verify(filler * MAX_NOTE_BYTES + sign("text\n", ORIGIN, KEY), ORIGIN, KEY.public)


@pytest.mark.parametrize(
    "text",
    [
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("PeterNeumann", "PeterNewmann"),
        GO_KEY.replace("+ARpc", "+AhpC"),
        "PeterNeumann+c74f20a3",
        f"x+{key_id('x', KEY.public).hex()}+{base64.b64encode(KEY.public.raw).decode()}",
        f"x+{key_id('x', KEY.public).hex()}+{base64.b64encode(ED25519 + KEY.public.raw[:31]).decode()}",
    ],
)
def test_a_verifier_key_that_does_not_fit_its_hash_is_refused(text: str) -> None:
    with refuses("HBK-711"):
        decode_key(text)


def test_a_key_has_32_bytes() -> None:
    for make in (VerifyKey, SigningKey):
        for raw in (b"", bytes(31), bytes(33)):
            with refuses("HBK-711"):
                make(raw)
