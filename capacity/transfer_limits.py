"""How many files, large bodies and large responses may be under way at once."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import BoundedSemaphore
from typing import Any

from flask import Flask, Response, current_app

from errors import ApiError
from shares import Shares

PLACE_TIMEOUT = 1.0  # seconds that a request waits for a place
IMPORTS_AT_ONCE = 4  # per process: each holds its file and everything parsed from it
IMPORT_RETRY_AFTER = "10"  # seconds; large ones take as long, and the next sends its file again
LARGE_RESPONSE = 1024 * 1024  # bytes; a larger one is kept until its client has read all of it
RESPONSES_AT_ONCE = 4  # such responses and exports, per user and process
LARGE_BODY = 64 * 1024  # bytes; a larger request body is kept until all of it has come
BODIES_AT_ONCE = 8  # such bodies, per user and process
HELD_KEY = "tasks.held"  # environ key: what an import holds until its end


class NoPlace(Exception):
    """Why a file, a large body or a large response is refused; for the log."""


def bound_transfers(app: Flask) -> None:
    """Limit how many requests at once send a file or a large body, import, or receive much.

    An import's environ has a stack: what is pushed on it is released at the end of the request.
    """
    answer = app.wsgi_app
    app.extensions["uploads"] = Shares(1)
    app.extensions["bodies"] = Shares(BODIES_AT_ONCE)
    app.extensions["downloads"] = Shares(RESPONSES_AT_ONCE)
    app.extensions["import_places"] = BoundedSemaphore(IMPORTS_AT_ONCE)

    def answer_bounded(environ: dict[str, Any], start_response: Any) -> Any:
        path: str = environ["PATH_INFO"]
        if not path.endswith("/tasks/import") or environ["REQUEST_METHOD"] != "POST":
            return answer(environ, start_response)
        with ExitStack() as held:
            environ[HELD_KEY] = held
            return answer(environ, start_response)

    app.wsgi_app = answer_bounded  # type: ignore[method-assign]


def acquire_upload(held: ExitStack, user_id: str) -> None:
    """Wait for the user's other file to end; raises as `acquire_import`."""
    uploads: Shares = current_app.extensions["uploads"]
    if not (mine := uploads.acquire(user_id, PLACE_TIMEOUT)):
        raise ApiError(503) from NoPlace("the user is sending another file")
    held.callback(uploads.release, mine)


@contextmanager
def body_place(user_id: str) -> Iterator[None]:
    """Limit how many large bodies of a user come in at once; raises as `acquire_import`."""
    bodies: Shares = current_app.extensions["bodies"]
    if not (mine := bodies.acquire(user_id, PLACE_TIMEOUT)):
        raise ApiError(503) from NoPlace(f"the user is sending {BODIES_AT_ONCE} large bodies")
    try:
        yield
    finally:
        bodies.release(mine)


def acquire_download(response: Response, user_id: str, timeout: float) -> None:
    """Limit how many large responses a user receives at once, waiting `timeout` seconds at most.

    The place is free again once the response is closed. Raises as `acquire_import`.
    """
    downloads: Shares = current_app.extensions["downloads"]
    if not (mine := downloads.acquire(user_id, timeout)):
        raise ApiError(503) from NoPlace(
            f"the user is receiving {RESPONSES_AT_ONCE} large responses"
        )
    response.call_on_close(partial(downloads.release, mine))


def acquire_import(held: ExitStack) -> None:
    """Wait for a place to import, held until the end of the request.

    Raises:
        ApiError: 503 where there is none in time.
    """
    places: BoundedSemaphore = current_app.extensions["import_places"]
    if not places.acquire(timeout=PLACE_TIMEOUT):
        why = NoPlace(f"{IMPORTS_AT_ONCE} other imports are being read")
        raise ApiError(503, headers={"Retry-After": IMPORT_RETRY_AFTER}) from why
    held.callback(places.release)
