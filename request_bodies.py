"""Bodies of requests, read whole or in parts: within their limits, unencoded, and to their end."""

from contextlib import nullcontext
from typing import IO

from flask import Request

from capacity.transfer_limits import LARGE_BODY, body_place
from errors import ApiError

MERGE_PATCH = "application/merge-patch+json"
ACCEPTED_PATCHES = f"{MERGE_PATCH}, application/json"
MAX_CONTENT_TYPE = 1000  # characters; reading 30,000 takes 30 ms
ARRIVED_KEY = "tasks.body_has_arrived"  # environ key


def read_body(req: Request) -> bytes:
    """Read the request body, chunked or not, up to the request's max_content_length.

    From `wsgi.input`, as werkzeug silently cuts a chunked body off at the limit: one byte more
    shows that it is longer. If a client breaks off, the server passes on what it has (RFC 9112,
    section 6.3: incomplete).

    Raises:
        ApiError: 413 where it is larger, 415 where it is encoded, 400 where its end is missing, 503
            while many large ones of its user are on their way.
    """
    refuse_by_headers(req)
    limit, length = req.max_content_length or 0, req.content_length or 0
    if length <= limit:
        is_small = length <= LARGE_BODY and "HTTP_TRANSFER_ENCODING" not in req.environ
        needs_no_place = is_small or ARRIVED_KEY in req.environ
        with nullcontext() if needs_no_place else body_place((req.view_args or {})["user_id"]):
            body = read_part(req, limit + 1)
        if len(body) < length:
            raise broken_off()
        if len(body) <= limit:
            return body
    raise ApiError(413, f"The request body is larger than {limit} bytes.")


def replace_body(req: Request, file: IO[bytes]) -> None:
    """Have the body read from here from now on: all of it has come."""
    req.environ |= {"wsgi.input": file, ARRIVED_KEY: True}


def refuse_by_headers(req: Request) -> None:
    """Refuse a body with a Content-Encoding or an overlong Content-Type: an ApiError, 415."""
    if len(req.environ.get("CONTENT_TYPE", "")) > MAX_CONTENT_TYPE:
        raise ApiError(
            415, f"The header Content-Type is longer than {MAX_CONTENT_TYPE} characters."
        )
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


def require_json_type(req: Request) -> None:
    """Refuse a body that is not JSON; a PATCH may also have the type of RFC 7396.

    Raises:
        ApiError: 415, with Accept-Patch (RFC 5789, section 2.2) for a PATCH.
    """
    is_patch = req.method == "PATCH"
    if req.mimetype == "application/json" or (is_patch and req.mimetype == MERGE_PATCH):
        return
    message = "Send the body as JSON, with Content-Type: application/json."
    raise ApiError(415, message, headers={"Accept-Patch": ACCEPTED_PATCHES} if is_patch else None)
