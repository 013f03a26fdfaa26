"""The witness: one history per log, whatever order, race or crash the requests come in.

The rows follow the tables of transparency-dev/witness by meaning. Where that answers 409 to another root of the same
size, c2sp.org/tlog-witness asks for 422, and so it is here.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.clock import ManualClock
from hauberk.core.ports import ANY, Put, Row, Write
from hauberk.crypto.cosignature import Algorithm, Cosigner
from hauberk.crypto.note import LogKey, parse_checkpoint, parse_note, signed_by
from hauberk.errors import ConfigError, Conflict, RecordsError
from hauberk.records.watchlist import MAX_EVIDENCE
from hauberk.records.witness import CLOCK_STEP, Witness
from hauberk.records.witness_wire import (
    MAX_BODY_BYTES,
    Answer,
    Request,
    origin_hash,
    parse_cosignatures,
    parse_request,
    parse_size,
)
from tests.records.parties import BOTH, EMPTY, LOG, Grower, cosigners, offer, witness

LEAF = "Zx8UbF5HHooag6PCFM5LqQe486WIjRTMjNPOdbsS75Q="
ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


@pytest.fixture
def log() -> Grower:
    return Grower()


def verified(answer: Answer, log: Grower, size: int, *keys: Cosigner) -> list[int]:
    """Check that an answer is exactly one good cosignature of each key, and return their times."""
    assert answer.status == 200
    text = parse_note(log.note(size)).text
    lines = parse_cosignatures(answer.body)
    assert [(line.name, line.key_id) for line in lines] == [(key.name, key.key_id) for key in keys]
    return [key.check(text, line.value) for key, line in zip(keys, lines, strict=True)]


# The wire form


def test_a_request_is_parsed_into_old_size_proof_and_note(log: Grower) -> None:
    request = parse_request(log.request(5, 9))
    assert request == Request(5, log.proof(5, 9), log.note(9))
    assert request.encode() == log.request(5, 9)


MALFORMED = {
    "no old": f"10 stuff\n{LEAF}\n\nNOTE",
    "no size": "old \n\nNOTE",
    "leading zero": "old 07\n\nNOTE",
    "negative": "old -1\n\nNOTE",
    "two spaces": "old  1\n\nNOTE",
    "other digits": "old \u0661\n\nNOTE",
    "twenty digits": f"old {'9' * 20}\n\nNOTE",
    "carriage return": "old 1\r\n\r\nNOTE",
    "proof not base64": "old 1\nZ043!\n\nNOTE",
    "proof of 31 bytes": "old 1\n" + "A" * 40 + "AA==\n\nNOTE",
    "proof not canonical": f"old 1\n{LEAF[:-2]}R=\n\nNOTE",
    "no empty line": f"old 1\n{LEAF}\nNOTE",
    "64 proof lines": "old 1\n" + f"{LEAF}\n" * 64 + "\nNOTE",
    "empty": "",
    "no checkpoint": "old 1\n\n",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_400(body: str, log: Grower) -> None:
    note = log.note(3).removesuffix("\n")
    assert witness(log.vkey).add_checkpoint(body.replace("NOTE", note + "\n").encode()).status == 400


@pytest.mark.parametrize(
    "note",
    [
        "log.example/ledger\n3\n{root}\n",  # no signature at all
        "log.example/ledger\n03\n{root}\n\n{line}",
        "log.example/ledger\n3\nAAAA\n\n{line}",
        "log.example/ledger\n3\n\n{line}",
        "\n3\n{root}\n\n{line}",
        "log.example/ledger\n3\n{root}\n\n{line}trailing",
    ],
)
def test_a_malformed_checkpoint_is_400(note: str, log: Grower) -> None:
    good = log.note(3)
    text = note.format(root=good.split("\n")[2], line=good.split("\n\n")[1])
    assert witness(log.vkey).add_checkpoint(Request(0, (), text).encode()).status == 400


def test_bytes_that_are_no_text_are_400(log: Grower) -> None:
    assert witness(log.vkey).add_checkpoint(b"old 0\n\n\xff\xfe").status == 400
    assert witness(log.vkey).add_checkpoint(b"\xff\n\n" + log.note(1).encode()).status == 400


def test_63_proof_lines_are_taken_and_a_request_is_bounded() -> None:
    assert len(parse_request(b"old 1\n" + f"{LEAF}\n".encode() * 63 + b"\nnote").proof) == 63
    with pytest.raises(RecordsError):
        parse_request(b"old 1\n\n" + b"x" * MAX_BODY_BYTES)


@given(st.binary(max_size=300))
def test_no_body_does_anything_but_be_parsed_or_refused(body: bytes) -> None:
    for parse in (parse_request, parse_size, parse_cosignatures):
        with suppress(RecordsError):
            parse(body)


@given(st.integers(0, 10**19 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63), st.text(max_size=50))
def test_requests_come_back_as_they_went(old: int, proof: list[bytes], note: str) -> None:
    request = Request(old, tuple(proof), note.encode("utf-8", "replace").decode())
    assert parse_request(request.encode()) == request


@pytest.mark.parametrize(("body", "size"), [(b"0\n", 0), (b"20852014\n", 20852014)])
def test_a_size_is_decimal_and_a_newline(body: bytes, size: int) -> None:
    assert parse_size(body) == size


@pytest.mark.parametrize(
    "body", [b"", b"7", b"07\n", b"7\n\n", b"-7\n", b" 7\n", b"7 \n", b"seven\n", b"9" * 20 + b"\n"]
)
def test_anything_else_is_no_size(body: bytes) -> None:
    with pytest.raises(RecordsError):
        parse_size(body)


# Statuses


def test_an_accepted_checkpoint_is_200_with_a_cosignature_of_each_key(log: Grower) -> None:
    keys = cosigners("w.example/1", *BOTH)
    clock = ManualClock(1_700_000_000)
    answer = witness(log.vkey, keys=keys, clock=clock).add_checkpoint(log.request(0, 5))
    assert verified(answer, log, 5, *(key.public for key in keys)) == [1_700_000_000] * 2
    assert answer.body.decode().count("\n") == 2


def test_a_stale_old_size_is_409_with_the_size_and_its_type(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 56))
    answer = one.add_checkpoint(log.request(10, 60))
    assert (answer.status, answer.body, answer.kind) == (409, b"56\n", "text/x.tlog.size")


def test_of_a_log_never_cosigned_the_size_is_zero(log: Grower) -> None:
    answer = witness(log.vkey).add_checkpoint(log.request(10, 60))
    assert (answer.status, answer.body) == (409, b"0\n")


def test_no_valid_signature_of_the_log_is_403(log: Grower) -> None:
    stranger = Grower(seed=2)
    assert witness(log.vkey).add_checkpoint(stranger.request(0, 5)).status == 403


def test_a_wrong_signature_under_the_name_and_id_of_the_log_is_403_even_beside_a_good_one(log: Grower) -> None:
    note, other = log.note(5), log.note(6)
    both = note + other.split("\n\n")[1]
    assert witness(log.vkey).add_checkpoint(Request(0, (), both).encode()).status == 403


def test_signatures_of_strangers_are_passed_over_and_not_kept(log: Grower) -> None:
    one = witness(log.vkey)
    line = Grower("other.example/log", seed=2).note(5).split("\n\n")[1]
    assert one.add_checkpoint(Request(0, (), log.note(5) + line).encode()).status == 200
    kept = parse_note(one.checkpoint(origin_hash(LOG)))
    assert [signature.name for signature in kept.signatures] == [LOG, "witness.example/w"]


def test_an_unknown_origin_is_404_whoever_signed(log: Grower) -> None:
    other = Grower("other.example/log")
    assert witness(log.vkey).add_checkpoint(other.request(0, 5)).status == 404


def test_an_invalid_proof_is_422(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 5))
    wrong = Request(5, tuple(bytes(32) for _ in log.proof(5, 8)), log.note(8))
    assert one.add_checkpoint(wrong.encode()).status == 422
    assert parse_checkpoint(parse_note(one.checkpoint(origin_hash(LOG))).text).size == 5


def test_an_old_size_above_the_checkpoint_is_400(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 8))
    assert one.add_checkpoint(Request(8, (), log.note(5)).encode()).status == 400


def test_another_root_of_the_same_size_is_422(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 5))
    assert one.add_checkpoint(log.request(5, 5, root=b"\xff" * 32)).status == 422


def test_who_always_meets_somebody_faster_is_503(log: Grower) -> None:
    class Busy(MemoryStore):
        def commit(self, write: Write) -> int:
            if any(isinstance(row, Put) and row.space == "witness" for row in write.rows):
                raise Conflict("somebody was faster", what="row")
            return super().commit(write)

    assert witness(log.vkey, store=Busy()).add_checkpoint(log.request(0, 5)).status == 503


def test_404_comes_before_403_which_comes_before_400_before_409_before_422(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 8))
    unknown, stranger = Grower("other.example/log", seed=2), Grower(seed=2)
    assert one.add_checkpoint(Request(9, (), unknown.note(5)).encode()).status == 404
    assert one.add_checkpoint(Request(9, (), stranger.note(5)).encode()).status == 403
    assert one.add_checkpoint(Request(9, (bytes(32),), log.note(5)).encode()).status == 400
    assert one.add_checkpoint(Request(3, (bytes(32),), log.note(9)).encode()).status == 409


# Logic


def test_a_log_that_grew_is_cosigned(log: Grower) -> None:
    one = witness(log.vkey)
    assert one.add_checkpoint(log.request(0, 5)).status == 200
    assert one.add_checkpoint(log.request(5, 8)).status == 200
    assert parse_checkpoint(parse_note(one.checkpoint(origin_hash(LOG))).text).size == 8


def test_the_empty_tree_is_cosigned_and_any_tree_grows_from_it(log: Grower) -> None:
    one = witness(log.vkey)
    assert one.add_checkpoint(log.request(0, 0)).status == 200
    assert one.add_checkpoint(log.request(0, 0)).status == 200
    assert one.add_checkpoint(log.request(0, 5)).status == 200


def test_from_the_empty_tree_a_proof_is_422(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 0))
    assert one.add_checkpoint(Request(0, (bytes(32),), log.note(5)).encode()).status == 422
    assert one.add_checkpoint(Request(0, (bytes(32),), log.note(0)).encode()).status == 422


def test_an_empty_tree_with_another_root_is_422(log: Grower) -> None:
    assert log.root(0) == EMPTY
    assert witness(log.vkey).add_checkpoint(log.request(0, 0, root=bytes(32))).status == 422


def test_the_same_checkpoint_again_is_cosigned_with_the_time_of_now(log: Grower) -> None:
    clock = ManualClock(1_700_000_000)
    one = witness(log.vkey, clock=clock)
    one.add_checkpoint(log.request(0, 5))
    clock.advance(60)
    key = cosigners()[0].public
    assert verified(one.add_checkpoint(log.request(5, 5)), log, 5, key) == [1_700_000_060]


def test_a_proof_between_equal_sizes_is_422(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 5))
    assert one.add_checkpoint(Request(5, (bytes(32),), log.note(5)).encode()).status == 422


def test_a_missing_proof_is_422(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 4))
    assert one.add_checkpoint(Request(4, (), log.note(5)).encode()).status == 422


def test_a_smaller_tree_is_never_cosigned(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 8))
    for old in range(9):
        assert one.add_checkpoint(Request(old, log.proof(old, 5), log.note(5)).encode()).status in {400, 409}
    assert parse_checkpoint(parse_note(one.checkpoint(origin_hash(LOG))).text).size == 8


def test_the_monitor_sees_what_was_cosigned_last_with_both_signatures(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 5))
    note = parse_note(one.checkpoint(origin_hash(LOG)))
    assert signed_by(note, LogKey.parse(log.vkey)) == 0
    assert signed_by(note, cosigners()[0].public) == int(ManualClock().time())


@pytest.mark.parametrize("hashed", [origin_hash("other.example/log"), "", "..", origin_hash(LOG).upper(), "a" * 63])
def test_the_monitor_sees_nothing_of_other_logs(hashed: str, log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 5))
    with pytest.raises(RecordsError) as found:
        one.checkpoint(hashed)
    assert found.value.code == "HBK-707"


def test_before_anything_was_cosigned_there_is_nothing_to_see(log: Grower) -> None:
    with pytest.raises(RecordsError):
        witness(log.vkey).checkpoint(origin_hash(LOG))


def test_one_witness_serves_many_logs_and_mixes_up_none() -> None:
    logs = [Grower(f"log{number}.example/x", seed=number + 1) for number in range(5)]
    one = witness(*(log.vkey for log in logs))
    for size, log in enumerate(logs, 1):
        assert offer(one, log, size).status == 200
    assert [(log.origin, log.size) for log in one.logs()] == [(log.origin, at) for at, log in enumerate(logs, 1)]
    crossed = logs[0].note(9).replace("log0", "log1", 1)
    assert one.add_checkpoint(Request(2, (), crossed).encode()).status == 403


# Keys


def test_a_log_that_changed_its_key_goes_on_from_where_it_was(log: Grower) -> None:
    new = Grower(seed=2)
    one = witness(log.vkey)
    assert one.add_checkpoint(log.request(0, 5)).status == 200
    with pytest.raises(ConfigError) as found:
        one.add_log(new.vkey)
    assert found.value.code == "HBK-906"
    assert one.add_checkpoint(new.request(5, 8)).status == 403
    one.add_log(new.vkey, replace=True)
    assert one.add_checkpoint(log.request(5, 8)).status == 403
    assert one.add_checkpoint(new.request(5, 8)).status == 200


def test_a_key_taken_away_and_put_back_opens_no_door_to_an_older_tree(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 8))
    one.remove_key(log.vkey)
    assert one.add_checkpoint(log.request(8, 9)).status == 404
    one.add_log(log.vkey)
    assert one.add_checkpoint(log.fork(0).request(0, 5)).body == b"8\n"
    assert one.add_checkpoint(log.fork(3).request(8, 9)).status == 422


def test_a_key_whose_name_is_not_the_origin_is_taken_for_the_origin_it_was_added_for() -> None:
    log = Grower("the.key/name")
    one = witness()
    assert one.add_log(log.vkey, "other.example/origin") == "other.example/origin"
    assert one.add_checkpoint(log.request(0, 5)).status == 404


def test_a_log_may_sign_with_ml_dsa(log: Grower) -> None:
    key = cosigners(LOG, Algorithm.ML_DSA_44, seed=7)[0]
    one = witness(key.verifier)
    text = parse_note(log.note(5)).text
    assert one.add_checkpoint(Request(0, (), f"{text}\n{key.cosign(text, 0)}").encode()).status == 200


@pytest.mark.parametrize("vkey", ["", "x", "a+b+c", cosigners()[0].verifier])
def test_what_is_no_key_of_a_log_is_refused(vkey: str) -> None:
    with pytest.raises(RecordsError):
        witness().add_log(vkey)


def test_a_key_of_the_witness_itself_is_no_key_of_a_log() -> None:
    own = cosigners(LOG, Algorithm.ML_DSA_44)
    with pytest.raises(RecordsError):
        witness(keys=own).add_log(own[0].verifier)


@pytest.mark.parametrize("origin", ["a\nb", "x" * 256, "\x00"])
def test_what_is_no_origin_is_refused(origin: str, log: Grower) -> None:
    with pytest.raises(RecordsError):
        witness().add_log(log.vkey, origin)


def test_a_key_that_is_not_there_cannot_be_taken_away(log: Grower) -> None:
    with pytest.raises(RecordsError) as found:
        witness().remove_key(log.vkey)
    assert found.value.code == "HBK-707"


def test_a_witness_without_a_key_is_none() -> None:
    with pytest.raises(RecordsError):
        Witness(MemoryStore(), [])


# Time


def test_the_time_never_goes_back_and_a_clock_far_behind_signs_nothing(log: Grower) -> None:
    clock = ManualClock(1_700_000_000)
    one, key = witness(log.vkey, clock=clock), cosigners()[0].public
    one.add_checkpoint(log.request(0, 5))
    clock.advance(-CLOCK_STEP)
    assert verified(one.add_checkpoint(log.request(5, 6)), log, 6, key) == [1_700_000_000]
    clock.advance(-1)
    assert one.add_checkpoint(log.request(6, 7)).status == 503
    assert parse_checkpoint(parse_note(one.checkpoint(origin_hash(LOG))).text).size == 6


def test_after_a_clock_that_was_ahead_the_operator_says_so(log: Grower) -> None:
    clock = ManualClock(1_900_000_000)
    one, key = witness(log.vkey, clock=clock), cosigners()[0].public
    one.add_checkpoint(log.request(0, 5))
    clock.now = 1_700_000_000
    one.accept_clock(LOG)
    assert verified(one.add_checkpoint(log.request(5, 6)), log, 6, key) == [1_700_000_000]
    with pytest.raises(RecordsError):
        one.accept_clock("other.example/log")


def test_a_cosignature_always_states_a_time(log: Grower) -> None:
    answer = witness(log.vkey, clock=ManualClock(0)).add_checkpoint(log.request(0, 5))
    assert verified(answer, log, 5, cosigners()[0].public) == [1]


class Counting(MemoryStore):
    commits = 0

    def commit(self, write: Write) -> int:
        self.commits += 1
        return super().commit(write)


def test_the_same_again_within_a_second_costs_no_write(log: Grower) -> None:
    store, clock = Counting(), ManualClock(1_700_000_000)
    one = witness(log.vkey, store=store, clock=clock)
    first = one.add_checkpoint(log.request(0, 5))
    before = store.commits
    assert [one.add_checkpoint(log.request(5, 5)) for _ in range(3)] == [first] * 3
    assert store.commits == before
    clock.advance(1)
    assert one.add_checkpoint(log.request(5, 5)) != first


def test_a_new_key_of_the_witness_signs_what_the_old_one_signed_this_second(log: Grower) -> None:
    store = MemoryStore()
    witness(log.vkey, store=store).add_checkpoint(log.request(0, 5))
    new = cosigners("witness.example/w", Algorithm.ML_DSA_44, seed=50)
    answer = witness(store=store, keys=new).add_checkpoint(log.request(5, 5))
    verified(answer, log, 5, new[0].public)


def test_a_further_key_of_the_witness_signs_too_what_the_first_signed_this_second(log: Grower) -> None:
    store, both = MemoryStore(), cosigners("witness.example/w", *BOTH)
    witness(log.vkey, store=store, keys=both[:1]).add_checkpoint(log.request(0, 5))
    answer = witness(store=store, keys=both).add_checkpoint(log.request(5, 5))
    verified(answer, log, 5, *(key.public for key in both))


# Evidence


def test_two_trees_of_one_size_are_kept_as_proof(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 5))
    forked = log.fork(2)
    one.add_checkpoint(Request(5, (), forked.note(5)).encode())
    one.add_checkpoint(Request(0, (), forked.note(5)).encode())  # the same, whatever old size comes with it
    assert list(one.evidence(LOG)) == [forked.note(5)]
    assert [found.evidence for found in one.logs()] == [1]


def test_what_strangers_can_send_is_no_evidence_and_evidence_is_bounded(log: Grower) -> None:
    one = witness(log.vkey)
    one.add_checkpoint(log.request(0, 5))
    one.add_checkpoint(Request(5, (bytes(32),), log.note(8)).encode())
    one.add_checkpoint(Grower(seed=2).request(5, 5))
    assert list(one.evidence(LOG)) == []
    for number in range(MAX_EVIDENCE + 5):
        one.add_checkpoint(log.request(5, 5, root=bytes([number]) * 32))
    assert len(list(one.evidence(LOG))) == MAX_EVIDENCE


# Attacks


def test_a_split_view_is_found_because_both_readers_ask_for_the_same_witness(log: Grower) -> None:
    one, forked = witness(log.vkey), log.fork(3)
    ours, theirs = offer(one, log, 5), offer(one, forked, 6)
    assert (ours.status, theirs.status) == (200, 422)


def test_with_a_witness_each_a_split_view_passes(log: Grower) -> None:
    assert [offer(witness(log.vkey), side, 6).status for side in (log, log.fork(3))] == [200, 200]


def test_a_rewritten_history_is_refused_at_every_size_after(log: Grower) -> None:
    one, forked = witness(log.vkey), log.fork(2)
    offer(one, log, 5)
    for size in (5, 6, 50):
        assert one.add_checkpoint(forked.request(5, size)).status == 422


class Meeting(MemoryStore):
    """Two who look at what was cosigned last look at the same moment, once."""

    def __init__(self, *, compare: bool) -> None:
        super().__init__()
        self._compare = compare
        self._met = threading.Barrier(2)
        self._left = 2
        self._counting = threading.Lock()

    def get(self, space: str, key: bytes) -> Row | None:
        row = super().get(space, key)
        if space == "witness":
            with self._counting:
                self._left -= 1
                meets = self._left >= 0
            if meets:
                self._met.wait(PATIENCE)
        return row

    def commit(self, write: Write) -> int:
        if self._compare:
            return super().commit(write)
        return super().commit(
            replace(write, rows=[replace(row, expected=ANY) if isinstance(row, Put) else row for row in write.rows])
        )


def race(store: MemoryStore, log: Grower) -> list[int]:
    """Offer two forks at the same moment."""
    one, statuses = witness(log.vkey, store=store), []
    threads = [
        threading.Thread(target=lambda side=side: statuses.append(one.add_checkpoint(side.request(0, 5)).status))
        for side in (log, log.fork(1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return sorted(statuses)


def test_of_two_forks_at_once_exactly_one_is_cosigned(log: Grower) -> None:
    assert race(Meeting(compare=True), log) == [200, 409]


def test_without_comparing_revisions_both_forks_are_cosigned(log: Grower) -> None:
    assert race(Meeting(compare=False), log) == [200, 200]


CHILD = """
import os, signal, sys
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.ports import Put
from tests.records.parties import Grower, witness

