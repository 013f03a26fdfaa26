"""What an attack is, and how its evidence is found: the ledger entry it left, and the proof of that entry."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from examples.payments.demo.stage import Stage
from hauberk.errors import HauberkError

FIRST_ERROR = 400  # HTTP statuses from here on are refusals
EVIDENCE = 3.0  # seconds to wait for the entry of something no answer was waited for


@dataclass(frozen=True)
class Found:
    """Evidence that was looked up already, in a log of its own.

    Args:
        log: its name.
        layer: which layer stopped it.
        position: of the entry.
        proven: the log proves that very entry.
    """

    log: str
    layer: str
    position: int
    proven: bool


@dataclass(frozen=True)
class Outcome:
    """What came of an attack.

    Args:
        stopped: whether it was.
        saw: what the attacker saw, such as `403 HBK-300`.
        code: of the ledger entry to look for.
        incident: what the answer named, which finds the entry exactly.
        hints: texts the entry has to contain.
        found: where the authority's ledger has nothing to say, the evidence itself.
    """

    stopped: bool
    saw: str
    code: str
    incident: str = ""
    hints: tuple[str, ...] = ()
    found: Found | None = None


@dataclass(frozen=True)
class Attack:
    """One line of the catalogue."""

    name: str
    carry_out: Callable[[Stage], Outcome]
    needs: Callable[[Stage], str] = lambda _stage: ""  # why it has to be skipped, or empty


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    attack: str
    stopped: bool
    saw: str
    layer: str = ""
    code: str = ""
    position: int | None = None
    proven: bool = False
    skipped: str = ""
    log: str = "authority"  # whose log the position is of

    @property
    def good(self) -> bool:
        """Stopped and proven, or skipped for a reason."""
        return bool(self.skipped) or (self.stopped and self.proven)

    @property
    def outcome(self) -> str:
        """`stopped`, `NOT STOPPED` or `skipped`."""
        return "skipped" if self.skipped else "stopped" if self.stopped else "NOT STOPPED"

    @property
    def proof(self) -> str:
        """`proof ok` or `NO PROOF`."""
        return "proof ok" if self.proven else "NO PROOF"

    def data(self) -> dict[str, object]:
        """Return the line as plain data."""
        found = {"attack": self.attack, "outcome": self.outcome.lower(), "layer": self.layer, "code": self.code}
        return {
            **found,
            "log": self.log,
            "position": self.position,
            "proof": None if self.skipped else "ok" if self.proven else "missing",
            "saw": self.skipped or self.saw,
        }


def carry_out(attack: Attack, stage: Stage) -> Result:
    """Carry out one attack, then find and prove what the ledger says about it."""
    reason = attack.needs(stage)
    if reason:
        return Result(attack.name, stopped=False, saw="", skipped=reason)
    before = stage.ledger_size()
    try:
        outcome = attack.carry_out(stage)
    except (HauberkError, OSError, ValueError, RuntimeError, subprocess.SubprocessError) as broken:
        return Result(attack.name, stopped=False, saw=f"could not be carried out: {type(broken).__name__}")
    if (found := outcome.found) is not None and outcome.stopped:
        return Result(
            attack.name, outcome.stopped, outcome.saw, found.layer, outcome.code, found.position, found.proven,
            log=found.log,
        )  # fmt: skip
    entry = evidence(stage, before, outcome) if outcome.stopped else None
    if entry is None:
        return Result(attack.name, outcome.stopped, outcome.saw, code=outcome.code if outcome.stopped else "")
    layer = str(entry["type"]).partition(".")[0].replace("request", "edge")
    return Result(
        attack.name,
        outcome.stopped,
        outcome.saw,
        layer,
        str(entry["code"]),
        int(entry["position"]),
        stage.proves(entry),
    )


def evidence(stage: Stage, before: int, outcome: Outcome) -> dict[str, Any] | None:
    """Return the ledger entry of an attack, or None."""
    until = time.monotonic() + EVIDENCE
    while True:
        for entry in stage.entries(before - 1):
            if entry.get("code") != outcome.code or (outcome.incident and entry.get("incident") != outcome.incident):
                continue
            text = json.dumps(entry)
            if all(hint in text for hint in outcome.hints):
                return entry
        if time.monotonic() > until:
            return None
        time.sleep(0.02)


def answered(answer: dict[str, Any], code: str, *, hint: str = "", secret: str = "") -> Outcome:
    """Judge an HTTP answer: it has to be the problem with this code, and must not say `secret`.

    Args:
        answer: from `Wire.send`.
        code: expected.
        hint: text the ledger entry has to contain.
        secret: what a caller must not learn.
    """
    try:
        problem = json.loads(answer["body"] or "{}")
    except ValueError:
        problem = {}
    found = str(problem.get("code", ""))
    stopped = answer["status"] >= FIRST_ERROR and found == code and (not secret or secret not in answer["body"])
    saw = f"{answer['status']} {found or answer['error']}".strip()
    return Outcome(stopped, saw, code, str(problem.get("incident", "")), (hint,) if hint else ())


def request(method: str, target: str, *, body: bytes = b"", headers: str = "", host: str = "payments") -> bytes:
    """Return the bytes of an HTTP/1.1 request."""
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode("latin-1") + b"\r\n" + body
