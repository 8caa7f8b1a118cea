"""All tasks in one file, out and in: nothing is lost, nothing is run, nothing is half done."""

import csv
import json
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from io import BytesIO, StringIO
from itertools import count, product
from threading import Event, Semaphore
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from icalendar import Calendar
from support import JSON, User, assert_error, settings_for
from transfers import store
from werkzeug.test import TestResponse

import turns
from app import create_app
from overload import IMPORTS_AT_ONCE, LARGE_AT_ONCE
from schemas import TaskUpdate

FORMATS = ["application/json", "text/csv", "text/calendar"]
EACH_FORMAT = pytest.mark.parametrize("content_type", FORMATS)
WRITABLE = list(TaskUpdate().fields)
DEFAULTS = {"description": None, "priority": "none", "due_at": None, "tags": [], "completed": False}

# The database of a test serves all of its examples: each has a user of its own.
examples = settings(
    derandomize=True,
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def export(user: User, content_type: str) -> bytes:
    response = user.call("GET", "export", headers={"Accept": content_type})
    assert response.status_code == 200, response.text
    return response.data


def send(user: User, body: bytes | str, content_type: str) -> TestResponse:
    return user.call("POST", "import", data=body, headers={"Content-Type": content_type})


def bring(user: User, tasks: list[dict[str, Any]]) -> None:
    response = send(user, json.dumps(tasks), "application/json")
    assert (response.status_code, response.json) == (201, {"imported": len(tasks)}), response.text


def written(user: User) -> list[dict[str, Any]]:
    """List what a client may write of a user's tasks, oldest first."""
    return [{name: task[name] for name in WRITABLE} for task in reversed(user.all())]


# Out and in again

NUMBERS = count()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORMULA = set("=+-@\uff1d\uff0b\uff0d\uff20")

NASTY = st.sampled_from(
    "=+-@'\"`,;:|\\%&<>{}[]()# Nn\t\r\n\x01\x0b\x1b\x7f\x85\u2028\ufeff\uff1d\u202e\u0301\u200d😀"
)
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(NASTY | ANY, max_size=60)
LINE = st.text(NASTY | ANY, min_size=1, max_size=50).map(str.strip).filter(bool)
DUES = st.none() | st.dates(date(1970, 1, 1), date(2200, 12, 31)).map(str)
DUES |= st.integers(0, 7_000_000_000_000_000).map(
    lambda number: str((EPOCH + timedelta(microseconds=number)).isoformat())
)
FIELDS = {
    "title": LINE,
    "description": st.none() | TEXT,
    "priority": st.sampled_from(["none", "low", "medium", "high"]),
    "due_at": DUES,
    "tags": st.lists(LINE, max_size=5, unique=True),
    "completed": st.booleans(),
}
TASKS = st.fixed_dictionaries({name: FIELDS[name] for name in WRITABLE})
LONG = {"title": "😀" * 200, "description": "\r😀=\\N" * 1000, "tags": [";\r" * 24 + ";"]}
AWKWARD = [
    DEFAULTS | {"title": title, "description": title * 2, "tags": [title]}
    for title in ["'", "''", "'=", "=1", "@x", "-", "x;=1;", 'x\n"=1"', "a\r\nb", "\\N\\n%0A", "%"]
] + [DEFAULTS | {"title": title, "tags": [title, "x"]} for title in ["\ufeff", "\ufeff\ufeffabc"]]


def new_user(client: FlaskClient) -> User:
    return User(client, f"user {next(NUMBERS)}")


@pytest.mark.no_cover
@examples
@given(tasks=st.lists(TASKS, max_size=4))
@example(tasks=[*AWKWARD, DEFAULTS | LONG, DEFAULTS | {"title": "x", "description": ""}])
def test_what_is_exported_and_imported_again_is_the_same(alice: User, tasks: list[dict[str, Any]]):
    first = new_user(alice.client)
    bring(first, tasks)
    kept = written(first)
    assert [task | {"due_at": None} for task in kept] == [task | {"due_at": None} for task in tasks]
    assert all((task["completed_at"] is not None) == task["completed"] for task in first.all())
    for content_type in FORMATS:
        second = new_user(alice.client)
        response = send(second, export(first, content_type), content_type)
        assert (response.status_code, response.json) == (201, {"imported": len(tasks)})
        assert written(second) == kept, content_type


@pytest.mark.no_cover
@examples
@given(tasks=st.lists(TASKS, min_size=1, max_size=3))
@example(tasks=AWKWARD)
def test_no_cell_of_the_csv_is_a_formula_whatever_the_separator(
    alice: User, tasks: list[dict[str, Any]]
):
    user = new_user(alice.client)
    bring(user, tasks)
    text = export(user, "text/csv").decode("utf-8-sig")
    for separator in ",;\t":
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            for line in csv.reader(
                StringIO(text, newline=""), delimiter=separator, quoting=quoting
            ):
                for cell in line:
                    assert cell.lstrip(' \u00a0\ufeff"')[:1] not in FORMULA, (separator, cell)
    for row in csv.reader(StringIO(text, newline="")):
        assert not any(cell.startswith(("\t", "\r")) for cell in row)


# Export


def test_export_is_in_the_order_of_creation_over_many_pages(alice: User):
    titles = [f"task {number}" for number in range(450)]
    bring(alice, [{"title": title} for title in titles])
    rows = csv.DictReader(StringIO(export(alice, "text/csv").decode("utf-8-sig")))
    assert [row["title"] for row in rows] == titles
    assert [task["title"] for task in json.loads(export(alice, "application/json"))] == titles
    lines = export(alice, "text/calendar").decode().splitlines()
    assert [line for line in lines if "SUMMARY" in line] == [f"SUMMARY:{title}" for title in titles]


def test_export_in_json_is_what_the_list_shows(alice: User):
    bring(alice, [DEFAULTS | {"title": "x", "completed": True, "due_at": "2026-12-01"}, LONG])
    assert json.loads(export(alice, "application/json")) == alice.all()[::-1]


@EACH_FORMAT
def test_export_has_neither_the_trash_nor_what_is_others(alice: User, bob: User, content_type: str):
    alice.create("mine")
    alice.call("DELETE", alice.create("discarded")["id"])
    bob.create("theirs")
    file = export(alice, content_type)
    assert b"mine" in file
    assert not any(word in file for word in (b"discarded", b"theirs"))


@EACH_FORMAT
def test_export_of_no_task_is_a_file_that_can_be_imported(alice: User, content_type: str):
    response = send(alice, export(alice, content_type), content_type)
    assert (response.status_code, response.json) == (201, {"imported": 0})


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/html, text/csv;q=0.5, */*;q=0.1", "text/csv"),
        ("text/csv;q=0.5, text/calendar", "text/calendar"),
        ("application/json;q=0, */*", "text/csv"),
        ("text/csv;q=0, text/*;q=0.2, application/json;q=0.1", "text/calendar"),
        ("Text/Calendar; component=VTODO", "text/calendar"),
        ("text/csv; charset=utf-8", "text/csv"),
    ],
)
def test_format_is_chosen_by_accept(alice: User, accept: str | None, content_type: str):
    response = alice.call("GET", "export", headers={} if accept is None else {"Accept": accept})
    assert (response.status_code, response.mimetype) == (200, content_type)
    assert "Accept" in response.headers.getlist("Vary")
    assert response.headers["Content-Disposition"].startswith("attachment; filename=")


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "*/*;q=0", "image/*"])
def test_format_that_there_is_not_is_406(alice: User, accept: str):
    response = alice.call("GET", "export", headers={"Accept": accept})
    assert_error(response, 406, "not_acceptable")


