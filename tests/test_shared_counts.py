"""Limits that processes share, with what speaks like Redis; tests/services has a real one."""

import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from typing import Any

import pytest
from issuer import gate_for, get_me
from processes import wait_until
from redis.connection import DefaultParser
from support import NoThread, assert_error, token_for

from capacity.rate_limits import Limit
from capacity.shared_counts import SharedCounts
from config import PROJECT


class Speaker(ThreadingTCPServer):
    """Adds to counters, as the script that it is sent would."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Listener)
        self.counts: Counter[bytes] = Counter()
        self.asked, self.may_end = Event(), Event()
        self.broke = Event()
        self.url = f"redis://127.0.0.1:{self.server_address[1]}?socket_timeout=10"


class Listener(StreamRequestHandler):
    """https://redis.io/docs/latest/develop/reference/protocol-spec/"""

    server: Speaker

    def handle(self) -> None:
        late = b""
        while head := self.rfile.readline():
            words = [self.read_word() for _ in range(int(head[1:]))]
            _eval, _script, _one, key, _seconds, amount = words
            if key == b"tasks:broken" or (
                key == b"tasks:broken once" and not self.server.broke.is_set()
            ):
                self.server.broke.set()
                return
            if key == b"tasks:elsewhere":
                self.wfile.write(b"-MOVED 11917 127.0.0.1:7001\r\n")
                continue
            if key == b"tasks:broken later":
                self.server.asked.set()
                self.server.may_end.wait(10)
                return
            self.server.counts[key] += int(amount)
            reply = late + b":%d\r\n" % self.server.counts[key]
            late = reply if key == b"tasks:late" else b""
            self.wfile.write(b"" if late else reply)

    def read_word(self) -> bytes:
        size = int(self.rfile.readline()[1:])
        return self.rfile.read(size + 2)[:-2]


@pytest.fixture
def redis() -> Iterator[Speaker]:
    with Speaker() as speaker:
        Thread(target=speaker.serve_forever, args=[0.01], daemon=True).start()
        yield speaker
        speaker.shutdown()


def calls(app: Any, number: int) -> list[int]:
    return [get_me(app, token_for("alice")).status_code for _ in range(number)]


