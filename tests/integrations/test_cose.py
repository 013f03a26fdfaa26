"""COSE receipts (RFC 9942): made of what the log has signed, checked by other software, and nothing else passes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import cwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.core.event import Leaf
from hauberk.crypto.merkle import leaf_hash, node_hash
from hauberk.crypto.signing import SigningKey
from hauberk.errors import ConfigError, RecordsError
from hauberk.integrations.cose import ED25519, MAX_BYTES, key_id, verify_receipt, write_receipt
from tests.records.made import ORIGIN, Book, events


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    made = Book(tmp_path_factory.mktemp("cose"))
    made.write(*events(21))
    yield made
    made.close()


def receipt_of(book: Book, position: int) -> tuple[bytes, bytes]:
    proof = book.ledger.proof(position)
    return write_receipt(proof, b"e" * 16, book.signer), proof.leaf


def taken_apart(receipt: bytes) -> tuple[dict[Any, Any], dict[Any, Any], list[Any], list[Any]]:
    tag = cbor2.loads(receipt)
    assert tag.tag == 18
    head, unprotected, payload, signature = tag.value
    assert payload is None
    assert len(signature) == 64
    [proof] = unprotected[396][-1]
    return cbor2.loads(head), unprotected, cbor2.loads(proof), tag.value


def put_together(value: list[Any], tag: int = 18) -> bytes:
    return bytes(cbor2.dumps(cbor2.CBORTag(tag, value)))


# form


@pytest.mark.parametrize("position", range(21))
def test_each_entry_has_one_and_it_verifies(book: Book, position: int) -> None:
    receipt, leaf = receipt_of(book, position)
    found = verify_receipt(receipt, leaf, book.signer.public)
    assert (found.log, found.subject, found.size, found.position) == (ORIGIN, (b"e" * 16).hex(), 21, position)


def test_its_form_is_that_of_rfc_9942(book: Book) -> None:
    receipt, _ = receipt_of(book, 17)
    protected, unprotected, proof, _ = taken_apart(receipt)
    assert protected == {1: -8, 4: key_id(book.signer.public), 15: {1: ORIGIN, 2: (b"e" * 16).hex()}, 395: 1}
    assert unprotected.keys() == {396}
    assert unprotected[396].keys() == {-1}
    size, position, path = proof
    assert (size, position) == (21, 17)
    assert path == list(book.ledger.proof(17).path)
    assert len(receipt) < 400


def test_other_software_verifies_it_with_the_root_it_computes_itself(book: Book) -> None:
    """RFC 9162 section 2.1.3.2 and RFC 9052 section 4.4, written out; and the library's own decoder."""
    receipt, leaf = receipt_of(book, 20)
    _, _, (size, position, path), value = taken_apart(receipt)
    fn, sn, root = position, size - 1, leaf_hash(leaf)
    for step in path:
        if fn & 1 or fn == sn:
            root = node_hash(step, root)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = node_hash(root, step)
        fn, sn = fn >> 1, sn >> 1
    signed = cbor2.dumps(["Signature1", value[0], b"", root])
    Ed25519PublicKey.from_public_bytes(book.signer.public.raw).verify(value[3], signed)
    key = cwt.COSEKey.new({1: 1, 2: key_id(book.signer.public), 3: -8, 4: [2], -1: 6, -2: book.signer.public.raw})
    assert cwt.COSE.new().decode(receipt, key, detached_payload=root) == root


def test_the_newer_name_of_the_algorithm_is_taken_too(book: Book) -> None:
    receipt, leaf = receipt_of(book, 3)
    protected, unprotected, _, _ = taken_apart(receipt)
    protected[1] = ED25519
    head = cbor2.dumps(protected)
    root = verify_receipt(receipt, leaf, book.signer.public).root
    signature = book.signer.sign(cbor2.dumps(["Signature1", head, b"", root]))
    assert verify_receipt(put_together([head, unprotected, None, signature]), leaf, book.signer.public).position == 3


def test_a_receipt_without_claims_or_key_id_of_another_log_verifies_by_its_key(book: Book) -> None:
    receipt, leaf = receipt_of(book, 3)
    _, unprotected, _, _ = taken_apart(receipt)
    head = cbor2.dumps({1: -8, 395: 1})
    root = verify_receipt(receipt, leaf, book.signer.public).root
    signature = book.signer.sign(cbor2.dumps(["Signature1", head, b"", root]))
    found = verify_receipt(put_together([head, unprotected, None, signature]), leaf, book.signer.public)
    assert (found.log, found.subject) == ("", "")


# what is refused


def changed(book: Book, **what: Any) -> tuple[bytes, bytes]:  # noqa: ANN401  # parts of a receipt
    """A receipt with parts exchanged, and the leaf it was made for."""
    receipt, leaf = receipt_of(book, 17)
    protected, unprotected, proof, value = taken_apart(receipt)
    head = cbor2.dumps({**protected, **what["protected"]}) if "protected" in what else value[0]
    if "proof" in what:
        unprotected = {396: {-1: [cbor2.dumps(what["proof"](*proof))]}}
    unprotected = what.get("unprotected", unprotected)
    return put_together(
        [head, unprotected, what.get("payload"), what.get("signature", value[3])], what.get("tag", 18)
    ), leaf


