"""Requests beyond what the pool can serve queue, and are refused where the queue is too long."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count, cycle
from queue import SimpleQueue
from threading import Event, get_ident
from time import monotonic

import pytest
from flask import Flask
from processes import wait_until
from support import PREFLIGHT, Lines, NewApp, User, assert_error

from capacity.overload import BEGUN_PER_ITERATION
from config import PROJECT
from database import WAITING_PER_CONNECTION, Database
from shares import Shares

REQUESTS = 3 * WAITING_PER_CONNECTION


@pytest.fixture
def narrow(new_app: NewApp) -> Flask:
    """An application with one connection."""
    return new_app(database_pool_size=1)


def status_for(app: Flask, number: int) -> int:
    response = User(app.test_client(), f"user {number}").call("GET")
    if response.status_code != 200:
        assert_error(response, 503, "unavailable")
    return response.status_code


def create_for(app: Flask, number: int) -> int:
    user = User(app.test_client(), f"user {number}")
    return user.call("POST", json={"title": "Buy milk"}).status_code


def is_crowded_while_all_ask(app: Flask, pool: ThreadPoolExecutor) -> list:
    responses = [pool.submit(status_for, app, number) for number in range(REQUESTS)]
    database: Database = app.extensions["database"]
    wait_until(database.is_crowded)
    return responses


def test_queued_requests_are_served_once_there_is_room(narrow: Flask):
    with ThreadPoolExecutor(REQUESTS) as pool:
        with narrow.extensions["database"].connection():
            responses = is_crowded_while_all_ask(narrow, pool)
        assert [response.result() for response in responses] == [200] * REQUESTS


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_probe_does_not_stand_in_line(narrow: Flask, monkeypatch: pytest.MonkeyPatch, path: str):
    monkeypatch.setattr(narrow.extensions["database"], "is_crowded", lambda: True)
    assert narrow.test_client().get(path).status_code == 200


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[SimpleQueue]:
    """Collect those who wait in line behind the first."""
    waiting: list[SimpleQueue] = []

    class Turn(SimpleQueue):
        def get(self) -> None:
            waiting.append(self)
            super().get()

    monkeypatch.setattr("capacity.overload.SimpleQueue", Turn)
    return waiting


def test_queued_requests_are_let_in_in_the_order_of_arrival(
    narrow: Flask, waiting: list[SimpleQueue], monkeypatch: pytest.MonkeyPatch
):
    looks: list[bool] = []
    is_crowded = True

    def look() -> bool:
        looks.append(is_crowded)
        return is_crowded

    let_in: list[str] = []
    monkeypatch.setattr(narrow.extensions["database"], "is_crowded", look)
    monkeypatch.setattr(
        "capacity.overload.has_gone", lambda environ: let_in.append(environ["PATH_INFO"])
    )
    with ThreadPoolExecutor(4) as pool:
        responses = [pool.submit(status_for, narrow, 0)]
        wait_until(lambda: len(looks) > 1)
        for number in range(1, 4):
            responses.append(pool.submit(status_for, narrow, number))
            wait_until(lambda expected=number: len(waiting) == expected)
        is_crowded = False
        assert [response.result() for response in responses] == [200] * 4
    assert let_in == [f"/api/user {number}/tasks" for number in range(4)]


def test_new_request_does_not_overtake_a_queued_one(
    narrow: Flask, waiting: list[SimpleQueue], monkeypatch: pytest.MonkeyPatch
):
    looks: list[int] = []
    has_room = Event()

    def look() -> bool:
        looks.append(get_ident())
        return get_ident() == looks[0] and not has_room.is_set()

    monkeypatch.setattr(narrow.extensions["database"], "is_crowded", look)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(status_for, narrow, 0)
        wait_until(lambda: len(looks) > 1)
        second = pool.submit(status_for, narrow, 1)
        wait_until(lambda: waiting or second.done())
        assert not second.done()
        has_room.set()
        assert (first.result(), second.result()) == (200, 200)


def test_requests_beyond_those_of_an_iteration_begin_in_the_next(
    new_app: NewApp, monkeypatch: pytest.MonkeyPatch
):
    iteration, looks = 1.0, []

    def look() -> float:
        looks.append(iteration)
        return iteration

    monkeypatch.setattr("capacity.overload.loop_clock", lambda: look)
    app = new_app()
    assert {status_for(app, number) for number in range(BEGUN_PER_ITERATION)} == {200}
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(status_for, app, BEGUN_PER_ITERATION)
        wait_until(lambda: late.done() or len(looks) > BEGUN_PER_ITERATION + 2)
        assert not late.done()
        iteration = 2.0
        assert late.result() == 200


def test_iteration_of_the_loop_lasts_until_it_looks_at_its_sockets_again():
    script = """
