"""The process's log: one line per event, JSON for programs or text for a person."""

import json
import logging
import logging.config
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

from config import Settings
from trail import CURRENT

log = logging.getLogger(__name__)

Line = dict[str, Any]
Render = Callable[[Any, str, Any], Any]  # structlog's processors; the last one returns the text

# What a terminal or a reader of lines would take for more than text: C0, C1, line separators, and
# what makes it show a line's parts in another order (https://www.unicode.org/reports/tr9/).
TURNING = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
CONTROLS = {
    code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *TURNING)
}
# gunicorn's messages about requests that have a line already; they quote what was sent.
REPORTED = ("Invalid request from ", "Error handling request ")


def set_up_logging(settings: Settings) -> None:
    """Make everything that logs, gunicorn and psycopg too, write lines of one form to stderr."""
    # Nobody reads these fields of a record, and they are a third of its cost.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": LineFormatter, "form": settings.log_format}},
            "handlers": {"stderr": {"()": LineHandler, "formatter": "line"}},
            "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
            "loggers": {
                "gunicorn.error": {"handlers": [], "propagate": True},
                # Each failed attempt gets a line from our own code.
                "psycopg.pool": {"level": "ERROR"},
                # Whatever a client sends in `tracestate` is not worth a warning.
                "opentelemetry.trace": {"level": "ERROR"},
            },
        }
    )
    logging.getLogger("gunicorn.error").addFilter(is_not_reported)
    if hub := sys.modules.get("gevent.hub"):
        hub.Hub.print_exception = log_uncaught  # gevent's own would block in a full pipe


def log_uncaught(_hub: Any, _context: Any, kind: Any, error: Any, trace: Any) -> None:
    """Log what no greenlet caught, or why the server can accept no client."""
    log.error("not caught: %r", error, exc_info=(kind, error, trace))


def is_not_reported(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(REPORTED)


class LineFormatter(ProcessorFormatter):
    """structlog's formatter, with a shortcut for the line of a request, whose fields are known."""

    def __init__(self, form: str) -> None:
        self.form = form
        renderers: list[Render] = (
            [escape_controls, console_renderer()] if form == "text" else [render_json]
        )
        self.renderers: list[Render] = [structlog.processors.format_exc_info, *renderers]
        super().__init__(processors=[arrange, *self.renderers])

    def format(self, record: logging.LogRecord) -> str:
        fields: Line | None = getattr(record, "fields", None)
        if fields is None:
            return super().format(record)
        rendered: Any = head_of(record) | fields
        if record.exc_info:
            rendered["exc_info"] = record.exc_info
        level = rendered["level"]
        for process in self.renderers:
            rendered = process(None, level, rendered)
        return str(rendered)


class LineHandler(logging.Handler):
    """Writes lines to stderr, or another stream. Lines that find no room are lost, and counted.

    Otherwise a pipe that nobody reads would block each process that writes a line, for good.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self.stream = stream or sys.stderr  # kept, so that its descriptor is not reused
        self.descriptor = self.stream.fileno()
        # What fits into a pipe that has room; a file has room for all, and never mixes writes.
        is_file = stat.S_ISREG(os.fstat(self.descriptor).st_mode)
        self._piece = sys.maxsize if is_file else select.PIPE_BUF
        self.lost = 0
        self._is_cut = False  # the last line that was begun has no end
        self._select = unpatched_select()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write(self.format(record))
        except Exception:  # noqa: BLE001 - as all handlers do
            self.handleError(record)

    def write(self, line: str) -> None:
        data = f"{line}\n".encode()
        if self._is_cut:
            data = b"\n" + data
        written = 0
        with suppress(OSError):  # a disk that is full, or a reader that has gone
            while written < len(data) and self._select([], [self.descriptor], [], 0)[1]:
                # No greenlet runs in between and mixes lines; in a pipe, very long ones mix anyway.
                written += os.write(self.descriptor, data[written : written + self._piece])
        if written < len(data):
            self.lost += 1
            self._is_cut = self._is_cut or written > 0
            return
        self._is_cut = False
        if lost := self.lost:
            self.lost = 0
            log.warning("the log had no room for %d lines", lost)
            if self.lost:  # nor for this one
                self.lost = lost


def unpatched_select() -> Any:
    """Find the original select; gevent's would let other greenlets run in between."""
    if "gevent.monkey" in sys.modules:
        from gevent.monkey import get_original  # type: ignore[import-untyped]

        return get_original("select", "select")
    return select.select


def line_writer() -> Callable[[str], None] | None:
    """Find the function that writes a line of JSON as it is, without a record.

    There is none for text, nor where `set_up_logging` was not called, as in tests.
    """
    for handler in logging.getLogger().handlers:
        form = getattr(handler.formatter, "form", None)
        if isinstance(handler, LineHandler) and form == "json":
            return handler.write
    return None


def rfc3339(moment: float) -> str:
    """Write a moment in UTC: 2026-11-20T19:29:04.563Z."""
    return f"{whole_second(int(moment))}.{int(moment % 1 * 1000):03d}Z"


@lru_cache(maxsize=1)
def whole_second(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


def head_of(record: logging.LogRecord) -> Line:
    return {"time": rfc3339(record.created), "level": record.levelname.lower()}


def arrange(_: object, __: str, event: Any) -> Line:
    """Arrange a line of any library: its message, and the request during which it was logged."""
    record = event["_record"]
    line = head_of(record) | {"event": event["event"], "logger": record.name}
    if trail := CURRENT.get():
        line["request_id"] = trail.request_id
    if exc_info := event.get("exc_info"):
        line["exc_info"] = exc_info
    return line


ENCODE = json.JSONEncoder().encode
CARETS = re.compile(r"\n *[~^]+(?=\n)")  # beneath the lines of a traceback


def render_json(_: object, __: str, event: Line) -> str:
    """Write JSON: whatever could end a line is escaped, so that no text makes a second one.

    A traceback's carets are a quarter of it. With them, many an error is longer than PIPE_BUF, and
    other processes write their lines into its own.
    """
    if exception := event.get("exception"):
        event = event | {"exception": CARETS.sub("", exception)}
    return ENCODE(event)


def escape_controls(_: object, __: str, event: Line) -> Line:
    """Escape what would control a terminal or begin a line; indent a traceback."""
    safe = {
        name: value.translate(CONTROLS) if isinstance(value, str) else value
        for name, value in event.items()
    }
    if "exception" in event:
        lines = event["exception"].splitlines()
        safe["exception"] = "\n".join(f"    {line.translate(CONTROLS)}" for line in lines)
    return safe


def console_renderer() -> Render:
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        timestamp_key="time",
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )
