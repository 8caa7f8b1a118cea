"""What people organise tasks by: priority, due date, tags, and when they completed one."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from itertools import product

import psycopg
import pytest
from batches import done, each
from flask import Flask
from support import SET, NewApp, User, assert_error, trash_of
from transfers import DEFAULTS

from blueprints.tasks import NOT_SENT
from field_types import DUE_PATTERN
from schemas import TaskUpdate
from statements import QUERIES

NEW = DEFAULTS | {"completed_at": None}
BAD_DUES = """
tomorrow 2026-02-30 20261120 2026-W47-5 ٢٠٢٦-11-20 2026-11-20T09:30Z 2026-11-20T09:30:00
2026-11-20T24:00:00Z 2026-11-20T25:00:00Z 2026-11-20T09:30:00+25:00 2026-11-20T09:30:00+05:60
2026-11-20T09:30:00.Z 1969-12-31 2201-01-01
0001-01-01T00:00:00+14:00 9999-12-31T23:59:59-14:00
1970-01-01T00:00:00+14:00 2200-12-31T23:59:59-14:00
"""
BAD_FIELDS = [
    ("priority", ["urgent", "HIGH", "", 1, True, ["high"]]),
    ("due_at", ["", 1, [], {}, "2026-11-20 09:30:00Z", *BAD_DUES.split()]),
    ("tags", ["home", [1], [""], ["  "], ["x" * 51], ["a", "a"], ["a", " a "], ["\0"], {"a": 1}]),
    ("tags", [[f"tag {number}" for number in range(21)], ["\ud800"], [None]]),
    ("completed", ["yes", 1, None]),
    ("title", [None]),
    ("description", [1, "x" * 5001, "\0"]),
]
NOT_WRITABLE = ["id", "user_id", "created_at", "updated_at", "completed_at", "version", "deleted"]
NOT_WRITABLE += ["zz", ""]


@pytest.fixture
def task(alice: User) -> dict:
    return alice.create()


def test_new_task_has_the_defaults(task: dict):
    assert {name: task[name] for name in NEW} == NEW


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_every_field_is_written_and_read_back(alice: User, task: dict, method: str):
    changed = alice.call(method, task["id"], json={"title": "Buy bread", **SET}).json
    assert {name: changed[name] for name in SET} == SET
    assert alice.call("GET", task["id"]).json == changed == alice.all()[0]
    assert {name: alice.create(**SET)[name] for name in SET} == SET


def test_tag_of_any_characters_is_written_as_it_is(alice: User, task: dict):
    tags = ['"', "\\", '\\"', "a,b", "{}", "NULL", "null", "one\ntwo", "'", "%s", "\N{MAN}"]
    assert alice.create(tags=tags)["tags"] == tags
    for method, value in [("PUT", tags), ("PATCH", tags[:1]), ("PATCH", [])]:
        changed = alice.call(method, task["id"], json={"title": "Buy milk", "tags": value}).json
        assert changed["tags"] == value


def test_every_field_is_a_parameter_of_the_statements():
    others = {"user_id", "max_stored", "sent"}
    assert {*QUERIES["insert_task"].parameters} - others == NOT_SENT.keys(), "name it in `given`"


def test_every_field_is_written_by_a_batch_and_an_import_too(alice: User):
    given = {"title": "Buy bread", **SET, "completed": True}
    assert given.keys() == TaskUpdate().fields.keys(), "give the new field a value in SET"
    assert given.keys() == dict(BAD_FIELDS).keys(), "give it bad values in BAD_FIELDS"
    [first] = done(alice, {"op": "create", "task": {"title": "Buy bread", **SET}})
    assert {name: first[name] for name in SET} == SET
    [second] = done(alice, *each("patch", [alice.create()], task=given))
    assert {name: second[name] for name in given} == given
    alice.call("POST", "import", json=[given])
    assert {name: alice.all()[0][name] for name in given} == given


@pytest.mark.parametrize("name", SET)
def test_patch_keeps_what_is_left_out_and_null_clears(alice: User, name: str):
    task = alice.create(**SET)
    kept = alice.call("PATCH", task["id"], json={"title": "Buy bread"}).json
    assert {name: kept[name] for name in SET} == SET
    cleared = alice.call("PATCH", task["id"], json={name: None}).json
    assert cleared[name] == NEW[name]
    assert {other: cleared[other] for other in SET if other != name} == {
        other: SET[other] for other in SET if other != name
    }


def test_put_of_the_existing_front_end_keeps_the_fields_that_it_does_not_know(alice: User):
    task = alice.create(**SET)
    sent = {"title": "Buy bread", "description": "One"}
    assert {name: alice.call("PUT", task["id"], json=sent).json[name] for name in SET} == (
        SET | {"description": "One"}
    )


def test_empty_patch_changes_only_version_and_updated_at(alice: User, task: dict):
    patched = alice.call("PATCH", task["id"], json={}).json
    assert patched["version"] > task["version"]
    assert {**patched, "version": 0, "updated_at": ""} == {**task, "version": 0, "updated_at": ""}


@pytest.mark.parametrize(("name", "values"), BAD_FIELDS)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
def test_bad_value_is_422_that_names_the_field_and_nothing_is_written(
    alice: User, task: dict, method: str, name: str, values: list
):
    for value in values:
        path = "" if method == "POST" else task["id"]
        response = alice.call(method, path, json={"title": "Buy milk", name: value})
        assert name in assert_error(response, 422, "validation_error"), value
    assert alice.all() == [task]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
def test_field_that_no_client_writes_is_422(alice: User, task: dict, method: str):
    path = "" if method == "POST" else task["id"]
    for name in NOT_WRITABLE:
        response = alice.call(method, path, json={"title": "Buy milk", name: task.get(name)})
        assert assert_error(response, 422, "validation_error") == {name: ["Unknown field."]}
    assert alice.all() == [task]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("2026-11-20", "2026-11-20"),
        ("1970-01-01", "1970-01-01"),
        ("2200-12-31", "2200-12-31"),
        ("2024-02-29", "2024-02-29"),
        ("2026-11-20T09:30:00Z", "2026-11-20T09:30:00+00:00"),
        ("2026-11-20t09:30:00z", "2026-11-20T09:30:00+00:00"),
        ("2026-11-20T09:30:00.123456+05:30", "2026-11-20T04:00:00.123456+00:00"),
        ("2026-11-20T09:30:00.9999999Z", "2026-11-20T09:30:00.999999+00:00"),
        ("2026-11-20T00:00:00Z", "2026-11-20T00:00:00+00:00"),
        ("2026-11-20T23:59:00+23:59", "2026-11-20T00:00:00+00:00"),
        ("2026-11-20T00:00:00-16:00", "2026-11-20T16:00:00+00:00"),
    ],
)
def test_due_date_is_kept_as_a_date_and_a_due_time_is_returned_in_utc(
    alice: User, sent: str, kept: str
):
    assert alice.create(due_at=sent)["due_at"] == kept


def test_described_days_are_those_that_there_are():
    described = re.compile(DUE_PATTERN)
    days = product(range(1970, 2201), range(1, 13), range(1, 32))
    for day in (f"{year}-{month:02}-{of_month:02}" for year, month, of_month in days):
        try:
            date.fromisoformat(day)
        except ValueError:
            assert not described.search(day), day
        else:
            assert described.search(day), day
    for day in ("1969-12-31", "2201-01-01", "1970-01-01T00:00:00+01:00"):
        assert not described.search(day), day


DESCRIBED_DUES = """
2026-11-20t09:30:00z 2026-11-20T09:30:00.123456789-23:59 1970-01-01T00:00:00+00:00
1970-01-01T00:00:00-23:59 2200-12-31T23:59:59-00:00 2200-12-31T23:59:59+23:59
"""


@pytest.mark.parametrize("due", DESCRIBED_DUES.split())
def test_due_that_is_described_is_taken(alice: User, due: str):
    assert re.search(DUE_PATTERN, due)
    assert alice.create(due_at=due)["due_at"]


def test_moment_may_become_a_day_and_a_day_a_moment(alice: User, task: dict):
    for due in ["2026-11-20", "2026-11-20T09:30:00+00:00", "2026-11-21", None]:
        assert alice.call("PATCH", task["id"], json={"due_at": due}).json["due_at"] == due


def test_far_too_many_tags_are_one_fault(alice: User):
    response = alice.call("POST", json={"title": "x", "tags": [1] * 19_000})
    assert assert_error(response, 422, "validation_error").keys() == {"tags"}
    assert len(response.data) < 1000


def test_far_too_many_fields_are_one_fault(alice: User):
    fields = dict.fromkeys(map(str, range(19_000)))
    task = {"op": "create", "task": {"title": "x"} | fields}
    for path, body in [("", {"title": "x"} | fields), ("batch", {"operations": [task]})]:
        response = alice.call("POST", path, json=body)
        assert assert_error(response, 422, "validation_error")
        assert len(response.data) < 1000
    assert alice.all() == []


def test_tags_are_trimmed_and_keep_their_order(alice: User):
    assert alice.create(tags=["shop", " home ", "Home"])["tags"] == ["shop", "home", "Home"]


def test_completed_at_is_set_by_completion_kept_by_updates_and_cleared_by_reopening(
    alice: User, task: dict
):
    done = alice.call("PATCH", f"{task['id']}/complete").json
    assert datetime.fromisoformat(done["completed_at"]).utcoffset() is not None
    again = alice.call("PUT", task["id"], json={"title": "Buy milk", "completed": True}).json
    assert again["completed_at"] == done["completed_at"]
    assert alice.call("PATCH", task["id"], json={"completed": False}).json["completed_at"] is None
    assert alice.call("PATCH", task["id"], json={"completed": True}).json["completed_at"]
    assert alice.call("PATCH", f"{task['id']}/complete").json["completed_at"] is None
    toggled = alice.call("PATCH", f"{task['id']}/complete").json
    assert toggled["completed_at"] == toggled["updated_at"]
    alice.call("DELETE", task["id"])
    [trashed] = trash_of(alice)
    assert trashed["deleted_at"] == trashed["updated_at"]


def test_merge_patch_and_json_are_taken_and_another_type_is_415(alice: User, task: dict):
    for content_type in ["application/merge-patch+json", "application/json"]:
        response = alice.call(
            "PATCH", task["id"], data='{"title": "Buy bread"}', content_type=content_type
        )
        assert response.json["title"] == "Buy bread"
    response = alice.call("PATCH", task["id"], data="{}", content_type="text/plain")
    assert_error(response, 415, "unsupported_media_type")
    assert "application/merge-patch+json" in response.headers["Accept-Patch"]


def test_put_takes_no_merge_patch(alice: User, task: dict):
    response = alice.call(
        "PUT", task["id"], data='{"title": "t"}', content_type="application/merge-patch+json"
    )
    assert_error(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("due_at", "'2201-01-01Z'"),
        ("due_at", "'1969-12-31 23:59Z'"),
        ("title", "' '"),
        ("tags", "ARRAY['']"),
        ("tags", "ARRAY[NULL]"),
        ("tags", "array_fill('a'::text, ARRAY[21])"),
        ("tags", "ARRAY[repeat('a', 1001)]"),
    ],
)
def test_database_refuses_what_the_schema_refuses(
    task: dict, postgresql: psycopg.Connection, column: str, value: str
):
    with pytest.raises(psycopg.errors.CheckViolation):
        postgresql.execute(f"UPDATE tasks SET {column} = {value}")  # noqa: S608


def test_user_id_of_a_task_cannot_be_changed(task: dict, postgresql: psycopg.Connection):
    postgresql.execute("UPDATE tasks SET user_id = user_id")
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="keeps its user_id"):
        postgresql.execute("UPDATE tasks SET user_id = 'bob'")


def test_responses_are_the_same_whatever_the_database_is_set_to(
    new_app: NewApp, postgresql: psycopg.Connection
):
    name = postgresql.info.dbname
    settings = ["TimeZone = 'Asia/Kolkata'", "row_security = off"]
    settings += ["default_transaction_isolation = serializable"]
    if postgresql.info.server_version >= 170_000:
        settings += ["transaction_timeout = 50"]  # milliseconds
    for setting in settings:
        postgresql.execute(f'ALTER DATABASE "{name}" SET {setting}')
    postgresql.commit()
    app = new_app()
    alice = User(app.test_client(), "alice")
    task = alice.create(due_at="1970-01-01T00:00:00Z")
    assert task["due_at"] == "1970-01-01T00:00:00+00:00"
    assert task["created_at"].endswith("+00:00")
    with ThreadPoolExecutor(4) as pool:
        toggles = [pool.submit(alice.call, "PATCH", f"{task['id']}/complete") for _ in range(40)]
        assert {each.result().status_code for each in toggles} == {200}
    with app.extensions["database"].transaction() as connection:
        connection.fetch("select_version", user_id="alice")
        time.sleep(0.1)
        assert connection.fetch("select_version", user_id="alice")


def test_quota_is_a_409_that_tells_the_limit(
    app: Flask, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(app.config, "MAX_TASKS_PER_USER", 2)
    alice.create()
    alice.create()
    response = alice.call("POST", json={"title": "Buy milk"})
    assert_error(response, 409, "conflict")
    assert "2" in response.json["message"]
    assert bob.create()["id"]
    assert len(alice.all()) == 2
