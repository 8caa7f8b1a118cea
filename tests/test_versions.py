"""Versions: ETag, If-Match and If-None-Match of single tasks, and the counters behind them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from flask import Flask
from support import User, assert_error

from content_encoding import ALGORITHMS

WRITES = {
    "PUT": ("{}", {"title": "Mine"}),
    "PATCH": ("{}", {"title": "Mine"}),
    "toggle": ("{}/complete", None),
    "DELETE": ("{}", None),
}
# A proxy in front that compresses makes strong tags weak, or adds its own suffix.
MATCH = ['"{}"', "*", ' "{}" ', 'W/"{}"', 'W/"{}:gzip"', '"x", "{}", W/"9"', "{}"]
MATCH += [f'"{{}}{mark}{name}"' for mark in ":-" for name in ALGORITHMS]
NO_SUFFIX = ['"{}:deflate"', '"{}:"', '"{}:br:br"', '"br:{}"', '"{}br"']
NO_MATCH = ['"1"', '"9999"', '"abc"', "", "3", "2, 3", '"2', '"x", "y"', f'"{2**63}"', '"-1"']
NO_MATCH += ['"1:br"', *NO_SUFFIX]


def write(user: User, name: str, task: dict, if_match: str | None = None, header: str = "If-Match"):
    path, body = WRITES[name]
    headers = {} if if_match is None else {header: if_match.format(task["version"])}
    method = "PATCH" if name == "toggle" else name
    return user.call(method, path.format(task["id"]), json=body, headers=headers)


@pytest.fixture
def task(alice: User) -> dict:
    return alice.create()


def test_every_response_with_a_task_has_its_version_as_etag(alice: User, task: dict):
    responses = [
        alice.call("POST", json={"title": "Buy bread"}),
        alice.call("GET", task["id"]),
        *(write(alice, name, task) for name in WRITES if name != "DELETE"),
    ]
    for response in responses:
        assert response.headers["ETag"] == f'"{response.json["version"]}"'


def test_version_moves_with_every_change(alice: User, task: dict):
    versions = [task["version"]]
    versions += [write(alice, name, task).json["version"] for name in ["PUT", "PATCH", "toggle"]]
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("name", WRITES)
def test_if_match_of_the_version_writes(alice: User, name: str):
    for if_match in MATCH:
        response = write(alice, name, alice.create(), if_match)
        assert response.status_code in {200, 204}, if_match


@pytest.mark.parametrize("name", WRITES)
def test_if_match_of_another_version_is_412_and_nothing_is_written(
    alice: User, task: dict, name: str
):
    for if_match in NO_MATCH:
        response = write(alice, name, task, if_match)
        assert_error(response, 412, "precondition_failed")
        assert alice.all() == [task]


@pytest.mark.parametrize(
    ("method", "path", "body"), [("POST", "", {"title": "x"}), ("DELETE", "/api/alice/trash", None)]
)
def test_if_match_of_anything_writes_where_there_is_no_version(
    alice: User, method: str, path: str, body: Any
):
    assert alice.call(method, path, json=body, headers={"If-Match": "*"}).status_code < 300


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("name", WRITES)
def test_condition_on_a_missing_task_is_404(
    alice: User, bob: User, task: dict, name: str, header: str
):
    for tag in ["*", '"1"', '"{}"']:
        assert_error(write(bob, name, task, tag, header), 404, "not_found")


@pytest.mark.parametrize("name", WRITES)
def test_if_none_match_of_the_version_is_412_and_nothing_is_written(
    alice: User, task: dict, name: str
):
    for tag in ["*", '"{}"', 'W/"{}"', '"{}:br"', '"x", "{}"', "{}"]:
        response = write(alice, name, task, tag, "If-None-Match")
        assert_error(response, 412, "precondition_failed")
        assert alice.all() == [task]


@pytest.mark.parametrize("name", WRITES)
def test_if_none_match_of_other_versions_writes(alice: User, task: dict, name: str):
    assert write(alice, name, task, '"1", "x"', "If-None-Match").status_code in {200, 204}


def test_if_none_match_of_the_version_is_304_without_a_body(alice: User, task: dict):
    for tag in ['"{}"', 'W/"{}"', "*", '"x", "{}"', " {} "]:
        headers = {"If-None-Match": tag.format(task["version"])}
        response = alice.call("GET", task["id"], headers=headers)
        assert (response.status_code, response.data) == (304, b""), tag
        assert response.headers["ETag"] == f'"{task["version"]}"'
        assert "Content-Type" not in response.headers


def test_if_none_match_of_another_version_is_200(alice: User, task: dict):
    now = write(alice, "toggle", task).json["version"]
    for tag in [f'"{task["version"]}"', *(each.format(now) for each in NO_SUFFIX)]:
        response = alice.call("GET", task["id"], headers={"If-None-Match": tag})
        assert response.status_code == 200, tag


def test_twenty_writers_with_if_match_make_one_change_a_version(app: Flask, alice: User):
    """Each reads, changes what it read, and retries if another was faster."""
    task = alice.create(description="")

    def append(number: int) -> int:
        user = User(app.test_client(), "alice")
        while True:
            seen = user.call("GET", task["id"])
            text = f"{seen.json['description']}{number},"
            response = user.call(
                "PATCH",
                task["id"],
                json={"description": text},
                headers={"If-Match": seen.headers["ETag"]},
            )
            if response.status_code == 200:
                return int(response.json["version"])
            assert_error(response, 412, "precondition_failed")

    with ThreadPoolExecutor(8) as threads:
        versions = list(threads.map(append, range(20)))
    assert len(set(versions)) == 20
    final = alice.call("GET", task["id"]).json
    assert sorted(map(int, final["description"].rstrip(",").split(","))) == list(range(20))


@pytest.fixture
def old_code(postgresql: psycopg.Connection) -> Callable[[str], None]:
    """Run what the release before this one runs, while a deploy rolls."""

    def run(statement: str) -> None:
        postgresql.execute(statement)
        postgresql.commit()

    return run


def counters(postgresql: psycopg.Connection) -> tuple[int, int]:
    postgresql.rollback()
    row = postgresql.execute("SELECT version, stored FROM task_counters").fetchone()
    assert row
    return row


def test_writes_of_the_old_code_are_counted(
    alice: User, postgresql: psycopg.Connection, old_code: Callable[[str], None]
):
    old_code("INSERT INTO tasks (user_id, title) VALUES ('alice', 'old')")
    assert counters(postgresql) == (2, 1)
    [task] = alice.all()
    old_code("UPDATE tasks SET title = 'older', updated_at = now()")
    assert counters(postgresql) == (3, 1)
    assert alice.all()[0]["version"] == 3 > task["version"]
    assert alice.create()["version"] == 4
    old_code("DELETE FROM tasks WHERE title = 'older'")
    assert counters(postgresql) == (5, 1)
    assert postgresql.execute("SELECT id, version FROM purged_tasks").fetchall() == [
        (task["id"], 5)
    ]
    assert alice.create()["version"] == 6


def test_task_that_the_old_code_reopens_has_no_time_of_completion(
    alice: User, task: dict, old_code: Callable[[str], None]
):
    assert alice.call("PATCH", f"{task['id']}/complete").json["completed_at"]
    old_code("UPDATE tasks SET completed = NOT completed")
    [reopened] = alice.all()
    assert (reopened["completed"], reopened["completed_at"]) == (False, None)


@pytest.mark.parametrize("path", ["", "{id}", "changes", "export"])
def test_if_match_of_a_get_is_not_heeded(alice: User, task: dict, path: str):
    response = alice.call("GET", path.format(**task), headers={"If-Match": '"999"'})
    assert response.status_code == 200
