"""Operations in any order, against a plain model, and a client that follows `changes`."""

from itertools import count
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support import User, assert_error
from transfers import DEFAULTS
from werkzeug.test import TestResponse

import events
from blueprints.batch import SCHEMA_OF_OPERATION
from lean_flask import current_request
from schemas import TaskUpdate
from trail import WRITES

Fields = dict[str, Any]

NUMBERS = count()
TITLE = {"title": st.sampled_from(["Buy milk", "buy bread", "Äpfel", "100%"])}
CREATED = {
    "description": st.none() | st.just("Two"),
    "priority": st.sampled_from(["none", "low", "high"]),
    "due_at": st.sampled_from([None, "2026-12-01", "2026-12-01T09:30:00+00:00"]),
    "tags": st.sampled_from([[], ["home"], ["shop", "home"]]),
}
WRITTEN = CREATED | {"completed": st.booleans()}
NEW = st.fixed_dictionaries(TITLE, optional=CREATED)
PUT = st.fixed_dictionaries(TITLE, optional=WRITTEN)
PATCH = st.fixed_dictionaries({}, optional=TITLE | WRITTEN)
PLACE = st.integers(0, 3)
OPS = ["create", "patch", "complete", "delete", "restore"]
CHANGES = st.lists(st.tuples(st.sampled_from(OPS), PUT), max_size=4)


