"""The demo's payment service over mutual TLS, in one of four dresses: `python -m bench.service MODE PORT`."""

import os
import sys
import tempfile
from concurrent.futures import Future
from pathlib import Path

import hauberk
from examples.payments.payment_service import create_app
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.event import Event, Receipt
from hauberk.core.ports import Draft
from hauberk.crypto.signing import SigningKey
from hauberk.integrations.uvicorn import serve
from hauberk.records.fold import Folder
from hauberk.records.ledger import Ledger


class Nowhere:
    """A recorder that forgets: what the guards alone cost."""

    def submit(self, event: Event) -> "Future[Receipt]":
        """Forget an event."""
        done: Future[Receipt] = Future()
        done.set_result(Receipt(event.id, None, "nowhere"))
        return done

    def offer(self, _event: Event | Draft) -> None:
        """Forget an event."""
        return

    def close(self, timeout: float = 10.0) -> None:
        """Nothing to close."""


def main() -> None:
    """Serve until terminated."""
    mode, port = sys.argv[1], int(sys.argv[2])
    runtime = hauberk.connect(environ={**os.environ, "HAUBERK_IDENTITY_ENTRY": "payment-service"})
    if mode == "none":
        serve(create_app(), port=port, source=runtime.source, on_ready=lambda _: print("ready", flush=True))
        return
    if mode == "guards":
        runtime.recorder = Nowhere()
    elif mode == "embedded":
        store = SqliteStore(Path(tempfile.mkdtemp()) / "ledger.db")
        runtime.recorder = Folder(Ledger(store, SigningKey.generate(), "bench/ledger"))
    app = hauberk.protect(create_app(), runtime)
    hauberk.serve(app, port=port, runtime=runtime, on_ready=lambda _: print("ready", flush=True))


if __name__ == "__main__":
    main()