class Dying(SqliteStore):
    def commit(self, write):
        done = super().commit(write)
        if any(isinstance(row, Put) and row.space == "witness" for row in write.rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return done

what, path = sys.argv[1:]
if what == "die":
    log = Grower()
    witness(log.vkey, store=Dying(path)).add_checkpoint(log.request(5, 8))
else:
    one = witness(store=SqliteStore(path))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(30):
        log = Grower(f"log{number}.example/x")
        side = log if what == "0" else log.fork(0)
        print(one.add_checkpoint(side.request(0, 5)).status, flush=True)
"""


def child(what: str, path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, what, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
    )  # fmt: skip


def test_two_processes_on_one_store_cosign_one_fork_of_each_log(tmp_path: Path) -> None:
    path = tmp_path / "witness.db"
    store = SqliteStore(path)
    witness(*(Grower(f"log{number}.example/x").vkey for number in range(30)), store=store)
    children = [child(side, path) for side in "01"]
    for one in children:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in children:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    statuses = [one.communicate(timeout=PATIENCE)[0].split() for one in children]  # closes the pipes too
    store.close()
    assert [sorted(pair) for pair in zip(*statuses, strict=True)] == [["200", "409"]] * 30


@pytest.fixture
def killed(tmp_path: Path, log: Grower) -> Iterator[SqliteStore]:
    """The store of a witness that was killed after it remembered size 8, before anybody was told."""
    store = SqliteStore(tmp_path / "witness.db")
    witness(log.vkey, store=store).add_checkpoint(log.request(0, 5))
    store.close()
    with child("die", tmp_path / "witness.db") as dying:
        dying.communicate(timeout=PATIENCE)
    assert dying.returncode == -signal.SIGKILL
    store = SqliteStore(tmp_path / "witness.db")
    yield store
    store.close()


def test_a_kill_between_memory_and_answer_costs_one_more_request(killed: SqliteStore, log: Grower) -> None:
    one = witness(store=killed)
    answer = one.add_checkpoint(log.request(5, 8))
    assert (answer.status, answer.body) == (409, b"8\n")
    verified(one.add_checkpoint(log.request(8, 8)), log, 8, cosigners()[0].public)


def test_a_kill_between_memory_and_answer_opens_no_door_to_a_fork(killed: SqliteStore, log: Grower) -> None:
    one, forked = witness(store=killed), log.fork(6)
    assert one.add_checkpoint(forked.request(5, 8)).status == 409
    assert one.add_checkpoint(Request(8, (), forked.note(8)).encode()).status == 422


def test_a_witness_that_forgets_cosigns_the_fork(log: Grower) -> None:
    forked = log.fork(6)
    for side in (log, forked):  # each time with what a witness without a durable memory has after a restart
        assert offer(witness(log.vkey), side, 8).status == 200


# Any order of anything


class Model(RuleBasedStateMachine):
    """Two logs, each of which also exists as a fork; what must come of each request is worked out beside."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(1_700_000_000)
        self.store = MemoryStore()
        self.logs = [Grower("a.example/x", seed=1), Grower("b.example/x", seed=2)]
        self.known = [False, False]
        self.seen: list[tuple[int, bytes] | None] = [None, None]
        self.times = [0, 0]
        self.signed: list[list[tuple[int, bytes]]] = [[], []]
        self.one = witness(store=self.store, clock=self.clock)

    @rule(which=st.sampled_from([0, 1]))
    def add(self, which: int) -> None:
        self.one.add_log(self.logs[which].vkey)
        self.known[which] = True

    @rule(which=st.sampled_from([0, 1]))
    def remove(self, which: int) -> None:
        if self.known[which]:
            self.one.remove_key(self.logs[which].vkey)
            self.known[which] = False

    @rule(seconds=st.floats(-3, 100))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def restart(self) -> None:
        self.one = witness(store=self.store, clock=self.clock)

    @rule(
        which=st.sampled_from([0, 1]),
        since=st.sampled_from([None, 0, 2, 4]),
        old=st.integers(-1, 9),
        size=st.integers(0, 9),
        spoiled=st.booleans(),
    )
    def ask(self, which: int, since: int | None, old: int, size: int, spoiled: bool) -> None:  # noqa: FBT001  # drawn
        log = self.logs[which]
        side = log if since is None else log.fork(since)
        seen = self.seen[which]
        now, old = (0 if seen is None else seen[0]), (old if old >= 0 else 0 if seen is None else seen[0])
        proof = side.proof(old, size)
        if spoiled and proof:
            proof = (bytes(32), *proof[1:])
        answer = self.one.add_checkpoint(Request(old, proof, side.note(size)).encode())
        same = seen is None or now == 0 or side.root(now) == seen[1]
        if not self.known[which]:
            expected = {404}
        elif old > size:
            expected = {400}
        elif old != now:
            expected = {409}
        elif not same or (spoiled and proof):
            expected = {422}
        else:
            expected = {200, 503}  # the clock may have gone back too far
        assert answer.status in expected
        if answer.status == 200:
            (time,) = verified(answer, side, size, cosigners()[0].public)
            assert time >= self.times[which]
            self.times[which] = time
            self.seen[which] = (size, side.root(size))
            self.signed[which].append((size, side.root(size)))
        if answer.status == 409:
            assert parse_size(answer.body) == now

    @invariant()
    def one_history(self) -> None:
        """Whatever was ever cosigned is the beginning of what was cosigned last."""
        for which, signed in enumerate(self.signed):
            assert [size for size, _ in signed] == sorted(size for size, _ in signed)
            assert len({root for size, root in signed}) == len(dict(signed))
            seen = self.seen[which]
            if seen is not None:
                note = parse_note(self.one.checkpoint(origin_hash(self.logs[which].origin)))
                checkpoint = parse_checkpoint(note.text)
                assert (checkpoint.size, checkpoint.root) == seen


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
