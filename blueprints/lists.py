"""Lists of tasks: their parameters, the cursor, and the link to the next page."""

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import psycopg
from flask import Response, current_app
from marshmallow import fields, post_load
from marshmallow.validate import Length, OneOf, Regexp

from blueprints import database, json_response, path_of, query_pairs
from blueprints.paging import LINK, MAX_PAGE_SIZE, PageArguments, link_next
from conditions import is_fresh
from config import VERSION
from connection import Value
from errors import validation_error
from field_types import DUE_PATTERN, NOT_BLANK_PATTERN, UNSTORABLE, Due, TrimmedText, moment_of
from lean_flask import current_request
from schemas import MAX_TAG_LENGTH, MAX_TAGS, PRIORITIES
from strict_json import parse_json

MAX_SEARCH_LENGTH = 200  # characters
COMPLETED_OF_STATUS = {"all": None, "pending": False, "completed": True}
DEFAULTS = {"status": "all", "sort": "created", "order": "desc"}
# What may differ between two pages of one list: how much is shown, not which tasks in which order.
FREE_PARAMETERS = {"cursor", "limit", "count"}
PLAIN_PARAMETERS = {"cursor", "limit"}  # a list with no other has a statement of its own
TOO_SLOW = "Takes too long to search for; filter by status, priority, tag or due date, too."
SIGNATURE_BYTES = 16  # of HMAC-SHA256; RFC 2104, section 5, asks for half at least


def due_bound(description: str) -> Due:
    text = (
        f"{description} A moment (in a URL, the `+` of its offset is `%2B`), or a day, for its"
        " midnight UTC: that is also when a task for a whole day counts as due."
    )
    example = "2026-11-21"
    return Due(metadata={"description": text, "pattern": DUE_PATTERN, "examples": [example]})


