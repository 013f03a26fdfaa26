"""Our log under `aics-tlog`, an independent verifier in Python, and its tiles under our reader."""

import base64
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from hauberk.crypto.cosignature import Algorithm, CosignerKey
from hauberk.crypto.merkle import Frontier, leaf_hash
from hauberk.crypto.note import encode_key, parse_checkpoint, parse_note
from hauberk.crypto.signing import SigningKey
from hauberk.records.tile_export import read_directory
from hauberk.records.tile_paths import TileDirectory, frontier_of
from tests.interop.published_log import FIRST, SIZE, Published, encoded, publish, spoil
from tests.records.made import ORIGIN
from tests.support.oracles import aics

POSITION = 777


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("log"))


def run(*arguments: object) -> tuple[int, Mapping[str, object]]:
    """Run the verifier: its exit code, and what it says."""
    command = [str(aics("aics-tlog")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = json.loads(done.stdout or "{}")
    assert isinstance(said, dict)
    assert "Traceback" not in done.stderr
    return done.returncode, said


def common(log: Published, directory: Path | None = None) -> list[object]:
    return ["--tiles", directory or log.directory, "--log-key", log.verifier, "--origin", ORIGIN]


def test_it_verifies_our_checkpoint_and_the_cosignature_of_our_witness(log: Published) -> None:
    code, said = run("verify-checkpoint", *common(log), "--witness-key", log.witnesses[0], "--quorum", 1)
    assert (code, said["ok"], said["tiles_ok"], said["witnesses"]) == (0, True, True, ["w.example/ed25519"])
    assert (said["size"], said["root"]) == (SIZE, encoded([log.checkpoint.root])[0])


def test_it_verifies_our_leaf_through_the_tiles(log: Published, tmp_path: Path) -> None:
    (tmp_path / "leaf").write_bytes(log.leaf(POSITION))
    code, said = run("verify-inclusion", *common(log), "--leaf", tmp_path / "leaf", "--index", POSITION)
    assert (code, said["leaf_hash"]) == (0, leaf_hash(log.leaf(POSITION)).hex())


def test_it_verifies_our_own_proofs(log: Published, tmp_path: Path) -> None:
    tree, checkpoint = log.log.tree(SIZE), log.checkpoint
    (tmp_path / "leaf").write_bytes(log.leaf(POSITION))
    (tmp_path / "path").write_text("\n".join(encoded(tree.inclusion(POSITION, SIZE))) + "\n")
    (tmp_path / "growth").write_text("\n".join(encoded(tree.consistency(FIRST, SIZE))) + "\n")
    old, new = encoded([tree.root(FIRST), checkpoint.root])
    leaf = ["--leaf", tmp_path / "leaf", "--index", POSITION, "--proof", tmp_path / "path"]
    sizes = ["--old-size", FIRST, "--new-size", SIZE, "--old-root", old, "--proof", tmp_path / "growth"]
    assert run("verify-inclusion", *leaf, "--size", SIZE, "--root", new)[0] == 0
    assert run("verify-consistency", *sizes, "--new-root", new)[0] == 0
    assert run("verify-inclusion", *leaf, "--size", SIZE, "--root", old)[0] != 0
    assert run("verify-consistency", *sizes, "--new-root", old)[0] != 0


def test_it_verifies_that_our_log_only_grew(log: Published, tmp_path: Path) -> None:
    (tmp_path / "earlier").write_text(log.earlier)
    code, said = run("verify-consistency", *common(log), "--old-checkpoint", tmp_path / "earlier")
    root = encoded([parse_checkpoint(parse_note(log.earlier).text).root])[0]
    assert (code, said["old_size"], said["old_root"], said["new_size"]) == (0, FIRST, root, SIZE)


def test_it_verifies_a_bundle_of_ours_offline(log: Published, tmp_path: Path) -> None:
    def unpadded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    bundle = {
        "entry_bytes": unpadded(log.leaf(POSITION)),
        "index": POSITION,
        "inclusion_proof": encoded(log.log.tree(SIZE).inclusion(POSITION, SIZE)),
        "checkpoint_note": unpadded(log.log.checkpoint().encode()),
        "envelope": None,
        "body_or_ct": None,
    }
    for index, expected in ((POSITION, True), (POSITION + 1, False)):
        (tmp_path / "bundle").write_text(json.dumps({**bundle, "index": index}))
        code, said = run("verify-bundle", "--offline", "--bundle", tmp_path / "bundle", "--log-key", log.verifier)
        assert (code == 0, said.get("ok", False)) == (expected, expected)


@pytest.mark.parametrize("path", ["checkpoint", "tile/0/003", "tile/0/005.p/220", "tile/1/000.p/5"])
def test_it_refuses_our_log_with_one_bit_changed(log: Published, path: str, tmp_path: Path) -> None:
    (tmp_path / "leaf").write_bytes(log.leaf(POSITION))
    spoilt = common(log, spoil(log, path, tmp_path))
    assert run("verify-inclusion", *spoilt, "--leaf", tmp_path / "leaf", "--index", POSITION)[0] != 0


def test_it_refuses_another_key_a_missing_quorum_and_a_fork(log: Published, tmp_path: Path) -> None:
    other = encode_key(ORIGIN, SigningKey.generate().public)
    assert run("verify-checkpoint", "--tiles", log.directory, "--log-key", other)[0] != 0
    stranger = CosignerKey.generate("w.example/ed25519", Algorithm.ED25519).verifier
    assert run("verify-checkpoint", *common(log), "--witness-key", stranger, "--quorum", 1)[0] != 0
    fork = publish(tmp_path)
    (tmp_path / "earlier").write_text(log.earlier)
    assert fork.verifier == log.verifier
    assert run("verify-consistency", *common(fork), "--old-checkpoint", tmp_path / "earlier")[0] != 0


def test_the_tiles_it_builds_are_read_by_our_reader(tmp_path: Path) -> None:
    leaves = [f"leaf number {at}".encode() for at in range(SIZE)]
    (tmp_path / "leaves").write_bytes(b"\n".join(leaves) + b"\n")
    assert run("build-tiles", "--leaves", tmp_path / "leaves", "--out", tmp_path / "files")[0] == 0
    files = TileDirectory(read_directory(tmp_path / "files"))
    frontier = Frontier()
    frontier.extend(map(leaf_hash, leaves))
    assert list(files.leaves(SIZE)) == leaves
    assert list(files.leaf_hashes(SIZE)) == list(map(leaf_hash, leaves))
    assert frontier_of(files.tree(SIZE), SIZE).encode() == frontier.encode()
