"""The trash: what DELETE moves there, how it is listed, and how it comes back."""

from typing import Any

import psycopg
import pytest
from batches import done
from flask import Flask
from listing import next_link
from support import SET, User, assert_error, cursor_at, trash_of

from blueprints.trash import TrashedTask
from capacity.rate_limits import Limit
from database import Database
from schemas import Task

TRASH = "/api/alice/trash"
BAD_QUERIES = [
    ("limit", ["0", "-1", "1001", "1.0", "+1", "1e2", "", " 1", "1_0", "٣", "9" * 5000]),
    ("cursor", ["", "abc", "MQ", "MS4x", "=", "é", "%00", "a" * 5000]),
    ("order", ["id"]),
]


def test_deleted_task_is_in_the_trash_with_all_its_fields(alice: User, trashed: dict):
    [task] = trash_of(alice)
    assert TrashedTask().validate(task) == {}
    assert task.keys() == TrashedTask().fields.keys()
    assert task["deleted_at"] > trashed["updated_at"]
    assert {name: task[name] for name in SET} == SET


def test_trash_of_a_user_without_tasks_is_an_empty_array(bob: User):
    assert trash_of(bob) == []


def test_restored_task_comes_back_as_it_was(alice: User, trashed: dict):
    [there] = trash_of(alice)
    response = alice.call("POST", f"{TRASH}/{trashed['id']}/restore")
    task = response.json
    assert response.status_code == 200
    assert trashed["updated_at"] < there["updated_at"] < task["updated_at"]
    assert response.headers["ETag"] == f'"{task["version"]}"'
    assert task.keys() == Task().fields.keys()
    moved = {"version", "updated_at"}
    assert {k: task[k] for k in task.keys() - moved} == {k: trashed[k] for k in task.keys() - moved}
    assert task["version"] > trashed["version"]
    assert (alice.all(), trash_of(alice)) == ([task], [])
    assert alice.call("PATCH", f"{task['id']}/complete").status_code == 200


WRITES = [("POST", "{}/{}/restore"), ("DELETE", "{}/{}")]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_task_that_is_not_in_the_trash_is_404(alice: User, method: str, path: str):
    task = alice.create()
    for task_id in [task["id"], 12, 2**63 - 1]:
        for headers in [{}, {"If-Match": '"2"'}, {"If-Match": "*"}]:
            response = alice.call(method, path.format(TRASH, task_id), headers=headers)
            assert_error(response, 404, "not_found", f"Resource not found: task {task_id}")
    assert alice.all() == [task]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_what_is_no_task_id_is_404(alice: User, method: str, path: str):
    for task_id in ["0", "01", "abc", "%00", str(2**63), "9" * 4300]:
        response = alice.call(method, path.format(TRASH, task_id))
        assert_error(response, 404, "not_found", "There is nothing at this path.")


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_if_match_of_another_version_is_412_and_of_its_own_writes(
    alice: User, trashed: dict, method: str, path: str
):
    [task] = trash_of(alice)
    path = path.format(TRASH, task["id"])
    for other in [f'"{trashed["version"]}"', '"9999"', "", '"abc"']:
        response = alice.call(method, path, headers={"If-Match": other})
        assert_error(response, 412, "precondition_failed")
        assert trash_of(alice) == [task]
    response = alice.call(method, path, headers={"If-Match": f'"{task["version"]}"'})
    assert response.status_code in {200, 204}


@pytest.mark.parametrize(("name", "values"), BAD_QUERIES)
def test_bad_parameter_is_422_that_names_it(alice: User, name: str, values: list):
    for value in values:
        response = alice.call("GET", TRASH, query_string={name: value})
        assert assert_error(response, 422, "validation_error").keys() == {name}, value


def test_cursor_beyond_all_places_or_of_another_user_is_422(alice: User, bob: User):
    of_bob = cursor_at(bob, 1, 1)
    assert bob.call("GET", f"/api/bob/trash?cursor={of_bob}").status_code == 200
    for cursor in [cursor_at(alice, 1, 2**63), cursor_at(alice, -1, 1), of_bob]:
        response = alice.call("GET", TRASH, query_string={"cursor": cursor})
        assert assert_error(response, 422, "validation_error").keys() == {"cursor"}, cursor


@pytest.mark.parametrize("limit", [1, 3, 4, 1000])
def test_pages_are_the_whole_trash_last_deleted_first(alice: User, limit: int):
    ids = [alice.create(f"task {number}")["id"] for number in range(8)]
    deleted = [ids[place] for place in (3, 0, 4, 1, 2)]
    for task_id in deleted:
        alice.call("DELETE", task_id)
    deleted += ids[5:]  # these at once: they have one version
    done(alice, *({"op": "delete", "id": task_id} for task_id in ids[5:]))
    path, found, pages = f"{TRASH}?limit={limit}", [], 0
    while path:
        response = alice.call("GET", path)
        assert len(response.json) <= limit
        found += [task["id"] for task in response.json]
        pages += 1
        path = next_link(response)
    assert found == deleted[::-1]
    assert pages == -(-8 // limit)


def test_user_who_deletes_too_much_for_good_in_a_day_gets_429(
    app: Flask, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
):
    limits = app.extensions["rate_limits"]
    monkeypatch.setattr(limits, "tombstones", Limit("tombstones", (4, 86400), None))
    tasks = [alice.create()["id"] for _ in range(4)]
    for task_id in tasks:
        alice.call("DELETE", task_id)
    assert alice.call("DELETE", f"{TRASH}/1000000").status_code == 404  # not counted
    assert alice.call("DELETE", f"{TRASH}/{tasks[0]}").status_code == 204
    assert alice.call("DELETE", TRASH).status_code == 204
    alice.call("DELETE", alice.create()["id"])
    [trashed] = trash_of(alice)
    for path in [TRASH, f"{TRASH}/{trashed['id']}"]:
        refused = alice.call("DELETE", path)
        assert_error(refused, 429, "rate_limited")
    assert trash_of(alice) == [trashed]
    assert bob.call("DELETE", "/api/bob/trash").status_code == 204


def test_what_was_deleted_before_a_failure_counts_too(
    app: Flask, alice: User, monkeypatch: pytest.MonkeyPatch
):
    limits = app.extensions["rate_limits"]
    monkeypatch.setattr(limits, "tombstones", Limit("tombstones", (2, 86400), None))
    monkeypatch.setattr("purge.TASKS_PER_STATEMENT", 1)
    for _ in range(3):
        alice.call("DELETE", alice.create()["id"])
    left = iter([True, True, False])
    fetch = Database.fetch

    def fail_in_the_end(db: Database, statement: str, **values: Any) -> Any:
        if statement == "delete_trashed_tasks" and not next(left):
            raise psycopg.errors.QueryCanceled
        return fetch(db, statement, **values)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "fetch", fail_in_the_end)
        assert_error(alice.call("DELETE", TRASH), 503, "unavailable")
    assert len(trash_of(alice)) == 1
    assert_error(alice.call("DELETE", TRASH), 429, "rate_limited")
