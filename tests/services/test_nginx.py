"""ops/nginx.conf in a real nginx, in front of a real server."""

import json
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, nullcontext
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from signal import SIGHUP
from typing import Any
from urllib.parse import urlencode

import pytest
from nginx import Proxied, proxied
from own_postgres import OwnPostgres
from processes import request_on, wait_until
from support import JSON, PREFLIGHT, assert_error, bearer, token_for

from blueprints.lists import MAX_SEARCH_LENGTH
from capacity.transfer_limits import IMPORTS_AT_ONCE
from config import PROJECT
from schemas import MAX_TAG_LENGTH, MAX_TAGS, MAX_TITLE_LENGTH

CLIENTS, RELOADS = 40, 4
HOST = "Host: localhost\r\n"


@pytest.fixture(scope="module")
def proxy(pooled: OwnPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied(tmp_path_factory.mktemp("nginx"), pooled.url) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("status", "error", "request_line", "options"),
    [
        (401, "unauthorized", "GET /api/bob/tasks", {}),
        (404, "not_found", "GET //api/alice/tasks", {}),
        (413, "payload_too_large", "POST /api/alice/tasks", {"json": "x" * 2**21}),
        (413, "payload_too_large", "POST /api/alice/tasks/import", {"json": "x" * 2**26}),
        (414, "uri_too_long", f"GET /api/alice/tasks?q={'x' * 21_000}", {}),
        (431, "request_header_fields_too_large", "GET /docs", {"headers": {"X": "x" * 40_000}}),
    ],
)
def test_refusal_is_the_apis_own(
    proxy: Proxied, status: int, error: str, request_line: str, options: dict[str, Any]
):
    assert_error(proxy.call(*request_line.split(), **options), status, error)


def test_refusal_does_not_wait_for_the_body(proxy: Proxied):
    with closing(proxy.connect()) as connection:
        connection.request("POST", "/api/bob/tasks", headers={"Content-Length": "9"})
        assert connection.getresponse().status == 401


def assert_refused_by_nginx(response: HTTPResponse, status: int, error: str) -> None:
    """It is nginx's own: for every origin, and without a request's id."""
    assert (response.status, json.loads(response.read())["error"]) == (status, error)
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Server"] == "nginx"  # without its version
    assert response.headers["Retry-After"] == ("1" if status in {429, 503} else None)


def test_what_nginx_refuses_has_the_apis_shape(pooled: OwnPostgres, tmp_path: Path):
    def announce(length: int) -> HTTPSConnection:
        connection = held.enter_context(closing(proxy.connect()))
        headers = bearer(token_for("alice")) | {"Content-Length": str(length)}
        connection.request("POST", "/api/alice/tasks", headers=JSON | headers)
        return connection

    with proxied(tmp_path, pooled.url) as proxy, ExitStack() as held:
        assert_refused_by_nginx(announce(66 * 2**20).getresponse(), 413, "payload_too_large")
        waiting = [announce(100) for _ in range(100)]
        assert_refused_by_nginx(announce(100).getresponse(), 429, "rate_limited")
        for each in waiting:
            each.close()
        proxy.api.popen.terminate()
        proxy.api.popen.wait()
        wait_until(lambda: proxy.call("GET", "/livez").status_code == 503)
        assert_refused_by_nginx(announce(0).getresponse(), 503, "unavailable")


@pytest.mark.parametrize(
    ("request_line", "headers", "status", "error"),
    [
        ("TRACE / HTTP/1.1", HOST, 405, "method_not_allowed"),
        ("GET /refused HTTP/1.1", HOST, 404, "not_found"),
        ("GET /%zz HTTP/1.1", HOST, 400, "bad_request"),
        ("GET / HTTP/1.1", "", 400, "bad_request"),
        ("get / HTTP/1.1", HOST, 400, "bad_request"),
        ("GET / HTTP/2.0", HOST, 400, "bad_request"),
        (f"GET /{'x' * 70_000} HTTP/1.1", HOST, 414, "uri_too_long"),
        ("GET / HTTP/1.1", f"{HOST}X: {'x' * 70_000}\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1", f"{HOST}Transfer-Encoding: gzip\r\n", 501, "not_implemented"),
    ],
)
def test_what_nginx_cannot_read_has_the_apis_shape(
    proxy: Proxied, request_line: str, headers: str, status: int, error: str
):
    with closing(proxy.connect()) as connection:
        connection.connect()
        connection.sock.sendall(f"{request_line}\r\n{headers}\r\n".encode())
        response = HTTPResponse(connection.sock)
        response.begin()
        assert_refused_by_nginx(response, status, error)


def test_plain_http_where_tls_is_spoken_has_the_apis_shape(proxy: Proxied):
    with closing(HTTPConnection("localhost", proxy.port)) as connection:
        connection.request("GET", "/")
        assert_refused_by_nginx(connection.getresponse(), 400, "bad_request")


