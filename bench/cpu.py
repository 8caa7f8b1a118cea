"""CPU time of one request in this process, without an HTTP server, beside the floor below it."""

import atexit
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from flask import Flask
from psycopg import RawCursor

from app import create_app
from bench.postgres import Connection, api_url, connect, fill, query
from bench.traffic import OPERATIONS, ORIGIN, RATE_LIMIT, SECRET, STATUSES, Request, Traffic
from blueprints.tasks import parameters_of
from config import Settings
from observability.logs import set_up_logging
from statements import QUERIES

USERS = 10_000
TASKS_PER_USER = 20
STATEMENTS = {
    "list": "select_tasks",
    "get": "select_task",
    "create": "insert_task",
    "update": "update_task",
    "toggle": "toggle_task",
    "delete": "delete_task",
}

Environ = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cpu:
    """Microseconds a request."""

    ours: float
    flask: float
    psycopg: float

    @property
    def floor(self) -> float:
        return self.flask + self.psycopg


def measure_cpu(url: str, rounds: int, count: int) -> dict[str, Cpu]:
    """Measure in many short rounds, the candidates in turns, so that noise hits all alike."""
    with connect(url) as connection:
        connection.execute(query("never_wait_for_disk"))
    ours, bare = api_on(url), bare_flask()
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in OPERATIONS}
    with connect(url) as connection:
        fill(connection, USERS, TASKS_PER_USER, deletable=2 * count * (rounds + 1))
        traffic = Traffic(connection, USERS)
        for _ in range(rounds + 1):
            for operation in OPERATIONS:
                requests = traffic.requests(operation, count)
                twins = traffic.requests(operation, count)  # a task is deleted only once
                times[operation].append(
                    (
                        wsgi_cpu(ours, [environ(each) for each in requests], STATUSES[operation]),
                        wsgi_cpu(bare, [environ(each) for each in requests], 200),
                        statement_cpu(connection, operation, twins),
                    )
                )
    # The first round warms up.
    return {
        operation: Cpu(*(median(column) for column in zip(*rows[1:], strict=True)))
        for operation, rows in times.items()
    }


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this process and what it starts on one core.

    Else the figures include the cost of waking the other core, or not, as the kernel places them.
    """
    if sys.platform != "linux":
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def api_on(url: str, **others: str) -> Flask:
    """Make the API with every default feature, its log written to nowhere."""
    given = {
        "DATABASE_URL": api_url(url),
        "BETTER_AUTH_SECRET": SECRET,
        "CORS_ORIGINS": ORIGIN,
        "RATE_LIMIT": RATE_LIMIT,
    }
    settings = Settings.load(given | others)
    with redirect_stderr(Path(os.devnull).open("w")):
        set_up_logging(settings)
    app = create_app(settings)
    gc.freeze()  # as gunicorn.conf.py does, and as rarely
    gc.set_threshold(10_000)
    atexit.register(app.extensions["database"].close)  # Python 3.14 warns of a pool left open
    return app


def bare_flask() -> Flask:
    """Make the least that answers: a hook that does nothing, a route that returns bytes."""
    app = Flask("bare", static_folder=None)
    app.before_request(lambda: None)
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app.add_url_rule("/<path:_>", "any", lambda _: b"{}", methods=methods)
    return app


def environ(request: Request) -> Environ:
    body = request.body.encode()
    sent = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
    return (sent if request.method != "GET" else {}) | {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "HTTP_ORIGIN": ORIGIN,
        "HTTP_AUTHORIZATION": f"Bearer {request.token}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds: of this process's CPU, and from call to response, PostgreSQL included."""

    cpu: float
    elapsed: float


def wsgi_cpu(app: Flask, environs: list[Environ], status: int) -> float:
    return wsgi_cost(app, environs, status).cpu


def wsgi_cost(app: Flask, environs: list[Environ], status: int) -> Cost:
    def start_response(line: str, *_: object) -> None:
        if line[:3] != str(status):
            raise RuntimeError(f"Expected {status} from {app.name}, got {line}.")

    def answer_all() -> None:
        for each in environs:
            response: Any = app(each, start_response)
            b"".join(response)
            if close := getattr(response, "close", None):
                close()

    cpu, elapsed = seconds_of(answer_all)
    return Cost(cpu / len(environs) * 1e6, elapsed / len(environs) * 1e6)


def statement_cpu(connection: Connection, operation: str, requests: list[Request]) -> float:
    """Run the operation's own statement, prepared, and take its bytes: all that psycopg must do."""
    statement = QUERIES[STATEMENTS[operation]]
    rows = [arguments(each, statement.parameters) for each in requests]
    values: list[bytes | None] = []

    def execute_all() -> None:
        cursor = RawCursor(connection)
        for row in rows:
            cursor.execute(statement.text, row, prepare=True)
            values.append(cursor.pgresult.get_value(0, 0) if cursor.pgresult else None)

    seconds, _ = seconds_of(execute_all)
    if None in values:
        raise RuntimeError(f"{STATEMENTS[operation]} found nothing.")
    return seconds / len(rows) * 1e6


def arguments(request: Request, parameters: tuple[str, ...]) -> list[Any]:
    fields = json.loads(request.body or "{}")
    values = parameters_of(fields) | {
        "user_id": request.user_id,
        "task_id": request.task_id,
        "versions": None,
        "max_stored": 100_000,
        "limit": 1000,
        "after_id": None,
    }
    return [values[parameter] for parameter in parameters]


def seconds_of(work: Callable[[], None]) -> tuple[float, float]:
    """Run something; return the seconds of this process's CPU that it took, and those in all."""
    gc.collect()
    cpu, elapsed = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - elapsed
