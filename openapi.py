"""What every operation's description shares: its name, who may call it, and how it can fail."""

from collections.abc import Collection
from typing import Any

from apispec import APISpec, BasePlugin
from flask import Flask
from flask_smorest import Api
from marshmallow.validate import Equal
from werkzeug.routing import Rule

from auth import PUBLIC_ENDPOINTS
from errors import CODE_OF_STATUS, MESSAGE_OF_STATUS, RETRY_AFTER, ErrorBody
from field_types import Choice
from idempotency import KEY, KEYED_METHODS
from request_bodies import ACCEPTED_PATCHES, MERGE_PATCH
from trail import WRITES

DESCRIPTION = """\
Tasks of many users. Every path below `/api/{user_id}` belongs to one user: `user_id` must be the
token's `sub`. In Swagger UI, press **Authorize** and paste a token, without `Bearer`.

After a broken connection, a POST or PATCH is safe to send again if it has an `Idempotency-Key`: it
is done once, and for 24 hours a repeat gets the first response.

Every error has one shape: a code for programs, a message for the person, and details: what is
wrong with which field, and `request_id`, the request's id in the server's log. Every response has
it in `X-Request-Id`; if you send an id of your own there (1 to 128 of `A-Z a-z 0-9 . _ -`), it is
used.
"""
EXAMPLE_OF_STATUS = {
    400: "The request body is not valid JSON.",
    401: "The token has expired.",
    404: "Resource not found: task 12",
    406: "Tasks are exported as application/json, text/csv or text/calendar.",
    413: "The request body is larger than 1048576 bytes.",
    415: "Send the body as JSON, with Content-Type: application/json.",
    422: "title: Missing data for required field.",
}
DETAILS_OF_STATUS = {422: {"title": ["Missing data for required field."]}}
HEADER_OF_STATUS = {
    401: ("WWW-Authenticate", "The challenge of RFC 6750.", 'Bearer error="invalid_token"'),
    409: ("Retry-After", "Seconds to wait, if waiting helps.", RETRY_AFTER),
    415: ("Accept-Patch", "Media types for a PATCH of a task (RFC 5789).", ACCEPTED_PATCHES),
    429: ("Retry-After", "Seconds to wait before another attempt.", "30"),
    503: ("Retry-After", "Seconds to wait before another attempt.", RETRY_AFTER),
}
# draft-ietf-httpapi-ratelimit-headers-10; absent if the operator has turned the limit off.
RATE_LIMIT_HEADERS = {
    "RateLimit-Policy": {
        "description": "The quota `q` that a caller has in every window of `w` seconds.",
        "schema": {"type": "string"},
        "example": '"default";q=600;w=60',
    },
    "RateLimit": {
        "description": "What is left of the quota: `r` requests in the next `t` seconds.",
        "schema": {"type": "string"},
        "example": '"default";r=599;t=30',
    },
}
# apispec turns a name into a reference to the component.
RATE_LIMIT_REFERENCES: dict[str, Any] = {name: name for name in RATE_LIMIT_HEADERS}

REQUEST_ID = {
    "X-Request-Id": {
        "description": "The request's id in the server's log.",
        "required": True,
        "schema": {"type": "string"},
        "example": "0c5b8d6e1f7a4f0d9a3b2c1d0e9f8a7b",
    }
}

# Their examples are inside the schema: one beside it would be filled in, and sent, by Swagger UI.
CONDITIONS: list[dict[str, Any]] = [
    {
        "in": "header",
        "name": "If-Match",
        "description": "The ETag that the task must still have; else 412, and nothing is written.",
        "schema": {"type": "string", "examples": ['"57"']},
    },
    {
        "in": "header",
        "name": "If-None-Match",
        "description": (
            "The ETag of what you have: while it is current, a GET gets a 304 and a write a 412."
        ),
        "schema": {"type": "string", "examples": ['"57"']},
    },
]
IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "description": (
        "A text that identifies this one request, such as a UUID, quoted or not. Sent again with"
        " it within 24 hours, the request is not done again and gets the first response. Method,"
        " path and body must be the same, byte by byte, else it gets a 422. Errors are not kept:"
        " after one, the key may be used again."
    ),
    "schema": {
        "type": "string",
        "pattern": f"^({KEY.pattern})$",
        "examples": ['"8e03978e-40d5-43e8-bc93-6894a57f9324"'],
    },
}
REPLAYED = {
    "Idempotency-Replayed": {
        "description": (
            "`true` if the request was done before and this is its first response again. The tasks"
            " may have changed or been deleted since: if you keep a copy, get them."
        ),
        "schema": {"type": "string", "enum": ["true"]},
    }
}


def describe_constant(converter: Any, field: Any, ret: Any) -> dict[str, Any]:
    """Add `const` to an `enum` of one: code generated from `enum` alone takes both booleans."""
    equal = [each.comparable for each in field.validators if isinstance(each, Equal)]
    return {"const": equal[0]} if equal else {}


def describe_choice(converter: Any, field: Any, ret: Any) -> dict[str, Any]:
    """Describe a Choice for apispec, which knows only of fields with one schema."""
    if not isinstance(field, Choice):
        return {}
    schemas = {name: converter.resolve_nested_schema(each) for name, each in field.schemas.items()}
    described: dict[str, Any] = {"oneOf": list(schemas.values())}
    if True not in schemas:  # OpenAPI's discriminator is a text
        mapping = {name: schema["$ref"] for name, schema in schemas.items()}
        described["discriminator"] = {"propertyName": field.tag, "mapping": mapping}
    return described


