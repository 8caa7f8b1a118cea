"""PostgreSQL away, restarted, hanging, full, read-only: 503 at once, success after its return.

Each on a server of this file's own, through gunicorn and through the application in this process.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import processes
import psycopg
import pytest
from flask import Flask
from own_postgres import OwnPostgres
from pools import POOL_SIZE, THREADS, at_once, wait_until_all_are_free
from processes import wait_until
from support import User, app_on, assert_error

import database

STATEMENT_TIMEOUT = 1000  # milliseconds


class InProcess:
    """The application in this process, called like a served one."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def call(self, method: str, path: Any = "", **options: Any) -> Any:
        return User(self.app.test_client(), "alice").call(method, path, **options)

    def create(self) -> Any:
        return User(self.app.test_client(), "alice").create()["id"]

    def request(self, method: str, path: str) -> Any:
        return self.app.test_client().open(path, method=method)


Api = InProcess | processes.Process


@pytest.fixture(scope="module")
def served(own_server: OwnPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = processes.copy_of_project(tmp_path_factory.mktemp("served"))
    settings = {"DATABASE_POOL_SIZE": POOL_SIZE, "DATABASE_STATEMENT_TIMEOUT": STATEMENT_TIMEOUT}
    with processes.gunicorn(folder, own_server.url, **settings) as process:
        yield process


@pytest.fixture(scope="module")
def in_process(own_server: OwnPostgres) -> Iterator[Api]:
    settings = {"database_pool_size": POOL_SIZE, "database_statement_timeout": STATEMENT_TIMEOUT}
    with app_on(own_server.url, **settings) as app:
        yield InProcess(app)


@pytest.fixture(params=["served", "in_process"])
def api(request: pytest.FixtureRequest, own_server: OwnPostgres) -> Iterator[Api]:
    """The API with a full pool; whatever a test did, the whole pool works again afterwards."""
    api: Api = request.getfixturevalue(request.param)
    fill_pool(api, own_server)
    yield api
    fill_pool(api, own_server)
    if isinstance(api, InProcess):
        wait_until_all_are_free(api.app.extensions["database"])


def statuses(responses: list[Any]) -> list[int]:
    return [response.status_code for response in responses]


def fill_pool(api: Api, own_server: OwnPostgres) -> None:
    """Have every thread hold a connection at the same moment, so that the pool has them all."""
    task_id = api.create()

    def all_waited() -> bool:  # a slow machine may need a second try: a statement has its limit
        with ThreadPoolExecutor(THREADS) as pool, own_server.locked(task_id):
            calls = [pool.submit(api.call, "PATCH", f"{task_id}/complete") for _ in range(THREADS)]
            with suppress(AssertionError):
                wait_until(lambda: own_server.waiting() == THREADS, STATEMENT_TIMEOUT / 1000)
        return statuses([call.result() for call in calls]) == [200] * THREADS

    wait_until(all_waited)


def seconds_of(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


# Away and back


def restart(own_server: OwnPostgres) -> None:
    own_server.stop()
    own_server.start()


def kill_and_start(own_server: OwnPostgres) -> None:
    own_server.kill()
    own_server.start()


@pytest.mark.parametrize("end", [restart, kill_and_start, OwnPostgres.end_connections])
def test_requests_after_all_connections_were_lost_succeed(
    api: Api, own_server: OwnPostgres, end: Callable[[OwnPostgres], None]
):
    end(own_server)
    assert statuses(at_once(THREADS, lambda: api.call("GET"))) == [200] * THREADS


def test_server_away_is_503_at_once_and_the_first_request_after_its_return_succeeds(
    api: Api, own_server: OwnPostgres
):
    for _ in range(3):
        with own_server.away():
            api.call("GET")
            refused = [seconds_of(lambda: assert_error(api.call("GET"), 503, "unavailable"))]
            refused += [
                seconds_of(lambda: api.call("POST", json={"title": "x"})) for _ in range(19)
            ]
            assert statistics.median(refused) < 0.5  # those who ask the server wait longer
            assert statuses(at_once(8, lambda: api.call("GET"))) == [503] * 8
            assert api.request("GET", "/livez").status_code == 200
            assert api.request("GET", "/health").json == {"status": "healthy"}
            assert_error(api.request("GET", "/readyz"), 503, "unavailable")
        assert api.call("GET").status_code == 200
        assert api.request("GET", "/readyz").status_code == 200


def test_request_in_flight_when_the_server_dies_is_503(api: Api, own_server: OwnPostgres):
    task_id = api.create()
    with ThreadPoolExecutor() as pool:
        with suppress(psycopg.OperationalError), own_server.locked(task_id):
            toggle = pool.submit(api.call, "PATCH", f"{task_id}/complete")
            time.sleep(0.2)
            kill_and_start(own_server)
        assert_error(toggle.result(), 503, "unavailable")
    assert api.call("GET", task_id).json["completed"] is False


# Up, but of no use


def test_server_that_hangs_is_503_and_keeps_no_thread_for_ever(api: Api, own_server: OwnPostgres):
    with ThreadPoolExecutor() as pool:
        with own_server.frozen():
            started = time.monotonic()
            assert statuses(at_once(THREADS, lambda: api.call("GET"))) == [503] * THREADS
            known = STATEMENT_TIMEOUT / 1000 + database.REPLY_MARGIN
            assert known <= time.monotonic() - started < known + 5
            prober = pool.submit(api.call, "GET")
            time.sleep(0.2)
            assert api.request("GET", "/livez").status_code == 200
            assert_error(api.call("GET"), 503, "unavailable")
            assert not prober.done()
        assert prober.result().status_code == 200
    assert api.call("GET").status_code == 200


def test_statement_that_takes_too_long_is_503(api: Api, own_server: OwnPostgres):
    task_id = api.create()
    with own_server.locked(task_id):
        seconds = seconds_of(
            lambda: assert_error(api.call("PATCH", f"{task_id}/complete"), 503, "unavailable")
        )
    assert STATEMENT_TIMEOUT <= 1000 * seconds < database.LOCK_TIMEOUT
    assert api.call("PATCH", f"{task_id}/complete").json["completed"] is True


def test_write_to_a_read_only_server_is_503_and_succeeds_once_it_is_writable(
    api: Api, own_server: OwnPostgres
):
    own_server.alter("SET default_transaction_read_only = on")
    wait_until(lambda: api.call("POST", json={"title": "x"}).status_code != 201, 5)
    assert_error(api.call("POST", json={"title": "x"}), 503, "unavailable")
    assert api.call("GET").status_code == 200
    own_server.alter("RESET default_transaction_read_only")
    with psycopg.connect(own_server.url) as other:
        writable = "SHOW default_transaction_read_only"
        wait_until(lambda: other.execute(writable).fetchone() == ("off",), 5)
    assert api.call("POST", json={"title": "x"}).status_code == 201


def test_write_that_waits_for_a_standby_in_vain_is_503_and_leaves_no_session_behind(
    api: Api, own_server: OwnPostgres
):
    own_server.alter("SET synchronous_standby_names = 'nowhere'")
    try:
        wait_until(lambda: api.call("POST", json={"title": "x"}).status_code == 503, 30)
        with own_server.connect() as other:
            stuck = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_until(lambda: other.execute(stuck).fetchall() == [], 5)
    finally:
        own_server.alter("RESET synchronous_standby_names")
    api.create()


def test_reads_go_on_while_all_writes_wait_for_a_standby(served: Api, own_server: OwnPostgres):
    stuck = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    writers = [f"writer {number}" for number in range(POOL_SIZE)]
    own_server.alter("SET synchronous_standby_names = 'nowhere'")
    try:
        with ThreadPoolExecutor(POOL_SIZE) as pool, own_server.connect() as other:
            for user in writers:
                pool.submit(served.call, "POST", user=user, json={"title": "x"})
            wait_until(lambda: len(other.execute(stuck).fetchall()) >= POOL_SIZE // 2)
            assert statuses([served.call("GET") for _ in range(5)]) == [200] * 5
            assert other.execute(stuck).fetchall()
    finally:
        own_server.alter("RESET synchronous_standby_names")


def test_server_without_free_connections_is_503_until_one_is_free(
    api: Api, own_server: OwnPostgres
):
    own_server.end_connections()
    with own_server.all_connections_taken():
        for _ in range(3):
            assert_error(api.call("GET"), 503, "unavailable")
    wait_until(lambda: own_server.connect().close() is None)
    assert api.call("GET").status_code == 200
