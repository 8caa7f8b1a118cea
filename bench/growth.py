"""What PostgreSQL does for the two reads at growing numbers of other people's tasks."""

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from statistics import median

from psycopg import sql

from bench.cpu import STATEMENTS, arguments
from bench.postgres import Connection, connect, explained, fill, migrated_database
from bench.traffic import READS, Request, Traffic
from statements import QUERIES

TASKS_PER_USER = 20


@dataclass(frozen=True, slots=True)
class Execution:
    microseconds: float
    pages: float


Growth = dict[str, dict[int, Execution]]  # by operation and number of tasks


def measure_growth(server: str, sizes: tuple[int, ...], rounds: int, count: int) -> Growth:
    """Measure all sizes side by side, each in a database of its own, in turns."""
    with ExitStack() as stack:
        tables = {}
        for size in sizes:
            url = stack.enter_context(migrated_database(server, str(size)))
            connection = stack.enter_context(connect(url))
            fill(connection, size // TASKS_PER_USER, TASKS_PER_USER)
            tables[size] = connection, Traffic(connection, size // TASKS_PER_USER)
        runs: dict[tuple[str, int], list[Execution]] = {each: [] for each in product(READS, sizes)}
        for _ in range(rounds + 1):
            for (operation, size), executions in runs.items():
                connection, traffic = tables[size]
                requests = traffic.requests(operation, count)
                executions.append(middle([execution(connection, each) for each in requests]))
    # The first round warms up.
    return {read: {size: middle(runs[read, size][1:]) for size in sizes} for read in READS}


def execution(connection: Connection, request: Request) -> Execution:
    statement = QUERIES[STATEMENTS[request.operation]]
    values = arguments(request, statement.parameters)
    found = explained(connection, sql.SQL(statement.text), values)
    return Execution(found.execution * 1000, found.pages)


def middle(executions: list[Execution]) -> Execution:
    return Execution(
        median(each.microseconds for each in executions), median(each.pages for each in executions)
    )
