"""The page `docs/spec/ledger.md`, done again from its rules alone: no code of ours below, until the last tests."""

import base64
import hmac
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from scripts.spec_vectors import OUT, made

Vectors = dict[str, Any]
STREAM_OF_PRODUCERS = "/records/producers"


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    found: Vectors = json.loads(OUT.read_text("utf-8"))
    return found


def entries(vectors: Vectors) -> Iterator[tuple[Vectors, bytes]]:
    for entry in vectors["entries"]:
        yield entry, bytes.fromhex(entry["leaf"])


def len32(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def hashed(part: str | bytes) -> bytes:
    return sha256(part.encode() if isinstance(part, str) else part).digest()


def test_each_leaf_is_what_the_page_says(vectors: Vectors) -> None:
    versions: dict[str, int] = {}
    covered = set()
    for entry, _ in entries(vectors):
        if entry["statement"]:
            count = msgspec.msgpack.decode(bytes.fromhex(entry["statement"]))[2]
            covered |= set(range(entry["position"], entry["position"] + count))
    for entry, leaf in entries(vectors):
        sealed = bytes.fromhex(entry["sealed"])
        version = versions[entry["stream"]] = versions.get(entry["stream"], 0) + 1
        keys = msgspec.msgpack.decode(sealed)[0] if sealed else []
        commitment = hashed(b"".join(key + commitment for key, commitment in keys)) if keys else bytes(32)
        flags = 1 if entry["position"] in covered else 0
        assert leaf == (
            bytes([1, flags])
            + entry["position"].to_bytes(8, "big")
            + leaf[10:18]
            + version.to_bytes(8, "big")
            + hashed(entry["meta"])
            + hashed(entry["public"])
            + hashed(sealed)
            + commitment
        )
        assert version == entry["version"]
        meta = json.loads(entry["meta"])
        assert (meta["id"], meta["type"], meta["stream"]) == (entry["id"], entry["type"], entry["stream"])
        assert json.dumps(meta, separators=(",", ":"), ensure_ascii=False) == entry["meta"]


def test_each_sealed_value_opens_by_the_page(vectors: Vectors) -> None:
    keys = {bytes.fromhex(one["id"]): bytes.fromhex(one["key"]) for one in vectors["keys"].values()}
    opened = 0
    for entry, _ in entries(vectors):
        pairs, fields = msgspec.msgpack.decode(bytes.fromhex(entry["sealed"])) if entry["sealed"] else ([], [])
        for path, number, box in fields:
            key_id, commitment = pairs[number]
            assert commitment == hmac.digest(keys[key_id], b"hauberk key commitment 1", "sha256")
            place = [b"hauberk seal 1", vectors["tenant"].encode(), entry["stream"].encode()]
            place += [entry["version"].to_bytes(8, "big"), path.encode(), entry["type"].encode(), key_id]
            aad = b"".join(len32(part) for part in place)
            assert AESGCM(keys[key_id]).decrypt(box[:12], box[12:], aad).decode() == entry["opened"][path]
            opened += 1
    assert opened == 3


def tree(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written there."""
    if len(leaves) == 1:
        return hashed(b"\x00" + leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashed(b"\x01" + tree(leaves[:split]) + tree(leaves[split:]))


def test_the_checkpoint_is_signed_and_of_this_tree(vectors: Vectors) -> None:
    leaves = [leaf for _, leaf in entries(vectors)]
    text, _, signature = vectors["checkpoint"].partition("\n\n")
    origin, size, root = text.split("\n")
    assert (origin, int(size), base64.b64decode(root)) == (vectors["log"], len(leaves), tree(leaves))
    dash, name, blob = signature.strip("\n").split(" ")
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vectors["log_seed"])).public_key()
    raw = base64.b64decode(blob)
    assert (dash, name) == ("—", origin)
    assert raw[:4] == hashed(origin.encode() + b"\n\x01" + key.public_bytes_raw())[:4]
    key.verify(raw[4:], (text + "\n").encode())
    assert vectors["tile"] == "".join(hashed(b"\x00" + leaf).hex() for leaf in leaves)


def test_each_statement_holds_by_the_page(vectors: Vectors) -> None:
    leaves = [leaf for _, leaf in entries(vectors)]
    signers: dict[bytes, Ed25519PublicKey] = {}
    runs = []
    for entry, _ in entries(vectors):
        if entry["stream"] == STREAM_OF_PRODUCERS:
            said = json.loads(entry["public"])
            raw = base64.b64decode(said["key"])
            assert said["fingerprint"] == hashed(raw).hex()
            signers[hashed(raw)] = Ed25519PublicKey.from_public_bytes(raw)
        if entry["statement"]:
            signer, time_ns, count, digests, signature = msgspec.msgpack.decode(bytes.fromhex(entry["statement"]))
            first = entry["position"]
            run = b"".join(leaf[26:122] for leaf in leaves[first : first + count])
            assert digests == b""
            message = b"hauberk statement 1\n" + signer + time_ns.to_bytes(8, "big") + hashed(run)
            signers[signer].verify(signature, message)
            runs.append((first, count))
    assert runs == [(1, 2), (3, 1)]


def test_each_proof_leads_to_the_root(vectors: Vectors) -> None:
    leaves = [leaf for _, leaf in entries(vectors)]
    for entry, leaf in entries(vectors):
        at, last, value = entry["position"], len(leaves) - 1, hashed(b"\x00" + leaf)
        for step in map(bytes.fromhex, entry["proof"]):
            left = at & 1 or at == last
            value = hashed(b"\x01" + (step + value if left else value + step))
            while left and not at & 1 and at:
                at, last = at >> 1, last >> 1
            at, last = at >> 1, last >> 1
        assert value == tree(leaves)


def test_the_product_writes_these_vectors_today(vectors: Vectors) -> None:
    now: Vectors = json.loads(json.dumps(made()))
    for name in ("log", "tenant", "verifier", "keys"):
        assert now[name] == vectors[name]
    # The first entry introduces the producer, under an event id of its own each time.
    for ours, written in zip(now["entries"][1:], vectors["entries"][1:], strict=True):
        assert {key: ours[key] for key in ours if key != "proof"} == {
            key: written[key] for key in written if key != "proof"
        }


def test_the_page_names_the_vectors() -> None:
    assert "ledger-vectors.json" in (Path(OUT).parent / "ledger.md").read_text("utf-8")
