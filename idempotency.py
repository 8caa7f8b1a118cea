"""Idempotency-Key: a POST or PATCH that is sent again is answered again, but done only once.

draft-ietf-httpapi-idempotency-key-header-07; docs/decisions/0011-idempotency.md.
"""

import json
import re
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO

from flask import Flask, Request, Response
from flask.globals import request_ctx
from flask.typing import ResponseReturnValue

from blueprints import read_body, transaction
from errors import RETRY_AFTER, ApiError

METHODS = frozenset({"POST", "PATCH"})  # the others may be repeated as they are
HEADER = "HTTP_IDEMPOTENCY_KEY"
# A string of RFC 9651, section 3.3.3, or, as many clients send it, the same without its quotes.
KEY = re.compile(r'"((?:[!#-\[\]-~]|\\["\\]){1,255})"|([!#-~]{1,255})')
ESCAPED = re.compile(r'\\(["\\])')


def keep_answers(app: Flask) -> None:
    """Have every POST and PATCH of a user's heed its Idempotency-Key, whatever its view does."""
    dispatch = app.dispatch_request

    def dispatch_once() -> ResponseReturnValue:
        asked = request_ctx.request
        if HEADER not in asked.environ or asked.method not in METHODS:
            return dispatch()
        owner = (asked.view_args or {}).get("user_id")
        return answer_once(app, asked, owner, dispatch) if owner else dispatch()

    app.dispatch_request = dispatch_once  # type: ignore[method-assign]


def answer_once(
    app: Flask, asked: Request, user_id: str, dispatch: Callable[[], ResponseReturnValue]
) -> Response:
    """Claim the key, do the request and keep its answer, in one transaction; or answer as before.

    An error rolls all of it back, so that the key may be used again.

    Raises:
        ApiError: 400 for a malformed key, 409 while it is in use, 422 where another request had it.
    """
    key = parse_key(asked.environ[HEADER])
    fingerprint = fingerprint_of(asked)
    with transaction() as db:
        claim = db.fetch("try_idempotency_key", user_id=user_id, key=key, fingerprint=fingerprint)
        [(claimed, same, status, headers, body)] = claim
        if status:
            if same != b"t":
                raise reused_key()
            replayed = json.loads(headers) | {"Idempotency-Replayed": "true"}
            return Response(body, int(status), replayed)
        if claimed != b"t":
            raise key_in_use()
        response = app.make_response(dispatch())
        kept = db.fetch(
            "insert_idempotent_answer",
            user_id=user_id,
            key=key,
            fingerprint=fingerprint,
            status=response.status_code,
            headers=json.dumps(dict(response.headers)),
            body=response.get_data(as_text=True),
        )
        if not kept:
            raise key_in_use()
    return response


def parse_key(header: str) -> str:
    found = KEY.fullmatch(header)
    if not found:
        raise ApiError(400, "Idempotency-Key must be 1 to 255 visible ASCII characters.")
    quoted, bare = found.groups()
    return bare or ESCAPED.sub(r"\1", quoted)


def fingerprint_of(asked: Request) -> str:
    """Tell one request from another by method, path, query and body; a bytea for PostgreSQL."""
    body = read_body(asked)
    asked.environ["wsgi.input"] = BytesIO(body)  # for the view
    line = json.dumps([asked.method, asked.path, asked.query_string.decode("latin-1")])
    digest = sha256(line.encode())
    digest.update(body)  # no copy: a file to import is large
    return f"\\x{digest.hexdigest()}"


def reused_key() -> ApiError:
    message = "Must not be used for another request."
    return ApiError(422, f"Idempotency-Key: {message}", {"Idempotency-Key": [message]})


def key_in_use() -> ApiError:
    message = "A request with this Idempotency-Key is still running; please try again in a moment."
    return ApiError(409, message, headers={"Retry-After": RETRY_AFTER})
