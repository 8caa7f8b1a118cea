"""A real PgBouncer in transaction mode: nobody's settings, rows or statements reach another."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest
from flask import Flask
from own_postgres import OwnPostgres
from pgbouncer import PATIENCE, POOL_SIZE, TIMEOUTS, PgBouncer
from processes import wait_until
from psycopg.conninfo import make_conninfo
from support import User, app_on, assert_error, settings_for

import migrate
from config import CommandError, ConfigError
from connection import REPLY_TIMEOUT
from database import Database
from statements import QUERIES, Query

CLIENTS = 8
STATEMENT_TIMEOUT = 300  # milliseconds

SLEEP = Query("select_sleep", "SELECT pg_sleep(10) WHERE $1::text IS NOT NULL", ("user_id",))
SHOW = Query(
    "select_timeouts",
    "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
    " current_setting('idle_in_transaction_session_timeout'), current_setting('plan_cache_mode'),"
    " current_setting('jit'), current_setting('TimeZone'), current_setting('enable_seqscan'),"
    " current_setting('row_security'), current_setting('transaction_timeout')"
    " WHERE $1::text IS NOT NULL",
    ("user_id",),
)
OURS = (b"300ms", b"3s", b"10s", b"force_generic_plan", b"off", b"UTC", b"off", b"on", b"0")


@pytest.fixture
def app(pooler: PgBouncer) -> Iterator[Flask]:
    settings = {"database_prepare": False, "database_pool_size": CLIENTS}
    with app_on(pooler.url, database_statement_timeout=STATEMENT_TIMEOUT, **settings) as app:
        yield app


def is_ready(app: Flask) -> bool:
    return app.test_client().get("/readyz").status_code == 200


def test_users_at_once_see_their_own_tasks_alone(app: Flask):
    def work(number: int) -> None:
        user = User(app.test_client(), f"user-{number}")
        for count in range(20):
            task = user.create(f"{user.id} → {count}")
            assert user.call("PATCH", f"{task['id']}/complete").status_code == 200
        assert [task["title"] for task in user.all()] == [
            f"{user.id} → {count}" for count in reversed(range(20))
        ]

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))


def test_write_under_an_idempotency_key_is_done_once(app: Flask):
    alice = User(app.test_client(), "alice")
    headers = {"Idempotency-Key": '"once"'}
    responses = [alice.call("POST", json={"title": "x"}, headers=headers) for _ in range(3)]
    assert {response.status_code for response in responses} == {201}
    assert len(alice.all()) == 1


def test_every_statement_has_our_settings(app: Flask, monkeypatch: pytest.MonkeyPatch):
    db: Database = app.extensions["database"]
    monkeypatch.setitem(QUERIES, "select_timeouts", SHOW)
    monkeypatch.setitem(QUERIES, "select_sleep", SLEEP)
    for _ in range(CLIENTS):
        assert db.fetch("select_timeouts", user_id="alice") == [OURS]
    with db.transaction() as transaction:
        assert transaction.fetch("select_timeouts", user_id="alice") == [OURS]
    with pytest.raises(psycopg.errors.QueryCanceled):
        db.fetch("select_sleep", user_id="alice")


def test_our_timeouts_do_not_reach_other_clients(app: Flask, pooler: PgBouncer):
    alice = User(app.test_client(), "alice")
    for _ in range(2 * POOL_SIZE):
        assert alice.call("GET").status_code == 200
        with pooler.connect() as other:
            shown = [other.execute(f"SHOW {name}".encode()).fetchone() for name in TIMEOUTS]
            assert shown == [(PATIENCE,)] * len(TIMEOUTS)  # the role's
            user = other.execute("SELECT current_setting('app.user_id', true)").fetchone()
            assert user in [("",), (None,)]


def test_audit_is_written_and_the_start_checked(
    app: Flask, pooler: PgBouncer, pooled: OwnPostgres, caplog: pytest.LogCaptureFixture
):
    settings = settings_for(pooler.url, database_prepare=False)
    count = "SELECT count(*) FROM audit_log WHERE action = 'refuse'"
    with psycopg.connect(pooled.url, autocommit=True) as owner:
        for number in range(1, 6):  # each by a connection of its own
            assert app.test_client().get("/api/alice/tasks").status_code == 401
            wait_until(lambda number=number: owner.execute(count).fetchone() == (number,))
            migrate.require_migrated(settings)
    assert caplog.messages == []


@pytest.mark.parametrize("more", ["ignore_startup_parameters = options\n", ""])
def test_migrations_through_the_pooler_are_refused_and_leave_no_lock(
    pooler: PgBouncer, pooled: OwnPostgres, more: str
):
    pooler.stop()
    pooler.start(more)
    with pytest.raises(CommandError, match="not a pooler: set MIGRATION_DATABASE_URL"):
        migrate.migrate(pooler.url)
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    with pooled.connect() as connection:
        assert connection.execute(locks).fetchone() == (0,)


def test_database_that_the_pooler_does_not_know_is_refused_at_the_start(pooler: PgBouncer):
    url = make_conninfo(pooler.url, dbname="nowhere")
    with pytest.raises(ConfigError, match="DATABASE_URL is wrong: no such database: nowhere"):
        migrate.require_migrated(settings_for(url))


def test_pooler_that_restarts_fails_no_later_request(app: Flask, pooler: PgBouncer):
    alice = User(app.test_client(), "alice")
    assert alice.call("GET").status_code == 200
    pooler.stop()
    assert_error(alice.call("GET"), 503, "unavailable")
    pooler.start()
    assert alice.call("GET").status_code == 200


def test_probe_is_ready(app: Flask):
    assert is_ready(app)


def test_outage_behind_the_pooler_is_seen_and_over_once_postgresql_is_back(
    app: Flask, pooled: OwnPostgres, heard: list[str]
):
    alice = User(app.test_client(), "alice")

    assert is_ready(app)
    with pooled.away():
        wait_until(lambda: not is_ready(app))
        for _ in range(5):
            assert not is_ready(app)
            assert_error(alice.call("GET"), 503, "unavailable")
        assert "probe_failed" in heard
    wait_until(lambda: is_ready(app))
    assert alice.call("GET").status_code == 200


def test_pooler_with_no_session_free_is_as_one_whose_server_is_away(app: Flask, pooler: PgBouncer):
    assert is_ready(app)
    with ExitStack() as held:
        for _ in range(POOL_SIZE):
            held.enter_context(pooler.connect()).execute("BEGIN")
        wait_until(lambda: not is_ready(app))
        started = time.monotonic()
        for _ in range(5):  # the first one probes
            assert not is_ready(app)
        assert time.monotonic() - started < REPLY_TIMEOUT / 2
    wait_until(lambda: is_ready(app))
