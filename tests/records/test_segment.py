"""Archived segments by themselves: whoever keeps the files cannot make up an entry, nor show those of another log."""

import pytest
from msgspec.structs import astuple, replace

from hauberk.adapters.memory import MemoryStore
from hauberk.core.event import Entry
from hauberk.crypto.merkle import leaf_hash
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError
from hauberk.records import segment as module
from hauberk.records.ledger import Ledger
from hauberk.records.segment import Segment, make_segment, read_segment
from tests.records.forger import leafed
from tests.records.made import ORIGIN, PATIENCE, events

KEY = SigningKey(b"key of a log with an archive....")
ANOTHER = "example.org/other"


def archived(log: str = ORIGIN) -> Segment:
    store = MemoryStore()
    ledger = Ledger(store, KEY, log)
    ledger.append_batch(events(300)).result(PATIENCE)
    found = make_segment(store, log, 0, ledger.checkpoint())
    ledger.close()
    return found


def made_up(segment: Segment) -> Segment:
    """An entry says something else, and its leaf and columns say so too."""
    entry = Entry(*segment.entries[7])
    forged = leafed(replace(entry, public=b'{"number":99}'), 7, entry.version)
    return replace(segment, entries=(*segment.entries[:7], astuple(forged), *segment.entries[8:]))


def refused(segment: Segment) -> str:
    with pytest.raises(RecordsError) as caught:
        read_segment(segment.encode(), ORIGIN, KEY.public)
    assert caught.value.code == "HBK-725"
    return caught.value.detail


def test_an_honest_segment_is_read_and_has_every_entry() -> None:
    assert len(read_segment(archived().encode(), ORIGIN, KEY.public).entries) == 256


def test_an_entry_that_is_consistent_in_itself_but_not_in_the_tree_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    forged = made_up(archived())
    assert refused(forged) == "an entry is not in the signed tree"
    entry = Entry(*forged.entries[7])
    tile = {entry.leaf: forged.tile[7 * 32 : 8 * 32]}
    monkeypatch.setattr(module, "leaf_hash", lambda leaf: tile.get(leaf) or leaf_hash(leaf))
    read = read_segment(forged.encode(), ORIGIN, KEY.public)  # the twin: nobody compares with the tree
    assert Entry(*read.entries[7]).public == b'{"number":99}'


def test_a_segment_of_another_log_of_the_same_key_is_not_taken_for_one_of_this() -> None:
    theirs = archived(ANOTHER)
    assert refused(replace(theirs, log=ORIGIN)) == "the checkpoint is of another log"
    assert read_segment(theirs.encode(), ANOTHER, KEY.public).entries  # the twin: under its own name it is sound
    assert refused(theirs) == "not a segment of this log"


def test_a_file_longer_than_any_segment_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    monkeypatch.setattr(module, "_decode", lambda _: pytest.fail("it was decoded"))
    assert refused(archived()) == "the file is too large"
