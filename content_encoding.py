"""All but short responses go out compressed, to clients that can read them.

A compressed response is another representation, with an entity tag of its own (RFC 9110, section
8.8.3.3): "57" becomes "57:br". What clients send back is read without the suffix. So is "57-gzip",
which Apache, Caddy and lighttpd make of "57" where they compress what we did not.
"""

import re
from collections.abc import Iterable, Iterator

from flask import Flask, Response
from flask_compress import Compress, DictCache

from capacity.turns import in_turns
from lean_flask import current_request

ALGORITHMS = ["zstd", "br", "gzip"]  # by their cost per saved byte
STREAMING_ALGORITHMS = ["zstd", "gzip"]  # brotli buffers megabytes before it writes
MIN_SIZE = 1024  # bytes; below that, compressing is not worth the time
LONG = 256 * 1024  # bytes, 20 ms for gzip; a longer response is sent while it is compressed
PIECE = 64 * 1024  # bytes
MAX_ACCEPT_ENCODING = 1000  # characters; reading 30,000 takes 50 ms
TYPES = [
    "application/javascript",
    "application/json",
    "text/calendar",
    "text/css",
    "text/csv",
    "text/html",
    "text/javascript",
]
ASSETS = {"docs.get_asset", "docs.get_openapi"}  # the same for everybody
SUFFIX = rf"(?:[:-](?:{'|'.join(ALGORITHMS)}))"


def compress_responses(app: Flask) -> None:
    app.config |= {
        "COMPRESS_ALGORITHM": ALGORITHMS,
        "COMPRESS_ALGORITHM_STREAMING": STREAMING_ALGORITHMS,
        "COMPRESS_EVALUATE_CONDITIONAL_REQUEST": False,
        "COMPRESS_MIMETYPES": TYPES,
        "COMPRESS_MIN_SIZE": MIN_SIZE,
        "COMPRESS_REGISTER": False,
    }
    compress, compress_asset = Compress(app), Compress(app)
    compress_asset.cache = DictCache()  # a megabyte takes 70 ms, and anybody may request it
    compress_asset.cache_key = lambda req: req.path

    def compress_response(response: Response) -> Response:
        req, status = current_request(), response.status_code
        if status == 304:
            keep_tag(response, req.environ.get("HTTP_IF_NONE_MATCH", ""))
        wishes = req.environ.get("HTTP_ACCEPT_ENCODING")
        if wishes is None or len(wishes) > MAX_ACCEPT_ENCODING or status not in {200, 201}:
            return response
        length = response.content_length or 0
        if length < MIN_SIZE and not response.is_streamed:
            return response
        is_asset = req.endpoint in ASSETS
        is_long = (not length or length >= LONG) and not is_asset  # an export tells no length
        algorithms = STREAMING_ALGORITHMS if response.is_streamed or is_long else ALGORITHMS
        if algorithm := req.accept_encodings.best_match([*algorithms, "identity"]):
            req.environ["HTTP_ACCEPT_ENCODING"] = algorithm  # Compress takes br;q=0 as a yes
            if close := getattr(response.response, "close", None):
                response.call_on_close(close)  # even if nobody reads it to its end
            if is_long and algorithm != "identity":
                response.response = in_turns(pieces_of(response.iter_encoded()))
            response = (compress_asset if is_asset else compress).after_request(response)
            response.vary.discard("accept-encoding")  # every response has it: headers.py
        return response

    app.after_request(compress_response)


def pieces_of(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Cut what is long: a page of an export, like a list, may have megabytes."""
    return (part[start : start + PIECE] for part in parts for start in range(0, len(part), PIECE))


def keep_tag(response: Response, sent: str) -> None:
    """Give a 304 the tag that the client has, compressed or not."""
    tag = response.headers.get("ETag", "").removesuffix('"')
    if tag and (found := re.search(re.escape(tag) + SUFFIX + '"', sent)):
        response.headers["ETag"] = found[0]
