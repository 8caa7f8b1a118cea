"""What changed since a cursor: all of it, once, in the order of the commits."""

import json
import re
from collections.abc import Callable

import psycopg
import pytest
from flask import Flask
from listing import Copy, ids
from support import User, assert_error

from blueprints.changes import ChangedTask, Changes, DeletedTask
from config import PROJECT
from development import generated
from schemas import Task


@pytest.fixture
def copy(alice: User) -> Copy:
    return Copy(alice)


def trash(user: User, task: dict) -> dict:
    assert user.call("DELETE", task["id"]).status_code == 204
    return task


def purge(user: User, task: dict) -> None:
    assert user.call("DELETE", f"/api/{user.id}/trash/{task['id']}").status_code == 204


def test_user_without_tasks_has_no_changes_and_a_cursor(copy: Copy):
    for _ in range(2):
        page = copy.page()
        assert (page["changes"], page["more"]) == ([], False)
        copy.since = page["next"]
    task = copy.user.create()
    assert ids(copy.follow()) == [task["id"]]


def test_cursor_from_before_the_first_task_lists_what_was_created_and_deleted_since(
    alice: User, copy: Copy
):
    copy.since = copy.page()["next"]
    trashed, gone = alice.create(), alice.create()
    trash(alice, trashed)
    purge(alice, trash(alice, gone))
    assert ids(copy.page()["changes"]) == [trashed["id"], gone["id"]]


def test_page_has_exactly_the_documented_fields(alice: User, copy: Copy):
    assert copy.follow() == []
    kept, trashed, gone = alice.create(), alice.create(), alice.create()
    copy.since = copy.page()["next"]
    alice.call("PATCH", f"{kept['id']}/complete")
    trash(alice, trashed)
    purge(alice, trash(alice, gone))
    page = copy.page()
    assert Changes().validate(page) == {}
    assert page.keys() == Changes().fields.keys()
    changed, deleted, purged = page["changes"]
    assert changed.keys() == ChangedTask().fields.keys()
    assert deleted.keys() == DeletedTask().fields.keys()
    assert [changed["deleted"], deleted["deleted"]] == [False, True]
    assert {name: changed[name] for name in Task().fields} == alice.all()[0]
    assert purged == {
        "id": gone["id"],
        "user_id": "alice",
        "version": changed["version"] + 3,
        "deleted": True,
    }


def test_description_promises_all_fields_of_what_is_not_deleted():
    """`if (!change.deleted)` then makes it a task in TypeScript."""
    schemas = json.loads(generated.openapi())["components"]["schemas"]
    choice = schemas["Changes"]["properties"]["changes"]["items"]["oneOf"]
    entries = [schemas[each["$ref"].rpartition("/")[2]] for each in choice]
    deleted = [each["properties"]["deleted"] for each in entries]
    assert [(each["const"], each["enum"]) for each in deleted] == [(False, [False]), (True, [True])]
    assert [set(each["required"]) for each in entries] == [
        {*Task().fields, "deleted"},
        {"id", "user_id", "version", "deleted"},
    ]


@pytest.mark.parametrize(
    ("write", "is_deleted"),
    [
        (lambda user, task: user.call("PUT", task["id"], json={"title": "t"}), False),
        (lambda user, task: user.call("PATCH", task["id"], json={"tags": ["a"]}), False),
        (lambda user, task: user.call("PATCH", f"{task['id']}/complete"), False),
        (trash, True),
        (lambda user, task: purge(user, trash(user, task)), True),
        (
            lambda user, task: user.call(
                "POST", f"/api/alice/trash/{trash(user, task)['id']}/restore"
            ),
            False,
        ),
    ],
    ids=["PUT", "PATCH", "toggle", "delete", "purge", "restore"],
)
def test_each_kind_of_write_is_one_change(
    alice: User, copy: Copy, write: Callable, is_deleted: bool
):
    tasks = [alice.create() for _ in range(3)]
    copy.catch_up()
    write(alice, tasks[1])
    [change] = copy.follow()
    assert (change["id"], change["deleted"]) == (tasks[1]["id"], is_deleted)
    assert copy.all() == alice.all()
    assert copy.follow() == []


