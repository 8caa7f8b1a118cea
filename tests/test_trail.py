"""What a request leaves in its response: its id and its times; and the trace that it brings."""

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from support import CALLER, PARENT, TRACE, NewApp, User, assert_error

from errors import error_body
from trail import trace_of

# The id


@pytest.mark.parametrize("given", ["a", "x" * 128, "0af7-65_1.9"])
def test_sane_request_id_is_taken_and_sent_back(client: FlaskClient, given: str):
    response = client.get("/nope", headers={"X-Request-Id": given})
    assert response.headers["X-Request-Id"] == given
    assert response.json["details"] == {"request_id": given}


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a,b", "é", 'a"b', "a\tb", "a\n"])
def test_other_request_id_is_replaced(application: Flask, given: str):
    answered: list[Any] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/health", "HTTP_X_REQUEST_ID": given}
    environ |= {"SERVER_NAME": "x", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    application.wsgi_app(environ, lambda _, headers, __: answered.extend(headers))
    assert re.fullmatch("[0-9a-f]{32}", dict(answered)["X-Request-Id"])


def test_every_request_without_an_id_gets_one_of_its_own(client: FlaskClient):
    ids = {client.get("/health").headers["X-Request-Id"] for _ in range(100)}
    assert len(ids) == 100


def test_fault_of_a_field_stands_beside_the_id_and_never_in_its_place(alice: User):
    for name, expected in [("zz", {"zz": ["Unknown field."]}), ("request_id", {})]:
        response = alice.call("POST", json={"title": "x", name: 1})
        message = f"{name}: Unknown field."
        assert assert_error(response, 422, "validation_error", message) == expected


def test_id_of_a_request_that_is_over_stands_nowhere(client: FlaskClient):
    client.get("/nope")
    assert b"details" not in error_body(404)


# Traces, while they are off


@pytest.mark.parametrize(
    ("parent", "found"),
    [
        (PARENT, TRACE),
        (f"cc{PARENT[2:]}-later", TRACE),
        (f"{PARENT}-later", None),
        (f"ff{PARENT[2:]}", None),
        (PARENT.upper(), None),
        (PARENT.replace(TRACE, "0" * 32), None),
        (PARENT.replace(CALLER, "0" * 16), None),
        (f"{PARENT}\n", None),
        ("", None),
    ],
)
def test_trace_is_taken_from_a_valid_traceparent_alone(parent: str, found: str | None):
    assert trace_of(parent) == found


def test_server_timing_is_told_where_it_is_on(new_app: NewApp):
    response = User(new_app(server_timing=True).test_client(), "alice").call("GET")
    parts = re.fullmatch(r"db;dur=([\d.]+), total;dur=([\d.]+)", response.headers["Server-Timing"])
    assert parts
    assert 0 < float(parts[1]) < float(parts[2])


def test_server_timing_is_off_unless_asked_for(client: FlaskClient):
    assert "Server-Timing" not in client.get("/health").headers
