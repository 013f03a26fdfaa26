"""Having a log cosigned: a quorum of the same head, what proves a rollback, and nothing lost in silence."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk.adapters.memory import MemoryStore
from hauberk.core.clock import ManualClock
from hauberk.core.ports import Head, Put, Store, Write
from hauberk.crypto.note import (
    Checkpoint,
    LogKey,
    encode_key,
    parse_checkpoint,
    parse_note,
    sign_checkpoint,
    signed_by,
)
from hauberk.crypto.signing import SigningKey
from hauberk.errors import NotCosigned, RecordsError, WitnessRefused
from hauberk.records import asking
from hauberk.records.asking import MAX_SKEW, NO_ANSWER, Contradicted, Failed, Target, endpoints
from hauberk.records.cosign import Cosigning
from hauberk.records.cosigned import Cosigned, keep_cosigned, load_cosigned
from hauberk.records.ledger import Ledger
from hauberk.records.log_policy import LogPolicy, examine
from hauberk.records.rounds import FIRST_DELAY, LONGEST_DELAY, Rounds
from hauberk.records.witness_wire import Request, parse_request
from tests.records.made import ORIGIN, events
from tests.records.parties import Grower, Party, Wire, cosigners, policy

PATIENCE = 20.0
SOON = 0.1  # seconds until a wait that is meant to fail does


class Stage:
    """A ledger, its witnesses, the wire between them, and what was reported."""

    def __init__(self, *parties: Party, quorum: str = "", group: str = "", interval: float = 1.0) -> None:
        self.parties = parties or (Party(1),)
        self.wire = Wire(*self.parties)
        self.policy = policy(*self.parties, quorum=quorum, group=group)
        self.store = MemoryStore()
        self.key = SigningKey(bytes(range(32)))
        for party in self.parties:
            party.add_log(encode_key(ORIGIN, self.key.public))
        self.reports: list[str] = []
        self.refused: list[str] = []
        self._interval = interval
        self._stack = ExitStack()
        self.over = threading.Event()

    def cosigning(self, store: Store | None = None, *, patience: float = PATIENCE) -> Cosigning:
        made = Cosigning(
            store or self.store, ORIGIN, self.key.public, self.policy, self.wire,
            patience=patience, interval=self._interval, report=self.reports.append, random=lambda: 0.0,
        )  # fmt: skip
        self._stack.callback(made.close)
        made.on_refusal(self.refused.append)
        return made

    def ledger(self, store: Store | None = None, cosigning: Cosigning | None = None) -> Ledger:
        made = Ledger(store or self.store, self.key, ORIGIN, witnesses=cosigning)
        self._stack.callback(made.close)
        if cosigning is not None:
            cosigning.on_refusal(made.refuse)
        return made

    def write(self, ledger: Ledger, count: int = 3) -> int:
        """Append events and return the size that covers them."""
        return (ledger.append_batch(events(count)).result(PATIENCE)[-1].position or 0) + 1

    def close(self) -> None:
        self.wire.open.set()
        self.over.set()
        self._stack.close()


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    with ExitStack() as stack:

        def make(*parties: Party, quorum: str = "", group: str = "", interval: float = 1.0) -> Stage:
            made = Stage(*parties, quorum=quorum, group=group, interval=interval)
            stack.callback(made.close)
            return made

        yield make


Make = Callable[..., Stage]


def three() -> tuple[Party, ...]:
    return Party(1), Party(2), Party(3)


def error(future: "Future[str]") -> RecordsError:
    found = future.exception(PATIENCE)
    assert isinstance(found, RecordsError)
    return found


# Reaching a quorum


def test_a_wait_resolves_with_a_note_that_the_policy_holds_for(stage: Make) -> None:
    here = stage(*three(), group="2")
    cosigning = here.cosigning()
    ledger = here.ledger(cosigning=cosigning)
    for _ in range(5):
        size = here.write(ledger)
        found = examine(ledger.cosigned(size).result(PATIENCE), here.policy, logs=[LogKey(ORIGIN, here.key.public)])
        assert found.checkpoint.size >= size
        assert len(found.cosigned) >= 2
    assert cosigning.cosigned is not None
    assert here.reports == []


def test_what_is_cosigned_already_is_answered_at_once_and_asks_nobody(stage: Make) -> None:
    here = stage()
    cosigning = here.cosigning()
    size = here.write(here.ledger(cosigning=cosigning))
    note = cosigning.wait(size).result(PATIENCE)
    asked = len(here.wire.asked)
    assert [cosigning.wait(at).result(0) for at in range(1, size + 1)] == [note] * size
    assert len(here.wire.asked) == asked


def test_heads_coalesce_while_a_witness_is_at_work(stage: Make) -> None:
    here = stage()
    here.wire.open.clear()
    cosigning = here.cosigning()
    ledger = here.ledger(cosigning=cosigning)
    sizes = [here.write(ledger) for _ in range(20)]
    waits = [cosigning.wait(size) for size in sizes]
    here.wire.open.set()
    notes = [wait.result(PATIENCE) for wait in waits]
    assert len(set(notes)) <= 3
    assert len([body for _, body in here.wire.asked if body is not None]) <= 4


def test_without_a_wait_a_head_is_cosigned_all_the_same(stage: Make) -> None:
    here = stage(interval=0.0)
    kept = threading.Event()

    class Telling(MemoryStore):
        def commit(self, write: Write) -> int:
            done = super().commit(write)
            if any(isinstance(row, Put) and row.space == "cosigned" for row in write.rows):
                kept.set()
            return done

    here.store = Telling()
    here.write(here.ledger(cosigning=here.cosigning()))
    assert kept.wait(PATIENCE)


def test_a_quorum_of_none_asks_for_nobodys_word(stage: Make) -> None:
    here = stage(quorum="none")
    here.wire.down = {"w1"}
    cosigning = here.cosigning()
    size = here.write(here.ledger(cosigning=cosigning))
    assert cosigning.wait(size).result(PATIENCE).count("\u2014") == 1


def test_a_slow_witness_that_is_not_needed_delays_nobody(stage: Make) -> None:
    here = stage(*three(), group="2")
    release, entered = threading.Event(), threading.Event()

    def slow(_rest: str, _body: bytes | None) -> tuple[int, bytes]:
        entered.set()
        assert release.wait(PATIENCE)
        return NO_ANSWER, b"late"

    here.wire.instead["w3"] = slow
    cosigning = here.cosigning()
    ledger = here.ledger(cosigning=cosigning)
    for _ in range(5):
        cosigning.wait(here.write(ledger)).result(PATIENCE)
    assert entered.wait(PATIENCE)
    release.set()


def test_a_late_cosignature_of_the_same_head_is_kept_too(stage: Make) -> None:
    here = stage(*three(), group="2")
    release, kept = threading.Event(), threading.Event()

    class Telling(MemoryStore):
        def commit(self, write: Write) -> int:
            done = super().commit(write)
            for row in write.rows:
                if isinstance(row, Put) and row.space == "cosigned" and row.value.count("\u2014".encode()) == 4:
                    kept.set()
            return done

    def late(rest: str, body: bytes | None) -> tuple[int, bytes]:
        assert release.wait(PATIENCE)
        return here.wire.serve(here.parties[2], rest, body)

    here.store = Telling()
    here.wire.instead["w3"] = late
    cosigning = here.cosigning()
    size = here.write(here.ledger(cosigning=cosigning))
    assert cosigning.wait(size).result(PATIENCE).count("\u2014") == 3
    release.set()
    assert kept.wait(PATIENCE)


def test_two_keys_of_one_witness_are_asked_with_one_question(stage: Make) -> None:
    here = stage()
    other = cosigners("w1.example/w", seed=101)[0].public
    twin = policy(here.parties[0]).witnesses[0]
    assert twin.key == other
    here.policy = LogPolicy.parse(
        f"witness a {twin.key.vkey} {twin.url}\nwitness b {cosigners('x')[0].verifier} {twin.url}/\nquorum a\n".encode()
    )
    cosigning = here.cosigning()
    cosigning.wait(here.write(here.ledger(cosigning=cosigning))).result(PATIENCE)
    assert len(cosigning.status().witnesses) == 1


# Restarts


def test_a_restart_goes_on_from_what_was_kept_and_asks_again(stage: Make) -> None:
    here = stage()
    first = here.cosigning()
    ledger = here.ledger(cosigning=first)
    size = here.write(ledger)
    note = first.wait(size).result(PATIENCE)
    ledger.close()
    again = here.cosigning()
    assert again.wait(size).result(0) == note
    again.confirm(PATIENCE)
    cosigned = again.wait(here.write(here.ledger(cosigning=again))).result(PATIENCE)
    assert parse_checkpoint(parse_note(cosigned).text).size > size


def test_a_head_that_nobody_came_to_is_cosigned_after_the_restart(stage: Make) -> None:
    here = stage()
    size = here.write(here.ledger())
    assert here.cosigning().wait(size).result(PATIENCE)


def test_a_kept_note_counts_only_with_the_quorum_and_the_logs_own_head(stage: Make) -> None:
    here = stage()
    size = here.write(here.ledger())
    note = here.cosigning().wait(size).result(PATIENCE)
    assert load_cosigned(here.store, ORIGIN, here.key.public, here.policy) == Cosigned(
        parse_checkpoint(parse_note(note).text), note
    )
    for wrong in (b"", b"\xff", here.store.head(ORIGIN).checkpoint, note.replace("ledger", "ledgers").encode()):
        here.store.commit(Write(rows=[Put("cosigned", ORIGIN.encode(), wrong)]))
        assert load_cosigned(here.store, ORIGIN, here.key.public, here.policy) is None


def test_an_older_note_never_replaces_a_newer_one(stage: Make) -> None:
    here = stage()
    cosigning = here.cosigning()
    ledger = here.ledger(cosigning=cosigning)
    notes = [cosigning.wait(here.write(ledger)).result(PATIENCE) for _ in range(2)]
    older, newer = (Cosigned(parse_checkpoint(parse_note(note).text), note) for note in notes)
    ledger.close()
    keep_cosigned(here.store, ORIGIN, older)
    assert load_cosigned(here.store, ORIGIN, here.key.public, here.policy) == newer


def test_a_witness_that_lost_sight_of_the_log_gets_it_back_from_its_own_size(stage: Make) -> None:
    here = stage()
    cosigning = here.cosigning()
    ledger = here.ledger(cosigning=cosigning)
    cosigning.wait(here.write(ledger)).result(PATIENCE)
    fresh = Party(1)
    fresh.add_log(encode_key(ORIGIN, here.key.public))
    here.wire.parties[fresh.url] = fresh
    cosigning.wait(here.write(ledger)).result(PATIENCE)
    assert here.reports == ["witness w1 has lost its memory: it has cosigned 3 entries, and remembers 0"]


# When the quorum is not reached


def test_a_wait_fails_in_time_and_somebody_is_told_once(stage: Make) -> None:
    here = stage(*three(), group="2")
    here.wire.down = {"w1", "w2"}
    cosigning = here.cosigning()
    ledger = here.ledger(cosigning=cosigning)
    found = [error(cosigning.wait(here.write(ledger), SOON)) for _ in range(3)]
    assert [type(one) for one in found] == [NotCosigned] * 3
    assert "group all-of-them needs 2 of 3" in found[-1].detail
    assert len(here.reports) == 1
    status = cosigning.status()
    assert (status.missed, status.outages, status.cosigned, status.head) == (3, 1, 0, 9)
    states = [one.state for one in status.witnesses]
    assert states[:2] == ["fails", "fails"]
    assert states[2] in {"asked", "answers"}


def test_the_event_is_in_the_ledger_whatever_the_witnesses_do(stage: Make) -> None:
    here = stage()
    here.wire.down = {"w1"}
    ledger = here.ledger(cosigning=here.cosigning(patience=SOON))
    size = here.write(ledger)
    assert error(ledger.cosigned(size)).code == "HBK-720"
    assert ledger.head().size == size


def test_witnesses_that_come_back_are_found_and_a_second_outage_is_told_again(stage: Make) -> None:
    here = stage()
    cosigning = here.cosigning()
    ledger = here.ledger(cosigning=cosigning)
    for _ in range(2):
        here.wire.down = {"w1"}
        assert error(cosigning.wait(here.write(ledger), SOON)).code == "HBK-720"
        here.wire.down = set()
        cosigning.wait(ledger.head().size).result(PATIENCE)
    assert len(here.reports) == 2
    assert cosigning.status().outages == 2
    assert cosigning.status().lacking == ""


def test_closing_answers_whoever_waits_and_whoever_comes_later(stage: Make) -> None:
    here = stage()
    here.wire.down = {"w1"}
    cosigning = here.cosigning()
    size = here.write(here.ledger(cosigning=cosigning))
    waiting = cosigning.wait(size)
    cosigning.close()
    assert error(waiting).code == error(cosigning.wait(size)).code == "HBK-720"
    cosigning.close()


def test_closing_ends_with_the_question_under_way_and_leaves_the_transport_alone(stage: Make) -> None:
    here = stage()
    entered, release = threading.Event(), threading.Event()

    def slow(_rest: str, _body: bytes | None) -> tuple[int, bytes]:
        entered.set()
        assert release.wait(PATIENCE)
        return 409, b"1\n"  # which would be followed by another question

    here.wire.instead["w1"] = slow
    here.write(here.ledger())
    cosigning = here.cosigning()
    assert entered.wait(PATIENCE)
    closing = threading.Thread(target=cosigning.close)
    closing.start()
    while not cosigning._closed:
        closing.join(0.001)
    release.set()
    closing.join(PATIENCE)
    assert cosigning._questions.count == 0
    assert len(here.wire.asked) == 1


def test_a_policy_that_nobody_can_fulfil_is_refused_on_the_start() -> None:
    one = policy(Party(1)).witnesses[0]
    nowhere = LogPolicy.parse(f"witness a {one.key.vkey}\nquorum a\n".encode())
    with pytest.raises(RecordsError) as found:
        Cosigning(MemoryStore(), ORIGIN, SigningKey.generate().public, nowhere, Wire())
    assert found.value.code == "HBK-723"


def test_a_store_that_cannot_keep_the_note_hands_it_out_all_the_same(stage: Make) -> None:
    class Full(MemoryStore):
        def commit(self, write: Write) -> int:
            if any(isinstance(row, Put) and row.space == "cosigned" for row in write.rows):
                raise RecordsError("HBK-703", "the disk is full")
            return super().commit(write)

    here = stage()
    here.store = Full()
    cosigning = here.cosigning()
    assert cosigning.wait(here.write(here.ledger(cosigning=cosigning))).result(PATIENCE)


# Replies that lie


def reply(here: Stage, change: Callable[[bytes], bytes]) -> None:
    def answer(rest: str, body: bytes | None) -> tuple[int, bytes]:
        status, said = here.wire.serve(here.parties[0], rest, body)
        return status, change(said) if status == 200 else said

    here.wire.instead["w1"] = answer


def test_lines_of_other_keys_in_a_reply_are_dropped(stage: Make) -> None:
    here = stage()
    injected = cosigners("stranger.example/w", seed=7)[0]

    def inject(said: bytes) -> bytes:
        _, body = here.wire.asked[-1]
        text = parse_note((body or b"").decode().partition("\n\n")[2]).text
        forged = cosigners("w1.example/w", seed=8)[0].cosign(text, 1)  # the name of a witness, another key
        return (injected.cosign(text, 1) + forged).encode() + said

    reply(here, inject)
    cosigning = here.cosigning()
    note = cosigning.wait(here.write(here.ledger(cosigning=cosigning))).result(PATIENCE)
    assert [one.name for one in parse_note(note).signatures] == [ORIGIN, "w1.example/w"]
    assert signed_by(parse_note(note), here.parties[0].verifier) is not None


def failure(here: Stage) -> str:
    """Write something, ask the one witness once, and return why that gave nothing."""
    here.write(here.ledger())
    (one,) = endpoints(here.policy.witnesses, here.wire, here.store, ORIGIN, here.key.public)
    outcome = one.cosign(Target.of(here.store.head(ORIGIN), here.key.public))
    assert isinstance(outcome, Failed)
    return outcome.why


def flipped(said: bytes) -> bytes:
    return said[:-9] + b"AAAAAAA=\n"


LIES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "no newline": lambda said: said.rstrip(b"\n"),
    "no text": lambda _: b"\xff\xfe",
    "a size": lambda _: b"7\n",
    "a whole note": lambda said: b"x\n1\nAA==\n\n" + said,
    "a flipped signature": flipped,
    "only a stranger": lambda _: cosigners("s.example/w", seed=7)[0].cosign(f"{ORIGIN}\n0\n{'A' * 43}=\n", 1).encode(),
    "of another head": lambda _: cosigners("w1.example/w", seed=101)[0].cosign(f"o\n0\n{'A' * 43}=\n", 1).encode(),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_reply_that_is_no_cosignature_counts_for_nothing(stage: Make, lie: Callable[[bytes], bytes]) -> None:
    here = stage()
    reply(here, lie)
    cosigning = here.cosigning()
    assert error(cosigning.wait(here.write(here.ledger(cosigning=cosigning)), SOON)).code == "HBK-720"
    assert cosigning.cosigned is None


def test_a_reply_of_strangers_alone_is_a_failure_and_the_witness_is_asked_again(stage: Make) -> None:
    here = stage()
    reply(here, LIES["only a stranger"])
    assert "no cosignature by a key of the policy" in failure(here)
    cosigning = here.cosigning()
    assert error(cosigning.wait(here.store.head(ORIGIN).size, SOON)).code == "HBK-720"
    here.wire.instead.clear()
    assert cosigning.wait(here.store.head(ORIGIN).size).result(PATIENCE)


def test_a_cosignature_without_a_time_counts_for_nothing(stage: Make) -> None:
    here = stage()

    def timeless(_: bytes) -> bytes:
        text = here.store.head(ORIGIN).checkpoint.decode().partition("\n\n")[0] + "\n"
        return cosigners("w1.example/w", seed=101)[0].cosign(text, 0).encode()

    reply(here, timeless)
    assert "the time of its cosignature" in failure(here)


def test_an_old_cosignature_that_somebody_repeats_confirms_nothing(stage: Make) -> None:
    clock = ManualClock(time.time() - MAX_SKEW - 2)
    here = stage(Party(1, clock=clock))
    size = here.write(here.ledger())
    old = here.parties[0].add_checkpoint(Request(0, (), here.store.head(ORIGIN).checkpoint.decode()).encode())
    assert old.status == 200
    here.wire.instead["w1"] = lambda _rest, _body: (200, old.body)
    cosigning = here.cosigning()
    with pytest.raises(NotCosigned):
        cosigning.confirm(SOON)
    assert error(cosigning.wait(size, SOON)).code == "HBK-720"


def test_with_the_time_not_looked_at_the_same_repetition_hides_a_rollback(
    stage: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MAX_SKEW", float("inf"))
    here = stage(Party(1, clock=ManualClock(1_700_000_000)))
    backup = rolled_back(here)
    kept = Party(1, clock=ManualClock(1_700_000_000))
    kept.add_log(encode_key(ORIGIN, here.key.public))
    old = kept.add_checkpoint(Request(0, (), backup.head(ORIGIN).checkpoint.decode()).encode())
    here.wire.instead["w1"] = lambda _rest, _body: (200, old.body)
    here.cosigning(backup).confirm(PATIENCE)


def test_a_witness_that_changes_its_mind_without_end_is_left_after_four_questions(stage: Make) -> None:
    here = stage()
    sizes = iter(range(1, 1000))
    here.wire.instead["w1"] = lambda _rest, _body: (409, b"%d\n" % (next(sizes) % 3))
    here.write(here.ledger())
    (one,) = endpoints(here.policy.witnesses, here.wire, here.store, ORIGIN, here.key.public)
    assert isinstance(one.cosign(Target.of(here.store.head(ORIGIN), here.key.public)), Failed)
    assert len(here.wire.asked) == 4


@pytest.mark.parametrize("status", [0, 301, 400, 403, 404, 429, 500, 503])
def test_any_other_status_is_a_failure_and_no_refusal(stage: Make, status: int) -> None:
    here = stage()
    here.wire.instead["w1"] = lambda _rest, _body: (status, b"\xff\n")
    cosigning = here.cosigning()
    assert error(cosigning.wait(here.write(here.ledger(cosigning=cosigning)), SOON)).code == "HBK-720"
    assert cosigning.refusal is None


# Rollback and rewriting


def rolled_back(here: Stage) -> MemoryStore:
    """What a backup from before the last events holds, of a log that its witnesses know to be longer."""
    cosigning = here.cosigning()
    ledger = here.ledger(cosigning=cosigning)
    taken = events(9)
    ledger.append_batch(taken[:3]).result(PATIENCE)
    backup = MemoryStore()
    old = Ledger(backup, here.key, ORIGIN)
    old.append_batch(taken[:3]).result(PATIENCE)
    old.close()
    size = (ledger.append_batch(taken[3:]).result(PATIENCE)[-1].position or 0) + 1
    cosigning.wait(size).result(PATIENCE)
    ledger.close()
    return backup


def test_an_old_database_is_found_by_the_first_question_and_signs_nothing_more(stage: Make) -> None:
    here = stage()
    backup = rolled_back(here)
    cosigning = here.cosigning(backup)
    with pytest.raises(WitnessRefused) as found:
        cosigning.confirm(PATIENCE)
    assert found.value.context["status"] == 409
    shown = str(found.value.context["proof"])
    assert parse_checkpoint(parse_note(shown).text).size == 9
    ledger = here.ledger(backup, cosigning)
    assert ledger.append_batch(events(1)).exception(PATIENCE) is not None
    assert here.refused == ["it has cosigned 9 entries, and the database holds 3"]
    assert error(cosigning.wait(1)).code == "HBK-722"


def test_without_a_witness_the_same_old_database_signs_a_second_history(stage: Make) -> None:
    here = stage()
    backup = rolled_back(here)
    assert here.write(here.ledger(backup)) == 6


def rewritten(here: Stage) -> MemoryStore:
    """The same log with another story and as many entries, signed with the log's own key by whoever runs it."""
    cosigning = here.cosigning()
    ledger = here.ledger(cosigning=cosigning)
    cosigning.wait(here.write(ledger, 9)).result(PATIENCE)
    ledger.close()
    store = MemoryStore()
    forged = Ledger(store, here.key, ORIGIN)
    here.write(forged, 9)
    here.write(forged, 3)
    forged.close()
    return store


