"""Tasks of one user: /api/{user_id}/tasks."""

from typing import Any

from flask import Response, url_for
from flask_smorest import Blueprint

from blueprints import BodyParser, database, json_response, refuse_unknown_parameters
from converters import refuse_ids_past_bigint
from errors import ApiError
from schemas import Task, TaskCreate, TaskUpdate


class TasksBlueprint(Blueprint):  # type: ignore[misc]
    ARGUMENTS_PARSER = BodyParser()


LOCATION = {
    "Location": {
        "description": "The new task's path.",
        "required": True,
        "schema": {"type": "string"},
    }
}

blueprint = TasksBlueprint(
    "tasks",
    __name__,
    url_prefix="/api/<user_id:user_id>/tasks",
    description="What a user wants to get done.",
)
blueprint.url_value_preprocessor(refuse_ids_past_bigint)
blueprint.before_request(refuse_unknown_parameters)


def missing_task(task_id: int) -> ApiError:
    return ApiError(404, f"Resource not found: task {task_id}")


def task_response(rows: list[tuple[bytes, ...]], task_id: int) -> Response:
    if not rows:
        raise missing_task(task_id)
    return json_response(rows[0][0])


@blueprint.get("")
@blueprint.response(200, Task(many=True))
def list_tasks(user_id: str) -> Response:
    """List the user's tasks, newest first"""
    [(tasks,)] = database().fetch("select_tasks", user_id=user_id)
    return json_response(tasks)


@blueprint.post("")
@blueprint.arguments(TaskCreate())  # an instance: a class would be instantiated a request
@blueprint.response(201, Task, headers=LOCATION)
def create_task(body: dict[str, Any], user_id: str) -> Response:
    """Create a task"""
    [(task_id, task)] = database().fetch(
        "insert_task",
        user_id=user_id,
        title=body["title"],
        description=body.get("description"),
    )
    response = json_response(task, 201)
    response.location = url_for("tasks.get_task", user_id=user_id, task_id=int(task_id))
    return response


@blueprint.get("/<task_id:task_id>")
@blueprint.response(200, Task)
def get_task(user_id: str, task_id: int) -> Response:
    """Get a task"""
    return task_response(database().fetch("select_task", user_id=user_id, task_id=task_id), task_id)


@blueprint.put("/<task_id:task_id>")
@blueprint.arguments(TaskUpdate())
@blueprint.response(200, Task)
def update_task(body: dict[str, Any], user_id: str, task_id: int) -> Response:
    """Update a task

    Writes the fields that are sent; `description` and `completed` stay where they are left out.
    """
    rows = database().fetch(
        "update_task",
        user_id=user_id,
        task_id=task_id,
        title=body["title"],
        has_description="description" in body,
        description=body.get("description"),
        completed=body.get("completed"),
    )
    return task_response(rows, task_id)


@blueprint.delete("/<task_id:task_id>")
@blueprint.response(204)
def delete_task(user_id: str, task_id: int) -> Response:
    """Delete a task"""
    if not database().fetch("delete_task", user_id=user_id, task_id=task_id):
        raise missing_task(task_id)
    return Response(status=204)


@blueprint.patch("/<task_id:task_id>/complete")
@blueprint.response(200, Task)
def toggle_task_completion(user_id: str, task_id: int) -> Response:
    """Turn a task's completion over"""
    return task_response(database().fetch("toggle_task", user_id=user_id, task_id=task_id), task_id)
