"""How PostgreSQL runs the statements of lists: each by an index, with bounded reads."""

import json
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import product
from typing import Any

import psycopg
import pytest
from plans import Plan, nodes, pages_of, plan_of
from pytest_postgresql import factories
from pytest_postgresql.executors.noop import NoopExecutor
from support import API_ROLE, settings_for
from transfers import store

from database import Database
from schemas import MAX_TITLE_LENGTH
from statements import QUERIES

OTHERS, TASKS, SHARE = 1000, 10_000, 4
MIDDLE = TASKS * SHARE // 2
LIMIT = 50
PAGES_OF_INDEX = TASKS // 15  # an 8 KiB page of an index has 15 entries at least
PAGES_OF_KEY = TASKS // 50  # and one of the primary key's, without titles, has 50
PAGES_OF_ROW = 4  # the primary key's levels and the row itself
PAGES_OF_SHOWN = (LIMIT + 1) * PAGES_OF_ROW + 30
PAGES_OF_EXPORTED = 500 * PAGES_OF_ROW + 100

LISTS = [name for name in QUERIES if "_tasks_by_" in name or name == "select_tasks"]
SAMPLE = 200 * 2  # rows that show whether tags or words are common, and their index's pages
# In these orders a list is read until it is full; by priority, one with words is sorted.
FOUND_WALKED = ("created", "updated", "due")
WALKED = (*FOUND_WALKED, "priority")
# Where a page in the middle of each order ends: by priority, half of all are beyond.
POSITIONS = {
    "created": MIDDLE,
    "updated": MIDDLE,
    "title": "task 25",
    "due": "2028-04-13",
    "priority_asc": "low",
    "priority_desc": "medium",
}
VALUES: dict[str, Any] = dict.fromkeys(
    parameter for name in LISTS for parameter in QUERIES[name].parameters
) | {"user_id": "heavy", "limit": LIMIT, "tags": "[]", "words": "[]", "count": False}


def fill(host: str, port: int, user: str, dbname: str, password: str | None, **_: object) -> None:
    """Store one user's tasks, a quarter of all, scattered among those of 1,000 others."""
    with psycopg.connect(
        host=host, port=port, user=user, dbname=dbname, password=password, autocommit=True
    ) as connection:
        connection.execute(
            """
            INSERT INTO tasks (
                user_id, title, description, completed, priority, due_at, tags, version
            )
            SELECT
                CASE n %% %(share)s WHEN 0 THEN 'heavy' ELSE 'other ' || n %% %(others)s END,
                'Task ' || n || repeat(' and so on', 10), repeat('to be done ', 20),
                n %% 3 > 0, (enum_range(NULL::task_priority))[1 + n / %(share)s %% 4],
                CASE
                    WHEN n %% 7 > 2 THEN timestamptz '2026-01-01 00:00+00' + n * interval '1 hour'
                END,
                CASE n / %(share)s %% 100
                    WHEN 0 THEN '{rare}' WHEN 1 THEN '{}' ELSE '{common}'
                END::text[],
                n + 2
            FROM generate_series(1, %(share)s * %(tasks)s::int) AS n
            ORDER BY hashint4(n)
            """,
            {"others": OTHERS, "tasks": TASKS, "share": SHARE},
        )
        connection.execute(
            """
            INSERT INTO task_counters (user_id, version, stored)
            SELECT 'other ' || n, 1, 0 FROM generate_series(1, 5000) AS n
            UNION SELECT 'heavy', %(last)s, %(tasks)s
            """,
            {"last": TASKS * SHARE + 2, "tasks": TASKS},
        )
        connection.execute("VACUUM (ANALYZE) tasks, task_counters")


# Filled once; no test leaves anything behind in it. Who writes has a copy.
filled = factories.postgresql_noproc(depends_on="template", load=[fill])
copy = factories.postgresql("filled")


def run(connection: psycopg.Connection, name: str, **values: Any) -> Plan:
    return plan_of(connection, name, **VALUES | values)


def explain(connection: psycopg.Connection, name: str, **values: Any) -> tuple[int, set[str]]:
    """Run a statement; return how many buffer pages it read, and its plan's nodes and indexes."""
    plan = run(connection, name, **values)
    ran = [node for node in nodes(plan) if node["Actual Loops"]]
    kinds = {node[name] for node in ran for name in ("Node Type", "Index Name") if name in node}
    return pages_of(plan), kinds


def statements(prefix: str) -> list[str]:
    found = [name for name in LISTS if name.startswith(prefix)]
    assert found, "the statements have other names"
    return found


