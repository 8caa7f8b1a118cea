"""Idempotency-Key: sent again, a POST or PATCH is answered again and done once."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import processes
import proxy
import psycopg
import pytest
from flask import Flask
from proxy import CUTS, Proxy, Weather
from psycopg.conninfo import make_conninfo
from support import User, assert_error, settings_for
from werkzeug.test import TestResponse

import database
import purge
from connection import Connection
from database import Database

KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}
MILK = {"title": "Grüße 🐄"}
KEPT = ("Content-Type", "ETag", "Location")


def post(user: User, key: dict[str, str] = KEY, **fields: Any) -> TestResponse:
    return user.call("POST", json=MILK | fields, headers=key)


def assert_replayed(response: TestResponse, first: TestResponse) -> None:
    assert (response.status_code, response.data) == (first.status_code, first.data)
    assert [response.headers.get(n) for n in KEPT] == [first.headers.get(n) for n in KEPT]
    assert response.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers


# Once


def test_post_sent_again_is_answered_again_and_makes_one_task(alice: User):
    first = post(alice)
    assert first.status_code == 201
    assert_replayed(post(alice), first)
    assert alice.all() == [first.json]


def test_patch_sent_again_is_answered_as_the_first_time_whatever_came_between(alice: User):
    task = alice.create()
    first = alice.call("PATCH", task["id"], json=MILK, headers=KEY)
    alice.call("PATCH", task["id"], json={"title": "Changed"})
    assert_replayed(alice.call("PATCH", task["id"], json=MILK, headers=KEY), first)
    assert alice.call("GET", task["id"]).json["title"] == "Changed"


def test_completion_sent_again_is_turned_over_once(alice: User):
    task = alice.create()
    first = alice.call("PATCH", f"{task['id']}/complete", headers=KEY)
    assert_replayed(alice.call("PATCH", f"{task['id']}/complete", headers=KEY), first)
    assert alice.call("GET", task["id"]).json["completed"] is True


def test_batch_sent_again_is_done_once(alice: User):
    body = {"operations": [{"op": "create", "task": MILK}]}
    first = alice.call("POST", "batch", json=body, headers=KEY)
    assert_replayed(alice.call("POST", "batch", json=body, headers=KEY), first)
    assert alice.all() == first.json["results"]


def test_import_larger_than_other_bodies_sent_again_is_done_once(alice: User):
    body = [{"title": "x", "description": "x" * 5000}] * 300
    first = alice.call("POST", "import", json=body, headers=KEY)
    assert (first.status_code, first.json) == (201, {"imported": 300})
    assert_replayed(alice.call("POST", "import", json=body, headers=KEY), first)
    assert len(alice.all()) == 300
    assert_error(
        alice.call("POST", "import", json=[*body, {}], headers=KEY), 422, "validation_error"
    )


def test_hundred_repeats_half_of_them_at_once_make_one_task(app: Flask, alice: User):
    barrier = Barrier(50)

    def call(_: int) -> TestResponse:
        user = User(app.test_client(), "alice")
        barrier.wait()
        return post(user)

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(call, range(50)))
    for answer in answers:
        if answer.status_code != 201:
            assert_error(answer, 409, "conflict")
            assert int(answer.headers["Retry-After"]) > 0
    answers += [post(alice) for _ in range(50)]
    done = [answer for answer in answers if answer.status_code == 201]
    assert len(done) > 50
    assert {answer.data for answer in done} == {done[0].data}
    assert Counter("Idempotency-Replayed" in answer.headers for answer in done)[False] == 1
    assert alice.all() == [done[0].json]


@contextmanager
def counter_locked(postgresql: psycopg.Connection) -> Iterator[Callable[[], bool]]:
    """Block everybody's writes; yield the function that tells whether one waits for us."""
    postgresql.execute("SELECT FROM task_counters FOR UPDATE")
    mine = "transactionid = pg_current_xact_id()::xid"  # there are other tests' databases

    def someone_waits() -> bool:
        waiting = f"SELECT FROM pg_locks WHERE NOT granted AND {mine}"
        return bool(postgresql.execute(waiting).fetchall())

    yield someone_waits
    postgresql.rollback()


