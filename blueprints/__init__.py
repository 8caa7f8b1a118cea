"""One file per resource; what they share is here."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, quote

from flask import Request, Response, current_app, g
from flask.ctx import AppContext
from flask.globals import app_ctx
from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError, fields
from marshmallow.exceptions import SCHEMA
from webargs.flaskparser import FlaskParser

from compression import SUFFIX
from connection import Connection
from database import Database
from errors import ApiError
from field_types import StrictSchema
from lean_flask import BytesResponse, current_request
from overload import LARGE, await_receiver
from replicas import Reader
from strict_json import parse_json


def pool() -> Database:
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
    """Run the block in one transaction, which `database()` then returns; an outer one goes on."""
    outer = database()
    if isinstance(outer, Connection):
        yield outer
        return
    with pool().transaction() as connection:
        g.transaction = connection
        try:
            yield connection
        finally:
            del g.transaction


WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
LONGEST_NAME = 100  # characters, in a message; the details have all of an unknown field's name
NO_QUERY: Mapping[str, Any] = MappingProxyType({})
MERGE_PATCH = "application/merge-patch+json"
ACCEPTED_PATCHES = f"{MERGE_PATCH}, application/json"

# Entity tags (RFC 9110, section 8.8.3) of tasks: a task's version, compressed or not.
ENTITY_TAG = re.compile(rf'"([^"]*?){SUFFIX}?"')
VERSION_PATTERN = re.compile(r"[1-9][0-9]{0,17}")


def tags_in(header: str) -> list[str]:
    """Find the entity tags of a list.

    A version alone is one without its quotes: a 412 would have its client get and try for ever.
    """
    return [header] if VERSION_PATTERN.fullmatch(header) else ENTITY_TAG.findall(header)


def versions_of(header: str) -> list[str]:
    """Find the versions that a list of entity tags names.

    Weak tags count for If-Match too, against RFC 9110: a proxy that compresses makes tags weak, and
    would lock its clients out of writing. A version is exact all the same.
    """
    return [tag for tag in tags_in(header) if VERSION_PATTERN.fullmatch(tag)]


def expected_versions() -> list[str] | None:
    """Read the versions of If-Match (RFC 9110, section 13.1.1); None: any version."""
    header: str = current_request().environ.get("HTTP_IF_MATCH", "*").strip()
    return None if header == "*" else versions_of(header)


def is_fresh(version: str) -> bool:
    """Tell whether If-None-Match (RFC 9110, section 13.1.2) names what the client has already."""
    header: str = current_request().environ.get("HTTP_IF_NONE_MATCH", "").strip()
    return header == "*" or version in tags_in(header)


def path_of(user_id: str, rest: str) -> str:
    """Write a path below a user's; Flask's own `url_for` takes ten times as long."""
    return f"{current_request().root_path}/api/{quote(user_id, safe='')}/{rest}"


def json_response(body: bytes, status: int = 200, **headers: str) -> Response:
    response = BytesResponse(body, status, "application/json", **headers)
    # The answer to a write is always sent. A GET does not wait: its body is in memory already.
    if len(body) > LARGE and current_request().method == "GET":
        user_id: str = (current_request().view_args or {})["user_id"]
        await_receiver(current_app, response, user_id, patience=0)
    return response


def read_body(req: Request) -> bytes:
    """Read the request body, chunked or not, up to the request's max_content_length.

    werkzeug silently cuts a chunked body off at the limit, so one byte more is read. If a client
    breaks off, the server hands on what it has (RFC 9112, section 6.3: incomplete).

    Raises:
        ApiError: 413 where it is larger, 415 where it is encoded, 400 where its end is missing.
    """
    refuse_encoded(req)
    limit, length = req.max_content_length or 0, req.content_length or 0
    if length <= limit:
        body = read_part(req, limit + 1)
        if len(body) < length:
            raise broken_off()
        if len(body) <= limit:
            return body
    raise too_large(limit)


def too_large(limit: int) -> ApiError:
    return ApiError(413, f"The request body is larger than {limit} bytes.")


def refuse_encoded(req: Request) -> None:
    if req.environ.get("HTTP_CONTENT_ENCODING", "").strip().lower() not in {"", "identity"}:
        raise ApiError(415, "Send the body without a Content-Encoding.")


def read_part(req: Request, size: int) -> bytes:
    """Read `size` bytes of the request body, or fewer at its end.

    Raises:
        ApiError: 400 where it breaks off.
    """
    try:
        part: bytes = req.environ["wsgi.input"].read(size)
    except Exception:  # noqa: BLE001 - each server has its own for a broken chunk or a stall
        raise broken_off() from None
    return part


def broken_off() -> ApiError:
    return ApiError(400, "The request body is incomplete.")


def refuse_other_types(req: Request) -> None:
    """Refuse a body that is not JSON; a PATCH may also have the type of RFC 7396.

    Raises:
        ApiError: 415, with Accept-Patch (RFC 5789, section 2.2) for a PATCH.
    """
    message = "Send the body as JSON, with Content-Type: application/json."
    if req.method != "PATCH":
        raise ApiError(415, message)
    if req.mimetype != MERGE_PATCH:
        raise ApiError(415, message, headers={"Accept-Patch": ACCEPTED_PATCHES})


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
    """webargs' parser, strict about what is JSON, and what was sent as JSON."""

    def load_json(self, req: Request, schema: Schema) -> Any:
        body = read_body(req)
        if not body:
            raise ApiError(400, "The request body is empty; send a JSON object.")
        if req.mimetype != "application/json":
            refuse_other_types(req)
        try:
            return parse_json(body)
        except ValueError:
            raise ApiError(400, "The request body is not valid JSON.") from None

    def parse(self, argmap: Any, req: Request | None = None, **options: Any) -> Any:
        asked = current_request()  # `req` is a proxy, which looks this up for each attribute
        if options["location"] != "query":
            return super().parse(argmap, asked, **options)
        query = asked.query_string
        try:
            return load_query(argmap, query) if query else NO_QUERY
        except ValidationError as error:
            raise broken_rule(error.normalized_messages()) from None  # type: ignore[no-untyped-call]

    def handle_error(self, error: Any, req: Any, schema: Any, **kwargs: Any) -> Any:
        raise broken_rule(error.normalized_messages().get("json", {}))


