"""Overload: excess requests queue before any work is done for them, or get 503."""

import logging
import socket
from collections import deque
from contextlib import suppress
from itertools import cycle
from queue import SimpleQueue
from time import monotonic, sleep
from typing import Any

from flask import Flask

from capacity.turns import loop_clock
from errors import RETRY_AFTER, error_body
from trail import note_error

log = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds in the queue after which a request may be refused
PAUSE = 0.002  # seconds between two checks for room
BEGUN_PER_ITERATION = 48  # requests; an iteration of the loop in which all begin may take a second
LOG_PAUSE = 1.0  # seconds between two lines in the log
# Of requests whose turn comes too late, one in four is refused. A refusal costs a third of what
# serving does, and its client is back at once: refusing them all would leave no time to serve.
REFUSALS = (True, False, False, False)

TCP_ESTABLISHED = 1  # netinet/tcp.h; the first byte of Linux' TCP_INFO


class Overloaded(Exception):
    """Why a request is not let in; for the log."""


def has_gone(environ: dict[str, Any]) -> bool:
    """Tell whether a client has closed its end; False where the server or system cannot say."""
    with suppress(KeyError, AttributeError, OSError):
        info = environ["gunicorn.socket"].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return bool(info[0] != TCP_ESTABLISHED)
    return False


def queue_requests(app: Flask) -> None:
    """Let requests below /api/ in one by one, as long as few wait for a connection to PostgreSQL.

    Only the first in the queue looks for room, then the next: a waiting request costs nothing, and
    no iteration of the loop is long, not even of requests that will be refused. Let in all at once,
    they would delay those that are being answered, and be refused together a second later.
    """
    answer = app.wsgi_app
    queue: deque[SimpleQueue[None]] = deque()
    refusals = cycle(REFUSALS)
    current_iteration = loop_clock()
    iteration, begun = 0.0, 0

    def try_to_begin() -> bool:
        """Count a request that would begin; return whether it may, in this iteration."""
        nonlocal iteration, begun
        if iteration != (iteration := current_iteration()):
            begun = 0
        begun += 1
        return begun <= BEGUN_PER_ITERATION

    def wait_for_room(environ: dict[str, Any]) -> str | None:
        """Wait in the queue; return why the request is not let in, or None."""
        is_crowded = app.extensions["database"].is_crowded
        if not queue and not is_crowded() and try_to_begin():
            return None
        deadline = monotonic() + PATIENCE
        my_turn: SimpleQueue[None] = SimpleQueue()  # lighter than an Event
        queue.append(my_turn)
        try:
            if queue[0] is not my_turn:
                my_turn.get()
            while is_crowded() or not try_to_begin():
                sleep(PAUSE)
                if monotonic() > deadline and is_crowded():
                    return "there was no room"
            if has_gone(environ):  # a response would only delay those who wait
                return "its client left the queue"
            return "its turn came too late" if monotonic() >= deadline and next(refusals) else None
        finally:
            queue.remove(my_turn)
            with suppress(IndexError):  # none is left, even if several threads leave at once
                queue[0].put(None)

    logged_at = monotonic() - LOG_PAUSE
    refused = 0

    def log_refusal() -> None:
        nonlocal logged_at, refused
        refused += 1
        if monotonic() > logged_at + LOG_PAUSE:
            log.warning("overloaded: %d refused, %d queued", refused, len(queue))
            logged_at, refused = monotonic(), 0

    def answer_in_turn(environ: dict[str, Any], start_response: Any) -> Any:
        if not environ["PATH_INFO"].startswith("/api/") or not (why := wait_for_room(environ)):
            return answer(environ, start_response)
        note_error(Overloaded(why))
        log_refusal()
        body = error_body(503)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("503 Service Unavailable", [*headers, ("Retry-After", RETRY_AFTER)])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    app.wsgi_app = answer_in_turn  # type: ignore[method-assign]
