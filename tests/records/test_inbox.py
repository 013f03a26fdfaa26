"""The inbox: nothing put in is lost, order is kept, the bound holds, the reader wakes when somebody waits."""

import threading

import pytest

from hauberk.records.inbox import Inbox
from tests.records.made import PATIENCE


def one(_item: object) -> int:
    return 1


def test_items_come_out_in_order_and_then_the_end() -> None:
    inbox: Inbox[int] = Inbox(100, 0.0)
    inbox.put(1)
    assert inbox.offer(2)
    inbox.put(3)
    inbox.close()
    assert inbox.take(100, one) == [1, 2, 3]
    assert inbox.take(100, one) is None
    assert inbox.take(100, one) is None


def test_a_batch_ends_when_its_weight_is_reached() -> None:
    inbox: Inbox[int] = Inbox(100, 0.0)
    for weight in (3, 3, 3, 1):
        inbox.put(weight)
    assert inbox.take(5, lambda item: item) == [3, 3]
    assert inbox.take(5, lambda item: item) == [3, 1]


def test_without_items_a_take_with_a_timeout_returns_nothing() -> None:
    assert Inbox[int](10, 0.0).take(10, one, timeout=0.01) == []


def test_an_offer_beyond_the_bound_is_refused_and_a_put_is_taken_without_waiting() -> None:
    inbox: Inbox[int] = Inbox(2, 0.0)
    assert inbox.offer(1)
    assert inbox.offer(2)
    assert not inbox.offer(3)
    assert inbox.put(3)
    assert inbox.take(10, one) == [1, 2, 3]


def test_somebody_who_waits_is_not_kept_lingering() -> None:
    inbox: Inbox[int] = Inbox(10, 3600.0)
    inbox.offer(1)
    inbox.put(2)
    assert inbox.take(10, one) == [1, 2]


def test_closing_wakes_a_reader() -> None:
    empty: Inbox[int] = Inbox(1, 0.0)
    ended: list[object] = []
    reader = threading.Thread(target=lambda: ended.append(empty.take(1, one)))
    reader.start()
    empty.close()
    reader.join(PATIENCE)
    assert ended == [None]


def test_many_writers_and_one_reader_lose_nothing_and_keep_each_writers_order() -> None:
    inbox: Inbox[tuple[int, int]] = Inbox(50, 0.0)
    found: list[tuple[int, int]] = []

    def write(number: int) -> None:
        for at in range(500):
            if at % 2 or not inbox.offer((number, at)):
                inbox.put((number, at))

    def read() -> None:
        while (items := inbox.take(17, one)) is not None:
            found.extend(items)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(PATIENCE)
    inbox.close()
    reader.join(PATIENCE)
    assert len(found) == 2000
    for number in range(4):
        assert [at for who, at in found if who == number] == list(range(500))


@pytest.mark.parametrize("size", [1, 3])
def test_the_bound_holds_for_one_writer(size: int) -> None:
    inbox: Inbox[int] = Inbox(size, 0.0)
    assert [inbox.offer(at) for at in range(size + 2)] == [True] * size + [False] * 2


def test_after_the_close_a_put_is_told_that_nobody_would_read_it() -> None:
    inbox: Inbox[int] = Inbox(10, 0.0)
    inbox.put(1)
    inbox.close()
    assert inbox.take(10, one) == [1]
    assert inbox.take(10, one) is None
    assert not inbox.put(2)
    assert inbox.take(10, one) is None


def test_after_the_close_an_offer_is_told_that_nobody_would_read_it() -> None:
    inbox: Inbox[int] = Inbox(10, 0.0)
    inbox.close()
    assert not inbox.offer(3)


def test_whatever_was_taken_before_the_close_comes_out_however_close_it_was() -> None:
    for _ in range(200):
        inbox: Inbox[int] = Inbox(10, 0.0)
        taken: list[bool] = []
        found: list[int] = []
        start = threading.Barrier(3)

        def write(inbox: Inbox[int] = inbox, taken: list[bool] = taken, start: threading.Barrier = start) -> None:
            start.wait(PATIENCE)
            taken.append(inbox.put(1))

        def read(inbox: Inbox[int] = inbox, found: list[int] = found, start: threading.Barrier = start) -> None:
            start.wait(PATIENCE)
            while (items := inbox.take(10, one)) is not None:
                found.extend(items)

        threads = [threading.Thread(target=write), threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        start.wait(PATIENCE)
        inbox.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(found) == sum(taken)
