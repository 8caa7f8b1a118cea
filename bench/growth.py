"""What the two reads cost at growing numbers of other people's tasks."""

from contextlib import ExitStack
from dataclasses import astuple, dataclass
from itertools import product
from statistics import median

from flask import Flask
from psycopg import sql

from bench.cpu import STATEMENTS, api_on, arguments, environ, wsgi_cost
from bench.postgres import Connection, connect, explained, fill, migrated_database, query
from bench.traffic import READS, STATUSES, Request, Traffic
from statements import QUERIES

TASKS_PER_USER = 20


@dataclass(frozen=True, slots=True)
class ReadCost:
    request: float  # microseconds until the response
    statement: float  # microseconds, of which in PostgreSQL
    pages: float


Growth = dict[str, dict[int, ReadCost]]  # by operation and number of tasks


def measure_growth(server: str, sizes: tuple[int, ...], rounds: int, count: int) -> Growth:
    """Measure all sizes side by side, each in a database of its own, in turns."""
    with ExitStack() as stack:
        tables = {}
        for size in sizes:
            url = stack.enter_context(migrated_database(server, str(size)))
            connection = stack.enter_context(connect(url))
            connection.execute(query("never_wait_for_disk"))
            fill(connection, size // TASKS_PER_USER, TASKS_PER_USER)
            tables[size] = api_on(url), connection, Traffic(connection, size // TASKS_PER_USER)
        runs: dict[tuple[str, int], list[ReadCost]] = {each: [] for each in product(READS, sizes)}
        for _ in range(rounds + 1):
            for (operation, size), costs in runs.items():
                api, connection, traffic = tables[size]
                costs.append(cost(api, connection, traffic.requests(operation, count)))
    # The first round warms up.
    return {read: {size: middle(runs[read, size][1:]) for size in sizes} for read in READS}


def cost(api: Flask, connection: Connection, requests: list[Request]) -> ReadCost:
    status = STATUSES[requests[0].operation]
    whole = wsgi_cost(api, [environ(each) for each in requests], status).elapsed
    return middle([ReadCost(whole, *execution(connection, each)) for each in requests])


def execution(connection: Connection, request: Request) -> tuple[float, float]:
    """Find the microseconds that PostgreSQL takes for a statement, and the pages it touches."""
    statement = QUERIES[STATEMENTS[request.operation]]
    values = arguments(request, statement.parameters)
    found = explained(connection, sql.SQL(statement.text), values)
    return found.execution * 1000, found.pages


def middle(costs: list[ReadCost]) -> ReadCost:
    return ReadCost(*(median(column) for column in zip(*map(astuple, costs), strict=True)))
