"""The commands for migrations, and the address that they hand to dbmate."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import processes
import psycopg
import pytest
from migrating import DOWN, UP, NewDatabase, applied
from processes import RunHere
from psycopg.conninfo import conninfo_to_dict
from support import API_ROLE, refusal, settings_for

import migrate
from config import ConfigError
from connection import Connection
from migrate import known_migrations, require_migrated

# Commands


@pytest.fixture
def run(run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunHere:
    """Run a command of manage.py, with a copy of the migrations."""
    folder = Path(shutil.copytree(migrate.MIGRATIONS_FOLDER, tmp_path / "migrations"))
    monkeypatch.setattr(migrate, "MIGRATIONS_FOLDER", folder)
    monkeypatch.setattr("manage.PROJECT", tmp_path)
    return run_here


def test_command_rollback_undoes_the_newest_migration(empty_url: str, run: RunHere):
    assert run("migrate", DATABASE_URL=empty_url)[0] == 0
    assert applied(empty_url) == known_migrations()
    assert run("rollback", DATABASE_URL=empty_url)[0] == 0
    assert applied(empty_url) == known_migrations()[:-1]


@pytest.mark.parametrize("command", ["migrate", "purge"])
def test_command_waits_for_a_database_that_has_to_wake_up(
    url: str, run: RunHere, monkeypatch: pytest.MonkeyPatch, command: str
):
    timeouts, connect = [], migrate.UnpreparedConnection.connect

    def note(url: str, **given: Any) -> Connection:
        timeouts.append(given["connect_timeout"])
        return connect(url, **given)

    monkeypatch.setattr(migrate.UnpreparedConnection, "connect", note)
    assert run(command, DATABASE_URL=url)[0] == 0
    assert timeouts[0] == 30


def test_rollback_by_code_older_than_the_database_is_refused(empty_url: str, run: RunHere):
    assert run("migrate", DATABASE_URL=empty_url)[0] == 0
    with psycopg.connect(empty_url) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES ('9001'), ('9002')")
    told = refusal(run, "rollback", DATABASE_URL=empty_url)
    assert told.startswith("The database has newer migrations (9001, 9002): roll back with")
    assert applied(empty_url) == [*known_migrations(), "9001", "9002"]


def test_what_other_programs_are_told_of_databases_leads_no_migration_elsewhere(
    new_database: NewDatabase, run: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    url = new_database()
    other = conninfo_to_dict(new_database("other"))["dbname"]
    (tmp_path / "services").write_text(f"[other]\ndbname={other}\n")
    (tmp_path / ".env").write_text("PASSED_ON_BY_DOCKER\n")
    monkeypatch.chdir(tmp_path)
    foreign = {"PGSERVICE": "other", "PGSERVICEFILE": tmp_path / "services"}
    foreign |= {"PGDATESTYLE": "German", "DBMATE_MIGRATIONS_TABLE": "others"}
    assert run("migrate", DATABASE_URL=url, **foreign)[0] == 0
    assert applied(url) == known_migrations()


def test_role_that_does_not_own_the_schema_is_told_which_setting_to_set(
    new_database: NewDatabase, run: RunHere
):
    url = new_database()
    api = processes.as_url(psycopg.conninfo.make_conninfo(url, **API_ROLE))
    given = {"DATABASE_URL": api, "MIGRATION_DATABASE_URL": url}
    assert run("migrate", **given)[0] == 0
    assert run("rollback", **given)[0] == 0
    for command in ("migrate", "rollback"):
        told = refusal(run, command, **given | {"MIGRATION_DATABASE_URL": api})
        assert told.endswith("set MIGRATION_DATABASE_URL.")


@pytest.mark.usefixtures("template")  # with which the API's role is made
def test_role_without_any_rights_is_told_which_setting_to_set(empty_url: str, run: RunHere):
    api = processes.as_url(psycopg.conninfo.make_conninfo(empty_url, **API_ROLE))
    assert run("migrate", DATABASE_URL=empty_url)[0] == 0  # which gives the API's role none
    for command in ("migrate", "rollback"):
        assert refusal(run, command, DATABASE_URL=api).endswith(
            "(permission denied for table schema_migrations): set MIGRATION_DATABASE_URL."
        )


def test_rollback_without_a_migration_ends_with_dbmates_message(
    empty_url: str, run: RunHere, capfd: pytest.CaptureFixture[str]
):
    assert refusal(run, "rollback", DATABASE_URL=empty_url) == "dbmate rollback failed."
    assert "no migrations have been applied" in capfd.readouterr().err


def test_unreachable_database_is_told_in_one_line(run: RunHere):
    told = refusal(run, "migrate", DATABASE_URL="postgresql://localhost:1/nowhere")
    assert told.startswith("The database of MIGRATION_DATABASE_URL, or else of DATABASE_URL")


def test_wrong_address_is_refused_under_the_name_of_its_setting(run: RunHere):
    told = refusal(run, "migrate", MIGRATION_DATABASE_URL="mysql://db/tasks")
    assert told.startswith("MIGRATION_DATABASE_URL must be ")


@contextmanager
def database_in_c(url: str, encoding: str) -> Iterator[str]:
    """Make a database of this encoding and of the locale C."""
    name = f"{encoding} {os.getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        options = f"ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
        connection.execute(f'CREATE DATABASE "{name}" {options}')
        yield processes.as_url(psycopg.conninfo.make_conninfo(url, dbname=name))
        connection.execute(f'DROP DATABASE "{name}"')


def test_database_of_another_encoding_is_refused_in_one_line(empty_url: str, run: RunHere):
    with database_in_c(empty_url, "LATIN1") as other:
        told = refusal(run, "migrate", DATABASE_URL=other)
        with pytest.raises(ConfigError, match="The database holds text as LATIN1: "):
            require_migrated(settings_for(other))
    assert told.startswith("The database holds text as LATIN1: ")


def test_database_that_knows_no_case_beyond_ascii_is_warned_of(
    empty_url: str, run: RunHere, caplog: pytest.LogCaptureFixture
):
    with database_in_c(empty_url, "UTF8") as other:
        assert run("migrate", DATABASE_URL=other)[0] == 0
    assert "LC_CTYPE" in caplog.text


@pytest.mark.parametrize(
    ("path", "told"),
    [("nowhere", "search_path"), ("information_schema", "grant it CREATE there")],
)
@pytest.mark.usefixtures("template")  # with which the API's role is made
def test_schema_that_tables_cannot_be_made_in_is_told(
    new_database: NewDatabase, run: RunHere, path: str, told: str
):
    url = psycopg.conninfo.make_conninfo(new_database(), **API_ROLE)
    given = processes.as_url(url, options=f"-csearch_path={path}")
    assert told in refusal(run, "migrate", DATABASE_URL=given)


def test_role_that_does_not_see_the_tables_is_told_where_they_are(
    new_database: NewDatabase, run: RunHere
):
    url = new_database()
    assert run("migrate", DATABASE_URL=url)[0] == 0
    elsewhere = processes.as_url(url, options="-csearch_path=information_schema")
    with pytest.raises(ConfigError, match=r"in the schema public, .+ search_path of the role"):
        require_migrated(settings_for(elsewhere))


def test_versions_of_another_program_are_not_taken_for_those_of_this_one(
    empty_url: str, run: RunHere
):
    with psycopg.connect(empty_url) as connection:  # as Ecto and golang-migrate do
        connection.execute("CREATE TABLE schema_migrations (version bigint)")
    told = refusal(run, "migrate", DATABASE_URL=empty_url)
    assert told.startswith("The table schema_migrations is another program's: ")
    with pytest.raises(ConfigError, match="another program's"):
        require_migrated(settings_for(empty_url))


def test_runner_keeps_its_lock_although_the_server_ends_idle_sessions(empty_url: str):
    hasty = processes.as_url(empty_url, options="-cidle_session_timeout=100")
    with migrate.only_runner(hasty) as connection:
        time.sleep(0.3)  # as while dbmate builds an index
        assert connection.fetch("select_place_of_tables") == [(b"public", b"t")]


def test_new_migration_gets_the_next_number_and_both_parts(
    empty_url: str, run: RunHere, tmp_path: Path
):
    number = int(known_migrations()[-1]) + 1
    code, [line] = run("migration", "Add x, and y!")
    assert code == 0
    assert line == f"migrations/{number:04d}_add_x_and_y.sql"
    up, _, down = (tmp_path / line).read_text().partition(DOWN)
    assert up.startswith(UP)
    assert "lock_timeout" in up
    assert "lock_timeout" in down
    assert run("migrate", DATABASE_URL=empty_url)[0] == 0
    assert applied(empty_url)[-1] == f"{number:04d}"


def test_migration_without_a_name_is_refused(run: RunHere):
    assert refusal(run, "migration", "!") == "A migration's name needs a letter or a digit."


@pytest.mark.parametrize(
    "said",
    [
        "unsupported startup parameter: options",
        "Feature not supported: RDS Proxy currently doesn\u2019t support command-line options.",
    ],
)
def test_pooler_that_refuses_options_is_refused(
    empty_url: str, run: RunHere, monkeypatch: pytest.MonkeyPatch, said: str
):
    connect = migrate.UnpreparedConnection.connect

    def refuse_options(url: str, **given: Any) -> Connection:
        if "options" in given:
            raise psycopg.OperationalError(f"connection failed: FATAL:  {said}")
        connection = connect(url, **given)
        monkeypatch.setattr(connection, "fetch", lambda *_, **__: [(b"f",)])  # not its own pid
        return connection

    monkeypatch.setattr(migrate.UnpreparedConnection, "connect", refuse_options)
    told = refusal(run, "migrate", DATABASE_URL=empty_url)
    assert told.startswith("Migrations need PostgreSQL itself, not a pooler: ")


# The address for dbmate's driver


def test_name_with_special_characters_is_passed_on(new_database: NewDatabase):
    url = new_database("wéird/na?me#%&'")
    migrate.migrate(url)
    assert applied(url) == known_migrations()


def test_migrate_needs_no_home_directory(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
):
    """As for a container's user who is not in /etc/passwd."""
    monkeypatch.setattr(Path, "home", None)
    migrate.migrate(new_database())


def converted(dsn: str, *, tls: bool = False, **values: Any) -> str:
    info = {"host": "db", "port": 5432, "user": "me", "password": "", "dbname": "tasks"}
    info |= {"hostaddr": ""} | values
    connection = SimpleNamespace(
        info=SimpleNamespace(**info),
        pgconn=SimpleNamespace(ssl_in_use=tls, info=psycopg.pq.Conninfo.parse(dsn.encode())),
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
        (
            "",
            {"hostaddr": "192.0.2.7"},
            "postgres://me@db:5432/tasks?sslmode=disable&hostaddr=192.0.2.7",
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
):
    assert converted(dsn, **values) == expected
