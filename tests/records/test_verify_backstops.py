"""Attacks that get past everything but one check of the verifier; without that check each of them works."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.clock import ManualClock
from hauberk.core.event import Entry
from hauberk.core.ports import END
from hauberk.crypto.note import encode_key
from hauberk.errors import RecordsError, Tampered
from hauberk.records._encode import encode_event
from hauberk.records.batch import decode_batch
from hauberk.records.ledger import Ledger
from hauberk.records.positions import Positions
from hauberk.records.statement import DIGESTS, Signer, Statement, parse_statement
from hauberk.records.streams import RETENTION
from hauberk.records.verify import Kind, Trust, verify_store
from hauberk.records.verify.entries import Walk
from hauberk.records.verify.fsck import check_log
from tests.records.forger import entries_of, leafed, renumbered, rewrite
from tests.records.made import NOW, ORIGIN, PATIENCE, event
from tests.records.test_verify import KEY, SIGNER, single, sql
from tests.records.test_verify_declared import NAMED, ROOTS, SERVICE, found, original, path, pruned_log, pruning, verify
from tests.records.test_verify_pruned import declared_gone

__all__ = ["original", "path"]  # fixtures

LISTED = Trust(ROOTS, NAMED.keys)


# statements that list what was signed, because part of it was in the log before


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """A service's batch of five, of which the log had two when it came: 3 to 5 are under a statement that lists all."""
    path = tmp_path / "log.db"
    store = SqliteStore(path)
    ledger = Ledger(store, SIGNER, ORIGIN, clock=ManualClock(NOW + 2))
    made = [event(number) for number in range(5)]
    for part in (made[:2], made):
        received = decode_batch(SERVICE.sign(part), ROOTS, now_ns=NOW * 10**9 + 2 * 10**9)
        ledger.append_signed(received.pairs, received.signed).result(PATIENCE)
    ledger.close()
    store.close()
    return single(path)


def another(entries: list[Entry]) -> Sequence[Entry]:
    """The operator puts other words under the statement of a service, in their place, and signs the log."""
    entries[4] = leafed(replace(entries[4], public=b'{"number":99}'), 4, entries[4].version)
    return entries


def digests(leaves: Sequence[bytes]) -> bytes:
    return b"".join(leaf[DIGESTS] for leaf in leaves)


def test_a_batch_of_which_a_part_was_known_verifies_and_lists_what_was_signed(partial: Path) -> None:
    assert len(parse_statement(entries_of(partial)[3].statement).digests) == 5 * 96
    assert verify(partial, LISTED).signed == 5


def test_an_entry_the_service_did_not_list_does_not_pass_under_its_statement(partial: Path) -> None:
    rewrite(partial, SIGNER, another)
    assert found(partial, LISTED) == ("forged-signature", 3)


def test_without_looking_for_each_entry_in_the_list_the_operator_speaks_for_the_service(
    partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(
        statement: Statement,
        leaves: Sequence[bytes],
        signers: Mapping[bytes, Signer],
        roots: Mapping[str, Sequence[bytes]],
        *,
        position: int,
    ) -> object:
        assert (position, bool(statement.digests)) in {(1, False), (3, True)}
        return signers[statement.signer].verify(statement, statement.digests or digests(leaves), roots)

    monkeypatch.setattr("hauberk.records.statement.check_statement", careless)
    rewrite(partial, SIGNER, another)
    assert verify(partial, LISTED).signed == 5


# pruning


class Claiming(SqliteStore):
    """A database whose index shows a record of a pruning that is nowhere in the log."""

    def stream(
        self, log: str, stream: str, *, above: int = 0, below: int = END, limit: int = 1000, backward: bool = False
    ) -> Iterator[Entry]:
        yield from super().stream(log, stream, above=above, below=below, limit=limit, backward=backward)
        if stream == RETENTION and not above:
            like = next(super().entries(log, after=700 - 1, limit=1))
            yield replace(like, public=msgspec.json.encode(pruning([*range(256), 300]).data), version=2)


def claimed(path: Path) -> int:
    with closing(Claiming(path)) as store:
        return verify_store(store, KEY).pruned


def test_a_claim_of_a_pruning_that_the_walk_never_meets_allows_nothing(tmp_path: Path) -> None:
    path = pruned_log(tmp_path, before=256)
    assert claimed(path) == 255  # the twin: nothing is missing but what the log says
    sql(path, "DELETE FROM entry WHERE position = 300")
    with pytest.raises(Tampered) as caught:
        claimed(path)
    assert (caught.value.context["kind"], caught.value.context["position"]) == (Kind.DELETED, 300)


def test_without_comparing_claims_with_what_the_walk_met_the_deleted_entry_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pruned_log(tmp_path, before=256)
    sql(path, "DELETE FROM entry WHERE position = 300")
    monkeypatch.setattr(Positions, "outside", lambda *_: None)
    assert claimed(path) == 256


def last_of_its_stream(path: Path) -> None:
    """The operator declares the one entry of `/streams/b` pruned, which pruning keeps, and takes it away."""
    rewrite(path, SIGNER, declared_gone(14))
    assert verify(path).pruned == 0
    sql(path, "DELETE FROM entry WHERE position = 14")


def test_the_log_cannot_declare_the_last_entry_of_a_stream_pruned(path: Path) -> None:
    last_of_its_stream(path)
    assert found(path) == ("deleted", 14)


def test_without_counting_what_each_stream_lacks_the_end_of_one_can_be_declared_away(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Walk, "_loose", property(lambda _: 0, lambda *_: None), raising=False)
    last_of_its_stream(path)
    assert verify(path).pruned == 1


# the end


def grown(path: Path) -> bytes:
    """Whoever writes the database, without the key: one more entry, tiles and head that fit, the checkpoint of before.

    Return the checkpoint.
    """
    with closing(open_readonly(path)) as store:
        note = store.head(ORIGIN).checkpoint
    rewrite(path, SIGNER, lambda made: renumbered([*made, made_up(made[14])]))
    sql(path, ("UPDATE head SET checkpoint = ?", (note,)))
    return note


def made_up(like: Entry) -> Entry:
    meta, public = encode_event(event(99, stream="/streams/b"))
    return replace(like, meta=meta, public=public, leaf=like.leaf[:1] + b"\0" + like.leaf[2:], statement=b"")


def test_an_entry_behind_the_signed_end_is_found_though_head_and_tiles_count_it(path: Path) -> None:
    grown(path)
    assert found(path) == ("added", 15)


# a key of another log


def test_what_follows_from_a_log_is_not_judged_by_the_key_of_another(path: Path) -> None:
    with closing(open_readonly(path)) as store:
        with pytest.raises(RecordsError) as caught:
            check_log(store, ORIGIN, encode_key("example.org/other", SIGNER.public))
        assert caught.value.code == "HBK-711"
        assert check_log(store, ORIGIN, KEY).agrees  # the twin
