"""Imports: all of a file or nothing of it, whoever wrote it."""

import json
from codecs import BOM_UTF8
from itertools import product

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from support import User, assert_error
from transfers import (
    DEFAULTS,
    EACH_FORMAT,
    FORMATS,
    WRITABLE,
    bring,
    calendar,
    examples,
    send,
    written,
)

from formats.csv_file import MAX_ROW_LENGTH
from schemas import Task


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/xml", "multipart/form-data", "text/csv; charset=iso-8859-1"],
)
def test_import_of_another_type_is_415(alice: User, content_type: str):
    assert_error(send(alice, "title\r\nx\r\n", content_type), 415, "unsupported_media_type")


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


def test_import_stops_at_an_entry_with_twenty_faults(alice: User):
    entries = [dict.fromkeys(map(str, range(20))), {"title": ""}]
    response = send(alice, json.dumps(entries), "application/json")
    assert assert_error(response, 422, "validation_error")["tasks"].keys() == {"1"}


def test_file_is_checked_before_the_transaction_of_its_key(app: Flask, alice: User):
    """A large import takes longer than a transaction may idle."""
    alice.all()
    pool = app.extensions["database"]._pool
    asked = pool.get_stats()["requests_num"]
    wrong = alice.call("POST", "import", json=[{"title": ""}], headers={"Idempotency-Key": "one"})
    assert_error(wrong, 422, "validation_error")
    assert pool.get_stats()["requests_num"] == asked


def test_fields_that_only_the_server_writes_are_ignored_by_an_import(alice: User, bob: User):
    task = bob.create(tags=["home"])
    trashed = {"deleted_at": task["created_at"]}
    bring(alice, [task | trashed | {"version": None, "id": "\0", "completed_at": 5}])
    [mine] = alice.all()
    assert mine["user_id"] == "alice"
    assert mine["id"] > task["id"]
    assert bob.all() == [task]


