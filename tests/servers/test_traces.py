"""Traces, as a collector gets them by OTLP/HTTP."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from collector import attributes, collecting
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from processes import GREENLETS, Process, as_url, free_port, gunicorn, request_on, wait_until
from psycopg import OperationalError
from support import CALLER, PARENT, TRACE, assert_error, settings_for

from capacity import turns
from config import VERSION, ConfigError
from observability import traces
from observability.observe import BrokenOff, reports_of
from observability.traces import Exporter, record_spans
from trail import Trail

SOON = {"OTEL_BSP_SCHEDULE_DELAY": 100}  # milliseconds
GET = {"REQUEST_METHOD": "GET"}
SMALL = {"OTEL_BSP_MAX_QUEUE_SIZE": 64, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": 64}  # spans


def traced(folder: Path, database_url: str, port: int, **environment: object) -> Any:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    return gunicorn(folder, as_url(database_url), **endpoint | SOON | environment)


def line_of(api: Process, request_id: str) -> str:
    [line] = [line for line in api.lines() if request_id in line]
    return line


def test_request_and_its_statements_are_spans_of_the_callers_trace(
    fresh: Path, database_url: str, postgresql: psycopg.Connection
):
    with collecting() as collector:
        port = collector.server.server_port
        with traced(fresh, database_url, port, measure=GREENLETS, WEB_CONCURRENCY=2) as api:
            task_id = api.create("zoe")
            headers = {"X-Request-Id": "first", "traceparent": PARENT, "tracestate": "a=b"}
            assert api.call("GET", task_id, user="zoe", headers=headers).status_code == 200
            span, [query] = collector.of_request("first")
            assert TRACE in line_of(api, "first")

            assert collector.services == {("tasks", VERSION)}
            assert span.name == "GET /api/{user_id}/tasks/{task_id}"
            assert (span.kind, query.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
            assert span.trace_state == "a=b"
            assert attributes(span) == {
                "http.request.method": "GET",
                "http.response.status_code": 200,
                "http.route": "/api/{user_id}/tasks/{task_id}",
                "tasks.request_id": "first",
            }
            assert (query.name, query.trace_id.hex()) == ("select_task", TRACE)
            assert attributes(query)["db.query.summary"] == "select_task"
            assert query.status.code == 0
            began, ended = query.start_time_unix_nano, query.end_time_unix_nano
            assert span.start_time_unix_nano < began < ended < span.end_time_unix_nano
            assert abs(time.time() - ended / 1e9) < 60

            headers = {"X-Request-Id": "second"}
            assert_error(api.call("GET", 99, user="zoe", headers=headers), 404, "not_found")
            span, _ = collector.of_request("second")
            assert span.trace_id.hex() in line_of(api, "second")
            assert span.status.code == 0  # a client's error is not the server's

            postgresql.execute("ALTER TABLE tasks RENAME COLUMN title TO name")
            postgresql.commit()
            headers = {"X-Request-Id": "third"}
            assert api.call("GET", user="zoe", headers=headers).status_code == 500
            span, [query] = collector.of_request("third")
            assert (span.status.code, query.status.code) == (2, 2)
            assert attributes(span)["error.type"] == "UndefinedColumn"
            assert attributes(query)["error.type"] == "UndefinedColumn"
            assert attributes(query)["db.response.status_code"] == "42703"

            unread = api.request("GET", "/", headers={"bad header": "x"})
            span, _ = collector.of_request(unread.headers["X-Request-Id"])
            assert (span.name, attributes(span)["http.request.method"]) == ("HTTP", "_OTHER")
            assert "zoe" not in str(collector.spans)


def test_spans_that_wait_at_a_stop_are_sent(fresh: Path, database_url: str):
    later = {"OTEL_BSP_SCHEDULE_DELAY": 60_000}  # milliseconds
    with collecting() as collector:
        with traced(fresh, database_url, collector.server.server_port, **later) as api:
            assert api.call("GET", headers={"X-Request-Id": "last"}).status_code == 200
            assert not collector.spans
            assert api.stop() == 0
        assert collector.of_request("last")


def test_collector_that_hangs_delays_no_stop(fresh: Path, database_url: str):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        traced(fresh, database_url, silent.getsockname()[1]) as api,
    ):
        connection = api.connect()
        for _ in range(1100):  # more than two batches of spans
            assert request_on(connection, "GET", "/livez").status_code == 200
        connection.close()
        stopped = time.monotonic()
        assert api.stop() == 0
        assert time.monotonic() - stopped < 5


def test_collector_that_is_away_costs_no_request_and_delays_no_stop(fresh: Path, database_url: str):
    port = free_port()
    given = SMALL | {"RATE_LIMIT": "off", "OTEL_SERVICE_NAME": "todo"}
    with traced(fresh, database_url, port, **given) as api:
        for _ in range(5):
            assert api.call("GET").status_code == 200
        wait_until(lambda: "takes no spans" in api.output(), seconds=20)
        [told] = [line for line in api.lines() if "takes no spans" in line]
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" in told
        assert "Connection refused" in told
        for _ in range(100):  # more spans than wait for a collector
            assert api.call("GET").status_code == 200
        with collecting(port) as collector:
            headers = {"X-Request-Id": "later"}
            assert api.call("GET", headers=headers).status_code == 200
            collector.of_request("later")
            assert collector.services == {("todo", VERSION)}
        assert api.call("GET").status_code == 200
        wait_until(lambda: "the collector is back" in api.output())
        stopped = time.monotonic()
        assert api.stop() == 0
        assert time.monotonic() - stopped < 8
        assert "Traceback" not in api.output()
        loggers = {json.loads(line).get("logger", "") for line in api.lines() if line[:1] == "{"}
        assert not [name for name in loggers if name.startswith("opentelemetry")]


def test_outage_of_the_collector_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(traces, "EXPORT_TIMEOUT", 0.1)
    exporter = Exporter(f"http://127.0.0.1:{free_port()}/v1/traces")
    for _ in range(2):
        exporter.export([])
    assert caplog.text.count("takes no spans") == 1


def test_response_that_failed_midway_is_an_error_and_one_that_its_client_left_is_none():
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    for error in (OperationalError("the connection was lost"), BrokenOff("it was cut off")):
        trail = Trail(GET)
        trail.status, trail.error = 200, error
        record_spans(provider.get_tracer("tasks"), trail)
    failed, left = spans.get_finished_spans()
    assert failed.attributes
    assert failed.attributes["error.type"] == "OperationalError"
    assert (failed.status.is_ok, left.status.is_ok) == (False, True)


def test_spans_are_encoded_in_turns(monkeypatch: pytest.MonkeyPatch):
    paused: list[None] = []
    monkeypatch.setattr(turns, "TURN", -1)  # over after each span
    monkeypatch.setattr(turns, "pause", lambda: paused.append(None))
    monkeypatch.setattr(traces, "pause", lambda: paused.append(None))
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    for _ in range(3):
        record_spans(provider.get_tracer("tasks"), Trail(GET))
    with collecting() as collector:
        exporter = Exporter(f"http://127.0.0.1:{collector.server.server_port}/v1/traces")
        exporter.export(spans.get_finished_spans())
    assert len(collector.spans) == 3
    assert len(paused) == 4


def test_disabled_sdk_names_no_trace(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    given, trail = Trail(GET | {"HTTP_TRACEPARENT": PARENT}), Trail(GET)
    for each in (given, trail):
        record_spans(TracerProvider().get_tracer("tasks"), each)
    assert (given.trace_id, trail.trace_id) == (TRACE, None)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", "max_queue_size"),  # a batch has 512 spans by default
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
        ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "none", "credential_provider"),
    ],
)
def test_wrong_variable_of_the_sdk_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
):
    monkeypatch.setenv(name, value)
    settings = settings_for("postgresql://", otel_exporter_otlp_endpoint="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=told):
        reports_of(settings)


def test_malformed_header_is_told_at_the_start_without_the_key_in_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer a-key")
    reports_of(settings_for("postgresql://", otel_exporter_otlp_endpoint="http://127.0.0.1:1"))
    assert "Header format invalid" in caplog.text
    assert "a-key" not in caplog.text
