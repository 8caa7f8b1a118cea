"""Batches: many operations on tasks in one request, all or none."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from listing import ids
from support import SET, User, assert_error, trash_of
from werkzeug.test import TestResponse

from blueprints.batch import change_of

CREATE = {"op": "create", "task": {"title": "Buy milk"}}
FIELDS = {"title": "Buy bread", **SET}
CHANGES = [{"op": "patch", "task": {"title": "Mine"}}, {"op": "complete"}, {"op": "delete"}]
EACH_CHANGE = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change["op"])


def batch(user: User, *operations: Any) -> TestResponse:
    return user.call("POST", "batch", json={"operations": operations})


def done(user: User, *operations: Any) -> list[Any]:
    response = batch(user, *operations)
    assert response.status_code == 200, response.text
    results: list[Any] = response.json["results"]
    return results


def each(op: str, tasks: list[Any], **fields: Any) -> list[dict[str, Any]]:
    return [{"op": op, "id": task["id"]} | fields for task in tasks]


# What is done


def test_every_kind_of_operation_is_done_and_answered_in_order(alice: User):
    first, second, third, fourth, fifth, untouched = (alice.create(f"task {n}") for n in range(6))
    alice.call("DELETE", fifth["id"])
    results = done(
        alice,
        {"op": "delete", "id": first["id"]},
        {"op": "create", "task": FIELDS},
        {"op": "patch", "id": second["id"], "task": {"title": "Patched", "completed": True}},
        {"op": "complete", "id": third["id"], "version": third["version"]},
        CREATE,
        {"op": "complete", "id": fourth["id"], "completed": False},
        {"op": "restore", "id": fifth["id"]},
    )
    assert results[0] is None
    assert {name: results[1][name] for name in FIELDS} == FIELDS
    assert (results[2]["title"], results[2]["completed"]) == ("Patched", True)
    assert (results[3]["title"], results[3]["completed"]) == ("task 2", True)
    assert results[4]["title"] == "Buy milk"
    assert (results[5]["title"], results[5]["completed"]) == ("task 3", False)
    moved = {"version": results[6]["version"], "updated_at": results[6]["updated_at"]}
    assert results[6] == fifth | moved
    newest_first = sorted([*results[1:], untouched], key=lambda task: -task["id"])
    assert alice.all() == newest_first
    assert results[1]["id"] < results[4]["id"]


def test_tasks_that_one_batch_changes_get_one_time(alice: User):
    created = done(alice, *[CREATE] * 5)
    assert len({task["created_at"] for task in created}) == 1
    patched = done(alice, *each("patch", created, task={"completed": True}))
    assert len({task[name] for task in patched for name in ("updated_at", "completed_at")}) == 1
    done(alice, *each("delete", created))
    assert len({task["deleted_at"] for task in trash_of(alice)}) == 1
    assert len({task["updated_at"] for task in done(alice, *each("restore", created))}) == 1


def test_patch_in_a_batch_changes_what_a_patch_changes(alice: User):
    bodies = [{}, {"description": None, "due_at": None}, {"tags": None}, {"completed": True}]
    for body in bodies:
        one, two = alice.create(**FIELDS | {"title": "Same"}), alice.create(**FIELDS)
        [many] = done(alice, {"op": "patch", "id": two["id"], "task": body | {"title": "Same"}})
        single = alice.call("PATCH", one["id"], json=body | {"title": "Same"}).json
        moving = {"id", "version", "created_at", "updated_at", "completed_at"}
        assert {k: v for k, v in many.items() if k not in moving} == {
            k: v for k, v in single.items() if k not in moving
        }
        assert many["version"] > two["version"]
        assert many["updated_at"] > two["updated_at"]
        assert (many["completed_at"] is None) == (single["completed_at"] is None)


def test_far_too_many_operations_are_one_fault(alice: User):
    response = alice.call("POST", "batch", json={"operations": [1] * 300_000})
    assert assert_error(response, 422, "validation_error").keys() == {"operations"}
    assert len(response.data) < 1000


def test_hundred_operations_are_done(alice: User):
    created = done(alice, *[CREATE] * 100)
    assert ids(created) == sorted(ids(created))
    changed = done(alice, *each("complete", created[::-1]))
    assert ids(changed) == ids(created)[::-1]
    assert done(alice, *each("delete", created)) == [None] * 100
    assert alice.all() == []
    assert ids(done(alice, *each("restore", created))) == ids(created)
    assert ids(alice.all()) == ids(created)[::-1]


def test_largest_batch_is_done(alice: User):
    """Its statement is larger than what a socket takes at once."""
    task = {"title": "x", "description": "x" * 5000}
    created = done(alice, *[{"op": "create", "task": task}] * 100)
    assert {new["description"] for new in created} == {task["description"]}
    assert len(done(alice, *each("patch", created, task=task))) == 100


def test_completion_that_is_so_already_keeps_its_moment(alice: User):
    operation = {"op": "complete", "id": alice.create()["id"]}
    [first] = done(alice, operation)
    [second] = done(alice, operation)
    assert second["completed_at"] == first["completed_at"]


def test_operation_sends_only_what_it_changes():
    assert change_of({"op": "delete", "id": 3}) == {"task_id": 3, "expected": None, "sent": []}


# What is refused, as a whole


def refused(user: User, status: int, error: str, fault: Any, *before: Any) -> tuple[str, Any]:
    """Send a batch with one fault among good operations; return the message and its details."""
    task, other = user.create(), user.create()
    tasks = user.all()
    operations = [
        {"op": "delete", "id": task["id"]},
        *before,
        CREATE,
        fault,
        {"op": "complete", "id": other["id"]},
    ]
    number = operations.index(fault)
    response = batch(user, *operations)
    details = assert_error(response, status, error)["operations"]
    assert user.all() == tasks
    message: str = response.json["message"]
    assert message.startswith(f"operation {number}: ")
    return message, details[str(number)]


@EACH_CHANGE
def test_task_that_is_missing_is_404_and_nothing_is_done(alice: User, bob: User, change: dict):
    trashed, of_bob = alice.create(), bob.create()
    alice.call("DELETE", trashed["id"])
    for task in [{"id": 2**63 - 1}, of_bob, trashed]:
        for version in [{}, {"version": task.get("version", 1)}]:
            fault = change | version | {"id": task["id"]}
            message, _ = refused(alice, 404, "not_found", fault)
            assert message.endswith(f"Resource not found: task {task['id']}")
    assert bob.all() == [of_bob]


def test_restoration_of_what_is_not_in_the_trash_is_404_and_of_another_version_412(
    alice: User, bob: User
):
    trashed, of_bob = alice.create(), bob.create()
    alice.call("DELETE", trashed["id"])
    bob.call("DELETE", of_bob["id"])
    for task_id in [alice.create()["id"], of_bob["id"], 2**63 - 1]:
        refused(alice, 404, "not_found", {"op": "restore", "id": task_id, "version": 1})
    stale = {"op": "restore", "id": trashed["id"], "version": trashed["version"]}
    refused(alice, 412, "precondition_failed", stale)
    [current] = trash_of(alice)
    [restored] = done(alice, stale | {"version": current["version"]})
    assert restored["id"] == trashed["id"]


@EACH_CHANGE
def test_version_that_the_task_no_longer_has_is_412_and_nothing_is_done(alice: User, change: dict):
    task = alice.create()
    fault = change | {"id": task["id"], "version": task["version"] + 1}
    refused(alice, 412, "precondition_failed", fault)


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({"op": "create"}, "task"),
        ({"op": "create", "task": {"title": ""}}, "task"),
        ({"op": "create", "task": {"title": "x", "completed": True}}, "task"),
        ({"op": "create", "task": {"title": "x"}, "id": 1}, "id"),
        ({"op": "patch", "id": 1}, "task"),
        ({"op": "patch", "id": 1, "task": {"id": 2}}, "task"),
        ({"op": "patch", "id": "1", "task": {}}, "id"),
        ({"op": "patch", "id": 1.5, "task": {}}, "id"),
        ({"op": "complete", "id": True}, "id"),
        ({"op": "complete", "id": 0}, "id"),
        ({"op": "complete", "id": 2**63}, "id"),
        ({"op": "complete", "id": 1, "completed": 1}, "completed"),
        ({"op": "complete", "id": 1, "version": None}, "version"),
        ({"op": "delete"}, "id"),
        ({"op": "delete", "id": 1, "version": 0}, "version"),
        ({"op": "explode", "id": 1}, "op"),
        ({"op": ["delete"], "id": 1}, "op"),
        ({"id": 1}, "op"),
    ],
)
def test_operation_that_breaks_a_rule_is_422_and_nothing_is_done(
    alice: User, fault: Any, field: str
):
    message, details = refused(alice, 422, "validation_error", fault)
    assert field in details
    assert f": {field}" in message


@pytest.mark.parametrize("fault", [None, 1, "create", []])
def test_operation_that_is_no_object_is_422(alice: User, fault: Any):
    refused(alice, 422, "validation_error", fault)


def test_id_is_a_whole_number_as_json_has_them(alice: User):
    task = alice.create()
    for no_number in (True, str(task["id"]), task["id"] + 0.5):
        assert_error(batch(alice, {"op": "delete", "id": no_number}), 422, "validation_error")
    assert alice.all() == [task]
    assert done(alice, {"op": "delete", "id": float(task["id"])}) == [None]


@pytest.mark.parametrize("operations", [[], [CREATE] * 101, None, {}, "create"])
def test_number_of_operations_out_of_range_is_422(alice: User, operations: Any):
    response = alice.call("POST", "batch", json={"operations": operations})
    assert "operations" in assert_error(response, 422, "validation_error")
    assert alice.all() == []


@pytest.mark.parametrize("body", [{}, [], {"operations": [CREATE], "atomic": False}])
def test_body_of_another_form_is_422(alice: User, body: Any):
    assert_error(alice.call("POST", "batch", json=body), 422, "validation_error")


def test_same_task_in_two_operations_is_422_and_nothing_is_done(alice: User):
    task = alice.create()
    first, fault = {"op": "complete", "id": task["id"]}, {"op": "delete", "id": task["id"]}
    message, details = refused(alice, 422, "validation_error", fault, first)
    assert message == "operation 3: id: Operation 1 has it already."
    assert details == {"id": ["Operation 1 has it already."]}


def test_first_operation_that_cannot_be_done_decides_the_error(alice: User):
    task = alice.create()
    stale = {"op": "complete", "id": task["id"], "version": 1}
    missing = {"op": "delete", "id": 999_999}
    assert_error(batch(alice, stale, missing), 412, "precondition_failed")
    assert_error(batch(alice, missing, stale), 404, "not_found")


def test_tasks_past_the_quota_are_409_and_nothing_is_done(
    alice: User, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(alice.client.application.config, "MAX_TASKS_PER_USER", 3)
    task = alice.create()
    delete = {"op": "delete", "id": task["id"]}
    details = assert_error(batch(alice, delete, CREATE, CREATE, CREATE), 409, "conflict")
    assert details["operations"].keys() == {"1", "2", "3"}
    assert alice.all() == [task]
    assert len(done(alice, CREATE, CREATE)) == 2
    assert_error(batch(alice, CREATE), 409, "conflict")


def test_first_batch_of_a_user_past_the_quota_is_409_and_nothing_is_done(
    alice: User, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(alice.client.application.config, "MAX_TASKS_PER_USER", 1)
    assert_error(batch(alice, CREATE, CREATE), 409, "conflict")
    assert alice.all() == []


def test_operation_before_those_past_the_quota_decides_the_error(
    alice: User, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(alice.client.application.config, "MAX_TASKS_PER_USER", 1)
    task = alice.create()
    missing = {"op": "patch", "id": 999_999, "task": {}}
    stale = {"op": "delete", "id": task["id"], "version": 1}
    for fault, status, error in [(missing, 404, "not_found"), (stale, 412, "precondition_failed")]:
        details = assert_error(batch(alice, fault, CREATE), status, error)
        assert details["operations"].keys() == {"0"}
        details = assert_error(batch(alice, CREATE, fault), 409, "conflict")
        assert details["operations"].keys() == {"0"}
    assert alice.all() == [task]


# Many at once


def test_batches_on_the_same_tasks_in_opposite_orders_are_all_done(app: Flask, alice: User):
    tasks = done(alice, *[CREATE] * 20)

    def change(number: int) -> int:
        user = User(app.test_client(), "alice")
        some = tasks if number % 2 else tasks[::-1]
        half = each("patch", some[:10], task={"title": f"by {number}"})
        rest = each("complete", some[10:], completed=True)
        return batch(user, *(half + rest if number % 3 else rest + half)).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(change, range(40))) == {200}
    assert len({task["version"] for task in alice.all()}) == 1


def test_batch_and_single_writes_at_once_lose_nothing(app: Flask, alice: User):
    tasks = done(alice, *[CREATE] * 5)

    def write(number: int) -> int:
        user = User(app.test_client(), "alice")
        if number % 2:
            return user.call("PATCH", f"{tasks[number % 5]['id']}/complete").status_code
        return batch(user, *each("patch", tasks, task={"title": "x"})).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(write, range(50))) == {200}
    assert all(task["completed"] for task in alice.all())
    assert {task["title"] for task in alice.all()} == {"x"}
