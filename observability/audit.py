"""The audit's entries for what is not a write: refused tokens, limits hit, exports.

They are written in the background, on a connection of their own: a request that is refused never
takes one from the pool. Entries whose connection broke as they were written may be there twice.
Every write is entered by the database's triggers, in its own transaction.
"""

import json
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, Full, Queue
from threading import Lock, Thread

import psycopg

from config import Settings
from connection import CONNECTION_OPTIONS, UnpreparedConnection
from events import emit
from trail import Trail

log = logging.getLogger(__name__)

MAX_WAITING = 10_000  # entries while the database is away; any more are lost
MAX_AT_ONCE = 500
PAUSE = 1.0  # seconds between two attempts to reach the database
EXPORT = "/api/{user_id}/tasks/export"

Entry = dict[str, str]


def entry_of(trail: Trail) -> Entry | None:
    """Make a request's entry in the audit; None for most."""
    method = trail.environ["REQUEST_METHOD"]
    if trail.is_first_over_limit:
        action, detail = "limit", trail.route or ""
    elif trail.refused and trail.status == 401:  # not a 429 or 503
        action, detail = "refuse", trail.refused
    elif trail.route == EXPORT and trail.status == 200 and method == "GET":
        action, detail = "export", ""
    else:
        return None
    return {
        "at": datetime.now(UTC).isoformat(),
        "user_id": trail.user or "",
        "action": action,
        "detail": detail,
        "address": trail.environ.get("REMOTE_ADDR", ""),
        "request_id": trail.request_id,
    }


class Auditor:
    """Takes entries without blocking. Thread-safe; its own thread starts after the fork."""

    def __init__(self, settings: Settings) -> None:
        self.url = settings.database_url
        self._entries: Queue[Entry] = Queue(MAX_WAITING)
        self._lock = Lock()
        self._writer: Thread | None = None

    def report(self, trail: Trail) -> None:
        entry = entry_of(trail)
        if entry is None:
            return
        try:
            self._entries.put_nowait(entry)
        except Full:
            log.error("the audit lost an entry: %s", entry)  # noqa: TRY400 - no fault of code
            emit("audit_lost")
        # Where the system has no more threads, the next entry tries again.
        with self._lock, suppress(RuntimeError):
            if self._writer is None:
                writer = Thread(target=self._write, name="audit", daemon=True)
                writer.start()
                self._writer = writer

    def close(self, seconds: float) -> None:
        """Wait until the pending entries are written, for `seconds` at most."""
        deadline = time.monotonic() + seconds
        while self._entries.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)
        if lost := self._entries.unfinished_tasks:
            log.error("the audit lost %d entries at the stop", lost)
            emit("audit_lost", count=lost)

    def _write(self) -> None:
        while True:
            entries = [self._entries.get()]
            with suppress(Empty):
                while len(entries) < MAX_AT_ONCE:
                    entries.append(self._entries.get_nowait())
            tries = 0
            while not self._try_to_write(entries, tries):
                tries += 1
                time.sleep(PAUSE)
            for _ in entries:
                self._entries.task_done()

    def _try_to_write(self, entries: list[Entry], tries: int) -> bool:
        """Return whether they are written: not while the database is away."""
        try:
            with UnpreparedConnection.connect(self.url, **CONNECTION_OPTIONS) as connection:
                connection.fetch("insert_audit_entries", entries=json.dumps(entries))
        except psycopg.Error as error:
            if not tries:
                log.warning("the audit waits for the database: %s", error)
            return False
        return True
