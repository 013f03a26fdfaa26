"""Our log under the Go authors' own verifier: signature, every leaf through the tiles, and proofs of both sides."""

import json
import subprocess
from pathlib import Path

import pytest

from hauberk.crypto.cosignature import Algorithm, CosignerKey
from hauberk.crypto.note import encode_key
from hauberk.crypto.signing import SigningKey
from tests.interop.published_log import OLD_SIZES, POSITIONS, SIZE, Published, encoded, publish, spoil
from tests.records.made import ORIGIN
from tests.support.oracles import go_checker


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("log"))


def verify(directory: Path, verifier: str, claims: str, *cosigners: str) -> tuple[int, str]:
    command = [str(go_checker()), str(directory), verifier, *cosigners]
    done = subprocess.run(command, input=claims, capture_output=True, text=True, timeout=60, check=False)
    assert "panic" not in done.stderr
    return done.returncode, done.stdout.strip()


def test_go_verifies_our_log_and_our_proofs(log: Published) -> None:
    root = encoded([log.checkpoint.root])[0]
    expected = f"verified {SIZE} {root} {len(POSITIONS)} {len(OLD_SIZES)}"
    assert verify(log.directory, log.verifier, log.claims()) == (0, expected)


def test_go_verifies_our_cosignatures_of_both_kinds(log: Published) -> None:
    assert verify(log.directory, log.verifier, log.claims((), ()), *log.witnesses)[0] == 0
    for algorithm, honest in zip(Algorithm, log.witnesses, strict=True):
        other = CosignerKey.generate(honest.split("+")[0], algorithm).public
        same_id = f"{other.name}+{honest.split('+')[1]}+{other.vkey.split('+', 2)[2]}"
        said = verify(log.directory, log.verifier, log.claims((), ()), same_id)[1]
        assert said.startswith("signature: invalid signature")
        assert verify(log.directory, log.verifier, log.claims((), ()), other.vkey)[1].startswith("who signed")


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("checkpoint", "signature"),
        ("tile/0/000", "tiles"),
        ("tile/0/005.p/220", "tiles"),
        ("tile/1/000.p/5", "tiles"),
        ("tile/entries/002", "leaf"),
        ("tile/entries/005.p/220", "leaf"),
    ],
)
def test_go_refuses_our_log_with_one_bit_changed(log: Published, path: str, what: str, tmp_path: Path) -> None:
    code, said = verify(spoil(log, path, tmp_path), log.verifier, log.claims((), ()))
    assert code == 1
    assert said.startswith(what)


def test_go_refuses_another_key(log: Published) -> None:
    other = encode_key(ORIGIN, SigningKey.generate().public)
    assert verify(log.directory, other, log.claims((), ()))[1].startswith("signature")


def test_go_refuses_proofs_that_are_wrong(log: Published) -> None:
    honest = json.loads(log.claims())
    for kind, part, what in (("Inclusion", "Path", "inclusion"), ("Consistency", "Proof", "consistency")):
        claims = json.loads(log.claims())
        claims[kind][4][part][0] = encoded([bytes(32)])[0]
        assert claims != honest
        code, said = verify(log.directory, log.verifier, json.dumps(claims))
        assert (code, said.split(":")[0]) == (1, what)
    claims = json.loads(log.claims())
    claims["Consistency"][0]["Root"] = encoded([bytes(32)])[0]
    assert verify(log.directory, log.verifier, json.dumps(claims))[1].startswith("the old root")