from gevent import joinall, monkey, spawn
monkey.patch_all()
from time import sleep
from capacity.turns import loop_clock
now = loop_clock()
first = now()
assert now() == first
sleep(0.001)
assert now() > first
found = []
def work():
    found.append(now())
    sleep(0.001)
joinall([spawn(work) for _ in range(3)])
assert len(found) == 3 and len(set(found)) == 1
"""
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=True)


def test_in_an_iteration_of_the_loop_one_long_work_goes_on():
    script = """
from gevent import joinall, monkey, spawn
monkey.patch_all()
from capacity import turns
turns.TURN = -1  # over after each item
now, found = turns.loop_clock(), []
def work():
    for number in turns.in_turns(range(20)):
        if number:
            found.append(now())
joinall([spawn(work) for _ in range(4)])
assert len(found) == len(set(found)) == 4 * 19
"""
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=True)


def test_very_many_requests_of_one_user_make_a_crowd_too(
    new_app: NewApp, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("database.WAITING_FOR_SHARES", 2)
    app = new_app(database_pool_size=2)  # a share of one
    database: Database = app.extensions["database"]
    held = database._shares.acquire("user 0", 0)
    assert held
    with ThreadPoolExecutor(2) as pool:
        responses = [pool.submit(status_for, app, 0) for _ in range(2)]
        wait_until(database.is_crowded)
        database._shares.release(held)
        assert [response.result() for response in responses] == [200, 200]
    assert not database.is_crowded()


def test_very_many_writes_make_a_crowd_too(app: Flask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("database.WAITING_WRITES", 2)
    database: Database = app.extensions["database"]
    shares = Shares(1)
    monkeypatch.setattr(database, "_share_of_writes", shares)
    held = shares.acquire("all", 0)
    assert held
    with ThreadPoolExecutor(2) as pool:
        responses = [pool.submit(create_for, app, number) for number in range(2)]
        wait_until(database.is_crowded)
        assert database.pool_stats()["requests_waiting"] == 2
        shares.release(held)
        assert [response.result() for response in responses] == [201, 201]
    assert not database.is_crowded()


def test_requests_that_queue_for_too_long_get_503(narrow: Flask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("capacity.overload.PATIENCE", 0.1)
    with ThreadPoolExecutor(REQUESTS) as pool, narrow.extensions["database"].connection():
        responses = is_crowded_while_all_ask(narrow, pool)
        preflight = narrow.test_client().options("/api/alice/tasks", headers=PREFLIGHT)
        assert preflight.status_code == 200  # a page whose preflight fails does not see the 503
        assert 503 in [response.result() for response in responses]
    assert status_for(narrow, 0) == 200


def test_refusal_is_a_line_with_its_cause(
    narrow: Flask, monkeypatch: pytest.MonkeyPatch, lines: Lines
):
    monkeypatch.setattr("capacity.overload.PATIENCE", 0)
    monkeypatch.setattr(narrow.extensions["database"], "is_crowded", lambda: True)
    assert status_for(narrow, 0) == 503
    assert lines()[-1]["cause"] == "Overloaded: there was no room"


def test_head_that_is_refused_has_no_body(narrow: Flask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("capacity.overload.PATIENCE", 0)
    monkeypatch.setattr(narrow.extensions["database"], "is_crowded", lambda: True)
    response = User(narrow.test_client(), "alice").call("HEAD")
    assert (response.status_code, response.data) == (503, b"")
    assert int(response.headers["Content-Length"]) > 0


def test_one_in_four_requests_that_queued_for_too_long_is_refused(
    narrow: Flask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("capacity.overload.PATIENCE", 0)
    crowded = cycle([True, False])  # when a request comes, and when it is its turn
    monkeypatch.setattr(narrow.extensions["database"], "is_crowded", crowded.__next__)
    assert [status_for(narrow, number) for number in range(8)] == [503, 200, 200, 200] * 2


def test_refusals_of_one_second_are_one_line_in_the_log(
    narrow: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    times = count(monotonic(), 0.01)  # a slow machine would take more than a second
    monkeypatch.setattr("capacity.overload.monotonic", times.__next__)
    monkeypatch.setattr("capacity.overload.PATIENCE", 0)
    monkeypatch.setattr(narrow.extensions["database"], "is_crowded", lambda: True)
    assert [status_for(narrow, number) for number in range(3)] == [503] * 3
    monkeypatch.setattr("capacity.overload.LOG_PAUSE", 0)
    assert [status_for(narrow, number) for number in range(2)] == [503] * 2
    told = [line for line in caplog.messages if "overloaded" in line]
    assert told == [f"overloaded: {refused} refused, 0 queued" for refused in (1, 3, 1)]
