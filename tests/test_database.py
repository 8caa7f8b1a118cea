"""The pool by itself: what it waits for, what it replaces, and SQLSTATE as HTTP."""

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from math import inf
from typing import Any

import psycopg
import pytest
from own_postgres import Postgres
from pools import THREADS, NewPool, at_once, insert, toggle, wait_until_all_are_free
from processes import wait_until
from proxy import LATENCY, Weather, in_front_of
from psycopg_pool import PoolTimeout
from support import settings_for

import database
from connection import CONNECT_TIMEOUT, CONNECTION_OPTIONS, Connection
from database import Database, DatabaseBusy, DatabaseUnavailable
from sqlstates import status_of
from statements import QUERIES, Query
from trail import CURRENT, Trail


def test_every_wait_of_a_session_is_bounded(db: Database, monkeypatch: pytest.MonkeyPatch):
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    show = ", ".join(f"current_setting('{name}')" for name in names)
    monkeypatch.setitem(QUERIES, "show", Query("show", f"SELECT {show}", ()))
    assert db.fetch("show") == [(b"5s", b"3s", b"10s")]
    with db.connection() as connection:
        options = connection.info.get_parameters()
    assert options.keys() >= {"connect_timeout", "tcp_user_timeout", "keepalives_idle"}
    assert connection.reply_timeout == 5 + database.REPLY_MARGIN


