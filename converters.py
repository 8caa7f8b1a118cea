"""The parts of a path that vary: how they are read, and how OpenAPI describes them."""

from typing import Any

from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter

LONGEST_USER_ID = 255  # characters
LARGEST_ID = 2**63 - 1  # bigint


class UserIdConverter(BaseConverter):
    """Any text, also with a slash: the issuer decides what a user's id looks like."""

    regex = "(?s:.+?)"
    part_isolating = False


class TaskIdConverter(BaseConverter):
    """A positive int64 in its plain decimal form; everything else is no task's path."""

    regex = "[1-9][0-9]{0,18}"

    def to_python(self, value: str) -> int:
        return int(value)


def refuse_ids_past_bigint(_: str | None, values: dict[str, Any] | None) -> None:
    """Answer 404, whatever the method; a converter that refuses would answer some with 405."""
    if values and values.get("task_id", 0) > LARGEST_ID:
        raise NotFound


CONVERTERS: dict[str, type[BaseConverter]] = {
    "user_id": UserIdConverter,
    "task_id": TaskIdConverter,
}


def describe_user_id(_: BaseConverter) -> dict[str, Any]:
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_USER_ID,
        "description": "The `sub` of the token.",
        "examples": ["demo"],
    }


def describe_task_id(_: BaseConverter) -> dict[str, Any]:
    return {
        "type": "integer",
        "format": "int64",
        "minimum": 1,
        "maximum": LARGEST_ID,
        "examples": [12],
    }
