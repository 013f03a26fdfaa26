"""A refusal is recorded before it is answered."""

from collections.abc import Callable

from hauberk.errors import IdentityError, RecordsError

_UNRECORDED = "HBK-703"  # what failed is the record itself


class Refusals:
    """Within `with`, records what is refused: identities, and records that are not the sender's.

    Args:
        record: writes an event and waits for it.
        what: what was asked for.
        actor: by whom, as far as that is proven.
    """

    def __init__(self, record: Callable[..., object], what: str, actor: str) -> None:
        self._record = record
        self._what = what
        self._actor = actor

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Record what was refused, if anything was."""
        if isinstance(error, IdentityError | RecordsError) and error.code != _UNRECORDED:
            kind = "identity.denied" if isinstance(error, IdentityError) else "records.denied"
            self._record(kind, outcome="deny", actor=self._actor, code=error.code, rule=self._what)
