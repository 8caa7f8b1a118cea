"""A real PgBouncer in transaction mode: nobody's settings, rows or statements reach another."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from own_postgres import OwnPostgres, migrated_on
from processes import as_url, wait_until
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from support import User, assert_error, settings_for

import embedded
import migrate
import roles
from app import create_app
from database import Database
from statements import QUERIES, Query

PROGRAM = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
POOL_SIZE = 2  # sessions of PostgreSQL for all clients of PgBouncer
CLIENTS = 8
STATEMENT_TIMEOUT = 300  # milliseconds
PATIENCE = "20s"  # of the role, as an operator may have set it

SLEEP = Query("select_sleep", "SELECT pg_sleep(10) WHERE $1::text IS NOT NULL", ("user_id",))
SHOW = Query(
    "select_timeouts",
    "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
    " current_setting('idle_in_transaction_session_timeout'), current_setting('plan_cache_mode'),"
    " current_setting('jit') WHERE $1::text IS NOT NULL",
    ("user_id",),
)
OURS = (b"300ms", b"3s", b"10s", b"force_generic_plan", b"off")


class PgBouncer:
    """Pools the sessions of a server, whose socket it is given."""

    def __init__(self, folder: Path, server: OwnPostgres) -> None:
        place = conninfo_to_dict(server.url)
        self.folder = folder
        self.file = folder / "pgbouncer.ini"
        users = folder / "users.txt"
        users.write_text('"tasks" ""\n"tasks_api" ""\n')
        self.file.write_text(
            f"[databases]\ntasks = host={place['host']} port={place['port']}\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {folder}\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            f"default_pool_size = {POOL_SIZE}\nlogfile = {folder / 'log'}\n"
        )
        self.url = as_url(make_conninfo(host=folder, port=6432, user="tasks_api", dbname="tasks"))
        self.start()

    def start(self) -> None:
        # It refuses root as PostgreSQL does.
        prefix = embedded.NAMESPACE if os.geteuid() == 0 else ()
        self.popen = subprocess.Popen([*prefix, PROGRAM, "-q", self.file])
        wait_until(self.answers)

    def answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True, prepare_threshold=None)

    def stop(self) -> None:
        self.popen.terminate()
        self.popen.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgres]:
    with migrated_on(tmp_path_factory.mktemp("pooled") / "postgres") as server:
        roles.grant(server.url, make_conninfo(server.url, user="tasks_api"))
        server.execute(f"ALTER ROLE tasks_api SET statement_timeout = '{PATIENCE}'")
        server.execute("ALTER ROLE tasks_api SET client_encoding = 'LATIN1'")
        yield server


@pytest.fixture(scope="module")
def pooler(server: OwnPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    pooler = PgBouncer(tmp_path_factory.mktemp("pgbouncer"), server)
    yield pooler
    pooler.stop()


@pytest.fixture
def app(pooler: PgBouncer) -> Iterator[Flask]:
    settings = settings_for(
        pooler.url,
        database_prepare=False,
        database_pool_size=CLIENTS,
        database_statement_timeout=STATEMENT_TIMEOUT,
    )
    app = create_app(settings)
    yield app
    app.extensions["database"].close()


def test_users_at_once_see_their_own_tasks_alone(app: Flask) -> None:
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


def test_write_under_an_idempotency_key_is_done_once(app: Flask) -> None:
    alice = User(app.test_client(), "alice")
    headers = {"Idempotency-Key": '"once"'}
    answers = [alice.call("POST", json={"title": "x"}, headers=headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {201}
    assert len(alice.all()) == 1


def test_every_statement_has_our_settings(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    db: Database = app.extensions["database"]
    monkeypatch.setitem(QUERIES, "select_timeouts", SHOW)
    monkeypatch.setitem(QUERIES, "select_sleep", SLEEP)
    for _ in range(CLIENTS):
        assert db.fetch("select_timeouts", user_id="alice") == [OURS]
    with db.transaction() as transaction:
        assert transaction.fetch("select_timeouts", user_id="alice") == [OURS]
    with pytest.raises(psycopg.errors.QueryCanceled):
        db.fetch("select_sleep", user_id="alice")


def test_our_timeouts_do_not_reach_other_clients(app: Flask, pooler: PgBouncer) -> None:
    alice = User(app.test_client(), "alice")
    for _ in range(2 * POOL_SIZE):
        assert alice.call("GET").status_code == 200
        with pooler.connect() as other:
            shown = [
                other.execute(show).fetchone()
                for show in ("SHOW statement_timeout", "SHOW lock_timeout")
            ]
            assert shown == [(PATIENCE,), ("3s",)]  # the role's, of `make migrate`
            owner = other.execute("SELECT current_setting('app.user_id', true)").fetchone()
            assert owner in [("",), (None,)]


def test_audit_is_written_and_the_start_checked(
    app: Flask, pooler: PgBouncer, server: OwnPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(pooler.url, database_prepare=False)
    count = "SELECT count(*) FROM audit_log WHERE action = 'refuse'"
    with psycopg.connect(server.url, autocommit=True) as owner:
        for number in range(1, 6):  # each by a connection of its own
            assert app.test_client().get("/api/alice/tasks").status_code == 401
            wait_until(lambda number=number: owner.execute(count).fetchone() == (number,))
            migrate.require_migrated(settings)
    assert caplog.messages == []


def test_pooler_that_restarts_fails_no_later_request(app: Flask, pooler: PgBouncer) -> None:
    alice = User(app.test_client(), "alice")
    assert alice.call("GET").status_code == 200
    pooler.stop()
    assert_error(alice.call("GET"), 503, "unavailable")
    pooler.start()
    assert alice.call("GET").status_code == 200


def test_probe_is_ready(app: Flask) -> None:
    assert app.test_client().get("/readyz").status_code == 200
