"""Statements of the documents about one user: given back, listed, deleted, how much."""

import re
from typing import Any

import psycopg
import pytest
from listing import Copy, ids
from support import EVERY_TABLE, User, tables_with_users, trash_of, write_to_every_table

from config import PROJECT

DOCUMENT = (PROJECT / "docs/database.md").read_text()


def blocks(heading: str, kind: str) -> list[str]:
    """Read the statements below a heading."""
    [section] = re.findall(rf"^#+ {heading}\n.*?(?=^##)", DOCUMENT, re.MULTILINE | re.DOTALL)
    return re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)


[OUT_OF_TRASH] = blocks("Out of the trash", "sql")
[FROM_BACKUP, FROM_OLD] = blocks("From a backup, or from another id", "text")
[GIVE] = blocks("From a backup, or from another id", "sql")
[EVERYTHING] = blocks("Everything that is stored about a user", "sql")


@pytest.fixture
def copy(alice: User) -> Copy:
    return Copy(alice)


def run(owner: psycopg.Connection, statements: str, **names: str) -> list[tuple[Any, ...]]:
    """Run statements for alice, in place of demo."""
    for given, name in {"demo": "alice", **names}.items():
        statements = statements.replace(f"'{given}'", f"'{name}'")
    cursor = owner.execute(statements.encode())
    rows = cursor.fetchall() if cursor.description else []
    owner.commit()
    return rows


def save(owner: psycopg.Connection) -> None:
    """Have a table `saved` of alice's tasks, as from a backup of this moment."""
    make, fill = FROM_BACKUP.strip().splitlines()
    assert fill.strip() == "\\copy saved FROM 'tasks.copy'"
    run(owner, make)
    run(owner, "INSERT INTO saved SELECT * FROM tasks WHERE user_id = 'alice'")


def stored(owner: psycopg.Connection, user: User) -> int:
    statement = "SELECT stored, (SELECT count(*) FROM tasks WHERE user_id = %(id)s)"
    statement += " FROM task_counters WHERE user_id = %(id)s"
    [(counted, there)] = owner.execute(statement, {"id": user.id}).fetchall()
    owner.commit()
    assert counted == there
    return there


def test_all_that_one_request_deleted_comes_out_of_the_trash(
    alice: User, bob: User, copy: Copy, postgresql: psycopg.Connection
):
    other, *tasks = [alice.create() for _ in range(3)]
    bob.call("DELETE", bob.create()["id"], headers={"X-Request-Id": "the-request"})
    alice.call("DELETE", other["id"])
    deletions = [{"op": "delete", "id": task["id"]} for task in tasks]
    batch = {"operations": deletions}
    alice.call("POST", "batch", json=batch, headers={"X-Request-Id": "the-request"})
    copy.catch_up()
    run(postgresql, OUT_OF_TRASH, **{"0c5b8d…": "the-request"})
    assert ids(copy.follow()) == [task["id"] for task in tasks]
    assert copy.all() == alice.all()
    assert ids(trash_of(alice)) == [other["id"]]
    assert len(trash_of(bob)) == 1
    assert stored(postgresql, alice) == 3


def test_tasks_that_are_gone_are_given_back_from_a_backup_and_others_stay_as_they_are(
    alice: User, bob: User, copy: Copy, postgresql: psycopg.Connection
):
    kept, trashed, gone = [alice.create(title, tags=["home"]) for title in "abc"]
    copy.catch_up()
    save(postgresql)
    changed = alice.call("PATCH", kept["id"], json={"title": "changed"}).json
    for task in [trashed, gone]:
        alice.call("DELETE", task["id"])
    alice.call("DELETE", f"/api/alice/trash/{gone['id']}")
    new, of_bob = alice.create(), bob.create()
    run(postgresql, GIVE)
    assert {task["id"] for task in alice.all()} == {kept["id"], gone["id"], new["id"]}
    given = alice.call("GET", gone["id"]).json
    assert given == gone | {"version": given["version"]}
    assert alice.call("GET", kept["id"]).json == changed
    assert ids(trash_of(alice)) == [trashed["id"]]
    copy.catch_up()
    assert copy.all() == alice.all()
    assert alice.create()["version"] > given["version"]
    assert stored(postgresql, alice) == 5
    assert bob.all() == [of_bob]


