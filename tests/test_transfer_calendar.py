"""Calendars: what other programs write is understood, and what they read is written."""

import json
import re
from datetime import date, datetime
from typing import Any

import pytest
from icalendar import Calendar
from support import User, assert_error
from transfers import DEFAULTS, calendar, export, send, written

from formats import calendar_file


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


def test_calendar_tells_each_time_of_a_task_under_its_name(alice: User):
    task = alice.create() | {"completed": True, "created_at": "2026-11-20T09:30:00+00:00"}
    task |= {"completed_at": "2026-11-21T09:30:00+00:00", "updated_at": "2026-11-22T09:30:00+00:00"}
    file = b"".join(calendar_file.write([json.dumps(task).encode()], "alice"))
    [todo] = Calendar.from_ical(file).todos
    names = {"CREATED": "created", "COMPLETED": "completed", "LAST-MODIFIED": "updated"}
    for name, field in names.items():
        assert todo[name].dt == datetime.fromisoformat(task[f"{field}_at"]), name


def test_calendar_writes_text_as_other_programs_read_it(alice: User):
    alice.create(r"C:\New; %, or" + "\nold", tags=[r"a\N", "b,c"])
    text = export(alice, "text/calendar").decode()
    assert r"SUMMARY:C:\\New\; %\, or\nold" in text
    assert r"CATEGORIES:a\\N,b\,c" in text


def test_line_break_of_a_form_is_one_in_other_programs_too(alice: User):
    alice.create(description="100%\r\ndone")
    [todo] = Calendar.from_ical(export(alice, "text/calendar")).todos
    assert todo["DESCRIPTION"] == "100%\ndone"


def test_calendar_with_a_line_of_any_length_is_imported(alice: User):
    longest = "ATTACH:" + "x" * 1_000_000 + "\r\n " + "y" * 1_000_000
    lines = ["BEGIN:VCALENDAR", "BEGIN:VTODO", longest, "SUMMARY:Buy", "  milk", "END:VTODO"]
    response = send(alice, "\r\n".join([*lines, "END:VCALENDAR", ""]), "text/calendar")
    assert response.json == {"imported": 1}
    assert [task["title"] for task in alice.all()] == ["Buy milk"]


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_calendar_whose_lines_end_as_on_other_systems_is_imported(alice: User, end: str):
    file = calendar("SUMMARY:Buy", "  milk").replace("\r\n", end)
    assert send(alice, file, "text/calendar").status_code == 201
    assert alice.all()[0]["title"] == "Buy milk"


def test_calendar_folded_within_a_character_is_imported(alice: User):
    body = calendar("SUMMARY:Käse").encode()
    folded = body.replace("ä".encode(), b"\xc3\r\n \xa4")
    assert send(alice, folded, "text/calendar").status_code == 201
    assert alice.all()[0]["title"] == "Käse"


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("DUE;VALUE=DATE:20261120", {"due_at": "2026-11-20"}),
        ("DUE:20261120T093000Z", {"due_at": "2026-11-20T09:30:00+00:00"}),
        ("DUE;TZID=Europe/Berlin:20261120T093000Z", {"due_at": "2026-11-20T09:30:00+00:00"}),
        ("DUE;TZID=Europe/Berlin:20260720T093000", {"due_at": "2026-07-20T07:30:00+00:00"}),
        (
            'DUE;TZID="W. Europe Standard Time":20260720T093000',
            {"due_at": "2026-07-20T07:30:00+00:00"},
        ),
        (
            "DUE;TZID=/mozilla.org/20050126_1/America/New_York:20261120T093000",
            {"due_at": "2026-11-20T14:30:00+00:00"},
        ),
        (
            "DUE;TZID=/vendor/America/Argentina/Buenos_Aires:20261120T093000",
            {"due_at": "2026-11-20T12:30:00+00:00"},
        ),
        ("DUE;TZID=/vendor/UTC:20261120T093000", {"due_at": "2026-11-20T09:30:00+00:00"}),
        *((f"PRIORITY:{digit}", {"priority": "high"}) for digit in "1234"),
        ("PRIORITY:5", {"priority": "medium"}),
        *((f"PRIORITY:{digit}", {"priority": "low"}) for digit in "6789"),
        ("PRIORITY:0", {"priority": "none"}),
        ("STATUS:COMPLETED", {"completed": True}),
        ("STATUS:completed", {"completed": True}),
        ("STATUS:IN-PROCESS", {"completed": False}),
        ("COMPLETED:20261120T093000Z", {"completed": True}),
        ("COMPLETED:20261120T093000Z\r\nSTATUS:NEEDS-ACTION", {"completed": False}),
        ("CATEGORIES:a,b\\,c,a,\r\ncategories:A", {"tags": ["a", "b,c", "A"]}),
        (f'DESCRIPTION;ALTREP="data:text/html,{"%D0%B0" * 5000}":x', {"description": "x"}),
        ("DESCRIPTION;LANGUAGE=en:one\\ntwo\\, th\r\n ree", {"description": "one\ntwo, three"}),
        (
            "DTSTART;TZID=Europe/Berlin:20260720T093000\r\nDURATION:P1DT30M",
            {"due_at": "2026-07-21T08:00:00+00:00"},
        ),
        # The clocks in Berlin go back on 25 October: that day has 25 hours.
        *(
            (f"DTSTART;TZID=Europe/Berlin:20261024T090000\r\nDURATION:{length}", {"due_at": due})
            for length, due in {
                "P1D": "2026-10-25T08:00:00+00:00",
                "PT24H": "2026-10-25T07:00:00+00:00",
                "p1dt2h": "2026-10-25T10:00:00+00:00",
                "+P1W": "2026-10-31T08:00:00+00:00",
                "-P1DT1H": "2026-10-23T06:00:00+00:00",
            }.items()
        ),
        ("DUE:20161231T235960Z", {"due_at": "2016-12-31T23:59:59+00:00"}),
        ("DTSTART:20261120\r\nDURATION:P2W", {"due_at": "2026-12-04"}),
        ("DTSTART:x\r\nDURATION:y\r\nDUE:20261120", {"due_at": "2026-11-20"}),
        ("DURATION:PT1H", {}),
        ("DTSTART:whenever\r\nRRULE:FREQ=DAILY\r\nX_FOO:bar\r\nATTENDEE:", {}),
        ("BEGIN:VALARM\r\nDESCRIPTION:Ring\r\nEND:VALARM", {}),
        ("END:VTODO\r\nBEGIN:VEVENT\r\nSUMMARY:" + "x" * 200_000 + "\r\nEND:VEVENT"
         "\r\nBEGIN:VTIMEZONE\r\nTZID:Mars\r\nEND:VTIMEZONE\r\nBEGIN:VTODO\r\nSUMMARY:y", {}),
    ],
)  # fmt: skip
def test_calendar_of_others_is_understood(alice: User, line: str, fields: dict[str, Any]):
    response = send(alice, calendar("SUMMARY:x", line), "text/calendar")
    assert response.status_code == 201, response.text
    assert written(alice)[0] == DEFAULTS | {"title": "x"} | fields