MALFORMED = [
    *(
        ("application/json", body)
        for body in ["", "[", "[1", "[{}", '[{"title":"x"}', "[,]", "[]]"]
    ),
    *(("application/json", body) for body in ['[{"title":"x"},]', "[NaN]", "{", "\ufeff"]),
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
    ("text/calendar", calendar("SUMMARY:x", "DESCRIPTION:lost", "if its fold is lost")),
]
NO_TEXT = [b"PK\x03\x04\x14\x00\xff", b"\xff\xfet\x00", '[{"title": "café"}]'.encode("latin-1")]
UNFIT = [
    ("application/json", '{"title": "x"}'),
    ("application/json", "null"),
    ("application/json", "[null]"),
    ("application/json", '["x"]'),
    ("application/json", '[{"title": "a\\u0000"}]'),
    ("application/json", '[{"title": "\\ud800"}]'),
    ("application/json", '[{"title": "x", "deleted": true}]'),
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
    ("text/calendar", calendar("SUMMARY:x", "DUE:20261120", "DUE:20261121")),
    ("text/calendar", calendar("SUMMARY;=:x")),
    ("text/calendar", calendar("SUMMARY;X-TASKS-ESCAPED=PERCENT:%FF")),
    ("text/calendar", calendar("SUMMARY;ENCODING=QUOTED-PRINTABLE;CHARSET=UTF-8:K=C3=A4se")),
    ("text/calendar", calendar("SUMMARY:x", "CATEGORIES;ENCODING=QUOTED-PRINTABLE:a=2Cb")),
    *(("text/calendar", calendar("SUMMARY:x", f"PRIORITY:{value}")) for value in ("10", "-1", "x")),
    *(
        ("text/calendar", calendar("SUMMARY:x", f"DUE{due}"))
        for due in (
            ":20261120T093000",
            ";TZID=Mars/Olympus:20261120T093000",
            ";TZID=localtime:20261120T093000",
            f";TZID={'../' * 1000}etc/passwd:20261120T093000",
            f";TZID={'/a' * 5_000}:20261120T093000",
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


@pytest.mark.no_cover  # a line of 100,000 characters, traced, takes five times as long
def test_file_that_is_malformed_is_400(alice: User):
    for content_type, body in [*MALFORMED, *product(FORMATS, NO_TEXT)]:
        response = send(alice, body, content_type)
        assert response.status_code == 400, (content_type, body[:50], response.text)
        assert_error(response, 400, "bad_request")
    assert alice.all() == []


def test_column_that_is_unknown_is_named_with_those_that_there_are(alice: User):
    message = send(alice, "title,zz\r\nx,y\r\n", "text/csv").json["message"]
    assert message.startswith("header: zz: unknown column; there are title, description, priority")


def test_boolean_of_another_language_is_refused_with_what_is_one(alice: User):
    response = send(alice, "title;completed\r\nx;WAHR\r\n", "text/csv")
    assert response.json["message"] == "entry 1: completed: Must be true or false."


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_is_read_with_the_delimiter_of_its_header(alice: User, delimiter: str):
    """Excel writes semicolons where the comma is the decimal mark; what is copied has tabs."""
    body = f'title{delimiter}tags\r\n"a,;\tb"{delimiter}home\r\n'
    assert send(alice, body, "text/csv").status_code == 201
    [task] = alice.all()
    assert (task["title"], task["tags"]) == ("a,;\tb", ["home"])


def test_file_that_breaks_a_rule_is_422(alice: User):
    for content_type, body in UNFIT:
        response = send(alice, body, content_type)
        assert response.status_code == 422, (content_type, body[:50], response.text)
        assert assert_error(response, 422, "validation_error")
    assert alice.all() == []


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ('{"title":1x}', ""),
        ("x", ""),
        ('{"title":}', ""),
        ('{"title":"x","title":"y"}', "taken: an object has a name twice, "),
    ],
)
def test_malformed_file_is_refused_with_the_place(alice: User, bad: str, told: str):
    body = f'[{{"title":"a"}},{{"title":"b"}},{bad},{{"title":"c"}}]'
    assert f"{told}after entry 2." in send(alice, body, "application/json").json["message"]


def test_row_that_is_too_long_is_told_so(alice: User):
    row = "x" * (MAX_ROW_LENGTH - len("\r\n"))
    assert_error(send(alice, f"title\r\n{row}\r\n", "text/csv"), 422, "validation_error")
    response = send(alice, f"title\r\na\r\n{row}x\r\n", "text/csv")
    message = "The request body cannot be taken: a row is too long, after entry 1."
    assert_error(response, 400, "bad_request", message)


@pytest.mark.parametrize(
    ("content_type", "encoding", "body"),
    [
        ("application/json", "cp1252", '[{"title":"a"},{"title":"Café"}]'),
        ("application/json", "utf-16", "[]"),
        ("text/csv", "cp1252", "title\r\na\r\nCafé\r\n"),  # as Excel's "CSV"
        ("text/csv", "utf-16", "title\r\na\r\n"),  # as its "Unicode text"
        ("text/calendar", "cp1252", calendar("SUMMARY:Café")),
    ],
)
def test_file_in_another_encoding_is_400(alice: User, content_type: str, encoding: str, body: str):
    response = send(alice, body.encode(encoding), content_type)
    hint = ': in Excel, save the table as "CSV UTF-8"' if content_type == "text/csv" else ""
    assert_error(response, 400, "bad_request", f"The request body is not in UTF-8{hint}.")


ONE = {
    "application/json": '[{"title": "x"}]',
    "text/csv": "title\r\nx",
    "text/calendar": calendar("SUMMARY:x"),
}


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", "us-ascii"])
@EACH_FORMAT
def test_file_in_utf_8_is_taken_by_any_of_its_names(alice: User, content_type: str, charset: str):
    sent = f"{content_type}; charset={charset}"
    assert send(alice, ONE[content_type], sent).status_code == 201


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


@pytest.mark.parametrize("content_type", ["text/csv", "text/calendar"])
def test_example_file_in_openapi_imports_the_task_that_it_shows(alice: User, content_type: str):
    operation = alice.client.get("/openapi.json").json["paths"]["/api/{user_id}/tasks/import"]
    example = operation["post"]["requestBody"]["content"][content_type]["example"]
    assert send(alice, example, content_type).json == {"imported": 1}
    shown = {name: field.metadata["examples"][-1] for name, field in Task().fields.items()}
    assert written(alice) == [{name: shown[name] for name in WRITABLE}]


def test_csv_of_a_spreadsheet_is_understood(alice: User):
    rows = "\ufeffTitle ;completed;Tags;PRIORITY;due_at;\n'tis; TRUE ;home, shop;;;\n"
    rows += 'x; 0 ;"a, ""b""";  high ; 2026-12-01 ;\n\ny\n;;;;;\n'
    assert send(alice, rows, "text/csv").status_code == 201
    assert written(alice) == [
        DEFAULTS | {"title": "'tis", "completed": True, "tags": ["home", "shop"]},
        DEFAULTS | {"title": "x", "tags": ["a", "b"], "priority": "high", "due_at": "2026-12-01"},
        DEFAULTS | {"title": "y"},
    ]


@EACH_FORMAT
def test_byte_order_mark_is_no_part_of_the_file(alice: User, content_type: str):
    """Windows PowerShell writes one before JSON, too."""
    assert send(alice, BOM_UTF8 + ONE[content_type].encode(), content_type).status_code == 201
    assert [task["title"] for task in alice.all()] == ["x"]
