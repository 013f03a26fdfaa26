"""The short version of `make torture`, and that each of its complaints would be heard."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.chaos.evidence import Broken
from tests.chaos.torture import Cluster, Torture
from tests.support.postgres import database


@pytest.fixture
def torture(tmp_path: Path) -> Iterator[Torture]:
    made = Torture(tmp_path)
    yield made
    made.close()


@pytest.mark.timeout(110)
def test_whenever_it_is_killed_nothing_acknowledged_is_lost_and_nothing_signed_is_taken_back(torture: Torture) -> None:
    for _ in range(25):
        torture.kill()
    torture.restore()
    torture.fill()
    torture.finish()
    evidence = torture.evidence
    assert min(len(evidence.acknowledged), torture.events) > 100
    assert len(evidence.notes) > 20
    assert torture.arena.refused.keys() == {"HBK-703"}  # while the disk was full, and the callers know


@pytest.mark.timeout(110)
def test_a_slow_disk_makes_callers_wait_and_loses_nothing(torture: Torture) -> None:
    torture.slow(events=20)
    torture.finish()
    assert torture.arena.counts["took"] > 0
    assert torture.events >= len(torture.evidence.acknowledged) + len(torture.evidence.taken)


@pytest.mark.timeout(110)
def test_three_programs_on_one_log_are_killed_and_cut_off_and_never_fork(tmp_path: Path) -> None:
    with database() as dsn:
        cluster = Cluster(tmp_path, dsn)
        try:
            for _ in range(4):
                cluster.strike()
            cluster.finish()
            assert len(cluster.evidence.acknowledged) > 20
        finally:
            cluster.close()


@pytest.mark.timeout(110)
def test_a_store_that_acknowledges_early_is_found_out(torture: Torture) -> None:
    number = torture.arena.order(msgspec.structs.replace(torture.order, early=1.0))
    torture.arena.until(number, "ack")
    torture.arena.kill(number)
    with pytest.raises(Broken, match=r"acknowledged at"):
        torture.look()


@pytest.mark.timeout(110)
def test_an_old_copy_is_found_out_where_no_mark_guards_it(torture: Torture) -> None:
    torture.kill()
    torture.work(0.1)
    torture.order = msgspec.structs.replace(torture.order, mark="")
    with pytest.raises(Broken, match="gone on with"):
        torture.restore()


def test_an_interrupted_run_goes_on_with_what_it_knew(torture: Torture, tmp_path: Path) -> None:
    torture.kill()
    torture.work(0.1)
    torture.evidence.keep()
    again = Torture(tmp_path)
    try:
        again.look()
        assert again.evidence.acknowledged == torture.evidence.acknowledged
        assert again.evidence.notes == torture.evidence.notes
        again.finish()
    finally:
        again.close()
