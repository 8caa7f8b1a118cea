"""The headers of every response: who may cache, read and frame it, and how much quota is left.

Added in front of Flask (WSGI middleware), where a list of headers costs a fifth of what Flask's
response objects take. Of a request's headers, those of proxies are read here.
"""

from typing import Any

from flask import Flask

from capacity.rate_limits import HEADERS_KEY
from config import Settings
from cors import cors_headers, is_preflight

COMMON = [
    ("Vary", "Origin, Accept-Encoding"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]
# Without includeSubDomains: whether subdomains have HTTPS is not known here.
COMMON_OF_HTTPS = [*COMMON, ("Strict-Transport-Security", "max-age=31536000")]
POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
# A browser may cache what has an ETag, and asks with If-None-Match each time.
PRIVATE = ("Cache-Control", "private, no-cache")
NOT_KEPT = ("Cache-Control", "no-store")
# For errors that the server answers without asking the application.
ERROR_HEADERS = [*COMMON, POLICY, NOT_KEPT]


def add_headers(app: Flask, settings: Settings) -> None:
    """Answer preflights; add headers to all responses. A view's policy and Cache-Control stay."""
    answer = app.wsgi_app
    allowed = cors_headers(settings.cors_origins)

    def answer_with_headers(environ: dict[str, Any], start_response: Any) -> Any:
        def start(status: str, given: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if status.startswith("204"):  # it has no body that could have a type
                given = [(name, value) for name, value in given if name != "Content-Type"]
            headers = [
                *given,
                *(COMMON_OF_HTTPS if environ["wsgi.url_scheme"] == "https" else COMMON),
                *allowed(environ),
                *environ.get(HEADERS_KEY, ()),
            ]
            names = {name for name, _ in given}
            if "Content-Security-Policy" not in names:
                headers.append(POLICY)
            if "Cache-Control" not in names:
                headers.append(PRIVATE if "ETag" in names and status < "4" else NOT_KEPT)
            return start_response(status, headers, exc_info)

        if is_preflight(environ) and allowed(environ):
            # Whatever the path: to a page whose preflight fails, even the 404 itself is hidden.
            start("200 OK", [("Content-Length", "0")])
            return []
        return answer(environ, start)

    app.wsgi_app = answer_with_headers  # type: ignore[method-assign]


def trust_proxies(app: Flask, proxies: int) -> None:
    """Take the client's address and the scheme from the headers of so many proxies; 0: of none.

    werkzeug's ProxyFix heeds quotes, so that a client's `"` would hide what the proxies append.
    """
    answer = app.wsgi_app

    def answer_forwarded(environ: dict[str, Any], start_response: Any) -> Any:
        # The last proxy overwrites the scheme, but appends to the addresses of the proxies before.
        addresses = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
        if len(addresses) >= proxies and (address := addresses[-proxies].strip()):
            environ["REMOTE_ADDR"] = address
        if scheme := environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip():
            environ["wsgi.url_scheme"] = scheme
        return answer(environ, start_response)

    if proxies:
        app.wsgi_app = answer_forwarded  # type: ignore[method-assign]
