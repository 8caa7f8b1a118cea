"""Requests as nearly all clients send them, read in a fraction of the time of gunicorn's parser.

Whatever is not exactly of this form is left to gunicorn's parser, byte for byte, which also decides
what is not HTTP. tests/test_http.py requires both to read the same.
"""

import os
import re
from functools import cache, lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from gunicorn import http  # type: ignore[import-untyped]
from gunicorn.http import wsgi  # type: ignore[import-untyped]
from gunicorn.http.body import Body, LengthReader  # type: ignore[import-untyped]
from gunicorn.http.message import Request  # type: ignore[import-untyped]
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped]

# The target is a path, in no other form. Header names have no underscores, which CGI cannot tell
# from hyphens, and are short, as they are cached. No line is folded.
PLAIN_HEAD = re.compile(
    r"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!\"$-.0-~][!\"$-~]*|/) HTTP/1\.1"
    r"((?:\r\n[A-Za-z0-9-]{1,64}:[\t -~\x80-\xff]*)*)"
)
LENGTH = re.compile(r"[0-9]{1,15}")
END = b"\r\n\r\n"
# Headers that change how the rest of a request is read.
OTHER_FRAMING = ("HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_UPGRADE")

Environ = dict[str, Any]
Headers = list[tuple[str, str]]


@lru_cache(1024)
def names_of(name: str) -> tuple[str, str]:
    """Name a header as gunicorn does, and as CGI does (RFC 3875, section 4.1.18)."""
    name = name.upper()
    key = name.replace("-", "_")
    return name, key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"


class PlainRequest(Request):  # type: ignore[misc]
    """gunicorn's request, which already holds its part of the environ."""

    version = (1, 1)
    must_close = False
    proxy_protocol_info: Any = None

    def __init__(self, environ: Environ, headers: Headers, body: Body, unreader: Any) -> None:
        self.environ = environ
        self.headers = headers
        self.body = body
        self.unreader = unreader
        self.method: str = environ["REQUEST_METHOD"]
        self.uri: str = environ["RAW_URI"]
        self.path, _, self.query = self.uri.partition("?")

    def should_close(self) -> bool:
        return self.must_close or self.environ.get("HTTP_CONNECTION", "").lower() == "close"


def read_head(head: str) -> tuple[Environ, Headers] | None:
    """Read a head without the empty line that ends it; None if it is not of the plain form."""
    found = PLAIN_HEAD.fullmatch(head)
    if not found:
        return None
    method, uri, fields = found.groups()
    path, _, query = uri.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "RAW_URI": uri,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1") if "%" in path else path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    headers = []
    for line in fields.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        value = value.strip(" \t")
        name, key = names_of(name)
        if key in environ:
            return None
        headers.append((name, value))
        environ[key] = value
    if any(name in environ for name in OTHER_FRAMING):
        return None
    return environ, headers


class PlainParser(RequestParser):  # type: ignore[misc]
    """gunicorn's parser, which first checks whether the next request is of the plain form."""

    mesg: Any

    def __next__(self) -> Any:
        if self.mesg and (self.mesg.should_close() or not self.finish_body()):
            raise StopIteration
        data: bytes = self.unreader.read()
        if not data:
            raise StopIteration
        if request := self.read_plain(data):
            self.mesg = request
            return request
        self.unreader.unread(data)
        self.mesg = None
        return super().__next__()

    def finish_body(self, *limits: Any) -> bool:
        """Do what gunicorn does, unless the body has been read already, as most have."""
        if isinstance(self.mesg, PlainRequest) and not self.mesg.body.reader.length:
            return True
        return bool(super().finish_body(*limits))

    def read_plain(self, data: bytes) -> PlainRequest | None:
        longest = min(self.cfg.limit_request_line, self.cfg.limit_request_field_size)
        end = data.find(END, 0, longest)
        if end < 0:
            return None
        head = read_head(data[:end].decode("latin-1"))
        if head is None or len(head[1]) > self.cfg.limit_request_fields:
            return None
        environ, headers = head
        length = environ.get("CONTENT_LENGTH", "0")
        if not LENGTH.fullmatch(length):
            return None
        if rest := data[end + len(END) :]:
            self.unreader.unread(rest)
        body = Body(LengthReader(self.unreader, int(length)))
        return PlainRequest(environ, headers, body, self.unreader)


def get_parser(cfg: Any, source: Any, source_addr: Any, **options: Any) -> Any:
    """Choose a connection's parser: gunicorn's own for TLS, a path prefix and other rarities."""
    is_plain = (
        isinstance(source_addr, tuple)
        and cfg.proxy_protocol == "off"
        and not (options or cfg.is_ssl or "SCRIPT_NAME" in os.environ)
    )
    if is_plain:
        return PlainParser(cfg, source, source_addr)
    return get_other_parser(cfg, source, source_addr, **options)


def create(req: Any, sock: Any, client: Any, server: Any, cfg: Any, **options: Any) -> Any:
    """Make the Response of a request, and its environ."""
    if not isinstance(req, PlainRequest):
        response, environ = create_other(req, sock, client, server, cfg, **options)
        if environ["REMOTE_ADDR"] is None:  # by the PROXY protocol, it is the proxy's own request
            environ["REMOTE_ADDR"] = client[0] if isinstance(client, tuple) else ""
        return response, environ
    environ = {
        **base_environ(cfg),
        **req.environ,
        "wsgi.input": req.body,
        "gunicorn.socket": sock,
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
    }
    return wsgi.Response(req, sock, cfg), environ


@cache
def base_environ(cfg: Any) -> Environ:
    environ: Environ = wsgi.base_environ(cfg)
    return environ | {"wsgi.url_scheme": "http", "SCRIPT_NAME": ""}


# gunicorn's own, taken before gunicorn.conf.py puts ours in their place.
get_other_parser, create_other = http.get_parser, wsgi.create