def test_a_rewritten_history_is_refused_by_the_witness_and_proven(stage: Make) -> None:
    here = stage()
    cosigning = here.cosigning(rewritten(here))
    with pytest.raises(WitnessRefused) as found:
        cosigning.confirm(PATIENCE)
    assert found.value.context["status"] == 422
    assert found.value.context["proof"]
    assert here.reports
    assert cosigning.status().refused


def test_without_a_witness_a_reader_who_holds_no_old_checkpoint_takes_the_rewritten_history(stage: Make) -> None:
    here = stage(quorum="none")
    store = rewritten(here)
    head = store.head(ORIGIN)
    assert examine(head.checkpoint.decode(), here.policy, logs=[LogKey(ORIGIN, here.key.public)]).checkpoint.size == 12


def test_a_log_that_is_gone_is_found_where_monitors_look(stage: Make) -> None:
    here = stage()
    rolled_back(here)
    cosigning = here.cosigning(MemoryStore())
    with pytest.raises(WitnessRefused):
        cosigning.confirm(PATIENCE)
    assert len(here.refused) == 1


def test_a_new_log_is_confirmed_by_witnesses_that_know_nothing_of_it(stage: Make) -> None:
    here = stage(*three(), group="2")
    here.wire.down = {"w1"}
    here.cosigning().confirm(PATIENCE)
    here.wire.down = {"w1", "w2"}
    with pytest.raises(NotCosigned):
        here.cosigning().confirm(PATIENCE)


