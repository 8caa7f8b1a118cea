"""The parts of a path that vary: how they are read, and how OpenAPI describes them."""

from typing import Any

from werkzeug.routing import BaseConverter, ValidationError

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
        task_id = int(value)
        if task_id > LARGEST_ID:
            raise ValidationError
        return task_id


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
    return {"type": "integer", "format": "int64", "minimum": 1, "maximum": LARGEST_ID}
