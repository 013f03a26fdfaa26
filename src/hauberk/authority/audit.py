"""What an administrator asks the audit log over the admin socket, and the keys under which people are found there.

Whoever owns the state directory has the keys, so no policy is asked; that somebody read, who, and what was looked for
is recorded before anything is shown.
"""

from collections.abc import Mapping

from hauberk.core.clock import Clock
from hauberk.core.ports import Recorder
from hauberk.core.principal import Kind, Principal, Proof
from hauberk.crypto.keyring import Keyring
from hauberk.integrations.cose import cose_receipt
from hauberk.recording import Recording
from hauberk.records.access import Reads
from hauberk.records.audit_query import Answer, AuditReader, Owner, Wanted
from hauberk.records.epochs import PseudonymEpochs
from hauberk.records.permission import Permission


class AuditDesk:
    """Answers the administrator. Thread-safe.

    Args:
        recording: the ledger.
        keyring: seals the keys of pseudonyms.
        recorder: where it is recorded that somebody read.
        clock: time source.
    """

    def __init__(self, recording: Recording, keyring: Keyring, recorder: Recorder, clock: Clock) -> None:
        self._recording = recording
        self.pseudonyms = PseudonymEpochs(recording.store, keyring)
        permission = Permission(Owner(), recorder, self.pseudonyms.latest(), clock=clock)
        self._reads = Reads(permission)
        ledger = recording.ledger
        self._verifier = ledger.verifier
        self._reader = AuditReader(
            recording.store, ledger.log, ledger.verifier, self.pseudonyms, permission=permission, reads=self._reads
        )

    def ask(self, wanted: Wanted, actor: str) -> Mapping[str, object]:
        """Answer a question, as plain data; see `records.audit_query`."""
        return plain(self._reader.ask(wanted, Principal(Kind.LOCAL, actor, proof=Proof("local"))), self._verifier)

    def receipt(self, position: int) -> Mapping[str, object]:
        """Return the COSE receipt of an entry, and the leaf it proves; see `integrations.cose`.

        Raises:
            RecordsError: HBK-712 there is no such entry, or it is the only one; HBK-707 it was pruned.
            ConfigError: HBK-907 the extra is not installed.
        """
        return cose_receipt(self._recording.ledger, position, self._recording.signer)

    def close(self) -> None:
        """Record what was read in the minute that has begun."""
        self._reads.close()


def plain(answer: Answer, verifier: str) -> Mapping[str, object]:
    """Return an answer as plain data, with the key that its checkpoint is signed with."""
    return {
        "entries": [hit.view() for hit in answer.hits],
        "checkpoint": answer.checkpoint,
        "key": verifier,
        "following": answer.following,
    }