class Model(RuleBasedStateMachine):
    """What a user stores; `place` chooses a task of those there are, or none."""

    def __init__(self, client: FlaskClient, connection: psycopg.Connection) -> None:
        super().__init__()
        self.connection = connection
        self.user = User(client, f"user-{next(NUMBERS)}")
        self.trash_path = f"/api/{self.user.id}/trash"
        self.tasks: dict[int, Fields] = {}
        self.trash: dict[int, Fields] = {}
        self.versions: dict[int, int] = {}
        self.followed: dict[int, Fields] = {}
        self.since: dict[str, str] = {}
        self.created = 0
        events.LISTENERS[:] = [self.hear]

    def hear(self, event: str, _label: str, count: int) -> None:
        self.created += count if event == "tasks_created" else 0

    def keep(self, task: Fields, expected: Fields) -> None:
        """Have a task be as it is expected, and newer than it was."""
        task_id = task["id"]
        assert {name: task[name] for name in expected} == expected
        assert task["version"] > self.versions.get(task_id, 0)
        assert (task["completed_at"] is not None) == task["completed"]
        self.tasks[task_id], self.versions[task_id] = expected, task["version"]

    def is_found(self, tasks: dict[int, Fields], task_id: int, response: TestResponse) -> bool:
        """Have a request succeed where the model has its task, and be a 404 elsewhere."""
        if task_id not in tasks:
            assert_error(response, 404, "not_found")
            return False
        assert response.status_code in {200, 204}, response.text
        return True

    def change(self, place: int, method: str, path: str, fields: Fields | None) -> None:
        task_id = id_at(self.tasks, place)
        response = self.user.call(method, path.format(task_id), json=fields)
        if self.is_found(self.tasks, task_id, response):
            old = self.tasks[task_id]
            new = {"completed": not old["completed"]} if fields is None else fields
            self.keep(response.json, old | new)

    @rule(fields=NEW)
    def create(self, fields: Fields) -> None:
        self.keep(self.user.create(**fields), DEFAULTS | fields)

    @rule(fields=NEW)
    def create_twice_with_one_key(self, fields: Fields) -> None:
        headers = {"Idempotency-Key": f"key-{next(NUMBERS)}"}
        first, second = (self.user.call("POST", json=fields, headers=headers) for _ in range(2))
        assert first.json == second.json
        self.keep(first.json, DEFAULTS | fields)

    @rule(place=PLACE, fields=PUT)
    def put(self, place: int, fields: Fields) -> None:
        self.change(place, "PUT", "{}", fields)

    @rule(place=PLACE, fields=PATCH)
    def patch(self, place: int, fields: Fields) -> None:
        self.change(place, "PATCH", "{}", fields)

    @rule(place=PLACE)
    def toggle(self, place: int) -> None:
        self.change(place, "PATCH", "{}/complete", None)

    @rule(place=PLACE)
    def delete(self, place: int) -> None:
        task_id = id_at(self.tasks, place)
        if self.is_found(self.tasks, task_id, self.user.call("DELETE", task_id)):
            self.trash[task_id] = self.tasks.pop(task_id)

    @rule(place=PLACE)
    def restore(self, place: int) -> None:
        task_id = id_at(self.trash, place)
        response = self.user.call("POST", f"{self.trash_path}/{task_id}/restore")
        if self.is_found(self.trash, task_id, response):
            self.keep(response.json, self.trash.pop(task_id))

    @rule(place=PLACE)
    def purge(self, place: int) -> None:
        task_id = id_at(self.trash, place)
        response = self.user.call("DELETE", f"{self.trash_path}/{task_id}")
        if self.is_found(self.trash, task_id, response):
            del self.trash[task_id]

    @rule()
    def empty_trash(self) -> None:
        assert self.user.call("DELETE", self.trash_path).status_code == 204
        self.trash.clear()

    @rule(changes=CHANGES, fails=st.booleans())
    def batch(self, changes: list[tuple[str, Fields]], *, fails: bool) -> None:
        ids, trashed = iter(sorted(self.tasks)), iter(sorted(self.trash))
        operations: list[Fields] = []
        for name, fields in changes:
            if name == "create":
                task = {key: value for key, value in fields.items() if key != "completed"}
                operations.append({"op": name, "task": task})
            elif task_id := next(trashed if name == "restore" else ids, None):
                operations.append({"op": name, "id": task_id})
                if name == "patch":
                    operations[-1]["task"] = fields
        if fails or not operations:
            operations.append({"op": "delete", "id": id_at({}, 0)})
            response = self.user.call("POST", "batch", json={"operations": operations})
            assert_error(response, 404, "not_found")
            return
        response = self.user.call("POST", "batch", json={"operations": operations})
        for operation, task in zip(operations, response.json["results"], strict=True):
            if operation["op"] == "delete":
                self.trash[operation["id"]] = self.tasks.pop(operation["id"])
            elif operation["op"] == "restore":
                self.keep(task, self.trash.pop(task["id"]))
            else:
                old = self.tasks.get(task["id"], DEFAULTS)
                self.keep(task, old | operation.get("task", {"completed": True}))

    @rule(entries=st.lists(PUT, max_size=2))
    def import_file(self, entries: list[Fields]) -> None:
        assert self.user.call("POST", "import", json=entries).json == {"imported": len(entries)}
        new = self.user.all()[: len(entries)]
        for task, entry in zip(reversed(new), entries, strict=True):
            self.keep(task, DEFAULTS | entry)

    @rule(limit=st.integers(1, 3))
    def follow(self, limit: int) -> None:
        self.has_followed(limit)

    def has_followed(self, limit: int) -> bool:
        """Ask for one page of changes; tell whether it was the last."""
        query = self.since | {"limit": limit}
        page = self.user.call("GET", "changes", query_string=query).json
        for task in page["changes"]:
            self.followed.pop(task["id"], None)
            if not task.pop("deleted"):
                self.followed[task["id"]] = task
        self.since = {"since": page["next"]}
        return not page["more"]

    @invariant()
    def lists_are_as_the_model(self) -> None:
        listed = {task["id"]: task for task in self.user.all()}
        assert list(listed) == sorted(self.tasks, reverse=True)
        for task_id, fields in self.tasks.items():
            assert fields.items() <= listed[task_id].items()
        trash = self.user.call("GET", self.trash_path).json
        assert {task["id"] for task in trash} == self.trash.keys()

    def teardown(self) -> None:
        while not self.has_followed(50):
            pass
        assert self.followed == {task["id"]: task for task in self.user.all()}
        assert self.created == len(self.versions), "each new task is counted by emit"
        stored = "SELECT stored FROM task_counters WHERE user_id = %s"
        for (number,) in self.connection.execute(stored, [self.user.id]):
            assert number == len(self.tasks) + len(self.trash), "MAX_TASKS_PER_USER counts wrongly"


def id_at(tasks: dict[int, Fields], place: int) -> int:
    return sorted(tasks)[place] if place < len(tasks) else 2**63 - 1


def test_model_knows_every_kind_of_operation_of_a_batch():
    assert set(OPS) == SCHEMA_OF_OPERATION.keys(), "teach it to Model.batch"


def test_model_knows_every_field():
    assert {*TITLE, *WRITTEN} == TaskUpdate().fields.keys(), "give it values in CREATED"


@pytest.mark.no_cover  # other tests cover what these run
def test_operations_in_any_order_end_as_a_plain_model_says(
    alice: User, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "LISTENERS", [])
    app, tried = alice.client.application, set()
    dispatch = app.dispatch_request

    def note_and_dispatch() -> ResponseReturnValue:
        tried.add(current_request().endpoint)
        return dispatch()

    monkeypatch.setattr(app, "dispatch_request", note_and_dispatch)
    run_state_machine_as_test(
        lambda: Model(alice.client, postgresql),
        settings=settings(
            derandomize=True,
            deadline=None,
            phases=set(Phase) - {Phase.explain},  # of what fails; it would take minutes
            max_examples=12,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )
    writes = {rule.endpoint for rule in app.url_map.iter_rules() if WRITES & rule.methods}
    assert writes <= tried, "give each operation that writes a rule in Model"
