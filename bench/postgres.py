"""A PostgreSQL to measure on: databases made for this run, migrated, filled, and dropped again."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

import roles
from development import embedded

PROJECT = Path(__file__).parent.parent
QUERIES = Path(__file__).parent / "queries"

SERVER_OPTIONS = ["shared_buffers=1GB"]  # as an operator would for a table of this size

Connection = psycopg.Connection[tuple[Any, ...]]
Task = tuple[str, int]  # user_id, id


class Explained(NamedTuple):
    planning: float  # milliseconds
    execution: float  # milliseconds
    pages: int


def query(name: str) -> str:
    return (QUERIES / f"{name}.sql").read_text()


def connect(url: str) -> Connection:
    return psycopg.connect(url, autocommit=True)


@contextmanager
def running_server() -> Iterator[str]:
    """Yield the address of BENCH_DATABASE_URL's server, else of an embedded one in a new folder."""
    if url := os.environ.get("BENCH_DATABASE_URL"):
        yield url
        return
    with (
        TemporaryDirectory(prefix="bench-") as folder,
        embedded.running(Path(folder) / "postgres", SERVER_OPTIONS) as url,
    ):
        yield url


@contextmanager
def migrated_database(server: str, name: str) -> Iterator[str]:
    """Make a database on the server, so that no other one is ever touched; drop it at the end."""
    name = f"tasks_bench_{name}_{os.getpid()}"
    identifier = sql.Identifier(name)
    with connect(server) as connection:
        connection.execute(sql.SQL(query("create_database")).format(name=identifier))
    try:
        url = urlsplit(server)._replace(path=f"/{name}").geturl()
        subprocess.run(
            [sys.executable, "manage.py", "migrate"],
            cwd=PROJECT,
            env=os.environ | {"DATABASE_URL": url},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        yield url
    finally:
        with connect(server) as connection:
            connection.execute(sql.SQL(query("drop_database")).format(name=identifier))


def api_url(url: str) -> str:
    """Make the API's own role, as a deployment has it, and return the address to log in with."""
    parts = urlsplit(url)
    own = parts._replace(netloc=f"tasks_api@{parts.netloc.rpartition('@')[2]}").geturl()
    roles.grant(url, own)
    return own


def fill(connection: Connection, users: int, tasks_per_user: int, deletable: int = 0) -> None:
    """Bring the table to the same state whatever happened before."""
    connection.execute(query("empty_tasks"))
    connection.execute(query("fill_tasks"), {"users": users, "tasks_per_user": tasks_per_user})
    if deletable:
        connection.execute(query("fill_deletable_tasks"), {"users": 200, "tasks": deletable})
    connection.execute(query("count_tasks"))
    connection.execute(query("settle_tasks"))
    with suppress(psycopg.errors.InsufficientPrivilege):
        connection.execute(query("checkpoint"))


def tasks_of(connection: Connection, users: list[str]) -> list[Task]:
    return connection.execute(query("select_tasks_of_users"), {"users": users}).fetchall()


def explained(
    connection: Connection, statement: sql.Composable, values: Sequence[Any] | None = None
) -> Explained:
    """Ask PostgreSQL itself: a caller's clock shows how well the machine wakes up processes."""
    explain = sql.SQL(query("explain")).format(statement=statement)
    row = psycopg.RawCursor(connection).execute(explain, values).fetchone()
    assert row
    [found] = row[0]
    plan = found["Plan"]
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return Explained(found["Planning Time"], found["Execution Time"], pages)


def server_version(connection: Connection) -> str:
    row = connection.execute(query("server_version")).fetchone()
    return str(row[0]) if row else "unknown"
