"""Tasks deleted for good: one, the whole trash, and what `manage.py purge` finds too old."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import processes
import psycopg
import pytest
from flask import Flask
from processes import RunHere
from psycopg.conninfo import make_conninfo
from support import User, refusal, someone_waits_for, trash_of

from database import DatabaseUnavailable
from migrate import known_migrations
from purge import purge_trash

TRASH = "/api/alice/trash"


def fill(postgresql: psycopg.Connection, owners: list[str], tasks: int, days: int = 0) -> None:
    """Put tasks into the trash of each owner, as so many deletions would, days ago.

    Of 24 hours, as purge counts them in UTC: where a clock is put forward, a local day is shorter.
    """
    postgresql.execute(
        "INSERT INTO tasks (user_id, title, version, deleted_at)"
        " SELECT owner, 'old', n + 1, now() - make_interval(hours => 24 * %s)"
        " FROM unnest(%s::text[]) AS owner, generate_series(1, %s) AS n",
        (days, owners, tasks),
    )
    postgresql.execute(
        "INSERT INTO task_counters AS c (user_id, version, stored)"
        " SELECT owner, %s, %s FROM unnest(%s::text[]) AS owner"
        " ON CONFLICT (user_id) DO UPDATE SET stored = c.stored + excluded.stored,"
        " version = greatest(c.version, excluded.version)",
        (tasks + 1, tasks, owners),
    )
    postgresql.commit()


def counts(postgresql: psycopg.Connection, owner: str = "alice") -> tuple[int, int, int]:
    """Count what a user has stored, by counter and in fact, and the tombstones."""
    postgresql.rollback()
    row = postgresql.execute(
        "SELECT (SELECT stored FROM task_counters WHERE user_id = %(owner)s),"
        " (SELECT count(*) FROM tasks WHERE user_id = %(owner)s),"
        " (SELECT count(*) FROM purged_tasks WHERE user_id = %(owner)s)",
        {"owner": owner},
    ).fetchone()
    assert row
    return row


def test_purged_task_is_gone_and_leaves_a_tombstone(
    alice: User, trashed: dict, postgresql: psycopg.Connection
):
    response = alice.call("DELETE", f"{TRASH}/{trashed['id']}")
    assert (response.status_code, response.data) == (204, b"")
    assert trash_of(alice) == []
    assert counts(postgresql) == (0, 0, 1)
    rows = postgresql.execute("SELECT id, version FROM purged_tasks").fetchall()
    assert rows == [(trashed["id"], 5)]
    assert alice.create()["version"] == 6


def test_purge_during_another_write_gets_a_later_version(
    alice: User, trashed: dict, postgresql: psycopg.Connection
):
    postgresql.execute("UPDATE task_counters SET version = version + 1")
    with ThreadPoolExecutor(1) as thread:
        purging = thread.submit(alice.call, "DELETE", f"{TRASH}/{trashed['id']}")
        processes.wait_until(lambda: someone_waits_for(postgresql))
        postgresql.commit()
        assert purging.result().status_code == 204
    assert postgresql.execute("SELECT version FROM purged_tasks").fetchall() == [(6,)]
    assert alice.create()["version"] == 7


def test_emptied_trash_is_empty_and_the_tasks_stay(
    alice: User, bob: User, trashed: dict, postgresql: psycopg.Connection
):
    task, other = alice.create(), bob.create()
    bob.call("DELETE", other["id"])
    response = alice.call("DELETE", TRASH)
    assert (response.status_code, response.data) == (204, b"")
    assert (alice.all(), trash_of(alice)) == ([task], [])
    assert counts(postgresql) == (1, 1, 1)
    assert len(trash_of(bob)) == 1
    assert alice.call("DELETE", TRASH).status_code == 204


def test_trash_of_thousands_is_emptied_in_short_statements(
    alice: User, postgresql: psycopg.Connection
):
    fill(postgresql, ["alice"], 3500)
    assert alice.call("DELETE", TRASH).status_code == 204
    assert counts(postgresql) == (0, 0, 3500)
    lengths = "SELECT cardinality(task_ids) FROM audit_log WHERE action = 'purge' ORDER BY 1"
    assert postgresql.execute(lengths).fetchall() == [(500,), (1000,), (1000,), (1000,)]


def test_many_purges_restores_and_emptyings_at_once_count_each_task_once(
    app: Flask, alice: User, postgresql: psycopg.Connection
):
    ids = [alice.create()["id"] for _ in range(30)]
    for task_id in ids:
        alice.call("DELETE", task_id)
    calls = [("DELETE", f"{TRASH}/{task_id}") for task_id in ids[:20]] * 2
    calls += [("POST", f"{TRASH}/{task_id}/restore") for task_id in ids[10:]] * 2
    calls.insert(40, ("DELETE", TRASH))

    def call(given: tuple[str, str]) -> int:
        return User(app.test_client(), "alice").call(*given).status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(call, calls))
    assert set(statuses) <= {200, 204, 404}
    stored, in_fact, tombstones = counts(postgresql)
    assert stored == in_fact == statuses.count(200)
    assert tombstones == 30 - stored
    assert trash_of(alice) == []


# manage.py purge


@pytest.fixture
def purge(owner_url: str, run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> RunHere:
    """The command, whose statements take so few tasks and users that it needs several."""
    for size in ["TASKS_PER_STATEMENT", "OWNERS_PER_STATEMENT"]:
        monkeypatch.setattr(f"purge.{size}", 10)
    return partial(run_here, "purge", DATABASE_URL=processes.as_url(owner_url))


def deleted(tasks: int, days: int = 30) -> str:
    others = "0 expired idempotency keys, 0 audit entries older than 365 days"
    return f"Deleted {tasks} tasks that were in the trash for {days} days, {others}."


def test_purge_deletes_what_is_too_old_of_every_user_and_nothing_else(
    alice: User, bob: User, trashed: dict, postgresql: psycopg.Connection, purge: RunHere
):
    postgresql.execute("UPDATE tasks SET deleted_at = now() - interval '696 hours'")
    task = bob.create()
    fill(postgresql, ["alice"], 25, days=31)
    fill(postgresql, [f"user {number}" for number in range(1, 22, 2)], 1, days=31)
    fill(postgresql, [f"user {number}" for number in range(0, 22, 2)], 1, days=29)
    newest = alice.create()["id"]
    alice.call("DELETE", newest)
    assert purge() == (0, [deleted(36)])
    assert counts(postgresql) == (2, 2, 25)
    assert [each["id"] for each in trash_of(alice)] == [newest, trashed["id"]]
    assert counts(postgresql, "user 0") == (1, 1, 0)
    assert counts(postgresql, "user 21") == (0, 0, 1)
    assert bob.all() == [task]
    assert purge() == (0, [deleted(0)])
    assert purge(TRASH_DAYS=29) == (0, [deleted(12, days=29)])


def test_purge_finds_old_trash_behind_what_was_deleted_while_the_clock_was_ahead(
    postgresql: psycopg.Connection, purge: RunHere
):
    fill(postgresql, ["alice"], 1, days=-400)
    postgresql.execute(
        "INSERT INTO tasks (user_id, title, version, deleted_at)"
        " VALUES ('alice', 'old', 3, now() - interval '31 days')"
    )
    postgresql.execute("UPDATE task_counters SET version = 3, stored = 2")
    postgresql.commit()
    assert purge() == (0, [deleted(1)])
    assert counts(postgresql) == (1, 1, 1)


def test_purge_of_the_rest_goes_on_where_one_kind_cannot_be_deleted(
    trashed: dict, postgresql: psycopg.Connection, purge: RunHere
):
    postgresql.execute("UPDATE tasks SET deleted_at = now() - interval '31 days'")
    postgresql.execute("INSERT INTO audit_log VALUES (now() - interval '366 days', 'x', 'x')")
    postgresql.execute("ALTER TABLE idempotency_keys RENAME TO elsewhere")
    postgresql.commit()
    assert refusal(purge).startswith("Not all was deleted: ")
    left = (
        "SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM audit_log WHERE action = 'x')"
    )
    assert postgresql.execute(left).fetchone() == (0, 0)


def test_purge_that_gets_no_connection_any_more_ends_in_one_line(
    purge: RunHere, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("purge.purge_old_trash", Mock(side_effect=DatabaseUnavailable("away")))
    assert refusal(purge) == "Not all was deleted: away."


def test_purge_goes_on_with_others_where_one_user_is_busy(
    postgresql: psycopg.Connection, owner_url: str, purge: RunHere
):
    fill(postgresql, ["a", "b", "c"], 1, days=31)
    with psycopg.connect(owner_url) as other:
        other.execute("SELECT FROM task_counters WHERE user_id = 'b' FOR UPDATE")
        told = refusal(purge, DATABASE_STATEMENT_TIMEOUT=200)
    assert told.startswith("Not all was deleted: canceling statement")
    left = postgresql.execute("SELECT user_id FROM tasks").fetchall()
    assert left == [("b",)]


def test_purge_gives_tombstones_a_version_of_their_own(
    trashed: dict, postgresql: psycopg.Connection, purge: RunHere
):
    postgresql.execute("ALTER TABLE tasks DISABLE TRIGGER tasks_count_update")
    postgresql.execute("UPDATE tasks SET deleted_at = now() - interval '31 days'")
    postgresql.commit()
    assert purge()[0] == 0
    rows = postgresql.execute("SELECT id, version FROM purged_tasks").fetchall()
    assert rows == [(trashed["id"], 5)]


def test_purge_goes_on_from_a_time_in_whatever_style_the_role_writes_them(
    purge: RunHere, owner_url: str, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    """SQL writes 11/30/2026, which YMD does not read."""
    monkeypatch.setattr("purge.ENTRIES_PER_STATEMENT", 1)  # so that there is a next statement
    postgresql.execute("INSERT INTO audit_log VALUES (now() - interval '366 days', 'x', 'x')")
    postgresql.commit()
    styled = make_conninfo(owner_url, options="-c DateStyle=SQL,YMD")
    code, [line] = purge(DATABASE_URL=processes.as_url(styled))
    assert code == 0, line
    assert line.endswith(", 1 audit entries older than 365 days.")


def test_purge_without_a_database_ends_in_one_line(purge: RunHere):
    code, lines = purge(DATABASE_URL="postgresql://localhost:1/nowhere")
    assert code == 1
    assert [line for line in lines if "Traceback" in line] == []
    assert lines[-1].startswith("Error: The database of MIGRATION_DATABASE_URL, or else of")
    assert len(lines) == 1


def test_purge_where_nothing_can_be_written_ends_in_one_line(owner_url: str, tmp_path: Path):
    read_only = make_conninfo(owner_url, options="-c default_transaction_read_only=on")
    folder, url = processes.copy_of_project(tmp_path), processes.as_url(read_only)
    told = refusal(processes.manage, folder, "purge", DATABASE_URL=url)
    assert told.endswith(" in a read-only transaction.")


def test_purge_that_cannot_read_the_migrations_ends_in_one_line(
    purge: RunHere, owner_url: str, postgresql: psycopg.Connection
):
    postgresql.execute("LOCK schema_migrations")
    hasty = make_conninfo(owner_url, options="-c lock_timeout=100")
    told = refusal(purge, DATABASE_URL=processes.as_url(hasty))
    assert told == "The database refused it: canceling statement due to lock timeout."


def test_purge_of_a_database_behind_the_code_names_the_command_to_run(
    purge: RunHere, postgresql: psycopg.Connection
):
    newest = known_migrations()[-2:]
    postgresql.execute("DELETE FROM schema_migrations WHERE version = ANY (%s)", [newest])
    postgresql.commit()
    assert refusal(purge).startswith(
        f"The database lacks migrations ({', '.join(newest)}): run `make migrate`"
    )


def test_purge_in_the_role_of_the_api_says_whose_it_needs(purge: RunHere, database_url: str):
    assert "set MIGRATION_DATABASE_URL" in refusal(
        purge, DATABASE_URL=processes.as_url(database_url)
    )


def test_purge_in_a_role_from_which_policies_hide_rows_does_not_say_that_there_are_none(
    purge: RunHere, database_url: str, postgresql: psycopg.Connection
):
    fill(postgresql, ["alice"], 1, days=31)
    postgresql.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO tasks_api")
    postgresql.commit()
    told = refusal(purge, DATABASE_URL=processes.as_url(database_url))
    assert told.startswith("Row-level security hides rows from the role tasks_api: ")


def test_purge_is_safe_beside_users(
    app: Flask, alice: User, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    """A task that has left the trash, or come back to it, since it was found there stays."""
    monkeypatch.setattr("purge.TASKS_PER_STATEMENT", 1)
    ids = [alice.create()["id"] for _ in range(3)]
    for task_id in ids:
        alice.call("DELETE", task_id)
    purging = purge_trash(app.extensions["database"], "alice")
    assert next(purging) == 1  # all three were found
    for task_id in ids[1:]:
        alice.call("POST", f"{TRASH}/{task_id}/restore")
    alice.call("DELETE", ids[2])
    assert list(purging) == []
    assert [task["id"] for task in trash_of(alice)] == [ids[2]]
    assert counts(postgresql) == (2, 2, 1)
