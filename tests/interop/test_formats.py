"""The cases that transparency-dev/formats checks its own parsers with, by meaning, against ours.

Keys and signed texts are those its authors published (`published.json`). Where ours answers otherwise the row says so:
C2SP asks for more than that library does, or leaves a kind of key out.
"""

import base64
import json
from hashlib import sha256
from pathlib import Path

import pytest

from hauberk.crypto.cosignature import Algorithm, Cosigner, CosignerKey
from hauberk.crypto.merkle import verify_consistency
from hauberk.crypto.note import (
    Checkpoint,
    LogKey,
    add_signature,
    decode_key,
    encode_key,
    parse_checkpoint,
    parse_note,
    parse_signature,
    sign,
    signed_by,
    verify,
)
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError
from hauberk.records.log_policy import LogPolicy, examine
from hauberk.records.receipt import TlogProof
from hauberk.records.witness_wire import origin_hash
from tests.core.refusal import refuses

PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text("utf-8"))
NOTES, SEEDS, KEYS = PUBLISHED["notes"], PUBLISHED["seeds"], PUBLISHED["cosigner_keys"]
ROOT = base64.b64encode(bytes(range(32))).decode()
TEXT = "test\n123\nf+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=\n"
HASHES = (bytes(range(32)), bytes(32))
HASH_LINES = [base64.b64encode(part).decode() for part in HASHES]


def signing(name: str) -> SigningKey:
    return SigningKey(base64.b64decode(SEEDS[name][1])[1:])


def log_key(name: str) -> LogKey:
    return LogKey(name, signing(name).public)


def cosigner(name: str) -> CosignerKey:
    return CosignerKey(name, Algorithm.ED25519, signing(name).seed())


# Keys


@pytest.mark.parametrize("name", SEEDS)
def test_published_seeds_make_the_published_keys(name: str) -> None:
    key_id, _, public = SEEDS[name]
    vkey = f"{name}+{key_id}+{public}"
    assert log_key(name).vkey == vkey
    assert decode_key(vkey) == (name, signing(name).public)
    assert verify(sign("hello\n", name, signing(name)), name, signing(name).public) == "hello\n"


def test_published_keys_of_cosigners_are_read() -> None:
    assert Cosigner.parse(KEYS["ed25519"]).vkey == KEYS["ed25519"]


def test_the_published_ml_dsa_key_is_read_under_the_id_it_must_have() -> None:
    """Its authors do not compare the id with the key, and it does not fit; C2SP: it MUST be computed from the key."""
    name, _, material = KEYS["ml-dsa-44"].split("+", 2)
    with refuses("HBK-711"):
        Cosigner.parse(KEYS["ml-dsa-44"])
    key = Cosigner(name, Algorithm.ML_DSA_44, base64.b64decode(material)[1:])
    assert Cosigner.parse(f"{name}+{key.key_id.hex()}+{material}") == key


@pytest.mark.parametrize(
    "kind", ["ecdsa", "two parts", "not base64", "unknown type", "id no number", "another id", "of a log"]
)
def test_what_is_no_key_of_a_cosigner_is_refused(kind: str) -> None:
    """The last is taken over there and turned into a cosigner's; here nobody's key gets a meaning it did not have."""
    with refuses("HBK-711"):
        Cosigner.parse(KEYS[kind])


def test_a_log_key_becomes_a_cosigners_only_when_somebody_says_so() -> None:
    name, key = decode_key(KEYS["of a log"])
    made = Cosigner(name, Algorithm.ED25519, key.raw)
    assert Cosigner.parse(made.vkey) == made
    assert made.key_id != LogKey(name, key).key_id
    by_log = sign(TEXT, "Log", signing("Log"))
    by_cosigner = f"{TEXT}\n{cosigner('Log').cosign(TEXT, 1)}"
    assert signed_by(parse_note(by_log), cosigner("Log").public) is None
    assert signed_by(parse_note(by_cosigner), log_key("Log")) is None


@pytest.mark.parametrize(("kind", "taken"), [("note", True), ("sumdb", True), ("static-ct", False)])
def test_keys_of_logs_are_ed25519(kind: str, taken: bool) -> None:  # noqa: FBT001  # a column of the table
    vkey = PUBLISHED["log_keys"][kind]
    if taken:
        assert encode_key(*decode_key(vkey)) == vkey
    else:
        with refuses("HBK-711"):
            decode_key(vkey)