def positions(name: str) -> list[dict[str, Any]]:
    order = name.partition("_by_")[2] or "created"
    key = POSITIONS.get(order) or POSITIONS[order.partition("_")[0]]
    return [{}, {"after_key": key, "after_id": MIDDLE}]


@pytest.fixture
def planned(filled: NoopExecutor) -> Iterator[psycopg.Connection]:
    with planning(host=filled.host, port=filled.port, dbname=filled.template_dbname) as connection:
        yield connection


@contextmanager
def planning(**address: Any) -> Iterator[psycopg.Connection]:
    """Connect in the API's role, whose plans include row-level security."""
    with psycopg.connect(**address | API_ROLE, autocommit=True) as connection:
        connection.prepare_threshold = None
        connection.execute("SELECT set_config('app.user_id', 'heavy', false)")
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute("SET enable_seqscan = off")
        yield connection


def test_statement_is_planned_once_for_all_values(database_url: str):
    with closing(Database(settings_for(database_url, database_pool_size=1))) as database:
        for number in range(10):
            values = VALUES | {"tags": json.dumps([f"tag {number}"])}
            database.fetch("select_tagged_tasks_by_due_asc", **values)
        with database.connection() as connection:
            plans = "SELECT max(custom_plans), max(generic_plans) FROM pg_prepared_statements"
            listed = f"{plans} WHERE statement LIKE '%tasks%'"
            assert connection.execute(listed).fetchone() == (0, 10)


def test_plan_made_on_an_empty_table_still_uses_an_index_once_it_is_full(
    database_url: str, owner_url: str
):
    name = "select_tagged_tasks_by_priority_desc"
    values = VALUES | {"user_id": "alice", "tags": '["x"]'}
    with closing(Database(settings_for(database_url, database_pool_size=1))) as database:
        assert database.fetch(name, **values)
        store(owner_url, 1000, 10)
        database.fetch(name, **values)
        with database.connection() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
            scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'tasks'"
            assert connection.execute(scans).fetchone() == (0,)


def test_plain_list_reads_no_more_than_it_shows(planned: psycopg.Connection):
    for values in positions("select_tasks"):
        pages, ran = explain(planned, "select_tasks", **values)
        assert pages <= PAGES_OF_SHOWN - LIMIT * (PAGES_OF_ROW - 1)
        assert "Index Scan" in ran
        assert not ran & {"Seq Scan", "Sort", "Bitmap Heap Scan"}


@pytest.mark.parametrize("sort", WALKED)
def test_list_begins_in_the_index_where_the_page_does(planned: psycopg.Connection, sort: str):
    for name in statements(f"select_listed_tasks_by_{sort}_"):
        for values in positions(name):
            assert explain(planned, name, **values)[0] <= PAGES_OF_SHOWN, name


def test_list_reads_the_index_and_the_rows_shown(planned: psycopg.Connection):
    for name in statements("select_listed"):
        for values in positions(name):
            filters = {"completed": False, "priority": "high", "due_before": "2026-03-01"}
            for chosen in [{}, filters, {"count": True}]:
                pages, ran = explain(planned, name, **values, **chosen)
                times = 2 if "count" in chosen else 1
                assert pages <= times * PAGES_OF_INDEX + PAGES_OF_SHOWN, (name, chosen)
                assert "Seq Scan" not in ran, name


@pytest.mark.parametrize(
    ("order", "filters"),
    [
        ("due_asc", {"due_before": "2026-01-08"}),
        ("due_desc", {"due_after": "2030-07-18"}),
        ("priority_asc", {"priority": "high"}),
    ],
)
def test_list_reads_no_further_than_its_filters(
    planned: psycopg.Connection, order: str, filters: dict[str, str]
):
    pages, _ = explain(planned, f"select_listed_tasks_by_{order}", **filters)
    assert pages <= PAGES_OF_SHOWN


def test_list_by_title_takes_the_folded_titles_from_the_index(planned: psycopg.Connection):
    for order in ["asc", "desc"]:
        _, ran = explain(planned, f"select_listed_tasks_by_title_{order}")
        assert {"Index Only Scan", "tasks_due_title"} <= ran


@pytest.mark.parametrize("tags", [[], ["common"]])
def test_list_by_title_sorts_little_more_than_the_page_can_reach(
    planned: psycopg.Connection, tags: list[str]
):
    kind = "tagged" if tags else "listed"
    for order in ["asc", "desc"]:
        name = f"select_{kind}_tasks_by_title_{order}"
        for values in positions(name):
            plan = run(planned, name, tags=json.dumps(tags), **values)
            [scanned] = [
                node["Actual Rows"]
                for node in nodes(plan)
                if node.get("Index Name") == "tasks_due_title"
                and "Filter" in node
                and node["Actual Loops"]
            ]
            assert LIMIT < scanned < TASKS // 4, (name, values)


