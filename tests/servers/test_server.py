"""A real gunicorn with gunicorn.conf.py: connections, responses of its own, and bodies it takes."""

import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import processes
import pytest
from processes import Process, free_port, gunicorn, request_on, tasks_of, wait_until
from raw_http import head, parse, read_to_end, send_raw
from support import FRONT_END, JSON, assert_error, bearer, token_for

from headers import ERROR_HEADERS

LIMIT = 1024 * 1024  # bytes, the default
LARGE = b" " * 20 * LIMIT


@pytest.fixture
def connection(api: Process) -> Iterator[HTTPConnection]:
    connection = api.connect()
    yield connection
    connection.close()


# Connections


def test_connection_is_kept_after_an_error(connection: HTTPConnection):
    others, body = tasks_of("bob"), {"title": "x" * 60_000}
    response = request_on(connection, "POST", others, token=token_for("alice"), json=body)
    assert response.status_code == 401
    assert (kept := connection.sock)
    assert request_on(connection, "GET", "/livez").status_code == 200
    assert connection.sock is kept


@pytest.mark.parametrize(
    "body",
    [{"json": {"title": "x" * 100_000}}, {"body": iter([b" ", b"{}"])}],
    ids=["long", "in chunks"],
)
def test_connection_is_closed_behind_a_long_body_that_nobody_reads(
    connection: HTTPConnection, body: dict[str, Any]
):
    response = request_on(connection, "POST", tasks_of("bob"), token=token_for("alice"), **body)
    assert response.status_code == 401
    assert response.headers["Connection"] == "close"
    assert connection.sock is None


# What gunicorn refuses itself


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (b"garbage\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
        (b"GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_request"),
        (b"GET /%s HTTP/1.1\r\n\r\n" % (b"z" * 100_000), 414, "uri_too_long"),
        (
            b"GET / HTTP/1.1\r\nCookie: %s\r\n\r\n" % (b"z" * 100_000),
            431,
            "request_header_fields_too_large",
        ),
        (
            b"GET / HTTP/1.1\r\n%s\r\n" % (b"Cookie: %s\r\n" % (b"z" * 8000) * 6),
            431,
            "request_header_fields_too_large",
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, foo\r\n\r\n", 501, "not_implemented"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            "not_implemented",
        ),
        (b"POST / HTTP/1.1\r\nExpect: garbage\r\n\r\n", 417, "expectation_failed"),
    ],
    ids=[
        "no HTTP",
        "no header",
        "two lengths",
        "no host",
        "two hosts",
        "no name of a host",
        "long path",
        "long header",
        "long head",
        "coding",
        "compressed on the way",
        "expected",
    ],
)
def test_request_that_is_no_http_has_an_error_of_the_one_shape_and_one_line(
    api: Process, request_: bytes, status: int, error: str
):
    response = parse(send_raw(api, request_))
    assert_error(response, status, error)
    assert {(name, response.headers[name]) for name, _ in ERROR_HEADERS} == set(ERROR_HEADERS)
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert parsedate_to_datetime(response.headers["Date"]).tzinfo is UTC
    assert response.headers["Connection"] == "close"
    request_id = response.headers["X-Request-Id"]
    wait_until(lambda: request_id in api.output())
    [line] = [json.loads(line) for line in api.lines() if request_id in line]
    assert (line["event"], line["level"], line["status"]) == ("request", "info", status)
    assert (line["method"], line["route"], line["bytes"]) == (None, None, len(response.data))
    assert line["cause"].startswith("ApiError: ")
    assert "exception" not in line
    # A hexadecimal request id never has a z, but may have "aaa" by chance.
    assert not re.search("Invalid request|garbage|bad header|zzz", api.output())


def test_token_of_many_kilobytes_is_read(api: Process):
    headers = bearer("z" * 20_000) | FRONT_END
    response = api.request("GET", "/api/alice/tasks", headers=headers)
    assert_error(response, 401, "unauthorized")
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"


