"""How many connections a user has, and who of those waiting gets the next one."""

from concurrent.futures import ThreadPoolExecutor

from processes import wait_until

from shares import Shares


def test_no_user_gets_more_than_a_share_and_others_get_theirs():
    shares = Shares(2)
    first = shares.take("alice", 0)
    assert first
    assert shares.take("alice", 0)
    assert not shares.take("alice", 0.01)
    assert shares.take("bob", 0)
    shares.give_back(first)
    assert shares.take("alice", 0)


def test_those_who_wait_get_it_in_turn():
    shares = Shares(1)
    served: list[int] = []

    def take(number: int) -> None:
        turn = shares.take("alice", 10)
        served.append(number)
        shares.give_back(turn)

    first = shares.take("alice", 0)
    with ThreadPoolExecutor() as pool:
        for number in range(4):
            pool.submit(take, number)
            wait_until(lambda: len(first.line) == number + 2)  # noqa: B023
        shares.give_back(first)
    assert served == [0, 1, 2, 3]
    assert not shares._lines


def test_whoever_gives_up_keeps_no_place():
    shares = Shares(1)
    first = shares.take("alice", 0)
    with ThreadPoolExecutor(20) as pool:
        assert not any(pool.map(lambda _: shares.take("alice", 0.05), range(20)))
    shares.give_back(first)
    assert not shares._lines


def test_threads_at_once_never_have_more_than_a_share():
    shares = Shares(3)
    having: list[int] = []

    def take(number: int) -> bool:
        turn = shares.take("alice", 10)
        having.append(number)
        enough = len(having) <= 3
        having.remove(number)
        shares.give_back(turn)
        return enough

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(take, range(2000)))
    assert not shares._lines
