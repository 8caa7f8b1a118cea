"""The commands for migrations, run in copies of the project."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import processes
import psutil
import psycopg
import pytest
from migrating import DOWN, UP, applied
from own_postgres import OwnPostgres
from processes import manage, wait_until
from proxy import in_front_of
from psycopg import sql
from support import settings_for

from config import PROJECT, ConfigError
from migrate import known_migrations, only_runner, require_migrated

BROKEN = f"{UP}\nCREATE TABLE half (id bigint);\nSELECT 1 / 0;\n\n{DOWN}\nDROP TABLE half;\n"
SASL_FAILED = b"E\0\0\0\x2fSFATAL\0C28P01\0MSASL authentication failed\0\0"  # PgBouncer's
PASSWORD_FAILED = b'E\0\0\0ASFATAL\0C28P01\0Mpassword authentication failed for user "me"\0\0'


def test_start_is_refused_where_the_server_cannot_do_the_tls_that_is_asked_for(
    own_server: OwnPostgres,
):
    with (
        in_front_of(own_server.url) as (_, url),
        pytest.raises(ConfigError, match="not support SSL"),
    ):
        require_migrated(settings_for(url.replace("sslmode=disable", "sslmode=require")))


@pytest.mark.parametrize(
    ("reply", "options", "told"),
    [
        (b"R\0\0\0\x08\0\0\0\x03", "sslmode=disable", "fe_sendauth: no password supplied"),
        (SASL_FAILED, "sslmode=disable", "SASL authentication failed"),
        (PASSWORD_FAILED, "sslmode=disable", "password .+ `make migrate` creates a missing role"),
        (b"S", "sslmode=verify-full&sslrootcert=/none", 'root certificate file "/none" does not'),
    ],
)
def test_start_without_what_the_server_asks_for_is_refused(reply: bytes, options: str, told: str):
    def answer() -> None:
        with listener.accept()[0] as client:
            client.recv(1024)
            client.sendall(reply)
            client.recv(1024)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as thread:
        thread.submit(answer)
        url = f"postgresql://me@127.0.0.1:{listener.getsockname()[1]}/tasks?{options}"
        with pytest.raises(ConfigError, match=f"^DATABASE_URL is wrong: {told}"):
            require_migrated(settings_for(url))


def test_command_schema_writes_schema_sql(fresh: Path):
    (fresh / "schema.sql").unlink()
    code, _ = manage(fresh, "schema", TZ="Asia/Tokyo")
    assert code == 0
    assert (fresh / "schema.sql").read_text() == (PROJECT / "schema.sql").read_text()


def test_migration_that_stops_amid_its_transaction_gives_its_locks_back(
    empty_url: str, fresh: Path
):
    bounded = "current_setting('idle_in_transaction_session_timeout') = '10s'"
    (fresh / "migrations" / "9001_stop.sql").write_text(
        f"{UP}\nSELECT 1 / ({bounded})::int;\n\n{DOWN}\nSELECT 1;\n"
    )
    assert manage(fresh, "migrate", DATABASE_URL=empty_url)[0] == 0


def test_migration_takes_the_time_it_needs_whatever_the_database_allows(
    empty_url: str, fresh: Path
):
    with psycopg.connect(empty_url, autocommit=True) as connection:
        names = ["statement_timeout", "lock_timeout"]
        if connection.info.server_version >= 170_000:
            names.append("transaction_timeout")
        for name in names:
            bound = sql.SQL("ALTER DATABASE {} SET {} = 500")
            database = sql.Identifier(connection.info.dbname)
            connection.execute(bound.format(database, sql.Identifier(name)))
    waited = "SELECT pg_sleep(1), 1 / (current_setting('lock_timeout') = '0')::int;"
    slow = f"{UP} transaction:false\n{waited}\n\n{DOWN}\nSELECT 1;\n"
    (fresh / "migrations" / "9001_wait.sql").write_text(slow)
    assert manage(fresh, "migrate", DATABASE_URL=empty_url)[0] == 0
    assert applied(empty_url)[-1] == "9001"


def test_end_of_the_command_is_the_end_of_its_migration(empty_url: str, fresh: Path):
    slow = f"{UP} transaction:false\nSELECT pg_sleep(60);\n\n{DOWN}\nSELECT 1;\n"
    (fresh / "migrations" / "9001_wait.sql").write_text(slow)
    with processes.running(["manage.py", "migrate"], fresh, DATABASE_URL=empty_url) as process:
        wait_until(lambda: "9001_wait.sql" in process.output())
        [dbmate] = psutil.Process(process.pid).children()
        process.popen.kill()
        dbmate.wait(10)
        assert applied(empty_url)[-1] != "9001"


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_command_is_silent_and_tells_by_which_signal(
    empty_url: str, fresh: Path, how: signal.Signals, code: int
):
    with (
        only_runner(empty_url),
        processes.running(["manage.py", "migrate"], fresh, DATABASE_URL=empty_url) as process,
    ):
        process.wait_for_output("another runner")
        process.popen.send_signal(how)
        assert process.wait() == code
        assert len(process.lines()) == 1


def test_interrupt_of_the_imports_is_silent(fresh: Path):
    (fresh / "click.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
    with processes.running(["manage.py", "migrate"], fresh, measure="") as process:
        process.wait_for_output("begun")
        process.popen.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT
        assert process.lines() == ["begun"]


def test_failing_migration_ends_in_one_line_and_leaves_nothing(empty_url: str, fresh: Path):
    (fresh / "migrations" / "9001_break.sql").write_text(BROKEN)
    code, lines = manage(fresh, "migrate", DATABASE_URL=empty_url)
    assert code == 1
    assert any("division by zero" in line for line in lines)
    assert lines[-1] == "Error: dbmate migrate failed."
    assert [line for line in lines if "Traceback" in line] == []
    assert applied(empty_url) == known_migrations()
    with psycopg.connect(empty_url) as connection:
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)


def test_index_that_a_failed_or_killed_run_has_left_is_built_anew(empty_url: str, fresh: Path):
    unique = f"{UP} transaction:false\nCREATE UNIQUE INDEX CONCURRENTLY titles ON tasks (title);\n"
    assert manage(fresh, "migrate", DATABASE_URL=empty_url)[0] == 0
    (fresh / "migrations" / "9001_index.sql").write_text(f"{unique}\n{DOWN}\nSELECT 1;\n")
    (fresh / "migrations" / "9002_next.sql").write_text(f"{UP}\nSELECT 1;\n\n{DOWN}\nSELECT 1;\n")
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("INSERT INTO tasks (user_id, title) VALUES ('a', 'b'), ('c', 'b')")
        assert manage(fresh, "migrate", DATABASE_URL=empty_url)[0] == 1
        index = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'titles'::regclass"
        assert connection.execute(index).fetchone() == (False,)
        connection.execute("DELETE FROM tasks WHERE user_id = 'c'")
        assert manage(fresh, "migrate", DATABASE_URL=empty_url)[0] == 0
        assert connection.execute(index).fetchone() == (True,)
        connection.execute("DELETE FROM schema_migrations WHERE version > '9000'")
        assert manage(fresh, "migrate", DATABASE_URL=empty_url)[0] == 0  # built, but not noted
    assert applied(empty_url)[-2:] == ["9001", "9002"]


def test_late_file_with_a_lower_number_is_refused(empty_url: str, fresh: Path):
    migrations = fresh / "migrations"
    for name, code in [("9002_early.sql", 0), ("9001_late.sql", 1)]:
        (migrations / name).write_text(f"{UP}\nSELECT 1;\n\n{DOWN}\nSELECT 1;\n")
        assert manage(fresh, "migrate", DATABASE_URL=empty_url)[0] == code
    assert applied(empty_url) == [*known_migrations(), "9002"]
