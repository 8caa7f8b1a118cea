"""What a request leaves behind for logs, metrics and traces, noted wherever it becomes known."""

import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any, NamedTuple

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
METHODS = WRITES | {"GET", "HEAD", "OPTIONS"}  # told apart in reports
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header: a version, a trace, its caller, flags.
TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)


class Run(NamedTuple):
    """One run of a named statement, or a `commit` or `rollback`; in seconds of `perf_counter`."""

    statement: str
    started: float
    seconds: float
    error: str | None = None  # the name of psycopg's exception, if it failed
    sqlstate: str | None = None


class Trail:
    """One request, from when the application receives it until its response is complete."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.started = perf_counter()
        self.seconds_to_response = 0.0  # until the response began
        self.seconds = 0.0  # until it was complete: later, if it is streamed
        self.environ = environ
        given = environ.get("HTTP_X_REQUEST_ID")
        self.request_id = given if given and SANE_ID.fullmatch(given) else os.urandom(16).hex()
        parent = environ.get("HTTP_TRACEPARENT")
        self.trace_id = trace_of(parent) if parent else None
        self.route: str | None = None  # in OpenAPI's form, with parameters in braces
        self.user: str | None = None
        self.status = 0
        self.size: int | None = None  # bytes of the response's body, once known
        self.runs: list[Run] = []
        self.backend_pid: int | None = None  # pid of PostgreSQL's process, as in its own log
        self.refused: str | None = None  # why a token is refused: a key of auth.MESSAGE_OF_REFUSAL
        self.is_first_over_limit = False  # the caller's first 429 in a window
        self.error: Exception | None = None  # why the status is not a success

    @property
    def database_seconds(self) -> float:
        return sum([run.seconds for run in self.runs])


Report = Callable[[Trail], None]  # called once the request's response is complete

CURRENT: ContextVar[Trail | None] = ContextVar("trail", default=None)


def trace_of(parent: str) -> str | None:
    """Read the trace's id from a `traceparent`; None where it must be ignored."""
    found = TRACEPARENT.fullmatch(parent)
    if not found or (parent.startswith("00") and found[2]):
        return None
    return found[1]


def note_error(error: Exception) -> None:
    """Note why the current request fails, for its one log line."""
    if trail := CURRENT.get():
        trail.error = error
