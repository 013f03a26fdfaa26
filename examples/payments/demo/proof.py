"""Checking a ledger entry as an outsider would: the row, the proof of its place, and the log's public key."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from hauberk.adapters.sqlite import open_readonly
from hauberk.core.event import Entry, Leaf
from hauberk.crypto.merkle import leaf_hash, verify_inclusion
from hauberk.crypto.note import decode_key, verify_checkpoint
from hauberk.errors import RecordsError
from hauberk.records.ledger import Proof
from hauberk.records.view import entry_view


def row_at(database: Path, key: str, position: int) -> Entry | None:
    """Return the stored row of the log that `key` names, or None when there is none at that position."""
    origin, _ = decode_key(key)
    store = open_readonly(database)
    try:
        found = next(iter(store.entries(origin, after=position - 1, limit=1)), None)
    finally:
        store.close()
    return found if found is not None and found.position == position else None


def fits(row: Entry | None, leaf: bytes) -> bool:
    """Tell whether a leaf was made from this row."""
    if row is None:
        return False
    found = Leaf.decode(leaf)
    digests = (sha256(row.meta).digest(), sha256(row.public).digest(), sha256(row.sealed).digest())
    return found.position == row.position and (found.meta, found.public, found.sealed) == digests


def check(proof: Proof, entry: dict[str, Any], row: Entry | None, key: str) -> None:
    """Return if exactly this entry, as it was shown, is in the log that this key signed.

    Args:
        proof: leaf, audit path and signed checkpoint.
        entry: what was shown about it.
        row: the bytes it was read from.
        key: the log's public verifier key.

    Raises:
        RecordsError: HBK-711 the checkpoint, HBK-712 the path, HBK-710 another entry than the one shown.
    """
    origin, public = decode_key(key)
    checkpoint = verify_checkpoint(proof.checkpoint, origin, public)
    position = int(entry["position"])
    verify_inclusion(leaf_hash(proof.leaf), position, checkpoint.size, list(proof.path), checkpoint.root)
    if row is None or not fits(row, proof.leaf) or json.loads(msgspec.json.encode(entry_view(row))) != entry:
        raise RecordsError("HBK-710", "the proof is of another entry", position=position)
