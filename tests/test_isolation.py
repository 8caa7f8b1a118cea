"""Two users: nothing of one is read or changed by the other."""

import json
import re

import psycopg
import pytest
from support import EVERY_TABLE, User, assert_error, trash_of, write_to_every_table

from config import PROJECT

BY_TASK = [
    ("GET", "{}", None),
    ("PUT", "{}", {"title": "Mine now", "completed": True}),
    ("PATCH", "{}", {"title": "Mine now"}),
    ("PATCH", "{}/complete", None),
    ("DELETE", "{}", None),
]
PATHS = json.loads((PROJECT / "openapi.json").read_text())["paths"]
OPERATIONS = [
    (method.upper(), path)
    for path, operations in PATHS.items()
    if "{user_id}" in path
    for method in operations
    if method != "parameters"
]
TRASH = [("GET", ""), ("DELETE", ""), ("POST", "/{}/restore"), ("DELETE", "/{}")]


def test_other_users_task_under_ones_own_path_is_404_and_untouched(alice: User, bob: User):
    task = alice.create()
    for method, path, body in BY_TASK:
        response = bob.call(method, path.format(task["id"]), json=body)
        assert_error(response, 404, "not_found", f"Resource not found: task {task['id']}")
        assert alice.all() == [task]


def test_task_in_the_trash_is_404_at_every_operation_on_tasks(alice: User, in_trash: dict):
    for method, path, body in BY_TASK:
        response = alice.call(method, path.format(in_trash["id"]), json=body)
        assert_error(response, 404, "not_found", f"Resource not found: task {in_trash['id']}")
        assert (alice.all(), trash_of(alice)) == ([], [in_trash]), (method, path)


def test_operations_on_one_task_are_all_tried():
    tasks = "/api/{user_id}/tasks/{task_id}"
    described = {(each, path) for each, path in OPERATIONS if path.startswith(tasks)}
    assert {(each, path.replace("{}", tasks)) for each, path, _ in BY_TASK} == described, (
        "add a line to BY_TASK"
    )


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_other_users_path_is_401_and_untouched(alice: User, bob: User, method: str, path: str):
    task = alice.create()
    place = re.sub(r"{\w+}", str(task["id"]), path.replace("{user_id}", "alice"))
    assert_error(bob.call(method, place), 401, "unauthorized")
    assert alice.all() == [task]


def test_path_with_nothing_at_it_below_ones_own_is_404(alice: User):
    for user in [alice, User(alice.client, "a/b")]:
        for path in ["tasks", "trash", "12/tasks", "0/complete", "trash?q=%2f"]:
            response = user.call("GET", path)
            assert_error(response, 404, "not_found", "There is nothing at this path.")


def test_path_of_a_user_whose_id_begins_with_ones_own_is_401(alice: User):
    for user_id in ["alice/x", "alice/tasks", "alicex"]:
        path = User(alice.client, user_id).tasks
        assert_error(alice.call("GET", path), 401, "unauthorized")


def test_lists_hold_ones_own_tasks_alone(alice: User, bob: User):
    mine, _ = alice.create("of alice"), bob.create("of bob")
    assert alice.all() == [mine]


@pytest.fixture
def in_trash(alice: User) -> dict:
    """A task in the trash of alice, as it is listed there."""
    alice.call("DELETE", alice.create()["id"])
    [task] = trash_of(alice)
    return task


def test_other_users_trash_is_out_of_reach_and_untouched(alice: User, bob: User, in_trash: dict):
    for method, path in TRASH:
        place = path.format(in_trash["id"])
        assert_error(bob.call(method, f"/api/alice/trash{place}"), 401, "unauthorized")
        response = bob.call(method, f"/api/bob/trash{place}")
        if path:
            assert_error(response, 404, "not_found", f"Resource not found: task {in_trash['id']}")
        else:
            assert response.text in {"", "[]"}
        assert trash_of(alice) == [in_trash]


def test_changes_are_ones_own_alone(alice: User, bob: User, in_trash: dict):
    mine, _ = bob.create("of bob"), alice.create("of alice")
    since = bob.call("GET", "changes").json["next"]
    alice.call("DELETE", "/api/alice/trash")
    assert bob.call("GET", "changes", query_string={"since": since}).json["changes"] == []
    assert [task["id"] for task in bob.call("GET", "changes").json["changes"]] == [mine["id"]]


def test_user_ids_that_differ_in_case_or_space_are_two_users(alice: User):
    alice.create()
    for user_id in ["Alice", "alice ", " alice", "alice/", "ａlice"]:
        assert User(alice.client, user_id).all() == []


def test_nothing_of_a_user_who_left_is_kept_and_nothing_of_others_is_lost(
    alice: User, bob: User, postgresql: psycopg.Connection
):
    """The statements of docs/database.md."""
    text = (PROJECT / "docs/database.md").read_text()
    [statements] = re.findall(r"```sql\n(BEGIN;.*?)```", text, re.DOTALL)
    columns = "SELECT table_name FROM information_schema.columns WHERE column_name = 'user_id'"
    tables = [table for (table,) in postgresql.execute(columns)]

    def rows_of(user: User) -> dict[str, int]:
        count = "SELECT count(*) FROM {} WHERE user_id = '{}'"
        counted = [postgresql.execute(count.format(table, user.id).encode()) for table in tables]
        rows = [rows for cursor in counted for (rows,) in cursor]
        return dict(zip(tables, rows, strict=True))

    for user in [alice, bob]:
        write_to_every_table(user)
    of_bob = rows_of(bob)
    assert [table for table, rows in rows_of(alice).items() if not rows] == [], EVERY_TABLE
    postgresql.execute(statements.replace("'demo'", "'alice'").encode())
    assert rows_of(alice) == dict.fromkeys(tables, 0)
    assert rows_of(bob) == of_bob
    assert alice.create()["version"] == 2
