"""Which pages of other origins may call the API: the CORS protocol of https://fetch.spec.whatwg.org."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

EXPOSED_HEADERS = (
    "Accept-Patch, Allow, Content-Disposition, ETag, Idempotency-Replayed, Link, Location,"
    " RateLimit, RateLimit-Policy, Retry-After, Server-Timing, WWW-Authenticate, X-Request-Id,"
    " X-Total-Count"
)
ALLOWED_METHODS = "GET, POST, PUT, PATCH, DELETE"
PREFLIGHT_MAX_AGE = "7200"  # seconds; the most that Chromium keeps

REMEMBERED_ORIGINS = 128

Headers = list[tuple[str, str]]


def cors_headers(origins: tuple[str, ...]) -> Callable[[dict[str, Any]], Headers]:
    """Make the function that lets pages of these origins read a response and send any header.

    `*` stands for letters, digits and hyphens, so for no dot.
    """
    patterns = [re.escape(origin).replace(r"\*", "[a-z0-9-]+") for origin in origins]
    allowed = re.compile("|".join(patterns))

    @lru_cache(REMEMBERED_ORIGINS)
    def headers_of_origin(origin: str) -> Headers:
        if not origin or not allowed.fullmatch(origin):
            return []
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", EXPOSED_HEADERS),
        ]

    def headers_of(environ: dict[str, Any]) -> Headers:
        headers = headers_of_origin(environ.get("HTTP_ORIGIN", ""))
        if headers and is_preflight(environ):
            return headers + preflight_headers(environ)
        return headers

    return headers_of


def is_preflight(environ: dict[str, Any]) -> bool:
    is_options: bool = environ["REQUEST_METHOD"] == "OPTIONS"
    return is_options and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ


def preflight_headers(environ: dict[str, Any]) -> Headers:
    headers = [
        ("Access-Control-Allow-Methods", ALLOWED_METHODS),
        ("Access-Control-Max-Age", PREFLIGHT_MAX_AGE),
    ]
    if requested := environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS"):
        headers.append(("Access-Control-Allow-Headers", requested))
    return headers
