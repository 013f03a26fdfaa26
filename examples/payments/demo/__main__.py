"""`make demo`: real processes, real requests, real attacks; exit status 0 only if all were stopped and proven.

python -m examples.payments.demo [--json]
"""

import json
import sys
import threading
import time
from dataclasses import asdict

import hauberk
from examples.payments.demo.attack import Result, carry_out
from examples.payments.demo.catalogue import catalogue
from examples.payments.demo.stage import Stage
from examples.payments.demo.tampering import copy_of, tamper, whole

ORDERS = 20
CREATED = 201


def say(text: str = "") -> None:
    """Tell people, on standard error, so that `--json` has standard output to itself."""
    print(text, file=sys.stderr, flush=True)


def send_orders(stage: Stage, stop: threading.Event, results: list[int]) -> None:
    """Order and pay until told to stop."""
    url = f"https://127.0.0.1:{stage.orders}"
    with hauberk.client(to="order-service", runtime=stage.storefront, base_url=url) as shop:
        while not stop.is_set() or len(results) < ORDERS:
            order = {"order": f"o-{len(results)}", "amount": 1250}
            results.append(shop.post("/api/orders", json=order).status_code)


def traffic(stage: Stage) -> tuple[int, int]:
    """Send orders while every certificate is renewed; return how many were sent and how many failed."""
    results: list[int] = []
    stop = threading.Event()
    sender = threading.Thread(target=send_orders, args=(stage, stop, results))
    sender.start()
    services = ("order-service", "payment-service")
    before = {name: stage.serials(name) for name in services}
    stage.command("svid", "renew", "--dir", str(stage.state))
    until = time.monotonic() + 5
    while any(len(stage.serials(name) - before[name]) < 1 for name in services) and time.monotonic() < until:
        time.sleep(0.02)
    sent = len(results)
    while len(results) < sent + ORDERS and sender.is_alive():
        time.sleep(0.01)
    stop.set()
    sender.join()
    failures = sum(status != CREATED for status in results)
    renewed = all(stage.serials(name) - before[name] for name in services)
    return len(results), failures + (not renewed)


def line(result: Result) -> str:
    """Return one line of the table."""
    if result.skipped:
        return f"  skipped  {result.name:<38} {result.skipped}"
    mark = "stopped" if result.stopped else "NOT STOPPED"
    entry = "-" if result.position is None else f"#{result.position}"
    proof = "proof ok" if result.proven else "NO PROOF"
    return f"  {mark:<8} {result.name:<38} {result.layer:<10} {result.code:<8} {entry:>5}  {proof}   {result.saw}"


def play() -> dict[str, object]:
    """Run everything and return the report."""
    began = time.monotonic()
    say("starting the authority, order-service, payment-service and evil-service ...")
    with Stage() as stage:
        say(f"  ready after {time.monotonic() - began:.1f} s; STRICT mutual TLS, least privilege, default deny")
        stage.early = copy_of(stage, "early")
        sent, failed = traffic(stage)
        say(f"  {sent} orders paid over mutual TLS while all certificates were renewed; {failed} failed")
        say("attacks: outcome, attack, layer, code, ledger entry, proof, what the attacker saw")
        results = []
        for attack in catalogue():
            results.append(carry_out(attack, stage))
            say(line(results[-1]))
        for result in tamper(stage):
            results.append(result)
            say(line(result))
        sound, size = whole(stage)
        say(f"  ledger of {size} entries verified offline from its public key: {'ok' if sound else 'FAILED'}")
    good = sound and not failed and all(result.good for result in results)
    seconds = round(time.monotonic() - began, 1)
    stopped = sum(result.stopped for result in results)
    skipped = sum(bool(result.skipped) for result in results)
    say(f"{stopped} of {len(results)} attacks stopped and proven, {skipped} skipped; {seconds} s; nothing left running")
    return {
        "good": good,
        "orders": {"sent": sent, "failed": failed},
        "attacks": [asdict(result) for result in results],
        "ledger": {"entries": size, "verified": sound},
        "seconds": seconds,
    }


def main() -> int:
    """Run the demo."""
    report = play()
    if "--json" in sys.argv[1:]:
        print(json.dumps(report, indent=2))
    return 0 if report["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
