"""The migrations: their files, what they make, several runners at once, and dbmate by itself."""

import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, urlencode

import processes
import psycopg
import pytest
from migrating import DOWN, FILES, UP, NewDatabase, applied, schema_of, without_noise
from pglast import parse_sql
from pglast.ast import VariableSetStmt
from support import API_ROLE, User, app_on, settings_for

import migrate
import roles
from config import PROJECT, CommandError
from connection import Connection
from migrate import known_migrations
from statements import QUERIES, Query

CONCURRENT = f"""\
{UP} transaction:false
CREATE INDEX CONCURRENTLY tasks_title ON tasks (user_id, title);

{DOWN} transaction:false
DROP INDEX CONCURRENTLY tasks_title;
"""


# The files


def test_numbers_are_unique_and_of_one_width():
    numbers = [re.match(r"(\d+)_[a-z0-9_]+\.sql$", file.name) for file in FILES]
    assert all(numbers)
    found = [number[1] for number in numbers if number]
    assert [number for number in found if found.count(number) > 1] == [], "number them apart"
    assert {len(number) for number in found} == {4}
    assert found == known_migrations()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_has_an_up_and_a_down_part(file: Path):
    up, down = file.read_text().split(DOWN)
    assert up.startswith(UP)
    for part in (up, DOWN + down):
        kinds = {type(statement.stmt) for statement in parse_sql(part)}
        assert kinds - {VariableSetStmt}, "it does nothing; SELECT 1 where nothing is to be undone"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_squawk_finds_nothing_in_the_up_part(file: Path):
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
def test_new_column_has_no_check_that_would_scan_the_table_under_a_lock(file: Path):
    """Squawk does not look there. Add the CHECK as NOT VALID, and validate it in a later file."""
    harmless = {"CONSTR_DEFAULT", "CONSTR_NOTNULL"}
    assert harmless.issuperset(constraints_of_new_columns(file.read_text().split(DOWN)[0]))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_rollback_that_was_cut_off_after_its_drop_of_an_index_can_go_on(file: Path):
    down = file.read_text().split(DOWN)[1]
    assert down.count("DROP INDEX") == down.count("DROP INDEX CONCURRENTLY IF EXISTS")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_part_that_is_a_transaction_begins_with_a_lock_timeout(file: Path):
    for part in file.read_text().split(DOWN):
        options, *lines = part.removeprefix(UP).splitlines()
        first = next(line for line in lines if not line.startswith("--"))
        assert "transaction:false" in options or first.startswith("SET LOCAL lock_timeout = ")


def test_check_of_a_new_column_would_be_found():
    up = "ALTER TABLE tasks ADD COLUMN minutes bigint CHECK (minutes > 0)"
    assert constraints_of_new_columns(up) == ["CONSTR_CHECK"]


# What they make


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
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And up again leaves the same schema."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    monkeypatch.setattr(migrate, "MIGRATIONS_FOLDER", folder)
    before = []
    for file in FILES:
        before.append(definitions(empty_url))
        shutil.copy(file, folder)
        migrate.migrate(empty_url)
    once = schema_of(empty_url, tmp_path)
    with psycopg.connect(empty_url) as connection:
        connection.execute(
            "INSERT INTO tasks (user_id, title, deleted_at)"
            " VALUES ('alice', 'kept', NULL), ('alice', 'deleted', now())"
        )
    for file, expected in reversed(list(zip(FILES, before, strict=True))[1:]):
        migrate.rollback(empty_url)
        assert definitions(empty_url) == expected, file.name
    with psycopg.connect(empty_url) as connection:
        assert connection.execute("SELECT title FROM tasks").fetchall() == [("kept",)]
    migrate.rollback(empty_url)
    assert applied(empty_url) == []
    assert "tasks" not in schema_of(empty_url, tmp_path)
    migrate.migrate(empty_url)
    assert schema_of(empty_url, tmp_path) == once


@pytest.fixture
def migrate_by(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[Path]], None]:
    """A function that applies some of the migrations, and then more."""
    monkeypatch.setattr(migrate, "MIGRATIONS_FOLDER", tmp_path)

    def apply(files: list[Path]) -> None:
        for file in files:
            shutil.copy(file, tmp_path)
        migrate.migrate(empty_url)

    return apply


def test_tasks_of_each_user_are_counted_in_a_transaction_of_their_own(
    empty_url: str, migrate_by: Callable[[list[Path]], None]
):
    """Nobody who writes meanwhile waits for the count of all."""
    migrate_by(FILES[:2])
    with psycopg.connect(empty_url) as connection:
        connection.execute("INSERT INTO tasks (user_id, title) VALUES ('a', 't'), ('b', 't')")
        connection.execute("DELETE FROM task_counters")
    migrate_by(FILES[2:3])
    with psycopg.connect(empty_url) as connection:
        transactions = connection.execute("SELECT DISTINCT xmin::text FROM task_counters")
        assert len(transactions.fetchall()) == 2


