"""Batches, as the tests send them."""

from typing import Any

from support import User
from werkzeug.test import TestResponse

CREATE = {"op": "create", "task": {"title": "Buy milk"}}


def batch(user: User, *operations: Any) -> TestResponse:
    return user.call("POST", "batch", json={"operations": operations})


def done(user: User, *operations: Any) -> list[Any]:
    response = batch(user, *operations)
    assert response.status_code == 200, response.text
    results: list[Any] = response.json["results"]
    return results


def each(op: str, tasks: list[Any], **fields: Any) -> list[dict[str, Any]]:
    return [{"op": op, "id": task["id"]} | fields for task in tasks]
