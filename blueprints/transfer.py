"""All tasks of a user in one file, out and in: /api/{user_id}/tasks/export and /import."""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from operator import itemgetter
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from flask import Response, current_app, request
from marshmallow import ValidationError, fields

from blueprints import UserBlueprint, database, heeds, json_response, transaction
from blueprints.tasks import too_many_tasks
from capacity.transfer_limits import (
    HELD_KEY,
    PLACE_TIMEOUT,
    acquire_download,
    acquire_import,
    acquire_upload,
)
from capacity.turns import in_turns
from connection import Connection, Value
from database import Database, DatabaseBusy
from errors import ApiError, first_fault, validation_error
from events import emit
from field_types import ResponseSchema
from formats import Format, calendar_file, csv_file, json_file
from replicas import Reader
from request_bodies import read_body, read_part, refuse_by_headers, replace_body
from schemas import Task, TaskImport
from strict_json import StrictError

# The first is for clients that accept any.
FORMATS: dict[str, Format] = {
    "application/json": json_file,
    "text/csv": csv_file,
    "text/calendar": calendar_file,
}
*FIRST_FORMATS, LAST_FORMAT = FORMATS
LIST_OF_FORMATS = f"{', '.join(FIRST_FORMATS)} or {LAST_FORMAT}"
TASKS_PER_STATEMENT = 500  # takes far less than the time limit of one
PART = 64 * 1024  # bytes per read
KEPT_IN_MEMORY = 256 * 1024  # bytes of a file being received; a larger one is kept on disk
MAX_ACCEPT = 1000  # characters; reading 30,000 takes 70 ms
MAX_FAULTS = 20  # faulty entries that one response names; an entry with as many faults ends it

ENTRY = TaskImport()

IMPORTED = [{"title": "Buy milk", "priority": "high", "due_at": "2026-12-01"}]
EXPORTED = {name: field.metadata["examples"][-1] for name, field in Task().fields.items()}

# An import takes what an export wrote.
TEXTS = {
    name: {
        "schema": {"type": "string"},
        "example": b"".join(each.write([json.dumps(EXPORTED).encode()], "demo")).decode(),
    }
    for name, each in FORMATS.items()
    if each is not json_file
}
FILE = {
    "required": True,
    "content": {
        "application/json": {"schema": TaskImport(many=True), "example": IMPORTED},
        **TEXTS,
    },
}
DISPOSITION = {
    "Content-Disposition": {
        "description": "The name of the file.",
        "required": True,
        "schema": {"type": "string"},
        "example": 'attachment; filename="tasks.csv"',
    }
}

blueprint = UserBlueprint(
    "transfer",
    __name__,
    url_prefix="/api/<user_id:user_id>/tasks",
    description="All tasks of a user in one file.",
)


@blueprint.before_request
def take_file() -> None:
    """Receive the file, however slowly it comes; only then does it wait for a place to import."""
    request.max_content_length = limit = current_app.config["MAX_IMPORT_LENGTH"]
    held = request.environ.get(HELD_KEY)
    if held is None or (request.content_length or 0) > limit:
        return
    refuse_by_headers(request)
    acquire_upload(held, request.view_args["user_id"])  # type: ignore[index]
    file = SpooledTemporaryFile(KEPT_IN_MEMORY)  # noqa: SIM115 - `held` closes it
    held.callback(discard, file)
    try:
        while file.tell() <= limit and (part := read_part(request, PART)):
            file.write(part)
        file.seek(0)
    except OSError as error:  # the disk is full
        raise ApiError(503) from error
    replace_body(request, file)
    acquire_import(held)


def discard(file: IO[bytes]) -> None:
    with suppress(OSError):  # closing flushes again what the disk had no room for
        file.close()


class Imported(ResponseSchema):
    imported = fields.Integer(required=True, metadata={"examples": [2]})


@blueprint.get("/export")
@blueprint.response(200, Task(many=True), headers=DISPOSITION)
@blueprint.alt_response(406, response="not_acceptable")
@blueprint.doc(responses={200: {"content": TEXTS}})
def export_tasks(user_id: str) -> Response:
    """Export all tasks

    A file of all tasks but those in the trash, oldest first, as JSON, CSV or iCalendar: the header
    `Accept` decides. Every task that was there at the start and is not deleted meanwhile is in it
    once, as it was at one moment of the export; tasks that are created meanwhile may be in it too.
    If the response is cut off, the export has failed.
    """
    file_format = acceptable_format()
    pages = task_pages(database(), user_id)
    first = list(islice(pages, 1))  # a failure here can still be answered as an error
    parts = in_turns(file_format.write(chain(first, pages), user_id))
    response = Response(parts, content_type=file_format.CONTENT_TYPE)
    acquire_download(response, user_id, PLACE_TIMEOUT)
    response.headers["Content-Disposition"] = f'attachment; filename="{file_format.FILE_NAME}"'
    response.headers["Vary"] = "Accept"
    return response


