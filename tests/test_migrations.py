"""The migrations: their files, what they make, several runners at once, and dbmate by itself."""

import os
import random
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import processes
import psycopg
import pytest
from migrating import DOWN, UP, applied
from pglast import parse_sql
from support import API_ROLE, User, settings_for

import embedded
import migrate
import roles
from app import create_app
from config import PROJECT, CommandError
from connection import Connection
from database import LOCK_TIMEOUT
from migrate import known_migrations

FILES = sorted(migrate.MIGRATIONS_FOLDER.glob("*.sql"))
CONCURRENT = f"""\
{UP} transaction:false
CREATE INDEX CONCURRENTLY tasks_title ON tasks (user_id, title);

{DOWN} transaction:false
DROP INDEX CONCURRENTLY tasks_title;
"""

NewDatabase = Callable[..., str]


@pytest.fixture
def new_database(server: SimpleNamespace) -> Iterator[NewDatabase]:
    """Yield a function that makes an empty database and returns its address."""
    numbers = count()
    with ExitStack() as made:

        def make(name: str = "migrated") -> str:
            name = f"{name} {os.getpid()} {next(numbers)}"
            return made.enter_context(processes.database_on(server, name))

        yield make


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    return new_database()


def schema_of(url: str, folder: Path) -> str:
    """Dump a database; leave out the server's version and the settings for reading the dump."""
    file = folder / f"{len(list(folder.iterdir()))}.sql"
    migrate.dump_schema(url, embedded.binaries(), file)
    return without_noise(file.read_text())


def without_noise(dump: str) -> str:
    noise = ("--", "SET ", "\\", "SELECT pg_catalog.set_config(")
    return "\n".join(line for line in dump.splitlines() if line and not line.startswith(noise))


# The files


