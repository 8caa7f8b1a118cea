"""What the line of a refusal or a fault tells: its cause, and no value of anybody's row."""

import json
import re
import select
import sys

import psycopg
import pytest
from flask import Flask
from issuer import Issuer, answer_with, get_me
from support import Lines, NewApp, User, bearer, token_for

from capacity.transfer_limits import IMPORTS_AT_ONCE, RESPONSES_AT_ONCE
from config import PROJECT
from observability.observe import cause_of


def test_probe_that_fails_is_a_line_with_its_cause(
    app: Flask, lines: Lines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("blueprints.health.pending_migrations", lambda _: ["0009"])
    app.test_client().get("/readyz")
    [line] = lines()
    assert (line["level"], line["cause"]) == ("warning", "ApiError: The database lacks migrations.")


def test_probe_that_postgresql_refuses_is_a_line_with_what_it_said(
    app: Flask, lines: Lines, postgresql: psycopg.Connection
):
    postgresql.execute("REVOKE SELECT ON schema_migrations FROM tasks_api")
    postgresql.commit()
    assert app.test_client().get("/readyz").status_code == 503
    [line] = lines()
    assert (line["level"], line["sqlstate"]) == ("warning", "42501")
    assert "permission denied" in line["cause"]


def test_token_that_is_refused_is_logged_with_the_reason(alice: User, lines: Lines):
    old = bearer(token_for("alice", exp=1))
    for headers in [{"Authorization": ""}, old]:
        alice.call("GET", headers=headers)
    alice.call("GET", "/api/bob/tasks")
    assert [line["refused"] for line in lines()] == ["missing", "expired", "owner"]
    assert [line.get("user") for line in lines()] == [None, "alice", "alice"]


def test_token_that_cannot_be_verified_is_logged_with_the_reason(
    issuer: Issuer, gate: Flask, lines: Lines
):
    issuer.behave = answer_with(b"", "500 Internal Server Error")
    assert get_me(gate, issuer.token()).status_code == 503
    assert lines()[-1]["refused"] == "keys_unavailable"


def test_token_for_somewhere_else_is_logged_with_what_it_has_and_what_is_set_here(
    issuer: Issuer, gate: Flask, lines: Lines
):
    elsewhere = "http://127.0.0.1:3000"
    for claim in ["iss", "aud"]:
        get_me(gate, issuer.token(**{claim: elsewhere}))
    get_me(gate, issuer.token(aud=["a" * 9_000]))
    causes = [line["cause"] for line in lines()[-3:]]
    assert causes[0] == f"InvalidIssuerError: iss is {elsewhere!r}, and here {issuer.origin}"
    assert causes[1] == f"InvalidAudienceError: aud is {elsewhere!r}, and here {issuer.origin}"
    assert len(causes[2]) < 300


def test_refusal_beyond_the_limit_is_logged_with_its_reason_and_not_audited(
    lines: Lines, new_app: NewApp, postgresql: psycopg.Connection
):
    limited = new_app(auth_failure_limit="1/day")
    client = limited.test_client()
    for headers in [{}, {}, {"Authorization": "Bearer x.y.z"}]:
        client.get("/api/alice/tasks", headers=headers)
    limited.extensions["auditor"].close(10)
    assert [(line["status"], line["refused"]) for line in lines()] == [
        (401, "missing"),
        (429, "missing"),
        (429, "malformed"),
    ]
    audited = postgresql.execute("SELECT action FROM audit_log ORDER BY at").fetchall()
    assert audited == [("refuse",), ("limit",)]


def test_large_response_that_has_no_place_is_a_line_with_its_cause(
    app: Flask, alice: User, lines: Lines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("blueprints.transfer.PLACE_TIMEOUT", 0.05)
    held = [alice.call("GET", "export", buffered=False) for _ in range(RESPONSES_AT_ONCE)]
    alice.call("GET", "export")
    [line] = lines()
    assert (line["status"], line["level"]) == (503, "warning")
    assert line["cause"] == "NoPlace: the user is receiving 4 large responses"
    for each in held:
        each.close()


def test_import_that_has_no_place_is_a_line_with_its_cause(
    app: Flask, alice: User, lines: Lines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("capacity.transfer_limits.PLACE_TIMEOUT", 0.05)
    uploads, places = app.extensions["uploads"], app.extensions["import_places"]
    sends = uploads.acquire("alice", 0)
    alice.call("POST", "import", json=[])
    uploads.release(sends)
    for _ in range(IMPORTS_AT_ONCE):
        places.acquire()
    alice.call("POST", "import", json=[])
    for _ in range(IMPORTS_AT_ONCE):
        places.release()
    assert [line["cause"] for line in lines()] == [
        "NoPlace: the user is sending another file",
        "NoPlace: 4 other imports are being read",
    ]


def test_reply_that_does_not_come_is_a_line_with_its_cause_and_the_process_that_owes_it(
    new_app: NewApp, postgresql: psycopg.Connection, lines: Lines, monkeypatch: pytest.MonkeyPatch
):
    app = new_app()
    monkeypatch.setattr(app.extensions["database"], "_reply_timeout", 0.5)
    postgresql.execute("LOCK tasks")
    assert User(app.test_client(), "alice").call("GET").status_code == 503
    [line] = (line for line in lines() if line["event"] == "request")
    assert line["cause"] == "OperationalError: the server does not reply"
    assert line["pg_pid"] > 0


def test_fault_of_ours_is_one_line_with_its_traceback(
    app: Flask, alice: User, lines: Lines, monkeypatch: pytest.MonkeyPatch
):
    def fetch(*_: object, **__: object) -> None:
        raise RuntimeError("cause\nin two lines")

    monkeypatch.setattr(app.extensions["database"], "fetch", fetch)
    response = alice.call("GET")
    [line] = lines()
    assert (line["level"], line["status"]) == ("error", 500)
    assert line["cause"] == "RuntimeError: cause\nin two lines"
    assert line["exception"].startswith("Traceback")
    assert line["request_id"] == response.json["details"]["request_id"]


def test_error_of_a_list_is_a_line_that_a_pipe_takes_at_once(
    alice: User, postgresql: psycopg.Connection, lines: Lines
):
    """Otherwise lines of other processes end up within it."""
    postgresql.execute("ALTER TABLE tasks RENAME COLUMN priority TO other")
    postgresql.commit()
    assert alice.call("GET").status_code == 500
    [line] = lines()
    assert "UndefinedColumn" in line["exception"]
    assert "^^" not in line["exception"]
    in_image = json.dumps(line).replace(sys.prefix, "/usr/local").replace(str(PROJECT), "/app")
    assert len(in_image) < select.PIPE_BUF


def test_row_that_a_constraint_refuses_does_not_reach_the_log(
    alice: User, lines: Lines, postgresql: psycopg.Connection
):
    postgresql.execute("ALTER TABLE tasks ADD CONSTRAINT no_milk CHECK (title <> 'Buy milk')")
    postgresql.execute("ALTER TABLE tasks ALTER COLUMN description SET NOT NULL")
    postgresql.commit()
    for title, status in [("Buy milk", 422), ("Buy bread", 500)]:
        fields = {"title": title, "description": "private=1" if status == 422 else None}
        assert alice.call("POST", json=fields).status_code == status
    checked, missing = lines()
    assert (checked["sqlstate"], checked["constraint"]) == ("23514", "no_milk")
    assert missing["sqlstate"] == "23502"
    assert "exception" in missing
    assert not re.search("Buy|private", json.dumps([checked, missing]))


def test_row_does_not_reach_the_log_where_the_role_is_the_tables_owner(
    new_app: NewApp, owner_url: str, postgresql: psycopg.Connection, lines: Lines
):
    """PostgreSQL tells such a role the whole row, as row-level security does not hold it."""
    postgresql.execute("ALTER TABLE tasks ALTER COLUMN description SET NOT NULL")
    postgresql.commit()
    alice = User(new_app(database_url=owner_url).test_client(), "alice")
    assert alice.call("POST", json={"title": "Buy bread"}).status_code == 500
    [line] = lines()
    assert line["sqlstate"] == "23502"
    assert "Buy" not in json.dumps(line)


def test_value_that_postgresql_refuses_is_not_quoted_in_the_log():
    error = psycopg.errors.InvalidTextRepresentation('invalid input: "Buy milk"')
    assert cause_of(error, is_ours=False) == {"sqlstate": "22P02"}
    assert "Buy milk" in cause_of(error, is_ours=True)["cause"]