def test_calendar_tells_what_calendars_show(alice: User):
    task = alice.create(
        "Buy; milk", description="x" * 100, due_at="2026-12-01", tags=["a,b", "c"], priority="high"
    )
    alice.call("PATCH", f"{task['id']}/complete")
    file = export(alice, "text/calendar")
    assert max(map(len, file.split(b"\r\n"))) <= 75
    [todo] = Calendar.from_ical(file).todos
    assert (todo["SUMMARY"], todo["PRIORITY"], todo["STATUS"]) == ("Buy; milk", 1, "COMPLETED")
    assert (todo["DUE"].dt, todo.categories) == (date(2026, 12, 1), ["a,b", "c"])
    assert todo["UID"].startswith(f"{task['id']}-")
    assert todo["DTSTAMP"].dt == todo["LAST-MODIFIED"].dt >= todo["CREATED"].dt
    assert "alice" not in todo["UID"]


def test_task_that_was_there_is_exported_once_whatever_is_written_meanwhile(alice: User):
    bring(alice, [{"title": f"{number}"} for number in range(1, 601)])
    ids = [task["id"] for task in reversed(alice.all())]
    response = alice.call("GET", "export", buffered=False)
    parts = iter(response.response)
    begun = next(parts) + next(parts)
    alice.call("DELETE", ids[0])
    alice.call("DELETE", ids[-2])
    alice.call("PATCH", ids[-1], json={"title": "changed"})
    last = alice.create("new")["id"]
    exported = {task["id"]: task for task in json.loads(begun + b"".join(parts))}
    assert list(exported) == [*ids[:-2], ids[-1], last]
    assert exported[ids[-1]]["title"] == "changed"