def test_witnesses_that_do_not_answer_confirm_nothing(stage: Make) -> None:
    here = stage()
    here.write(here.ledger())
    here.wire.down = {"w1"}
    with pytest.raises(NotCosigned):
        here.cosigning().confirm(SOON)


def hanging(here: Stage, *names: str) -> None:
    """These witnesses answer when the test is over."""

    def hang(_rest: str, _body: bytes | None) -> tuple[int, bytes]:
        here.over.wait(PATIENCE)
        return NO_ANSWER, b""

    here.wire.instead.update(dict.fromkeys(names, hang))


@pytest.mark.parametrize("grown", [False, True])
def test_a_witness_that_never_answers_holds_up_no_start_and_no_end(stage: Make, grown: bool) -> None:  # noqa: FBT001  # a parameter of pytest
    here = stage()
    if grown:
        here.write(here.ledger())
    hanging(here, "w1")
    cosigning = here.cosigning(patience=SOON)
    began = time.monotonic()
    with pytest.raises(NotCosigned):
        cosigning.confirm()
    cosigning.close(SOON)
    assert time.monotonic() - began < PATIENCE / 2
    assert cosigning._questions.count == 1


def test_an_empty_log_is_confirmed_by_the_quorum_that_answers_in_time(stage: Make) -> None:
    here = stage(*three(), group="2")
    hanging(here, "w2")
    here.cosigning().confirm(SOON * 5)