@pytest.mark.parametrize("spoken", ["1.0", "1.1", "1.9"])
def test_response_claims_no_version_of_http_but_those_that_are_spoken(api: Process, spoken: str):
    request = f"GET /livez HTTP/{spoken}\r\nHost: [::1]:8000\r\nConnection: close\r\n\r\n"
    response = send_raw(api, request.encode())
    assert response.startswith(f"HTTP/{min(spoken, '1.1')} 200 ".encode())


def test_fault_below_flask_is_500_and_one_line_with_its_traceback(tmp_path: Path, url: str):
    folder = processes.copy_of_project(tmp_path)
    asked = "body = answer(environ, start)"
    fault = f'{asked} if environ["PATH_INFO"] == "/livez" else 1 / 0'
    observe = folder / "observability/observe.py"
    observe.write_text(observe.read_text().replace(asked, fault))
    with gunicorn(folder, url) as broken:
        response = broken.request("GET", "/", headers={"X-Request-Id": "mine"})
        assert_error(response, 500, "internal_error")
        assert response.headers["X-Request-Id"] == "mine"
        broken.wait_for_output("Traceback")
        [line] = [json.loads(line) for line in broken.lines() if "Traceback" in line]
    assert (line["request_id"], line["method"], line["status"]) == ("mine", "GET", 500)
    assert (line["level"], line["cause"]) == ("error", "ZeroDivisionError: division by zero")


def test_connection_ends_behind_its_response_where_none_is_to_be_kept(folder: Path, url: str):
    with gunicorn(folder, url, GUNICORN_CMD_ARGS="--keep-alive 0") as api:
        assert parse(send_raw(api, head("GET", "/livez"))).headers["Connection"] == "close"


# Bodies


def test_large_body_is_413_for_http_client(api: Process):
    assert_error(api.call("POST", body=LARGE, headers=JSON), 413, "payload_too_large")


@pytest.mark.parametrize("user", ["alice", "bob"], ids=["413", "401"])
@pytest.mark.parametrize("length", ["known", "chunked"])
def test_refusal_of_a_large_body_reaches_a_client_that_sends_all_of_it_first(
    api: Process, length: str, user: str
):
    coding, body = f"Content-Length: {len(LARGE)}", LARGE
    if length == "chunked":
        chunk = b"10000\r\n%s\r\n" % (b" " * 0x10000)
        coding, body = "Transfer-Encoding: chunked", chunk * (len(LARGE) // 0x10000) + b"0\r\n\r\n"
    lines = ("Content-Type: application/json", f"Authorization: Bearer {token_for('alice')}")
    begun = head("POST", tasks_of(user), "Connection: close", coding, *lines)
    status, error = (413, "payload_too_large") if user == "alice" else (401, "unauthorized")
    assert_error(parse(send_raw(api, begun + body)), status, error)


def test_search_by_as_many_tags_as_there_may_be_is_no_address_too_long(api: Process):
    tags = urlencode([("tag", 50 * letter) for letter in "абвгдежзийклмнопрсту"])
    response = api.request("GET", f"{tasks_of('alice')}?{tags}", token=token_for("alice"))
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "content_type", "sent"),
    [("", "application/json", b'{"title": "Buy milk"}'), ("import", "text/csv", b"title\nOne\nTw")],
)
def test_body_that_breaks_off_is_400_and_nothing_is_done(
    api: Process, path: str, content_type: str, sent: bytes
):
    user = f"broken-{content_type}"
    lines = [f"Content-Type: {content_type}", f"Authorization: Bearer {token_for(user)}"]
    lines += ["Content-Length: 100", "Idempotency-Key: once"]
    begun = head("POST", tasks_of(user, path), *lines)
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(begun + sent)
        client.shutdown(socket.SHUT_WR)
        response = parse(read_to_end(client))
    assert_error(response, 400, "bad_request", "The request body is incomplete.")
    whole = {"body": sent, "headers": {"Content-Type": content_type, "Idempotency-Key": "once"}}
    assert api.call("GET", user=user).json == []
    assert api.call("POST", path, user=user, **whole).status_code == 201


