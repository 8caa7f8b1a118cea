"""What is read in pages: the parameters that choose a page, and the link to the next."""

import re
from typing import Any

from flask import Response
from marshmallow import ValidationError, fields
from marshmallow.validate import Range

from field_types import StrictSchema
from lean_flask import current_request
from positions import CURSOR_PATTERN, read_position

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


class PositionField(fields.String):
    """The cursor of a Position of the path's user."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return read_position((current_request().view_args or {})["user_id"], value)
        except ValueError:
            message = "Must be the cursor of a response; start again without it."
            raise ValidationError(message) from None


def position_field(description: str) -> PositionField:
    return PositionField(
        metadata={
            "description": description,
            "pattern": CURSOR_PATTERN,
            "examples": [EXAMPLE_POSITION],
        }
    )


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