def test_a_log_that_is_gone_is_found_though_another_witness_hangs(stage: Make) -> None:
    here = stage(*three(), group="2")
    rolled_back(here)
    hanging(here, "w1")
    with pytest.raises(WitnessRefused):
        here.cosigning(MemoryStore()).confirm(PATIENCE)


def test_a_witness_that_names_the_size_it_was_asked_from_contradicts_itself(stage: Make) -> None:
    here = stage()
    here.wire.instead["w1"] = lambda _rest, _body: (409, b"0\n")
    assert "contradicts itself" in failure(here)


@pytest.mark.parametrize("answer", [b"", b"9\n", b"other roots\n"])
def test_another_root_of_the_same_size_is_a_refusal_however_it_is_put(stage: Make, answer: bytes) -> None:
    here = stage()
    size = here.write(here.ledger(), 9)

    def older(_rest: str, body: bytes | None) -> tuple[int, bytes]:
        if body is None:
            return 404, b""
        return 409, answer if parse_request(body).old == size else b"9\n"

    here.wire.instead["w1"] = older
    assert error(here.cosigning().wait(size)).context["status"] == 409


@pytest.mark.parametrize("lie", [(422, b"no\n"), (409, b"999999\n")])
def test_one_witness_that_lies_stops_nobody(stage: Make, lie: tuple[int, bytes]) -> None:
    here = stage(*three(), group="2")
    here.wire.instead["w1"] = lambda _rest, body: (404, b"") if body is None else lie
    cosigning = here.cosigning()
    ledger = here.ledger(cosigning=cosigning)
    for _ in range(3):
        cosigning.wait(here.write(ledger)).result(PATIENCE)
    assert cosigning.refusal is None
    assert here.refused == []
    assert len(here.reports) == 1
    assert {one.names[0]: one.state for one in cosigning.status().witnesses}["w1"] == "contradicts"


