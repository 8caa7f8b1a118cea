"""What a user changed since a client last asked: /api/{user_id}/tasks/changes."""

from collections.abc import Mapping
from typing import Any

from flask import Response
from marshmallow import fields
from marshmallow.validate import Equal

from blueprints import UserBlueprint, database, json_response
from blueprints.paging import MAX_PAGE_SIZE, PageArguments, position_field, position_in
from blueprints.positions import START, Position, write_position
from converters import MAX_ID
from errors import validation_error
from field_types import Choice, ResponseSchema
from schemas import Task


class ChangedTask(Task):
    """A task that was created or changed, as it is now."""

    deleted = fields.Boolean(required=True, validate=Equal(False))


class DeletedTask(Task):
    """A task in the trash; one that was deleted for good has only the required fields."""

    deleted = fields.Boolean(required=True, validate=Equal(True))

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        field_obj.required = field_name in {"id", "user_id", "version", "deleted"}


class Changes(ResponseSchema):
    """What changed, and the cursor for the next request."""

    changes = fields.List(
        Choice("deleted", {False: ChangedTask(), True: DeletedTask()}), required=True
    )
    next = fields.String(
        required=True, metadata={"description": "The `since` of the next request."}
    )
    more = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether there are more changes: ask again right away, with `next`."
        },
    )


class ChangesArguments(PageArguments):
    since = position_field(
        "`next` of the previous response; without it, everything is sent from the start."
    )


blueprint = UserBlueprint(
    "changes",
    __name__,
    url_prefix="/api/<user_id:user_id>/tasks/changes",
    description="For clients that keep a copy of a user's tasks.",
)


@blueprint.get("")
@blueprint.arguments(ChangesArguments(), location="query")
@blueprint.response(200, Changes)
def list_changes(args: Mapping[str, Any], user_id: str) -> Response:
    """List what changed since a cursor, including deletions

    Each task that was created, changed or deleted since then is listed once, as it is now; one that
    was deleted for good has only `id`, `user_id`, `version` and `deleted`. No change is ever
    missed. While `more` is true, ask again with `next` as `since`. The first page without `since`
    has no deleted tasks (`listTrash` has those that can be restored); later pages may list deleted
    tasks that you never had. Of two states of a task, that with the higher `version` is the newer:
    a response to a write may be older than what is listed here. If `since` gets a 422, drop your
    copy and start again without it.
    """
    position = position_in(args, "since", user_id, START)
    # Most clients have missed nothing, and reading one row shows it.
    [(version,)] = database().fetch("select_version", user_id=user_id)
    newest = int(version)
    if position.version > newest:
        raise validation_error({"since": ["Is ahead of what is stored; start again without it."]})
    if not newest or position == (newest, MAX_ID):
        return changes_response(user_id, b"[]", Position(newest, MAX_ID), has_more=False)
    [(changes, has_more, version, task_id)] = database().fetch(
        "select_changes",
        user_id=user_id,
        version=position.version,
        task_id=position.task_id,
        # Even since version 0: the client may keep tasks that it created since then.
        with_deletions="since" in args,
        limit=args.get("limit", MAX_PAGE_SIZE),
        largest_id=MAX_ID,
    )
    end = Position(int(version), int(task_id))
    return changes_response(user_id, changes, end, has_more=has_more == b"t")


def changes_response(
    user_id: str, changes: bytes, position: Position, *, has_more: bool
) -> Response:
    cursor = write_position(user_id, position).encode()
    more = b"true" if has_more else b"false"
    return json_response(b'{"changes":%s,"next":"%s","more":%s}' % (changes, cursor, more))
