"""Where the `eventsourcing` store is: what is missing is named where a developer looks, and keys are published."""

import traceback
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from hauberk.adapters.audited import AuditedFile
from hauberk.core.event import Event
from hauberk.core.ids import uuid7
from hauberk.errors import ConfigError
from hauberk.integrations._place import KEYS, STORE, Place, settings
from hauberk.records.verify import verify_store

LOG = "eventsourcing/Shop/events"


def environ(directory: Path) -> dict[str, str]:
    return {STORE: f"sqlite:{directory / 'events.db'}", KEYS: f"file:{directory / 'keys'}"}


@pytest.mark.parametrize("name", [STORE, KEYS])
def test_a_traceback_names_the_variable_that_is_missing(tmp_path: Path, name: str) -> None:
    given = environ(tmp_path)
    del given[name]
    with pytest.raises(ConfigError) as found:
        settings(given)
    shown = "".join(traceback.format_exception(found.value))
    assert f"set {name}" in shown
    assert name not in str(found.value)  # which anybody may read


def test_the_public_key_of_a_log_is_beside_its_mark(tmp_path: Path) -> None:
    for _ in range(2):  # it is the same the second time
        with closing(Place(settings(environ(tmp_path)))) as place:
            ledger = place.ledger("Shop", "events")
            ledger.submit(Event(id=uuid7(), type="test.made", stream="/streams/x", time_ns=1)).result(10)
            key = (tmp_path / "events.db.marks" / f"{quote(LOG, safe='')}.pub").read_text().strip()
            assert key == ledger.verifier
    with closing(AuditedFile(tmp_path / "events.db")) as store:
        assert verify_store(store, key).size == 2
