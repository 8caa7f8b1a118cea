"""A database in which another back end has kept tasks: refused, taken over, and given back."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from processes import RunHere
from support import User, app_on, refusal, settings_for

import migrate
from config import PROJECT, CommandError, ConfigError
from migrate import require_migrated

# As SQLModel makes them, before 0.0.45 and since.
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
    ('alice', 'Buy tea', '', false, '2025-07-03 09:00', '2025-07-03 09:00'),
    ('bob', 'Last', NULL, false, '2025-07-03 09:00', '2025-07-03 09:00');
"""


@pytest.fixture(params=["timestamp", "timestamptz"])
def old(empty_url: str, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """That database, its owner connected from a place that is not in UTC."""
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(OLD.format(time=request.param).encode())
        connection.execute("SET TimeZone = 'Asia/Kolkata'")
        yield connection


DOCUMENT = (PROJECT / "docs/taking_over.md").read_text()
PUT_ASIDE, TAKE_OVER, FIND_BREAKING, GIVE_BACK = re.findall(
    r"```sql\n(.*?)```", DOCUMENT, re.DOTALL
)


def run(connection: psycopg.Connection, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, and return the last one's rows."""
    for statement in statements:
        cursor = connection.execute(statement.encode())
    return cursor.fetchall() if cursor.description else []


def test_table_of_another_back_end_is_refused_with_where_to_read(
    empty_url: str, old: psycopg.Connection, run_here: RunHere
):
    for left_by_dbmate in ["", "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)"]:
        old.execute(left_by_dbmate.encode())
        assert refusal(run_here, "migrate", DATABASE_URL=empty_url).startswith(
            "There are tables that no migration has made (tasks): see docs/taking_over.md."
        )
        with pytest.raises(ConfigError, match="The database lacks migrations"):
            require_migrated(settings_for(empty_url))


def test_table_of_another_back_end_in_another_schema_is_left_alone(
    empty_url: str, old: psycopg.Connection
):
    old.execute("CREATE SCHEMA app")
    migrate.migrate(f"{empty_url}&options=-csearch_path%3Dapp%2Cpublic")
    assert old.execute("SELECT count(*) FROM public.tasks").fetchone() == (4,)


def test_no_table_of_ours_may_be_there_before_the_first_migration(empty_url: str):
    ours = set(re.findall(r"CREATE TABLE public\.(\w+)", (PROJECT / "schema.sql").read_text()))
    with psycopg.connect(empty_url, autocommit=True) as connection:
        for name in ours - {"schema_migrations"}:
            run(connection, f"CREATE TABLE {name} (id bigint)")
            with pytest.raises(CommandError, match=rf"made \({name}\): see"):
                migrate.migrate(empty_url)
            run(connection, f"DROP TABLE {name}")


def test_tasks_of_another_back_end_are_taken_over(empty_url: str, old: psycopg.Connection):
    run(old, "DELETE FROM tasks WHERE id = 4", PUT_ASIDE)
    migrate.migrate(empty_url)
    run(old, TAKE_OVER)
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
        assert (new["id"], new["version"]) == (5, 3)
        assert alice.call("PATCH", "1/complete").json["version"] == 4
    run(old, "DROP SCHEMA old CASCADE")


def test_every_task_that_breaks_a_limit_is_found(empty_url: str, old: psycopg.Connection):
    run(
        old,
        "ALTER TABLE tasks ALTER title TYPE text, ALTER description TYPE text",
        "UPDATE tasks SET title = repeat('é', 200), description = repeat('é', 5000)",
        "INSERT INTO tasks (user_id, title, description, completed, created_at, updated_at)"
        " SELECT 'bob', title, description, false, now(), now() FROM (VALUES ('', NULL),"
        " (E' \\u3000\\n', NULL), (repeat('é', 201), NULL), ('a', repeat('é', 5001)))"
        " AS breaking (title, description)",
        PUT_ASIDE,
    )
    migrate.migrate(empty_url)
    with pytest.raises(psycopg.errors.CheckViolation, match="tasks_title_"):
        run(old, TAKE_OVER)
    run(old, "ROLLBACK")
    for task_id, *_ in run(old, FIND_BREAKING):
        old.execute("DELETE FROM old.tasks WHERE id = %s", [task_id])
    run(old, TAKE_OVER)
    assert run(old, "SELECT count(*) FROM tasks") == [(4,)]


def test_columns_of_other_kinds_are_taken_over_as_documented(empty_url: str):
    rows = dict(re.findall(r"^   \| `(\w+)` .*\| `(.+)` \|$", DOCUMENT, re.MULTILINE))
    assert list(rows) == ["id", "completed", "priority", "due_at", "tags"]
    into, select, rest = re.split(r"(?=SELECT\n|FROM old)", TAKE_OVER)
    into = into.replace("version)", "version, priority, due_at, due_all_day, tags)")
    select = select.replace(" id, title", f" {rows['id']}, title")
    select = select.replace(" completed", f" {rows['completed']}").rstrip()
    take_over = f"{into}{select}, {rows['priority']}, {rows['due_at']}, true, {rows['tags']} {rest}"
    with psycopg.connect(empty_url, autocommit=True) as old:
        run(
            old,
            "CREATE TYPE taskpriority AS ENUM ('LOW', 'HIGH')",
            "CREATE TABLE task (id uuid PRIMARY KEY, user_id uuid, title varchar,"
            " description varchar, is_completed boolean, priority taskpriority, due_date date,"
            " tags json, created_at timestamptz, updated_at timestamptz)",
            """
            INSERT INTO task
            SELECT
                gen_random_uuid(), 'b55ba3a2-15cf-4b1e-a3c8-3a6d1be0b3a5', title, NULL, completed,
                priority::taskpriority, due::date, tags::json, day::timestamptz, now()
            FROM (VALUES
                ('Later', true, 'HIGH', '2026-12-01', '["home", "soon"]', '2025-07-02'),
                ('Earlier', NULL, NULL, NULL, 'null', '2025-07-01'),
                ('Latest', false, 'LOW', NULL, NULL, '2025-07-03')
            ) AS given (title, completed, priority, due, tags, day)
            """,
            "ALTER TABLE task RENAME TO tasks",
            PUT_ASIDE,
        )
        migrate.migrate(empty_url)
        run(old, take_over)
    with app_on(empty_url) as app:
        user = User(app.test_client(), "b55ba3a2-15cf-4b1e-a3c8-3a6d1be0b3a5")
        names = ("id", "title", "completed", "priority", "due_at", "tags")
        assert [tuple(task[name] for name in names) for task in user.all()] == [
            (3, "Latest", False, "low", None, []),
            (2, "Later", True, "high", "2026-12-01", ["home", "soon"]),
            (1, "Earlier", False, "none", None, []),
        ]
        assert user.create()["id"] == 4


def test_tasks_are_given_back_with_what_was_written_since(
    empty_url: str, old: psycopg.Connection, run_here: RunHere
):
    run(old, PUT_ASIDE)
    migrate.migrate(empty_url)
    run(old, TAKE_OVER)
    with app_on(empty_url) as app:
        alice, bob = (User(app.test_client(), name) for name in ("alice", "bob"))
        assert alice.call("DELETE", "1").status_code == 204
        changed = alice.call("PATCH", "3/complete").json
        bob.create(title="Write")
    run(old, GIVE_BACK)
    while run_here("rollback", DATABASE_URL=empty_url)[0] == 0:
        pass
    [put_back] = re.findall(r"`(ALTER TABLE old\.tasks SET SCHEMA .*)`", DOCUMENT)
    run(old, put_back, "SET TimeZone = 'UTC'")
    tasks = run(old, "SELECT id, title, completed, updated_at::text FROM tasks ORDER BY id")
    assert [row[:3] for row in tasks] == [
        (2, "Call home", False),
        (3, "Buy tea", True),
        (4, "Last", False),
        (5, "Write", False),
    ]
    assert changed["updated_at"].startswith(tasks[1][3].partition("+")[0].replace(" ", "T"))
    assert run(old, "SELECT nextval('tasks_id_seq')") == [(6,)]