def test_change_of_many_tasks_in_sql_raises_the_version_once_and_is_followed(
    alice: User, copy: Copy, postgresql: psycopg.Connection
):
    """The statement of docs/database.md."""
    text = (PROJECT / "docs/database.md").read_text()
    [statement] = re.findall(r"## Change many.*?```sql\n(WITH counter.*?)```", text, re.DOTALL)
    tasks = [alice.create() for _ in range(3)]
    copy.catch_up()
    postgresql.execute(statement.replace("'demo'", "'alice'").encode())
    postgresql.commit()
    changes = copy.follow()
    assert ids(changes) == [task["id"] for task in tasks]
    assert {(each["version"], each["priority"]) for each in changes} == {
        (tasks[-1]["version"] + 1, "low")
    }
    assert copy.all() == alice.all()


def test_writes_in_sql_that_raise_no_counter_appear_in_changes(
    alice: User, copy: Copy, postgresql: psycopg.Connection
):
    alice.create()
    copy.catch_up()
    for statement in [
        "UPDATE tasks SET title = 'x'",
        "INSERT INTO tasks (user_id, title) VALUES ('alice', 'y')",
        "DELETE FROM tasks WHERE title = 'x'",
    ]:
        postgresql.execute(statement)
        postgresql.commit()
        assert len(copy.follow()) == 1
        assert copy.all() == alice.all()


def test_task_changed_twice_is_listed_once_as_it_is_now(alice: User, copy: Copy):
    first, second = alice.create(), alice.create()
    copy.catch_up()
    for task in [first, second, first]:
        alice.call("PATCH", f"{task['id']}/complete")
    assert ids(copy.follow()) == [second["id"], first["id"]]
    assert copy.all() == alice.all()


def test_first_page_leaves_out_deleted_tasks_and_later_pages_list_them(alice: User, copy: Copy):
    kept, trashed, gone = alice.create(), alice.create(), alice.create()
    trash(alice, trashed)
    purge(alice, trash(alice, gone))
    assert ids(copy.follow()) == [kept["id"]]
    assert copy.follow() == []
    trash(alice, kept)
    assert copy.follow()[0]["deleted"] is True


@pytest.mark.parametrize("limit", [1, 3, 8, 1000])
def test_pages_of_every_size_are_the_same_changes(app: Flask, alice: User, copy: Copy, limit: int):
    """Also where several tasks have one version."""
    tasks = [alice.create() for _ in range(4)]
    copy.catch_up()
    copy.limit = limit
    with app.extensions["database"].connection() as connection:
        connection.run(
            "insert_tasks", {"user_id": "alice", "tasks": '[{"title": "t"}]', "max_stored": 9}
        )
        connection.run(
            "insert_tasks",
            {"user_id": "alice", "tasks": json.dumps([{"title": "t"}] * 3), "max_stored": 9},
        )
    for task in tasks:
        trash(alice, task)
    purge(alice, tasks[0])
    alice.call("DELETE", "/api/alice/trash")
    changes = copy.catch_up()
    assert len(ids(changes)) == len(set(ids(changes))) == 8
    assert copy.all() == alice.all()
    assert len(copy.tasks) == 4


def test_more_tells_whether_there_is_more(alice: User, copy: Copy):
    for _ in range(4):
        alice.create()
    copy.limit = 2
    seen = []
    for _ in range(3):
        page = copy.page()
        seen.append((len(page["changes"]), page["more"]))
        copy.since = page["next"]
    assert seen == [(2, True), (2, False), (0, False)]


def test_writing_to_changes_is_405(alice: User):
    for method in ["POST", "PUT", "PATCH", "DELETE"]:
        response = alice.call(method, "changes", json={"title": "t"})
        assert_error(response, 405, "method_not_allowed")
