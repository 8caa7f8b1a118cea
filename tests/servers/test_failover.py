"""A real primary and its standby: one dies or is demoted, the other takes over."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from flask import Flask
from own_postgres import OwnPostgres, either_of, migrated_on, raise_what_is_given_out, standby_of
from processes import wait_until
from support import User, app_on, assert_error, settings_for

import migrate
from app import create_app

WRITERS = 4
WITHIN = 5.0  # seconds for a write after the promotion; one is usual, on a machine of its own


class Pair:
    """A primary, its standby, and the API in front of both."""

    def __init__(self, primary: OwnPostgres, folder: Path) -> None:
        self.primary = primary
        self.standby = standby_of(primary, folder)
        self.url = either_of(self.primary, self.standby, target_session_attrs="read-write")
        self.app = create_app(settings_for(self.url, database_pool_size=WRITERS))

    def stop(self) -> None:
        self.app.extensions["database"].close()
        self.standby.stop()

    def change_places(self) -> None:
        """Promote the standby, and keep the primary running without taking writes."""
        self.standby.execute("SELECT pg_promote()")
        self.primary.alter("SET default_transaction_read_only = on")

    def wait_for_standby(self) -> None:
        """From now on, have no write acknowledged that the standby lacks."""
        self.primary.alter("SET synchronous_standby_names = '*'")
        synchronous = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: self.primary.rows(synchronous))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with migrated_on(tmp_path / "one") as primary:
        pair = Pair(primary, tmp_path / "two")
        yield pair
        pair.stop()


def write(app: Flask, name: str, stop: Event) -> list[str]:
    """Create tasks until told to stop; return the titles that were acknowledged."""
    user = User(app.test_client(), name)
    titles = []
    while not stop.wait(0.005):
        title = f"{name} {time.monotonic_ns()}"
        if user.call("POST", json={"title": title}).status_code == 201:
            titles.append(title)
    return titles


def test_writes_go_on_at_the_promoted_standby_and_none_that_was_acknowledged_is_lost(
    pair: Pair,
):
    pair.wait_for_standby()
    stop = Event()
    names = [f"writer-{number}" for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(write, pair.app, name, stop) for name in names]
        alice = User(pair.app.test_client(), "alice")
        for _ in range(20):
            alice.create()
        pair.primary.kill()
        assert_error(alice.call("POST", json={"title": "x"}), 503, "unavailable")
        pair.standby.execute("SELECT pg_promote()")
        wait_until(lambda: alice.call("POST", json={"title": "x"}).status_code == 201, WITHIN)
        stop.set()
        written = [each.result() for each in writing]
    for name, titles in zip(names, written, strict=True):
        assert titles
        stored = {task["title"] for task in User(pair.app.test_client(), name).all()}
        assert stored.issuperset(titles)


def test_demoted_primary_fails_one_write_and_the_next_goes_to_the_new_one(pair: Pair):
    alice = User(pair.app.test_client(), "alice")
    alice.create()
    pair.change_places()
    wait_until(lambda: alice.call("POST", json={"title": "x"}).status_code == 503)
    alice.create("At the new one")
    assert pair.standby.rows("SELECT FROM tasks WHERE title = 'At the new one'")


def test_write_that_was_given_up_may_be_read_and_lost_and_operations_says_what_to_do(pair: Pair):
    """The standby is cut off: the primary shows what no longer waits for it."""
    pair.wait_for_standby()
    with app_on(pair.url, database_statement_timeout=100, database_pool_size=2) as app:
        alice = User(app.test_client(), "alice")
        task = alice.create("as at both")
        pair.standby.alter("SET primary_conninfo = ''")
        lost = {"title": "never acknowledged"}
        assert_error(alice.call("PATCH", task["id"], json=lost), 503, "unavailable")
        etag = alice.call("GET", task["id"]).headers["ETag"]
        read = alice.call("GET", "changes").json
        assert [change["title"] for change in read["changes"]] == ["never acknowledged"]
    pair.primary.kill()
    pair.standby.execute("SELECT pg_promote()")
    raise_what_is_given_out(pair.standby.url)
    with app_on(pair.url, changes_epoch="after the failover") as app:
        alice = User(app.test_client(), "alice")
        new = {"title": "at the new primary"}
        assert alice.call("PUT", task["id"], json=new).status_code == 200
        since = {"since": read["next"]}
        assert_error(alice.call("GET", "changes", query_string=since), 422, "validation_error")
        late = alice.call("PATCH", task["id"], json=lost, headers={"If-Match": etag})
        assert_error(late, 412, "precondition_failed")


def test_write_that_was_given_up_is_acknowledged_to_a_repeat_only_once_the_standby_has_it(
    pair: Pair,
):
    pair.wait_for_standby()
    with app_on(pair.url, database_statement_timeout=100, database_pool_size=2) as app:
        alice = User(app.test_client(), "alice")
        request = {"json": {"title": "x"}, "headers": {"Idempotency-Key": "one"}}
        pair.primary.alter("SET synchronous_standby_names = 'nowhere'")
        for _ in range(2):
            assert_error(alice.call("POST", **request), 503, "unavailable")
            assert len(alice.all()) == 1
        pair.wait_for_standby()
        repeated = alice.call("POST", **request)
        assert (repeated.status_code, repeated.headers["Idempotency-Replayed"]) == (201, "true")
        assert len(alice.all()) == 1


def test_process_that_only_reads_leaves_a_demoted_primary_too(pair: Pair):
    pair.wait_for_standby()
    alice = User(pair.app.test_client(), "alice")
    alice.create()
    pair.change_places()
    with app_on(pair.url) as other:
        writer = User(other.test_client(), "alice")
        wait_until(lambda: writer.call("POST", json={"title": "x"}).status_code == 201)
    wait_until(lambda: len(alice.all()) == 2)


def test_start_on_a_standby_warns_that_it_takes_no_writes(
    pair: Pair, caplog: pytest.LogCaptureFixture
):
    warning = "the server of DATABASE_URL is a standby, which takes no writes"
    migrate.require_migrated(settings_for(pair.primary.url))
    assert warning not in caplog.messages
    migrate.require_migrated(settings_for(pair.standby.url))
    assert warning in caplog.messages


def test_migrations_find_the_one_that_takes_writes(pair: Pair):
    migrate.rollback(pair.url)
    migrate.migrate(either_of(pair.standby, pair.primary, target_session_attrs="read-write"))
