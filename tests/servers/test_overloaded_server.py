"""More requests than can be served: they queue before the application, then get 503."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import processes
import psycopg
import pytest
from processes import GREENLETS, Process, gunicorn, wait_until
from raw_http import begun_post
from support import assert_error, token_for

from database import WAITING_PER_CONNECTION

ORIGIN = "http://localhost:3000"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[Process]:
    folder = processes.copy_of_project(tmp_path_factory.mktemp("overload"))
    settings = {"DATABASE_POOL_SIZE": 1, "DATABASE_STATEMENT_TIMEOUT": 30_000}
    with gunicorn(folder, url, measure=GREENLETS, **settings) as process:
        yield process


@contextmanager
def stuck(api: Process, url: str, requests: int) -> Iterator[list]:
    """Have this many users wait for a table that is locked; yield the responses to come."""
    with (
        ThreadPoolExecutor(requests) as pool,
        psycopg.connect(url) as lock,
        psycopg.connect(url, autocommit=True) as other,
    ):
        lock.execute("LOCK TABLE tasks IN SHARE MODE")
        sent = {"json": {"title": "Buy milk"}, "headers": {"Origin": ORIGIN}, "timeout": 20}
        responses = [
            pool.submit(api.call, "POST", user=f"user {number}", **sent)
            for number in range(requests)
        ]
        waiting = (
            "SELECT 1 FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        wait_until(lambda: other.execute(waiting).fetchone())
        yield responses
        lock.rollback()


def test_requests_past_the_line_get_503_that_a_page_can_read_and_the_others_are_served(
    api: Process, url: str
):
    requests = 60
    with stuck(api, url, requests) as responses:
        wait_until(lambda: sum(each.done() for each in responses) >= requests - 1)
    refused = [each.result() for each in responses if each.result().status_code == 503]
    assert len(refused) >= requests - 1
    for response in refused:
        assert_error(response, 503, "unavailable")
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert api.call("GET").status_code == 200
    lines = [line for line in api.lines() if "overloaded" in line]
    assert len(lines) <= 5  # none, if the first in the queue fail for want of a connection


def test_probes_do_not_stand_in_line(api: Process, url: str):
    def seconds(_: int) -> float:
        started = time.monotonic()
        assert api.request("GET", "/livez").status_code == 200
        return time.monotonic() - started

    with stuck(api, url, 5 * WAITING_PER_CONNECTION), ThreadPoolExecutor(5) as pool:
        assert min(pool.map(seconds, range(5))) < 0.5  # later ones might find no line


def test_line_longer_than_the_pool_is_served_in_turn(api: Process):
    with ThreadPoolExecutor(30) as pool:
        sent = {"json": {"title": "Buy milk"}}
        responses = [pool.submit(api.call, "POST", user=f"user {n}", **sent) for n in range(30)]
        statuses = [each.result().status_code for each in responses]
    assert statuses == [201] * 30
    assert api.request("GET", "/api/alice/tasks", token=token_for("alice")).status_code == 200


def test_clients_that_left_the_line_are_not_served(api: Process, url: str):
    body = b'{"title": "From one who left"}'
    request = begun_post("bob", len(body)) + body[1:]
    with stuck(api, url, 3 * WAITING_PER_CONNECTION):
        for _ in range(20):
            leaving = api.connect()
            leaving.connect()
            leaving.sock.sendall(request)
            leaving.close()
        assert api.request("GET", "/livez").status_code == 200  # it came after them
    # Those that had passed the queue when they left are no longer noticed.
    assert len(api.call("GET", user="bob").json) <= WAITING_PER_CONNECTION


def test_body_that_stalls_holds_no_place_in_line(api: Process):
    stalled = [api.connect() for _ in range(40)]
    for each in stalled:
        each.connect()
        each.sock.sendall(begun_post("alice", 9))
    assert api.create()
    for each in stalled:
        each.close()
