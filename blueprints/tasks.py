"""Tasks of one user: /api/{user_id}/tasks."""

import re
from collections.abc import Mapping
from typing import Any

from flask import Response, current_app

from blueprints import UserBlueprint, database, heeds, json_response, path_of
from blueprints.lists import LIST_ETAG, LIST_HEADERS, ListArguments, list_response
from conditions import expected_versions, is_fresh
from connection import Value
from errors import ApiError
from events import emit
from lean_flask import current_request
from request_bodies import MERGE_PATCH
from schemas import Task, TaskCreate, TaskPatch, TaskUpdate

LOCATION = {
    "Location": {
        "description": "The new task's path.",
        "required": True,
        "schema": {"type": "string"},
    }
}

ETAG = {
    "ETag": {
        "description": (
            "The task's version, for If-Match and If-None-Match. Opaque: where the response is"
            ' compressed, it has a suffix (`"57:gzip"`). To make one, put `version` in quotes.'
        ),
        "required": True,
        "schema": {"type": "string"},
        "example": '"57"',
    }
}

blueprint = UserBlueprint(
    "tasks",
    __name__,
    url_prefix="/api/<user_id:user_id>/tasks",
    description="What a user wants to get done.",
)

NOT_SENT: dict[str, Any] = dict.fromkeys((*TaskUpdate().fields, "due_all_day"))

# In the JSON of a task just completed. No title can hold this, as its quotes would be escaped.
COMPLETED_NOW = re.compile(rb'"updated_at":("[^"]+"),"completed_at":\1')


def missing_task(task_id: int) -> ApiError:
    return ApiError(404, f"Resource not found: task {task_id}")


def too_many_tasks(most: int) -> ApiError:
    message = f"You may have {most} tasks at most, including those in the trash."
    return ApiError(409, message)


def task_response(version: bytes, task: bytes, status: int = 200) -> Response:
    return json_response(task, status, ETag=f'"{version.decode()}"')


def write_task(
    statement: str, user_id: str, task_id: int, *, found_by: str = "select_task", **values: Value
) -> tuple[bytes, bytes]:
    """Run a statement that changes one task, if If-Match and If-None-Match allow it.

    `found_by` names the statement that returns the version, if the task is there at all.

    Returns the new version and the statement's second column: the task's JSON, where it has one.

    Raises:
        ApiError: 404, or 412 where it has a wrong version; then nothing was written.
    """
    if "HTTP_IF_NONE_MATCH" in current_request().environ:
        # It is safe to look first: a version that a client has seen never returns once it is gone.
        found = database().fetch(found_by, user_id=user_id, task_id=task_id)
        if not found:
            raise missing_task(task_id)
        if is_fresh(found[0][0].decode()):
            raise ApiError(412, "The task still has a version that If-None-Match names.")
    versions = expected_versions()
    rows = database().fetch(
        statement, user_id=user_id, task_id=task_id, versions=versions, **values
    )
    if rows:
        [(version, result)] = rows
        return version, result
    # The statement has decided; only the reason is looked up afterwards.
    if versions is not None and database().fetch(found_by, user_id=user_id, task_id=task_id):
        raise ApiError(412)
    raise missing_task(task_id)


def parameters_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Make parameters of the fields that a client sent."""
    return NOT_SENT | fields | {"sent": list(fields)}


def change_response(version: bytes, task: bytes) -> Response:
    if COMPLETED_NOW.search(task):
        emit("tasks_completed")
    return task_response(version, task)


@blueprint.get("")
@blueprint.arguments(ListArguments(), location="query")
@blueprint.response(200, Task(many=True), headers=LIST_HEADERS)
@blueprint.alt_response(
    304,
    description="The client has this list already, with its `Link` and `X-Total-Count`.",
    headers=LIST_ETAG,
)
@heeds("If-None-Match")
def list_tasks(args: Mapping[str, Any], user_id: str) -> Response:
    """List the user's tasks, newest first

    All filters must match. If there are more than `limit`, or than 1,000 without it, the response's
    `Link` has the next page.
    """
    return list_response(user_id, args)


@blueprint.post("")
@blueprint.arguments(TaskCreate())  # an instance: a class would be instantiated for each request
@blueprint.response(201, Task, headers=LOCATION | ETAG)
def create_task(body: dict[str, Any], user_id: str) -> Response:
    """Create a task

    A field that is left out is empty, and `priority` is `none`. If you send it again after a broken
    connection, the same Idempotency-Key keeps it from creating a second task. One task more than
    the user may store is a 409.
    """
    most: int = current_app.config["MAX_TASKS_PER_USER"]
    values = parameters_of(body)
    rows = database().fetch("insert_task", user_id=user_id, max_stored=most, **values)
    if not rows:
        raise too_many_tasks(most)
    [(version, task, task_id)] = rows
    emit("tasks_created")
    response = task_response(version, task, 201)
    response.headers.add("Location", path_of(user_id, f"tasks/{task_id.decode()}"))
    return response


@blueprint.get("/<task_id:task_id>")
@blueprint.response(200, Task, headers=ETAG)
@blueprint.alt_response(304, description="The client has this version already.", headers=ETAG)
@heeds("If-None-Match")
def get_task(user_id: str, task_id: int) -> Response:
    """Get a task"""
    rows = database().fetch("select_task", user_id=user_id, task_id=task_id)
    if not rows:
        raise missing_task(task_id)
    [(version, task)] = rows
    if is_fresh(version.decode()):
        return Response(status=304, headers={"ETag": f'"{version.decode()}"'})
    return task_response(version, task)


@blueprint.put("/<task_id:task_id>")
@blueprint.arguments(TaskUpdate())
@blueprint.response(200, Task, headers=ETAG)
@heeds("If-Match", "If-None-Match")
def update_task(body: dict[str, Any], user_id: str, task_id: int) -> Response:
    """Update a task

    Writes the fields that are sent; any but `title` may be left out and keeps its value. If you
    send it again with an If-Match after a broken connection, a 412 may mean that the first attempt
    was done: get the task.
    """
    return change_response(*write_task("update_task", user_id, task_id, **parameters_of(body)))


@blueprint.patch("/<task_id:task_id>")
@blueprint.arguments(TaskPatch(), content_type=MERGE_PATCH)
@blueprint.response(200, Task, headers=ETAG)
@heeds("If-Match", "If-None-Match")
def patch_task(body: dict[str, Any], user_id: str, task_id: int) -> Response:
    """Change some fields of a task

    A JSON merge patch: a field that is left out keeps its value; `tags` replaces the whole list.
    `null` clears `description`, `due_at` and `tags`, and makes `priority` `none`. A patch that
    changes nothing still counts as a change: `version` grows.
    """
    return change_response(*write_task("update_task", user_id, task_id, **parameters_of(body)))


@blueprint.delete("/<task_id:task_id>")
@blueprint.response(204)
@heeds("If-Match", "If-None-Match")
def delete_task(user_id: str, task_id: int) -> Response:
    """Move a task to the trash

    It can be restored until it is deleted for good, and until then counts towards the number of
    tasks that a user may store.
    """
    write_task("delete_task", user_id, task_id)
    return Response(status=204)


@blueprint.patch("/<task_id:task_id>/complete")
@blueprint.response(200, Task, headers=ETAG)
@heeds("If-Match", "If-None-Match")
def toggle_task_completion(user_id: str, task_id: int) -> Response:
    """Toggle a task's completion

    Every request toggles: sent again after a broken connection, it may toggle back, unless it has
    the same Idempotency-Key. To set a certain state, patch `completed` instead.
    """
    return change_response(*write_task("toggle_task", user_id, task_id))