@pytest.fixture
def narrow(database_url: str) -> Iterator[User]:
    """A user of an application with one connection, 700 tasks and small bodies."""
    settings = {"database_pool_size": 1, "max_tasks_per_user": 700, "max_content_length": 100}
    app = create_app(settings_for(database_url, max_import_length=100_000, **settings))
    yield User(app.test_client(), "alice")
    app.extensions["database"].close()


def test_client_that_reads_slowly_keeps_no_connection(narrow: User):
    bring(narrow, [{"title": f"{number}"} for number in range(600)])
    parts = iter(narrow.call("GET", "export", buffered=False).response)
    begun = [next(parts), next(parts)]
    assert len(narrow.all()) == 600
    assert len(json.loads(b"".join([*begun, *parts]))) == 600


# Import


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/xml", "multipart/form-data", "text/csv; charset=iso-8859-1"],
)
def test_import_of_another_type_is_415(alice: User, content_type: str):
    assert_error(send(alice, "title\r\nx\r\n", content_type), 415, "unsupported_media_type")


def calendar(*lines: str) -> str:
    """Write a calendar of one VTODO."""
    todo = ["BEGIN:VCALENDAR", "VERSION:2.0", "BEGIN:VTODO", *lines, "END:VTODO", "END:VCALENDAR"]
    return "\r\n".join(todo)


SECOND_IS_WRONG = {
    "application/json": '[{"title": "x"}, {"title": "", "zz": 1}, {"title": "y"}]',
    "text/csv": 'title,completed\r\n"x",\r\n\r\n,maybe\r\ny,true\r\n',
    "text/calendar": calendar("SUMMARY:x", "END:VTODO", "BEGIN:VTODO", "PRIORITY:12"),
}


@EACH_FORMAT
def test_wrong_entry_is_422_by_its_number_and_nothing_is_imported(alice: User, content_type: str):
    response = send(alice, SECOND_IS_WRONG[content_type], content_type)
    details = assert_error(response, 422, "validation_error")
    assert details["tasks"].keys() == {"2"}
    assert response.json["message"].startswith("entry 2: ")
    assert alice.all() == []


def test_of_many_wrong_entries_twenty_are_named(alice: User):
    response = send(alice, json.dumps([{"title": ""}] * 1000), "application/json")
    named = assert_error(response, 422, "validation_error")["tasks"]
    assert list(named) == [str(number) for number in range(1, 21)]


def test_import_beyond_what_a_user_may_store_is_409_and_nothing_is_imported(narrow: User):
    bring(narrow, [{"title": "x"}] * 100)
    for more in (601, 650, 701):
        response = send(narrow, json.dumps([{"title": "y"}] * more), "application/json")
        assert_error(response, 409, "conflict")
        assert len(narrow.all()) == 100
    bring(narrow, [{"title": "y"}] * 600)
    assert len(narrow.all()) == 700


@pytest.mark.parametrize(("size", "status"), [(100_000, 201), (100_001, 413)])
def test_import_has_a_limit_of_its_own(narrow: User, size: int, status: int):
    assert send(narrow, b"[]".ljust(size), "application/json").status_code == status


