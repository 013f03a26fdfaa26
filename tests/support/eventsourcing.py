"""The reusable tests of the `eventsourcing` library, importable without the second cryptography package they name."""

import sys

from eventsourcing import cryptography

# Its tests name the cipher made of `pycryptodome`; the one made of `cryptography` is the same to them.
sys.modules.setdefault("eventsourcing.cipher", cryptography)

from eventsourcing.tests import application, persistence, projection  # noqa: E402  # only now there is that cipher

__all__ = ["application", "persistence", "projection"]