@pytest.mark.parametrize(
    "lines",
    [
        ["CATEGORIES:a"] * 1500,
        ["CATEGORIES:" + "," * 17_000],
        [f"DUE{';A=x' * 4200}:20261120"],
        [f'DESCRIPTION;A=":"{";A=x" * 4200}:x'],
        [f"DESCRIPTION:{'x' * 140_000}"],
    ],
    ids=lambda lines: lines[0][:14],
)
def test_task_that_takes_the_library_long_to_read_is_too_long(alice: User, lines: list[str]):
    message = "The request body cannot be taken: a task is too long."
    response = send(alice, calendar("SUMMARY:x", *lines), "text/calendar")
    assert_error(response, 400, "bad_request", message)


def test_time_zone_that_takes_the_library_long_to_read_is_too_long(alice: User):
    zone = f"X-WR-TIMEZONE{';A=x' * 4200}:UTC\r\nBEGIN:VTODO"
    file = calendar("SUMMARY:x").replace("BEGIN:VTODO", zone)
    message = "The request body cannot be taken: a time zone is too long."
    assert_error(send(alice, file, "text/calendar"), 400, "bad_request", message)


def test_time_without_a_zone_is_in_the_zone_of_its_calendar(alice: User):
    zone, due = "X-WR-TIMEZONE:Europe/Berlin", "DUE:20260720T093000"
    first = calendar("SUMMARY:x", due, zone.replace("Berlin", "Paris"))
    first = first.replace("BEGIN:VTODO", f"{zone}\r\nBEGIN:VTODO")
    second = calendar("SUMMARY:y", due)
    assert send(alice, first, "text/calendar").status_code == 201
    assert alice.all()[0]["due_at"] == "2026-07-20T07:30:00+00:00"
    for file in [second, f"{first}\r\n{second}", first.replace("Berlin", "Mars")]:
        response = send(alice, file, "text/calendar")
        assert_error(response, 422, "validation_error")
    assert len(alice.all()) == 1


def test_refused_time_without_a_zone_tells_the_line_that_mends_the_file(alice: User):
    file = calendar("SUMMARY:x", "DUE:20260720T093000")
    [line] = re.findall(r"X-WR-TIMEZONE:[\w/]+", send(alice, file, "text/calendar").json["message"])
    mended = file.replace("BEGIN:VCALENDAR", f"BEGIN:VCALENDAR\r\n{line}")
    assert send(alice, mended, "text/calendar").status_code == 201
    assert alice.all()[0]["due_at"] == "2026-07-20T07:30:00+00:00"


def test_refused_zone_is_named_with_one_that_is_taken(alice: User):
    file = calendar("SUMMARY:x", "DUE;TZID=Customized Time Zone:20260720T093000")
    message = send(alice, file, "text/calendar").json["message"]
    assert message.startswith("entry 1: due_at: Customized Time Zone: DUE names no time zone of")
    [zone] = re.findall(r"such as ([\w/]+)", message)
    mended = file.replace("Customized Time Zone", zone)
    assert send(alice, mended, "text/calendar").status_code == 201
    assert alice.all()[0]["due_at"] == "2026-07-20T07:30:00+00:00"