class ListArguments(PageArguments):
    status = fields.String(
        validate=OneOf(list(COMPLETED_OF_STATUS)),
        metadata={
            "description": "`pending` are the tasks that are not completed.",
            "default": DEFAULTS["status"],
        },
    )
    priority = fields.String(validate=OneOf(PRIORITIES))
    tag = fields.List(
        TrimmedText(validate=Length(1, MAX_TAG_LENGTH), metadata={"pattern": NOT_BLANK_PATTERN}),
        validate=Length(1, MAX_TAGS),
        metadata={
            "description": "A tag that the task has, in the same case and characters; if given"
            " several times, all of them."
        },
    )
    due_before = due_bound("Due earlier than this.")
    due_after = due_bound("Due at this or later.")
    q = TrimmedText(
        validate=Length(1, MAX_SEARCH_LENGTH),
        metadata={
            "description": "Words that must all occur in title or description, regardless of case;"
            " a part of a longer word counts. `é` does not find `e` with a combining accent, nor"
            " the other way round.",
            "pattern": NOT_BLANK_PATTERN,
            "examples": ["milk"],
        },
    )
    sort = fields.String(
        validate=OneOf(["created", "updated", "title", "due", "priority"]),
        metadata={
            "description": "Ties are sorted by id. Tasks without a due date come last. Titles are"
            " sorted regardless of case, in the order of the database's locale.",
            "default": DEFAULTS["sort"],
        },
    )
    order = fields.String(validate=OneOf(["asc", "desc"]), metadata={"default": DEFAULTS["order"]})
    cursor = fields.String(
        validate=Regexp("[A-Za-z0-9_-]+\\Z"),
        metadata={
            "description": "Where the page begins; take it from `Link`.",
            "pattern": "^[A-Za-z0-9_-]+$",
        },
    )
    count = fields.String(
        validate=OneOf(["exact"]),
        metadata={"description": "Count all tasks that match the filters, in `X-Total-Count`."},
    )

    @post_load
    def place_days(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        for name in {"due_before", "due_after"} & data.keys():
            data[name] = moment_of(data[name])
        return data


LIST_ETAG = {
    "ETag": {
        "description": "Changes with the user's tasks, for If-None-Match.",
        "required": True,
        "schema": {"type": "string"},
        "example": '"1.0.0-c3f1e0-57"',
    },
}
LIST_HEADERS = {
    **LIST_ETAG,
    **LINK,
    "X-Total-Count": {
        "description": "With `count=exact`: how many tasks match, on all pages.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 1234,
    },
}


def list_response(user_id: str, args: Mapping[str, Any]) -> Response:
    """Answer with a page of the user's tasks, or 304 where the client has it (RFC 9110, 13.1.2).

    Raises:
        ApiError: 422 where the cursor is not one of this list, or the search takes too long.
    """
    after = read_cursor(user_id, args)
    if "HTTP_IF_NONE_MATCH" in current_request().environ:
        [(version,)] = database().fetch("select_version", user_id=user_id)
        tag = etag_of(version)
        if is_fresh(tag):
            return Response(status=304, headers={"ETag": f'"{tag}"'})
    try:
        [(version, tasks, end, *counts)] = fetch_page(user_id, args, after)
    except psycopg.errors.QueryCanceled:
        if "q" not in args:
            raise
        raise validation_error({"q": [TOO_SLOW]}) from None
    response = json_response(tasks, ETag=f'"{etag_of(version)}"')
    if end:
        link_next(response, next_page(user_id, write_cursor(user_id, args, end)))
    if "count" in args:
        response.headers["X-Total-Count"] = counts[0].decode()
    return response


def etag_of(version: bytes) -> str:
    """Name the state of a user's lists: whatever changes one raises the user's version.

    It also names the key that signed the cursor in `Link`: under another key, that is invalid. And
    the epoch: a user whom a restored backup does not have begins with the first version again.
    """
    key, epoch = current_app.config["CURSOR_KEY"], current_app.config["CHANGES_EPOCH"]
    return f"{VERSION}-{fingerprint_of(key, epoch)}-{version.decode()}"


@cache
def fingerprint_of(key: bytes, epoch: str) -> str:
    return sha256(key + epoch.encode()).hexdigest()[:6]


def fetch_page(
    user_id: str, args: Mapping[str, Any], after: tuple[Value, int | None]
) -> list[tuple[bytes, ...]]:
    limit = args.get("limit", MAX_PAGE_SIZE)
    if args.keys() <= PLAIN_PARAMETERS:
        return database().fetch("select_tasks", user_id=user_id, limit=limit, after_id=after[1])
    chosen = {**DEFAULTS, **args}
    return database().fetch(
        statement_of(chosen),
        user_id=user_id,
        limit=limit,
        after_key=after[0],
        after_id=after[1],
        completed=COMPLETED_OF_STATUS[chosen["status"]],
        priority=args.get("priority"),
        due_before=args.get("due_before"),
        due_after=args.get("due_after"),
        tags=json.dumps(args.get("tag", [])),
        words=json.dumps(sorted(set(args.get("q", "").split()), key=len, reverse=True)),
        count="count" in args,
    )


def statement_of(chosen: Mapping[str, Any]) -> str:
    sort, order = chosen["sort"], chosen["order"]
    kind = "found" if "q" in chosen else "tagged" if "tag" in chosen else "listed"
    return f"select_{kind}_tasks_by_{sort}_{order}"


def next_page(user_id: str, cursor: str) -> str:
    """Make the path of the next page: this one's parameters, with another cursor."""
    query = query_pairs(current_request().query_string)
    pairs = [pair for pair in query if pair[0] != "cursor"]
    return path_of(user_id, f"tasks?{urlencode([*pairs, ('cursor', cursor)])}")


def write_cursor(user_id: str, args: Mapping[str, Any], position: bytes) -> str:
    """Sign where a page ends, a JSON array of key and id, for this user and list alone."""
    filters = {
        name: sorted(set(value)) if name == "tag" else value
        for name, value in sorted(args.items())
        if name not in FREE_PARAMETERS and value != DEFAULTS.get(name)
    }
    signed = json.dumps([user_id, filters]).encode() + b"\n" + position
    signature = hmac.digest(current_app.config["CURSOR_KEY"], signed, "sha256")[:SIGNATURE_BYTES]
    return urlsafe_b64encode(signature + position).decode().rstrip("=")


def read_cursor(user_id: str, args: Mapping[str, Any]) -> tuple[Value, int | None]:
    """Read the key and id that the page begins after; both None on the first.

    Raises:
        ApiError: 422 where the cursor was not made here for this user and list.
    """
    if "cursor" not in args:
        return None, None
    cursor: str = args["cursor"]
    with suppress(ValueError):
        position = urlsafe_b64decode(f"{cursor}===")[SIGNATURE_BYTES:]
        if hmac.compare_digest(write_cursor(user_id, args, position), cursor):
            match parse_json(position):  # checked: without a secret, CURSOR_KEY can be guessed
                case [str() | int() as key, int() as task_id] if not UNSTORABLE.search(str(key)):
                    return key, task_id
    message = "Must come from the Link of a list with the same parameters."
    raise validation_error({"cursor": [message]})
