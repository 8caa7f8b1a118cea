"""Idempotency-Key: sent again, a POST or PATCH is answered again and done once."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import processes
import proxy
import psycopg
import pytest
from flask import Flask
from idempotent import KEY, MILK, assert_replayed, post
from pools import count_round_trips
from proxy import CUTS, Proxy, Weather
from support import User, assert_error, settings_for, someone_waits_for
from werkzeug.test import TestResponse

import database
from connection import Connection
from database import Database

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


def test_toggle_sent_again_is_done_once(alice: User):
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


def test_request_with_a_key_takes_three_round_trips(alice: User, monkeypatch: pytest.MonkeyPatch):
    trips = count_round_trips(monkeypatch)
    assert post(alice).status_code == 201
    assert len(trips) == 3


def test_hundred_repeats_half_of_them_at_once_make_one_task(app: Flask, alice: User):
    barrier = Barrier(50)

    def call(_: int) -> TestResponse:
        user = User(app.test_client(), "alice")
        barrier.wait()
        return post(user)

    with ThreadPoolExecutor(50) as threads:
        responses = list(threads.map(call, range(50)))
    for response in responses:
        if response.status_code != 201:
            assert_error(response, 409, "conflict")
            assert int(response.headers["Retry-After"]) > 0
    responses += [post(alice) for _ in range(50)]
    done = [response for response in responses if response.status_code == 201]
    assert len(done) > 50
    assert {response.data for response in done} == {done[0].data}
    assert Counter("Idempotency-Replayed" in response.headers for response in done)[False] == 1
    assert alice.all() == [done[0].json]


@pytest.mark.no_cover
def test_repeat_of_a_change_that_is_done_is_never_refused(app: Flask, alice: User):
    """However shortly before, another repeat has committed what If-Match no longer matches."""
    task, barrier = alice.create(), Barrier(8, timeout=10)

    def change(number: int) -> None:
        user = User(app.test_client(), "alice")
        for version in range(task["version"], task["version"] + 40):
            headers = {"Idempotency-Key": str(version), "If-Match": f'"{version}"'}
            barrier.wait()
            while (response := user.call("PATCH", task["id"], json={}, headers=headers)).json.get(
                "error"
            ) == "conflict":
                pass
            assert response.status_code == 200, response.text

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(change, range(8)))


def test_repeat_while_the_first_still_runs_is_409_at_once(
    app: Flask, alice: User, postgresql: psycopg.Connection
):
    alice.create()
    with ThreadPoolExecutor(1) as thread:
        postgresql.execute("SELECT FROM task_counters FOR UPDATE")  # blocks every write
        running = thread.submit(post, User(app.test_client(), "alice"))
        processes.wait_until(lambda: someone_waits_for(postgresql))
        response = post(alice)
        assert_error(response, 409, "conflict")
        assert response.headers["Retry-After"] == "1"
        assert not running.done()
        postgresql.rollback()
        first = running.result()
    assert_replayed(post(alice), first)


def test_finished_key_is_replayed_to_all_at_once(app: Flask, alice: User):
    first = post(alice)
    with ThreadPoolExecutor(8) as threads:
        for response in threads.map(post, [User(app.test_client(), "alice")] * 40):
            assert_replayed(response, first)


# Without a key


def test_put_and_delete_need_no_key_and_ignore_one(alice: User):
    task = alice.create()
    for _ in range(2):
        response = alice.call("PUT", task["id"], json=MILK, headers=KEY)
        assert (response.status_code, "Idempotency-Replayed" in response.headers) == (200, False)
    assert alice.call("DELETE", task["id"], headers=KEY).status_code == 204
    assert_error(alice.call("DELETE", task["id"], headers=KEY), 404, "not_found")


def test_request_without_a_key_opens_no_transaction(alice: User, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(Connection, "end")
    task = alice.create()
    assert alice.call("PATCH", f"{task['id']}/complete").status_code == 200


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
    assert [response.status_code for _, response in failed] == [status for status, _ in failed]
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
    monkeypatch.setattr(database, "REPLY_MARGIN", 0.5)
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
    responses: list[TestResponse] = []

    def is_done() -> bool:  # 409 while the server has not seen the connection end
        responses.append(post(alice))
        return responses[-1].status_code != 409

    processes.wait_until(is_done)
    assert responses[-1].status_code == 201
    assert ("Idempotency-Replayed" in responses[-1].headers) == (
        cut in {Weather.CUT_AT, Weather.CUT_AFTER}
    )
    assert alice.all() == [responses[-1].json]


@pytest.mark.parametrize("cut", CUTS)
def test_post_without_a_key_cut_off_at_commit_is_not_sent_to_the_database_again(
    alice: User, faulty: Proxy, cut: Weather
):
    faulty.weather = cut
    assert_error(alice.call("POST", json=MILK), 503, "unavailable")
    faulty.weather = Weather.FINE
    assert len(alice.all()) == (cut in {Weather.CUT_AT, Weather.CUT_AFTER})