def test_as_many_as_make_the_quorum_impossible_are_believed_without_proof(stage: Make) -> None:
    here = stage(*three(), group="2")
    for name in ("w1", "w2"):
        here.wire.instead[name] = lambda _rest, body: (404, b"") if body is None else (422, b"no\n")
    cosigning = here.cosigning()
    assert error(cosigning.wait(here.write(here.ledger(cosigning=cosigning)))).code == "HBK-722"
    assert len(here.refused) == 1


def test_one_witness_with_proof_stops_the_log_whatever_the_others_sign(stage: Make) -> None:
    here = stage(*three(), group="2")
    backup = rolled_back(here)
    here.parties[0].add_checkpoint(Request(0, (), here.store.head(ORIGIN).checkpoint.decode()).encode())
    told = threading.Event()
    for number in (2, 3):  # they have lost their memory, or are in it together
        fresh = Party(number)
        fresh.add_log(encode_key(ORIGIN, here.key.public))
        here.wire.parties[fresh.url] = fresh
    cosigning = here.cosigning(backup)
    cosigning.on_refusal(lambda _why: told.set())
    assert told.wait(PATIENCE)
    assert cosigning.refusal is not None
    assert cosigning.refusal.context["proof"]


@pytest.mark.parametrize("shown", ["stranger", "other log", "own past", "nonsense"])
def test_what_this_log_has_not_signed_or_does_hold_proves_nothing(stage: Make, shown: str) -> None:
    here = stage(*three(), group="2")
    ledger = here.ledger()
    here.write(ledger)
    past = ledger.checkpoint()
    forger = Grower(ORIGIN, seed=9)
    other = sign_checkpoint(Checkpoint("other.example/log", 50, bytes(32)), here.key)
    notes = {"stranger": forger.note(50), "other log": other, "own past": past, "nonsense": "x\n"}
    here.wire.instead["w1"] = lambda _rest, body: (200, notes[shown].encode()) if body is None else (422, b"no\n")
    ledger.close()
    cosigning = here.cosigning()
    cosigning.wait(here.write(here.ledger(cosigning=cosigning))).result(PATIENCE)
    assert cosigning.refusal is None


