"""How many connections a user has, and who of those waiting gets the next one."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

import pytest
from processes import wait_until

from shares import Place, Shares


@pytest.fixture
def hectic() -> Iterator[None]:
    """Make threads switch in the middle of what they do."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_no_user_gets_more_than_a_share_and_others_get_theirs():
    shares = Shares(2)
    first = shares.acquire("alice", 0)
    assert first
    assert shares.acquire("alice", 0)
    assert not shares.acquire("alice", 0.01)
    assert shares.acquire("bob", 0)
    shares.release(first)
    assert shares.acquire("alice", 0)


def test_waiting_requests_get_a_place_in_the_order_of_arrival():
    shares = Shares(1)
    served: list[int] = []

    def take(number: int) -> None:
        turn = shares.acquire("alice", 10)
        served.append(number)
        shares.release(turn)

    first = shares.acquire("alice", 0)
    with ThreadPoolExecutor() as pool:
        for number in range(4):
            pool.submit(take, number)
            wait_until(lambda: len(first.queue) == number + 2)  # noqa: B023
        shares.release(first)
    assert served == [0, 1, 2, 3]
    assert not any(shares._queues)


def test_whoever_gives_up_keeps_no_place():
    shares = Shares(1)
    first = shares.acquire("alice", 0)
    with ThreadPoolExecutor(20) as pool:
        assert not any(pool.map(lambda _: shares.acquire("alice", 0.05), range(20)))
    shares.release(first)
    assert not any(shares._queues)


def test_threads_at_once_never_have_more_than_a_share_and_none_is_forgotten(hectic):
    shares = Shares(3)
    having: list[int] = []

    def take(number: int) -> bool:
        turn = shares.acquire("alice", 10)
        assert turn
        having.append(number)
        enough = len(having) <= 3
        having.remove(number)
        shares.release(turn)
        return enough

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(take, range(2000)))
    assert not any(shares._queues)


def test_whoever_fails_as_they_wait_keeps_no_place(monkeypatch: pytest.MonkeyPatch):
    shares = Shares(1)
    first = shares.acquire("alice", 0)
    assert first
    with monkeypatch.context() as patch:
        patch.setattr("shares.SimpleQueue", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            shares.acquire("alice", 0)
    shares.release(first)
    assert shares.acquire("alice", 0)


def test_users_with_colliding_hashes_have_separate_shares(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shares.QUEUES", 1)
    shares = Shares(1)
    first = shares.acquire("alice", 0)
    assert first
    assert not shares.acquire("alice", 0)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(shares.acquire, "alice", 10)
        wait_until(lambda: len(first.queue) == 2)
        assert shares.acquire("bob", 0)
        shares.release(first)
        assert waiting.result()


def test_place_that_became_free_before_the_wait_is_taken_at_once(monkeypatch: pytest.MonkeyPatch):
    shares = Shares(1)
    first = shares.acquire("alice", 0)

    def make_queue() -> SimpleQueue[None]:
        shares.release(first)  # nobody is awaited yet, so nobody is woken
        return SimpleQueue()

    monkeypatch.setattr("shares.SimpleQueue", make_queue)
    assert shares.acquire("alice", 0)


def test_place_that_becomes_free_as_the_next_gives_up_goes_to_the_one_after(
    monkeypatch: pytest.MonkeyPatch,
):
    shares = Shares(1)
    first = shares.acquire("alice", 0)
    after = Place("alice", first.queue)
    after.wake_up = SimpleQueue()

    class TooLate(SimpleQueue):
        def get(self, **_: object) -> None:
            after.queue.append(after)
            shares.release(first)
            raise Empty

    monkeypatch.setattr("shares.SimpleQueue", TooLate)
    assert not shares.acquire("alice", 10)
    assert not after.wake_up.empty()