def test_existing_tasks_get_all_bits_of_tags(
    empty_url: str, migrate_by: Callable[[list[Path]], None]
):
    """As where migration 0005 was undone and is applied again."""
    migrate_by(FILES[:4])
    with psycopg.connect(empty_url) as connection:
        connection.execute("INSERT INTO tasks (user_id, title, tags) VALUES ('a', 't', '{home}')")
    migrate_by(FILES[4:5])
    with psycopg.connect(empty_url) as connection:
        assert connection.execute("SELECT tag_bits FROM tasks").fetchall() == [(-1,)]


def test_schema_sql_is_what_the_migrations_make_in_any_time_zone(empty_url: str, tmp_path: Path):
    with psycopg.connect(empty_url) as connection:
        connection.execute(f'ALTER DATABASE "{connection.info.dbname}" SET TimeZone = 9'.encode())
    migrate.migrate(empty_url)
    written = (PROJECT / "schema.sql").read_text()
    assert schema_of(empty_url, tmp_path) == without_noise(written), "run: make schema"


def test_schema_of_a_database_with_a_timeout_of_its_own_is_dumped(empty_url: str, tmp_path: Path):
    with psycopg.connect(empty_url) as connection:
        database = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{database}" SET lock_timeout = 500'.encode())
    assert "schema_migrations" in schema_of(empty_url, tmp_path)


def test_every_constraint_is_validated_in_the_end(postgresql: psycopg.Connection):
    """A CHECK that is NOT VALID holds for new rows alone."""
    pending = "SELECT conname FROM pg_constraint WHERE NOT convalidated"
    assert postgresql.execute(pending).fetchall() == [], "validate it in a later file"


def test_options_of_the_address_hold_for_the_migrations_and_the_api(
    new_database: NewDatabase,
):
    plain = new_database()
    with psycopg.connect(plain) as connection:
        connection.execute("CREATE SCHEMA apart")
    url = f"{plain}&options=-csearch_path%3Dapart"
    api_url = f"{url}&{urlencode(API_ROLE, quote_via=quote)}"
    migrate.migrate(url)
    roles.grant(url, api_url)
    migrate.require_migrated(settings_for(api_url))
    with app_on(api_url) as app:
        task = User(app.test_client(), "alice").create()
    with psycopg.connect(plain) as connection:
        assert connection.execute("SELECT id FROM apart.tasks").fetchall() == [(task["id"],)]


# Runners


def test_four_runners_at_once_end_well(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for file in FILES:
        shutil.copy(file, tmp_path)
    (tmp_path / "9001_index_titles.sql").write_text(CONCURRENT)
    monkeypatch.setattr(migrate, "MIGRATIONS_FOLDER", tmp_path)
    with ThreadPoolExecutor(4) as pool:
        for run in [pool.submit(migrate.migrate, empty_url) for _ in range(4)]:
            run.result()
    assert applied(empty_url) == known_migrations()
    assert applied(empty_url)[-1] == "9001"
    with psycopg.connect(empty_url) as connection:
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'tasks_title'::regclass"
        assert connection.execute(valid).fetchone() == (True,)


def test_runner_tells_once_that_it_waits_and_gives_up_on_a_lock_that_is_never_free(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(migrate, "RUNNER_TIMEOUT", 0.3)
    with migrate.only_runner(empty_url), pytest.raises(CommandError, match="Another runner"):
        migrate.migrate(empty_url)
    [told] = caplog.messages
    assert "another runner" in told
    migrate.migrate(empty_url)


def test_lock_of_a_session_that_is_just_ending_is_not_told(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """As that of the migrations, where `make migrate` goes on to the rights."""
    with psycopg.connect(empty_url, autocommit=True) as ending:
        ending.execute("SELECT pg_advisory_lock(%s)", [migrate.LOCK_KEY])
        unlock = "SELECT pg_advisory_unlock_all()"
        meanwhile = SimpleNamespace(monotonic=lambda: 0, sleep=lambda _: ending.execute(unlock))
        monkeypatch.setattr(migrate, "time", meanwhile)
        with migrate.only_runner(empty_url):
            assert caplog.messages == []


def test_migrations_run_through_a_proxy_that_reports_a_pid_of_its_own(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
):
    never = Query("select_whether_own_session", "SELECT $1::int IS NULL", ("backend_pid",))
    monkeypatch.setitem(QUERIES, never.name, never)  # as with Neon's proxy
    migrate.migrate(empty_url)
    assert applied(empty_url) == known_migrations()


def test_plain_dbmate_applies_the_same_files(new_database: NewDatabase, tmp_path: Path):
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
