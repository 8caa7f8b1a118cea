"""Pages of lists: the links that lead from one to the next, and the cursors in them."""

from urllib.parse import urljoin

import psycopg
import pytest
from flask import Flask
from listing import cursor_of, get_list, listed, next_link, pages
from support import User, assert_error
from werkzeug.test import TestResponse

from blueprints.lists import write_cursor
from schemas import MAX_TITLE_LENGTH

# Links


def test_without_limit_the_first_thousand_come_with_a_link(
    alice: User, postgresql: psycopg.Connection
):
    postgresql.execute(
        "INSERT INTO tasks (user_id, title) SELECT 'alice', 'x' FROM generate_series(1, 1000)"
    )
    postgresql.commit()
    assert len(alice.all()) == 1000
    assert "Link" not in get_list(alice).headers
    newest = alice.create()
    assert [len(page) for page in pages(alice)] == [1000, 1]
    assert [len(page) for page in pages(alice, sort="due")] == [1000, 1]
    assert alice.all()[0] == newest


def test_plain_list_is_a_bare_array_newest_first(alice: User):
    first, second = alice.create("first"), alice.create("second")
    response = get_list(alice)
    assert response.json == [second, first]
    assert response.content_type == "application/json"
    assert {"Link", "X-Total-Count"}.isdisjoint(response.headers.keys())


def test_link_keeps_every_parameter(app: Flask):
    odd = User(app.test_client(), 'a/b|c é<>"?&#')
    for _ in range(3):
        odd.create("100% <sure> & done", description='"+é;,=', tags=["<é> & +", "b"])
    asked = {"q": '100% <sure> "+é;,=', "tag": ["<é> & +", "b"], "count": "exact", "limit": 1}
    response = get_list(odd, sort="title", order="asc", status="pending", **asked)
    link = next_link(response)
    assert link
    assert link.isascii()
    assert not set('<>" ') & set(link)
    met = list(pages(odd, sort="title", order="asc", status="pending", **asked))
    assert [len(page) for page in met] == [1, 1, 1]
    assert odd.call("GET", link).headers["X-Total-Count"] == "3"


def test_link_fits_a_request_line_with_the_longest_title(alice: User):
    for _ in range(2):
        alice.create("\U0001f600" * MAX_TITLE_LENGTH)
    link = next_link(get_list(alice, sort="title", limit=1))
    assert link
    assert len(link) < 2000
    assert len(alice.call("GET", link).json) == 1


def test_link_of_a_user_id_with_dot_segments_is_resolved_to_its_own_path(app: Flask):
    odd = User(app.test_client(), "a/../b")
    odd.create()
    odd.create()
    link = next_link(get_list(odd, limit=1))
    assert link
    assert urljoin(f"http://localhost{odd.tasks}", link).startswith(f"http://localhost{odd.tasks}?")


def test_link_works_below_a_prefix(alice: User):
    alice.create()
    alice.create()
    response = alice.client.get(
        f"{alice.tasks}?limit=1", headers=alice.headers, base_url="http://localhost/prefix"
    )
    link = next_link(response)
    assert link
    assert link.startswith("/prefix/api/alice/tasks?limit=1&cursor=")


# Cursors


@pytest.fixture
def cursor(alice: User) -> str:
    for title in ["a", "b", "c"]:
        alice.create(title, tags=["x", "y"])
    return cursor_of(alice, sort="title", limit=1)


def assert_bad_cursor(response: TestResponse) -> None:
    assert assert_error(response, 422, "validation_error").keys() == {"cursor"}


def test_cursor_goes_on_with_another_limit_or_count(alice: User, cursor: str):
    asked = {"sort": "title", "order": "desc", "status": "all", "count": "exact"}
    assert [task["title"] for task in listed(alice, limit=5, cursor=cursor, **asked)] == ["b", "a"]


def test_cursor_takes_tags_in_any_order(alice: User, cursor: str):
    cursor = cursor_of(alice, tag=["x", "y"], limit=1)
    assert len(listed(alice, tag=["y", "x", "y"], limit=5, cursor=cursor)) == 2


def test_damaged_cursor_is_422(alice: User, cursor: str):
    for place in range(len(cursor)):
        other = "A" if cursor[place] != "A" else "B"
        damaged = cursor[:place] + other + cursor[place + 1 :]
        assert_bad_cursor(get_list(alice, sort="title", cursor=damaged))
    for damaged in [cursor[:-1], cursor[1:], cursor + "A", cursor + "AAAA", cursor[:20]]:
        assert_bad_cursor(get_list(alice, sort="title", cursor=damaged))
    assert_bad_cursor(get_list(alice, sort="title", cursor=cursor + "="))


@pytest.mark.parametrize(
    "position",
    [
        b"nope",
        b"5",
        b"[1]",
        b"[1, 2, 3]",
        b"[{}, 1]",
        b'["\\u0000", 1]',
        b'["\\ud800", 1]',
        b"[" * 9000,
    ],
)
def test_cursor_of_no_position_is_422_even_if_its_key_was_guessed(
    app: Flask, alice: User, position: bytes
):
    with app.app_context():
        forged = write_cursor("alice", {"sort": "title"}, position)
    assert_bad_cursor(get_list(alice, sort="title", cursor=forged))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"sort": "due"},
        {"sort": "title", "order": "asc"},
        {"sort": "title", "status": "pending"},
        {"sort": "title", "priority": "none"},
        {"sort": "title", "tag": "x"},
        {"sort": "title", "q": "a"},
        {"sort": "title", "due_after": "2026-01-01"},
    ],
)
def test_cursor_of_other_parameters_is_422(alice: User, cursor: str, asked: dict[str, str]):
    assert_bad_cursor(get_list(alice, cursor=cursor, **asked))


def test_cursor_of_another_user_is_422(alice: User, bob: User, cursor: str):
    bob.create()
    assert_bad_cursor(get_list(bob, sort="title", cursor=cursor))


def test_cursor_signed_with_another_key_is_422(
    app: Flask, alice: User, cursor: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(app.config, "CURSOR_KEY", b"another")
    assert_bad_cursor(get_list(alice, sort="title", cursor=cursor))


def test_list_cached_under_an_earlier_secret_is_sent_again_with_a_valid_link(
    app: Flask, alice: User, cursor: str, monkeypatch: pytest.MonkeyPatch
):
    etag = get_list(alice, limit=1).headers["ETag"]
    monkeypatch.setitem(app.config, "CURSOR_KEY", b"another")
    response = alice.call("GET", f"{alice.tasks}?limit=1", headers={"If-None-Match": etag})
    assert response.status_code == 200
    link = next_link(response)
    assert link
    assert alice.call("GET", link).status_code == 200


def test_page_that_only_the_trash_follows_is_the_last(alice: User):
    last, *_ = [alice.create() for _ in range(3)]
    alice.call("DELETE", last["id"])
    response = get_list(alice, limit=2)
    assert (len(response.json), "Link" in response.headers) == (2, False)
