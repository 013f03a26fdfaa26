"""A log of ours as others get it: written by the ledger into SQLite, exported as files, with proofs made by us."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hauberk.crypto.cosignature import Algorithm, CosignerKey
from hauberk.crypto.note import Checkpoint, add_signature, parse_checkpoint, parse_note
from hauberk.crypto.signing import SigningKey
from hauberk.records.tile_export import export_tiles, read_directory
from hauberk.records.tile_paths import CHECKPOINT, TileDirectory
from tests.records.made import ORIGIN, Book, events

FIRST, SIZE = 300, 1_500
POSITIONS = (0, 1, 255, 256, 299, 511, 512, 1_023, 1_024, 1_499)
OLD_SIZES = (1, 2, 255, 256, 257, FIRST, 1_024, 1_499, SIZE)
TIME = 1_790_000_000


class Published(msgspec.Struct, frozen=True):
    """Args: the directory of the files, the log's key, its first checkpoint, and the witnesses that cosigned both."""

    directory: Path
    verifier: str
    earlier: str
    witnesses: tuple[str, ...]

    @property
    def log(self) -> TileDirectory:
        return TileDirectory(read_directory(self.directory))

    @property
    def checkpoint(self) -> Checkpoint:
        return parse_checkpoint(parse_note(self.log.checkpoint()).text)

    def leaf(self, position: int) -> bytes:
        return next(self.log.leaves(SIZE, position))

    def claims(self, positions: Sequence[int] = POSITIONS, sizes: Sequence[int] = OLD_SIZES) -> str:
        """Our own proofs, as JSON."""
        tree = self.log.tree(SIZE)
        inclusion = [{"Index": at, "Path": encoded(tree.inclusion(at, SIZE))} for at in positions]
        consistency = [
            {"Old": old, "Root": encoded([tree.root(old)])[0], "Proof": encoded(tree.consistency(old, SIZE))}
            for old in sizes
        ]
        return json.dumps({"Inclusion": inclusion, "Consistency": consistency})


def encoded(hashes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(part).decode() for part in hashes]


def publish(folder: Path) -> Published:
    """Write a log in two steps and export it each time; the checkpoints carry a cosignature of each kind."""
    witnesses = [CosignerKey("w.example/ed25519", Algorithm.ED25519, bytes(range(32)))]
    witnesses.append(CosignerKey("w.example/ml-dsa-44", Algorithm.ML_DSA_44, bytes(range(32))))
    book = Book(folder, SigningKey(bytes(range(1, 33))))
    target = folder / "files"
    earlier = ""
    try:
        for size in (FIRST, SIZE):
            start = 0 if size == FIRST else FIRST
            for at in range(start, size, 100):
                book.write(*events(min(100, size - at)))
            export_tiles(book.store, ORIGIN, target)
            note = book.ledger.checkpoint()
            for witness in witnesses:
                note = add_signature(note, witness.cosign(parse_note(note).text, TIME))
            (target / CHECKPOINT).write_text(note, "utf-8")
            earlier = earlier or note
        return Published(target, book.ledger.verifier, earlier, tuple(one.verifier for one in witnesses))
    finally:
        book.close()


def spoil(published: Published, path: str, folder: Path, at: int = 5) -> Path:
    """Copy the files and change one bit of one of them."""
    copy = folder / "spoilt"
    for file in published.directory.rglob("*"):
        if file.is_file():
            other = copy / file.relative_to(published.directory)
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(file.read_bytes())
    data = bytearray((copy / path).read_bytes())
    data[at] ^= 1
    (copy / path).write_bytes(data)
    return copy