# Several processes on one log


def test_another_process_that_is_ahead_is_no_rollback(stage: Make) -> None:
    here = stage()
    here.write(here.ledger())
    late = here.store.head(ORIGIN)
    ahead = here.cosigning()
    ahead.wait(here.write(here.ledger(cosigning=ahead))).result(PATIENCE)
    (one,) = endpoints(here.policy.witnesses, here.wire, here.store, ORIGIN, here.key.public)
    assert not isinstance(one.cosign(Target.of(late, here.key.public)), Contradicted | Failed)
    behind = here.cosigning()
    behind.advance(late)
    assert behind.wait(here.store.head(ORIGIN).size).result(PATIENCE)
    assert here.refused == []


def test_what_another_process_had_cosigned_serves_those_who_wait_here(stage: Make) -> None:
    here = stage()
    ledger = here.ledger()
    here.write(ledger)
    entered, release = threading.Event(), threading.Event()

    def ahead(_rest: str, body: bytes | None) -> tuple[int, bytes]:
        entered.set()
        assert release.wait(PATIENCE)
        return (404, b"") if body is None else (409, b"6\n")

    here.wire.instead["w1"] = ahead
    cosigning = here.cosigning()
    assert entered.wait(PATIENCE)
    size = here.write(ledger)
    head = ledger.checkpoint()
    line = here.parties[0].add_checkpoint(Request(0, (), head).encode()).body.decode()
    keep_cosigned(here.store, ORIGIN, Cosigned(parse_checkpoint(parse_note(head).text), head + line))
    waiting = cosigning.wait(size)
    release.set()
    assert waiting.result(PATIENCE) == head + line


