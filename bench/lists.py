"""What PostgreSQL does for each kind of list, of a user with many tasks in a large table."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from statistics import median, quantiles
from typing import Any

from psycopg import sql

from bench.postgres import Connection, api_url, connect, explained, migrated_database, query
from statements import QUERIES

TASKS_OF_USER = 10_000
LIMIT = 50
FAR = 199  # pages before the one that is measured
STEP = 995  # tasks at once on the way there
SORTS = ("created", "updated", "title", "due", "priority")
ORDERS = ("asc", "desc")
NO_FILTERS: dict[str, Any] = dict.fromkeys(
    parameter for name in QUERIES if "_tasks_by_" in name for parameter in QUERIES[name].parameters
) | {"user_id": "heavy", "limit": LIMIT, "tags": "[]", "words": "[]", "count": False}
FILTERS: dict[str, dict[str, Any]] = {
    "status": {"completed": False},
    "status, priority, due": {
        "completed": False,
        "priority": "high",
        "due_after": "2026-03-01",
        "due_before": "2026-04-01",
    },
    "status, counted": {"completed": False, "count": True},
    "common tag": {"tags": '["common"]'},
    "rare tag": {"tags": '["rare"]'},
    "common word": {"words": '["task"]'},
    "rare word": {"words": '["nowhere"]'},
}


@dataclass(frozen=True, slots=True)
class Listed:
    p50: float  # milliseconds
    p95: float
    pages: float
    has_words: bool


Lists = dict[str, Listed]
Variant = tuple[str, dict[str, Any]]  # statement and values


def measure_lists(server: str, tasks: int, rounds: int) -> Lists:
    """Measure all lists in turns, as the API's role, with the plans of frequent statements."""
    with migrated_database(server, "lists") as url:
        with connect(url) as owner:
            owner.execute(query("fill_lists"), {"tasks": tasks, "share": tasks // TASKS_OF_USER})
            owner.execute(query("count_tasks"))
            owner.execute(query("settle_tasks"))
        with connect(api_url(url)) as connection:
            connection.prepare_threshold = None
            connection.execute(query("begin_as_user"), {"user_id": NO_FILTERS["user_id"]})
            variants = dict(variants_of(connection))
            runs: dict[str, list[tuple[float, float]]] = {label: [] for label in variants}
            for _ in range(rounds + 1):
                for label, (statement, values) in variants.items():
                    runs[label].append(execution(connection, statement, values))
    # The first round warms up.
    return {label: summed_up(executions[1:], "word" in label) for label, executions in runs.items()}


def summed_up(executions: list[tuple[float, float]], has_words: bool) -> Listed:
    milliseconds, pages = zip(*executions, strict=True)
    return Listed(median(milliseconds), quantiles(milliseconds, n=20)[-1], median(pages), has_words)


def variants_of(connection: Connection) -> Iterator[tuple[str, Variant]]:
    """Yield labels with their statements and values; each statement is prepared once."""
    prepared: set[str] = set()

    def prepare(name: str) -> str:
        if name not in prepared:
            prepared.add(name)
            text = sql.SQL(QUERIES[name].text)
            form = sql.SQL(query("prepare"))
            connection.execute(form.format(name=sql.Identifier(name), statement=text))
        return name

    orders = [(f"{sort} {order}", f"_by_{sort}_{order}") for sort, order in product(SORTS, ORDERS)]
    for label, name in [("plain", ""), *orders]:
        statement = prepare(f"select_listed_tasks{name}" if name else "select_tasks")
        yield label, (statement, NO_FILTERS)
        yield f"{label}, page {FAR + 1}", (statement, far_into(connection, statement))
    for (label, chosen), sort in product(FILTERS.items(), SORTS):
        kind = {"tags": "tagged", "words": "found"}.get(next(iter(chosen)), "listed")
        statement = prepare(f"select_{kind}_tasks_by_{sort}_desc")
        yield f"{label}, {sort} desc", (statement, NO_FILTERS | chosen)


def far_into(connection: Connection, statement: str) -> dict[str, Any]:
    """Find where FAR pages end, as a client does: page after page."""
    values = NO_FILTERS | {"limit": STEP}
    for _ in range(FAR * LIMIT // STEP):
        row = connection.execute(execute(statement, values)).fetchone()
        assert row
        key, task_id = row[2]
        values |= {"after_key": str(key), "after_id": task_id}
    return values | {"limit": LIMIT}


def execute(statement: str, values: dict[str, Any]) -> sql.Composed:
    literals = [sql.Literal(values[parameter]) for parameter in QUERIES[statement].parameters]
    return sql.SQL(query("execute").strip().rstrip(";")).format(
        name=sql.Identifier(statement), values=sql.SQL(", ").join(literals)
    )


def execution(
    connection: Connection, statement: str, values: dict[str, Any]
) -> tuple[float, float]:
    """Measure milliseconds and pages: planning counts, parsing does not."""
    found = explained(connection, execute(statement, values))
    return found.planning + found.execution, found.pages