def test_chunked_body_under_the_limit_is_taken_whole(api: Process):
    body = json.dumps({"title": "Buy milk", "description": "x" * 5000}).encode()
    chunks = [body[start : start + 100] for start in range(0, len(body), 100)]
    response = api.call("POST", body=iter(chunks), headers=JSON)
    assert response.status_code == 201
    assert len(response.json["description"]) == 5000


def test_name_of_the_chunked_coding_is_read_in_any_case(api: Process):
    lines = [f"{name}: {value}" for name, value in (JSON | bearer(token_for("alice"))).items()]
    framing = ("Transfer-Encoding: Chunked", "Connection: close")
    begun = head("POST", tasks_of("alice"), *framing, *lines)
    body = b'{"title": "Buy milk"}'
    response = send_raw(api, begun + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert parse(response).status_code == 201


def test_chunked_body_over_the_limit_is_413_although_its_beginning_is_valid(api: Process):
    chunks = [b'{"title": "Buy milk"}', b" " * LIMIT, b" "]
    response = api.call("POST", body=iter(chunks), headers=JSON)
    assert_error(response, 413, "payload_too_large")


def test_server_tells_no_version_and_each_header_once(api: Process):
    response = api.call("GET")
    assert response.status_code == 200
    names = list(response.headers.keys())
    assert len(names) == len(set(names))
    assert not re.search(r"\d", response.headers.get("Server", ""))
    assert "X-Powered-By" not in response.headers


def test_body_without_content_type_is_415(api: Process):
    response = api.call("POST", body=b'{"title": "Buy milk"}')
    assert_error(response, 415, "unsupported_media_type")


# Behind a proxy


@pytest.fixture(scope="module")
def trusting(folder: Path, url: str) -> Iterator[Process]:
    """A server that trusts its proxy, and also listens on a Unix socket."""
    port = free_port()
    binds = f"--bind 127.0.0.1:{port} --bind unix:{folder / 'api.sock'}"
    given = {"API_PORT": port, "TRUSTED_PROXIES": 1, "GUNICORN_CMD_ARGS": binds}
    with gunicorn(folder, url, **given) as process:
        yield process


def is_secure(api: Process, version: str, line: str) -> bool:
    request = f"GET /livez HTTP/{version}\r\nHost: a\r\nConnection: close\r\n{line}\r\n\r\n"
    response = parse(send_raw(api, request.encode()))
    assert response.status_code == 200
    return "Strict-Transport-Security" in response.headers


VERSIONS = pytest.mark.parametrize("version", ["1.1", "1.0"])  # 1.0 is left to gunicorn's parser


@VERSIONS
def test_trusted_proxy_tells_the_scheme_by_one_header_alone(trusting: Process, version: str):
    assert is_secure(trusting, version, "X-Forwarded-Proto: https")
    for line in ("X-Forwarded-Proto: http", "X-Forwarded-Protocol: ssl", "X-Forwarded-Ssl: on"):
        assert not is_secure(trusting, version, line)


@VERSIONS
@pytest.mark.parametrize(
    "line", ["X-Forwarded-Proto: https", "X-Forwarded-Ssl: on", "SCRIPT_NAME: /livez"]
)
def test_header_that_no_trusted_proxy_has_sent_changes_nothing(
    api: Process, version: str, line: str
):
    assert not is_secure(api, version, line)


def test_unix_socket_is_served_as_a_port_is(trusting: Process, folder: Path):
    connection, token = HTTPConnection("localhost"), token_for("alice")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(folder / "api.sock"))
    for _ in range(2):  # on one connection
        assert request_on(connection, "GET", tasks_of("alice"), token=token).status_code == 200
    connection.close()