def broken_rule(details: dict[str, Any]) -> ApiError:
    """Make a 422 from messages in marshmallow's form; the first becomes the answer's `message`."""
    return ApiError(422, first_fault(details), details)


def first_fault(details: Any) -> str:
    """Name the first fault of marshmallow's messages: `tags.1: Not a valid string.`"""
    path = []
    while isinstance(details, dict):
        key, details = next(iter(details.items()))
        if key != SCHEMA:  # which is a fault of the object itself
            path.append(str(key)[:LONGEST_NAME])
    place = f"{'.'.join(path)}: " if path else ""
    return place + str(details[0])


def heeds(*what: str) -> Callable[[Any], Any]:
    """Mark a view that heeds conditions (If-Match, If-None-Match), the query string, or a body."""

    def mark(view: Any) -> Any:
        view.heeds = getattr(view, "heeds", frozenset()) | set(what)
        return view

    return mark


def refuse_what_is_not_heeded() -> None:
    """Refuse a query parameter, an If-Match or a large body, if the view would pass over it.

    Raises:
        ApiError: 422; 413; or 412, as no version can match where there is none (RFC 9110, 13.1.1).
    """
    asked = current_request()
    environ = asked.environ
    if not (asked.query_string or "HTTP_IF_MATCH" in environ or "CONTENT_LENGTH" in environ):
        return
    heeded = getattr(current_app.view_functions[asked.endpoint or ""], "heeds", ())
    if asked.method in WRITES and "body" not in heeded:
        limit = asked.max_content_length or 0
        if (asked.content_length or 0) > limit:
            raise too_large(limit)
    if asked.query_string and "query" not in heeded and asked.args and asked.method != "OPTIONS":
        raise broken_rule({name: ["Unknown parameter."] for name in asked.args})
    if asked.method in WRITES and "If-Match" not in heeded and expected_versions() is not None:
        raise ApiError(412, "Nothing here has a version that If-Match could match.")


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