def test_repeat_while_the_first_still_runs_is_409_at_once(
    app: Flask, alice: User, postgresql: psycopg.Connection
):
    alice.create()
    with ThreadPoolExecutor(1) as thread:
        with counter_locked(postgresql) as someone_waits:
            running = thread.submit(post, User(app.test_client(), "alice"))
            processes.wait_until(someone_waits)
            answer = post(alice)
            assert_error(answer, 409, "conflict")
            assert answer.headers["Retry-After"] == "1"
            assert not running.done()
        first = running.result()
    assert_replayed(post(alice), first)


def test_finished_key_is_replayed_to_all_at_once(app: Flask, alice: User):
    first = post(alice)
    with ThreadPoolExecutor(8) as threads:
        for answer in threads.map(post, [User(app.test_client(), "alice")] * 40):
            assert_replayed(answer, first)


# Keys


@pytest.mark.parametrize("key", ["a", '"a"', "x" * 255, '"' + "x" * 255 + '"', r'"\"\\"', "!~,;="])
def test_key_of_visible_ascii_is_taken(alice: User, key: str):
    first = post(alice, {"Idempotency-Key": key})
    assert first.status_code == 201
    assert_replayed(post(alice, {"Idempotency-Key": key}), first)


@pytest.mark.parametrize(
    "key",
    ["", '""', "a b", '"a b"', "x" * 256, '"' + "x" * 256 + '"', '"a', 'a"', '"a";b', r'"\a"', "é"],
)
def test_malformed_key_is_400_and_nothing_is_done(alice: User, key: str):
    assert_error(post(alice, {"Idempotency-Key": key}), 400, "bad_request")
    assert alice.all() == []


def test_quoted_and_bare_key_are_one(alice: User):
    first = post(alice, {"Idempotency-Key": '"a-1"'})
    assert_replayed(post(alice, {"Idempotency-Key": "a-1"}), first)


def test_keys_of_two_users_do_not_meet(alice: User, bob: User):
    of_alice, of_bob = post(alice), post(bob)
    assert (of_alice.json["user_id"], of_bob.json["user_id"]) == ("alice", "bob")
    assert_replayed(post(bob), of_bob)


def test_key_of_another_request_is_422_and_nothing_is_done(alice: User):
    first = post(alice)
    path = f"{first.json['id']}"
    others = [
        alice.call("POST", json={"title": "Other"}, headers=KEY),
        alice.call(
            "POST", "batch", json={"operations": [{"op": "create", "task": MILK}]}, headers=KEY
        ),
        alice.call("PATCH", path, json=MILK, headers=KEY),
        alice.call("PATCH", f"{path}/complete", headers=KEY),
    ]
    for other in others:
        assert "Idempotency-Key" in assert_error(other, 422, "validation_error")
    assert alice.all() == [first.json]


def test_put_and_delete_need_no_key_and_ignore_one(alice: User):
    task = alice.create()
    for _ in range(2):
        answer = alice.call("PUT", task["id"], json=MILK, headers=KEY)
        assert (answer.status_code, "Idempotency-Replayed" in answer.headers) == (200, False)
    assert alice.call("DELETE", task["id"], headers=KEY).status_code == 204
    assert_error(alice.call("DELETE", task["id"], headers=KEY), 404, "not_found")


