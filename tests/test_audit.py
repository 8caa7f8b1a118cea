"""The audit: who did what, when, for which request. The API can add to it, but not read it."""

import re
import threading
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from batches import CREATE, done, each
from flask import Flask
from flask.testing import FlaskClient
from issuer import Issuer
from listing import ids
from processes import RunHere, as_url, wait_until
from support import (
    NewApp,
    NoThread,
    User,
    assert_error,
    audit_entries,
    bearer,
    settings_for,
    token_for,
)

import events
from app import create_app
from config import PROJECT

ID = {"X-Request-Id": "the-request"}


def test_every_write_is_entered_with_its_task_and_its_request(
    alice: User, postgresql: psycopg.Connection
):
    task_id = alice.call("POST", json={"title": "Buy milk"}, headers=ID).json["id"]
    trash = f"/api/alice/trash/{task_id}"
    for method, path, body in [
        ("PUT", task_id, {"title": "Buy bread"}),
        ("PATCH", task_id, {"title": "Buy rye"}),
        ("PATCH", f"{task_id}/complete", None),
        ("DELETE", task_id, None),
        ("POST", f"{trash}/restore", None),
        ("DELETE", task_id, None),
        ("DELETE", trash, None),
    ]:
        assert alice.call(method, path, json=body, headers=ID).status_code < 300
    actions = ["create", "update", "update", "update", "delete", "restore", "delete", "purge"]
    assert audit_entries(postgresql) == [
        ("alice", action, [task_id], "", "the-request") for action in actions
    ]


def test_every_table_of_users_has_audit_triggers_for_all_kinds_of_write(
    postgresql: psycopg.Connection,
):
    kept_by_the_server = ["audit_log", "idempotency_keys", "purged_tasks", "task_counters"]
    audited = """
        SELECT table_name, array(
            SELECT event_manipulation::text FROM information_schema.triggers
            WHERE event_object_table = table_name AND action_statement LIKE '%%audit%%'
            ORDER BY 1
        )
        FROM information_schema.columns
        WHERE table_schema = 'public' AND column_name = 'user_id' AND table_name <> ALL (%s)
        """
    tables = dict(postgresql.execute(audited, [kept_by_the_server]).fetchall())
    assert "tasks" in tables
    for name, kinds in tables.items():
        assert kinds == ["DELETE", "INSERT", "UPDATE"], name


def test_every_action_stands_in_operations():
    text = (PROJECT / "docs/operations.md").read_text()
    [section] = re.findall(r"^## The audit\n.*?^## ", text, re.MULTILINE | re.DOTALL)
    written = re.findall(r"(?:THEN|ELSE) '(\w+)'", (PROJECT / "schema.sql").read_text())
    reported = (PROJECT / "observability/audit.py").read_text()
    written += re.findall(r'action, detail = "(\w+)"', reported)
    assert {"create", "purge", "limit"} <= set(written)
    assert [action for action in written if f"`{action}`" not in section] == []


def test_batch_is_one_entry_a_statement(alice: User, postgresql: psycopg.Connection):
    """Also of two tasks, the fewest that are more than one."""
    tasks = done(alice, CREATE, CREATE)
    for op in ["complete", "delete", "restore"]:
        done(alice, *each(op, tasks[::-1]))
    found = [(action, task_ids) for _, action, task_ids, *_ in audit_entries(postgresql)]
    assert found == [(action, ids(tasks)) for action in ["create", "update", "delete", "restore"]]


