"""Many changes to tasks in one request, all or none: /api/{user_id}/tasks/batch."""

import json
import re
from typing import Any

from flask import Response, current_app
from marshmallow import ValidationError, fields
from marshmallow.validate import Length, OneOf, Range

from blueprints import BodyParser, UserBlueprint, json_response, transaction
from blueprints.tasks import COMPLETED_NOW, missing_task, too_many_tasks
from connection import Connection
from converters import MAX_ID
from errors import ApiError, first_fault
from events import emit
from field_types import (
    BoundedList,
    Choice,
    ResponseSchema,
    StrictBoolean,
    StrictInteger,
    StrictSchema,
)
from schemas import Task, TaskCreate, TaskPatch

MAX_OPERATIONS = 100

Operation = dict[str, Any]


def op_field(name: str) -> fields.String:
    return fields.String(required=True, validate=OneOf([name]))


class CreateOperation(StrictSchema):
    op = op_field("create")
    task = fields.Nested(TaskCreate, required=True)


class OperationOnTask(StrictSchema):
    """What operations on a task that exists have in common."""

    id = StrictInteger(
        required=True, validate=Range(1, MAX_ID), metadata={"format": "int64", "examples": [12]}
    )
    version = StrictInteger(
        validate=Range(1, MAX_ID),
        metadata={
            "format": "int64",
            "description": "The version that the task must still have, as with If-Match.",
            "examples": [57],
        },
    )


class PatchOperation(OperationOnTask):
    op = op_field("patch")
    task = fields.Nested(TaskPatch, required=True)


class CompleteOperation(OperationOnTask):
    """Completes a task, or, with `completed: false`, opens it again."""

    op = op_field("complete")
    # A callable default stays out of the description: generated code would require the field.
    completed = StrictBoolean(
        load_default=lambda: True, metadata={"description": "`true` if left out."}
    )


class DeleteOperation(OperationOnTask):
    op = op_field("delete")


class RestoreOperation(OperationOnTask):
    op = op_field("restore")


