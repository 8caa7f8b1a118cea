"""Idempotency-Key: a POST or PATCH that is sent again is answered again, but done only once.

draft-ietf-httpapi-idempotency-key-header-07; docs/decisions/0011-idempotency.md.
"""

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from io import BytesIO

from flask import Flask, Request, Response, g
from flask.typing import ResponseReturnValue

from blueprints import transaction
from capacity.rate_limits import Limit
from capacity.transfer_limits import LARGE_RESPONSE, acquire_download
from connection import Connection, Value, rows_of
from errors import RETRY_AFTER, ApiError, validation_error
from events import deferring_task_events
from lean_flask import current_request
from request_bodies import read_body, replace_body

KEYED_METHODS = frozenset({"POST", "PATCH"})  # the others may be repeated as they are
HEADER = "HTTP_IDEMPOTENCY_KEY"
# A string of RFC 9651, section 3.3.3, or, as many clients send it, the same without its quotes.
KEY = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"|([!#-~]{1,255})')
ESCAPED = re.compile(r'\\(["\\])')


def keep_responses(app: Flask) -> None:
    """Make every POST and PATCH of a user heed its Idempotency-Key, whatever its view does."""
    dispatch = app.dispatch_request

    def dispatch_once() -> ResponseReturnValue:
        req = current_request()
        if HEADER not in req.environ or req.method not in KEYED_METHODS:
            return dispatch()
        owner = (req.view_args or {}).get("user_id")
        return answer_once(app, req, owner, dispatch) if owner else dispatch()

    app.dispatch_request = dispatch_once  # type: ignore[method-assign]


def answer_once(
    app: Flask, req: Request, user_id: str, dispatch: Callable[[], ResponseReturnValue]
) -> Response:
    """Claim the key, do the request and keep its response in one transaction, or replay a kept one.

    The transaction begins with the view's first use of the database: what is refused before that
    needs none, and none idles while a large body is checked. An error rolls all of it back, so that
    the key may be used again.

    Raises:
        ApiError: 400 for a malformed key, 409 while it is in use, 422 where another request had it,
            429 where too much is kept for the user already, 503 where a replay is large and the
            user receives several large responses; what `read_body` raises.
    """
    values: dict[str, Value] = {
        "user_id": user_id,
        "key": parse_key(req.environ[HEADER]),
        "fingerprint": fingerprint_of(req),
    }
    kept_responses: Limit = app.extensions["rate_limits"].kept_responses
    try:
        with deferring_task_events(), ExitStack() as running:
            running.callback(g.pop, "begin_transaction", None)
            g.begin_transaction = lambda: claim(running.enter_context(transaction()), values)
            response = app.make_response(dispatch())
            if "transaction" in g:
                # A small batch may have a response of megabytes, which no other quota bounds.
                kept_responses.count(user_id, len(response.get_data()))
                keep(g.transaction, values, response)
    except Replay as found:
        if (found.response.content_length or 0) > LARGE_RESPONSE:
            acquire_download(found.response, user_id, timeout=0)
        return found.response
    return response


class Replay(Exception):
    """Ends a request that has been done before."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


def claim(db: Connection, values: dict[str, Value]) -> None:
    """Claim a key until the transaction ends.

    Raises:
        Replay: the request was done before; it has the response.
        ApiError: 409 while another request holds the key, 422 where a different one had it.
    """
    claimed, kept = db.run_together(["try_idempotency_key", "select_idempotent_response"], values)
    for same, status, headers, body in rows_of(kept):
        if same != b"t":
            raise validation_error({"Idempotency-Key": ["Must not be used for another request."]})
        # The first attempt may have been given up while a synchronous standby was away: as an
        # acknowledgement, its response is due only once the standby has what it wrote.
        db.end(b"COMMIT")
        replayed = json.loads(headers) | {"Idempotency-Replayed": "true"}
        raise Replay(Response(body, int(status), replayed))
    if rows_of(claimed) != [(b"t",)]:
        raise key_in_use()


def keep(db: Connection, values: dict[str, Value], response: Response) -> None:
    """Keep a response under its key, and commit it with what the request wrote."""
    kept: dict[str, Value] = {
        "status": response.status_code,
        "headers": json.dumps(dict(response.headers)),
        "body": response.get_data(as_text=True),
    }
    db.run_together(["insert_idempotent_response", "commit"], values | kept)


def parse_key(header: str) -> str:
    """Read the key, without its quotes and escapes.

    Raises:
        ApiError: 400 where it is none.
    """
    found = KEY.fullmatch(header)
    if not found:
        raise ApiError(
            400, "Idempotency-Key must be 1 to 255 visible ASCII characters, or a quoted string."
        )
    quoted, bare = found.groups()
    return bare or ESCAPED.sub(r"\1", quoted)


def fingerprint_of(req: Request) -> str:
    """Hash what makes a request the same: method, path and body; as text of a bytea."""
    body = read_body(req)
    replace_body(req, BytesIO(body))  # for the view
    digest = sha256(json.dumps([req.method, req.path]).encode())
    digest.update(body)  # no copy: a file to import is large
    return f"\\x{digest.hexdigest()}"


def key_in_use() -> ApiError:
    message = "A request with this Idempotency-Key is still running; please try again in a moment."
    return ApiError(409, message, headers={"Retry-After": RETRY_AFTER})