def test_statement_by_hand_is_one_entry_for_each_user_and_action(
    alice: User, bob: User, postgresql: psycopg.Connection
):
    first, second, third = alice.create()["id"], alice.create()["id"], bob.create()["id"]
    alice.call("DELETE", second)
    postgresql.execute("DELETE FROM audit_log")
    swap = "UPDATE tasks SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END"
    for statement in [
        "UPDATE tasks SET priority = 'high' WHERE false",
        "UPDATE tasks SET priority = 'high'",
        swap,
        "DELETE FROM tasks WHERE user_id = 'bob'",
        "INSERT INTO tasks (user_id, title) VALUES ('carol', 'x'), ('dave', 'x')",
        "DELETE FROM tasks",
    ]:
        postgresql.execute(statement)
        postgresql.commit()  # the time of an entry is its transaction's
    found = [(user, action, ids) for user, action, ids, *_ in audit_entries(postgresql)]
    [fourth], [fifth] = (ids for *_, ids in found[-2:])
    assert found[:6] == [
        ("alice", "update", [first, second]),
        ("bob", "update", [third]),
        ("alice", "delete", [first]),
        ("bob", "delete", [third]),
        ("alice", "restore", [second]),
        ("bob", "purge", [third]),
    ]
    assert sorted(found[6:]) == [
        ("alice", "purge", [first, second]),
        ("carol", "create", [fourth]),
        ("carol", "purge", [fourth]),
        ("dave", "create", [fifth]),
        ("dave", "purge", [fifth]),
    ]


def test_write_that_is_refused_leaves_no_entry(alice: User, postgresql: psycopg.Connection):
    alice.call("POST", json={"title": ""})
    alice.call("PUT", "12", json={"title": "Buy milk"})
    assert audit_entries(postgresql) == []


def test_refused_token_and_export_are_entered(
    app: Any, alice: User, client: FlaskClient, postgresql: psycopg.Connection
):
    assert client.options("/api/alice/tasks/export", headers=ID).status_code == 200
    assert alice.call("HEAD", "export").status_code == 200
    client.get("/api/alice/tasks", headers=ID)
    client.get("/api/bob/tasks", headers=alice.headers | ID)
    client.get("/api/carol/tasks", headers=bearer(token_for("carol", exp=1)) | ID)
    assert alice.call("GET", "export", headers=ID).data
    wait_until(lambda: len(audit_entries(postgresql)) == 4)
    assert audit_entries(postgresql) == [
        ("", "refuse", [], "missing", "the-request"),
        ("alice", "refuse", [], "owner", "the-request"),
        ("carol", "refuse", [], "expired", "the-request"),
        ("alice", "export", [], "", "the-request"),
    ]


def test_entries_are_written_by_one_thread(app: Flask, alice: User):
    def export_and_count_writers() -> int:
        assert alice.call("GET", "export").status_code == 200
        return [thread.name for thread in threading.enumerate()].count("audit")

    assert len({export_and_count_writers() for _ in range(3)}) == 1


def test_export_that_fails_is_not_entered(app: Flask, alice: User, postgresql: psycopg.Connection):
    postgresql.execute("REVOKE SELECT ON tasks FROM tasks_api")
    postgresql.commit()
    assert_error(alice.call("GET", "export"), 500, "internal_error")
    app.extensions["auditor"].close(10)
    assert audit_entries(postgresql) == []


def test_limit_hit_again_and_again_is_entered_once(new_app: NewApp, postgresql: psycopg.Connection):
    limited = new_app(rate_limit="1/day")
    alice = User(limited.test_client(), "alice")
    statuses = [alice.call("GET", headers=ID).status_code for _ in range(5)]
    assert statuses == [200, 429, 429, 429, 429]
    limited.extensions["auditor"].close(10)
    assert audit_entries(postgresql) == [
        ("alice", "limit", [], "/api/{user_id}/tasks", "the-request")
    ]


