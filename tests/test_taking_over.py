"""A database in which another back end has kept tasks: refused, and taken over as documented."""

import re
from collections.abc import Iterator

import psycopg
import pytest
from processes import RunHere
from support import User, app_on, settings_for

import migrate
from config import PROJECT, CommandError, ConfigError
from migrate import require_migrated

# As SQLModel makes it.
OLD = """
CREATE TABLE "user" (id text PRIMARY KEY);
CREATE TABLE tasks (
    id serial PRIMARY KEY,
    user_id varchar NOT NULL REFERENCES "user" (id),
    title varchar(200) NOT NULL,
    description varchar(1000),
    completed boolean NOT NULL,
    created_at {time} NOT NULL,
    updated_at {time} NOT NULL
);
CREATE INDEX ix_tasks_user_id ON tasks (user_id);
INSERT INTO "user" VALUES ('alice'), ('bob');
INSERT INTO tasks (user_id, title, description, completed, created_at, updated_at)
VALUES
    ('alice', 'Buy milk', 'Two bottles', true, '2025-07-01 09:00', '2025-07-04 09:00'),
    ('bob', 'Call home', NULL, false, '2025-07-02 09:00', '2025-07-02 09:00'),
    ('alice', 'Buy tea', '', false, '2025-07-03 09:00', '2025-07-03 09:00');
"""


@pytest.fixture(params=["timestamp", "timestamptz"])
def old(empty_url: str, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """That database, its owner connected from a place that is not in UTC."""
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(OLD.format(time=request.param).encode())
        connection.execute("SET TimeZone = 'Asia/Kolkata'")
        yield connection


def documented() -> list[str]:
    """The statements of docs/database.md, step by step."""
    text = (PROJECT / "docs/database.md").read_text()
    [section] = re.findall(r"^## From another back end.*?(?=^##)", text, re.MULTILINE | re.DOTALL)
    found: list[str] = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return found


def test_table_of_another_back_end_is_refused_with_where_to_read(
    empty_url: str, old: psycopg.Connection, run_here: RunHere
):
    for left_by_dbmate in ["", "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)"]:
        old.execute(left_by_dbmate.encode())
        code, [line] = run_here("migrate", DATABASE_URL=empty_url)
        assert code == 1
        assert line.startswith(
            "Error: There are tables that no migration has made (tasks): see docs/database.md,"
        )
        with pytest.raises(ConfigError, match="The database lacks migrations"):
            require_migrated(settings_for(empty_url))


def test_table_of_another_back_end_in_another_schema_is_left_alone(
    empty_url: str, old: psycopg.Connection
):
    old.execute("CREATE SCHEMA app")
    migrate.migrate(f"{empty_url}&options=-csearch_path%3Dapp%2Cpublic")
    assert old.execute("SELECT count(*) FROM public.tasks").fetchone() == (3,)


def test_no_table_of_ours_may_be_there_before_the_first_migration(empty_url: str):
    ours = set(re.findall(r"CREATE TABLE public\.(\w+)", (PROJECT / "schema.sql").read_text()))
    with psycopg.connect(empty_url, autocommit=True) as connection:
        for name in ours - {"schema_migrations"}:
            connection.execute(f"CREATE TABLE {name} (id bigint)".encode())
            with pytest.raises(CommandError, match=rf"made \({name}\): see"):
                migrate.migrate(empty_url)
            connection.execute(f"DROP TABLE {name}".encode())


def test_tasks_of_another_back_end_are_taken_over(empty_url: str, old: psycopg.Connection):
    put_aside, take_over = documented()
    old.execute(put_aside.encode())
    migrate.migrate(empty_url)
    old.execute(take_over.encode())
    with app_on(empty_url) as app:
        alice, bob = (User(app.test_client(), name) for name in ("alice", "bob"))
        tea, milk = alice.all()
        assert (milk["id"], milk["description"], milk["completed"]) == (1, "Two bottles", True)
        assert (tea["id"], tea["description"], tea["completed"]) == (3, "", False)
        assert milk["created_at"] == "2025-07-01T09:00:00+00:00"
        assert milk["updated_at"] == "2025-07-04T09:00:00+00:00"
        assert alice.call("GET", query_string={"sort": "updated"}).json == [milk, tea]
        assert [task["title"] for task in bob.all()] == ["Call home"]
        new = bob.create()
        assert (new["id"], new["version"]) == (4, 3)
        assert alice.call("PATCH", "1/complete").json["version"] == 4
    old.execute("DROP SCHEMA old CASCADE")
