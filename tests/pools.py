"""A pool of connections that tests use directly."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from processes import wait_until
from psycopg.pq.abc import PGresult

from blueprints.tasks import parameters_of
from connection import Connection
from database import Database

THREADS = 4
NewPool = Callable[..., Database]
POOL_SIZE = 2 * THREADS  # of which a user has half at most


def at_once(count: int, call: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(count)]]


def wait_until_all_are_free(db: Database) -> None:
    def all_are_free() -> bool:
        stats = db._pool.get_stats()
        assert stats["pool_size"] <= POOL_SIZE
        return stats["pool_available"] == stats["pool_size"] and stats["requests_waiting"] == 0

    wait_until(all_are_free, 5)


def count_round_trips(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Note the connection of each: to a distant database, one takes longer than all else."""
    trips = []
    await_results = Connection._results

    def count(self: Connection, *args: Any, **kwargs: Any) -> list[PGresult]:
        trips.append(self)
        return await_results(self, *args, **kwargs)

    monkeypatch.setattr(Connection, "_results", count)
    return trips


def toggle(db: Database, task_id: int) -> object:
    return db.fetch("toggle_task", user_id="alice", task_id=task_id, versions=None)


def insert(db: Database, title: str = "Buy milk") -> int:
    values = parameters_of({"title": title})
    [(_, _, task_id)] = db.fetch("insert_task", user_id="alice", max_stored=1000, **values)
    return int(task_id)