def test_file_is_checked_before_the_transaction_of_its_key(app: Flask, alice: User):
    alice.all()
    pool = app.extensions["database"]._pool
    asked = pool.get_stats()["requests_num"]
    headers = JSON | {"Idempotency-Key": "one"}
    wrong = alice.call("POST", "import", data='[{"title": ""}]', headers=headers)
    assert_error(wrong, 422, "validation_error")
    assert pool.get_stats()["requests_num"] == asked
    for _ in range(2):
        response = alice.call("POST", "import", data='[{"title": "x"}]', headers=headers)
        assert (response.status_code, response.json) == (201, {"imported": 1})
    assert len(alice.all()) == 1


def test_what_only_the_server_writes_is_passed_over(alice: User, bob: User):
    [task] = [bob.create(tags=["home"])]
    bring(alice, [task | {"version": None, "id": "\0", "completed_at": 5}])
    [mine] = alice.all()
    assert mine["user_id"] == "alice"
    assert mine["id"] > task["id"]
    assert bob.all() == [task]


MALFORMED = [
    *(
        ("application/json", body)
        for body in ["", "[", "[1", "[{}", '[{"title":"x"}', "[,]", "[]]"]
    ),
    *(("application/json", body) for body in ['[{"title":"x"},]', "[NaN]", "{", "\ufeff[]"]),
    ("application/json", '[{"title":"x","title":"y"}]'),
    ("application/json", "[" * 200_000),
    ("application/json", f'[{{"title": [{"[]," * 200_000}[]]}}]'),
    ("text/csv", 'title\r\n"x'),
    ("text/csv", 'title\r\n"x"y\r\n'),
    ("text/csv", f'title\r\n"{"x" * 10_000_000}"\r\n'),
    ("text/csv", f"title\r\n{',' * 1_000_000}\r\n"),
    ("text/csv", f"title,{'x' * 1_000_000}\r\n"),
    ("text/calendar", ""),
    ("text/calendar", "title\r\nx\r\n"),
    ("text/calendar", "BEGIN:VTODO\r\nSUMMARY:x\r\nEND:VTODO\r\n"),
    ("text/calendar", "BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\nSUMMARY:x\r\n"),
    ("text/calendar", "END:VCALENDAR\r\n"),
    ("text/calendar", "BEGIN:VCALENDAR\r\nEND:VTODO\r\n"),
    ("text/calendar", "BEGIN:VCALENDAR\r\n" * 100_000),
    ("text/calendar", "BEGIN:VCALENDAR\r\n" + "BEGIN:VTODO\r\n" * 100_000),
    ("text/calendar", calendar(f"SUMMARY:{'x' * 10_000_000}")),
    ("text/calendar", calendar(*["SUMMARY:x"] * 100_000)),
    ("text/calendar", calendar("SUMMARY:x", *[" x"] * 200_000)),
]
NO_TEXT = [b"PK\x03\x04\x14\x00\xff", b"\xff\xfet\x00", '[{"title": "café"}]'.encode("latin-1")]
UNFIT = [
    ("application/json", '{"title": "x"}'),
    ("application/json", "null"),
    ("application/json", "[null]"),
    ("application/json", '["x"]'),
    ("application/json", '[{"title": "a\\u0000"}]'),
    ("application/json", '[{"title": "\\ud800"}]'),
    ("application/json", '[{"title": "x", "deleted_at": null}]'),
    ("text/csv", ""),
    ("text/csv", "<tasks><task/></tasks>"),
    ("text/csv", "description\r\nx\r\n"),
    ("text/csv", "title,title\r\nx,y\r\n"),
    ("text/csv", "title,zz\r\nx,y\r\n"),
    ("text/csv", "title\r\nx,y\r\n"),
    ("text/csv", "title\r\nx,\r\n"),
    ("text/csv", 'title\r\n""\r\n'),
    ("text/csv", "title,\r\nx,y\r\n"),
    ("text/csv", "title\r\na\0b\r\n"),
    ("text/csv", 'title,tags\r\nx,"""a""b"\r\n'),
    ("text/csv", "title,due_at\r\nx,12/01/2026\r\n"),
    ("text/calendar", calendar("DESCRIPTION:x")),
    ("text/calendar", calendar("SUMMARY:a\0b")),
    ("text/calendar", calendar("SUMMARY:x", "SUMMARY:y")),
    ("text/calendar", calendar("SUMMARY;=:x")),
    ("text/calendar", calendar("SUMMARY;X-TASKS-ESCAPED=PERCENT:%FF")),
    *(("text/calendar", calendar("SUMMARY:x", f"PRIORITY:{value}")) for value in ("10", "-1", "x")),
    *(
        ("text/calendar", calendar("SUMMARY:x", f"DUE{due}"))
        for due in (
            ":20261120T093000",
            ";TZID=Mars/Olympus:20261120T093000",
            f";TZID={'../' * 1000}etc/passwd:20261120T093000",
            f";TZID={'/a' * 10_000}:20261120T093000",
            ":20260230",
            ":P1D",
            ":99991231T235959Z",
            ";TZID=Asia/Tokyo:00010101T000000",
            ";X-TASKS-MICROSECOND=x:20261120T093000Z",
            ";X-TASKS-MICROSECOND=9999999:20261120T093000Z",
            ";X-TASKS-MICROSECOND=1,2:20261120T093000Z",
            ";TZID=Europe/Berlin,UTC:20261120T093000",
        )
    ),
]