def test_entry_whose_thread_cannot_start_is_written_with_the_next_entry(
    new_app: NewApp, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    app = new_app()
    with monkeypatch.context() as patch:
        patch.setattr("observability.audit.Thread", NoThread)
        assert_error(app.test_client().get("/api/alice/tasks"), 401, "unauthorized")
    assert_error(app.test_client().get("/api/alice/tasks"), 401, "unauthorized")
    app.extensions["auditor"].close(10)
    assert len(audit_entries(postgresql)) == 2


def test_entries_wait_for_a_database_that_is_away(
    database_url: str,
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr("observability.audit.PAUSE", 0.01)
    app = create_app(settings_for("postgresql://localhost:1/nowhere"))
    auditor = app.extensions["auditor"]
    assert_error(app.test_client().get("/api/alice/tasks"), 401, "unauthorized")
    wait_until(lambda: "the audit waits for the database" in caplog.text)
    auditor.close(0)
    assert "the audit lost 1 entries at the stop" in caplog.text
    returned = datetime.now(UTC)
    auditor.url = database_url
    auditor.close(10)
    assert len(audit_entries(postgresql)) == 1
    asked = postgresql.execute("SELECT at < %s FROM audit_log", [returned])
    assert asked.fetchone() == (True,)
    assert caplog.text.count("the audit waits for the database") == 1


def test_entries_beyond_those_that_may_wait_fail_no_request_and_each_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    told: list[tuple[str, str, int]] = []
    monkeypatch.setattr(events, "LISTENERS", [lambda *event: told.append(event)])
    monkeypatch.setattr("observability.audit.MAX_WAITING", 2)
    app = create_app(settings_for("postgresql://"))
    app.extensions["auditor"]._writer = threading.Thread()  # which writes none
    for _ in range(3):
        assert_error(app.test_client().get("/api/alice/tasks"), 401, "unauthorized")
    assert "the audit lost an entry" in caplog.text
    app.extensions["auditor"].close(0)
    assert told == [("audit_lost", "", 1), ("audit_lost", "", 2)]


@pytest.mark.parametrize(
    "statement",
    ["SELECT action FROM audit_log", "DELETE FROM audit_log", "UPDATE audit_log SET action = ''"],
)
def test_api_role_can_neither_read_nor_change_the_audit(database_url: str, statement: str):
    with (
        psycopg.connect(database_url) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_purge_deletes_all_that_is_older_than_audit_days(
    alice: User,
    postgresql: psycopg.Connection,
    owner_url: str,
    run_here: RunHere,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("purge.ENTRIES_PER_STATEMENT", 1)
    *_, new = (alice.create()["id"] for _ in range(3))
    postgresql.execute(
        "UPDATE audit_log SET at = now() - interval '11 days' WHERE NOT %s = ANY (task_ids)", (new,)
    )
    postgresql.commit()
    code, lines = run_here("purge", DATABASE_URL=as_url(owner_url), AUDIT_DAYS=10)
    assert code == 0, lines
    assert [task_ids for _, _, task_ids, _, _ in audit_entries(postgresql)] == [[new]]


def test_application_without_a_database_starts_no_audit_thread(
    application: Flask, client: FlaskClient
):
    assert_error(client.get("/api/alice/tasks"), 401, "unauthorized")
    assert application.extensions["auditor"]._writer is None


def test_token_that_could_not_be_verified_is_not_audited(
    new_app: NewApp, issuer: Issuer, postgresql: psycopg.Connection
):
    token = issuer.token()
    issuer.go_away()
    waiting = new_app(better_auth_url=issuer.origin)
    client = waiting.test_client()
    judged = bearer(token) | ID
    assert_error(client.get("/api/alice/tasks", headers=judged), 503, "unavailable")
    assert_error(client.get("/api/alice/tasks", headers=ID), 401, "unauthorized")
    waiting.extensions["auditor"].close(10)
    assert audit_entries(postgresql) == [("", "refuse", [], "missing", "the-request")]


def test_entry_has_the_address_of_the_client(
    app: Flask, client: FlaskClient, postgresql: psycopg.Connection
):
    client.get("/api/alice/tasks", environ_base={"REMOTE_ADDR": "192.0.2.1"})
    app.extensions["auditor"].close(10)
    entered = postgresql.execute("SELECT action, address FROM audit_log").fetchall()
    assert entered == [("refuse", "192.0.2.1")]
