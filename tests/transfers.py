"""Tasks that go in and out as files."""

import json
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from support import User
from werkzeug.test import TestResponse

from blueprints import transfer
from schemas import TaskUpdate

FORMATS = list(transfer.FORMATS)
EACH_FORMAT = pytest.mark.parametrize("content_type", FORMATS)
WRITABLE = list(TaskUpdate().fields)
DEFAULTS = {"description": None, "priority": "none", "due_at": None, "tags": [], "completed": False}
LONG = {"title": "😀" * 200, "description": "\r😀=\\N" * 1000, "tags": [";\r" * 24 + ";"]}

# The database of a test serves all of its examples: each has a user of its own.
examples = settings(
    derandomize=True,
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def export(user: User, content_type: str) -> bytes:
    response = user.call("GET", "export", headers={"Accept": content_type})
    assert response.status_code == 200, response.text
    return response.data


def send(user: User, body: bytes | str, content_type: str) -> TestResponse:
    return user.call("POST", "import", data=body, headers={"Content-Type": content_type})


def bring(user: User, tasks: list[dict[str, Any]]) -> None:
    response = send(user, json.dumps(tasks), "application/json")
    assert (response.status_code, response.json) == (201, {"imported": len(tasks)}), response.text


def written(user: User) -> list[dict[str, Any]]:
    """List what a client may write of a user's tasks, oldest first."""
    return [{name: task[name] for name in WRITABLE} for task in reversed(user.all())]


def calendar(*lines: str) -> str:
    """Write a calendar of one VTODO."""
    todo = ["BEGIN:VCALENDAR", "VERSION:2.0", "BEGIN:VTODO", *lines, "END:VTODO", "END:VCALENDAR"]
    return "\r\n".join(todo)


def store(owner_url: str, count: int, length: int) -> None:
    """Give alice so many tasks, with a description of this length, bypassing the API."""
    with psycopg.connect(owner_url) as connection:
        connection.execute(
            "INSERT INTO tasks (user_id, title, description, version)"
            " SELECT 'alice', 'x', repeat('y', %s), 2 FROM generate_series(1, %s)",
            [length, count],
        )
