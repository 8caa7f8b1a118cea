"""The parts of a path that vary: how they are read, and how OpenAPI describes them."""

from typing import Any

from werkzeug.routing import BaseConverter

MAX_USER_ID_LENGTH = 255  # characters
MAX_ID = 2**63 - 1  # bigint


class UserIdConverter(BaseConverter):
    """Any text without a slash."""

    regex = "[^/]+"
    part_isolating = True  # werkzeug would infer False from the slash in the pattern


class AnyUserIdConverter(BaseConverter):
    """Any text, as the issuer decides what a user's id looks like: see UserMap in lean_flask.py."""

    regex = "(?s:.+?)"
    part_isolating = False


def numbers_up_to(largest: int) -> str:
    """Write a pattern of the positive numbers up to `largest`, in their plain decimal form."""
    digits = str(largest)
    rest = len(digits) - 1
    patterns = [f"[1-9][0-9]{{0,{rest - 1}}}", digits]
    for place, digit in enumerate(digits):
        lower = range(0 if place else 1, int(digit))
        if lower:
            smaller = f"[{lower[0]}-{lower[-1]}][0-9]{{{rest - place}}}"
            patterns.append(digits[:place] + smaller)
    return f"(?:{'|'.join(patterns)})"


class TaskIdConverter(BaseConverter):
    """A positive int64 in its plain decimal form; anything else is not a task's path.

    The pattern checks all of it: if `to_python` refused, some methods would get 405.
    """

    regex = numbers_up_to(MAX_ID)

    def to_python(self, value: str) -> int:
        return int(value)


CONVERTERS: dict[str, type[BaseConverter]] = {
    "user_id": UserIdConverter,
    "any_user_id": AnyUserIdConverter,
    "task_id": TaskIdConverter,
}


def describe_user_id(_: BaseConverter) -> dict[str, Any]:
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_USER_ID_LENGTH,
        "description": "The `sub` of the token.",
        "examples": ["demo"],
    }


def describe_task_id(_: BaseConverter) -> dict[str, Any]:
    return {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID, "examples": [12]}
