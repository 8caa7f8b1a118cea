"""Which reads a replica serves, and which the primary."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from listing import SLOW_WORD, fill_with_long_texts
from processes import wait_until
from support import NoThread, settings_for

from database import Database, DatabaseUnavailable
from replicas import Reader
from statements import QUERIES
from trail import CURRENT, Trail

ASKED = dict.fromkeys(QUERIES["select_tasks"].parameters) | {"user_id": "alice", "limit": 1}


@pytest.fixture
def replica_url(database_url: str, postgresql: psycopg.Connection) -> str:
    """The same database, which says that it is a replica."""
    postgresql.execute(
        "CREATE FUNCTION pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'"
    )
    postgresql.commit()
    options = "-c search_path=public,pg_catalog"
    return psycopg.conninfo.make_conninfo(database_url, options=options)


@contextmanager
def reading(url: str, replica: str, **settings: Any) -> Iterator[tuple[Reader, Database]]:
    given = settings_for(url, database_replica_url=replica, **settings)
    with closing(Database(given)) as primary, closing(Reader(given, primary)) as reader:
        yield reader, primary


def test_error_of_a_statement_does_not_mark_the_replica_as_away(
    database_url: str, replica_url: str
):
    with reading(database_url, replica_url) as (reader, _):
        asked = dict.fromkeys(QUERIES["select_listed_tasks_by_due_asc"].parameters)
        with pytest.raises(psycopg.DataError):
            reader.fetch("select_listed_tasks_by_due_asc", **asked | {"user_id": "x", "limit": "x"})
        assert not reader.is_away


def test_statement_that_is_slow_on_the_replica_runs_on_the_primary_and_the_replica_is_kept(
    database_url: str,
    replica_url: str,
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("replicas.STATEMENT_TIMEOUT", 50)
    fill_with_long_texts(postgresql, "alice")
    with reading(database_url, replica_url) as (reader, primary):
        assert reader.fetch("select_tasks", **ASKED)  # the first asks more of both
        asked = dict.fromkeys(QUERIES["select_found_tasks_by_created_desc"].parameters)
        asked |= {"user_id": "alice", "limit": 1, "tags": "[]", "words": json.dumps([SLOW_WORD])}
        asked_of_primary: list[str] = []
        fetch = primary.fetch

        def note(name: str, **values: object) -> object:
            asked_of_primary.append(name)
            return fetch(name, **values)

        monkeypatch.setattr(primary, "fetch", note)
        assert reader.fetch("select_found_tasks_by_created_desc", **asked | {"count": False})
        assert asked_of_primary == ["select_version", "select_found_tasks_by_created_desc"]
        assert not reader.is_away


def test_server_that_is_no_replica_is_left_for_good_and_told_once(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    heard: list[str],
    caplog: pytest.LogCaptureFixture,
):
    """Such as a restored copy, or the old primary after a failover."""
    monkeypatch.setattr("replicas.PAUSE", 0.01)
    with reading(database_url, database_url) as (reader, _):
        assert reader.fetch("select_tasks", **ASKED)
        wait_until(lambda: len(heard) > 3 or not reader.is_away)
        assert reader.is_away
        assert caplog.text.count("the server of DATABASE_REPLICA_URL is no replica") == 1
    wait_until(lambda: "replica" not in {thread.name for thread in threading.enumerate()})


def test_replica_that_is_promoted_is_left(
    database_url: str, replica_url: str, postgresql: psycopg.Connection
):
    with reading(database_url, replica_url) as (reader, _):
        assert reader.fetch("select_tasks", **ASKED)
        assert not reader.is_away
        postgresql.execute(
            "CREATE OR REPLACE FUNCTION pg_is_in_recovery() RETURNS boolean LANGUAGE sql"
            " AS 'SELECT false'"
        )
        postgresql.commit()
        assert reader.fetch("select_tasks", **ASKED)
        assert reader.is_away


@pytest.mark.parametrize("identified", [True, False])
def test_replica_of_another_primary_is_left_if_the_role_may_know_it(
    database_url: str, replica_url: str, postgresql: psycopg.Connection, *, identified: bool
):
    of_itself = "CREATE FUNCTION public.pg_control_system(OUT system_identifier bigint)"
    postgresql.execute(f"{of_itself} LANGUAGE sql AS 'SELECT 1'".encode())
    if not identified:
        for schema in ("public", "pg_catalog"):
            postgresql.execute(
                f"REVOKE EXECUTE ON FUNCTION {schema}.pg_control_system() FROM PUBLIC".encode()
            )
    postgresql.commit()
    with reading(database_url, replica_url) as (reader, _):
        assert reader.fetch("select_tasks", **ASKED)
        assert reader.is_away is identified


def test_replica_is_asked_again_by_the_next_request_if_no_thread_can_start(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("replicas.Thread", NoThread)
    away = psycopg.conninfo.make_conninfo(database_url, dbname="nowhere")
    with reading(database_url, away) as (reader, primary):
        assert reader.fetch("select_tasks", **ASKED) == primary.fetch("select_tasks", **ASKED)
        assert not reader.is_away


def test_replica_that_is_away_is_passed_over_until_it_is_back(
    database_url: str,
    replica_url: str,
    monkeypatch: pytest.MonkeyPatch,
    heard: list[str],
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr("replicas.PAUSE", 0.01)
    away = psycopg.conninfo.make_conninfo(database_url, dbname="nowhere")
    with reading(database_url, away) as (reader, primary):
        for _ in range(2):
            assert reader.fetch("select_tasks", **ASKED) == primary.fetch("select_tasks", **ASKED)
            assert reader.is_away
        wait_until(lambda: heard.count("replica_failed") > 3)  # the alert looks for repeated ones
        assert set(heard) == {"replica_failed"}
        told = [line for line in caplog.messages if "away" in line]
        assert len(told) == 2
        assert 'database "nowhere" does not exist' in told[1]
        nowhere, reader._replica = reader._replica, Database(settings_for(replica_url))
        wait_until(lambda: not reader.is_away)
        nowhere.close()


def test_requests_that_find_the_replica_away_at_once_tell_it_once(
    database_url: str, replica_url: str, heard: list[str], caplog: pytest.LogCaptureFixture
):
    with reading(database_url, replica_url) as (reader, _):
        for _ in range(2):
            reader._leave(DatabaseUnavailable("it is gone"))
        assert caplog.messages == ["the replica is away, the primary serves: it is gone"]
        assert heard == ["replica_failed"]


def test_replica_with_enough_requests_waiting_is_not_asked(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    away = psycopg.conninfo.make_conninfo(database_url, dbname="nowhere")
    with reading(database_url, away) as (reader, _):
        monkeypatch.setattr(reader._replica, "is_crowded", lambda: True)
        assert reader.fetch("select_tasks", **ASKED)
        assert not reader.is_away


def test_user_who_keeps_the_replica_busy_is_served_by_the_primary(
    database_url: str, replica_url: str
):
    with reading(database_url, replica_url, database_pool_size=2) as (reader, _):
        trail = Trail({"REQUEST_METHOD": "GET"})
        trail.user = "alice"
        token = CURRENT.set(trail)
        with reader._replica.connection():
            assert reader.fetch("select_tasks", **ASKED)
        assert not reader.is_away
        CURRENT.reset(token)
