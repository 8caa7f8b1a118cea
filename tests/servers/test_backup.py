"""The commands of docs/database.md for a backup and a move: what arrives is what was there."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import processes
import psycopg
import pytest
from own_postgres import database_on, raise_what_is_given_out
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from support import User, app_on, trash_of

import migrate
import roles
from config import PROJECT
from development import embedded


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two databases of an owner, one of them migrated, on a server as old as our `pg_dump`."""
    with ExitStack() as stack:
        place = conninfo_to_dict(
            stack.enter_context(embedded.running(tmp_path / "postgres", ["fsync=off"]))
        )
        place |= {"maintenance_dbname": place["dbname"], "template_dbname": None}
        server = SimpleNamespace(**place, password="")
        old = stack.enter_context(database_on(server, "to back up"))
        new = stack.enter_context(database_on(server, "restored"))
        migrate.migrate(old)
        yield old, new


def test_restored_database_serves_the_same_tasks_and_goes_on_with_new_ids(
    databases: tuple[str, str], tmp_path: Path
):
    old, new = databases
    with app_on(old) as app:
        alice = User(app.test_client(), "alice")
        for title in ("Milch 🥛", "Brot", "gone"):
            task = alice.create(title, tags=["home"], due_at="2027-01-01")
        assert alice.call("DELETE", task["id"]).status_code == 204
        tasks, trash = alice.all(), trash_of(alice)
    assert [task["title"] for task in trash] == ["gone"]

    programs, dump = embedded.binaries(), f"{tmp_path}/tasks.dump"
    back_up = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--no-publications"]
    back_up += [f"--file={dump}", old]
    restore = ["pg_restore", "--no-owner", "--exit-on-error", f"--dbname={new}", dump]
    for program, *arguments in (back_up, restore):
        subprocess.run([programs / program, *arguments], check=True)
    migrate.migrate(new)  # nothing is pending
    raise_what_is_given_out(new)
    as_api = processes.as_url(new, user="tasks_api")
    roles.grant(new, as_api)  # as `make migrate` does

    with app_on(as_api) as app:
        alice = User(app.test_client(), "alice")
        assert (alice.all(), trash_of(alice)) == (tasks, trash)
        new_task = alice.create("Käse")
    assert new_task["id"] > task["id"] + 1_000_000
    assert new_task["version"] > task["version"] + 1_000_000


def test_user_who_is_copied_to_another_database_finds_the_same_and_goes_on_with_new_ids(
    databases: tuple[str, str],
):
    old, new = databases
    migrate.migrate(new)
    with app_on(old) as app:
        alice = User(app.test_client(), "alice")
        *_, trashed, newest = [alice.create(title, tags=["home"]) for title in "abcd"]
        assert alice.call("DELETE", trashed["id"]).status_code == 204
        with psycopg.connect(old) as connection:  # 1.0's tasks have the first version
            connection.execute("SET session_replication_role = replica")
            connection.execute("UPDATE tasks SET version = 1 WHERE id = 1")
        tasks, trash = alice.all(), trash_of(alice)

    text = (PROJECT / "docs/database.md").read_text()
    found = re.search(r"```sql\n +(SELECT setval.+?)```", text, re.DOTALL)
    assert found
    with psycopg.connect(old) as source, psycopg.connect(new) as target:
        target.execute("SET session_replication_role = replica")
        for table in ("task_counters", "tasks", "purged_tasks", "idempotency_keys"):
            name = sql.Identifier(table)
            theirs = sql.SQL("COPY (SELECT * FROM {} WHERE user_id = 'alice') TO STDOUT")
            with source.cursor().copy(theirs.format(name)) as read:
                rows = b"".join(read)
            with target.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(name)) as written:
                written.write(rows)
        target.execute(found[1].encode())

    with app_on(new) as app:
        alice = User(app.test_client(), "alice")
        assert (alice.all(), trash_of(alice)) == (tasks, trash)
        assert alice.create("e")["id"] == newest["id"] + 1
    with psycopg.connect(new) as connection:
        assert connection.execute("SELECT stored FROM task_counters").fetchall() == [(5,)]
