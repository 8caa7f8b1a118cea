"""Idempotency-Keys: their form, whose they are, which request they stand for, and their end."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from flask import Flask
from idempotent import KEY, MILK, assert_replayed, post
from processes import RunHere, as_url, wait_until
from support import User, assert_error, settings_for, someone_waits_for

import idempotency
import purge
from capacity.rate_limits import MUCH_KEPT, Limit
from connection import Row, Value
from database import Database

# Their form and their owners


def test_key_of_printable_ascii_is_taken(alice: User):
    for key in ["a", '"b"', "x" * 255, '"' + "y" * 255 + '"', r'"\"\\"', "!~,;=", '" a b"']:
        first = post(alice, {"Idempotency-Key": key})
        assert first.status_code == 201, key
        assert_replayed(post(alice, {"Idempotency-Key": key}), first)


def test_malformed_key_is_400_and_nothing_is_done(alice: User):
    long = "x" * 256
    for key in ["", '""', "a b", long, f'"{long}"', '"a', 'a"', '"a";b', r'"\a"', "é"]:
        assert_error(post(alice, {"Idempotency-Key": key}), 400, "bad_request")
    assert alice.all() == []


def test_quoted_and_bare_key_are_one(alice: User):
    for quoted, bare in [('"a-1"', "a-1"), (r'"a\\1"', r"a\1")]:
        first = post(alice, {"Idempotency-Key": quoted})
        assert_replayed(post(alice, {"Idempotency-Key": bare}), first)


def test_same_key_of_two_users_stands_for_two_requests(alice: User, bob: User):
    of_alice, of_bob = post(alice), post(bob)
    assert (of_alice.json["user_id"], of_bob.json["user_id"]) == ("alice", "bob")
    assert_replayed(post(bob), of_bob)


def test_repeat_with_another_body_is_422_even_if_the_body_is_ignored(alice: User):
    path = f"{alice.create()['id']}/complete"
    first = alice.call("PATCH", path, json={"a": 1}, headers=KEY)
    assert_replayed(alice.call("PATCH", path, json={"a": 1}, headers=KEY), first)
    other = alice.call("PATCH", path, json={"a": 2}, headers=KEY)
    assert "Idempotency-Key" in assert_error(other, 422, "validation_error")


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


# Their end


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
    kept = "SELECT expires_at - created_at = '24:00' FROM idempotency_keys"
    assert postgresql.execute(kept).fetchone() == (True,)


def test_response_that_is_kept_is_not_written_over_before_it_expires(app: Flask, alice: User):
    """As if another request had used the key since the claim, which its lock prevents."""
    first = post(alice)
    other = {"fingerprint": "\\x00", "status": 200, "headers": "{}", "body": "another"}
    key = {"user_id": "alice", "key": KEY["Idempotency-Key"].strip('"')}
    with pytest.raises(psycopg.errors.NotNullViolation):
        app.extensions["database"].fetch("insert_idempotent_response", **key, **other)
    assert_replayed(post(alice), first)


@pytest.fixture
def owner(owner_url: str) -> Iterator[Database]:
    """The database as the owner of its tables, who purges."""
    owner = Database(settings_for(owner_url))
    yield owner
    owner.close()


def test_purge_deletes_the_expired_keys_of_all_users_in_steps(
    alice: User,
    bob: User,
    owner: Database,
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(purge, "KEYS_PER_STATEMENT", 2)
    for user in [alice, bob]:
        for number in range(3):
            post(user, {"Idempotency-Key": f"old-{number}"})
    first = post(alice)
    expire(postgresql, "old-%")
    assert purge.purge_idempotency_keys(owner) == 6
    assert purge.purge_idempotency_keys(owner) == 0
    assert_replayed(post(alice), first)
    assert len(bob.all()) == 3


def test_purge_ends_where_a_key_expires_during_each_of_its_steps(
    alice: User, owner: Database, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    fetch = owner.fetch

    def store_expired() -> None:
        post(alice)
        expire(postgresql)

    def fetch_and_store(name: str, **values: Value) -> list[Row]:
        rows = fetch(name, **values)
        assert len(alice.all()) < 3
        store_expired()
        return rows

    store_expired()
    monkeypatch.setattr(owner, "fetch", fetch_and_store)
    assert purge.purge_idempotency_keys(owner) == 1


def test_purge_keeps_an_expired_key_that_is_used_again_meanwhile(
    alice: User, owner: Database, postgresql: psycopg.Connection
):
    post(alice)
    expire(postgresql)
    postgresql.execute("UPDATE idempotency_keys SET expires_at = now() + interval '1 hour'")
    with ThreadPoolExecutor(1) as thread:
        purging = thread.submit(purge.purge_idempotency_keys, owner)
        wait_until(lambda: someone_waits_for(postgresql))
        postgresql.commit()
        assert purging.result() == 0


def test_request_with_a_key_is_429_once_too_many_bytes_are_kept_for_its_user(
    app: Flask, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
):
    limits = app.extensions["rate_limits"]
    monkeypatch.setattr(
        limits, "kept_responses", Limit("kept-responses", (200, 86400), None, MUCH_KEPT)
    )
    first = post(alice)
    refused = post(alice, {"Idempotency-Key": "another"})
    assert_error(refused, 429, "rate_limited")
    assert "without a key" in refused.json["message"]
    assert_replayed(post(alice), first)
    assert len(alice.all()) == 1
    alice.create()
    assert post(bob).status_code == 201


def test_key_of_the_same_change_to_another_task_is_422_and_nothing_is_done(alice: User):
    first, second = (alice.create()["id"] for _ in range(2))
    assert alice.call("PATCH", f"{first}/complete", headers=KEY).status_code == 200
    other = alice.call("PATCH", f"{second}/complete", headers=KEY)
    assert "Idempotency-Key" in assert_error(other, 422, "validation_error")
    assert alice.call("GET", second).json["completed"] is False


def test_key_that_was_used_since_it_was_claimed_is_500_and_nothing_is_done(
    alice: User, monkeypatch: pytest.MonkeyPatch
):
    first = post(alice)
    monkeypatch.setattr("idempotency.claim", lambda *_: None)  # it saw no response yet
    assert_error(post(alice), 500, "internal_error")
    assert alice.all() == [first.json]


def test_key_in_use_by_one_user_is_free_for_another(app: Flask, bob: User):
    key = {"user_id": "alice", "key": KEY["Idempotency-Key"].strip('"'), "fingerprint": "\\x00"}
    with app.extensions["database"].transaction() as connection:
        idempotency.claim(connection, key)
        assert post(bob).status_code == 201


def test_command_purge_deletes_expired_keys(
    alice: User, postgresql: psycopg.Connection, owner_url: str, run_here: RunHere
):
    post(alice)
    expire(postgresql)
    code, lines = run_here("purge", DATABASE_URL=as_url(owner_url))
    assert code == 0, lines
    assert postgresql.execute("SELECT count(*) FROM idempotency_keys").fetchone() == (0,)