@pytest.mark.parametrize(
    ("cipher", "is_taken"),
    [("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES128-SHA", False)],
)
def test_tls_without_cbc(proxy: Proxied, cipher: str, is_taken: bool):
    context = ssl.create_default_context(cafile=proxy.certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    connection = HTTPSConnection("localhost", proxy.port, context=context)
    with closing(connection), nullcontext() if is_taken else pytest.raises(ssl.SSLError):
        connection.request("GET", "/livez")


def test_requests_come_as_they_were_sent(proxy: Proxied):
    created = proxy.call("POST", "/api/a%2Fb%20c/tasks", user="a/b c", json={"title": "x"})
    assert created.status_code == 201
    assert created.headers["Location"].startswith("/api/a%2Fb%20c/tasks/")
    assert created.headers["Strict-Transport-Security"]
    many = [{"title": "x" * 200, "description": "y" * 1000}] * 3000
    imported = proxy.call("POST", "/api/carol/tasks/import", user="carol", json=many)
    assert imported.status_code == 201
    exported = proxy.call("GET", "/api/carol/tasks/export", user="carol")
    assert len(exported.json) == 3000


def test_access_log_has_the_requests_id_and_not_what_was_asked_for(proxy: Proxied):
    asked = proxy.call("GET", "/api/erin/tasks?q=diagnosis", user="erin")
    wait_until(lambda: asked.headers["X-Request-Id"] in proxy.access_log.read_text())
    assert not re.search("erin|diagnosis", proxy.access_log.read_text())


def test_link_of_the_longest_search_leads_to_the_next_page(proxy: Proxied):
    tags = [f"{number:02}" + "\U0001f9fd" * (MAX_TAG_LENGTH - 2) for number in range(MAX_TAGS)]
    title = "\U0001f9fd" * MAX_TITLE_LENGTH
    for _ in range(2):
        proxy.call("POST", "/api/dora/tasks", user="dora", json={"title": title, "tags": tags})
    asked = {"q": title[:MAX_SEARCH_LENGTH], "tag": tags, "sort": "title", "limit": 1}
    first = proxy.call("GET", f"/api/dora/tasks?{urlencode(asked, doseq=True)}", user="dora")
    assert first.status_code == 200
    target = first.headers["Link"].partition(">")[0].removeprefix("<")
    second = proxy.call("GET", target, user="dora")
    assert second.status_code == 200
    assert [task["id"] for task in second.json] != [task["id"] for task in first.json]


def test_clients_without_a_token_are_told_apart_by_address_whatever_they_claim(
    pooled: OwnPostgres, tmp_path: Path
):
    with proxied(tmp_path, pooled.url, AUTH_FAILURE_LIMIT="3/hour") as proxy:
        forged = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(5)]
        responses = [
            proxy.call("GET", "/api/alice/tasks", token=None, headers=headers) for headers in forged
        ]
        assert [response.status_code for response in responses] == [401, 401, 401, 429, 429]


def test_reload_of_the_api_costs_no_request(proxy: Proxied):
    ends = time.monotonic() + 2 * RELOADS + 1

    def work(number: int) -> Counter[int]:
        connection, token = proxy.connect(), token_for(f"user-{number}")
        statuses: Counter[int] = Counter()
        while time.monotonic() < ends:
            sent = {"token": token, "json": {"title": "x"}}
            response = request_on(connection, "POST", f"/api/user-{number}/tasks", **sent)
            statuses[response.status_code] += 1
            time.sleep(number / CLIENTS / 5)
        connection.close()
        return statuses

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = [pool.submit(work, number) for number in range(CLIENTS)]
        for _ in range(RELOADS):
            time.sleep(2)
            proxy.api.popen.send_signal(SIGHUP)
        statuses = sum((each.result() for each in found), Counter())
    assert list(statuses) == [201]


def test_user_who_is_locked_out_gets_403_in_the_apis_shape_and_others_are_served(
    pooled: OwnPostgres, tmp_path: Path
):
    """The location of docs/operations.md."""
    text = (PROJECT / "docs/operations.md").read_text()
    [location] = re.findall(r"```nginx\n(location .*?)```", text, re.DOTALL)
    location = location.replace("/api/demo/", "/api/auth0|1 2/")
    with proxied(tmp_path, pooled.url, location) as proxy:
        for path in ["auth0%7C1%202/tasks", "%61uth0%7c1%202/trash", "x/../auth0%7C1%202/tasks/1"]:
            response = proxy.call("GET", f"/api/{path}", "auth0|1 2")
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert response.headers["Content-Type"] == "application/json"
            assert (response.status_code, response.json["error"]) == (403, "forbidden")
        # Without an answer to its preflight, a page could not read the 403.
        allowed = proxy.call("OPTIONS", f"/api/{path}", headers=PREFLIGHT)
        assert allowed.status_code == 204
        assert allowed.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        assert proxy.call("GET", "/api/auth0%7C1/tasks", "auth0|1").status_code == 200


def test_instance_whose_machine_is_gone_delays_requests_by_seconds_alone(
    pooled: OwnPostgres, tmp_path: Path
):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as gone, ExitStack() as held:
        for _ in range(3):  # once its queue is full, it is silent
            held.enter_context(client := socket.socket())
            client.setblocking(False)
            client.connect_ex(gone.getsockname())
        others = f"server 127.0.0.1:{gone.getsockname()[1]} max_fails=0; "
        with proxied(tmp_path, pooled.url, others=others) as proxy:
            for number in range(4):
                created = proxy.call("POST", "/api/alice/tasks", json={"title": f"{number}"})
                assert created.status_code == 201


def test_nginx_waits_for_all_imports_that_a_process_does_at_once():
    """Decision 13 has the CPU that one takes; with the pauses of several it is twice as long."""
    text = (PROJECT / "docs/decisions/0013-export-and-import.md").read_text()
    [costs] = re.findall(r"^\| import, s \|(.*)\|$", text, re.MULTILINE)
    [seconds] = re.findall(r"proxy_read_timeout (\d+)s", (PROJECT / "ops/nginx.conf").read_text())
    assert int(seconds) >= 2 * IMPORTS_AT_ONCE * max(map(int, costs.split("|")))
