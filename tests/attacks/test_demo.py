"""The demo tells the truth: a proof is of the very entry it is shown for, and what was not stopped is reported."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from examples.payments.demo import __main__ as demo
from examples.payments.demo.attack import Attack, Found, Outcome, Result, answered, carry_out
from examples.payments.demo.books import Books
from examples.payments.demo.proof import check, row_at
from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.event import Entry
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError
from hauberk.records.ledger import Ledger, Proof
from hauberk.records.view import entry_view
from hauberk.runtime import Runtime
from tests.attacks.arena import DOMAIN, EVIL, ORDERS
from tests.attacks.control_plane import event

ONLY = ("--only", "wrong service", "--only", "whose it is")
WEAK = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everything, namespace: production}
spec: {rules: [{}]}
"""


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[str, list[Proof], list[Entry]]:
    """A ledger of two entries: its public key, and proof and row of each."""
    path, log = tmp_path / "hauberk.db", SigningKey.generate()
    store = SqliteStore(path)
    ledger = Ledger(store, log, f"{DOMAIN}/ledger")
    ledger.append_batch([event(ORDERS), event(EVIL)]).result(10)
    proofs, key = [ledger.proof(0), ledger.proof(1)], ledger.verifier
    ledger.close()
    store.close()
    rows = [row for at in range(2) if (row := row_at(path, key, at)) is not None]
    assert row_at(path, key, 2) is None
    return key, proofs, rows


def shown(row: Entry) -> dict[str, object]:
    view: dict[str, object] = json.loads(msgspec.json.encode(entry_view(row)))
    return view


def test_a_proof_is_of_exactly_the_entry_it_is_shown_for(recorded: tuple[str, list[Proof], list[Entry]]) -> None:
    key, proofs, rows = recorded
    for proof, row in zip(proofs, rows, strict=True):
        check(proof, shown(row), row, key)
    forged = {**shown(rows[1]), "actor": str(ORDERS)}
    moved = {**shown(rows[1]), "position": 0}
    wrong: list[tuple[Proof, dict[str, object], Entry | None]] = [
        (proofs[0], shown(rows[1]), rows[1]),  # of another entry
        (proofs[1], shown(rows[1]), rows[0]),  # of another row
        (proofs[1], shown(rows[1]), None),  # of no row
        (proofs[1], forged, rows[1]),  # shown with another actor
        (proofs[0], moved, rows[1]),  # shown at another position
    ]
    for of, entry, kept in wrong:
        with pytest.raises(RecordsError):
            check(of, entry, kept, key)


def test_a_proof_needs_the_signature_of_the_log(recorded: tuple[str, list[Proof], list[Entry]]) -> None:
    _, proofs, rows = recorded
    other = Ledger(MemoryStore(), SigningKey.generate(), f"{DOMAIN}/ledger")
    with pytest.raises(RecordsError):
        check(proofs[0], shown(rows[0]), rows[0], other.verifier)
    other.close()


def test_an_answer_is_a_refusal_only_with_the_expected_code_and_without_the_secret() -> None:
    body = '{"code": "HBK-300", "incident": "i-1"}'
    assert answered({"status": 403, "body": body, "error": ""}, "HBK-300").stopped
    assert not answered({"status": 201, "body": body, "error": ""}, "HBK-300").stopped
    assert not answered({"status": 403, "body": body, "error": ""}, "HBK-402").stopped
    assert not answered({"status": 500, "body": body + "10.0.0.7", "error": ""}, "HBK-300", secret="10.0.0.7").stopped
    assert not answered({"status": 0, "body": "", "error": "ConnectionResetError"}, "HBK-300").stopped


def test_a_result_is_good_only_when_stopped_and_proven_or_skipped_for_a_reason() -> None:
    assert Result("a", stopped=True, saw="", proven=True).good
    assert Result("a", stopped=False, saw="", skipped="no root").good
    assert not Result("a", stopped=True, saw="").good
    assert not Result("a", stopped=False, saw="", proven=True).good
    assert "NOT STOPPED" in demo.line(Result("a", stopped=False, saw="201"))
    assert "NO PROOF" in demo.line(Result("a", stopped=True, saw="403"))


class Quiet:
    """A stage on which nothing is recorded."""

    def ledger_size(self) -> int:
        return 0


def test_evidence_from_another_log_counts_when_it_is_proven_there() -> None:
    for proven in (True, False):
        outcome = Outcome(stopped=True, saw="", code="HBK-722", found=Found("example.org/events", "records", 7, proven))
        result = carry_out(Attack("a", lambda _, outcome=outcome: outcome), Quiet())  # type: ignore[arg-type,misc]  # asked for its size alone
        assert result.good == proven
        assert (result.log, result.position, result.code) == ("example.org/events", 7, "HBK-722")


def test_what_the_demo_takes_for_proven_is_the_very_entry_in_the_very_log(tmp_path: Path) -> None:
    (tmp_path / "witnesses").write_text("quorum none\n", "utf-8")
    stores = [Books(tmp_path / name, tmp_path / "witnesses", {}) for name in ("one", "another")]
    for books in stores:
        runtime = Runtime.embedded(books.directory, policies=())
        for number in range(3):
            runtime.audit.access("ann", f"/orders/{number}", "read", level="receipt").result(10)
        runtime.close()
    one, another = stores
    first, second = one.row(0), one.row(1)
    assert first is not None
    assert one.proves(0)
    assert one.holds(one.receipt(0), first)
    for wrong in (second, another.row(0), None, msgspec.structs.replace(first, public=first.public + b" ")):
        assert not one.holds(one.receipt(0), wrong)
    assert not another.holds(one.receipt(0), first)
    assert one.rows()[0] == first
    assert one.files_with(b"/orders/1")
    assert not one.files_with(b"/orders/9")


def test_with_a_weakened_policy_the_demo_reports_the_attack_that_got_through_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = tmp_path / "weak.yaml"
    weak.write_text(WEAK, "utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hauberk.toml").write_text('trust_domain = "elsewhere.org"\n', "utf-8")  # not the demo's
    monkeypatch.setattr(sys, "argv", ["demo", "--json", *ONLY, "--policies", "weak.yaml"])
    assert demo.main() == 1
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert [(it["attack"], it["outcome"], it["proof"]) for it in report["attacks"]] == [
        ("wrong service", "not stopped", "missing"),
        ("events: whose it is, without decrypt", "not stopped", "missing"),
    ]
    assert (report["good"], report["left"], report["ledger"]["verified"]) == (False, [], True)
    assert report["orders"]["sent"] >= demo.ORDERS
    assert report["orders"]["failed"] == 0
    assert (report["events"]["verified"], report["events"]["forgotten"]) == (True, True)
    assert "NOT STOPPED  wrong service" in told.err
    assert "0 of 2 attacks stopped" in told.err
