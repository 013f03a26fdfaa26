"""What it takes something from elsewhere to find, and that it is not found without."""

from pathlib import Path

import pytest

from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.ports import Put, Write
from hauberk.crypto.cosignature import Algorithm, CosignerKey
from hauberk.crypto.merkle import EMPTY_ROOT
from hauberk.crypto.note import Checkpoint, LogKey, add_signature, parse_note, sign_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import NotCosigned, RecordsError, Tampered
from hauberk.records.heads import split_name
from hauberk.records.log_policy import Group, LogPolicy, Witness
from hauberk.records.verify import Anchors, VerifyReport, verify_since, verify_store
from hauberk.records.verify.anchors import Named
from tests.records.made import ORIGIN
from tests.records.test_verify import KEY, SIGNER, SIZE, checkpoint, mixed, rebuilt

WITNESSES = [CosignerKey(f"w.example/{at}", Algorithm.ED25519, bytes([at] * 32)) for at in range(3)]
POLICY = LogPolicy(
    witnesses=[Witness(f"w{at}", key.public) for at, key in enumerate(WITNESSES)],
    groups=[Group("two", 2, ("w0", "w1", "w2"))],
    quorum="two",
)
TIME = 1_800_000_000


def cosigned(note: str, *by: int, time: int = TIME) -> str:
    for at in by:
        note = add_signature(note, WITNESSES[at].cosign(parse_note(note).text, time))
    return note


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rebuilt(tmp_path_factory.mktemp("log") / "log", mixed(SIZE))


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rebuilt(tmp_path_factory.mktemp("log") / "older", mixed(100))


def verify(path: Path, anchors: Anchors) -> VerifyReport:
    store = open_readonly(path)
    try:
        return verify_store(store, KEY, anchors=anchors)
    finally:
        store.close()


def found(path: Path, anchors: Anchors) -> tuple[str, object, object]:
    with pytest.raises((Tampered, NotCosigned)) as caught:
        verify(path, anchors)
    return caught.value.code, caught.value.context["kind"], caught.value.context["position"]


def test_several_checkpoints_are_met_on_one_way(path: Path) -> None:
    store = open_readonly(path)
    try:
        state = verify_since(store, KEY, None)[1]
    finally:
        store.close()
    empty = sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), SIGNER)
    anchors = Anchors(checkpoints=(state.note, empty), mark=checkpoint(path))
    met = [(one.source, one.size) for one in verify(path, anchors).anchors]
    assert met == [("checkpoint", 0), ("checkpoint", SIZE), ("mark", SIZE)]


def test_a_database_that_was_put_back_is_found_by_the_mark(path: Path, older: Path) -> None:
    assert found(older, Anchors(mark=checkpoint(path))) == ("HBK-713", "rolled-back", 100)
    assert verify(older, Anchors()).size == 100  # the twin
    assert found(older, Anchors(mark="")) == ("HBK-713", "rolled-back", 100)


def test_a_database_that_was_wiped_is_found_with_and_without_a_mark(path: Path, tmp_path: Path) -> None:
    SqliteStore(tmp_path / "empty.db").close()
    assert found(tmp_path / "empty.db", Anchors(mark="")) == ("HBK-710", "deleted", 0)
    assert found(tmp_path / "empty.db", Anchors(mark=checkpoint(path))) == ("HBK-713", "rolled-back", 0)


def test_a_history_that_was_rewritten_is_found_by_the_mark(path: Path, tmp_path: Path) -> None:
    other = rebuilt(tmp_path / "other", mixed(SIZE + 5))
    assert found(other, Anchors(mark=checkpoint(path))) == ("HBK-710", "rewritten", SIZE - 1)


def test_a_mark_of_another_key_is_refused(path: Path) -> None:
    foreign = sign_checkpoint(Checkpoint(ORIGIN, 1, bytes(32)), SigningKey.generate())
    with pytest.raises(RecordsError) as caught:
        verify(path, Anchors(mark=foreign))
    assert caught.value.code == "HBK-711"


def test_a_quorum_of_witnesses_is_reported_with_its_times(path: Path) -> None:
    note = cosigned(checkpoint(path), 0, 2)
    met, _ = verify(path, Anchors(checkpoints=(note,), policy=POLICY)).anchors
    assert (met.source, met.size, met.cosigned) == ("witnesses", SIZE, {"w0": TIME, "w2": TIME})