def test_numbers_are_unique_and_of_one_width() -> None:
    numbers = [re.match(r"(\d+)_[a-z0-9_]+\.sql$", file.name) for file in FILES]
    assert all(numbers)
    found = [number[1] for number in numbers if number]
    assert len(set(found)) == len(found) > 0
    assert {len(number) for number in found} == {4}
    assert found == known_migrations()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_has_an_up_and_a_down_part(file: Path) -> None:
    up, down = file.read_text().split(DOWN)
    assert up.startswith(UP)
    assert up.count(";") > 0
    assert down.count(";") > 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_squawk_finds_nothing_in_the_up_part(file: Path) -> None:
    squawk = shutil.which("squawk", path=str(migrate.DBMATE.parent))
    assert squawk
    up = file.read_text().split(DOWN)[0]
    arguments = ["--config", ".squawk.toml", "--stdin-filepath", file.name]
    done = subprocess.run(
        [squawk, *arguments], check=False, input=up, cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def constraints_of_new_columns(up: str) -> list[str]:
    return [
        constraint.contype.name
        for statement in parse_sql(up)
        for command in getattr(statement.stmt, "cmds", None) or ()
        for constraint in getattr(command.def_, "constraints", None) or ()
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_new_column_brings_no_check_that_would_read_the_table_under_its_lock(file: Path) -> None:
    """Squawk sees only separate ones; the way is NOT VALID, and VALIDATE in the next file."""
    harmless = {"CONSTR_DEFAULT", "CONSTR_NOTNULL"}
    assert harmless.issuperset(constraints_of_new_columns(file.read_text().split(DOWN)[0]))


def test_check_of_a_new_column_would_be_found() -> None:
    up = "ALTER TABLE tasks ADD COLUMN minutes bigint CHECK (minutes > 0)"
    assert constraints_of_new_columns(up) == ["CONSTR_CHECK"]


# What they make


def test_up_down_and_up_again_leaves_the_same_schema(url: str, tmp_path: Path) -> None:
    migrate.migrate(url)
    once = schema_of(url, tmp_path)
    for _ in FILES:
        migrate.rollback(url)
    assert applied(url) == []
    assert "tasks" not in schema_of(url, tmp_path)
    migrate.migrate(url)
    assert schema_of(url, tmp_path) == once


DEFINITIONS = """
    SELECT pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid::regclass::text !~ '^(pg_|information_schema)'
    UNION ALL SELECT conrelid::regclass || replace(pg_get_constraintdef(oid), ' NOT VALID', '')
    FROM pg_constraint WHERE conrelid <> 0 AND connamespace = 'public'::regnamespace
    UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT pg_policy::text FROM pg_policies AS pg_policy
    UNION ALL SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default)
    FROM information_schema.columns WHERE table_schema = 'public'
"""


def definitions(url: str) -> set[str]:
    """List what a database is made of, except which constraints are validated."""
    with psycopg.connect(url) as connection:
        return {definition for (definition,) in connection.execute(DEFINITIONS)}


def test_each_down_part_leaves_what_was_there_before_and_deletes_nothing_but_the_trash(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "MIGRATIONS_FOLDER", tmp_path)
    before = []
    for file in FILES:
        before.append(definitions(url))
        shutil.copy(file, tmp_path)
        migrate.migrate(url)
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO tasks (user_id, title, deleted_at)"
            " VALUES ('alice', 'kept', NULL), ('alice', 'deleted', now())"
        )
    for file, expected in reversed(list(zip(FILES, before, strict=True))[1:]):
        migrate.rollback(url)
        assert definitions(url) == expected, file.name
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT title FROM tasks").fetchall() == [("kept",)]


def test_schema_sql_is_what_the_migrations_make(url: str, tmp_path: Path) -> None:
    migrate.migrate(url)
    written = (PROJECT / "schema.sql").read_text()
    assert schema_of(url, tmp_path) == without_noise(written), "run: make schema"


def test_migrating_again_changes_nothing(url: str) -> None:
    for _ in range(2):
        migrate.migrate(url)
        assert applied(url) == known_migrations()


def test_options_of_the_address_hold_for_the_migrations_and_the_api(
    new_database: NewDatabase,
) -> None:
    plain = new_database()
    with psycopg.connect(plain) as connection:
        connection.execute("CREATE SCHEMA apart")
    url = f"{plain}&options=-csearch_path%3Dapart"
    api_url = f"{url}&{urlencode(API_ROLE)}"
    migrate.migrate(url)
    roles.grant(url, api_url)
    migrate.require_migrated(settings_for(api_url))
    app = create_app(settings_for(api_url))
    task = User(app.test_client(), "alice").create()
    app.extensions["database"].close()
    with psycopg.connect(plain) as connection:
        assert connection.execute("SELECT id FROM apart.tasks").fetchall() == [(task["id"],)]


# Beside the release before


OLD_CODE = {
    "select_tasks": """
        SELECT coalesce(json_agg(task), '[]')
        FROM (
            SELECT id, user_id, title, description, completed, created_at, updated_at
            FROM tasks WHERE user_id = %(user_id)s ORDER BY id DESC
        ) AS task""",
    "insert_task": """
        WITH task AS (
            INSERT INTO tasks (user_id, title, description) VALUES (%(user_id)s, 'new', NULL)
            RETURNING id, user_id, title, description, completed, created_at, updated_at
        )
        SELECT id, row_to_json(task) FROM task""",
    "update_task": """
        WITH task AS (
            UPDATE tasks SET title = 'changed', completed = NOT completed,
                updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
            WHERE user_id = %(user_id)s AND id = %(task_id)s
            RETURNING id, user_id, title, description, completed, created_at, updated_at
        )
        SELECT row_to_json(task) FROM task""",
    "delete_task": """
        DELETE FROM tasks WHERE user_id = %(user_id)s AND id = %(task_id)s RETURNING id""",
}
OLD_USERS = 500
OLD_TASKS = 5000


@pytest.fixture
def url_of_old_release(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database as the first release left it, full of tasks."""
    shutil.copy(FILES[0], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS_FOLDER", tmp_path)
        migrate.migrate(url)
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO tasks (user_id, title)"
            " SELECT 'user ' || n %% %s, 'old' FROM generate_series(1, %s) AS n",
            (OLD_USERS, OLD_TASKS),
        )
    return url


def run_old_code(url: str, number: int, is_over: threading.Event) -> tuple[int, float]:
    """Run what the first release ran, until it is over; return how often, and the longest wait."""
    dice, runs, longest = random.Random(number), 0, 0.0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT}")
        while not is_over.is_set() or runs < 100:
            task_id = dice.randint(1, OLD_TASKS)
            owner = f"user {task_id % OLD_USERS}" if runs % 10 else f"new user {dice.randrange(9)}"
            values = {"user_id": owner, "task_id": task_id}
            started = time.monotonic()
            connection.execute(OLD_CODE[dice.choice(list(OLD_CODE))], values)
            longest = max(longest, time.monotonic() - started)
            runs += 1
    return runs, longest


def test_migrations_stop_nobody_who_writes_and_count_every_task(url_of_old_release: str) -> None:
    """The release before this one runs on while they are applied to a table that is in use."""
    url, is_over = url_of_old_release, threading.Event()
    place = "SELECT pg_relation_filenode('tasks')"
    with psycopg.connect(url) as connection:
        written_at = connection.execute(place).fetchone()
    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(run_old_code, url, number, is_over) for number in range(4)]
        try:
            migrate.migrate(url)
        finally:
            is_over.set()
        runs, longest = zip(*(writer.result() for writer in writers), strict=True)
    assert min(runs) >= 100
    assert max(longest) < LOCK_TIMEOUT / 1000
    with psycopg.connect(url) as connection:
        assert connection.execute(place).fetchone() == written_at, "the table was rewritten"
        wrong = connection.execute(
            "SELECT user_id, version, newest, stored, in_fact FROM task_counters FULL JOIN ("
            " SELECT user_id, max(version) AS newest, count(title) AS in_fact FROM ("
            "  SELECT user_id, version, title FROM tasks"
            "  UNION ALL SELECT user_id, version, NULL FROM purged_tasks"
            " ) AS written GROUP BY user_id"
            ") AS found USING (user_id)"
            " WHERE version IS NULL OR newest IS NULL OR version < newest OR stored <> in_fact"
        )
        assert wrong.fetchall() == []
        assert connection.execute("SELECT count(*) > 0 FROM purged_tasks").fetchone() == (True,)


# Runners


def test_four_runners_at_once_end_well(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in FILES:
        shutil.copy(file, tmp_path)
    (tmp_path / "9001_index_titles.sql").write_text(CONCURRENT)
    monkeypatch.setattr(migrate, "MIGRATIONS_FOLDER", tmp_path)
    with ThreadPoolExecutor(4) as pool:
        for run in [pool.submit(migrate.migrate, url) for _ in range(4)]:
            run.result()
    assert applied(url) == known_migrations()
    assert applied(url)[-1] == "9001"
    with psycopg.connect(url) as connection:
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'tasks_title'::regclass"
        assert connection.execute(valid).fetchone() == (True,)


def test_runner_gives_up_on_a_lock_that_is_never_free(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", 0.2)
    with migrate.only_runner(url), pytest.raises(CommandError, match="Another runner"):
        migrate.migrate(url)
    migrate.migrate(url)


def test_plain_dbmate_applies_the_same_files(new_database: NewDatabase, tmp_path: Path) -> None:
    ours, plain = new_database(), new_database()
    migrate.migrate(ours)
    with Connection.connect(plain) as connection:
        address = migrate.dbmate_url(connection)
    arguments = ["--migrations-dir", "migrations", "--no-dump-schema", "migrate", "--strict"]
    environment = processes.plain_environment() | {"DATABASE_URL": address}
    subprocess.run([migrate.DBMATE, *arguments], cwd=PROJECT, env=environment, check=True)
    assert schema_of(plain, tmp_path) == schema_of(ours, tmp_path)
    migrate.migrate(plain)
    assert applied(plain) == applied(ours)


# Commands


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[str]]]:
    """Run a command of manage.py, with a copy of the migrations."""
    folder = Path(shutil.copytree(migrate.MIGRATIONS_FOLDER, tmp_path / "migrations"))
    monkeypatch.setattr(migrate, "MIGRATIONS_FOLDER", folder)
    monkeypatch.setattr("manage.PROJECT", tmp_path)
    return partial(processes.manage_here, monkeypatch, tmp_path)


def test_command_rollback_undoes_the_newest_migration(url: str, run: Callable) -> None:
    assert run("migrate", DATABASE_URL=url)[0] == 0
    assert applied(url) == known_migrations()
    assert run("rollback", DATABASE_URL=url)[0] == 0
    assert applied(url) == known_migrations()[:-1]


def test_unreachable_database_is_told_in_one_line(run: Callable) -> None:
    code, [line] = run("migrate", DATABASE_URL="postgresql://localhost:1/nowhere")
    assert code == 1
    assert line.startswith("Error: The database cannot be reached: ")


def test_wrong_address_is_refused_under_the_name_of_its_setting(run: Callable) -> None:
    code, [line] = run("migrate", MIGRATION_DATABASE_URL="mysql://db/tasks")
    assert code == 1
    assert line.startswith("Error: MIGRATION_DATABASE_URL must be ")


@contextmanager
def database_in_c(url: str, encoding: str) -> Iterator[str]:
    """Make a database of this encoding and of the locale C."""
    name = f"{encoding} {os.getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        options = f"ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
        connection.execute(f'CREATE DATABASE "{name}" {options}')
        yield processes.as_url(psycopg.conninfo.make_conninfo(url, dbname=name))
        connection.execute(f'DROP DATABASE "{name}"')


def test_database_of_another_encoding_is_refused_in_one_line(url: str, run: Callable) -> None:
    with database_in_c(url, "LATIN1") as other:
        code, [line] = run("migrate", DATABASE_URL=other)
    assert code == 1
    assert line.startswith("Error: The database holds text as LATIN1: ")


def test_database_that_knows_no_case_beyond_ascii_is_warned_of(
    url: str, run: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    with database_in_c(url, "UTF8") as other:
        assert run("migrate", DATABASE_URL=other)[0] == 0
    assert "LC_CTYPE" in caplog.text


def test_new_migration_gets_the_next_number_and_both_parts(
    url: str, run: Callable, tmp_path: Path
) -> None:
    number = int(known_migrations()[-1]) + 1
    code, [line] = run("migration", "Add x, and y!")
    assert code == 0
    assert line == f"migrations/{number:04d}_add_x_and_y.sql"
    up, _, down = (tmp_path / line).read_text().partition(DOWN)
    assert up.startswith(UP)
    assert "lock_timeout" in up
    assert "lock_timeout" in down
    assert run("migrate", DATABASE_URL=url)[0] == 0
    assert applied(url)[-1] == f"{number:04d}"


def test_migration_without_a_name_is_refused(run: Callable) -> None:
    code, [line] = run("migration", "!")
    assert (code, line) == (1, "Error: A migration's name needs a letter or a digit.")


# The address for dbmate's driver


def test_name_with_special_characters_is_passed_on(new_database: NewDatabase) -> None:
    url = new_database("wéird/na?me#%&'")
    migrate.migrate(url)
    assert applied(url) == known_migrations()


def converted(dsn: str, *, tls: bool = False, **values: Any) -> str:
    info = {"host": "db", "port": 5432, "user": "me", "password": "", "dbname": "tasks"} | values
    connection = SimpleNamespace(
        info=SimpleNamespace(dsn=dsn, **info), pgconn=SimpleNamespace(ssl_in_use=tls)
    )
    return migrate.dbmate_url(cast("Connection", connection))


@pytest.mark.parametrize(
    ("dsn", "values", "expected"),
    [
        ("", {}, "postgres://me@db:5432/tasks?sslmode=disable"),
        ("", {"tls": True}, "postgres://me@db:5432/tasks?sslmode=require"),
        ("channel_binding=require", {"tls": True}, "postgres://me@db:5432/tasks?sslmode=require"),
        ("sslmode=prefer", {}, "postgres://me@db:5432/tasks?sslmode=disable"),
        (
            "sslmode=verify-full sslrootcert=/ca.pem",
            {"tls": True},
            "postgres://me@db:5432/tasks?sslmode=verify-full&sslrootcert=%2Fca.pem",
        ),
        (
            "sslmode=verify-full sslrootcert=system",
            {"tls": True},
            "postgres://me@db:5432/tasks?sslmode=verify-full",
        ),
        ("", {"host": "::1"}, "postgres://me@[::1]:5432/tasks?sslmode=disable"),
        (
            "",
            {"host": "/var/run/pg", "port": 5433},
            "postgres://me@/tasks?sslmode=disable&host=%2Fvar%2Frun%2Fpg&port=5433",
        ),
        (
            "",
            {"user": "m:e", "password": "p@ss/w?rd%#é ", "dbname": "a/b"},
            "postgres://m%3Ae:p%40ss%2Fw%3Frd%25%23%C3%A9%20@db:5432/a%2Fb?sslmode=disable",
        ),
    ],
)
def test_address_becomes_one_that_dbmate_understands(
    dsn: str, values: dict[str, Any], expected: str
) -> None:
    assert converted(dsn, **values) == expected
