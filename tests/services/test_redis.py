"""A real Redis server: limits that processes share, and what becomes of them when it goes away."""

import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from threading import Event
from types import SimpleNamespace

import processes
import pytest
from flask import Flask
from issuer import get_me, with_me
from own_postgres import database_on
from processes import gunicorn, wait_until
from redis import Redis
from redis_server import PASSWORD, RedisServer
from support import GENEROUS, app_for, assert_error, token_for

import migrate
from capacity.shared_counts import TIMEOUT, SharedCounts


def limited(redis: RedisServer, **settings: str) -> Flask:
    return with_me(app_for(**{"redis_url": redis.url} | settings))


def rest_of(app: Flask, user: str = "alice") -> int:
    """Call as a user; return how many calls are left."""
    response = get_me(app, token_for(user), user)
    assert response.status_code == 200
    return int(response.headers["RateLimit"].split(";")[1].removeprefix("r="))


def test_two_machines_share_a_users_quota(redis: RedisServer):
    here, there = (limited(redis, rate_limit="4/day") for _ in range(2))
    assert [rest_of(app) for app in (here, there, here, there)] == [3, 2, 1, 0]
    for app in (here, there):
        assert_error(get_me(app, token_for("alice")), 429, "rate_limited")
    assert rest_of(here, "bob") == 3


def test_two_machines_share_an_addresss_failures(redis: RedisServer):
    here, there = (limited(redis, auth_failure_limit="2/day") for _ in range(2))
    statuses = [get_me(app, "x.y.z").status_code for app in (here, there, here, there)]
    assert statuses == [401, 401, 429, 429]
    assert get_me(there, token_for("alice")).status_code == 200


def test_counters_end_with_their_window(redis: RedisServer):
    rest_of(limited(redis, rate_limit="5 per 30 seconds"))
    assert SharedCounts(redis.url).add("kept-responses/1/alice", 30, 2000) == 2000
    with Redis.from_url(redis.url) as client:
        names = client.keys("tasks:default/*")
        assert len(names) == 1
        assert all(20 < client.ttl(name) <= 30 for name in names)
        assert all(client.ttl(name) > 0 for name in client.keys("*"))


def test_worker_processes_share_a_users_quota(
    redis: RedisServer, server: SimpleNamespace, tmp_path: Path
):
    folder = processes.copy_of_project(tmp_path)
    given = {"REDIS_URL": redis.url, "RATE_LIMIT": "20/day", "WEB_CONCURRENCY": 2}
    with database_on(server, f"shared {os.getpid()}") as url:
        migrate.migrate(url)
        with gunicorn(folder, url, **given) as api, ThreadPoolExecutor(8) as threads:
            statuses = list(threads.map(lambda _: api.call("GET").status_code, range(60)))
    assert (statuses.count(200), statuses.count(429)) == (20, 40)


class Load:
    """Threads that call without a pause."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.statuses: list[int] = []
        self._stopping = Event()
        self._threads = ThreadPoolExecutor(8)

    def __enter__(self) -> "Load":
        for number in range(8):
            self._threads.submit(self._call, f"user-{number}")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._threads.shutdown()

    def _call(self, user: str) -> None:
        token = token_for(user)
        while not self._stopping.is_set():
            self.statuses.append(get_me(self.app, token, user).status_code)

    def more(self, requests: int = 200) -> None:
        """Wait for as many more responses."""
        wanted = len(self.statuses) + requests
        wait_until(lambda: len(self.statuses) >= wanted)


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Begin each, without further causes: those may be of an earlier test's Redis, too."""
    lines = [record.message.partition(",")[0] for record in caplog.records]
    return [line for line in lines if not line.startswith("Redis is still away: ")]