def test_file_that_is_malformed_is_400(alice: User):
    for content_type, body in [*MALFORMED, *product(FORMATS, NO_TEXT)]:
        response = send(alice, body, content_type)
        assert response.status_code == 400, (content_type, body[:50], response.text)
        assert_error(response, 400, "bad_request")
    assert alice.all() == []


def test_file_that_breaks_a_rule_is_422(alice: User):
    for content_type, body in UNFIT:
        response = send(alice, body, content_type)
        assert response.status_code == 422, (content_type, body[:50], response.text)
        assert assert_error(response, 422, "validation_error")
    assert alice.all() == []


PIECES = {
    "application/json": ["[", "]", "{", "}", ",", ":", '"title"', '"x"', "null", "1", " "],
    "text/csv": ["title", "tags", "completed", ",", ";", "\r\n", "\n", "\r", '"', "'", "=", "x"],
    "text/calendar": [
        *(f"{mark}:{name}\r\n" for mark in ("BEGIN", "END") for name in ("VCALENDAR", "VTODO")),
        *("SUMMARY", "DUE", "CATEGORIES", "PRIORITY", "TZID=", ";", ":", "=", ",", '"', "\\", "^"),
        *("\r\n", "\n", " ", "20261120", "T093000", "Z", "Europe/Berlin", "%", "x", "5"),
    ],
}


@EACH_FORMAT
def test_any_file_is_imported_or_refused(alice: User, content_type: str):
    pieces = st.lists(st.sampled_from(PIECES[content_type]) | st.text(max_size=3), max_size=30)
    head = st.sampled_from(["", calendar("SUMMARY:x").partition("SUMMARY")[0], "title,tags\r\n"])

    @examples
    @given(body=st.builds(str.__add__, head, pieces.map("".join)))
    def try_one(body: str) -> None:
        response = send(alice, body.encode(errors="surrogatepass"), content_type)
        assert response.status_code in {201, 400, 422}, response.text

    try_one()


def test_calendar_writes_text_as_other_programs_read_it(alice: User):
    alice.create(r"C:\New; %, or" + "\nold", tags=[r"a\N", "b,c"])
    text = export(alice, "text/calendar").decode()
    assert r"SUMMARY:C:\\New\; %\, or\nold" in text
    assert r"CATEGORIES:a\\N,b\,c" in text


# Files of others


def test_calendar_with_a_line_of_any_length_is_imported(alice: User):
    longest = "ATTACH:" + "x" * 1_000_000 + "\r\n " + "y" * 1_000_000
    lines = ["BEGIN:VCALENDAR", "BEGIN:VTODO", longest, "SUMMARY:Buy", "  milk", "END:VTODO"]
    response = send(alice, "\r\n".join([*lines, "END:VCALENDAR", ""]), "text/calendar")
    assert response.json == {"imported": 1}
    assert [task["title"] for task in alice.all()] == ["Buy milk"]


def test_calendar_folded_within_a_character_is_imported(alice: User):
    body = calendar("SUMMARY:Käse").encode()
    folded = body.replace("ä".encode(), b"\xc3\r\n \xa4")
    assert send(alice, folded, "text/calendar").status_code == 201
    assert alice.all()[0]["title"] == "Käse"


