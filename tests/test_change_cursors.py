"""Cursors of changes: what they are, and which of them are refused."""

import pytest
from support import User, assert_error

from positions import Position, read_position, write_position

LARGEST = 2**63 - 1
BAD_SINCE = ["", "abc", "0", "MQ", "MS4x", "=", "é", "%00", "a" * 5000, "MS4xLjE=", "MS4xLjF"]
BAD_SINCE += [write_position(Position(1, 2**63)), write_position(Position(-1, 1))]


@pytest.mark.parametrize("since", BAD_SINCE)
def test_malformed_since_is_422_that_says_to_start_again(alice: User, since: str):
    alice.create()
    response = alice.call("GET", "changes", query_string={"since": since})
    assert assert_error(response, 422, "validation_error").keys() == {"since"}
    assert "start again without it" in response.json["message"]


def test_since_that_is_ahead_of_what_is_stored_is_422(alice: User, bob: User):
    """As after a backup was restored, or with a cursor of another user."""
    for _ in range(3):
        alice.create()
    since = alice.call("GET", "changes").json["next"]
    bob.create()
    for user in [bob, User(alice.client, "carol")]:
        response = user.call("GET", "changes", query_string={"since": since})
        assert assert_error(response, 422, "validation_error").keys() == {"since"}
        assert "start again without it" in response.json["message"]
    for version, task_id in [(5, 1), (LARGEST, LARGEST)]:
        ahead = write_position(Position(version, task_id))
        response = alice.call("GET", "changes", query_string={"since": ahead})
        assert_error(response, 422, "validation_error")


@pytest.mark.parametrize("task_id", [0, 5, LARGEST])
def test_since_the_beginning_is_what_a_new_user_gets_next(alice: User, task_id: int):
    since = write_position(Position(0, task_id))
    response = alice.call("GET", "changes", query_string={"since": since})
    nothing = {"changes": [], "next": write_position(Position(0, LARGEST)), "more": False}
    assert (response.status_code, response.json) == (200, nothing)


@pytest.mark.parametrize(
    ("query", "name"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("cursor=x", "cursor")],
)
def test_bad_parameter_is_422_that_names_it(alice: User, query: str, name: str):
    response = alice.call("GET", f"{alice.tasks}/changes?{query}")
    assert assert_error(response, 422, "validation_error").keys() == {name}


def test_cursor_is_read_back_as_the_position_that_was_written():
    for position in [Position(0, LARGEST), Position(57, 12), Position(LARGEST, LARGEST)]:
        assert read_position(write_position(position)) == position


def test_cursor_stays_what_it_was_in_the_first_release():
    """Clients keep theirs for months."""
    assert write_position(Position(57, 12)) == "MS41Ny4xMg"
