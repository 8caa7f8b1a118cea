"""What is read in pages: the parameters that choose a page, and the link to the next."""

import re
from collections.abc import Mapping
from typing import Any

from flask import Response
from marshmallow import fields
from marshmallow.validate import Range

from blueprints.positions import CURSOR_PATTERN, Position, read_position
from errors import validation_error
from field_types import StrictSchema

MAX_PAGE_SIZE = 1000
EXAMPLE_POSITION = "MS41Ny4xMi4yNTk5MzY3Ng"  # of the user demo

LINK = {
    "Link": {
        "description": 'The next page (RFC 8288), as `<path>; rel="next"`; none on the last.',
        "schema": {"type": "string"},
    }
}


class QueryInteger(fields.Integer):
    """An integer in its plain decimal form, where marshmallow's own takes " 5" and "1_000"."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not re.fullmatch("0|[1-9][0-9]{0,8}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


def position_field(description: str) -> fields.String:
    """Describe the cursor of a Position, for `position_in` to read."""
    return fields.String(
        metadata={
            "description": description,
            "pattern": CURSOR_PATTERN,
            "examples": [EXAMPLE_POSITION],
        }
    )


def position_in(args: Mapping[str, Any], name: str, user_id: str, default: Position) -> Position:
    """Read the position in a parameter.

    Raises:
        ApiError: 422 where it is not the cursor of a response to this user.
    """
    try:
        return read_position(user_id, args[name]) if name in args else default
    except ValueError:
        message = "Must be the cursor of a response; start again without it."
        raise validation_error({name: [message]}) from None


class PageArguments(StrictSchema):
    """How long a page may be. Defaults are not filled in: an absent parameter costs nothing."""

    error_messages = {"unknown": "Unknown parameter."}  # noqa: RUF012 - marshmallow's own form

    limit = QueryInteger(
        validate=Range(1, MAX_PAGE_SIZE),
        metadata={
            "description": "The largest number of items on a page.",
            "default": MAX_PAGE_SIZE,
        },
    )


def link_next(response: Response, path: str) -> None:
    """Add the link to the next page (RFC 8288)."""
    response.headers["Link"] = f'<{path}>; rel="next"'