@pytest.mark.parametrize("content_type", ["text/csv", "text/calendar"])
def test_example_of_the_description_is_what_it_says(alice: User, content_type: str):
    operation = alice.client.get("/openapi.json").json["paths"]["/api/{user_id}/tasks/import"]
    example = operation["post"]["requestBody"]["content"][content_type]["example"]
    assert send(alice, example, content_type).json == {"imported": 1}
    due = {"priority": "high", "due_at": "2026-12-01", "tags": ["home", "shop"]}
    assert written(alice) == [DEFAULTS | due | {"title": "Buy milk", "description": "Two bottles"}]


def test_csv_of_a_spreadsheet_is_understood(alice: User):
    rows = "\ufefftitle;completed;tags;priority;\n'tis;TRUE;home, shop;;\nx; 0 ;;high\n\ny\n;;;;\n"
    assert send(alice, rows, "text/csv").status_code == 201
    assert written(alice) == [
        DEFAULTS | {"title": "'tis", "completed": True, "tags": ["home", "shop"]},
        DEFAULTS | {"title": "x", "priority": "high"},
        DEFAULTS | {"title": "y"},
    ]


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("DUE;VALUE=DATE:20261120", {"due_at": "2026-11-20"}),
        ("DUE:20261120T093000Z", {"due_at": "2026-11-20T09:30:00+00:00"}),
        ("DUE;TZID=Europe/Berlin:20260720T093000", {"due_at": "2026-07-20T07:30:00+00:00"}),
        (
            'DUE;TZID="W. Europe Standard Time":20260720T093000',
            {"due_at": "2026-07-20T07:30:00+00:00"},
        ),
        (
            "DUE;TZID=/mozilla.org/20050126_1/America/New_York:20261120T093000",
            {"due_at": "2026-11-20T14:30:00+00:00"},
        ),
        *((f"PRIORITY:{digit}", {"priority": "high"}) for digit in "1234"),
        ("PRIORITY:5", {"priority": "medium"}),
        *((f"PRIORITY:{digit}", {"priority": "low"}) for digit in "6789"),
        ("PRIORITY:0", {"priority": "none"}),
        ("STATUS:COMPLETED", {"completed": True}),
        ("STATUS:IN-PROCESS", {"completed": False}),
        ("COMPLETED:20261120T093000Z", {"completed": True}),
        ("COMPLETED:20261120T093000Z\r\nSTATUS:NEEDS-ACTION", {"completed": False}),
        ("CATEGORIES:a,b\\,c,a,\r\ncategories:A", {"tags": ["a", "b,c", "A"]}),
        ("DESCRIPTION;LANGUAGE=en:one\\ntwo\\, th\r\n ree", {"description": "one\ntwo, three"}),
        ("DTSTART:whenever\r\nRRULE:FREQ=DAILY\r\nX-FOO:bar\r\nATTENDEE", {}),
        ("BEGIN:VALARM\r\nDESCRIPTION:Ring\r\nEND:VALARM", {}),
        ("END:VTODO\r\nBEGIN:VEVENT\r\nSUMMARY:" + "x" * 200_000 + "\r\nEND:VEVENT"
         "\r\nBEGIN:VTIMEZONE\r\nTZID:Mars\r\nEND:VTIMEZONE\r\nBEGIN:VTODO\r\nSUMMARY:y", {}),
    ],
)  # fmt: skip
def test_calendar_of_others_is_understood(alice: User, line: str, fields: dict[str, Any]):
    response = send(alice, calendar("SUMMARY:x", line), "text/calendar")
    assert response.status_code == 201, response.text
    assert written(alice)[0] == DEFAULTS | {"title": "x"} | fields


# Large ones


def test_statement_larger_than_the_buffers_of_a_socket_arrives(alice: User):
    tasks = [{"title": f"{number}", "description": "😀" * 5000} for number in range(400)]
    bring(alice, tasks)
    assert [task["title"] for task in written(alice)] == [task["title"] for task in tasks]


