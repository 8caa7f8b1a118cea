"""What load balancers are told; for a database that is away, see servers/test_outage.py."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from flask import Flask
from processes import wait_until
from support import NewApp, assert_error, settings_for

import database
from app import create_app
from blueprints import health
from connection import Connection
from database import Database
from migrate import pending_migrations


def probe(app: Flask) -> int:
    return app.test_client().get("/readyz").status_code


def test_probes_at_once_share_the_questions_to_the_database(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    begun: list[int] = []
    asked: list[Connection] = []

    def begin(number: int) -> int:
        begun.append(number)
        return probe(app)

    def count(connection: Connection) -> list[str]:
        wait_until(lambda: len(begun) == 20)
        asked.append(connection)
        return pending_migrations(connection)

    monkeypatch.setattr(health, "pending_migrations", count)
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(begin, range(20))) == {200}
    assert len(asked) < 10  # some may have begun, and not have asked yet


def test_probe_that_comes_while_the_database_is_asked_gets_the_next_answer(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def find_nothing() -> None:
        asked.append(None)
        if len(asked) == 1:
            pool.submit(probe, app)
            time.sleep(0.1)

    monkeypatch.setattr(health, "find_fault", find_nothing)
    with ThreadPoolExecutor(1) as pool:
        assert probe(app) == 200
    assert len(asked) == 2


def test_probe_that_fails_unexpectedly_is_500_for_all_who_wait(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    def fail() -> None:
        time.sleep(0.1)
        raise RuntimeError

    monkeypatch.setattr(health, "find_fault", fail)
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(lambda _: probe(app), range(3))) == {500}


@pytest.mark.parametrize("answers", [True, False])
def test_busy_instance_is_ready_as_long_as_the_database_answers(
    new_app: NewApp, answers: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "POOL_TIMEOUT", 0.5)
    app = new_app(database_pool_size=1)
    db: Database = app.extensions["database"]
    with ThreadPoolExecutor() as pool:
        wait_until(lambda: probe(app) == 200)
        with db.connection() as connection:  # as in an import, of many statements
            asked = pool.submit(probe, app)
            while not asked.done():
                if answers:
                    connection.fetch("select_version", user_id="alice")
                time.sleep(0.001)
        assert asked.result() == (200 if answers else 503)


def test_database_behind_the_code_is_503(app: Flask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "pending_migrations", lambda _: ["9999"])
    response = app.test_client().get("/readyz")
    assert_error(response, 503, "unavailable", "The database lacks migrations.")


def test_database_with_the_versions_of_another_program_is_503(
    app: Flask, postgresql: psycopg.Connection
):
    postgresql.execute("ALTER TABLE schema_migrations ALTER version TYPE bigint USING version::int")
    postgresql.commit()
    response = app.test_client().get("/readyz")
    assert_error(response, 503, "unavailable", "The database lacks migrations.")


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), UnicodeError("too long")]
)
def test_database_whose_name_cannot_be_looked_up_is_away(
    error: Exception, monkeypatch: pytest.MonkeyPatch
):
    """For the audit too, whose thread would end otherwise."""

    def fail(*_: object, **__: object) -> None:
        raise error

    app = create_app(settings_for("postgresql://db.example/tasks"))
    monkeypatch.setattr("socket.getaddrinfo", fail)
    assert_error(app.test_client().get("/readyz"), 503, "unavailable")
    assert not app.extensions["auditor"]._try_to_write([], 0)