def test_user_who_was_deleted_is_given_back_and_no_copy_misses_it(
    alice: User, copy: Copy, postgresql: psycopg.Connection
):
    tasks = [alice.create() for _ in range(3)]
    copy.catch_up()
    since = copy.since
    save(postgresql)
    [delete] = blocks("Delete what a user left", "sql")
    run(postgresql, delete)
    run(postgresql, GIVE)
    assert ids(alice.all()) == ids(tasks)[::-1]
    copy.since = since
    assert ids(copy.catch_up()) == ids(tasks)
    assert stored(postgresql, alice) == 3


def test_tasks_of_another_id_are_given_beside_ones_own_with_their_trash(
    alice: User, bob: User, copy: Copy, postgresql: psycopg.Connection
):
    mine = alice.create()
    copy.catch_up()
    first, second, trashed = [bob.create(title) for title in "abc"]
    bob.call("DELETE", trashed["id"])
    first = bob.call("PATCH", first["id"], json={"priority": "high"}).json
    run(postgresql, FROM_OLD, old="bob")
    run(postgresql, GIVE)
    by_change = alice.call("GET", query_string={"sort": "updated"}).json
    assert ids(by_change) == [first["id"], second["id"], mine["id"]]
    assert by_change[0] == first | {"user_id": "alice", "version": by_change[0]["version"]}
    assert ids(trash_of(alice)) == [trashed["id"]]
    assert set(ids(copy.follow())) == {first["id"], second["id"], trashed["id"]}
    assert copy.all() == alice.all()
    assert stored(postgresql, alice) == 4
    [entry] = run(
        postgresql, "SELECT task_ids FROM audit_log WHERE action = 'create' AND request_id = ''"
    )
    assert entry == ([first["id"], second["id"], trashed["id"]],)


def test_everything_that_is_stored_of_a_user_is_listed_and_nothing_of_others(
    alice: User, bob: User, postgresql: psycopg.Connection
):
    for user in [alice, bob]:
        write_to_every_table(user)
    rows = run(postgresql, EVERYTHING)
    assert {table for table, _ in rows} == {*tables_with_users(), "audit_log"}, EVERY_TABLE
    assert {row["user_id"] for _, row in rows} == {"alice"}


def test_nothing_of_a_user_who_is_deleted_is_left_and_all_of_others(
    alice: User, bob: User, postgresql: psycopg.Connection
):
    for user in [alice, bob]:
        write_to_every_table(user)
    of_bob = EVERYTHING.replace("'demo'", "'bob'")
    kept = run(postgresql, of_bob)
    [delete] = blocks("Delete what a user left", "sql")
    run(postgresql, delete)
    assert run(postgresql, EVERYTHING) == []
    assert sorted(map(str, run(postgresql, of_bob))) == sorted(map(str, kept))
    [vacuumed] = re.findall(r"`VACUUM \(ANALYZE\) ([\w, ]+);`", DOCUMENT)
    emptied = sorted([*tables_with_users(), "audit_log"])
    assert sorted(vacuumed.split(", ")) == emptied, "it belongs in the VACUUM of docs/database.md"


def test_statements_of_operations_name_the_users_who_write_and_keep_most(
    alice: User, bob: User, postgresql: psycopg.Connection
):
    text = (PROJECT / "docs/operations.md").read_text()
    section = text.partition("## The audit\n")[2].partition("\n## ")[0]
    newest, most = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    for user in [alice, bob, bob]:
        user.create()
    own = newest.replace("'demo'", "'alice'")
    assert [row[1] for row in postgresql.execute(own.encode())] == ["create"]
    entries, tasks, size = [
        postgresql.execute(statement.encode()).fetchall() for statement in most.splitlines()
    ]
    assert entries == [("bob", "", "create", 2), ("alice", "", "create", 1)]
    assert tasks == [("bob", 2), ("alice", 1)]
    assert [user for user, _ in size] == ["bob", "alice"]
