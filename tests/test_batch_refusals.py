"""Batches that are refused: as a whole, and naming the operation at fault."""

from typing import Any

import pytest
from batches import CREATE, batch, done
from support import User, assert_error, trash_of

from blueprints.batch import EXAMPLE, SCHEMA_OF_OPERATION

CHANGES = [{"op": "patch", "task": {"title": "Mine"}}, {"op": "complete"}, {"op": "delete"}]
EACH_CHANGE = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change["op"])


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


def test_every_kind_of_operation_is_tried_here_and_shown_in_the_description():
    tried = {"create", "restore", *(change["op"] for change in CHANGES)}
    assert tried == SCHEMA_OF_OPERATION.keys(), "add it to CHANGES"
    assert {each["op"] for each in EXAMPLE["operations"]} == tried


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
    live = alice.create()
    for task_id in [live["id"], of_bob["id"], 2**63 - 1]:
        for version in [{}, {"version": live["version"]}]:
            refused(alice, 404, "not_found", {"op": "restore", "id": task_id} | version)
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
        ({"op": "complete", "id": 0}, "id"),
        ({"op": "complete", "id": 2**63}, "id"),
        ({"op": "complete", "id": 1, "completed": 1}, "completed"),
        ({"op": "complete", "id": 1, "version": None}, "version"),
        ({"op": "delete"}, "id"),
        ({"op": "delete", "id": 1, "version": 0}, "version"),
        ({"op": "delete", "id": 1, "version": 2**63}, "version"),
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


@pytest.mark.parametrize("wrong", [5, {"op": "create", "task": {}}], ids=["number", "no title"])
def test_operation_that_is_wrong_by_itself_is_named_before_a_task_that_stands_twice(
    alice: User, wrong: Any
):
    twice = [{"op": "complete", "id": 7}] * 2
    for number, operations in [("0", [wrong, *twice]), ("2", [*twice, wrong])]:
        response = batch(alice, *operations)
        details = assert_error(response, 422, "validation_error")["operations"]
        assert list(details) == [number]
        assert response.json["message"].startswith(f"operation {number}: ")
