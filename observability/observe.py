"""Every response is seen once, in front of Flask: its id, line in the log, metrics and trace."""

import logging
import re
from collections.abc import Iterable, Iterator
from errno import EPIPE
from functools import cache
from time import perf_counter, time
from typing import Any

import psycopg
from flask import Flask

from config import ConfigError, Settings
from observability.audit import Auditor
from observability.logs import ENCODE, line_writer, rfc3339
from trail import CURRENT, Report, Trail

log = logging.getLogger("tasks.request")

PROBES = {"/health", "/livez", "/readyz"}


def observe(app: Flask, settings: Settings) -> None:
    """Give each request its trail, and report it once the response is known.

    Reports that are off are neither imported nor called.
    """
    answer = app.wsgi_app
    app.extensions["auditor"] = auditor = Auditor(settings)
    app.extensions["reports"] = reports = [*reports_of(settings), auditor.report]
    timing = settings.server_timing

    def answer_observed(environ: dict[str, Any], start_response: Any) -> Any:
        trail = Trail(environ)
        CURRENT.set(trail)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            trail.seconds_to_response = trail.seconds = perf_counter() - trail.started
            trail.status = int(status[:3])
            request = environ.get("werkzeug.request")  # none where Flask was not reached
            if rule := getattr(request, "url_rule", None):
                trail.route = route_of(rule.rule)
            for name, value in headers:
                if name == "Content-Length" and environ["REQUEST_METHOD"] != "HEAD":
                    trail.size = int(value)
            headers.append(("X-Request-Id", trail.request_id))
            if timing:
                headers.append(("Server-Timing", server_timing(trail)))
            return start_response(status, headers, exc_info)

        body = answer(environ, start)
        if trail.size is None:  # a stream, or nothing: to HEAD, or a 204 or 304
            return streamed(body, trail, reports)
        finish(trail, reports)
        return body

    app.wsgi_app = answer_observed  # type: ignore[method-assign]


def reports_of(settings: Settings) -> list[Report]:
    reports: list[Report] = []
    if settings.otel_exporter_otlp_endpoint:
        try:
            from observability import traces

            reports.append(traces.tracer(settings))  # first: the log's line names the trace
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"A variable of OpenTelemetry (OTEL_*) is wrong: {error}") from None
    if settings.metrics_port:
        from observability import metrics

        reports.append(metrics.count_request)
    return [*reports, request_log()]


def finish(trail: Trail, reports: list[Report]) -> None:
    for report in reports:
        report(trail)
    CURRENT.set(None)


class BrokenOff(Exception):
    """A streamed response that its client, or a stop of the server, cut off."""


def streamed(body: Iterable[bytes], trail: Trail, reports: list[Report]) -> Iterator[bytes]:
    """Pass on a response of unknown length, and report it after its last part.

    Raises:
        BrokenPipeError: it broke off by our fault, which the request's log line tells in full.
            gunicorn then ends the connection, without a log line of its own.
    """
    trail.size = 0
    try:
        for part in body:
            trail.size += len(part)
            yield part
    except GeneratorExit:
        trail.error = BrokenOff("its connection ended before it did")
        raise
    except Exception as error:
        trail.error = error
        if not trail.size:  # nothing was sent: the server answers 500, and reports that
            reports = []
            raise
        raise BrokenPipeError(EPIPE, "The response broke off.") from error
    finally:
        trail.seconds = perf_counter() - trail.started
        if close := getattr(body, "close", None):
            close()
        if reports:
            finish(trail, reports)


@cache
def route_of(rule: str) -> str:
    """Write a rule as OpenAPI does: /api/{user_id}/tasks."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def server_timing(trail: Trail) -> str:
    """https://www.w3.org/TR/server-timing/; durations in milliseconds."""
    total, database = 1000 * trail.seconds, 1000 * trail.database_seconds
    return f"db;dur={database:.2f}, total;dur={total:.2f}"


def is_our_fault(trail: Trail) -> bool:
    """True for a success that failed midway, and for every 5xx that is not of a client's making."""
    if trail.status < 400:
        return trail.error is not None and not isinstance(trail.error, BrokenOff)
    return trail.status in {500, 503}


def level_of(trail: Trail) -> int:
    if is_our_fault(trail):
        return logging.WARNING if trail.status == 503 else logging.ERROR
    return logging.DEBUG if trail.route in PROBES else logging.INFO


def request_log() -> Report:
    """Make the function that writes the one line about a request."""
    write = line_writer()

    def log_request(trail: Trail) -> None:
        level = level_of(trail)
        if not log.isEnabledFor(level):
            return
        is_ordinary = trail.status < 400 and trail.route and not trail.error
        if write and level == logging.INFO and is_ordinary:
            write(line_of_success(trail))
            return
        fields = fields_of(trail)
        exc_info: Any = None
        if (error := trail.error) and level == logging.ERROR:
            exc_info = (type(error), error, error.__traceback__)
        line = logging.LogRecord(log.name, level, "", 0, "request %s", (fields,), exc_info)
        line.fields = fields
        log.handle(line)

    return log_request


def line_of_success(trail: Trail) -> str:
    """Write what `fields_of` returns where nothing failed, at a third of an encoder's cost."""
    line = (
        f'{{"time": "{rfc3339(time())}", "level": "info", "event": "request"'
        f', "request_id": "{trail.request_id}", "method": "{trail.environ["REQUEST_METHOD"]}"'
        f', "route": "{trail.route}", "status": {trail.status}'
        f', "ms": {1000 * trail.seconds:.2f}, "bytes": {trail.size}'
    )
    if trail.trace_id:
        line += f', "trace_id": "{trail.trace_id}"'
    if trail.user:
        line += f', "user": {ENCODE(trail.user)}'
    if trail.runs:
        line += (
            f', "db_ms": {1000 * trail.database_seconds:.2f}, "queries": {len(trail.runs)}'
            f', "pg_pid": {trail.backend_pid}'
        )
    return line + "}"


def fields_of(trail: Trail) -> dict[str, Any]:
    """Collect what may be logged of a request: no path, no query, no header, no body."""
    fields: dict[str, Any] = {
        "event": "request",
        "request_id": trail.request_id,
        "method": trail.environ["REQUEST_METHOD"],
        "route": trail.route,
        "status": trail.status,
        "ms": round(1000 * trail.seconds, 2),
        "bytes": trail.size,
    }
    if trail.trace_id:
        fields["trace_id"] = trail.trace_id
    if trail.user:
        fields["user"] = trail.user
    if trail.runs:
        fields["db_ms"] = round(1000 * trail.database_seconds, 2)
        fields["queries"] = len(trail.runs)
        fields["pg_pid"] = trail.backend_pid
    if trail.refused:
        fields["refused"] = trail.refused
    if trail.error:
        fields |= cause_of(trail.error, is_our_fault(trail))
    return fields


def cause_of(error: Exception, is_ours: bool) -> dict[str, str]:
    """Say why; where PostgreSQL refuses a client's values, without its text, which quotes them."""
    cause: dict[str, str] = {}
    if is_ours and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, psycopg.Error) and error.sqlstate:
        cause["sqlstate"] = error.sqlstate
        if error.diag.constraint_name:
            cause["constraint"] = error.diag.constraint_name
    if is_ours or "sqlstate" not in cause:
        cause["cause"] = f"{type(error).__name__}: {error}"
    return cause