def test_replicas_on_one_store_each_get_what_they_wait_for(stage: Make) -> None:
    here = stage(*three(), group="2", interval=0.0)
    sides = [here.cosigning() for _ in range(3)]
    ledgers = [here.ledger(cosigning=side) for side in sides]
    failures: list[BaseException | None] = []

    def work(ledger: Ledger) -> None:
        failures.extend(ledger.cosigned(here.write(ledger, 1)).exception(PATIENCE) for _ in range(10))

    threads = [threading.Thread(target=work, args=(ledger,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == [None] * 30
    assert here.refused == []


class Moved(MemoryStore):
    """A log that went on in a new epoch with less than it had; its witnesses know both origins."""

    def __init__(self, here: Stage) -> None:
        super().__init__()
        self.old, self.new = here.store, MemoryStore()
        self.origin = f"{ORIGIN}/epoch-1"
        self.moved = False
        here.parties[0].add_log(encode_key(self.origin, here.key.public))
        with closing(Ledger(self.new, here.key, self.origin)) as ledger:
            here.write(ledger, 2)

    def head(self, log: str) -> Head:
        if not self.moved:
            return self.old.head(log)
        head = self.new.head(self.origin)
        return Head(head.size, head.frontier, head.checkpoint, 1)

    def tile(self, log: str, level: int, index: int) -> bytes:
        return self.new.tile(self.origin, level, index) if self.moved else self.old.tile(log, level, index)


def test_after_a_new_epoch_what_was_cosigned_before_covers_nothing(stage: Make) -> None:
    here = stage()
    ledger = here.ledger()
    size = here.write(ledger)
    ledger.close()
    store = Moved(here)
    cosigning = here.cosigning(store)
    before = cosigning.wait(size).result(PATIENCE)
    assert load_cosigned(store, ORIGIN, here.key.public, here.policy) is not None
    store.moved = True
    assert load_cosigned(store, ORIGIN, here.key.public, here.policy) is None
    cosigning.advance(store.head(ORIGIN))
    after = cosigning.wait(size + 1)  # which nobody will ever sign: it wakes, and shows when the new epoch has begun
    note = here.cosigning(store).wait(2).result(PATIENCE)
    assert parse_checkpoint(parse_note(note).text).origin == store.origin
    cosigning.confirm(PATIENCE)
    while cosigning.status().cosigned == size:
        assert not after.done()
    assert cosigning.wait(2).result(PATIENCE) != before


@pytest.mark.parametrize("listed", [False, True])
def test_a_note_of_another_epoch_or_beyond_the_head_is_not_taken_for_this_logs(stage: Make, listed: bool) -> None:  # noqa: FBT001  # a parameter of pytest
    here = stage()
    ledger = here.ledger()
    here.write(ledger, 1)
    store = Moved(here)
    short, long = ledger.checkpoint(), (here.write(ledger), ledger.checkpoint())[1]
    store.moved = True
    keys = [encode_key(origin, here.key.public) for origin in (ORIGIN, store.origin)]
    logs = "".join(f"log {key}\n" for key in keys[:1]) if listed else ""
    policy = LogPolicy.parse(logs.encode() + here.policy.encode())
    for note in (short, long):
        line = cosigners("w1.example/w", seed=101)[0].cosign(parse_note(note).text, 1_800_000_000)
        store.commit(Write(rows=[Put("cosigned", ORIGIN.encode(), (note + line).encode())]))
        assert load_cosigned(store, ORIGIN, here.key.public, policy) is None
        store.moved = False
        assert load_cosigned(store, ORIGIN, here.key.public, policy) is not None
        store.moved = True


def test_a_kept_note_beyond_the_head_is_of_a_database_that_is_gone(stage: Make) -> None:
    here = stage()
    ledger = here.ledger()
    here.write(ledger)
    earlier = here.store.head(ORIGIN)
    size = here.write(ledger)
    here.cosigning().wait(size).result(PATIENCE)

    class Back(MemoryStore):
        def head(self, log: str) -> Head:
            del log
            return earlier

    store, row = Back(), here.store.get("cosigned", ORIGIN.encode())
    assert row is not None
    store.commit(Write(rows=[Put("cosigned", ORIGIN.encode(), row.value)]))
    assert load_cosigned(store, ORIGIN, here.key.public, here.policy) is None


# When who is asked


def rounds(quorum: str = "2", interval: float = 1.0) -> Rounds:
    parties = three()
    return Rounds(
        policy(*parties, group=quorum), {one.public: [one.public] for one in parties},
        interval=interval, random=lambda: 1.0,
    )  # fmt: skip


def target(size: int = 1) -> Target:
    key = SigningKey(bytes(32))
    store = MemoryStore()
    ledger = Ledger(store, key, ORIGIN)
    ledger.append_batch(events(size)).result(PATIENCE)
    ledger.close()
    return Target.of(store.head(ORIGIN), key.public)


def test_a_round_asks_everybody_once_and_ends_with_the_quorum() -> None:
    these, head = rounds(), target()
    these.begin(head, 0.0)
    assert these.ask(0.0) == ["w1", "w2", "w3"]
    assert these.ask(0.0) == []
    assert not these.ready(0.0, urgent=True)
    assert not these.signed("w1", head, {"w1": "line"})
    assert these.signed("w2", head, {"w2": "line"})
    assert these.ready(0.0, urgent=True)
    assert not these.ready(0.5, urgent=False)
    assert these.ready(1.0, urgent=False)


def test_a_cosignature_of_an_earlier_round_counts_for_nothing_in_this_one() -> None:
    these, first, second = rounds(), target(1), target(2)
    these.begin(first, 0.0)
    these.ask(0.0)
    these.signed("w1", first, {"w1": "line"})
    these.signed("w2", first, {"w2": "line"})
    these.begin(second, 1.0)
    assert these.ask(1.0) == ["w1", "w2"]
    assert not these.signed("w3", first, {"w3": "line"})
    assert these.lines == {}
    assert these.ask(1.0) == ["w3"]


def test_delays_double_up_to_a_minute_and_end_with_an_answer() -> None:
    these, head, now = rounds(), target(), 0.0
    these.begin(head, now)
    delays = []
    for _ in range(12):
        these.ask(now)
        these.failed("w1", "down", now)
        delays.append(these.seats["w1"].due - now)
        now = these.seats["w1"].due
    assert delays[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY
    these.ask(now)
    these.signed("w1", head, {"w1": "line"})
    assert these.seats["w1"].failures == 0


def test_no_round_begins_while_the_quorum_is_impossible() -> None:
    these, head = rounds(), target()
    these.begin(head, 0.0)
    these.ask(0.0)
    these.signed("w1", head, {"w1": "line"})
    for name in ("w2", "w3"):
        these.failed(name, "down", 0.0)
    assert these.lost()
    assert not these.ready(0.0, urgent=True)
    assert these.due(0.0, newer=True, urgent=True) == FIRST_DELAY
    assert these.ready(FIRST_DELAY, urgent=True)


@given(st.lists(st.tuples(st.sampled_from(["begin", "ask", "sign", "fail", "contradict", "wait"]), st.integers(0, 2))))
def test_rounds_never_spin_and_never_ask_the_same_twice_at_once(steps: list[tuple[str, int]]) -> None:
    these, now, busy = rounds(), 0.0, set[str]()
    heads = [HEADS[0], HEADS[1]]
    for step, which in steps:
        name = f"w{which + 1}"
        if step == "begin" and these.ready(now, urgent=True):
            these.begin(heads[which % 2], now)
        elif step == "ask":
            asked = these.ask(now)
            assert not busy & set(asked)
            assert not any(these.seats[one].contradicts for one in asked)
            busy |= set(asked)
        elif step == "wait":
            now += 0.3
        elif name in busy:
            busy.discard(name)
            if step == "sign":
                these.signed(name, heads[0], {name: "line"})
            elif step == "fail":
                these.failed(name, "down", now)
            else:
                these.contradicted(name, "no")
        pause = these.due(now, newer=True, urgent=False)
        assert pause is None or pause > 0


HEADS = (target(1), target(2))
