"""The identity a process has right now: key, chain and bundles, exchanged as one value.

Readers take `current()` and see all of one moment or all of another, never a new chain with an old key. Callbacks run
in the thread that called `update`, after the exchange, one update at a time and in their order, so that nobody is left
with an older moment than `current()`. They must not raise, nor wait for another thread's update. Fetching is not done
here.
"""

import random as _random
import threading
from collections.abc import Callable, Mapping

import msgspec

from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.x509 import SvidInfo, WorkloadKey
from hauberk.errors import TransportError
from hauberk.identity.bundle import BundleSet

HALF_LIFE = 0.5  # of an SVID's life; leaves as long again to survive an authority that is gone
JITTER = 0.1  # of an SVID's life, each way; a fleet started at once does not renew at once
_uniform = _random.SystemRandom().random


class Material(msgspec.Struct, frozen=True):
    """One moment of an identity.

    Args:
        key: the private key.
        svid: the chain it belongs to.
        bundles: whom to trust.
    """

    key: WorkloadKey
    svid: SvidInfo
    bundles: BundleSet

    @property
    def roots(self) -> Mapping[str, tuple[bytes, ...]]:
        """The roots by trust domain, DER."""
        return self.bundles.roots


class SvidSource:
    """Holds the current material. Thread-safe.

    Args:
        key: the workload's private key.
        svid: its chain.
        bundles: whom to trust.

    Raises:
        TransportError: HBK-105 the key is not that of the chain.
    """

    def __init__(self, key: WorkloadKey, svid: SvidInfo, bundles: BundleSet) -> None:
        self._turn = threading.RLock()  # held for a whole update, callbacks included; a callback may update again
        self._lock = threading.Lock()  # guards _callbacks; taken inside _turn, never the other way round
        self._callbacks: list[Callable[[Material], None]] = []
        self._material = _fitting(key, svid, bundles)

    def current(self) -> Material:
        """Return the material of this moment; the same object until something changes."""
        return self._material

    @property
    def spiffe_id(self) -> SpiffeId:
        """Who this process is."""
        return self._material.svid.spiffe_id

    def update(
        self, *, key: WorkloadKey | None = None, svid: SvidInfo | None = None, bundles: BundleSet | None = None
    ) -> Material:
        """Exchange what is given, keep the rest, and tell everybody who asked.

        Raises:
            TransportError: HBK-105 the key is not that of the chain, or the chain names another id; nothing changes.
        """
        with self._turn:
            old = self._material
            new = _fitting(key or old.key, svid or old.svid, old.bundles if bundles is None else bundles)
            if new.svid.spiffe_id != old.svid.spiffe_id:
                raise TransportError("HBK-105", "a renewal never changes the id", spiffe_id=str(new.svid.spiffe_id))
            self._material = new
            with self._lock:
                callbacks = tuple(self._callbacks)
            for callback in callbacks:
                if self._material is new:  # else a callback has updated again and everybody knows that already
                    callback(new)
        return new

    def on_change(self, callback: Callable[[Material], None]) -> Callable[[], None]:
        """Call `callback` after each exchange; the returned function ends that."""
        with self._lock:
            self._callbacks.append(callback)

        def forget() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return forget

    def __repr__(self) -> str:
        return f"SvidSource({self.spiffe_id})"


def renew_at(svid: SvidInfo, random: Callable[[], float] = _uniform) -> float:
    """Return when to renew: at half of its life, a tenth of it earlier or later.

    Args:
        svid: the current one.
        random: a number from 0 to 1.

    Returns:
        Unix seconds.
    """
    life = svid.not_after - svid.not_before
    return svid.not_before + life * (HALF_LIFE + JITTER * (2 * random() - 1))


def _fitting(key: WorkloadKey, svid: SvidInfo, bundles: BundleSet) -> Material:
    if key.public_key != svid.public_key:
        raise TransportError("HBK-105", "the key is not that of the chain", spiffe_id=str(svid.spiffe_id))
    return Material(key, svid, bundles)
