"""Pseudonyms under keys that change: an epoch each, so that a key can be destroyed and its pseudonyms mean nothing.

The key of epoch 0 is the keyring's own, derived from its root secret. Those of later epochs are random; each is a row
(space `pseudonym-epoch`, key: the number in four bytes) sealed under the keyring and bound to its number. New entries
use the latest one. Whoever looks for a person computes its pseudonym under every epoch that is live.

Retiring an epoch destroys its key: its pseudonyms stay equal among themselves, and nobody can compute them from a name
again, or tell whose they were. Of epoch 0 this only holds for those who do not have the root secret, from which it can
be derived again; here it is forgotten all the same.
"""

import os
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

from hauberk.core.ports import ABSENT_ROW, Put, Row, Store, Write
from hauberk.crypto.keyring import KEY_BYTES, Keyring, Pseudonyms, Purpose
from hauberk.errors import ConfigError, RecordsError

SPACE = "pseudonym-epoch"
REMEMBERED = 16_384  # pseudonyms in memory: a keyed hash costs more than the rest of an entry
MAX_EPOCHS = 1_000  # one a month for a lifetime
_NUMBER_BYTES = 4
_RETIRED = b""  # what is left of a row, so that no number is used twice


class PseudonymEpochs:
    """The pseudonyms of one deployment. Thread-safe.

    Args:
        store: where the keys of later epochs are. Behind `adapters.authentic.AuthenticRows`, or a database writer could
            take one away unnoticed by anything but the queries that need it.
        keyring: seals them, and has that of epoch 0.
        random: makes them.

    Raises:
        ConfigError: HBK-904 a row was not sealed by this keyring for its number.
    """

    def __init__(self, store: Store, keyring: Keyring, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._store = store
        self._keyring = keyring
        self._random = random
        self._lock = threading.Lock()  # held while epochs change
        self.reload()

    def reload(self) -> None:
        """Learn what other processes have changed."""
        rows = {int.from_bytes(row.key): row for row in self._store.scan(SPACE, limit=MAX_EPOCHS)}
        live = {number: self._open(row) for number, row in rows.items() if row.value != _RETIRED}
        if 0 not in rows:
            live[0] = self._keyring.pseudonym_key()
        if not live:
            raise RecordsError("HBK-706", "there is no live epoch of pseudonyms")
        self._numbers = frozenset(rows) | live.keys()
        self._key = live[max(live)]
        self._live: Mapping[int, Pseudonyms] = {number: Pseudonyms(live[number]) for number in sorted(live)[::-1]}
        self._of = lru_cache(REMEMBERED)(Pseudonyms(self._key).of)

    def _open(self, row: Row) -> bytes:
        return self._keyring.open(Purpose.PSEUDONYM_EPOCH, row.value, aad=row.key)

    @property
    def live(self) -> tuple[int, ...]:
        """The numbers of the epochs whose keys are there, the latest, which new entries use, first."""
        return tuple(self._live)

    @property
    def upcoming(self) -> int:
        """The number of the next epoch."""
        return max(self._numbers) + 1

    def check_retirable(self, number: int) -> None:
        """Refuse to retire what is not live, or what new entries use.

        Raises:
            ConfigError: HBK-906.
        """
        if number not in self._live or number == self.live[0]:
            raise ConfigError("HBK-906", "only an epoch that is live and not the latest", epoch=number)

    def key(self) -> bytes:
        """Return the key of the latest epoch, which an authority hands to services as they start."""
        return self._key

    def latest(self) -> Pseudonyms:
        """Return the pseudonyms of the latest epoch, and of no later one."""
        return Pseudonyms(self._key)

    def of(self, kind: str, value: str) -> str:
        """Return the pseudonym of the latest epoch; see `crypto.keyring.Pseudonyms`."""
        return self._of(kind, value)

    def every(self, kind: str, value: str) -> tuple[str, ...]:
        """Return the pseudonyms of all live epochs, the latest first; none for an empty value."""
        return tuple(epoch.of(kind, value) for epoch in self._live.values()) if value else ()

    def rotate(self) -> int:
        """Begin an epoch with a new key and return its number.

        Raises:
            Conflict: HBK-701 somebody else did at the same moment.
            ConfigError: HBK-906 there are too many.
        """
        with self._lock:
            self.reload()
            number = self.upcoming
            if number >= MAX_EPOCHS:
                raise ConfigError("HBK-906", "there are too many epochs of pseudonyms", epochs=number)
            name = number.to_bytes(_NUMBER_BYTES)
            sealed = self._keyring.seal(Purpose.PSEUDONYM_EPOCH, self._random(KEY_BYTES), aad=name)
            self._store.commit(Write(rows=(Put(SPACE, name, sealed, expected=ABSENT_ROW),)))
            self.reload()
        return number

    def retire(self, number: int) -> bool:
        """Destroy the key of an epoch.

        Returns:
            Whether it was also overwritten wherever the engine may keep it; see `Store.scrub`.

        Raises:
            ConfigError: HBK-906 it is not live, or it is the latest, which new entries use.
        """
        with self._lock:
            self.reload()
            self.check_retirable(number)
            self._store.commit(Write(rows=(Put(SPACE, number.to_bytes(_NUMBER_BYTES), _RETIRED),)))
            self.reload()
        return self._store.scrub()

    def __repr__(self) -> str:
        return f"PseudonymEpochs({', '.join(map(str, self.live))})"

    def __reduce__(self) -> str:
        raise TypeError("secret keys are not pickled")


class EpochForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of the pseudonyms' keys: begin an epoch, or destroy the key of one.

    Args:
        retire: number of the epoch whose key is destroyed; None begins a new one.
    """

    retire: int | None = None


def change_epochs(
    epochs: PseudonymEpochs, form: EpochForm, record: Callable[[str, int], object]
) -> Mapping[str, object]:
    """Begin an epoch, or destroy the key of one, once that is recorded.

    Services that run get the new key when they start again; until then they use the one they have.

    Args:
        epochs: which.
        form: what is wanted.
        record: told what is about to be done, and to which epoch.

    Raises:
        ConfigError: HBK-906 it is not live, or it is the latest.
    """
    if form.retire is None:
        record("pseudonyms.begun", epochs.upcoming)
        return {"begun": epochs.rotate(), "live": epochs.live}
    epochs.check_retirable(form.retire)
    record("pseudonyms.retired", form.retire)
    scrubbed = epochs.retire(form.retire)
    return {"retired": form.retire, "scrubbed": scrubbed, "live": epochs.live}
