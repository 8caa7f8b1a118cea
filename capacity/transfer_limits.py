"""How many files and large responses a user, and a process, may have under way at once."""

from contextlib import ExitStack
from functools import partial
from threading import BoundedSemaphore
from typing import Any

from flask import Flask, Response, current_app

from errors import ApiError
from shares import Shares

PATIENCE = 1.0  # seconds to wait for a place
IMPORTS_AT_ONCE = 4  # per process: each holds its file and everything parsed from it
LARGE = 1024 * 1024  # bytes; a larger response is kept until its client has read all of it
LARGE_AT_ONCE = 4  # such responses and exports, per user and process
HELD_KEY = "tasks.held"  # environ key: what an import holds until its end


class NoPlace(Exception):
    """Why a file or a large response is refused; for the log."""


def bound_transfers(app: Flask) -> None:
    """Limit how many requests at once send a file, import it, or receive a large response.

    An import's environ has a stack: what is pushed on it is released at the end of the request.
    """
    answer = app.wsgi_app
    app.extensions["senders"] = Shares(1)
    app.extensions["receivers"] = Shares(LARGE_AT_ONCE)
    app.extensions["import_slots"] = BoundedSemaphore(IMPORTS_AT_ONCE)

    def answer_bounded(environ: dict[str, Any], start_response: Any) -> Any:
        path: str = environ["PATH_INFO"]
        if not path.endswith("/tasks/import") or environ["REQUEST_METHOD"] != "POST":
            return answer(environ, start_response)
        with ExitStack() as held:
            environ[HELD_KEY] = held
            return answer(environ, start_response)

    app.wsgi_app = answer_bounded  # type: ignore[method-assign]


def await_sender(held: ExitStack, user_id: str) -> None:
    """Wait for the user's other file to end; raises as `await_import`."""
    senders: Shares = current_app.extensions["senders"]
    if not (mine := senders.acquire(user_id, PATIENCE)):
        raise ApiError(503) from NoPlace("its user sends another file")
    held.callback(senders.release, mine)


def await_receiver(response: Response, user_id: str, patience: float) -> None:
    """Limit how many large responses a user receives at once; raises as `await_import`."""
    receivers: Shares = current_app.extensions["receivers"]
    if not (mine := receivers.acquire(user_id, patience)):
        raise ApiError(503) from NoPlace(f"its user receives {LARGE_AT_ONCE} large responses")
    response.call_on_close(partial(receivers.release, mine))


def await_import(held: ExitStack) -> None:
    """Wait for a slot to import, held until the end of the request.

    Raises:
        ApiError: 503 where there is none in time.
    """
    slots: BoundedSemaphore = current_app.extensions["import_slots"]
    if not slots.acquire(timeout=PATIENCE):
        raise ApiError(503) from NoPlace(f"{IMPORTS_AT_ONCE} other imports are being read")
    held.callback(slots.release)
