"""What is read in pages: the parameters that name a page, and how OpenAPI describes them."""

import re
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

from flask.globals import request_ctx

from blueprints import first_fault
from errors import ApiError
from positions import CURSOR_PATTERN, Position, read_position, write_position

LARGEST_PAGE = 1000
REMEMBERED_PAGES = 1024
LIMIT_PATTERN = re.compile("[1-9][0-9]{0,3}")
EXAMPLE = write_position(Position(57, 12))


def page_parameters(cursor: str, text: str) -> list[dict[str, Any]]:
    """Describe `limit` and a cursor of this name."""
    limit = {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": LARGEST_PAGE}
    return [
        {
            "in": "query",
            "name": "limit",
            "description": "How many there are on a page at most.",
            "schema": limit,
        },
        {
            "in": "query",
            "name": cursor,
            "description": text,
            "schema": {"type": "string", "pattern": CURSOR_PATTERN},
            "example": EXAMPLE,
        },
    ]


def read_page(cursor: str, first: Position) -> tuple[Position, int]:
    """Read where a page begins, `first` where the cursor is left out, and how long it may be.

    Raises:
        ApiError: 422 for a parameter that is malformed, unknown or given twice.
    """
    return parse_page(request_ctx.request.environ.get("QUERY_STRING", ""), cursor, first)


# To load two parameters with a schema costs as much as a statement, and a client that polls sends
# the same ones until something has changed.
@lru_cache(REMEMBERED_PAGES)
def parse_page(query: str, cursor: str, first: Position) -> tuple[Position, int]:
    position, limit = first, LARGEST_PAGE
    faults = {}
    for name, [text, *others] in parse_qs(query, keep_blank_values=True).items():
        if name not in {cursor, "limit"}:
            faults[name] = ["Unknown parameter."]
        elif others:
            faults[name] = ["Must be given once."]
        elif name == cursor:
            try:
                position = read_position(text)
            except ValueError:
                faults[name] = ["Must be the cursor of an answer; start again without it."]
        elif LIMIT_PATTERN.fullmatch(text) and int(text) <= LARGEST_PAGE:
            limit = int(text)
        else:
            faults[name] = [f"Must be a whole number from 1 to {LARGEST_PAGE}."]
    if faults:
        raise ApiError(422, first_fault(faults), faults)
    return position, limit
