"""The six operations on one user's own tasks."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import psycopg
import pytest
from flask import Flask
from support import JSON, User, assert_error

from schemas import Task

MAX_ID = 2**63 - 1
NO_TASK_IDS = ["0", "-1", "01", "1.0", "+1", "1e3", "abc", "%D9%A1", "%00", "9" * 4300]
NO_TASK_IDS += [str(MAX_ID + 1), "1 ", "null", "1/"]


def times(task: dict) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(task["created_at"]), datetime.fromisoformat(task["updated_at"])


def test_list_of_a_user_without_tasks_is_an_empty_array(alice: User):
    response = alice.call("GET")
    assert (response.status_code, response.json) == (200, [])
    assert response.content_type == "application/json"


def test_create_answers_201_with_the_task_and_its_location(alice: User):
    response = alice.call("POST", json={"title": "Buy milk", "description": "Two bottles"})
    task = response.json
    assert response.status_code == 201
    assert (task["user_id"], task["title"], task["completed"]) == ("alice", "Buy milk", False)
    assert task["description"] == "Two bottles"
    assert alice.call("GET", response.headers["Location"]).json == task
    assert response.headers["Location"] == f"/api/alice/tasks/{task['id']}"


def test_task_in_the_description_is_what_its_request_creates(alice: User):
    schemas = alice.client.get("/openapi.json").json["components"]["schemas"]
    sent, shown = (
        {name: each["examples"][0] for name, each in schemas[kind]["properties"].items()}
        for kind in ("TaskCreate", "Task")
    )
    assert alice.create(**sent).items() >= {name: shown[name] for name in sent}.items()


def test_created_times_are_equal_and_have_an_offset(alice: User):
    created_at, updated_at = times(alice.create())
    assert created_at == updated_at
    assert created_at.utcoffset() is not None


@pytest.mark.parametrize("operation", ["list", "get", "create", "update", "toggle"])
def test_every_response_has_exactly_the_documented_fields(alice: User, operation: str):
    task = alice.create()
    body = {
        "list": lambda: alice.all()[0],
        "get": lambda: alice.call("GET", task["id"]).json,
        "create": lambda: task,
        "update": lambda: alice.call("PUT", task["id"], json={"title": "t"}).json,
        "toggle": lambda: alice.call("PATCH", f"{task['id']}/complete").json,
    }[operation]()
    assert body.keys() == Task().fields.keys()
    assert Task().validate(body) == {}


def test_get_answers_the_task(alice: User):
    task = alice.create()
    response = alice.call("GET", task["id"])
    assert (response.status_code, response.json) == (200, task)


def test_update_writes_every_field_that_is_sent(alice: User):
    task = alice.create()
    sent = {"title": "Buy bread", "description": "One", "completed": True}
    response = alice.call("PUT", task["id"], json=sent)
    assert response.status_code == 200
    assert {name: response.json[name] for name in sent} == sent
    assert alice.call("GET", task["id"]).json == response.json


def test_update_keeps_optional_fields_that_are_left_out(alice: User):
    task = alice.create(description="Two bottles")
    alice.call("PATCH", f"{task['id']}/complete")
    updated = alice.call("PUT", task["id"], json={"title": "Buy bread"}).json
    assert (updated["description"], updated["completed"]) == ("Two bottles", True)


@pytest.mark.parametrize("description", ["", None])
def test_update_with_an_empty_or_null_description_clears_it(alice: User, description: str | None):
    task = alice.create(description="Two bottles")
    alice.call("PUT", task["id"], json={"title": "Buy milk", "description": description})
    assert alice.call("GET", task["id"]).json["description"] == description


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_updated_at_moves_with_every_change_and_created_at_never(alice: User, method: str):
    task = alice.create()
    path = task["id"] if method == "PUT" else f"{task['id']}/complete"
    for _ in range(3):
        before = times(task)
        task = alice.call(method, path, json={"title": "Buy milk"}).json
        assert times(task)[0] == before[0]
        assert times(task)[1] > before[1]


def test_updated_at_grows_even_if_the_clock_is_behind_it(
    alice: User, postgresql: psycopg.Connection
):
    task = alice.create()
    postgresql.execute("UPDATE tasks SET updated_at = now() + interval '1 day'")
    postgresql.commit()
    before = alice.call("GET", task["id"]).json
    assert times(alice.call("PATCH", f"{task['id']}/complete").json)[1] > times(before)[1]


def test_later_version_has_the_later_time_even_where_its_transaction_began_first(
    app: Flask, alice: User
):
    first, second = alice.create(), alice.create()
    with app.extensions["database"].transaction() as connection:
        connection.fetch("select_version", user_id="alice")
        alice.call("PATCH", f"{second['id']}/complete")
        connection.fetch("toggle_task", user_id="alice", task_id=first["id"], versions=None)
    second, first = sorted(alice.all(), key=lambda task: task["version"])
    assert times(second)[1] < times(first)[1]


def test_tasks_of_a_batch_or_an_import_have_the_later_time_even_where_its_transaction_began_first(
    app: Flask, alice: User
):
    with app.extensions["database"].transaction() as connection:
        connection.fetch("select_version", user_id="alice")
        alice.create()
        connection.fetch("insert_tasks", user_id="alice", tasks='[{"title": "x"}]', max_stored=2)
    second, first = alice.all()
    assert times(second)[0] > times(first)[0]


def test_toggle_turns_completed_over_and_back(alice: User):
    task = alice.create()
    responses = [alice.call("PATCH", f"{task['id']}/complete") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 200]
    assert [response.json["completed"] for response in responses] == [True, False, True]


def test_concurrent_toggles_are_all_applied(app: Flask, alice: User):
    task = alice.create()

    def toggle(_: int) -> int:
        return User(app.test_client(), "alice").call("PATCH", f"{task['id']}/complete").status_code

    with ThreadPoolExecutor(20) as threads:
        assert set(threads.map(toggle, range(21))) == {200}  # an odd number
    assert alice.call("GET", task["id"]).json["completed"] is True


def test_tasks_created_at_once_are_listed_in_the_order_of_their_times(app: Flask, alice: User):
    def create(_: int) -> None:
        user = User(app.test_client(), "alice")
        for _ in range(5):
            user.create()

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(create, range(20)))
    times = [task["created_at"] for task in alice.all()]
    assert times == sorted(set(times), reverse=True)


def test_delete_answers_204_without_a_body_and_the_task_is_gone(alice: User):
    task = alice.create()
    response = alice.call("DELETE", task["id"])
    assert (response.status_code, response.data) == (204, b"")
    assert "Content-Type" not in response.headers
    assert alice.all() == []


def test_deleted_task_is_not_deleted_twice(alice: User):
    task = alice.create()
    alice.call("DELETE", task["id"])
    assert_error(alice.call("DELETE", task["id"]), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "12"), ("PUT", "12"), ("DELETE", "12"), ("PATCH", "12/complete")],
)
def test_missing_task_is_404_and_says_so_to_the_front_end(alice: User, method: str, path: str):
    response = alice.call(method, path, json={"title": "Buy milk"})
    assert_error(response, 404, "not_found", "Resource not found: task 12")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_is_no_task_id_is_404(alice: User, method: str):
    task = alice.create()
    for task_id in NO_TASK_IDS:
        response = alice.call(method, f"{alice.tasks}/{task_id}", json={"title": "Buy milk"})
        assert_error(response, 404, "not_found", "There is nothing at this path.")
    assert alice.all() == [task]


def test_content_type_without_a_body_is_fine(alice: User):
    task = alice.create()
    for method, path in [("GET", ""), ("PATCH", f"{task['id']}/complete"), ("DELETE", task["id"])]:
        response = alice.call(method, path, headers=JSON)
        assert response.status_code in {200, 204}


def test_create_whose_commit_fails_is_no_success(alice: User, postgresql: psycopg.Connection):
    postgresql.execute("ALTER TABLE tasks ADD UNIQUE (title) DEFERRABLE INITIALLY DEFERRED")
    postgresql.commit()
    task = alice.create()
    assert_error(alice.call("POST", json={"title": task["title"]}), 409, "conflict")
    assert alice.all() == [task]
