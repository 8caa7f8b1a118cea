"""The least that answers the same: a token verified, one statement by psycopg's cursor, in Flask.

Nothing is validated, limited, counted, logged or audited: this costs what gunicorn, Flask and
psycopg cost by themselves.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from flask import Flask, Response, abort, request
from psycopg_pool import ConnectionPool

QUERIES = {file.stem: file.read_text() for file in Path("queries").glob("*.sql")}
KEPT = {"autocommit": True, "prepare_threshold": 0}

secret = os.environ["BETTER_AUTH_SECRET"]
app = Flask(__name__, static_folder=None)


@cache
def pool() -> ConnectionPool[Any]:
    size = 8  # as ours
    return ConnectionPool(
        os.environ["DATABASE_URL"], min_size=size, max_size=size, kwargs=KEPT, open=True
    )


def run(name: str, **values: Any) -> Response:
    """Answer with the JSON text that a statement returns."""
    with pool().connection() as connection:
        row = connection.execute(QUERIES[name], values).fetchone()
    return Response(row[0], mimetype="application/json") if row else abort(404)


@app.before_request
def require_owner() -> None:
    if request.endpoint != "health":
        token = request.headers["Authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, secret, algorithms=["HS256"])
        if claims["sub"] != (request.view_args or {})["user_id"]:
            abort(401)


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.get("/api/<user_id>/tasks")
def list_tasks(user_id: str) -> Response:
    return run("select_tasks", user_id=user_id)


@app.post("/api/<user_id>/tasks")
def create_task(user_id: str) -> tuple[Response, int]:
    return run("insert_task", user_id=user_id, **request.get_json()), 201


@app.get("/api/<user_id>/tasks/<int:task_id>")
def get_task(user_id: str, task_id: int) -> Response:
    return run("select_task", user_id=user_id, task_id=task_id)


@app.put("/api/<user_id>/tasks/<int:task_id>")
def update_task(user_id: str, task_id: int) -> Response:
    return run("update_task", user_id=user_id, task_id=task_id, **request.get_json())


@app.patch("/api/<user_id>/tasks/<int:task_id>/complete")
def toggle_task(user_id: str, task_id: int) -> Response:
    return run("toggle_task", user_id=user_id, task_id=task_id)


@app.delete("/api/<user_id>/tasks/<int:task_id>")
def delete_task(user_id: str, task_id: int) -> tuple[str, int]:
    run("delete_task", user_id=user_id, task_id=task_id)
    return "", 204