def test_request_without_a_key_opens_no_transaction(alice: User, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(Connection, "command")
    task = alice.create()
    assert alice.call("PATCH", f"{task['id']}/complete").status_code == 200


def test_body_is_checked_before_a_transaction_is_opened(
    alice: User, monkeypatch: pytest.MonkeyPatch
):
    """A large import takes longer than a transaction may idle."""
    monkeypatch.delattr(Connection, "command")
    answer = alice.call("POST", "import", json=[{"title": ""}], headers=KEY)
    assert_error(answer, 422, "validation_error")


# Errors


def test_failed_request_leaves_the_key_free(alice: User):
    task = alice.create()
    failed = [
        (422, alice.call("POST", json={"title": ""}, headers=KEY)),
        (400, alice.call("POST", data=b"{", content_type="application/json", headers=KEY)),
        (415, alice.call("POST", data=b"{}", content_type="text/plain", headers=KEY)),
        (413, alice.call("POST", data=b" " * 2_000_000, headers=KEY)),
        (404, alice.call("PATCH", "999999", json=MILK, headers=KEY)),
        (412, alice.call("PATCH", task["id"], json=MILK, headers=KEY | {"If-Match": '"0"'})),
        (401, User(alice.client, "bob").call("POST", alice.tasks, json=MILK, headers=KEY)),
        (404, alice.call("POST", "nowhere", json=MILK, headers=KEY)),
        (405, alice.call("POST", task["id"], json=MILK, headers=KEY)),
    ]
    assert [answer.status_code for _, answer in failed] == [status for status, _ in failed]
    assert alice.all() == [task]
    assert post(alice).status_code == 201


def test_failure_after_the_write_undoes_it(alice: User, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("blueprints.tasks.path_of", None)
    assert_error(post(alice), 500, "internal_error")
    assert alice.all() == []
    monkeypatch.undo()
    assert post(alice).status_code == 201


# The connection is lost at COMMIT


@pytest.fixture
def faulty(app: Flask, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The application's way to PostgreSQL, which can fail."""
    monkeypatch.setattr(database, "REPLY_MARGIN", 0.2)
    with proxy.in_front_of(database_url) as (faulty, url):
        direct = app.extensions["database"]
        through = Database(settings_for(url, database_statement_timeout=500))
        app.extensions["database"] = through
        yield faulty
        through.close()
        app.extensions["database"] = direct


@pytest.mark.parametrize("cut", CUTS)
def test_post_cut_off_at_commit_and_sent_again_makes_one_task(
    alice: User, faulty: Proxy, cut: Weather
):
    faulty.weather = cut
    assert_error(post(alice), 503, "unavailable")
    faulty.weather = Weather.FINE
    answers: list[TestResponse] = []

    def is_done() -> bool:  # 409 while the server has not seen the connection end
        answers.append(post(alice))
        return answers[-1].status_code != 409

    processes.wait_until(is_done)
    assert answers[-1].status_code == 201
    assert ("Idempotency-Replayed" in answers[-1].headers) == (
        cut in {Weather.CUT_AT, Weather.CUT_AFTER}
    )
    assert alice.all() == [answers[-1].json]


# The end of a key


def expire(postgresql: psycopg.Connection, pattern: str = "%") -> None:
    expired = "UPDATE idempotency_keys SET expires_at = now() WHERE key LIKE %s"
    postgresql.execute(expired, [pattern])
    postgresql.commit()


def test_key_is_kept_for_24_hours(alice: User, postgresql: psycopg.Connection):
    post(alice)
    kept = "SELECT expires_at - now() BETWEEN '23:59' AND '24:00' FROM idempotency_keys"
    assert postgresql.execute(kept).fetchone() == (True,)


def test_expired_key_may_be_used_for_another_request(alice: User, postgresql: psycopg.Connection):
    post(alice)
    expire(postgresql)
    second = post(alice, title="Another")
    assert second.status_code == 201
    assert_replayed(post(alice, title="Another"), second)


def test_answer_that_is_kept_is_not_written_over_before_it_expires(app: Flask, alice: User):
    """As when another request has used the key between the claim's snapshot and its lock."""
    first = post(alice)
    other = {"fingerprint": "\\x00", "status": 200, "headers": "{}", "body": "another"}
    key = {"user_id": "alice", "key": KEY["Idempotency-Key"].strip('"')}
    assert app.extensions["database"].fetch("insert_idempotent_answer", **key, **other) == []
    assert_replayed(post(alice), first)


@pytest.fixture
def owner(postgresql: psycopg.Connection) -> Iterator[Database]:
    """The database as the owner of its tables, who purges."""
    info = postgresql.info
    owner = Database(settings_for(make_conninfo(**info.get_parameters(), password=info.password)))
    yield owner
    owner.close()


def test_purge_deletes_the_expired_keys_of_all_users_in_steps(
    alice: User,
    bob: User,
    owner: Database,
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(purge, "KEYS_A_STATEMENT", 2)
    for user in [alice, bob]:
        for number in range(3):
            post(user, {"Idempotency-Key": f"old-{number}"})
    first = post(alice)
    expire(postgresql, "old-%")
    assert purge.purge_idempotency_keys(owner) == 6
    assert purge.purge_idempotency_keys(owner) == 0
    assert_replayed(post(alice), first)
    assert len(bob.all()) == 3