@pytest.mark.parametrize("name", ["valid", "invalid name", "name-too-long" + "g" * 255])
def test_names_of_ml_dsa_keys(name: str) -> None:
    if name == "valid":
        key = CosignerKey.generate(name)
        assert Cosigner.parse(key.verifier).key_id == key.public.key_id
    else:
        with refuses("HBK-711"):
            CosignerKey.generate(name)


# Cosignatures


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_cosigned_note_opens(algorithm: Algorithm) -> None:
    key = CosignerKey.generate("witness", algorithm)
    note = parse_note(f"{TEXT}\n{key.cosign(TEXT, 7)}")
    assert signed_by(note, Cosigner.parse(key.verifier)) == 7
    with refuses("HBK-711"):
        parse_note("nobbled")


def test_an_ed25519_cosignature_covers_extension_lines() -> None:
    key = CosignerKey.generate("test", Algorithm.ED25519)
    line = key.cosign(TEXT + "Extendo\n", 7)
    with refuses("HBK-711"):
        key.public.verify(TEXT + "Extend@\n", line)


def test_a_published_cosignature_states_its_time_and_a_plain_signature_states_none() -> None:
    stamped = parse_signature(f"— w {PUBLISHED['timestamped']['line']}")
    assert int.from_bytes(stamped.value[:8]) == PUBLISHED["timestamped"]["time"]
    assert len(stamped.value) == 8 + 64
    plain = parse_signature(f"— w {PUBLISHED['timestamped']['without']}")
    with refuses("HBK-711"):
        cosigner("Known").public.check(TEXT, plain.value)
    with refuses("HBK-711"):
        parse_signature("— w 5%/$!\n 2")


@pytest.mark.parametrize(("name", "origin"), [("w", "t" * 256), ("w" * 256, "test")])
def test_names_in_what_ml_dsa_signs_have_a_length_of_one_byte(name: str, origin: str) -> None:
    assert CosignerKey.generate("w").cosign(Checkpoint("test", 0, bytes(32)).text(), 1)
    with refuses("HBK-711"):
        CosignerKey.generate(name).cosign(Checkpoint(origin, 0, bytes(32)).text(), 1)


# Checkpoints


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (f"Log\n123\n{ROOT}\n", 123),
        (f"Banana\n9944\n{ROOT}\n", 9944),
        (f"Log\n9944\n{ROOT}\nHere's some associated data.\n", 9944),
        (f"Log\n9944\n{ROOT}\nlots\nof\nlines\n", 9944),
        (f"Log\n9944\n{ROOT}\n\n\n\n", None),  # read over there; C2SP: extension lines are not empty
        ("Head\n9944\n", None),
        (f"\n9944\n{ROOT}\n", None),
        (f"Log\n123\n{ROOT}", None),
        (f"Log\nbananas\n{ROOT}\n", None),
        (f"Log\n-34\n{ROOT}\n", None),
        (f"Log\n3438945738945739845734895735\n{ROOT}\n", None),
        ("Log\n123\nThisIsn'tBase64\n", None),
        ("Log\n123\nYmFuYW5hcw==\n", None),  # read over there; RFC 6962: a root is a SHA-256
    ],
)
def test_checkpoints(text: str, size: int | None) -> None:
    if size is None:
        with refuses("HBK-711"):
            parse_checkpoint(text)
    else:
        assert parse_checkpoint(text) == Checkpoint(text.split("\n", maxsplit=1)[0], size, bytes(range(32)))


BODY = Checkpoint("TestParseCheckpoint", 42, bytes(32)).text()


