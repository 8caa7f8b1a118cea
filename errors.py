"""Every error of every layer, in the one shape that clients know."""

import json
from http import HTTPStatus
from typing import Any

import psycopg
from flask import Flask, Response
from marshmallow import fields
from marshmallow.exceptions import SCHEMA
from werkzeug.exceptions import HTTPException

from database import DatabaseUnavailable
from field_types import ResponseSchema
from sqlstates import status_of
from trail import CURRENT, note_error

CODE_OF_STATUS = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    409: "conflict",
    412: "precondition_failed",
    413: "payload_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    422: "validation_error",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}
MESSAGE_OF_STATUS = {
    400: "The request could not be read.",
    404: "There is nothing at this path.",
    405: "This path does not take this method.",
    409: "The request is in conflict with what is stored.",
    412: "The task has changed since you got it; get it again.",
    413: "The request body is too large.",
    414: "The address is too long.",
    417: "The header Expect asks for what is not done here.",
    422: "The request breaks a rule.",
    429: "Too many requests; please try again later.",
    431: "The request's headers are too large.",
    500: "Something went wrong on our side.",
    501: "The request uses a part of HTTP that is not supported here.",
    503: "The service is not available right now; please try again in a moment.",
}
RETRY_AFTER = "1"  # seconds
MAX_NAME_LENGTH = 100  # characters, in a message; the details have all of an unknown field's name


def message_of(status: int) -> str:
    return MESSAGE_OF_STATUS.get(status) or f"{HTTPStatus(status).phrase}."


class ErrorBody(ResponseSchema):
    error = fields.String(required=True, metadata={"description": "A code for programs."})
    message = fields.String(required=True, metadata={"description": "A sentence for a person."})
    details = fields.Dict(
        metadata={
            "description": (
                "What is wrong, and `request_id`. A wrong field has a list of messages or, if it"
                " has parts, an object with those of each: `tags` by place, `operations` of a batch"
                " by number, `tasks` of an import by entry. `_schema` stands for the object itself."
            ),
            "properties": {"request_id": {"type": "string"}},
        }
    )


class ApiError(Exception):
    """An error response. Any code of a request may raise it."""

    def __init__(
        self,
        status: int,
        message: str | None = None,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.message = message or message_of(status)
        super().__init__(self.message)
        self.status = status
        self.details = details
        self.headers = headers


def validation_error(details: dict[str, Any]) -> ApiError:
    """Make a 422 from messages in marshmallow's form; the first is the response's `message`."""
    return ApiError(422, first_fault(details), details)


def first_fault(details: Any) -> str:
    """Name the first fault of marshmallow's messages: `tags.1: Not a valid string.`"""
    path = []
    while isinstance(details, dict):
        key, details = next(iter(details.items()))
        if key != SCHEMA:  # which stands for the object itself
            path.append(str(key)[:MAX_NAME_LENGTH])
    place = f"{'.'.join(path)}: " if path else ""
    return place + str(details[0])


def error_body(
    status: int, message: str | None = None, details: dict[str, Any] | None = None
) -> bytes:
    """Make the body; `details` has the `request_id`, even where a field of that name is wrong."""
    code = CODE_OF_STATUS.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "_")
    if trail := CURRENT.get():
        details = (details or {}) | {"request_id": trail.request_id}
    body = {"error": code, "message": message or message_of(status)}
    text = json.dumps(body | ({"details": details} if details else {}), ensure_ascii=False)
    return text.encode(errors="replace")  # half a surrogate pair, which strict readers refuse


def error_response(
    status: int,
    message: str | None = None,
    details: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    body = error_body(status, message, details)
    response = Response(body, status, headers, content_type="application/json")
    if status == 503:
        response.headers.setdefault("Retry-After", RETRY_AFTER)
    return response


def answer_api_error(error: ApiError) -> Response:
    if error.status >= 500:
        note_error(error)
    return error_response(error.status, error.message, error.details, error.headers)


def answer_http_error(error: HTTPException) -> Response:
    """Answer werkzeug's errors; keep their headers (`Allow` of a 405, RFC 9110, section 15.5.6)."""
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return error_response(error.code or 500, headers=headers)


def answer_other_error(error: Exception) -> Response:
    note_error(error)
    if isinstance(error, psycopg.Error):
        return error_response(status_of(error))
    return error_response(503 if isinstance(error, DatabaseUnavailable) else 500)


def register_error_handlers(app: Flask) -> None:
    app.register_error_handler(ApiError, answer_api_error)
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_other_error)
