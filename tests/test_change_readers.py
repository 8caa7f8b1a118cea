"""Readers of changes beside writers: nothing is missed, however late it is committed."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import processes
import psycopg
import pytest
from batches import CREATE, batch
from flask import Flask
from listing import Copy
from psycopg.rows import tuple_row
from support import User
from werkzeug.test import TestResponse

from blueprints.tasks import parameters_of
from connection import Connection
from database import Database


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

    def send_batch(op: str, path: str) -> TestResponse:
        return batch(user, {"op": op, "id": any_task(path)}, CREATE)

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
        lambda: send_batch("delete", "tasks"),
        lambda: send_batch("restore", "trash"),
        write_slowly,
        write_slowly,
    ]
    for turn in range(writes):
        response = kinds[turn % len(kinds)]() if turn < len(kinds) else dice.choice(kinds)()
        assert getattr(response, "status_code", 200) in {200, 204, 404}
    if number == 0:
        user.call("DELETE", "/api/alice/trash")


@pytest.mark.no_cover
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
    """Shows why versions do not come from a sequence: a later number may be committed first."""
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