@pytest.mark.parametrize("how", ["kill -9", "SIGSTOP"])
def test_under_load_no_request_fails_when_redis_goes_and_comes_back(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, how: str
):
    app = limited(redis, **GENEROUS)
    shared = app.extensions["rate_limits"].redis
    with caplog.at_level(logging.WARNING), Load(app) as load:
        load.more()
        assert not shared.is_away
        if how == "SIGSTOP":
            redis.signal(signal.SIGSTOP)
        else:
            redis.kill()
        wait_until(lambda: shared.is_away)
        load.more(1000)
        assert shared.is_away
        if how == "SIGSTOP":
            redis.signal(signal.SIGCONT)
        else:
            redis.start()
        wait_until(lambda: not shared.is_away)
        load.more()
    assert set(load.statuses) == {200}
    assert lines_of(caplog) == ["Redis is away", "Redis is back"]
    assert PASSWORD not in caplog.text


def test_redis_that_hangs_is_waited_for_once(redis: RedisServer):
    app = limited(redis, redis_url=redis.hasty_url, **GENEROUS)

    def seconds() -> float:
        started = time.monotonic()
        rest_of(app)
        return time.monotonic() - started

    seconds()
    redis.signal(signal.SIGSTOP)
    first, others = seconds(), [seconds() for _ in range(20)]
    assert TIMEOUT <= first < 10 * TIMEOUT  # a busy machine takes longer
    assert median(others) < TIMEOUT


@pytest.mark.parametrize("how", ["kill -9", "SIGSTOP"])
def test_counts_are_right_after_an_outage(redis: RedisServer, how: str):
    """A reply that came too late is not taken for that to the next command."""
    app = limited(redis, rate_limit="1000/day")
    shared = app.extensions["rate_limits"].redis
    assert [rest_of(app), rest_of(app, "bob"), rest_of(app)] == [999, 999, 998]
    if how == "SIGSTOP":
        redis.signal(signal.SIGSTOP)
        assert [rest_of(app), rest_of(app)] == [999, 998]  # this process's own count
        redis.signal(signal.SIGCONT)
        wait_until(lambda: not shared.is_away)
        # What was sent while it hung was counted in the end.
        assert [rest_of(app), rest_of(app), rest_of(app, "bob")] == [996, 995, 998]
    else:
        redis.kill()
        assert [rest_of(app), rest_of(app)] == [999, 998]
        redis.start()
        wait_until(lambda: not shared.is_away)
        assert [rest_of(app), rest_of(app), rest_of(app, "bob")] == [999, 998, 999]


def test_limits_hold_while_redis_is_away(redis: RedisServer):
    app = limited(redis, rate_limit="3/day")
    redis.kill()
    assert [rest_of(app) for _ in range(3)] == [2, 1, 0]
    assert_error(get_me(app, token_for("alice")), 429, "rate_limited")


def test_a_restart_between_two_requests_is_no_outage(redis: RedisServer):
    app = limited(redis, rate_limit="9/day")
    assert rest_of(app) == 8
    redis.kill()
    redis.start()
    assert rest_of(app) == 8
    assert not app.extensions["rate_limits"].redis.is_away


@pytest.mark.parametrize(
    "url",
    [
        "redis://:wrong@127.0.0.1:{port}/1",
        "redis://127.0.0.1:{port}",
        "redis://:of-the-tests@127.0.0.1:{port}/99",
        "redis://no-such-host.invalid",
        "rediss://127.0.0.1:{port}",
        "unix:///no/such/socket",
    ],
)
def test_redis_that_lets_nobody_in_is_told_once_and_done_without(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, url: str
):
    with caplog.at_level(logging.WARNING):
        app = with_me(app_for(redis_url=url.format(port=redis.port), rate_limit="9/day"))
        assert [rest_of(app) for _ in range(3)] == [8, 7, 6]
    assert lines_of(caplog) == ["Redis is away"]


def test_redis_that_answers_but_takes_no_writes_is_away(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    with Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", 1)
    with caplog.at_level(logging.WARNING):
        app = limited(redis, rate_limit="9/day")
        assert [rest_of(app) for _ in range(3)] == [8, 7, 6]
        with Redis.from_url(redis.url) as client:
            client.config_set("maxmemory", 0)
        wait_until(lambda: not app.extensions["rate_limits"].redis.is_away)
        assert rest_of(app) == 8
    assert lines_of(caplog) == ["Redis is away", "Redis is back"]