def raiser(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_two_processes_share_a_users_quota(redis: Speaker):
    here, there = (gate_for(redis_url=redis.url, rate_limit="4/day") for _ in range(2))
    assert calls(here, 3) + calls(there, 2) == [200] * 4 + [429]
    assert_error(get_me(here, token_for("alice")), 429, "rate_limited")


def test_while_redis_is_away_each_process_counts_for_itself(
    redis: Speaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("capacity.shared_counts.PAUSE", 0.01)
    app = gate_for(redis_url="redis://127.0.0.1:1", rate_limit="4/day")
    shared = app.extensions["rate_limits"].redis
    assert calls(app, 5) == [200] * 4 + [429]
    assert shared.is_away
    shared._pool = gate_for(redis_url=redis.url).extensions["rate_limits"].redis._pool
    wait_until(lambda: not shared.is_away)
    assert calls(app, 1) == [200]
    wait_until(lambda: "Redis is back" in caplog.messages)


def test_another_cause_in_the_same_outage_is_told_once(
    redis: Speaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """As of a Redis that was restarted with a certificate that is refused."""
    monkeypatch.setattr("capacity.shared_counts.PAUSE", 0.01)
    counts = SharedCounts(redis.url)
    asked: list[None] = []

    def fail() -> None:
        asked.append(None)
        raise ValueError("it has expired")

    assert counts.add("broken", 60, 1) is None
    monkeypatch.setattr(counts._pool, "get_connection", fail)
    wait_until(lambda: len(asked) > 3)
    counts.is_away = False  # ends its prober
    assert caplog.messages[0].startswith("Redis is away")
    assert caplog.messages.count("Redis is still away: ValueError: it has expired") == 1


def test_late_failure_from_an_outage_that_has_ended_is_ignored(
    redis: Speaker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("capacity.shared_counts.PAUSE", 0.01)
    counts = SharedCounts(redis.url)
    with ThreadPoolExecutor() as threads:
        late = threads.submit(counts.add, "broken later", 60, 1)
        assert redis.asked.wait(10)
        assert counts.add("broken once", 60, 1) is None
        assert counts.is_away
        wait_until(lambda: not counts.is_away)
        redis.may_end.set()
        assert late.result(10) is None
    assert not counts.is_away
    assert counts.add("whole", 60, 1) == 1


def test_counters_are_told_apart_by_limit_window_and_caller(
    redis: Speaker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("time.time", lambda: 130.9)
    Limit("default", (4, 60), SharedCounts(redis.url)).count("alice")
    assert redis.counts == {b"tasks:default/2/alice": 1}


def test_connection_is_used_again(redis: Speaker):
    counts = SharedCounts(f"{redis.url}&max_connections=1")
    assert [counts.add("x", 60, 1) for _ in range(3)] == [1, 2, 3]


def test_redis_is_asked_again_by_the_next_request_if_no_thread_can_start(
    redis: Speaker, monkeypatch: pytest.MonkeyPatch
):
    """By the one connection there may be: that which broke off was given back."""
    monkeypatch.setattr("capacity.shared_counts.Thread", NoThread)
    counts = SharedCounts(f"{redis.url}&max_connections=1")
    assert [counts.add(key, 60, 1) for key in ["broken", "whole"]] == [None, 1]


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), UnicodeError("too long")]
)
def test_redis_whose_name_cannot_be_looked_up_is_away(
    redis: Speaker, error: Exception, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("capacity.shared_counts.PAUSE", 0.01)
    counts = SharedCounts(redis.url)
    with monkeypatch.context() as patch:
        patch.setattr("redis.connection.socket.getaddrinfo", raiser(error))
        assert counts.add("x", 60, 1) is None
        assert counts.is_away
    wait_until(lambda: not counts.is_away)
    assert counts.add("x", 60, 1) == 1


def test_option_that_fails_only_at_a_request_makes_redis_away(
    redis: Speaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("capacity.shared_counts.Thread", NoThread)
    assert SharedCounts(f"{redis.url}&retry=x").add("x", 60, 1) is None
    assert "Redis is away" in caplog.text


def test_request_waits_for_the_look_up_of_a_name_a_second_at_most(redis: Speaker):
    """Among greenlets; the sockets' own timeouts do not bound it."""
    script = f"""
from gevent import monkey, sleep
monkey.patch_all()
import socket
look_up = socket.getaddrinfo
socket.getaddrinfo = lambda *args: sleep(100)
from capacity.shared_counts import SharedCounts
counts = SharedCounts("{redis.url}")
print(counts.add("x", 60, 1), counts.is_away)
socket.getaddrinfo, counts.is_away = look_up, False
print(counts.add("x", 60, 1))
"""
    command = [sys.executable, "-c", script]
    assert subprocess.check_output(command, cwd=PROJECT, timeout=20) == b"None True\n1\n"


def test_each_attempt_to_reach_redis_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, heard: list[str]
):
    counts = SharedCounts("redis://127.0.0.1:1")
    assert [counts.add("x", 60, 1) for _ in range(2)] == [None, None]
    assert heard == ["redis_failed"]
    monkeypatch.setattr("capacity.shared_counts.PAUSE", 0.01)
    wait_until(lambda: len(heard) > 2)
    counts.is_away = False


def test_redis_is_back_when_it_counts_what_it_failed_to_count(
    redis: Speaker, monkeypatch: pytest.MonkeyPatch, heard: list[str]
):
    """Of several servers behind a proxy, one may be away: others count all the while."""
    monkeypatch.setattr("capacity.shared_counts.PAUSE", 0.01)
    counts = SharedCounts(redis.url)
    assert counts.add("broken", 60, 1) is None
    wait_until(lambda: len(heard) > 2)
    assert counts.is_away
    counts.is_away = False


def test_requests_at_once_do_not_each_make_a_connection():
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(20) as threads:
        counts = SharedCounts(f"rediss://127.0.0.1:{silent.getsockname()[1]}")
        assert set(threads.map(lambda _: counts.add("key", 60, 1), range(20))) == {None}
        counts.is_away = False  # ends its prober
        silent.setblocking(False)
        made = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                made += 1
        assert made < 5


def test_log_names_the_error_of_redis(
    redis: Speaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("capacity.shared_counts.Thread", NoThread)
    assert SharedCounts(redis.url).add("elsewhere", 60, 1) is None
    assert "MovedError: 11917 127.0.0.1:7001" in caplog.text


def test_reply_that_came_while_the_process_was_stopped_is_read(
    redis: Speaker, monkeypatch: pytest.MonkeyPatch
):
    counts, read = SharedCounts(redis.url), DefaultParser.read_response

    def time_out_once(parser: Any, **_: Any) -> None:
        monkeypatch.setattr(DefaultParser, "read_response", read)
        assert parser.can_read(10)
        raise TimeoutError

    monkeypatch.setattr(DefaultParser, "read_response", time_out_once)
    assert [counts.add("key", 60, 1) for _ in range(2)] == [1, 2]
    assert not counts.is_away


def test_reply_that_comes_too_late_is_waited_for_once_and_not_taken_for_the_next(
    redis: Speaker, monkeypatch: pytest.MonkeyPatch
):
    def time_out(*_: Any, **__: Any) -> None:
        waits.append(None)
        raise TimeoutError

    waits: list[None] = []
    monkeypatch.setattr("capacity.shared_counts.Thread", NoThread)
    counts = SharedCounts(f"{redis.url}&max_connections=1")
    with monkeypatch.context() as patch:
        patch.setattr(DefaultParser, "read_response", time_out)
        assert counts.add("late", 60, 7) is None
    assert len(waits) == 1
    assert counts.add("key", 60, 1) == 1
