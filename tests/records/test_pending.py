"""What a write returns: awaited or asked for, changed, and never taken back."""

import asyncio
from concurrent.futures import Future

import pytest

from hauberk.errors import Conflict, RecordsError
from hauberk.records.pending import Pending


def test_a_thread_asks_for_the_result_and_a_coroutine_awaits_it() -> None:
    async def wait() -> int:
        return await Pending.of(3)

    assert Pending.of(3).result() == asyncio.run(wait()) == 3
    assert repr(Pending.of(3)) == "Pending(done)"


def test_an_error_is_raised_where_it_is_waited_for() -> None:
    failed: Pending[int] = Pending.failed(Conflict())

    async def wait() -> int:
        return await failed

    for attempt in (failed.result, failed.then(str).result, lambda: asyncio.run(wait())):
        with pytest.raises(Conflict):
            attempt()


def test_giving_up_waiting_takes_nothing_back() -> None:
    future: Future[int] = Future()
    future.set_running_or_notify_cancel()
    pending = Pending(future)

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pending, 0.001)

    asyncio.run(impatient())
    with pytest.raises(TimeoutError):
        pending.result(0.001)
    assert not pending.done()
    assert repr(pending) == "Pending(waiting)"
    future.set_result(7)
    assert pending.result() == 7


def test_an_outcome_can_be_changed_and_the_change_may_refuse_it() -> None:
    def refuse(_value: int) -> str:
        raise RecordsError("HBK-703")

    assert Pending.of(3).then(str).result() == "3"
    with pytest.raises(RecordsError):
        Pending.of(3).then(refuse).result()
