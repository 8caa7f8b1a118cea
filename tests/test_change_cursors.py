"""Cursors of changes: what they are, and which of them are refused."""

import pytest
from flask import Flask
from support import User, assert_error, cursor_at

from blueprints.paging import EXAMPLE_POSITION
from blueprints.positions import Position, read_position

LARGEST = 2**63 - 1
BAD_SINCE = ["", "abc", "0", "MQ", "MS4x", "=", "é", "%00", "a" * 5000, "MS4xLjEuMjU5OTM2NzY"]


def test_malformed_since_is_422_that_says_to_start_again(alice: User):
    alice.create()
    good = alice.call("GET", "changes").json["next"]
    for since in [*BAD_SINCE, *(good + end for end in "=A\n")]:
        assert_starts_again(alice, since)


def assert_starts_again(user: User, since: str) -> None:
    response = user.call("GET", "changes", query_string={"since": since})
    assert assert_error(response, 422, "validation_error").keys() == {"since"}
    assert "start again without it" in response.json["message"]


def test_since_that_is_ahead_of_what_is_stored_is_422(alice: User, bob: User):
    """As after a backup was restored, which may know nothing of the user."""
    alice.create()
    for user in [alice, bob]:
        for version, task_id in [(5, 1), (LARGEST, LARGEST), (1, 2**63), (-1, 1)]:
            assert_starts_again(user, cursor_at(user, version, task_id))


def test_since_of_another_user_is_422(alice: User, bob: User):
    """As on a device that two people share: bob's copy would never have his first tasks."""
    for user in [alice, bob, bob]:
        user.create()
    since = alice.call("GET", "changes").json["next"]
    assert alice.call("GET", "changes", query_string={"since": since}).status_code == 200
    assert_starts_again(bob, since)


def test_since_of_another_epoch_is_422(app: Flask, alice: User, monkeypatch: pytest.MonkeyPatch):
    """As after a backup was restored, whose versions have passed the cursor since."""
    alice.create()
    since = alice.call("GET", "changes").json["next"]
    monkeypatch.setitem(app.config, "CHANGES_EPOCH", "restored")
    assert_starts_again(alice, since)
    new = alice.call("GET", "changes").json["next"]
    assert alice.call("GET", "changes", query_string={"since": new}).json["next"] == new


@pytest.mark.parametrize("task_id", [0, 5, LARGEST])
def test_since_the_beginning_is_what_a_new_user_gets_next(alice: User, task_id: int):
    since = cursor_at(alice, 0, task_id)
    response = alice.call("GET", "changes", query_string={"since": since})
    nothing = {"changes": [], "next": cursor_at(alice, 0, LARGEST), "more": False}
    assert (response.status_code, response.json) == (200, nothing)


@pytest.mark.parametrize(
    ("query", "name"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("cursor=x", "cursor")],
)
def test_bad_parameter_is_422_that_names_it(alice: User, query: str, name: str):
    response = alice.call("GET", f"{alice.tasks}/changes?{query}")
    assert assert_error(response, 422, "validation_error").keys() == {name}


def test_cursor_stays_what_it_was_in_the_first_release(app: Flask):
    """Clients keep theirs for months."""
    assert cursor_at(User(app.test_client(), "demo"), 57, 12) == EXAMPLE_POSITION
    assert EXAMPLE_POSITION == "MS41Ny4xMi4yNTk5MzY3Ng"


def test_cursor_of_the_first_release_is_read_even_if_the_format_is_another_by_now(app: Flask):
    with app.app_context():
        assert read_position("demo", "MS41Ny4xMi4yNTk5MzY3Ng") == Position(57, 12)
