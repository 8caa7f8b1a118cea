"""What tests share: tokens, a user who calls, the one assertion about errors, a log to read."""

import io
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import jwt
import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from blueprints.positions import Position, write_position
from config import PROJECT, Settings
from observability.logs import LineFormatter

# The product's own modules: at the top, and in folders beside what only tries it.
MODULES = [*PROJECT.glob("*.py")]
for package in PROJECT.glob("*/__init__.py"):
    if package.parent.name not in {"bench", "faults"}:
        MODULES += package.parent.glob("*.py")

SECRET = "a secret of the tests, 32 bytes or more"
API_ROLE = {"user": "tasks_api", "password": "only for tests"}
JSON = {"Content-Type": "application/json"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
FRONT_END = {"Origin": "http://localhost:3000"}
PREFLIGHT = FRONT_END | {
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "authorization,content-type",
}
PARENT = f"00-{TRACE}-{CALLER}-01"

# A value for each field of a new task except the title.
SET = {"priority": "high", "due_at": "2026-12-01", "tags": ["home", "shop"], "description": "Two"}

# Limits that are counted and announced, but never reached.
GENEROUS = {"rate_limit": "1000000/second", "auth_failure_limit": "1000000/second"}


EXPLORING = [
    # schemathesis ignores what Hypothesis says of its strategies, but not in all of its threads.
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning"),
    pytest.mark.no_cover,  # other tests cover what this runs, in a third of the time
]


def settings_for(database_url: str, **values: Any) -> Settings:
    given = {"database_url": database_url, "better_auth_secret": SECRET} | GENEROUS
    return Settings(**given | values)


def token_for(user_id: str, **claims: Any) -> str:
    payload = {"sub": user_id, "exp": int(time.time()) + 600} | claims
    return jwt.encode({k: v for k, v in payload.items() if v is not None}, SECRET)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def without_audit(app: Flask) -> Flask:
    """Keep an application that has no database from writing an audit.

    The auditor's thread would try to reach a database every second until the tests end.
    """
    app.extensions["reports"].remove(app.extensions["auditor"].report)
    return app


def app_for(**settings: Any) -> Flask:
    """Build the application, for requests that never reach a database."""
    return without_audit(create_app(settings_for("postgresql://", **settings)))


@contextmanager
def app_on(database_url: str, **settings: Any) -> Iterator[Flask]:
    """Build the application; at the end, await what its audit has to write, and close its pool."""
    app = create_app(settings_for(database_url, **settings))
    try:
        yield app
    finally:
        app.extensions["auditor"].close(10)
        app.extensions["database"].close()


class User:
    """A person with a valid token who calls the API under their own path."""

    def __init__(self, client: FlaskClient, user_id: str) -> None:
        self.client = client
        self.id = user_id
        self.tasks = f"/api/{quote(user_id, safe='')}/tasks"
        self.headers = bearer(token_for(user_id))

    def call(self, method: str, path: Any = "", **options: Any) -> TestResponse:
        """Call a path below the user's tasks; an absolute one is taken as it is."""
        path = str(path)
        url = path if path.startswith("/") else f"{self.tasks}/{path}".removesuffix("/")
        headers = self.headers | options.pop("headers", {})
        options = {"buffered": True} | options  # read to its end, and closed, as by a server
        return self.client.open(url, method=method, headers=headers, **options)

    def create(self, title: str = "Buy milk", **fields: Any) -> dict[str, Any]:
        response = self.call("POST", json={"title": title, **fields})
        assert response.status_code == 201, response.text
        task: dict[str, Any] = response.json
        return task

    def all(self) -> list[dict[str, Any]]:
        response = self.call("GET")
        assert response.status_code == 200, response.text
        tasks: list[dict[str, Any]] = response.json
        return tasks


def tables_with_users() -> list[str]:
    """Name the tables that hold users' data; the audit is about them."""
    schema = (PROJECT / "schema.sql").read_text()
    tables = re.findall(r"^CREATE TABLE public\.(\w+) \((.*?)^\)", schema, re.MULTILINE | re.DOTALL)
    return [name for name, columns in tables if "user_id text" in columns and name != "audit_log"]


EVERY_TABLE = "write_to_every_table in support.py has to write to the table"


def write_to_every_table(user: User) -> None:
    """Give the user a row in each table that holds what is a user's."""
    gone = user.create()["id"]
    user.call("DELETE", gone)
    user.call("DELETE", f"/api/{user.id}/trash/{gone}")
    user.call("DELETE", user.create()["id"])
    user.call("POST", json={"title": "kept"}, headers={"Idempotency-Key": "key"})


def cursor_at(user: User, version: int, task_id: int) -> str:
    """Write the cursor of a place in the user's changes."""
    with user.client.application.app_context():
        return write_position(user.id, Position(version, task_id))


def trash_of(user: User) -> list[dict]:
    response = user.call("GET", f"/api/{user.id}/trash")
    assert response.status_code == 200, response.text
    assert "Link" not in response.headers
    return response.json


class NoThread:
    """A thread that cannot start, as when the system has no more of them."""

    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def assert_error(
    response: TestResponse, status: int, error: str, message: str | None = None
) -> dict[str, Any]:
    """Require the one shape of errors; return the details."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    body = response.json
    assert body.keys() <= {"error", "message", "details"}
    assert body["error"] == error
    assert isinstance(body["message"], str)
    assert body["message"].endswith((".", *"0123456789")), "a message is a sentence"
    if message is not None:
        assert body["message"] == message
    if status == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert "401" not in body["message"]
        assert "Unauthorized" not in body["message"]
    if status == 405:
        assert response.headers["Allow"]
    if status in {429, 503}:
        assert int(response.headers["Retry-After"]) > 0
    details: dict[str, Any] = body["details"]
    assert details.pop("request_id") == response.headers["X-Request-Id"]
    return details


def refusal(run: Callable[..., tuple[int, list[str]]], *command: Any, **given: Any) -> str:
    """Run a command that is refused in one line; return what it tells."""
    code, [line] = run(*command, **given)
    assert code == 1, line
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def audit_entries(postgresql: psycopg.Connection) -> list[tuple[Any, ...]]:
    postgresql.rollback()
    return postgresql.execute(
        "SELECT user_id, action, task_ids, detail, request_id FROM audit_log"
        " ORDER BY at, action, user_id"
    ).fetchall()


def someone_waits_for(connection: psycopg.Connection) -> bool:
    """Tell whether another transaction waits for the end of this connection's."""
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid"
    return bool(connection.execute(waiting).fetchall())


Lines = Callable[[], list[Any]]
NewApp = Callable[..., Flask]


@contextmanager
def listening(form: str) -> Iterator[io.StringIO]:
    """Collect what is logged meanwhile, written as LOG_FORMAT `form` writes it."""
    root, stream = logging.getLogger(), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(form))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