@pytest.mark.parametrize(
    ("origin", "body", "signers", "counted"),
    [
        ("TestParseCheckpoint", BODY, [], None),
        ("TestParseCheckpoint", BODY, ["Log"], 1),
        ("TestParseCheckpoint", "if this is a valid checkpoint then I'll eat my hat\n", ["Log"], None),
        ("TestParseCheckpoint", BODY, ["Log", "Known"], 2),
        ("TestParseCheckpoint", BODY, ["Log", "KnownAgain"], 2),
        ("TestParseCheckpoint", BODY, ["Log", "Known", "Unknown"], 2),
        ("TestParseCheckpoint", BODY, ["Log", "Known", "KnownAgain"], 3),
        ("TestParseCheckpoint", BODY, ["Log", "Known", "KnownAgain", "Unknown"], 3),
        ("TestParseCheckpoint", BODY, ["Known", "KnownAgain"], None),
        ("this is not the logID you are looking for", BODY, ["Log", "Known", "KnownAgain", "Unknown"], None),
    ],
)
def test_who_signed_a_checkpoint(origin: str, body: str, signers: list[str], counted: int | None) -> None:
    text = body + "\n" + "".join(sign(body, name, signing(name)).removeprefix(body + "\n") for name in signers)

    def read() -> int:
        note = parse_note(text)
        checkpoint = parse_checkpoint(note.text)
        if checkpoint.origin != origin or signed_by(note, log_key("Log")) is None:
            raise RecordsError("HBK-711")
        known = [log_key(name) for name in ("Log", "Known", "KnownAgain")]
        return sum(signed_by(note, key) is not None for key in known)

    if counted is None:
        with refuses("HBK-711"):
            read()
    else:
        assert read() == counted


def test_the_checkpoint_of_the_go_checksum_database_is_read() -> None:
    note = parse_note(NOTES["sumdb"])
    assert signed_by(note, LogKey.parse(PUBLISHED["log_keys"]["sumdb"])) == 0
    assert parse_checkpoint(note.text).size == 6_476_701
    with refuses("HBK-711"):  # its key is not named after the log, which a policy asks for
        examine(NOTES["sumdb"], LogPolicy.parse(f"log {PUBLISHED['log_keys']['sumdb']}\nquorum none\n".encode()))


@pytest.mark.parametrize("kind", ["ecdsa", "static-ct"])
def test_signatures_of_other_types_are_lines_of_strangers(kind: str) -> None:
    note = parse_note(NOTES[kind])
    name = note.signatures[0].name
    ours = add_signature(NOTES[kind], sign(note.text, name, signing("Log")).split("\n")[-2])
    assert len(parse_note(ours).signatures) == 2
    assert verify(ours, name, signing("Log").public) == note.text
    with refuses("HBK-711"):
        verify(NOTES[kind], name, signing("Log").public)


@pytest.mark.parametrize("origin", PUBLISHED["origins"])
def test_ids_of_origins(origin: str) -> None:
    """Distributors there hash the origin behind `o:`; C2SP's monitors of a witness ask for the hash of the origin."""
    assert origin_hash(f"o:{origin}") == PUBLISHED["origins"][origin]
    assert origin_hash(origin) == sha256(origin.encode()).hexdigest()


# Proofs


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (
            TlogProof(5, HASHES, "test checkpoint\n"),
            "c2sp.org/tlog-proof@v1\nindex 5\n{0}\n{1}\n\ntest checkpoint\n",
        ),
        (
            TlogProof(10, HASHES[:1], "checkpoint data\n", b"extra information"),
            "c2sp.org/tlog-proof@v1\nextra ZXh0cmEgaW5mb3JtYXRpb24=\nindex 10\n{0}\n\ncheckpoint data\n",
        ),
        (TlogProof(0, (), "checkpoint\n"), "c2sp.org/tlog-proof@v1\nindex 0\n\ncheckpoint\n"),
        (
            TlogProof(123, HASHES, "some checkpoint\n"),
            "c2sp.org/tlog-proof@v1\nindex 123\n{0}\n{1}\n\nsome checkpoint\n",
        ),
        (
            TlogProof(456, HASHES[1:], "another checkpoint\n", b"some extra data"),
            "c2sp.org/tlog-proof@v1\nextra c29tZSBleHRyYSBkYXRh\nindex 456\n{1}\n\nanother checkpoint\n",
        ),
        (TlogProof(789, (), "checkpoint\n"), "c2sp.org/tlog-proof@v1\nindex 789\n\ncheckpoint\n"),
    ],
)
def test_proofs_are_written_and_read(made: TlogProof, text: str) -> None:
    assert made.encode() == text.format(*HASH_LINES)
    assert TlogProof.parse(text.format(*HASH_LINES)) == made


@pytest.mark.parametrize(
    "text",
    [
        "wrong-header\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nextra !!notbase64!!\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\n\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex notanumber\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex -5\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n!!notbase64!!\n\ncheckpoint\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{base64.b64encode(bytes(64)).decode()}\n\ncheckpoint\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{'a' * 65 * 1024}\n",
    ],
)
def test_proofs_that_are_none(text: str) -> None:
    with refuses("HBK-712"):
        TlogProof.parse(text)