class TasksApi(Api):  # type: ignore[misc]
    """flask-smorest's Api, with this API's errors in place of its own."""

    ERROR_SCHEMA = ErrorBody
    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_pagination_header(self) -> None:
        """Leave out flask-smorest's own paging, which no operation has."""


class SharedDescription(BasePlugin):
    """Adds to each operation what its path and endpoint imply."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def init_spec(self, spec: APISpec) -> None:
        self.spec = spec
        for name, header in RATE_LIMIT_HEADERS.items():
            spec.components.header(name, header)

    def path_helper(
        self,
        path: str | None = None,
        operations: dict[Any, Any] | None = None,
        parameters: list[dict[Any, Any]] | None = None,
        **_: Any,
    ) -> None:
        """Move a path part's description to where Swagger UI shows it and fills it in."""
        for parameter in parameters or ():
            if description := parameter["schema"].pop("description", None):
                parameter["description"] = description
            if examples := parameter["schema"].pop("examples", None):
                parameter["example"] = examples[0]

    def operation_helper(
        self, path: str | None = None, operations: dict[Any, Any] | None = None, **kwargs: Any
    ) -> None:
        rule: Rule = kwargs["rule"]
        first, *rest = rule.endpoint.rpartition(".")[2].split("_")
        for method, operation in (operations or {}).items():
            operation["operationId"] = first + "".join(word.capitalize() for word in rest)
            describe_headers(operation, REQUEST_ID)
            if rule.endpoint in PUBLIC_ENDPOINTS:
                operation["security"] = []
                continue
            describe_headers(operation, RATE_LIMIT_REFERENCES)
            heeded = getattr(self.app.view_functions[rule.endpoint], "heeds", ())
            headers = [
                with_own_tag(header, operation) for header in CONDITIONS if header["name"] in heeded
            ]
            if method.upper() in KEYED_METHODS:
                headers.append(IDEMPOTENCY_KEY)
                describe_headers(operation, REPLAYED, below=300)
            if headers:
                operation.setdefault("parameters", []).extend(headers)
            content = operation.get("requestBody", {}).get("content", {})
            if MERGE_PATCH in content:  # either type is read as a patch
                content["application/json"] = content[MERGE_PATCH]
            for status in sorted(statuses_of(rule, method.upper(), operation, heeded)):
                operation["responses"][str(status)] = self.error_response(status)

    def error_response(self, status: int) -> str:
        """Return the name of this error's description among the components; describe it once."""
        name = CODE_OF_STATUS[status]
        if name not in self.spec.components.responses:
            self.spec.components.response(name, describe_error(status))
        return name


def statuses_of(
    rule: Rule, method: str, operation: dict[str, Any], heeded: Collection[str]
) -> set[int]:
    """Find the errors that a user's operation may have: those that it names, and those implied."""
    named = (status for status, name in operation["responses"].items() if isinstance(name, str))
    statuses = {401, 422, 429, 500, 503} | {int(status) for status in named}
    if rule.arguments > {"user_id"}:
        statuses.add(404)
    if "query" in heeded:
        statuses.add(414)
    if method in WRITES:  # its body is read, whatever the view does
        statuses |= {400, 412, 413, 415}
    if method in KEYED_METHODS:
        statuses.add(409)
    return statuses


def with_own_tag(header: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """Give a condition the ETag that the operation's response shows: a list's is no version."""
    responses = [each for each in operation["responses"].values() if isinstance(each, dict)]
    for tag in (each["headers"]["ETag"] for each in responses if "ETag" in each["headers"]):
        return header | {"schema": header["schema"] | {"examples": [tag["example"]]}}
    return header


def describe_headers(operation: dict[str, Any], headers: dict[str, Any], below: int = 600) -> None:
    """Add headers to an operation's own responses; its errors are shared components."""
    for status, response in operation["responses"].items():
        if isinstance(response, dict) and int(status) < below:
            response["headers"] = response.get("headers", {}) | headers


def describe_error(status: int) -> dict[str, Any]:
    message = EXAMPLE_OF_STATUS.get(status) or MESSAGE_OF_STATUS[status]
    request_id = REQUEST_ID["X-Request-Id"]["example"]
    details = {**DETAILS_OF_STATUS.get(status, {}), "request_id": request_id}
    example = {"error": CODE_OF_STATUS[status], "message": message, "details": details}
    code = {"properties": {"error": {"const": CODE_OF_STATUS[status]}}}  # generated code can narrow
    schema = {"allOf": [ErrorBody, {"type": "object", **code}]}
    description: dict[str, Any] = {
        "description": CODE_OF_STATUS[status].replace("_", " ").capitalize(),
        "content": {"application/json": {"schema": schema, "example": example}},
        "headers": REQUEST_ID | RATE_LIMIT_REFERENCES,
    }
    if header := HEADER_OF_STATUS.get(status):
        name, text, value = header
        description["headers"][name] = {
            "description": text,
            "required": status not in {409, 415},
            "schema": {"type": "string"},
            "example": value,
        }
    return description
