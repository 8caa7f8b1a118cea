"""The API's database role: what it may do, how it gets its rights, and who else has them."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from types import SimpleNamespace
from urllib.parse import urlencode

import psycopg
import pytest
from listing import listed
from own_postgres import database_on
from processes import RunHere, wait_until
from support import User, refusal, settings_for, someone_waits_for

import migrate
import roles
from config import CommandError
from migrate import require_migrated

FORBIDDEN = [
    "CREATE TABLE mine (id bigint)",
    "ALTER TABLE tasks ADD COLUMN mine text",
    "DROP TABLE tasks",
    "TRUNCATE tasks",
    "CREATE INDEX mine ON tasks (title)",
    "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY",
    "DELETE FROM schema_migrations",
    "CREATE ROLE mine",
]


@pytest.fixture
def as_api(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection in the API's role."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_api_role_can_change_no_table(as_api: psycopg.Connection, statement: str):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_api.execute(statement)


def test_api_role_cannot_write_entries_of_the_audit_in_another_name(as_api: psycopg.Connection):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_api.execute("INSERT INTO audit_log (user_id, action, role) VALUES ('', '', 'owner')")


def test_api_role_has_these_rights_and_others_are_taken_back(
    owner_url: str, database_url: str, postgresql: psycopg.Connection
):
    postgresql.execute(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO tasks_api, PUBLIC;"
        " GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO tasks_api, PUBLIC"
    )
    postgresql.commit()
    roles.grant(owner_url, database_url)
    rights = postgresql.execute(
        "SELECT table_name, string_agg(privilege_type, ' ' ORDER BY privilege_type)"
        " FROM information_schema.role_table_grants"
        " WHERE grantee IN ('tasks_api', 'PUBLIC') AND table_schema = 'public' GROUP BY table_name"
    )
    assert dict(rights.fetchall()) == {
        "tasks": "DELETE INSERT SELECT UPDATE",
        "task_counters": "INSERT SELECT UPDATE",
        "idempotency_keys": "INSERT SELECT UPDATE",
        "purged_tasks": "INSERT SELECT",
        "schema_migrations": "SELECT",
    }, "a table belongs in the REVOKE and a GRANT of select_grants, and here"
    sequences = """
        SELECT seqrelid::regclass::text FROM pg_sequence
        WHERE has_sequence_privilege('tasks_api', seqrelid, 'USAGE, SELECT, UPDATE')
        """
    assert postgresql.execute(sequences).fetchall() == [], "it belongs in the REVOKE"


def test_rights_are_granted_in_one_transaction(
    owner_url: str, database_url: str, postgresql: psycopg.Connection
):
    """A role that serves meanwhile lacks none between two statements."""
    roles.grant(owner_url, database_url)
    transactions = postgresql.execute(
        "SELECT DISTINCT xmin::text FROM pg_class WHERE relname IN ('tasks', 'purged_tasks')"
    )
    assert len(transactions.fetchall()) == 1


def test_others_who_may_write_to_the_audit_are_named_until_they_may_not(
    owner_url: str,
    database_url: str,
    postgresql: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
):
    """As on a host that gives all rights on new tables to the roles of an API of its own."""
    role = f"anon_{os.getpid()}"
    postgresql.execute(f"CREATE ROLE {role}")
    postgresql.commit()
    try:
        rights = ["ALL", "INSERT", "UPDATE", "DELETE", "TRUNCATE"]
        for api_url, right in product([database_url, owner_url], rights):
            postgresql.execute(f"GRANT {right} ON ALL TABLES IN SCHEMA public TO {role}")
            postgresql.commit()
            roles.grant(owner_url, api_url)
            assert caplog.messages == [
                f"other roles may write to audit_log or schema_migrations: {role}"
            ]
            caplog.clear()
            postgresql.execute(f"REVOKE ALL ON audit_log, schema_migrations FROM {role}")
            postgresql.commit()
            roles.grant(owner_url, api_url)
            assert caplog.messages == []
    finally:
        postgresql.rollback()
        postgresql.execute(f"DROP OWNED BY {role}")
        postgresql.execute(f"DROP ROLE {role}")
        postgresql.commit()


def test_tags_are_written_and_found_where_functions_are_closed_to_others(
    owner_url: str, database_url: str, postgresql: psycopg.Connection, alice: User
):
    postgresql.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC")
    postgresql.commit()
    roles.grant(owner_url, database_url)
    task = alice.create(tags=["home"])
    assert listed(alice, tag="home") == [task]


def test_api_serves_where_a_host_puts_row_level_security_on_every_table(
    owner_url: str, database_url: str, postgresql: psycopg.Connection, alice: User
):
    for table in ["schema_migrations", "audit_log"]:
        postgresql.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY".encode())
        postgresql.execute(f"CREATE POLICY theirs ON {table} TO CURRENT_USER".encode())
    postgresql.commit()
    for _ in range(2):  # the second time, the policies are there
        roles.grant(owner_url, database_url)
    require_migrated(settings_for(database_url))
    alice.create()
    entries = postgresql.execute("SELECT action FROM audit_log WHERE user_id = %s", [alice.id])
    assert entries.fetchall() == [("create",)]


def test_password_is_not_sent_and_its_verifier_not_logged_even_if_the_server_tells_all_it_logs(
    new_role: tuple[str, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    heard = roles.log_warning
    monkeypatch.setattr(
        roles, "log_warning", lambda notice: heard(notice) or told.append(notice.message_primary)
    )
    owner_url, api_url = new_role
    migrate.migrate(owner_url)
    talkative = "-c client_min_messages=log -c log_statement=all"
    roles.grant(psycopg.conninfo.make_conninfo(owner_url, options=talkative), api_url)
    assert "PASSWORD 'SCRAM-SHA-256$" in "".join(told)
    assert "SCRAM" not in caplog.text


def test_api_role_reaches_a_database_that_is_closed_to_others(
    owner_url: str, database_url: str, postgresql: psycopg.Connection
):
    postgresql.execute(f'REVOKE CONNECT ON DATABASE "{postgresql.info.dbname}" FROM PUBLIC')
    postgresql.commit()
    roles.grant(owner_url, database_url)
    psycopg.connect(database_url).close()


def test_api_role_cannot_create_a_temporary_table(
    owner_url: str, database_url: str, as_api: psycopg.Connection
):
    """A temporary table hides the one of its name, from triggers too."""
    roles.grant(owner_url, database_url)  # a copied database lacks the rights of its template
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_api.execute("CREATE TEMP TABLE audit_log (user_id text, action text, task_ids bigint[])")


def test_api_role_cannot_create_a_function_even_in_a_database_from_before_postgresql_15(
    postgresql: psycopg.Connection, owner_url: str, database_url: str, as_api: psycopg.Connection
):
    """Before PostgreSQL 15 anybody could make one, and hide PostgreSQL's own from the triggers."""
    postgresql.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    postgresql.commit()
    roles.grant(owner_url, database_url)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_api.execute("CREATE AGGREGATE array_agg (bigint) (SFUNC = int8pl, STYPE = bigint)")


