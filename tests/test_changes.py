"""What changed since a cursor: all of it, once, in the order of the commits."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import processes
import psycopg
import pytest
from flask import Flask
from psycopg.rows import tuple_row
from support import User, assert_error

from blueprints.tasks import parameters_of
from connection import Connection
from database import Database
from schemas import ChangedTask, Changes, Task


class Copy:
    """A client's copy of a user's tasks, kept up to date by `changes` alone."""

    def __init__(self, user: User, limit: int = 1000) -> None:
        self.user = user
        self.limit = limit
        self.since: str | None = None
        self.tasks: dict[int, dict] = {}

    def ask(self) -> dict[str, Any]:
        query = {"limit": self.limit} | ({"since": self.since} if self.since else {})
        response = self.user.call("GET", "changes", query_string=query)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json
        return answer

    def follow(self) -> list[dict]:
        """Apply one page of changes; return them."""
        answer = self.ask()
        self.since = answer["next"]
        for change in answer["changes"]:
            if change["deleted"]:
                self.tasks.pop(change["id"], None)
            else:
                self.tasks[change["id"]] = change
        return answer["changes"]

    def catch_up(self) -> list[dict]:
        changes: list[dict] = []
        while page := self.follow():
            changes += page
        return changes

    def all(self) -> list[dict]:
        """List the copy as the API lists the tasks."""
        tasks = [self.tasks[task_id] for task_id in sorted(self.tasks, reverse=True)]
        return [{name: task[name] for name in task if name != "deleted"} for task in tasks]


@pytest.fixture
def copy(alice: User) -> Copy:
    return Copy(alice)


def trash(user: User, task: dict) -> dict:
    assert user.call("DELETE", task["id"]).status_code == 204
    return task


def purge(user: User, task: dict) -> None:
    assert user.call("DELETE", f"/api/{user.id}/trash/{task['id']}").status_code == 204


def ids(changes: list[dict]) -> list[int]:
    return [change["id"] for change in changes]


def test_user_without_tasks_has_no_changes_and_a_cursor(copy: Copy):
    for _ in range(2):
        answer = copy.ask()
        assert (answer["changes"], answer["more"]) == ([], False)
        copy.since = answer["next"]
    task = copy.user.create()
    assert ids(copy.follow()) == [task["id"]]


def test_answer_has_exactly_the_documented_fields(alice: User, copy: Copy):
    assert copy.follow() == []
    kept, trashed, gone = alice.create(), alice.create(), alice.create()
    copy.since = copy.ask()["next"]
    alice.call("PATCH", f"{kept['id']}/complete")
    trash(alice, trashed)
    purge(alice, trash(alice, gone))
    answer = copy.ask()
    assert Changes().validate(answer) == {}
    assert answer.keys() == Changes().fields.keys()
    changed, deleted, purged = answer["changes"]
    assert changed.keys() == deleted.keys() == ChangedTask().fields.keys()
    assert [changed["deleted"], deleted["deleted"]] == [False, True]
    assert {name: changed[name] for name in Task().fields} == alice.all()[0]
    assert purged == {
        "id": gone["id"],
        "user_id": "alice",
        "version": changed["version"] + 3,
        "deleted": True,
    }


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


def test_task_changed_twice_stands_there_once_as_it_is_now(alice: User, copy: Copy):
    first, second = alice.create(), alice.create()
    copy.catch_up()
    for task in [first, second, first]:
        alice.call("PATCH", f"{task['id']}/complete")
    assert ids(copy.follow()) == [second["id"], first["id"]]
    assert copy.all() == alice.all()


def test_first_page_names_nothing_deleted_and_the_next_ask_does(alice: User, copy: Copy):
    kept, trashed, gone = alice.create(), alice.create(), alice.create()
    trash(alice, trashed)
    purge(alice, trash(alice, gone))
    assert ids(copy.follow()) == [kept["id"]]
    assert copy.follow() == []
    trash(alice, kept)
    assert copy.follow()[0]["deleted"] is True


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9, 1000])
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
            {"user_id": "alice", "tasks": '[{"title": "a"}, {"title": "b"}]', "max_stored": 9},
        )
    for task in tasks:
        trash(alice, task)
    purge(alice, tasks[0])
    alice.call("DELETE", "/api/alice/trash")
    changes = copy.catch_up()
    assert len(ids(changes)) == len(set(ids(changes))) == 7
    assert copy.all() == alice.all()
    assert len(copy.tasks) == 3


def test_more_tells_whether_there_is_more(alice: User, copy: Copy):
    for _ in range(4):
        alice.create()
    copy.limit = 2
    seen = []
    for _ in range(3):
        answer = copy.ask()
        seen.append((len(answer["changes"]), answer["more"]))
        copy.since = answer["next"]
    assert seen == [(2, True), (2, False), (0, False)]


def test_changes_are_no_task(alice: User):
    for method in ["POST", "PUT", "PATCH", "DELETE"]:
        response = alice.call(method, "changes", json={"title": "t"})
        assert_error(response, 405, "method_not_allowed")


# Nothing is missed


def write_at_random(app: Flask, number: int, writes: int) -> None:
    """Write what a user's device could write, on any of the user's tasks; undo some of it."""
    dice = random.Random(number)
    user = User(app.test_client(), "alice")
    database: Database = app.extensions["database"]

    def any_task(path: str = "tasks") -> int:
        tasks = user.call("GET", f"/api/alice/{path}").json
        return dice.choice(tasks)["id"] if tasks else 1

    def write_slowly() -> None:
        """Give others time to commit between a write and its own commit or rollback."""
        statement = dice.choice(["insert_task", "toggle_task", "delete_task"])
        values = {"user_id": "alice", "task_id": any_task(), "versions": None}
        values |= parameters_of({"title": f"slow {number}"}) | {"max_stored": 10**6}
        is_undone = dice.random() < 0.3
        with database.connection() as connection, connection.transaction(force_rollback=is_undone):
            connection.run(statement, values)
            for _ in range(30):
                connection.run("select_version", values)

    kinds: list[Callable[[], Any]] = [
        lambda: user.create(f"of {number}"),
        lambda: user.create(f"of {number}"),
        lambda: user.call("PUT", any_task(), json={"title": "put"}),
        lambda: user.call("PATCH", any_task(), json={"priority": "high"}),
        lambda: user.call("PATCH", f"{any_task()}/complete"),
        lambda: user.call("DELETE", any_task()),
        lambda: user.call("DELETE", any_task()),
        lambda: user.call("POST", f"/api/alice/trash/{any_task('trash')}/restore"),
        lambda: user.call("DELETE", f"/api/alice/trash/{any_task('trash')}"),
        write_slowly,
        write_slowly,
    ]
    for turn in range(writes):
        answer = kinds[turn % len(kinds)]() if turn < len(kinds) else dice.choice(kinds)()
        assert getattr(answer, "status_code", 200) in {200, 204, 404}
    if number == 0:
        user.call("DELETE", "/api/alice/trash")


@pytest.mark.parametrize("limit", [1000, 3])
def test_reader_beside_many_writers_ends_with_what_the_list_has(app: Flask, limit: int):
    copy = Copy(User(app.test_client(), "alice"), limit)
    is_over = threading.Event()
    seen: list[tuple[int, int]] = []

    def read() -> None:
        while not is_over.is_set():
            seen.extend((change["version"], change["id"]) for change in copy.follow())

    with ThreadPoolExecutor(6) as threads:
        reader = threads.submit(read)
        writers = [threads.submit(write_at_random, app, number, 30) for number in range(5)]
        try:
            for writer in writers:
                writer.result()
        finally:
            is_over.set()
        reader.result()
    seen.extend((change["version"], change["id"]) for change in copy.catch_up())
    listed = copy.user.all()
    assert copy.all() == listed
    assert seen == sorted(set(seen))
    again = Copy(copy.user, limit)
    again.catch_up()
    assert again.all() == listed


def follow(read: Callable[[int], list[tuple[int, str]]]) -> Iterator[set[str]]:
    """Read again and again, as any client of a cursor does; yield what it knows by then."""
    position, known = 0, set()
    while True:
        for version, title in read(position):
            position = max(position, version)
            known.add(title)
        yield set(known)


@pytest.fixture
def writers(owner_url: str) -> Iterator[tuple[Connection, Connection]]:
    with Connection.connect(owner_url) as slow, Connection.connect(owner_url) as quick:
        yield slow, quick
        slow.rollback()


def test_reader_of_a_bare_sequence_would_miss_what_is_committed_late(
    postgresql: psycopg.Connection, writers: tuple[Connection, Connection]
):
    """Why versions do not come from a sequence: the same reader sees a later number first."""
    slow, quick = writers
    postgresql.execute("CREATE TABLE plain (version bigserial, title text)")
    postgresql.commit()
    postgresql.autocommit = True

    def read(position: int) -> list[tuple[int, str]]:
        cursor = postgresql.cursor(row_factory=tuple_row)
        return cursor.execute(
            "SELECT version, title FROM plain WHERE version > %s", (position,)
        ).fetchall()

    reader = follow(read)
    slow.execute("INSERT INTO plain (title) VALUES ('slow')")
    quick.execute("INSERT INTO plain (title) VALUES ('quick')")
    quick.commit()
    assert next(reader) == {"quick"}
    slow.commit()
    assert next(reader) == {"quick"}


def test_reader_of_versions_is_told_of_nothing_before_what_is_committed_late(
    alice: User, postgresql: psycopg.Connection, writers: tuple[Connection, Connection]
):
    slow, quick = writers
    copy = Copy(alice)
    reader = follow(lambda _: [(task["version"], task["title"]) for task in copy.follow()])
    task = {"user_id": "alice", "max_stored": 9}

    def is_waiting() -> bool:
        found = postgresql.execute(
            "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", (quick.info.backend_pid,)
        )
        return found.fetchone() == ("Lock",)

    postgresql.autocommit = True
    with ThreadPoolExecutor(1) as thread, slow.transaction():
        slow.run("insert_task", task | parameters_of({"title": "slow"}))
        later = thread.submit(quick.run, "insert_task", task | parameters_of({"title": "quick"}))
        processes.wait_until(is_waiting)
        assert next(reader) == set()
    later.result()
    assert next(reader) == {"slow", "quick"}
