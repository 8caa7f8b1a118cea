"""A connection by itself: what it sends together, and how long it waits for its server."""

from collections.abc import Iterator

import psycopg
import pytest
from own_postgres import Postgres
from psycopg.pq import ExecStatus

from connection import CANCEL_TIMEOUT, CONNECTION_OPTIONS, REPLY_TIMEOUT, Connection
from statements import QUERIES, Query
from trail import CURRENT, Trail


@pytest.fixture
def connection(own_database: Postgres) -> Iterator[Connection]:
    with Connection.connect(own_database.url, **CONNECTION_OPTIONS) as connection:
        yield connection


@pytest.mark.parametrize(("late", "again"), [(0, 0), (2, 2), (3600, REPLY_TIMEOUT)])
def test_silent_server_gets_again_what_the_process_was_stopped_for_and_is_then_left(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, late: float, again: float
):
    deadline, left = 100.0, 5.0
    now = iter([deadline - left, deadline + late])
    waits: list[float] = []
    cancels: list[float] = []

    def cancel(timeout: float) -> None:
        cancels.append(timeout)
        raise psycopg.OperationalError("nor does it take this")

    monkeypatch.setattr("connection.monotonic", now.__next__)
    monkeypatch.setattr(connection, "cancel_safe", cancel)
    with pytest.raises(psycopg.OperationalError, match="does not reply"):
        connection._await(lambda seconds: waits.append(seconds) or False, deadline)
    assert waits == [left, again]
    assert cancels == [CANCEL_TIMEOUT]
    assert connection.closed


def test_server_that_waits_until_its_results_are_read_is_read_while_more_is_sent(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    size = 5_000_000  # more than the buffers of both sides hold
    monkeypatch.setitem(QUERIES, "tell", Query("tell", f"SELECT repeat('x', {size})", ()))
    monkeypatch.setitem(QUERIES, "take", Query("take", "SELECT length($1)", ("text",)))
    connection.reply_timeout = 5
    told, taken = connection.run_together(["tell", "take"], {"text": "x" * size})
    assert len(told.get_value(0, 0) or b"") == int(taken.get_value(0, 0) or 0) == size


def test_statements_that_run_together_are_told_as_one_by_the_name_of_the_last(
    connection: Connection,
):
    token = CURRENT.set(trail := Trail({}))
    connection.run_together(["select_place_of_tables", "select_whether_case_is_folded"], {})
    CURRENT.reset(token)
    assert [run.statement for run in trail.runs] == ["select_whether_case_is_folded"]


def test_statement_that_could_not_be_prepared_is_prepared_by_the_next_run(
    connection: Connection, own_database: Postgres, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(QUERIES, "early", Query("early", "SELECT count(*) FROM later", ()))
    with pytest.raises(psycopg.errors.UndefinedTable):
        connection.fetch("early")
    own_database.execute("CREATE TABLE later ()")
    assert connection.fetch("early") == [(b"0",)]
    own_database.execute("DROP TABLE later")


def test_error_that_no_server_has_sent_is_one_of_the_connection(connection: Connection):
    result = connection.pgconn.make_empty_result(ExecStatus.FATAL_ERROR)
    with pytest.raises(psycopg.OperationalError):
        connection._checked(result)
