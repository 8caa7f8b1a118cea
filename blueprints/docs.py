"""The description of the API: /openapi.json for programs, /docs and /redoc for people."""

import json
import re
from functools import lru_cache
from pathlib import Path

import flask_swagger_ui
from apispec import APISpec
from flask import Blueprint, Response, abort, current_app, request, send_from_directory

from content_encoding import SUFFIX

STATIC = Path(__file__).parent / "static"
SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"
FOLDER_OF_ASSET = {
    "page.css": STATIC,
    "start-swagger-ui.js": STATIC,
    "start-redoc.js": STATIC,
    "redoc/redoc.standalone.js": STATIC,
    "swagger-ui.css": SWAGGER_UI,
    "swagger-ui-bundle.js": SWAGGER_UI,
    "favicon-32x32.png": SWAGGER_UI,
}

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SWAGGER_UI_POLICY = f"{POLICY}; style-src 'self'"
# ReDoc makes two style elements, an empty one and its scroll bar's, and a worker for its search.
REDOC_POLICY = (
    f"{POLICY}; worker-src blob:; style-src 'self'"
    " 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    " 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
)

RANGE = re.compile(r"bytes=(?:[0-9]+-[0-9]*|-[0-9]+)")

blueprint = Blueprint("docs", __name__)


@blueprint.before_request
def simplify_conditions() -> None:
    """Drop the headers that werkzeug would answer otherwise than our other routes do."""
    tags = request.environ.get("HTTP_IF_NONE_MATCH", "")
    if re.search(SUFFIX, tags):  # of a compressed response
        request.environ["HTTP_IF_NONE_MATCH"] = f"{tags}, {re.sub(SUFFIX, '', tags)}"
    # As for tasks: a GET heeds no If-Match, for which werkzeug sends the whole file as a 412.
    request.environ.pop("HTTP_IF_MATCH", None)
    if not RANGE.fullmatch(request.environ.get("HTTP_RANGE", "")):  # RFC 9110, section 14.2
        request.environ.pop("HTTP_RANGE", None)


@blueprint.get("/openapi.json")
def get_openapi() -> Response:
    """Describe the API in OpenAPI"""
    body = serialise(current_app.extensions["description"])
    response = Response(body, content_type="application/json")
    response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.get("/docs")
def get_swagger_ui() -> Response:
    """Show the API in Swagger UI"""
    return page("swagger-ui.html", SWAGGER_UI_POLICY)


@blueprint.get("/redoc")
def get_redoc() -> Response:
    """Show the API in ReDoc"""
    return page("redoc.html", REDOC_POLICY)


@blueprint.get("/docs/assets/<path:name>")
def get_asset(name: str) -> Response:
    """Serve a file that the pages load"""
    if name not in FOLDER_OF_ASSET:
        abort(404)
    response = send_from_directory(FOLDER_OF_ASSET[name], name)
    if response.status_code == 200:
        response.response.close()  # type: ignore[union-attr]
        response.response = [contents_of(FOLDER_OF_ASSET[name] / name, response.headers["ETag"])]
        response.direct_passthrough = False
    return response


@lru_cache(len(FOLDER_OF_ASSET))
def contents_of(path: Path, _tag: str) -> bytes:
    """Read a file once: all clients share the copy, however slowly they receive it."""
    return path.read_bytes()


@lru_cache(maxsize=1)
def serialise(spec: APISpec) -> bytes:
    return json.dumps(spec.to_dict(), ensure_ascii=False).encode()


def page(name: str, policy: str) -> Response:
    response = send_from_directory(STATIC, name)
    response.headers["Content-Security-Policy"] = policy
    return response
