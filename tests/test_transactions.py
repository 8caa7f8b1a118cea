"""Transactions: what begins and ends them, and that no error within one is passed over."""

import json
import time
from contextlib import suppress

import psycopg
import pytest
from own_postgres import Postgres
from pools import NewPool, count_round_trips, insert
from psycopg.pq import TransactionStatus
from support import API_ROLE

from connection import CONNECTION_OPTIONS, Connection
from database import Database
from statements import QUERIES, Query
from trail import CURRENT, Trail


def test_transaction_with_a_failed_statement_is_never_taken_for_committed(db: Database):
    def insert_and_pass_over_an_error() -> None:
        with db.transaction() as connection:
            connection.fetch("select_version", user_id="alice")
            with suppress(psycopg.DataError):
                connection.fetch("select_task", user_id="alice", task_id="x")

    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        insert_and_pass_over_an_error()


def test_timeout_that_passes_while_rows_are_sent_fails_the_statement_within_a_transaction(
    new_pool: NewPool,
):
    """The server notices behind the last row: the error is a second result."""
    db = new_pool(database_statement_timeout=300)
    tasks = json.dumps([{"title": "x", "description": "x" * 5000}] * 500)

    def insert_and_read_late() -> None:
        with db.transaction() as connection:
            connection.fetch("select_version", user_id="alice")
            connection.fetch("insert_tasks", user_id="alice", tasks="[]", max_stored=1)  # prepared
            wait, pauses = connection._await_reply, iter([0.5])
            connection._await_reply = lambda seconds: (
                wait(seconds) and not time.sleep(next(pauses, 0))
            )
            connection.fetch("insert_tasks", user_id="alice", tasks=tasks, max_stored=1000)

    with pytest.raises(psycopg.errors.QueryCanceled):
        insert_and_read_late()


def test_commit_that_fails_fails_its_statement(
    db: Database, own_database: Postgres, monkeypatch: pytest.MonkeyPatch
):
    own_database.execute("CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)")
    twice = Query("late", "INSERT INTO late VALUES (1), (1) RETURNING id", ())
    monkeypatch.setitem(QUERIES, "late", twice)
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.fetch("late")
    own_database.execute("DROP TABLE late")


def test_connection_that_ends_in_a_transaction_is_told_by_its_cause(
    db: Database, own_database: Postgres
):
    def lose_the_connection() -> None:
        with db.transaction() as connection:
            connection.fetch("select_version", user_id="alice")
            own_database.end_connections()
            connection.fetch("select_version", user_id="alice")

    with pytest.raises(psycopg.OperationalError, match="terminating connection"):
        lose_the_connection()


def test_write_after_a_transaction_that_its_greenlet_left_is_kept(
    new_pool: NewPool, own_database: Postgres
):
    db = new_pool(database_pool_size=1)

    def be_killed() -> None:
        with db.transaction() as connection:
            connection.fetch("select_version", user_id="alice")
            raise SystemExit  # as gevent's GreenletExit, no Exception

    with pytest.raises(SystemExit):
        be_killed()
    task_id = insert(db)
    assert own_database.rows("SELECT title FROM tasks WHERE id = %s", task_id) == [("Buy milk",)]


def test_transaction_begins_with_its_first_statement(db: Database):
    with db.transaction() as connection:
        assert connection.pgconn.transaction_status == TransactionStatus.IDLE
        connection.fetch("select_version", user_id="alice")
        assert connection.pgconn.transaction_status == TransactionStatus.INTRANS
    assert connection.pgconn.transaction_status == TransactionStatus.IDLE


def test_user_and_request_are_unset_when_their_transaction_ends(
    db: Database, monkeypatch: pytest.MonkeyPatch
):
    """Else the next statement in the session without a user would see this one's rows."""
    show = "SELECT current_setting('app.user_id', true), current_setting('app.request_id', true)"
    monkeypatch.setitem(QUERIES, "show", Query("show", show, ()))
    token = CURRENT.set(Trail({}))
    with db.connection() as connection:
        for settings in [{}, db._settings]:  # with those of a pooler's session, too
            connection.settings = settings
            connection.fetch("select_version", user_id="alice")
            assert connection.fetch("show") == [(b"", b"")]
    CURRENT.reset(token)


def test_statement_is_prepared_in_the_round_trip_that_first_runs_it(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch
):
    db = new_pool(database_pool_size=1)
    trips = count_round_trips(monkeypatch)
    db.fetch("select_version", user_id="alice")
    assert len(trips) == 2  # the first is for the settings of a fresh session
    with pytest.raises(psycopg.DataError):
        db.fetch("select_task", user_id="alice", task_id="x")
    assert db.fetch("select_task", user_id="alice", task_id=0) == []  # it stayed prepared
    with db.transaction() as connection:
        connection.fetch("select_trashed_task", user_id="alice", task_id=1)
        connection.fetch("insert_tasks", user_id="alice", tasks="[]", max_stored=1)
    assert len(trips) == 2 + 2 + 3  # the last is for the COMMIT


def test_nothing_is_prepared_in_a_session_where_that_is_off(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(QUERIES, "show", Query("show", "SELECT FROM pg_prepared_statements", ()))
    db = new_pool(database_pool_size=1, database_prepare=False)
    insert(db)
    assert db.fetch("show") == []


def test_statement_whose_result_has_another_type_is_prepared_anew(
    new_pool: NewPool, own_database: Postgres, monkeypatch: pytest.MonkeyPatch
):
    db = new_pool(database_pool_size=1)
    monkeypatch.setitem(QUERIES, "largest", Query("largest", "SELECT max(n) FROM numbers", ()))
    own_database.execute("CREATE TABLE numbers (n int)")
    assert db.fetch("largest") == [(b"",)]
    for kind in ("bigint", "numeric"):  # again at once, when the pool has just been drained
        own_database.execute(f"ALTER TABLE numbers ALTER n TYPE {kind}")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            db.fetch("largest")
        assert db.fetch("largest") == [(b"",)]


def test_pooled_connection_prepares_a_statement_under_the_settings_of_its_transaction(
    url: str, db: Database
):
    address = psycopg.conninfo.make_conninfo(url, **API_ROLE)
    with Connection.connect(address, **CONNECTION_OPTIONS) as connection:
        connection.execute("SET row_security = off")  # as a role may have it
        connection.settings = db._settings  # as behind a pooler
        assert connection.fetch("select_task", user_id="alice", task_id=0) == []


def test_pooled_connection_that_could_not_prepare_a_statement_is_left(
    new_pool: NewPool, own_database: Postgres
):
    """PgBouncer ends a connection that prepares a name twice, even if the first was refused."""
    db = new_pool(database_pool_size=1)
    with db.connection() as connection:
        connection.settings = db._settings | {"lock_timeout": "100"}  # as behind a pooler
        connection.fetch("select_version", user_id="alice")
        with own_database.connect() as other, other.transaction():
            other.execute("LOCK tasks IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                connection.fetch("select_task", user_id="alice", task_id=0)
        assert connection.closed
    assert db.fetch("select_task", user_id="alice", task_id=0) == []