class Operations(BoundedList):
    """A list with one operation for a task: what two mean together could only be guessed."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        # Here, where no operation is wrong by itself: a hook of marshmallow's would get the others
        # only, and count those.
        operations: list[Operation] = super()._deserialize(value, attr, data, **kwargs)
        first: dict[int, int] = {}
        for number, operation in enumerate(operations):
            if "id" not in operation:
                continue
            if (earlier := first.setdefault(operation["id"], number)) != number:
                raise ValidationError({number: {"id": [f"Operation {earlier} has it already."]}})
        return operations


SCHEMA_OF_OPERATION: dict[str | bool, StrictSchema] = {
    "create": CreateOperation(),
    "patch": PatchOperation(),
    "complete": CompleteOperation(),
    "delete": DeleteOperation(),
    "restore": RestoreOperation(),
}


class Batch(StrictSchema):
    operations = Operations(
        Choice("op", SCHEMA_OF_OPERATION),
        required=True,
        validate=Length(1, MAX_OPERATIONS),
        metadata={"description": "A task may appear in one operation only."},
    )


class BatchResult(ResponseSchema):
    results = fields.List(
        fields.Nested(Task, allow_none=True),
        required=True,
        metadata={"description": "A task for each operation, in order; null for a deleted one."},
    )


class BatchParser(BodyParser):
    """Names the operation at fault in the message of an error."""

    def handle_error(self, error: Any, req: Any, schema: Any, **kwargs: Any) -> Any:
        details = error.normalized_messages().get("json", {})
        message = re.sub(r"^operations\.(\d+)[.:] ?", r"operation \1: ", first_fault(details))
        raise ApiError(422, message, details)


EXAMPLE = {
    "operations": [
        {"op": "create", "task": {"title": "Buy milk"}},
        {"op": "patch", "id": 12, "task": {"priority": "high"}, "version": 57},
        {"op": "complete", "id": 13},
        {"op": "delete", "id": 14},
        {"op": "restore", "id": 15},
    ]
}

blueprint = UserBlueprint(
    "batch",
    __name__,
    url_prefix="/api/<user_id:user_id>/tasks/batch",
    description="Many changes in one request.",
)
blueprint.ARGUMENTS_PARSER = BatchParser()


@blueprint.post("")
@blueprint.arguments(Batch(), example=EXAMPLE)
@blueprint.response(200, BatchResult)
@blueprint.alt_response(404, response="not_found")
def batch_tasks(body: dict[str, Any], user_id: str) -> Response:
    """Do many operations on tasks, all or none

    If any cannot be done, none is. The error is that of the first such operation and names it,
    counted from 0; with too many tasks, it names every creation. A `patch` is a JSON merge patch;
    `version` does what If-Match does for a single task.
    """
    operations: list[Operation] = body["operations"]
    with transaction() as db:
        results = (
            do_creations(db, user_id, operations)
            | do_changes(db, "update_tasks", user_id, operations, "patch", "complete")
            | do_changes(db, "delete_tasks", user_id, operations, "delete")
            | do_changes(db, "restore_tasks", user_id, operations, "restore")
        )
        for number in range(len(operations)):
            if number not in results:
                raise find_error(db, user_id, operations, number)
    emit("tasks_created", count=len(numbers_of(operations, "create")))
    emit("tasks_completed", count=len(list(filter(COMPLETED_NOW.search, results.values()))))
    return json_response(b'{"results": [%b]}' % b", ".join(results[n] for n in sorted(results)))


def numbers_of(operations: list[Operation], *names: str) -> list[int]:
    return [number for number, each in enumerate(operations) if each["op"] in names]


def do_creations(db: Connection, user_id: str, operations: list[Operation]) -> dict[int, bytes]:
    """Do the create operations in one statement; return the tasks by their operations' numbers.

    None is done where the user would have more than MAX_TASKS_PER_USER.
    """
    numbers = numbers_of(operations, "create")
    if not numbers:
        return {}
    most: int = current_app.config["MAX_TASKS_PER_USER"]
    tasks = json.dumps([operations[number]["task"] for number in numbers])
    rows = db.fetch("insert_tasks", user_id=user_id, tasks=tasks, max_stored=most)
    return {number: task for number, (task,) in zip(numbers, rows, strict=False)}


def do_changes(
    db: Connection, statement: str, user_id: str, operations: list[Operation], *names: str
) -> dict[int, bytes]:
    """Do the operations of these names; return what became of the tasks that were found."""
    numbers = numbers_of(operations, *names)
    if not numbers:
        return {}
    changes = [change_of(operations[number]) for number in numbers]
    ids: list[int] = [each["task_id"] for each in changes]
    rows = db.fetch(statement, user_id=user_id, task_ids=ids, changes=json.dumps(changes))
    done = {int(task_id): result for task_id, result in rows}
    return {n: done[operations[n]["id"]] for n in numbers if operations[n]["id"] in done}


def change_of(operation: Operation) -> dict[str, Any]:
    """Write an operation on an existing task in the form that the statements take."""
    fields: Operation = operation.get("task", {})
    if operation["op"] == "complete":
        fields = {"completed": operation["completed"]}
    known = {"task_id": operation["id"], "expected": operation.get("version")}
    return known | fields | {"sent": list(fields)}


def find_error(db: Connection, user_id: str, operations: list[Operation], number: int) -> ApiError:
    """Find out why an operation was not done: its statement tells only that it was not."""
    operation = operations[number]
    if operation["op"] == "create":
        most = current_app.config["MAX_TASKS_PER_USER"]
        return error_of(too_many_tasks(most), *numbers_of(operations, "create"))
    task_id: int = operation["id"]
    found_by = "select_trashed_task" if operation["op"] == "restore" else "select_task"
    if "version" in operation and db.fetch(found_by, user_id=user_id, task_id=task_id):
        return error_of(ApiError(412), number)
    return error_of(missing_task(task_id), number)


def error_of(error: ApiError, *numbers: int) -> ApiError:
    """Turn an error into one that names the operations at fault."""
    details = {"operations": {str(number): [error.message] for number in numbers}}
    return ApiError(error.status, f"operation {numbers[0]}: {error.message}", details)
