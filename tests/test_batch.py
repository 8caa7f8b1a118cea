"""Batches: many operations on tasks in one request, all or none."""

from concurrent.futures import ThreadPoolExecutor

from batches import CREATE, batch, done, each
from flask import Flask
from listing import ids
from support import SET, User, assert_error, trash_of

from blueprints.batch import change_of

FIELDS = {"title": "Buy bread", **SET}


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
    deleted = trash_of(alice)
    assert len({task[name] for task in deleted for name in ("updated_at", "deleted_at")}) == 1
    [restored_at] = {task["updated_at"] for task in done(alice, *each("restore", created))}
    assert restored_at > deleted[0]["updated_at"]


def test_batch_counts_no_change_for_kinds_of_operation_that_it_lacks(alice: User):
    created = done(alice, CREATE)
    changed = done(alice, *each("complete", created))
    assert [task["version"] for task in (*created, *changed, alice.create())] == [2, 3, 4]


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
    response = alice.call("POST", "batch", json={"operations": [1] * 19_000})
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


def test_completion_that_is_so_already_keeps_its_moment(alice: User):
    operation = {"op": "complete", "id": alice.create()["id"]}
    [first] = done(alice, operation)
    [second] = done(alice, operation)
    assert second["completed_at"] == first["completed_at"]


def test_operation_sends_only_what_it_changes():
    assert change_of({"op": "delete", "id": 3}) == {"task_id": 3, "expected": None, "sent": []}


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
