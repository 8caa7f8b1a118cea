"""The description of the API: /openapi.json for programs, /docs and /redoc for people."""

import json
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path

import flask_swagger_ui
from apispec import APISpec
from flask import Blueprint, Response, abort, current_app

from conditions import is_fresh
from lean_flask import BytesResponse

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
TYPE_OF_SUFFIX = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
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

blueprint = Blueprint("docs", __name__)


@blueprint.get("/openapi.json")
def get_openapi() -> Response:
    """Describe the API in OpenAPI"""
    return document_response(serialise(current_app.extensions["description"]), "application/json")


@blueprint.get("/docs")
def get_swagger_ui() -> Response:
    """Show the API in Swagger UI"""
    return file_response(STATIC / "swagger-ui.html", {"Content-Security-Policy": SWAGGER_UI_POLICY})


@blueprint.get("/redoc")
def get_redoc() -> Response:
    """Show the API in ReDoc"""
    return file_response(STATIC / "redoc.html", {"Content-Security-Policy": REDOC_POLICY})


@blueprint.get("/docs/assets/<path:name>")
def get_asset(name: str) -> Response:
    """Serve a file that the pages load"""
    if name not in FOLDER_OF_ASSET:
        abort(404)
    return file_response(FOLDER_OF_ASSET[name] / name)


def file_response(path: Path, headers: dict[str, str] | None = None) -> Response:
    return document_response(contents_of(path), TYPE_OF_SUFFIX[path.suffix], headers)


def document_response(
    body: bytes, content_type: str, headers: dict[str, str] | None = None
) -> Response:
    """Answer with what is the same for everybody, or 304 where the client has it."""
    tag = tag_of(body)
    headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache", **(headers or {})}
    if is_fresh(tag):
        return Response(status=304, headers=headers)
    return BytesResponse(body, 200, content_type, **headers)


@cache
def contents_of(path: Path) -> bytes:
    """Read a file once: all clients share the bytes, however slowly they receive them."""
    return path.read_bytes()


@lru_cache(maxsize=1)
def serialise(spec: APISpec) -> bytes:
    return json.dumps(spec.to_dict(), ensure_ascii=False).encode()


@lru_cache(maxsize=32)
def tag_of(body: bytes) -> str:
    return sha256(body).hexdigest()[:16]