WRONG: dict[str, dict[str, Any]] = {
    "signature": {"signature": bytes(64)},
    "no signature": {"signature": b""},
    "algorithm": {"protected": {1: -7}},
    "another tree": {"protected": {395: 2}},
    "no tree": {"protected": {395: None}},
    "claims": {"protected": {15: {1: "example.org/other"}}},
    "claims of another form": {"protected": {15: "x"}},
    "key id": {"protected": {4: b"other"}},
    "size": {"proof": lambda size, at, path: [2 * size, at, path]},
    "size below": {"proof": lambda _size, at, path: [at, at, path]},
    "position": {"proof": lambda size, at, path: [size, at - 1, path]},
    "negative": {"proof": lambda size, _at, path: [size, -1, path]},
    "no path": {"proof": lambda size, at, _path: [size, at, []]},
    "shorter path": {"proof": lambda size, at, path: [size, at, path[1:]]},
    "longer path": {"proof": lambda size, at, path: [size, at, [*path, path[0]]]},
    "endless path": {"proof": lambda size, at, path: [size, at, path * 30]},
    "another path": {"proof": lambda size, at, path: [size, at, [bytes(32), *path[1:]]]},
    "short hash": {"proof": lambda size, at, path: [size, at, [path[0][:31], *path[1:]]]},
    "text in the path": {"proof": lambda size, at, path: [size, at, ["x", *path[1:]]]},
    "true as a number": {"proof": lambda _size, _at, path: [True, False, path]},
    "another form of proof": {"proof": lambda size, at, path: {"size": size, "at": at, "path": path}},
    "four parts": {"proof": lambda size, at, path: [size, at, path, 0]},
    "two proofs": {"unprotected": {396: {-1: [b"", b""]}}},
    "no proof": {"unprotected": {}},
    "no bytes": {"unprotected": {396: {-1: [[21, 17, []]]}}},
    "consistency": {"unprotected": {396: {-2: [b""]}}},
    "attached root": {"payload": bytes(32)},
    "another tag": {"tag": 17},
    "headers of no form": {"unprotected": [396]},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_changed_does_not_verify(book: Book, what: str) -> None:
    receipt, leaf = changed(book, **WRONG[what])
    with pytest.raises(RecordsError, match="HBK-712"):
        verify_receipt(receipt, leaf, book.signer.public)


def signed_again(book: Book, **changes: object) -> tuple[bytes, bytes]:
    """A COSE_Sign1 that the log's key did sign over the root, under other protected parameters."""
    receipt, leaf = receipt_of(book, 17)
    root = verify_receipt(receipt, leaf, book.signer.public).root
    protected, unprotected, _, _ = taken_apart(receipt)
    wanted = {**protected, **{int(name[1:]): value for name, value in changes.items()}}
    head = cbor2.dumps({name: value for name, value in wanted.items() if value is not None})
    signature = book.signer.sign(cbor2.dumps(["Signature1", head, b"", root]))
    return put_together([head, unprotected, None, signature]), leaf


@pytest.mark.parametrize("changes", [{"_395": 2}, {"_395": None}, {"_395": "1"}, {"_15": "x"}], ids=str)
def test_what_the_same_key_signed_about_another_kind_of_tree_is_no_receipt(
    book: Book, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    receipt, leaf = signed_again(book, **changes)
    with pytest.raises(RecordsError, match="HBK-712"):
        verify_receipt(receipt, leaf, book.signer.public)
    assert verify_receipt(*signed_again(book), book.signer.public).position == 17  # signed the same way
    if "_395" in changes:
        monkeypatch.setattr("hauberk.integrations.cose._check_head", lambda _: None)
        assert verify_receipt(receipt, leaf, book.signer.public).position == 17  # the twin


@pytest.mark.parametrize("beside", [[21, 16, []], [22, 17, [bytes(32)]]], ids=str)
def test_a_second_proof_beside_the_good_one_is_refused_whichever_others_would_read(
    book: Book, beside: list[Any]
) -> None:
    receipt, leaf = receipt_of(book, 17)
    head, unprotected, _, signature = taken_apart(receipt)[3]
    assert verify_receipt(put_together([head, unprotected, None, signature]), leaf, book.signer.public).size == 21
    good, other = unprotected[396][-1][0], cbor2.dumps(beside)
    for both in ([good, other], [other, good], [good, good]):
        with pytest.raises(RecordsError, match="HBK-712"):
            verify_receipt(put_together([head, {396: {-1: both}}, None, signature]), leaf, book.signer.public)


def test_the_size_is_what_the_receipt_says_and_only_its_shape_is_proven(book: Book) -> None:
    receipt, leaf = changed(book, proof=lambda size, at, path: [size + 1, at, path])
    assert verify_receipt(receipt, leaf, book.signer.public).size == 22  # which is why a checkpoint says it as well


def test_one_that_was_not_changed_does(book: Book) -> None:
    receipt, leaf = changed(book)
    assert verify_receipt(receipt, leaf, book.signer.public).position == 17


def test_an_attached_root_would_let_a_proof_of_nothing_pass(book: Book) -> None:
    """Why the root is never in a receipt: who verifies the signature over it has verified nothing of the path."""
    receipt, leaf = receipt_of(book, 17)
    root = verify_receipt(receipt, leaf, book.signer.public).root
    _, _, _, value = taken_apart(receipt)
    forged = put_together([value[0], {396: {-1: [cbor2.dumps([21, 17, [bytes(32)] * 5])]}}, root, value[3]])
    key = cwt.COSEKey.new({1: 1, 2: key_id(book.signer.public), 3: -8, 4: [2], -1: 6, -2: book.signer.public.raw})
    assert cwt.COSE.new().decode(forged, key) == root
    with pytest.raises(RecordsError, match="HBK-712"):
        verify_receipt(forged, leaf, book.signer.public)


@pytest.mark.parametrize("leaf", [b"", b"x", b"\x01" + bytes(153)])
def test_another_leaf_does_not_verify(book: Book, leaf: bytes) -> None:
    receipt, real = receipt_of(book, 17)
    other = book.ledger.proof(16).leaf
    for wrong in (leaf, other, replace(Leaf.decode(other), position=17).encode(), real[:-1] + b"\x01"):
        with pytest.raises(RecordsError, match="HBK-712"):
            verify_receipt(receipt, wrong, book.signer.public)


def test_the_key_of_another_log_does_not_verify_it(book: Book) -> None:
    receipt, leaf = receipt_of(book, 17)
    with pytest.raises(RecordsError, match="HBK-712"):
        verify_receipt(receipt, leaf, SigningKey.generate().public)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_bytes_that_are_none_are_refused(book: Book, noise: bytes) -> None:
    leaf = book.ledger.proof(3).leaf
    for data in (noise, b"\xd2\x84" + noise, b"\xd2" + noise):
        with pytest.raises(RecordsError, match="HBK-712"):
            verify_receipt(data, leaf, book.signer.public)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_single_byte_can_be_another_but_that_of_the_size(book: Book, at: int, by: int) -> None:
    receipt, leaf = receipt_of(book, 17)
    at %= len(receipt)
    damaged = receipt[:at] + bytes([receipt[at] ^ by]) + receipt[at + 1 :]
    whole = verify_receipt(receipt, leaf, book.signer.public)
    try:
        found = verify_receipt(damaged, leaf, book.signer.public)
    except RecordsError as error:
        assert error.code == "HBK-712"  # noqa: PT017  # or the next line
    else:
        assert found == replace(whole, size=found.size)  # another size of the same shape
        assert found.size != whole.size


@pytest.mark.parametrize("data", [b"\x9f" * MAX_BYTES, b"\x81" * 10_000, b"x" * (MAX_BYTES + 1), b"\x9b" + b"\xff" * 8])
def test_no_form_of_it_costs_much(book: Book, data: bytes) -> None:
    with pytest.raises(RecordsError, match="HBK-712"):
        verify_receipt(data, book.ledger.proof(3).leaf, book.signer.public)


# making one


def test_nothing_is_vouched_for_that_the_log_has_not_signed(book: Book) -> None:
    proof = book.ledger.proof(17)
    with pytest.raises(RecordsError, match="HBK-711"):
        write_receipt(proof, b"e" * 16, SigningKey.generate())
    with pytest.raises(RecordsError, match="HBK-711"):
        write_receipt(replace(proof, checkpoint=proof.checkpoint.replace("\n21\n", "\n22\n")), b"e" * 16, book.signer)
    other = book.ledger.proof(16).leaf
    for wrong in (replace(proof, leaf=other), replace(proof, position=16), replace(proof, path=proof.path[1:])):
        with pytest.raises(RecordsError, match="HBK-712"):
            write_receipt(wrong, b"e" * 16, book.signer)


def test_the_only_entry_of_a_log_has_none_yet(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.write(*events(1))
    with pytest.raises(RecordsError, match="HBK-712"):
        write_receipt(book.ledger.proof(0), b"e" * 16, book.signer)
    book.write(*events(1))
    receipt, leaf = receipt_of(book, 0)
    assert verify_receipt(receipt, leaf, book.signer.public).size == 2
    book.close()


def test_without_the_extra_it_says_what_to_install(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = book.ledger.proof(3)
    monkeypatch.setitem(sys.modules, "cwt", None)
    with pytest.raises(ConfigError, match="HBK-907") as found:
        write_receipt(proof, b"e" * 16, book.signer)
    assert "hauberk[cose]" in found.value.detail
    with pytest.raises(ConfigError, match="HBK-907"):
        verify_receipt(b"", proof.leaf, book.signer.public)
