"""Exports: whole, in order, in the format that is asked for."""

import csv
import json
from codecs import BOM_UTF8
from io import StringIO
from itertools import count
from typing import Any

import pytest
from support import User, assert_error
from transfers import DEFAULTS, EACH_FORMAT, LONG, bring, export, send

from database import Database, DatabaseBusy
from formats import csv_file


def test_export_is_in_the_order_of_creation_over_many_pages(alice: User):
    titles = [f"task {number}" for number in range(1001)]
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


def test_export_that_has_begun_waits_for_a_connection_once_more(
    alice: User, monkeypatch: pytest.MonkeyPatch
):
    bring(alice, [{"title": f"{number}"} for number in range(600)])
    fetch, asked = Database.fetch, count(1)

    def be_busy_at_times(db: Database, name: str, **values: Any) -> Any:
        if next(asked) in busy:
            raise DatabaseBusy
        return fetch(db, name, **values)

    monkeypatch.setattr(Database, "fetch", be_busy_at_times)
    busy = [1]
    assert_error(alice.call("GET", "export"), 503, "unavailable")
    busy, asked = [2, 4], count(1)
    assert len(alice.call("GET", "export").json) == 600


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
        ("text/calendar;component=VTODO, text/calendar;q=0.1, */*;q=0.5", "text/calendar"),
        ("text/csv, text/csv;header=absent;q=0, application/json;q=0.5", "text/csv"),
    ],
)
def test_format_is_chosen_by_accept(alice: User, accept: str | None, content_type: str):
    response = alice.call("GET", "export", headers={} if accept is None else {"Accept": accept})
    assert (response.status_code, response.mimetype) == (200, content_type)
    assert "Accept" in response.headers.getlist("Vary")
    assert response.headers["Content-Disposition"].startswith("attachment; filename=")


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "*/*;q=0", "image/*"])
def test_export_in_an_unknown_format_is_406(alice: User, accept: str):
    response = alice.call("GET", "export", headers={"Accept": accept})
    assert_error(response, 406, "not_acceptable")


def test_export_is_406_where_accept_is_longer_than_is_read(alice: User):
    response = alice.call("GET", "export", headers={"Accept": "text/csv," * 112})
    message = "The header Accept is longer than 1000 characters."
    assert_error(response, 406, "not_acceptable", message)


def test_task_that_was_there_at_the_start_is_exported_once_whatever_is_written_meanwhile(
    alice: User,
):
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


def test_csv_begins_with_a_byte_order_mark(alice: User):
    assert export(alice, "text/csv").startswith(BOM_UTF8 + b"title,")


def test_field_that_is_empty_is_an_empty_cell(alice: User):
    alice.create("x")
    [row] = csv.DictReader(StringIO(export(alice, "text/csv").decode("utf-8-sig")))
    empty = {name for name, value in DEFAULTS.items() if value in (None, [])}
    assert {name for name in row if not row[name]} == empty | {"completed_at"}


@pytest.mark.parametrize("blank", ["", " ", "\u00a0", "\ufeff"])
def test_formula_behind_blanks_is_defused_too(blank: str):
    assert csv_file.defuse(f"{blank}=1+1") == f"'{blank}=1+1"