def test_api_role_has_bounds_for_every_wait(as_api: psycopg.Connection):
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    assert [as_api.execute(f"SHOW {name}").fetchone() for name in names] == [
        ("5s",),
        ("3s",),
        ("10s",),
    ]


@pytest.fixture
def new_role(server: SimpleNamespace, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The addresses of an empty database: its owner's, and one with a role that does not exist."""
    role = f"api_{os.getpid()}".ljust(getattr(request, "param", 0), "_")
    with database_on(server, f"roles {os.getpid()}") as owner_url:
        yield owner_url, f"{owner_url}&{urlencode({'user': role, 'password': 'secret'})}"
        with psycopg.connect(owner_url, autocommit=True) as connection:
            connection.execute(f'DROP OWNED BY "{role}"')
            connection.execute(f'DROP ROLE "{role}"')


@pytest.mark.parametrize("new_role", [0, 70], ids=["short", "cut short"], indirect=True)
def test_migrate_makes_the_role_of_the_api_and_finds_it_there_again(
    new_role: tuple[str, str], run_here: RunHere
):
    owner_url, api_url = new_role
    environ = {"MIGRATION_DATABASE_URL": owner_url, "DATABASE_URL": api_url}
    for timeout in ["1234", "4321"]:  # the second one no longer matters to the role
        environ["DATABASE_STATEMENT_TIMEOUT"] = timeout
        code, lines = run_here("migrate", **environ)
        assert code == 0, lines
    with psycopg.connect(api_url) as connection:
        assert connection.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("1234ms",)


def test_wrong_timeout_for_the_new_role_is_refused_under_the_name_of_its_setting(
    empty_url: str, run_here: RunHere
):
    given = {"MIGRATION_DATABASE_URL": empty_url, "DATABASE_URL": "postgresql://nobody@db/tasks"}
    told = refusal(run_here, "migrate", **given, DATABASE_STATEMENT_TIMEOUT="5s")
    assert told.startswith("DATABASE_STATEMENT_TIMEOUT must be ")


def test_runners_that_give_one_role_its_rights_at_once_all_succeed(new_role: tuple[str, str]):
    owner_url, api_url = new_role
    migrate.migrate(owner_url)
    with ThreadPoolExecutor(8) as threads:
        for run in [threads.submit(roles.grant, owner_url, api_url) for _ in range(8)]:
            run.result()
    require_migrated(settings_for(api_url))


def test_role_that_another_database_makes_meanwhile_gets_its_rights(new_role: tuple[str, str]):
    owner_url, api_url = new_role
    migrate.migrate(owner_url)
    with ThreadPoolExecutor(1) as thread, psycopg.connect(owner_url) as other:
        name = psycopg.conninfo.conninfo_to_dict(api_url)["user"]
        other.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'secret'")
        grant = thread.submit(roles.grant, owner_url, api_url)
        wait_until(lambda: someone_waits_for(other))
        other.commit()
        grant.result()
    require_migrated(settings_for(api_url))


def test_owner_that_may_make_no_role_is_told_what_it_needs_in_one_line(database_url: str):
    with pytest.raises(CommandError, match=r'role another .*: .* \("Roles" in README\.md'):
        roles.grant(database_url, psycopg.conninfo.make_conninfo(database_url, user="another"))


def test_owner_who_serves_the_api_too_keeps_all_rights(
    owner_url: str, postgresql: psycopg.Connection
):
    rights = "SELECT oid, relacl::text FROM pg_class WHERE relkind IN ('r', 'S') ORDER BY oid"
    before = postgresql.execute(rights).fetchall()
    postgresql.rollback()
    roles.grant(owner_url, owner_url)
    assert postgresql.execute(rights).fetchall() == before


def test_warning_of_the_server_is_told_and_what_is_less_is_not(
    owner_url: str, caplog: pytest.LogCaptureFixture
):
    """Such as that an owner of the tables, who does not own the database, revokes nothing there."""
    with migrate.connect(owner_url) as connection:
        connection.add_notice_handler(roles.log_warning)
        for level in ["NOTICE", "WARNING"]:
            connection.execute(
                f"DO $$ BEGIN RAISE {level} '{level} of the server'; END $$".encode()
            )
    assert caplog.messages == ["WARNING of the server"]


def test_what_others_have_lost_is_not_taken_from_them_again(owner_url: str, database_url: str):
    """By an owner who owns neither database nor schema, that would be a warning each time."""
    roles.grant(owner_url, database_url)
    with migrate.connect(owner_url) as connection:
        names = ("verifier", "timeout", "lock_timeout", "idle_timeout")
        grants = connection.fetch("select_grants", role="tasks_api", **dict.fromkeys(names))
    assert [statement for (statement,) in grants if statement.endswith(b" FROM PUBLIC")] == []


def test_refusal_of_a_role_quotes_nothing_of_its_password(owner_url: str):
    reserved = psycopg.conninfo.make_conninfo(owner_url, user="pg_tasks", password="a b c d e f")
    with pytest.raises(CommandError) as raised:
        roles.grant(owner_url, reserved)
    assert str(raised.value) == (
        'The role pg_tasks cannot be given its rights: role name "pg_tasks" is reserved'
    )
