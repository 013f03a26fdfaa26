"""A small service: records without pause from four threads and prints the id of each event once it is acknowledged.

Says `ready` when it has an identity, and `forwarded` once nothing waits in its spool (again).
"""

import signal
import sys
import threading
import time
from collections.abc import Mapping

import hauberk
from hauberk.errors import RecordsError

THREADS = 4
PAUSE = 0.002  # seconds between two events of a thread: leaves the machine to others
_lock = threading.Lock()  # one line at a time


def say(line: str) -> None:
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def record(runtime: hauberk.Runtime, stopping: threading.Event) -> None:
    while not stopping.wait(PAUSE):
        event = runtime.event("order.paid", "ok", data={"text": "x" * 200})
        try:
            receipt = runtime.recorder.submit(event).result()
        except RecordsError as error:
            say(f"refused {error.code}")
            continue
        say(f"{receipt.where} {event.id.hex()}")


def watch(runtime: hauberk.Runtime, stopping: threading.Event) -> None:
    """Say when the spool has become empty."""
    waiting = True
    while not stopping.wait(0.02):
        records = runtime.status()["records"]
        depth = records["spooled_batches"] if isinstance(records, Mapping) else None
        if waiting and depth == 0:
            say("forwarded")
        waiting = depth != 0


def main() -> None:
    runtime = hauberk.connect()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    say("ready")
    threads = [threading.Thread(target=record, args=(runtime, stopping)) for _ in range(THREADS)]
    threads.append(threading.Thread(target=watch, args=(runtime, stopping)))
    for thread in threads:
        thread.start()
    while not stopping.is_set():
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    runtime.close()


if __name__ == "__main__":
    main()
