"""The routes, one file per group of operations, and what pages share; what all use is here."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, quote

from flask import Request, Response, current_app, g
from flask.ctx import AppContext
from flask.globals import app_ctx
from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError, fields
from webargs.flaskparser import FlaskParser

from capacity.transfer_limits import LARGE_RESPONSE, acquire_download
from conditions import expected_versions
from connection import Connection
from database import Database
from errors import ApiError, validation_error
from field_types import StrictSchema
from lean_flask import BytesResponse, current_request
from replicas import Reader
from request_bodies import read_body, replace_body, require_json_type
from strict_json import StrictError, parse_json
from trail import WRITES


def primary() -> Database:
    """Return the pool, outside any transaction of the request: views want `database()`."""
    db: Database = current_app.extensions["database"]
    return db


def database() -> Database | Connection | Reader:
    """Return what runs this request's statements: its transaction, a GET's reader, or the pool.

    The transaction of an Idempotency-Key begins with the first call.
    """
    context: AppContext = app_ctx._get_current_object()  # type: ignore[attr-defined]
    if begin := context.g.pop("begin_transaction", None):
        begin()
    if transaction := context.g.get("transaction"):
        return transaction  # type: ignore[no-any-return]
    reader: Reader | None = context.app.extensions["reader"]
    if reader and current_request().method == "GET":
        return reader
    return context.app.extensions["database"]  # type: ignore[no-any-return]


@contextmanager
def transaction() -> Iterator[Connection]:
    """Run the block in one transaction, which `database()` then returns; or in an outer one."""
    outer = database()
    if isinstance(outer, Connection):
        yield outer
        return
    with primary().transaction() as connection:
        g.transaction = connection
        try:
            yield connection
        finally:
            del g.transaction


def path_of(user_id: str, rest: str) -> str:
    """Write a path below a user's; Flask's own `url_for` takes ten times as long."""
    return f"{current_request().root_path}/api/{quote(user_id, safe='')}/{rest}"


def json_response(body: bytes, status: int = 200, **headers: str) -> Response:
    """Make a response of JSON.

    Raises:
        ApiError: 503 where a GET's user receives several large responses already.
    """
    response = BytesResponse(body, status, "application/json", **headers)
    # Only GETs (and replays) are limited, as the outcome of a write must be told. They do not wait
    # for a place: the body is in memory already.
    if len(body) > LARGE_RESPONSE and current_request().method == "GET":
        acquire_download(response, (current_request().view_args or {})["user_id"], timeout=0)
    return response


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    """Read a query string; bytes that are not UTF-8 become lone surrogates."""
    text = query.decode(errors="surrogateescape")
    return parse_qsl(text, keep_blank_values=True, errors="surrogateescape")


@lru_cache(1024)
def load_query(schema: Schema, query: bytes) -> Mapping[str, Any]:
    """Read and check a query string; cached, as schemas are slow and clients send few variants.

    Raises:
        ValidationError: it breaks a rule, or repeats a parameter that is not a list.
    """
    values: dict[str, list[str]] = {}
    for name, value in query_pairs(query):
        values.setdefault(name, []).append(value)
    lists = {name for name in values if isinstance(schema.fields.get(name), fields.List)}
    twice = [name for name in values if len(values[name]) > 1 and name not in lists]
    if twice:
        raise ValidationError({name: ["Must be given once."] for name in twice})
    data = {name: given if name in lists else given[0] for name, given in values.items()}
    return MappingProxyType(schema.load(data))


class BodyParser(FlaskParser):
    """webargs' parser, strict about what is JSON and what is declared to be."""

    def load_json(self, req: Request, schema: Schema) -> Any:
        body = read_body(req)
        if not body:
            raise ApiError(400, "The request body is empty; send a JSON object.")
        require_json_type(req)
        try:
            return parse_json(body)
        except StrictError as error:
            raise ApiError(400, f"The request body cannot be taken: {error}.") from None
        except ValueError:
            raise ApiError(400, "The request body is not valid JSON.") from None

    def parse(self, argmap: Any, req: Request | None = None, **options: Any) -> Any:
        req = current_request()  # not webargs' proxy, which looks it up for each attribute
        if options["location"] != "query":
            return super().parse(argmap, req, **options)
        try:
            return load_query(argmap, req.query_string)
        except ValidationError as error:
            raise validation_error(error.normalized_messages()) from None  # type: ignore[no-untyped-call]

    def handle_error(self, error: Any, req: Any, schema: Any, **kwargs: Any) -> Any:
        raise validation_error(error.normalized_messages().get("json", {}))


def heeds(*what: str) -> Callable[[Any], Any]:
    """Mark a view as heeding If-Match, If-None-Match, the query string ("query") or the "body"."""

    def mark(view: Any) -> Any:
        view.heeds = getattr(view, "heeds", frozenset()) | set(what)
        return view

    return mark


def refuse_what_is_not_heeded() -> None:
    """Refuse a query parameter, a condition or a broken body that the view would ignore.

    Raises:
        ApiError: 422; what `read_body` raises; or 412, for a condition that would not be kept (RFC
            9110, section 13.1). `If-Match: *` names no version, and is let through.
    """
    req = current_request()
    environ = req.environ
    has_body = environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ
    is_conditional = "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ
    if not (req.query_string or has_body or is_conditional):
        return
    heeded = getattr(current_app.view_functions[req.endpoint or ""], "heeds", ())
    if has_body and req.method in WRITES and "body" not in heeded:
        replace_body(req, BytesIO(read_body(req)))  # 400 if it broke off
    if req.query_string and "query" not in heeded and req.args and req.method != "OPTIONS":
        raise validation_error({name: ["Unknown parameter."] for name in req.args})
    if (
        is_conditional
        and req.method in WRITES
        and "If-Match" not in heeded
        and ("HTTP_IF_NONE_MATCH" in environ or expected_versions() is not None)
    ):
        raise ApiError(412, "This cannot be made conditional by If-Match or If-None-Match.")


class UserBlueprint(Blueprint):  # type: ignore[misc]
    """Routes below /api/{user_id}, which refuse what their views do not heed."""

    ARGUMENTS_PARSER = BodyParser()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.before_request(refuse_what_is_not_heeded)

    def arguments(self, schema: StrictSchema, *, location: str = "json", **options: Any) -> Any:
        """Do what flask-smorest does, and mark the view as heeding what it takes."""
        decorate = super().arguments(schema, location=location, **options)
        heeded = "body" if location == "json" else location
        return lambda view: heeds(heeded)(decorate(view))