@blueprint.post("/import")
@blueprint.response(201, Imported)
@blueprint.doc(requestBody=FILE)
@heeds("body")
def import_tasks(user_id: str) -> Response:
    """Import tasks

    Creates the tasks of a file, all or none, in its order. The file may have 64 MiB, unless the
    operator sets another limit. Fields that only the server writes are ignored: the tasks are new
    ones. If entries are wrong, the response names the first 20; entries are counted from 1, without
    the header of a CSV file.
    """
    file_format = sent_format()
    most: int = current_app.config["MAX_TASKS_PER_USER"]
    number, batches = load_entries(file_format, read_body(request), most)
    values: dict[str, Value] = {"user_id": user_id, "max_stored": most}
    with transaction() as connection:
        for batch in batches:
            if not connection.run("insert_imported_tasks", values | {"tasks": batch}).ntuples:
                raise too_many_tasks(most)
    emit("tasks_created", count=number)
    return json_response(json.dumps({"imported": number}).encode(), 201)


def task_pages(db: Database | Connection | Reader, user_id: str) -> Iterator[bytes]:
    """Yield the tasks page by page; no connection is held between pages.

    Runs while the response is sent, so without Flask's contexts.
    """
    values: dict[str, Value] = {"user_id": user_id, "after_id": 0}
    while True:
        try:
            [(page, last_id)] = db.fetch("select_exported_tasks", **values)
        except DatabaseBusy:
            if not values["after_id"]:
                raise
            # What was sent would be lost: this waits for a connection once more.
            [(page, last_id)] = db.fetch("select_exported_tasks", **values)
        if not page:
            return
        yield page
        values["after_id"] = int(last_id)


def acceptable_format() -> Format:
    """Choose by the header Accept (RFC 9110, section 12.5.1); the most specific range counts.

    Raises:
        ApiError: 406 where none is acceptable, or the header is too long.
    """
    if len(request.environ.get("HTTP_ACCEPT", "")) > MAX_ACCEPT:
        raise ApiError(406, f"The header Accept is longer than {MAX_ACCEPT} characters.")
    accepted = request.accept_mimetypes or [("*/*", 1)]  # without the header, anything is
    # From the least wanted to the most: of one type with several parameters, that one counts.
    by_quality = sorted(accepted, key=itemgetter(1))
    ranges = {given.partition(";")[0].lower(): q for given, q in by_quality}

    def quality(name: str) -> float:
        patterns = (name, f"{name.partition('/')[0]}/*", "*/*")
        return next((ranges[pattern] for pattern in patterns if pattern in ranges), 0)

    best = max(FORMATS, key=quality)
    if not quality(best):
        raise ApiError(406, f"Tasks are exported as {LIST_OF_FORMATS}.")
    return FORMATS[best]


def sent_format() -> Format:
    """Choose by the header Content-Type.

    Raises:
        ApiError: 415 where it names none, or an encoding other than UTF-8.
    """
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype not in FORMATS or charset not in {"utf-8", "utf8", "us-ascii"}:
        raise ApiError(415, f"Send tasks as {LIST_OF_FORMATS}, in UTF-8.")
    return FORMATS[request.mimetype]


def load_entries(file_format: Format, body: bytes, most: int) -> tuple[int, list[bytes]]:
    """Check every entry; return their number, and the tasks in JSON arrays for a statement each.

    Raises:
        ApiError: 400 for a malformed body, 422 for a wrong entry, 409 for more than `most`.
    """
    number = 0
    tasks: list[Any] = []
    batches: list[bytes] = []
    faults: dict[str, Any] = {}
    for number, entry in enumerate(in_turns(read_entries(file_format, body)), 1):
        if number > most:
            raise too_many_tasks(most)
        try:
            tasks.append(ENTRY.load(file_format.fields_of(entry)))
        except ValidationError as error:
            faults[str(number)] = error.messages_dict
            if max(len(faults), len(error.messages_dict)) >= MAX_FAULTS:
                break
        if len(tasks) == TASKS_PER_STATEMENT:
            batches.append(to_json(tasks))
            tasks = []
    if faults:
        entry, fault = next(iter(faults.items()))
        raise ApiError(422, f"entry {entry}: {first_fault(fault)}", {"tasks": faults})
    return number, [*batches, to_json(tasks)] if tasks else batches


def to_json(tasks: list[Any]) -> bytes:
    """Write UTF-8 without escapes: with them it could be three times as large, as a str four."""
    return json.dumps(tasks, ensure_ascii=False).encode()


def read_entries(file_format: Format, body: bytes) -> Iterator[Any]:
    number = 0
    try:
        for entry in file_format.read(body):
            number += 1
            yield entry
    except ValidationError as error:
        raise validation_error(error.messages_dict) from None
    except StrictError as error:
        place = f", after entry {number}" if number else ""
        raise ApiError(400, f"The request body cannot be taken: {error}{place}.") from None
    except UnicodeDecodeError:  # most often a table, as Excel saves it
        hint = ': in Excel, save the table as "CSV UTF-8"' if file_format is csv_file else ""
        raise ApiError(400, f"The request body is not in UTF-8{hint}.") from None
    except ValueError:
        place = f"after entry {number}" if number else "from its beginning"
        raise ApiError(400, f"The request body is not valid {file_format.NAME}, {place}.") from None
