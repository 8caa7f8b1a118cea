"""Which pages of other origins may call the API: the CORS protocol of https://fetch.spec.whatwg.org."""

from flask import Flask, Response, request

EXPOSED_HEADERS = "Location, Retry-After, WWW-Authenticate"
METHODS = "GET, POST, PUT, PATCH, DELETE"
PREFLIGHT_MAX_AGE = "7200"  # seconds; the most that Chromium keeps


def allow_origins(app: Flask, origins: tuple[str, ...]) -> None:
    """Let pages of these origins read every answer, errors too, and send any header."""

    def add_headers(response: Response) -> Response:
        headers = response.headers
        headers.add("Vary", "Origin")
        origin = request.environ.get("HTTP_ORIGIN")
        if origin not in origins:
            return response
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            headers["Access-Control-Allow-Methods"] = METHODS
            headers["Access-Control-Max-Age"] = PREFLIGHT_MAX_AGE
            if asked := request.headers.get("Access-Control-Request-Headers"):
                headers["Access-Control-Allow-Headers"] = asked
        return response

    app.after_request(add_headers)