@pytest.mark.parametrize("by", [(), (1,)])
def test_without_the_quorum_it_is_no_checkpoint_of_witnesses(path: Path, by: tuple[int, ...]) -> None:
    note = cosigned(checkpoint(path), *by)
    anchors = Anchors(checkpoints=(note,), policy=POLICY)
    assert found(path, anchors) == ("HBK-720", "not-cosigned", 0)
    assert verify(path, Anchors(checkpoints=(note,))).size == SIZE  # the twin: nobody asked for witnesses


def test_a_forged_cosignature_counts_for_nothing(path: Path) -> None:
    thief = CosignerKey("w.example/1", Algorithm.ED25519, bytes(32))
    note = cosigned(checkpoint(path), 0)
    note = add_signature(note, thief.cosign(parse_note(note).text, TIME))
    assert found(path, Anchors(checkpoints=(note,), policy=POLICY))[1] == "not-cosigned"


def test_two_views_of_one_log_are_found_by_a_witness_both_readers_share(path: Path, tmp_path: Path) -> None:
    """Each reader gets a log that is perfect in itself. Only one of them is the one that witnesses saw."""
    other = rebuilt(tmp_path / "other", mixed(SIZE))
    seen = cosigned(checkpoint(path), 0, 1)
    assert verify(path, Anchors(checkpoints=(seen,), policy=POLICY)).size == SIZE
    assert verify(other, Anchors()).size == SIZE  # the twin
    anchors = Anchors(policy=POLICY)
    store = SqliteStore(other)
    store.commit(Write(rows=[Put("cosigned", ORIGIN.encode(), seen.encode())]))
    store.close()
    assert found(other, anchors) == ("HBK-710", "split-view", SIZE - 1)


def test_a_log_shorter_than_what_witnesses_saw_was_put_back(path: Path, older: Path) -> None:
    seen = cosigned(checkpoint(path), 0, 1)
    assert found(older, Anchors(checkpoints=(seen,), policy=POLICY)) == ("HBK-713", "rolled-back", 100)


def test_the_newest_of_several_cosigned_checkpoints_counts(path: Path, older: Path) -> None:
    old, new = cosigned(checkpoint(older), 0, 1), cosigned(checkpoint(path), 0, 1)
    assert found(older, Anchors(checkpoints=(old, new), policy=POLICY))[1] == "rolled-back"


@pytest.mark.parametrize("tag", [b"", b"t" * 32], ids=["plain", "behind the tag of an authenticated row"])
def test_the_cosigned_checkpoint_that_the_store_keeps_is_used(tmp_path: Path, tag: bytes) -> None:
    path = rebuilt(tmp_path / "log", mixed(20))
    store = SqliteStore(path)
    note = cosigned(checkpoint(path), 1, 2)
    store.commit(Write(rows=[Put("cosigned", ORIGIN.encode(), tag + note.encode())]))
    try:
        assert verify_store(store, KEY, anchors=Anchors(policy=POLICY)).anchors[0].size == 20
    finally:
        store.close()


def test_an_old_database_with_its_old_cosignatures_is_found_by_their_age(older: Path) -> None:
    """It shows the quorum it had then. Only the time of the cosignatures tells that there must be newer ones."""
    seen = cosigned(checkpoint(older), 0, 1)
    assert verify(older, Anchors(checkpoints=(seen,), policy=POLICY)).size == 100  # the twin
    stale = Anchors(checkpoints=(seen,), policy=POLICY, not_before=TIME + 1)
    assert found(older, stale) == ("HBK-720", "not-cosigned", 0)
    assert verify(older, Anchors(checkpoints=(seen,), policy=POLICY, not_before=TIME)).size == 100


@pytest.mark.parametrize(("origin", "epoch"), [(ORIGIN, 0), (f"{ORIGIN}/epoch-1", 1), (f"{ORIGIN}/epoch-12", 12)])
def test_the_epoch_of_a_checkpoint_is_in_its_name(origin: str, epoch: int) -> None:
    named = Named(ORIGIN, SIGNER.public, None)
    assert named.epoch_of(origin) == epoch
    assert named.origin(epoch) == origin


@pytest.mark.parametrize(
    "origin",
    ["example.com/ledger", f"{ORIGIN}/epoch-0", f"{ORIGIN}/epoch-01", f"{ORIGIN}/epoch-", f"{ORIGIN}/epoch-1/2"],
)
def test_a_checkpoint_of_another_log_has_no_epoch_of_this_one(origin: str) -> None:
    with pytest.raises(RecordsError):
        Named(ORIGIN, SIGNER.public, None).epoch_of(origin)
    assert split_name(ORIGIN) == (ORIGIN, None)
    assert LogKey.parse(KEY).name == ORIGIN
