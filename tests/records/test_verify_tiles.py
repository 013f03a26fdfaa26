"""A log as it is served: what is wrong with its files is found with its key alone."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from hauberk.adapters.sqlite import open_readonly
from hauberk.crypto.note import Checkpoint, encode_key, sign_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import ConfigError, RecordsError, Tampered
from hauberk.records.tile_export import export_tiles, read_directory, read_store
from hauberk.records.tile_paths import ENTRIES, TileDirectory, TilePath, decode_bundle, encode_bundle
from hauberk.records.verify import Anchors, VerifyReport, verify_tiles
from tests.records.forger import leafed, rewrite
from tests.records.made import ORIGIN
from tests.records.test_verify import KEY, SIGNER, checkpoint, mixed, rebuilt, sql

SIZE = 700  # two complete tiles and a part


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rebuilt(tmp_path_factory.mktemp("log") / "log", mixed(SIZE))


@pytest.fixture(scope="module")
def exported(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(database, tmp_path_factory.mktemp("tiles") / "log")


def export(database: Path, directory: Path) -> Path:
    store = open_readonly(database)
    try:
        export_tiles(store, ORIGIN, directory)
    finally:
        store.close()
    return directory


@pytest.fixture
def tiles(exported: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(copytree(exported, tmp_path / "log"))


def verify(directory: Path, key: str = KEY, anchors: Anchors | None = None) -> VerifyReport:
    return verify_tiles(TileDirectory(read_directory(directory)), key, anchors=anchors or Anchors())


def found(directory: Path, key: str = KEY, anchors: Anchors | None = None) -> tuple[str, object, object]:
    with pytest.raises(Tampered) as caught:
        verify(directory, key, anchors)
    return caught.value.code, caught.value.context["kind"], caught.value.context["position"]


def test_an_honest_log_is_verified_from_its_files(tiles: Path, database: Path) -> None:
    done = []
    reader = TileDirectory(read_directory(tiles))
    report = verify_tiles(reader, KEY, told=lambda at, size: done.append((at, size)))
    assert (report.origin, report.size, report.pruned) == (ORIGIN, SIZE, 0)
    assert done == [(256, SIZE), (512, SIZE), (SIZE, SIZE)]
    known = Anchors(checkpoints=(checkpoint(database),))
    assert verify(tiles, anchors=known).anchors[0].size == SIZE
    store = open_readonly(database)
    assert verify_tiles(TileDirectory(read_store(store, ORIGIN)), KEY) == report
    store.close()


def flip(path: str, at: int) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        data = bytearray((directory / path).read_bytes())
        data[at] ^= 1
        (directory / path).write_bytes(data)

    return change


def bundle(index: int, change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        path = directory / TilePath.of(ENTRIES, index, SIZE).encode()
        path.write_bytes(encode_bundle(change(decode_bundle(path.read_bytes()))))

    return spoil


def without(path: str) -> Callable[[Path], None]:
    return lambda directory: (directory / path).unlink()


def cut(path: str, size: int) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (directory / path).write_bytes((directory / path).read_bytes()[:size])

    return change


def swapped(leaves: list[bytes]) -> list[bytes]:
    return [*leaves[:7], leaves[8], leaves[7], *leaves[9:]]


SPOILED: dict[str, tuple[Callable[[Path], None], str, int]] = {
    "a leaf hash": (flip("tile/0/001", 5 * 32), "edited", 261),
    "a leaf hash of the last tile": (flip("tile/0/002.p/188", 3 * 32), "edited", 515),
    "a hash above": (flip("tile/1/000.p/2", 40), "tile", 256),
    "a tile is gone": (without("tile/0/001"), "tile", 256),
    "a tile is cut": (cut("tile/0/001", 320), "tile", 256),
    "the tile above is gone": (without("tile/1/000.p/2"), "tile", 0),
    "a leaf": (bundle(0, lambda leaves: [*leaves[:9], b"\x01" + bytes(153), *leaves[10:]]), "edited", 9),
    "two leaves change places": (bundle(1, swapped), "edited", 263),
    "a leaf is left out": (bundle(1, lambda leaves: leaves[:-1]), "unreadable", 256),
    "a bundle ends in the middle": (cut("tile/entries/000", 1_000), "unreadable", 0),
    "the signature": (lambda directory: _resign(directory, SigningKey.generate()), "re-signed", 0),
    "the root": (lambda directory: _resign(directory, SIGNER), "rewritten", SIZE - 1),
}


def _resign(directory: Path, signer: SigningKey) -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, SIZE, bytes(32)), signer)
    (directory / "checkpoint").write_text(note, "utf-8")


@pytest.mark.parametrize("name", SPOILED)
def test_what_was_done_to_the_files_is_found(tiles: Path, name: str) -> None:
    spoil, kind, position = SPOILED[name]
    verify(tiles)
    spoil(tiles)
    assert found(tiles) == ("HBK-710", kind, position)


def test_a_bundle_that_is_not_served_is_counted_and_no_finding(tiles: Path) -> None:
    without("tile/entries/001")(tiles)
    assert verify(tiles).pruned == 256


def test_a_leaf_of_another_position_that_the_log_signed_is_found(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "log.db"
    copy.write_bytes(database.read_bytes())
    rewrite(copy, SIGNER, lambda entries: [*entries[:9], leafed(entries[9], 9, 4, position=3), *entries[10:]])
    assert found(export(copy, tmp_path / "moved")) == ("HBK-710", "relocated", 9)
    rewrite(copy, SIGNER, lambda entries: [*entries[:9], leafed(entries[9], 9, 4, flags=8), *entries[10:]])
    (tmp_path / "moved" / "checkpoint").unlink()
    assert found(export(copy, tmp_path / "flagged")) == ("HBK-710", "unreadable", 9)


def test_anchors_find_what_the_files_alone_do_not(tiles: Path, tmp_path: Path) -> None:
    late = (tiles / "checkpoint").read_text("utf-8")
    other = rebuilt(tmp_path / "other", mixed(SIZE + 9))
    rewritten = export(other, tmp_path / "rewritten")
    verify(rewritten)  # the twin
    assert found(rewritten, anchors=Anchors(checkpoints=(late,))) == ("HBK-710", "rewritten", SIZE - 1)
    older = export(rebuilt(tmp_path / "older", mixed(300)), tmp_path / "old")
    verify(older)  # the twin
    assert found(older, anchors=Anchors(mark=late)) == ("HBK-713", "rolled-back", 300)


def test_a_key_of_another_epoch_or_log_is_refused(database: Path, tiles: Path, tmp_path: Path) -> None:
    assert found(tiles, encode_key(f"{ORIGIN}/epoch-1", SIGNER.public)) == ("HBK-713", "rolled-back", SIZE)
    assert found(tiles, encode_key("example.com/ledger", SIGNER.public))[1] == "re-signed"
    copy = tmp_path / "log.db"
    copy.write_bytes(database.read_bytes())
    rewrite(copy, SIGNER, lambda entries: entries, epoch=2)
    later = export(copy, tmp_path / "later")
    assert verify(later).origin == f"{ORIGIN}/epoch-2"
    assert verify(later, encode_key(f"{ORIGIN}/epoch-2", SIGNER.public)).size == SIZE
    with pytest.raises(RecordsError) as caught:
        verify(later, encode_key(f"{ORIGIN}/epoch-1", SIGNER.public))
    assert (caught.value.code, caught.value.context["kind"]) == ("HBK-711", "wrong-key")


def test_what_the_reader_says_about_itself_is_no_finding(tiles: Path) -> None:
    inner = read_directory(tiles)

    def unreachable(path: str) -> bytes:
        if path.startswith("tile/0/001"):
            raise ConfigError("HBK-902", "no answer")
        return inner(path)

    with pytest.raises(ConfigError):
        verify_tiles(TileDirectory(unreachable), KEY)


def test_an_empty_database_serves_nothing_to_verify(tmp_path: Path) -> None:
    path = rebuilt(tmp_path / "log", mixed(3))
    sql(path, "DELETE FROM head")
    store = open_readonly(path)
    with pytest.raises(RecordsError) as caught:
        verify_tiles(TileDirectory(read_store(store, ORIGIN)), KEY)
    assert caught.value.code == "HBK-707"
    store.close()
