"""What a user has deleted and may still have back: /api/{user_id}/trash."""

from collections.abc import Mapping
from typing import Any

from flask import Response, current_app
from marshmallow import fields

from blueprints import UserBlueprint, database, heeds, json_response, path_of, primary
from blueprints.paging import (
    LINK,
    MAX_PAGE_SIZE,
    PageArguments,
    link_next,
    position_field,
    position_in,
)
from blueprints.positions import END, Position, write_position
from blueprints.tasks import ETAG, task_response, write_task
from capacity.rate_limits import Limit, RateLimits
from converters import MAX_ID
from purge import purge_trash
from schemas import Task


class TrashedTask(Task):
    deleted_at = fields.AwareDateTime(
        required=True, metadata={"examples": ["2026-11-20T09:30:00.123456+00:00"]}
    )


class TrashArguments(PageArguments):
    cursor = position_field("Where the page begins; from a `Link`.")


blueprint = UserBlueprint(
    "trash",
    __name__,
    url_prefix="/api/<user_id:user_id>/trash",
    description="What a user has deleted, until it is deleted for good.",
)


@blueprint.get("")
@blueprint.arguments(TrashArguments(), location="query")
@blueprint.response(200, TrashedTask(many=True), headers=LINK)
def list_trash(args: Mapping[str, Any], user_id: str) -> Response:
    """List the tasks in the trash, most recently deleted first

    They are deleted for good after a time that the operator sets, 30 days by default.
    """
    position = position_in(args, "cursor", user_id, END)
    limit = args.get("limit", MAX_PAGE_SIZE)
    [(tasks, has_more, version, task_id)] = database().fetch(
        "select_trash",
        user_id=user_id,
        version=position.version,
        task_id=position.task_id,
        limit=limit,
    )
    response = json_response(tasks)
    if has_more == b"t":
        cursor = write_position(user_id, Position(int(version), int(task_id)))
        link_next(response, path_of(user_id, f"trash?limit={limit}&cursor={cursor}"))
    return response


@blueprint.delete("")
@blueprint.response(204)
def empty_trash(user_id: str) -> Response:
    """Delete all tasks in the trash for good

    They cannot be restored; `listChanges` lists them as deleted. Sent again after a broken
    connection, it also deletes what has come into the trash since.
    """
    tombstone_quota().require_some(user_id)
    for deleted in purge_trash(primary(), user_id):
        tombstone_quota().add(user_id, deleted)
    return Response(status=204)


@blueprint.post("/<task_id:task_id>/restore")
@blueprint.response(200, Task, headers=ETAG)
@heeds("If-Match", "If-None-Match")
def restore_task(user_id: str, task_id: int) -> Response:
    """Take a task out of the trash

    It is as it was when it was deleted, except for `version` and `updated_at`.
    """
    return task_response(
        *write_task("restore_task", user_id, task_id, found_by="select_trashed_task")
    )


@blueprint.delete("/<task_id:task_id>")
@blueprint.response(204)
@heeds("If-Match", "If-None-Match")
def purge_task(user_id: str, task_id: int) -> Response:
    """Delete a task in the trash for good

    It cannot be restored; `listChanges` lists it as deleted.
    """
    tombstone_quota().require_some(user_id)
    write_task(
        "delete_trashed_tasks",
        user_id,
        task_id,
        found_by="select_trashed_task",
        task_ids=[task_id],
        newest=MAX_ID,
    )
    tombstone_quota().add(user_id, 1)
    return Response(status=204)


def tombstone_quota() -> Limit:
    """Return the quota of what a user deletes for good in a day: tombstones are kept for ever."""
    limits: RateLimits = current_app.extensions["rate_limits"]
    return limits.tombstones
