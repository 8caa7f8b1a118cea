"""How PostgreSQL runs a statement of ours: its plan, and what it read."""

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from statements import QUERIES

Plan = dict[str, Any]


def plan_of(connection: psycopg.Connection, name: str, **values: Any) -> Plan:
    """Run a statement; return its plan, with what each node did."""
    query = QUERIES[name]
    connection.execute("DEALLOCATE ALL")
    connection.execute(f"PREPARE planned AS {query.text}")
    arguments = sql.SQL(", ").join(sql.Literal(values[each]) for each in query.parameters)
    explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE planned ({})")
    row = connection.execute(explain.format(arguments)).fetchone()
    assert row
    return row[0][0]["Plan"]


def nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def pages_of(plan: Plan) -> int:
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
