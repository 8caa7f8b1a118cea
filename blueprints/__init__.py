"""One file a resource; what they share is here."""

from typing import Any

from flask import Request, Response, current_app
from flask.globals import request_ctx
from marshmallow import Schema
from webargs.flaskparser import FlaskParser

from database import Database
from errors import ApiError
from strict_json import parse_json


def database() -> Database:
    db: Database = current_app.extensions["database"]
    return db


def json_response(body: bytes, status: int = 200) -> Response:
    return Response(body, status, content_type="application/json")


def read_body(req: Request) -> bytes:
    """Read the request body, chunked or not, up to MAX_CONTENT_LENGTH.

    werkzeug cuts a chunked body off at the limit without a word, so one byte more is asked for.

    Raises:
        ApiError: 413 where it is larger.
    """
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    body: bytes = b""
    if (req.content_length or 0) <= limit:
        try:
            body = req.environ["wsgi.input"].read(limit + 1)
        except Exception:  # noqa: BLE001 - each server has its own for a broken chunk or a stall
            raise ApiError(400, "The request body did not arrive whole.") from None
        if len(body) <= limit:
            return body
    raise ApiError(413, f"The request body is larger than {limit} bytes.")


class BodyParser(FlaskParser):
    """webargs' parser, with the strict answers of the contract to a body that is no JSON."""

    DEFAULT_VALIDATION_STATUS = 422

    def load_json(self, req: Request, schema: Schema) -> Any:
        body = read_body(req)
        if not body:
            raise ApiError(400, "The request body is empty; send a JSON object.")
        if req.mimetype != "application/json":
            raise ApiError(415, "Send the body as JSON, with Content-Type: application/json.")
        try:
            return parse_json(body)
        except ValueError:
            raise ApiError(400, "The request body is not valid JSON.") from None

    def handle_error(self, error: Any, req: Any, schema: Any, **kwargs: Any) -> Any:
        details = error.normalized_messages().get("json", {})
        field, messages = next(iter(details.items()))
        raise ApiError(422, f"{field}: {messages[0]}", details)


def refuse_unknown_parameters() -> None:
    """Refuse a query parameter that the operation does not have, as it would be lost in silence."""
    asked = request_ctx.request
    if asked.query_string and asked.args:
        details = {name: ["Unknown parameter."] for name in asked.args}
        raise ApiError(422, f"{next(iter(details))}: Unknown parameter.", details)
