"""One line per request, into which a client cannot write."""

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from issuer import gate_for
from support import PARENT, TRACE, Lines, User, assert_error, listening

from config import PROJECT
from database import Database
from observability.logs import rfc3339
from observability.observe import BrokenOff, fields_of, level_of, line_of_success, request_log
from trail import CURRENT, Run, Trail

SECRETS = ["Buy milk", "private", "Bearer", "eyJ"]


@pytest.fixture
def text() -> Iterator[io.StringIO]:
    with listening("text") as stream:
        yield stream


def test_request_is_one_line_with_what_an_operator_asks_for(alice: User, lines: Lines):
    response = alice.call("POST", query_string="private=1", json={"title": "Buy milk"})
    assert_error(response, 422, "validation_error")
    task = alice.create()
    alice.call("GET", task["id"], headers={"traceparent": PARENT})
    refused, created, got = lines()
    assert (refused["status"], refused["level"]) == (422, "info")
    assert created["route"] == "/api/{user_id}/tasks"
    assert " ".join(got) == (
        "time level event request_id method route status ms bytes trace_id user db_ms queries"
        " pg_pid"
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", got["time"])
    assert (got["event"], got["method"], got["status"]) == ("request", "GET", 200)
    assert (got["route"], got["user"]) == ("/api/{user_id}/tasks/{task_id}", "alice")
    assert got["bytes"] == len(alice.call("GET", task["id"]).data)
    assert got["ms"] >= got["db_ms"] > 0
    assert (got["trace_id"], got["queries"]) == (TRACE, 1)
    assert not [each for each in SECRETS if each in json.dumps([refused, created, got])]


def test_line_of_a_success_tells_what_every_line_tells():
    plain = Trail({"REQUEST_METHOD": "GET"})
    full = Trail({"REQUEST_METHOD": "GET", "HTTP_TRACEPARENT": PARENT})
    for name, value in vars(full).items():
        if not value and name not in {"refused", "error"}:
            setattr(full, name, 7)
    full.user = 'the "user"\n'
    full.runs = [Run("select_task", 0.0, 0.00125)]
    for one in (plain, full):
        one.route, one.status, one.seconds, one.size = "/livez", 200, 0.5, 0
        line = json.loads(line_of_success(one))
        assert line.keys() - fields_of(one).keys() == {"time", "level"}
        assert line | fields_of(one) == line


def test_end_of_a_transaction_counts_towards_the_databases_time(db: Database):
    """It may take longest: a COMMIT waits for the disk."""
    CURRENT.set(trail := Trail({"REQUEST_METHOD": "POST"}))
    with db.transaction() as connection:
        connection.fetch("select_version", user_id="alice")
    with pytest.raises(psycopg.DataError), db.transaction() as connection:
        connection.fetch("toggle_task", user_id="alice", task_id=1, versions="not a number")
    failed = pytest.raises(psycopg.errors.InFailedSqlTransaction)
    with failed, db.transaction() as connection, suppress(psycopg.DataError):
        connection.fetch("select_task", user_id="alice", task_id="x")
    CURRENT.set(None)
    runs = [(run.statement, run.error) for run in trail.runs]
    assert runs == [
        ("select_version", None),
        ("commit", None),
        ("toggle_task", "InvalidTextRepresentation"),
        ("rollback", None),
        ("select_task", "InvalidTextRepresentation"),
        ("commit", "InFailedSqlTransaction"),
    ]
    assert all(run.seconds > 0 for run in trail.runs)


def test_every_field_of_a_line_stands_in_operations():
    text = (PROJECT / "docs/operations.md").read_text().partition("\n**Metrics**")[0]
    source = (PROJECT / "observability/observe.py").read_text()
    fields = re.findall(r'(?:fields|cause)\["(\w+)"\]|^ {8}"(\w+)": ', source, re.MULTILINE)
    names = {name for pair in fields for name in pair if name}
    assert names > {"event", "status", "sqlstate"}
    assert [name for name in names if not re.search(rf'[`"]{name}[`"]', text)] == []


def test_time_of_a_line_is_that_of_utc_to_the_millisecond(monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        told = rfc3339(5.0625)
    time.tzset()
    assert told == "1970-01-01T00:00:05.062Z"


def test_response_to_head_is_logged_with_0_bytes(alice: User, lines: Lines):
    assert alice.call("HEAD").headers["Content-Length"] == "2"
    assert lines()[0]["bytes"] == 0


def test_probe_that_succeeds_is_no_line_at_info(app: Flask, lines: Lines):
    for path in ["/health", "/livez", "/readyz"]:
        assert app.test_client().get(path).status_code == 200
    assert lines() == []


@pytest.mark.parametrize(
    ("status", "level"),
    [(200, "INFO"), (404, "INFO"), (500, "ERROR"), (501, "INFO"), (503, "WARNING")],
)
def test_level_of_a_line_tells_whether_the_fault_is_ours(status: int, level: str):
    """A 501 is of a client's making."""
    trail = Trail({})
    trail.status = status
    assert logging.getLevelName(level_of(trail)) == level


def test_path_that_does_not_exist_is_logged_without_it(client: FlaskClient, lines: Lines):
    client.get("/private/alice")
    [line] = lines()
    assert (line["status"], line["route"]) == (404, None)
    assert "private" not in json.dumps(line)


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_text_makes_a_second_line(form: str):
    with listening(form) as stream:
        for hostile in ["a\nb", "a\rb", "a\u2028b", "a\x1b[2Jb", "a\x85b"]:
            logging.getLogger("x").warning("said %s", hostile)
        logging.getLogger("tasks.request").handle(request_line({"user": "a\n\x1b"}))
        written = stream.getvalue()
        assert len(written.splitlines()) == len(written.split("\n")) - 1 == 6
        assert "\x1b" not in written


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("code", [0x61C, 0x200E, 0x200F, 0x202A, 0x202E, 0x2066, 0x2069])
def test_no_text_is_shown_in_another_place(form: str, code: int):
    with listening(form) as stream:
        logging.getLogger("tasks.request").handle(request_line({"user": f"a{chr(code)}b"}))
        assert f"a\\u{code:04x}b" in stream.getvalue()


def request_line(fields: dict[str, Any]) -> logging.LogRecord:
    record = logging.LogRecord("x", logging.INFO, "", 0, "", None, None)
    record.fields = fields | {"event": "request"}
    return record


def test_traceback_in_text_is_indented(text: io.StringIO):
    error = RuntimeError("a\n2026-11-20 all is well")
    logging.getLogger("x").error("it broke", exc_info=error)
    first, *others = text.getvalue().splitlines()
    assert "it broke" in first
    assert others
    assert all(line.startswith("    ") for line in others)


# Responses of every kind


@pytest.fixture
def streams() -> FlaskClient:
    """An application that streams, to anybody."""
    app = gate_for()
    app.before_request_funcs.clear()
    app.add_url_rule("/whole", "whole", lambda: Response(part for part in ["a" * 10, "b" * 10]))
    app.add_url_rule("/broken", "broken", lambda: Response(str(1 // (1 - n)) for n in range(2)))
    return app.test_client()


def test_streamed_response_is_logged_when_it_is_over(streams: FlaskClient, lines: Lines):
    response = streams.get("/whole", buffered=False)
    assert lines() == []
    time.sleep(0.05)
    assert len(response.data) == 20
    [line] = lines()
    assert (line["bytes"], line["route"], line["level"]) == (20, "/whole", "info")
    assert line["ms"] >= 50


def test_streamed_response_that_breaks_off_is_one_error_with_its_cause_and_traceback(
    streams: FlaskClient, lines: Lines
):
    with pytest.raises(BrokenPipeError):
        streams.get("/broken", buffered=False).get_data()
    [line] = lines()
    assert (line["bytes"], line["level"], line["status"]) == (1, "error", 200)
    assert line["cause"].startswith("ZeroDivisionError")
    assert line["exception"].startswith("Traceback")


def test_streamed_response_that_its_client_leaves_is_no_error_and_says_so(
    streams: FlaskClient, lines: Lines
):
    response = streams.get("/whole", buffered=False)
    next(iter(response.response))
    response.close()
    [line] = lines()
    assert (line["bytes"], line["level"], line["status"]) == (10, "info", 200)
    assert line["cause"] == "BrokenOff: its connection ended before it did"


@pytest.mark.parametrize(
    ("status", "fault", "is_short"),
    [
        (200, {}, True),
        (200, {"error": BrokenOff("it left")}, False),
        (200, {"route": None}, False),  # a preflight of a path that does not exist
        (401, {"refused": "expired"}, False),
    ],
)
def test_only_the_line_of_an_ordinary_success_is_written_the_short_way(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, status: int, fault: Any, is_short: bool
):
    written: list[str] = []
    monkeypatch.setattr("observability.observe.line_writer", lambda: written.append)
    trail = Trail({"REQUEST_METHOD": "GET"})
    trail.status, trail.route, trail.size = status, "/livezz", 0
    for name, value in fault.items():
        setattr(trail, name, value)
    request_log()(trail)
    assert (len(written), len(lines())) == ((1, 0) if is_short else (0, 1))


def test_line_of_a_library_names_the_request_during_which_it_was_written(lines: Lines):
    token = CURRENT.set(Trail({"HTTP_X_REQUEST_ID": "the-request"}))
    logging.getLogger("x").warning("said")
    CURRENT.reset(token)
    logging.getLogger("x").warning("said")
    assert [line.get("request_id") for line in lines()] == ["the-request", None]