# Policies

W1, W2, W3 = (f"witness w{at} {cosigner(f'Wit{at}').verifier} https://w{at}.example/" for at in (1, 2, 3))
WITNESSES = f"{W1}\n{W2}\n{W3}\n"


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        (f"\n{W1}\n{W2}\ngroup g1 all w1 w2\nquorum g1\n", 2),
        (f"\n\n# comment\n{W1}   \n  {W2}\n\n\n\t\t #comment\ngroup   g1  all \t w1 w2\n\n\t quorum  g1\n", 2),
        (f"{WITNESSES}group g1 2 w1 w2 w3\nquorum g1\n", 2),
        (f"{WITNESSES}group g1 all w1 w2 w3\nquorum g1\n", 3),
        (f"{WITNESSES}group g1 any w1\nquorum g1\n", 1),
        (f"{W1} #comment\nquorum w1\n", None),  # read over there; C2SP: a comment has its own line
        (W1, None),
        ("quorum unknown", None),
        (f"{W1}\n{W1}\nquorum w1", None),
        (f"{WITNESSES}group g1 -1 w1\nquorum g1", None),
        (f"{WITNESSES}group g1 0 w1\nquorum g1", None),  # read over there; C2SP: 1 <= k <= n
        (f"witness none {cosigner('Wit1').verifier}\nquorum none", None),
        ("group none 1 witness\nquorum none", None),
        (f"witness w1 {log_key('Wit1').vkey}\nquorum w1", None),  # a log's key; read over there as a witness's
    ],
)
def test_policies(text: str, threshold: int | None) -> None:
    if threshold is None:
        with refuses("HBK-723"):
            LogPolicy.parse(text.encode())
    else:
        assert LogPolicy.parse(text.encode()).groups[0].threshold == threshold


NESTED = "group of-two 1 w2 w3\ngroup both 2 w1 of-two\nquorum both\n"


@pytest.mark.parametrize(
    ("rule", "signers", "satisfied"),
    [
        ("quorum none\n", [], True),
        ("quorum none\n", [1], True),
        ("quorum w1\n", [1], True),
        ("quorum w1\n", [], False),
        ("group g 1 w1\nquorum g\n", [1], True),
        ("group g 1 w1\nquorum g\n", [], False),
        ("group g 1 w1\ngroup h 1 g\nquorum h\n", [1], True),
        ("group g 1 w1\ngroup h 1 g\nquorum h\n", [], False),
        (NESTED, [1, 2, 3], True),
        (NESTED, [1, 2], True),
        (NESTED, [1], False),
        (NESTED, [2, 3], False),
    ],
)
def test_quorums(rule: str, signers: list[int], satisfied: bool) -> None:  # noqa: FBT001  # a column of the table
    text = Checkpoint("Log", 7, bytes(32)).text()
    note = sign(text, "Log", signing("Log"))
    for at in signers:
        note = add_signature(note, cosigner(f"Wit{at}").cosign(text, 1))
    policy = LogPolicy.parse(f"log {log_key('Log').vkey}\n{WITNESSES}{rule}".encode())
    if satisfied:
        assert examine(note, policy).checkpoint.size == 7
    else:
        with refuses("HBK-711"):
            examine(note, policy)


def test_endpoints_of_witnesses() -> None:
    policy = LogPolicy.parse(f"{WITNESSES}{NESTED}".encode())
    assert [one.url for one in policy.witnesses] == [f"https://w{at}.example/" for at in (1, 2, 3)]


# What the witness's own tests sign


def test_the_published_log_of_the_witness_grew() -> None:
    old, new = (
        parse_checkpoint(verify(NOTES[f"monkeys {size}"], "monkeys", signing("monkeys").public)) for size in (5, 8)
    )
    proof = [bytes.fromhex(part) for part in PUBLISHED["monkeys_proof"]]
    verify_consistency(old.size, new.size, old.root, new.root, proof)
    assert sign(old.text(), "monkeys", signing("monkeys")) == NOTES["monkeys 5"]
    with refuses("HBK-712"):
        verify_consistency(old.size, new.size, old.root, new.root, [part[:2] for part in proof])