def test_first_request_alone_waits_longer_for_a_connection_to_a_distant_server(
    url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("database.POOL_TIMEOUT", 2 * LATENCY)  # a round trip; it takes several
    with in_front_of(url) as (proxy, distant), closing(Database(settings_for(distant))) as db:
        proxy.weather = Weather.SLOW
        assert insert(db)
        assert db._patience == 2 * LATENCY


def test_jit_is_off(db: Database, monkeypatch: pytest.MonkeyPatch):
    """Compiling takes longer than running any of the statements."""
    monkeypatch.setitem(QUERIES, "show", Query("show", "SELECT current_setting('jit')", ()))
    assert db.fetch("show") == [(b"off",)]


def test_parameter_of_a_statement_may_be_called_name(db: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(QUERIES, "echo", Query("echo", "SELECT $1::text", ("name",)))
    assert db.fetch("echo", name="Kitchen") == [(b"Kitchen",)]


def test_exhausted_pool_is_busy_and_not_down_if_a_connection_was_answered_meanwhile(
    db: Database, monkeypatch: pytest.MonkeyPatch
):
    def give_none(_patience: float) -> None:
        connection.fetch("select_version", user_id="alice")
        raise PoolTimeout

    with db.connection() as connection:
        monkeypatch.setattr(db._pool, "getconn", give_none)
        with pytest.raises(DatabaseBusy):
            insert(db)


def test_requests_wait_for_the_one_that_probes_a_suspect_server(
    db: Database, own_database: Postgres, monkeypatch: pytest.MonkeyPatch
):
    insert(db)
    timeouts, connect = [], Connection.connect

    def connect_slowly(url: str, **options: Any) -> Connection:
        if url == own_database.url:  # not of another test's thread
            timeouts.append(options["connect_timeout"])
            time.sleep(0.3)
        return connect(url, **options)

    monkeypatch.setattr(Connection, "connect", connect_slowly)
    db._is_suspect = True
    assert len(at_once(THREADS, lambda: insert(db))) == THREADS
    assert timeouts.count(CONNECT_TIMEOUT) == 1


def test_silent_server_is_asked_by_a_thread_and_by_no_request(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(CONNECTION_OPTIONS, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        db = Database(settings_for(f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x"))
        db._is_suspect = True
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            insert(db)
        with pytest.raises(DatabaseUnavailable, match="is being asked"):
            insert(db)
        assert "prober" in {each.name for each in threading.enumerate()}
    wait_until(lambda: "prober" not in {each.name for each in threading.enumerate()})
    with pytest.raises(DatabaseUnavailable, match="refused"):  # now it is asked by this one
        insert(db)
    db.close()


def test_server_that_is_probed_has_two_seconds_to_answer(
    db: Database, monkeypatch: pytest.MonkeyPatch
):
    waits: list[float] = []
    monkeypatch.setattr(Connection, "fetch", lambda it, *_, **__: waits.append(it.reply_timeout))
    db._probe_once()
    assert waits == [2]


def test_lost_connections_are_replaced_without_a_storm(db: Database, own_database: Postgres):
    task_id = insert(db)
    with ThreadPoolExecutor(THREADS) as pool:
        with own_database.locked(task_id):
            toggles = [pool.submit(toggle, db, task_id) for _ in range(THREADS)]
            wait_until(lambda: db._pool.get_stats()["pool_size"] == THREADS)
        assert all(toggle.result() for toggle in toggles)
        db._pool.pop_stats()
        own_database.end_connections()
        for insertion in [pool.submit(insert, db) for _ in range(50)]:
            assert insertion.result()
    assert db._pool.get_stats()["connections_num"] <= 2 * THREADS


def test_connection_comes_back_after_every_kind_of_failure(db: Database):
    for _ in range(2 * THREADS):
        with pytest.raises(psycopg.DataError):
            insert(db, "NUL \0")
        with pytest.raises(UnicodeEncodeError):
            insert(db, "surrogate \ud800")
        with pytest.raises(psycopg.errors.CheckViolation):
            insert(db, "")
        with pytest.raises(KeyError):
            db.fetch("insert_task")
    wait_until_all_are_free(db)


@pytest.mark.parametrize(("title", "is_answer"), [("", True), ("NUL \0", False)])
def test_error_is_an_answer_where_the_server_sent_it(
    new_pool: NewPool, title: str, is_answer: bool
):
    db = new_pool(database_pool_size=1)
    insert(db)
    db._answered_at = -inf
    with pytest.raises(psycopg.Error):
        insert(db, title)
    assert (db._answered_at > -inf) is is_answer


def test_request_waits_for_a_probe_only_until_the_server_is_known_to_be_down(
    db: Database, monkeypatch: pytest.MonkeyPatch
):
    class Probing:
        def acquire(self, timeout: float) -> bool:
            waits.append(timeout)
            return False

    waits: list[float] = []
    monkeypatch.setattr(db, "_probing", Probing())
    db._is_suspect = True
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            insert(db)
    assert waits == [database.POOL_TIMEOUT, 0]


def test_connections_that_are_lost_together_drain_the_pool_once(
    db: Database, monkeypatch: pytest.MonkeyPatch
):
    drains: list[None] = []
    monkeypatch.setattr(db._pool, "drain", lambda: drains.append(None))
    with db.connection() as first, db.connection() as second:
        db._discard(first)
        db._discard(second)
    assert len(drains) == 1


def test_connections_made_right_after_a_drain_are_drained_by_a_later_loss(
    db: Database, monkeypatch: pytest.MonkeyPatch
):
    drains: list[None] = []
    monkeypatch.setattr(db._pool, "drain", lambda: drains.append(None))
    with db.connection() as made_after:
        db._drained_at = made_after.made_at - 0.1
        db._discard(made_after)
        assert not drains
        db._drained_at -= database.DRAIN_PAUSE
        made_after.made_at -= database.DRAIN_PAUSE
        db._discard(made_after)
    assert len(drains) == 1


def test_lock_that_is_not_had_in_time_is_503(
    own_database: Postgres, new_pool: NewPool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 100)
    db = new_pool()
    task_id = insert(db)
    with own_database.locked(task_id), pytest.raises(psycopg.errors.LockNotAvailable) as error:
        toggle(db, task_id)
    assert status_of(error.value) == 503


def test_more_threads_than_connections_wait_their_turn(new_pool: NewPool):
    db = new_pool(database_pool_size=1)
    assert len({*at_once(8, lambda: insert(db))}) == 8


def test_thread_that_waits_too_long_for_a_connection_is_503_and_others_go_on(
    own_database: Postgres, new_pool: NewPool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "POOL_TIMEOUT", 0.5)
    db = new_pool(database_pool_size=1)
    task_id = insert(db)
    with ThreadPoolExecutor(1) as pool, own_database.locked(task_id):
        waiting = pool.submit(toggle, db, task_id)
        wait_until(own_database.waiting)
        with pytest.raises(DatabaseUnavailable):
            insert(db)
    assert waiting.result()
    assert insert(db)


def test_user_has_half_of_the_connections_at_most_and_another_gets_the_next(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch
):
    db, trail = new_pool(database_pool_size=4), Trail({"REQUEST_METHOD": "GET"})
    token = CURRENT.set(trail)
    with ExitStack() as held:
        trail.user = "alice"
        for _ in range(2):
            held.enter_context(db.connection())
        monkeypatch.setattr(database, "POOL_TIMEOUT", 0.01)
        with pytest.raises(DatabaseBusy, match="the user holds"):
            held.enter_context(db.connection())
        trail.user = "bob"
        held.enter_context(db.connection())
    CURRENT.reset(token)


def test_writes_leave_a_quarter_of_the_connections_to_reads(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch
):
    db, trail = new_pool(database_pool_size=4), Trail({"REQUEST_METHOD": "POST"})
    token = CURRENT.set(trail)
    with ExitStack() as held:
        for trail.user in ["alice", "bob", "carol"]:
            held.enter_context(db.connection())
        monkeypatch.setattr(database, "POOL_TIMEOUT", 0.01)
        with pytest.raises(DatabaseUnavailable, match="writes hold"):
            held.enter_context(db.connection())
        trail.environ["REQUEST_METHOD"] = "GET"
        held.enter_context(db.connection())
    CURRENT.reset(token)


def test_connection_that_was_closed_silently_is_replaced_after_a_probe_and_counted(
    new_pool: NewPool, heard: list[str], monkeypatch: pytest.MonkeyPatch
):
    db = new_pool(database_pool_size=1)
    monkeypatch.setattr(db, "_probe", lambda: heard.append("probe"))
    with (
        db.connection() as connection,
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as twin,
    ):
        twin.shutdown(socket.SHUT_RDWR)
    assert insert(db)
    assert heard == ["connection_stale", "probe"]


@pytest.mark.parametrize(
    ("wanted", "is_stale"), [("read-write", True), ("primary", True), ("any", False)]
)
def test_connection_to_a_server_that_became_read_only_is_stale_if_writes_are_wanted(
    own_database: Postgres, wanted: str, is_stale: bool
):
    options = CONNECTION_OPTIONS | {"target_session_attrs": wanted}
    with Connection.connect(own_database.url, **options) as connection:
        assert not connection.is_stale()
        connection.execute("SET default_transaction_read_only = on")
        assert connection.is_stale() is is_stale


def test_text_is_utf_8_whatever_the_environment_says(
    own_database: Postgres, new_pool: NewPool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    db = new_pool()
    task_id = insert(db, "Grüße 🐄")
    length = own_database.rows("SELECT length(title) FROM tasks WHERE id = %s", task_id)
    assert length == [(len("Grüße 🐄"),)]