# tracemalloc makes Python ten times slower: formats written in Python get fewer tasks.
@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("content_type", "count"),
    [("application/json", 20_000), ("text/csv", 6_000), ("text/calendar", 1_000)],
)
def test_export_takes_no_memory_for_the_whole(
    alice: User, owner_url: str, content_type: str, count: int
):
    store(owner_url, count, 500)
    response = alice.call("GET", "export", buffered=False, headers={"Accept": content_type})
    parts = iter(response.response)
    tracemalloc.start()
    size = sum(map(len, parts))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 500 * count
    assert peak < 3_000_000


class SlowFile(BytesIO):
    """An empty list, sent only once `done` is set."""

    def __init__(self, begun: Semaphore, done: Event) -> None:
        super().__init__(b"[]")
        self.begun = begun
        self.done = done

    def read(self, size: int | None = -1) -> bytes:
        self.begun.release()
        self.done.wait()
        return super().read(size)


@contextmanager
def slow_imports(*users: User) -> Iterator[None]:
    """Keep a file of each user on its way; all of them arrive in the end."""
    begun, done = Semaphore(0), Event()

    def import_slowly(user: User) -> int:
        sent = {"content_length": 2, "content_type": "application/json"}
        return user.call("POST", "import", input_stream=SlowFile(begun, done), **sent).status_code

    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(import_slowly, user) for user in users]
        try:
            assert all(begun.acquire(timeout=10) for _ in users)
            yield
        finally:
            done.set()
        assert {each.result() for each in answers} == {201}


def test_files_on_their_way_keep_no_other_user_from_importing(app: Flask, alice: User):
    with slow_imports(*(User(app.test_client(), f"user {n}") for n in range(IMPORTS_AT_ONCE))):
        assert alice.call("POST", "import", json=[]).status_code == 201


def test_import_beside_as_many_as_there_may_be_is_503_and_others_go_on(app: Flask, alice: User):
    turns = app.extensions["import_turns"]
    with ExitStack() as others:
        for _ in range(IMPORTS_AT_ONCE):
            turns.acquire()
            others.callback(turns.release)
        assert_error(alice.call("POST", "import", json=[]), 503, "unavailable")
        assert alice.call("GET").status_code == 200
    for _ in range(IMPORTS_AT_ONCE + 1):
        assert alice.call("POST", "import", json=[]).status_code == 201


def test_user_whose_file_is_on_its_way_waits_with_the_next_and_others_do_not(
    alice: User, bob: User
):
    with slow_imports(alice):
        assert_error(alice.call("POST", "import", json=[]), 503, "unavailable")
        assert bob.call("POST", "import", json=[]).status_code == 201
        # Whoever may not send it does not join her queue either.
        assert bob.call("POST", f"{alice.tasks}/import", json=[]).status_code == 401
    assert alice.call("POST", "import", json=[]).status_code == 201


def test_user_receives_few_large_answers_at_once(alice: User, bob: User, owner_url: str):
    store(owner_url, 300, 5000)
    large = ["", "export", "", "export"]
    held = [alice.call("GET", path, buffered=False) for path in large]
    assert {each.status_code for each in held} == {200}
    assert len(held) == LARGE_AT_ONCE
    for path in large:
        assert_error(alice.call("GET", path), 503, "unavailable")
    assert alice.call("GET", f"{alice.tasks}?limit=1").status_code == 200
    assert bob.call("GET", "export").status_code == 200
    held.pop().close()
    for path in large:
        assert alice.call("GET", path).status_code == 200
    for each in held:
        each.close()


LONG_FILES = {
    "application/json": json.dumps([{"title": "x"}] * 1000),
    "text/csv": "title" + "\n" * 1000,
    "text/calendar": "BEGIN:VCALENDAR\r" + "A\r" * 1000,
}


@EACH_FORMAT
def test_long_file_gives_others_their_turn_whatever_it_holds(
    alice: User, owner_url: str, monkeypatch: pytest.MonkeyPatch, content_type: str
):
    pauses: list[float] = []
    monkeypatch.setattr("turns.sleep", pauses.append)
    monkeypatch.setattr("turns.monotonic", count(step=turns.TURN / 100).__next__)
    send(alice, LONG_FILES[content_type], content_type)
    assert len(pauses) >= 9
    store(owner_url, 1000, 1)
    pauses.clear()
    if content_type != "application/json":  # PostgreSQL's own text, page by page
        export(alice, content_type)
        assert len(pauses) >= 9
