"""`make demo`: real processes, real requests, real attacks; exit status 0 only if all were stopped and proven.

python -m examples.payments.demo [--json] [--only TEXT] [--policies FILE]
"""

import argparse
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import httpx2

import hauberk
from examples.payments.demo.attack import Result, carry_out
from examples.payments.demo.catalogue import catalogue
from examples.payments.demo.remembering import forget, remembered
from examples.payments.demo.stage import MESH, Stage
from examples.payments.demo.tampering import begin_whole, copy_of, end_whole, tamper, wanted

ORDERS = 20
CUSTOMERS = 7  # who take turns
CREATED = 201
RENEWED_SECONDS = 10.0  # every certificate has to be renewed by then
HEADER = "  outcome      attack                                 layer      code      entry  proof      the attacker saw"


def say(text: str = "") -> None:
    """Tell people, on standard error, so that `--json` has standard output to itself."""
    print(text, file=sys.stderr, flush=True)


def send_orders(stage: Stage, stop: threading.Event, results: list[int]) -> None:
    """Order and pay until told to stop; an order without an answer counts as status 0."""
    url = f"https://127.0.0.1:{stage.orders}"
    with hauberk.client(to="order-service", runtime=stage.storefront, base_url=url) as shop:
        while not stop.is_set() or len(results) < ORDERS:
            number = len(results)
            customer = f"customer-{number % CUSTOMERS}"
            order = {"order": f"o-{number}", "amount": 1250, "customer": customer, "email": f"{customer}@mail.test"}
            try:
                results.append(shop.post("/api/orders", json=order).status_code)
            except httpx2.HTTPError:
                results.append(0)


def traffic(stage: Stage) -> tuple[int, int]:
    """Send orders while every certificate is renewed; return how many were sent and how many failed."""
    results: list[int] = []
    stop = threading.Event()
    sender = threading.Thread(target=send_orders, args=(stage, stop, results))
    sender.start()
    try:
        renewed = _renew(stage)
        sent = len(results)
        while len(results) < sent + ORDERS and sender.is_alive():
            time.sleep(0.01)
    finally:
        stop.set()
        sender.join()
    return len(results), sum(status != CREATED for status in results) + (not renewed)


def _renew(stage: Stage) -> bool:
    """Have every certificate renewed and tell whether that happened."""
    services = {"order-service": 2, "payment-service": 1}  # order-service runs twice: itself and the stolen replica
    before = {name: stage.serials(name) for name in services}
    stage.command("svid", "renew", "--dir", str(stage.state))
    until = time.monotonic() + RENEWED_SECONDS
    while waiting := [name for name, of in services.items() if len(stage.serials(name) - before[name]) < of]:
        if time.monotonic() > until:
            break
        time.sleep(0.02)
    return not waiting


def line(result: Result) -> str:
    """Return one line of the table."""
    if result.skipped:
        return f"  {result.outcome:<12} {result.attack:<38} {result.skipped}"
    entry = "-" if result.position is None else f"#{result.position}"
    where = f"{result.layer or '-':<10} {result.code or '-':<8} {entry:>6}"
    return f"  {result.outcome:<12} {result.attack:<38} {where}  {result.proof:<9}  {result.saw}"


def attacks(stage: Stage, only: Sequence[str]) -> list[Result]:
    """Carry out every attack whose name contains one of these texts, and say what came of each at once."""
    say(HEADER)
    results = []
    for attack in catalogue():
        if wanted(attack.name, only):
            results.append(carry_out(attack, stage))
            say(line(results[-1]))
    for result in tamper(stage, only):
        results.append(result)
        say(line(result))
    return results


def play(only: Sequence[str] = (), policies: Path = MESH) -> dict[str, object]:
    """Run everything and return the report.

    Args:
        only: texts of which the names of the attacks to carry out contain one; none for all attacks.
        policies: what is in force.
    """
    began = time.monotonic()
    say("starting real processes on loopback; this takes about twenty seconds ...")
    with Stage(policies=policies, tell=lambda text: say(f"  {text}")) as stage:
        say(f"  ready after {time.monotonic() - began:.1f} s; orders are paid while every certificate is renewed ...")
        stage.early = copy_of(stage, "early")
        sent, failed = traffic(stage)
        say(f"  {sent} orders paid over mutual TLS while all certificates were renewed; {failed} failed")
        gone = forget(stage)
        say(f"  {gone.text}: {'ok' if gone.good else 'FAILED'}")
        results = attacks(stage, only)
        verifying = begin_whole(stage)
        kept, what = remembered(stage)
        sound, size = end_whole(verifying)
        say(f"  the whole ledger, {size} entries, verified offline from its public key: {'ok' if sound else 'FAILED'}")
        say(f"  the event store, {what}: {'ok' if kept else 'FAILED'}")
    left, seconds = stage.left(), round(time.monotonic() - began, 1)
    good = bool(results) and sound and kept and gone.good and not failed and not left
    good = good and all(result.good for result in results)
    say(verdict(results, seconds, left))
    return {
        "good": good,
        "orders": {"sent": sent, "failed": failed},
        "attacks": [result.data() for result in results],
        "ledger": {"entries": size, "verified": sound},
        "events": {"verified": kept, "forgotten": gone.good, "certificate": gone.position},
        "left": left,
        "seconds": seconds,
    }


def verdict(results: list[Result], seconds: float, left: list[str]) -> str:
    """Return the last line."""
    tried = [result for result in results if not result.skipped]
    stopped = sum(result.good for result in tried)
    skipped = len(results) - len(tried)
    rest = f"left behind: {', '.join(left)}" if left else "nothing left running or lying about"
    return f"{stopped} of {len(tried)} attacks stopped and proven, {skipped} skipped; {seconds} s; {rest}"


def _end(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)  # through the stage's exit, so that nothing is left


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description="Carry out every attack and show what stopped it.")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON document")
    parser.add_argument(
        "--only", default=[], action="append", metavar="TEXT", help="only attacks named so; again for more"
    )
    parser.add_argument("--policies", default=MESH, type=Path, metavar="FILE", help="other policies, to see what gives")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    logging.getLogger("hauberk").addHandler(logging.NullHandler())  # what it would say is in the table
    try:
        report = play(arguments.only, arguments.policies.absolute())
    except RuntimeError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; nothing left running")
        return 130
    if arguments.json:
        print(json.dumps(report, indent=2))
    return 0 if report["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