@pytest.mark.parametrize("tags", [["rare"], ["common"], ["missing"], ["rare", "common"]])
def test_list_with_tags_reads_few_rows_in_vain(planned: psycopg.Connection, tags: list[str]):
    for name in statements("select_tagged"):
        for values in positions(name):
            pages, ran = explain(planned, name, tags=json.dumps(tags), **values)
            once = PAGES_OF_KEY if "_by_priority_" in name else PAGES_OF_INDEX + SAMPLE
            assert pages <= once + 2 * PAGES_OF_SHOWN, name
            assert "Seq Scan" not in ran, name


def test_list_with_words_reads_each_row_of_the_user_at_most_once(planned: psycopg.Connection):
    for name in statements("select_found"):
        for values in positions(name):
            pages, ran = explain(planned, name, words='["nowhere"]', **values)
            assert pages <= TASKS + PAGES_OF_INDEX + PAGES_OF_SHOWN + SAMPLE, name
            assert not ran & {"Seq Scan", "Bitmap Heap Scan"}, name


def test_list_with_common_words_reads_few_rows_in_vain(planned: psycopg.Connection):
    for name in statements("select_found"):
        sorts = not any(f"_by_{sort}_" in name for sort in FOUND_WALKED)
        for values, words in product(positions(name), ['["task"]', '["task", "to"]', "[]"]):
            pages, ran = explain(planned, name, words=words, **values)
            assert pages <= 2 * PAGES_OF_SHOWN + sorts * (PAGES_OF_INDEX + SAMPLE), name
            assert "Seq Scan" not in ran, name


def test_version_of_a_list_is_one_row(planned: psycopg.Connection):
    pages, ran = explain(planned, "select_version")
    assert pages <= PAGES_OF_ROW
    assert "Seq Scan" not in ran


@pytest.mark.parametrize("name", ["update_tasks", "delete_tasks", "restore_tasks"])
def test_batch_reads_the_rows_that_it_names(copy: psycopg.Connection, name: str):
    query = "SELECT id FROM tasks WHERE user_id = 'heavy' AND id > %s ORDER BY id LIMIT 100"
    with planning(**copy.info.get_parameters()) as connection:
        ids = [task_id for (task_id,) in connection.execute(query, [MIDDLE])]
        changes = json.dumps(
            [{"task_id": each, "sent": ["completed"], "completed": True} for each in ids]
        )
        pages, ran = explain(connection, name, task_ids=ids, changes=changes)
    assert pages < 100 or name != "restore_tasks"  # which finds none in the trash: it only looks
    assert "tasks_pkey" in ran
    assert not ran & {"Seq Scan", "tasks_updated", "tasks_due_title"}


def test_export_reads_no_further_than_its_page(planned: psycopg.Connection):
    pages, ran = explain(planned, "select_exported_tasks", after_id=0)
    assert pages <= PAGES_OF_EXPORTED
    assert "Index Only Scan" in ran
    assert not ran & {"Seq Scan", "Bitmap Heap Scan"}


def test_index_by_title_holds_the_longest_title_of_the_longest_user_id(
    postgresql: psycopg.Connection,
):
    """An entry of an index has at most 2,704 bytes; this one has the title twice."""
    dice = random.Random(5)
    user_id, title = (
        "".join(chr(dice.randrange(0x10400, 0x1FFFF)) for _ in range(length))
        for length in (255, MAX_TITLE_LENGTH)
    )
    for due_at in [None, "2026-05-01"]:
        postgresql.execute(
            "INSERT INTO tasks (user_id, title, due_at, tags) VALUES (%s, %s, %s, '{a}')",
            (user_id, title, due_at),
        )


def test_insert_maintains_three_indexes(postgresql: psycopg.Connection):
    """The fourth index is of the trash only."""
    found = postgresql.execute(
        "SELECT indexrelid::regclass::text FROM pg_index"
        " WHERE indrelid = 'tasks'::regclass"
        " AND pg_get_expr(indpred, indrelid) IS DISTINCT FROM '(deleted_at IS NOT NULL)' ORDER BY 1"
    )
    assert found.fetchall() == [("tasks_due_title",), ("tasks_pkey",), ("tasks_updated",)]
