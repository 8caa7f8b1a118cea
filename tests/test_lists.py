"""Lists of tasks: every parameter, pages of every order, cursors, counts, ETags."""

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, product
from typing import Any
from urllib.parse import urljoin

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from support import User, assert_error
from werkzeug.test import TestResponse

from config import VERSION
from schemas import PRIORITIES

SORTS = ["created", "updated", "title", "due", "priority"]
ORDERS = ["asc", "desc"]
TITLES = ["apple", "Apple", "banana", "Cherry", "date", "DATE"]
DUES = [None, None, "2026-05-01", "2026-05-01T00:00:00Z", "2026-05-01T02:00:00+02:00", "2026-06-01"]


def ask(user: User, **parameters: Any) -> TestResponse:
    return user.client.get(user.tasks, query_string=parameters, headers=user.headers)


def listed(user: User, **parameters: Any) -> list[dict[str, Any]]:
    response = ask(user, **parameters)
    assert response.status_code == 200, response.text
    return response.json


def titles(user: User, **parameters: Any) -> set[str]:
    return {task["title"] for task in listed(user, **parameters)}


def next_link(response: TestResponse) -> str | None:
    link = response.headers.get("Link")
    if link is None:
        return None
    assert link.startswith("<")
    assert link.endswith('>; rel="next"')
    return link.removeprefix("<").removesuffix('>; rel="next"')


def pages(user: User, **parameters: Any) -> Iterator[list[dict[str, Any]]]:
    """Follow the links, as a client does who knows nothing of cursors."""
    response = ask(user, **parameters)
    while True:
        assert response.status_code == 200, response.text
        yield response.json
        link = next_link(response)
        if not link:
            return
        assert response.json, "a page without tasks has no next one"
        response = user.call("GET", link)


def flat(met: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [task for page in met for task in page]


def cursor_of(user: User, **parameters: Any) -> str:
    link = next_link(ask(user, **parameters))
    assert link
    return link.rpartition("cursor=")[2]


def ids(tasks: list[dict[str, Any]]) -> list[int]:
    return [task["id"] for task in tasks]


def moment(task: dict[str, Any]) -> str:
    """The due date in one form that sorts."""
    return {"2026-06-01": "2026-06-01T00:00:00+00:00"}.get(
        task["due_at"], "2026-05-01T00:00:00+00:00"
    )


def in_order(tasks: list[dict[str, Any]], sort: str, order: str) -> list[int]:
    """The expected order of a list, sorted in Python."""
    key: Callable[[dict[str, Any]], Any] = {
        "created": lambda task: task["id"],
        "updated": lambda task: task["version"],
        "title": lambda task: task["title"].lower(),
        "due": moment,
        "priority": lambda task: PRIORITIES.index(task["priority"]),
    }[sort]
    last = [task for task in tasks if sort == "due" and task["due_at"] is None]
    first = [task for task in tasks if task not in last]
    backwards = order == "desc"
    first.sort(key=lambda task: (key(task), task["id"]), reverse=backwards)
    last.sort(key=lambda task: task["id"], reverse=backwards)
    return ids(first + last)


@pytest.fixture
def many(alice: User, bob: User) -> list[dict[str, Any]]:
    """Tasks with equal keys and without due dates, some changed later, beside another user's."""
    chosen = random.Random(1)
    for number in range(45):
        alice.create(
            chosen.choice(TITLES),
            description=chosen.choice(["fruit to buy", "100% sure", None]),
            priority=chosen.choice(PRIORITIES),
            due_at=chosen.choice(DUES),
            tags=chosen.sample(["home", "shop", "rare"], chosen.randrange(3)),
        )
        if number % 9 == 0:
            bob.create(TITLES[0], tags=["home", "shop", "rare"])
    for task in chosen.sample(alice.all(), 15):
        alice.call("PATCH", f"{task['id']}/complete")
    for task in chosen.sample(alice.all(), 4):
        alice.call("DELETE", task["id"])
    return alice.all()


# Filters


def test_status_lists_open_or_done_tasks(alice: User):
    alice.call("PATCH", f"{alice.create('done')['id']}/complete")
    alice.create("open")
    assert titles(alice, status="pending") == {"open"}
    assert titles(alice, status="completed") == {"done"}
    assert titles(alice, status="all") == {"open", "done"}


def test_priority_lists_tasks_of_that_priority(alice: User):
    for priority in PRIORITIES:
        alice.create(priority, priority=priority)
    for priority in PRIORITIES:
        assert titles(alice, priority=priority) == {priority}


def test_tags_must_all_match(alice: User):
    alice.create("both", tags=["home", "garden"])
    alice.create("one", tags=["home"])
    alice.create("none")
    assert titles(alice, tag="home") == {"both", "one"}
    assert titles(alice, tag=["home", "garden"]) == {"both"}
    assert titles(alice, tag=["home", "garden", "home"]) == {"both"}
    assert titles(alice, tag=" garden ") == {"both"}
    assert titles(alice, tag="Home") == set()


def test_tag_that_was_changed_is_found_as_it_is_now(alice: User):
    task = alice.create(tags=["old", "kept"])
    alice.call("PATCH", task["id"], json={"tags": ["new", "kept"]})
    assert [ids(listed(alice, tag=tag)) for tag in ["old", "new", "kept"]] == [
        [],
        [task["id"]],
        [task["id"]],
    ]
    alice.call("PATCH", task["id"], json={"tags": []})
    assert listed(alice, tag="kept") == []


def test_each_of_a_thousand_tags_is_found_by_itself(alice: User, postgresql: psycopg.Connection):
    """They share 64 bits: many tasks may have a tag, one has it."""
    postgresql.execute(
        "INSERT INTO tasks (user_id, title, tags)"
        " SELECT 'alice', n::text, ARRAY['tag ' || n] FROM generate_series(1, 1000) AS n"
    )
    postgresql.commit()
    for number in range(1, 1000, 37):
        assert titles(alice, tag=f"tag {number}") == {str(number)}
        assert ask(alice, tag=f"tag {number}", count="exact").headers["X-Total-Count"] == "1"


def test_task_from_before_the_bits_of_tags_is_found(alice: User, postgresql: psycopg.Connection):
    task = alice.create(tags=["home"])
    postgresql.execute("UPDATE tasks SET tag_bits = -1")
    postgresql.commit()
    assert ids(listed(alice, tag="home")) == [task["id"]]
    assert listed(alice, tag="other") == []
    alice.call("PATCH", f"{task['id']}/complete")
    bits = postgresql.execute("SELECT tag_bits = bits_of_tags(tags) FROM tasks").fetchall()
    assert bits == [(True,)]


def test_due_bounds_take_in_the_later_and_leave_out_the_earlier(alice: User):
    for day in [1, 2, 3]:
        alice.create(f"day {day}", due_at=f"2026-05-0{day}")
    alice.create("noon", due_at="2026-05-02T12:00:00Z")
    alice.create("whenever")
    for bounds, expected in [
        ({"due_before": "2026-05-02"}, {"day 1"}),
        ({"due_after": "2026-05-02"}, {"day 2", "noon", "day 3"}),
        ({"due_before": "2026-05-02T12:00:00Z"}, {"day 1", "day 2"}),
        ({"due_before": "2026-05-02T14:00:00.000001+02:00"}, {"day 1", "day 2", "noon"}),
        ({"due_after": "2026-05-02T12:00:00Z"}, {"noon", "day 3"}),
        ({"due_after": "2026-05-02t12:00:00.000001z"}, {"day 3"}),
        ({"due_after": "2026-05-02", "due_before": "2026-05-03"}, {"day 2", "noon"}),
        ({"due_after": "2026-05-03", "due_before": "2026-05-02"}, set()),
    ]:
        assert titles(alice, **bounds) == expected, bounds


def test_q_finds_tasks_with_every_word(alice: User):
    alice.create("Buy MILK", description="fresh")
    alice.create("Éclairs", description="with fresh milk")
    alice.create("100% _sure_")
    alice.create("back\\slash")
    alice.create('{a} "b", c')
    alice.create("100 sure")
    for q, expected in [
        ("milk", {"Buy MILK", "Éclairs"}),
        ("MILK buy", {"Buy MILK"}),
        (" milk\t fresh ", {"Buy MILK", "Éclairs"}),
        ("il", {"Buy MILK", "Éclairs"}),
        ("éclairs", {"Éclairs"}),
        ("%", {"100% _sure_"}),
        ("_", {"100% _sure_"}),
        ("0% _s", {"100% _sure_"}),
        ("\\", {"back\\slash"}),
        ("k\\s", {"back\\slash"}),
        ("milkfresh", set()),
        ("{a}", {'{a} "b", c'}),
        ('"b",', {'{a} "b", c'}),
        ("' OR 1=1 --", set()),
    ]:
        assert titles(alice, q=q) == expected, q


def matches(task: dict[str, Any], asked: dict[str, Any]) -> bool:
    text = f"{task['title']}\n{task['description'] or ''}".lower()
    due = task["due_at"] and moment(task)
    return (
        asked.get("status", "all") in {"all", "completed" if task["completed"] else "pending"}
        and asked.get("priority", task["priority"]) == task["priority"]
        and set(asked.get("tag", [])) <= set(task["tags"])
        and ("due_before" not in asked or bool(due and due < asked["due_before"]))
        and ("due_after" not in asked or bool(due and due >= asked["due_after"]))
        and all(word in text for word in asked.get("q", "").split())
    )


def test_any_combination_lists_what_matches_in_its_order(alice: User, many: list[dict[str, Any]]):
    chosen = random.Random(2)
    values: dict[str, list[Any]] = {
        "status": ["all", "pending", "completed"],
        "priority": list(PRIORITIES),
        "tag": [["home"], ["shop"], ["home", "rare"]],
        "due_before": ["2026-05-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00"],
        "due_after": ["2026-05-01", "2026-06-01"],
        "q": ["a", "e fruit", "100%"],
        "sort": SORTS,
        "order": ORDERS,
    }
    found = 0
    for _ in range(60):
        names = chosen.sample(sorted(values), chosen.randrange(1, 5))
        asked = {name: chosen.choice(values[name]) for name in names}
        expected = [task for task in many if matches(task, asked)]
        order = asked.get("sort", "created"), asked.get("order", "desc")
        response = ask(alice, count="exact", **asked)
        assert ids(response.json) == in_order(expected, *order), asked
        assert response.headers["X-Total-Count"] == str(len(expected)), asked
        met = flat(pages(alice, limit=7, **asked))
        assert ids(met) == in_order(expected, *order), asked
        found += len(expected)
    assert found > 200


PREFIX = "the same first words of many titles, " * 4


@pytest.fixture
def thousands(alice: User, postgresql: psycopg.Connection) -> list[dict[str, Any]]:
    """More tasks than a page, a sample or a few of them, with what is common and what is rare."""
    chosen = random.Random(3)
    titles = ["", "a", "A", "Zebra", "éclair", "ÉCLAIR", "Ärger", "日本", "\U0001f600", "z" * 40]
    postgresql.cursor().executemany(
        "INSERT INTO tasks (user_id, title, description, completed, priority, due_at, tags)"
        " VALUES ('alice', %s, %s, %s, %s, %s, %s)",
        [
            (
                chosen.choice(["", PREFIX, PREFIX.upper()]) + chosen.choice(titles) + ".",
                f"{chosen.choice(['often', 'OFTEN', ''])} {'seldom' * (number % 40 == 0)}",
                chosen.random() < 0.5,
                chosen.choice(PRIORITIES) if number % 4 else "none",
                chosen.choice([None, "2026-05-01T00:00:00Z"]),
                ["common"] * (chosen.random() < 0.9) + ["rare"] * (number % 30 == 0),
            )
            for number in range(1400)
        ],
    )
    postgresql.commit()
    alice.call("DELETE", alice.all()[0]["id"])
    return flat(pages(alice))


@pytest.mark.no_cover
@pytest.mark.parametrize("sort", SORTS)
def test_long_list_of_the_common_or_the_rare_is_what_matches_in_its_order(
    alice: User, thousands: list[dict[str, Any]], sort: str
):
    asked: dict[str, Any]
    for asked in [
        {},
        {"status": "pending"},
        *({"tag": tags} for tags in [["common"], ["rare"], ["common", "rare"], ["missing"]]),
        *({"q": word} for word in ["OFTEN", "seldom", "words éclair", "nowhere"]),
        {"tag": ["common"], "q": "often", "priority": "none"},
    ]:
        expected = [task for task in thousands if matches(task, with_lower_words(asked))]
        for order in ORDERS:
            met = in_order(expected, sort, order)
            response = ask(alice, sort=sort, order=order, count="exact", **asked)
            assert ids(response.json) == met[:1000], asked
            assert response.headers["X-Total-Count"] == str(len(met)), asked
            some = islice(pages(alice, sort=sort, order=order, limit=60, **asked), 4)
            assert ids(flat(some)) == met[:240], asked


def with_lower_words(asked: dict[str, Any]) -> dict[str, Any]:
    return asked | ({"q": asked["q"].lower()} if "q" in asked else {})


# What is refused


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("status=done", "status"),
        ("status=", "status"),
        ("status=pending&status=completed", "status"),
        ("priority=urgent", "priority"),
        ("priority=high&priority=high", "priority"),
        ("tag=", "tag"),
        ("tag=%20", "tag"),
        ("tag=" + "x" * 51, "tag"),
        ("tag=a%00b", "tag"),
        ("tag=%ED%A0%80", "tag"),
        ("tag=%FF", "tag"),
        ("&".join(f"tag={n}" for n in range(21)), "tag"),
        ("q=", "q"),
        ("q=%20%09", "q"),
        ("q=%00", "q"),
        ("q=%ED%A0%80", "q"),
        ("q=" + "x" * 201, "q"),
        ("q=a&q=b", "q"),
        ("due_before=tomorrow", "due_before"),
        ("due_before=2026-02-30", "due_before"),
        ("due_before=1969-12-31", "due_before"),
        ("due_before=2026-05-01T00:00:00", "due_before"),
        ("due_after=20260501", "due_after"),
        ("due_after=infinity", "due_after"),
        ("due_after=2026-05-01&due_after=2026-05-01", "due_after"),
        ("sort=size", "sort"),
        ("sort=created&sort=due", "sort"),
        ("order=DESC", "order"),
        ("order=asc&order=asc", "order"),
        *((f"limit={limit}", "limit") for limit in ["0", "1001", "-1", "1.0", "1e2", "", "x"]),
        *(
            (f"limit={limit}", "limit")
            for limit in ["1_0", "%2B1", "%205", "01", "%D9%A1", "9" * 99]
        ),
        ("limit=1&limit=1", "limit"),
        ("count=all", "count"),
        ("count=exact&count=exact", "count"),
        ("page=2", "page"),
        ("Status=all", "Status"),
        ("tags=home", "tags"),
        ("limit=5&%20limit=5", " limit"),
        ("cursor=", "cursor"),
        ("cursor=abc", "cursor"),
        ("cursor=%C3%A9", "cursor"),
        ("cursor=a%0A", "cursor"),
        ("cursor=" + "A" * 3000, "cursor"),
        ("cursor=A&cursor=A", "cursor"),
    ],
)
def test_bad_parameter_is_422_and_named(client: FlaskClient, query: str, name: str):
    alice = User(client, "alice")
    response = alice.call("GET", f"{alice.tasks}?{query}")
    assert name in assert_error(response, 422, "validation_error")


def test_every_bad_parameter_is_named_at_once(client: FlaskClient):
    alice = User(client, "alice")
    response = alice.call("GET", f"{alice.tasks}?sort=x&limit=0&what=1")
    assert assert_error(response, 422, "validation_error").keys() == {"sort", "limit", "what"}


# Pages


@pytest.mark.no_cover
@pytest.mark.parametrize("filters", [{}, {"tag": "home"}, {"q": "a"}, {"status": "pending"}])
def test_pages_meet_each_task_once_in_order(
    alice: User, many: list[dict[str, Any]], filters: dict[str, str]
):
    for sort, order in product(SORTS, ORDERS):
        expected = in_order(listed(alice, **filters), sort, order)
        for limit in [1, 4, len(expected), len(expected) + 1]:
            met = list(pages(alice, sort=sort, order=order, limit=limit, **filters))
            assert ids(flat(met)) == expected
            assert all(len(page) == limit for page in met[:-1])
            assert 0 < len(met[-1]) <= limit


@pytest.mark.no_cover
@pytest.mark.parametrize("sort", SORTS)
def test_pages_meet_what_does_not_change_once_while_the_rest_does(
    alice: User, many: list[dict[str, Any]], sort: str
):
    kept, changed = many[::2], many[1::2]
    for order in ORDERS:
        met: list[int] = []
        for page in pages(alice, sort=sort, order=order, limit=3):
            met += ids(page)
            if len(met) > 100:  # by updated, what is changed or new meanwhile comes last
                break
            alice.create("berry", priority="low", due_at="2026-05-01", tags=["home"])
            if changed:
                alice.call("PATCH", changed.pop()["id"], json={"title": "aaa", "due_at": None})
            if changed:
                alice.call("DELETE", changed.pop()["id"])
        assert [task_id for task_id in met if task_id in ids(kept)] == in_order(kept, sort, order)


def test_without_limit_the_first_thousand_come_with_a_link(
    alice: User, postgresql: psycopg.Connection
):
    postgresql.execute(
        "INSERT INTO tasks (user_id, title) SELECT 'alice', 'x' FROM generate_series(1, 1000)"
    )
    postgresql.commit()
    assert len(alice.all()) == 1000
    assert "Link" not in ask(alice).headers
    newest = alice.create()
    assert [len(page) for page in pages(alice)] == [1000, 1]
    assert [len(page) for page in pages(alice, sort="due")] == [1000, 1]
    assert alice.all()[0] == newest


def test_plain_list_is_a_bare_array_newest_first(alice: User):
    first, second = alice.create("first"), alice.create("second")
    response = ask(alice)
    assert response.json == [second, first]
    assert response.content_type == "application/json"
    assert {"Link", "X-Total-Count"}.isdisjoint(response.headers.keys())


def test_link_keeps_every_parameter(app: Flask):
    odd = User(app.test_client(), 'a/b|c é<>"?&#')
    for _ in range(3):
        odd.create("100% <sure> & done", description='"+é;,=', tags=["<é> & +", "b"])
    asked = {"q": '100% <sure> "+é;,=', "tag": ["<é> & +", "b"], "count": "exact", "limit": 1}
    response = ask(odd, sort="title", order="asc", status="pending", **asked)
    link = next_link(response)
    assert link
    assert link.isascii()
    assert not set('<>" ') & set(link)
    met = list(pages(odd, sort="title", order="asc", status="pending", **asked))
    assert [len(page) for page in met] == [1, 1, 1]
    assert odd.call("GET", link).headers["X-Total-Count"] == "3"


def test_link_fits_a_request_line_with_the_longest_title(alice: User):
    for _ in range(2):
        alice.create("\U0001f600" * 200)
    link = next_link(ask(alice, sort="title", limit=1))
    assert link
    assert len(link) < 2000
    assert len(alice.call("GET", link).json) == 1


def test_link_of_a_user_id_with_dot_segments_is_resolved_to_its_own_path(app: Flask):
    odd = User(app.test_client(), "a/../b")
    odd.create()
    odd.create()
    link = next_link(ask(odd, limit=1))
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


def assert_refused(response: TestResponse) -> None:
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
        assert_refused(ask(alice, sort="title", cursor=damaged))
    for damaged in [cursor[:-1], cursor[1:], cursor + "A", cursor + "AAAA", cursor[:20]]:
        assert_refused(ask(alice, sort="title", cursor=damaged))
    assert_refused(ask(alice, sort="title", cursor=cursor + "="))


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
    assert_refused(ask(alice, cursor=cursor, **asked))


def test_cursor_of_another_user_is_422(alice: User, bob: User, cursor: str):
    bob.create()
    assert_refused(ask(bob, sort="title", cursor=cursor))


def test_cursor_is_signed_with_the_settings(app: Flask, alice: User, cursor: str):
    app.config["CURSOR_KEY"], key = b"another", app.config["CURSOR_KEY"]
    try:
        assert_refused(ask(alice, sort="title", cursor=cursor))
    finally:
        app.config["CURSOR_KEY"] = key


# Two users, the trash


@pytest.mark.parametrize("asked", [{}, {"sort": "due"}, {"tag": "home"}, {"q": "mine"}])
def test_no_list_shows_another_users_tasks(alice: User, bob: User, asked: dict[str, str]):
    alice.create("mine", tags=["home"])
    response = ask(bob, count="exact", **asked)
    assert (response.json, response.headers["X-Total-Count"]) == ([], "0")
    assert_error(
        bob.client.get(alice.tasks, query_string=asked, headers=bob.headers), 401, "unauthorized"
    )


@pytest.mark.parametrize("asked", [{}, {"sort": "due"}, {"tag": "home"}, {"q": "mine"}])
def test_no_list_shows_what_is_in_the_trash(alice: User, asked: dict[str, str]):
    kept, gone = (alice.create("mine", tags=["home"]) for _ in range(2))
    alice.call("DELETE", gone["id"])
    response = ask(alice, count="exact", limit=1, **asked)
    assert ids(response.json) == [kept["id"]]
    assert response.headers["X-Total-Count"] == "1"
    assert "Link" not in response.headers
    assert "Link" not in ask(alice, limit=1, **asked).headers


# ETags


@pytest.mark.parametrize("query", ["", "?limit=1", "?sort=title&q=milk", "?tag=x"])
def test_if_none_match_of_the_list_is_304_until_a_task_changes(alice: User, query: str):
    task, path = alice.create(tags=["x"]), alice.tasks + query
    etag = alice.call("GET", path).headers["ETag"]
    for sent in [etag, f"W/{etag}", "*", f'"x", {etag}']:
        response = alice.call("GET", path, headers={"If-None-Match": sent})
        assert (response.status_code, response.data) == (304, b"")
        assert response.headers["ETag"] == etag
    alice.call("PATCH", f"{task['id']}/complete")
    response = alice.call("GET", path, headers={"If-None-Match": etag})
    assert (response.status_code, response.json[0]["completed"]) == (200, True)
    assert response.headers["ETag"] != etag


def test_every_write_changes_the_etag_and_no_other_users(alice: User, bob: User):
    before, bobs = ask(alice).headers["ETag"], ask(bob).headers["ETag"]
    seen = {before}
    task = alice.create()
    for write in [
        lambda: None,
        lambda: alice.call("PATCH", task["id"], json={"title": "b"}),
        lambda: alice.call("PATCH", f"{task['id']}/complete"),
        lambda: alice.call("DELETE", task["id"]),
    ]:
        write()
        etag = ask(alice).headers["ETag"]
        assert etag not in seen
        seen.add(etag)
    assert ask(bob).headers["ETag"] == bobs
    assert alice.call("GET", headers={"If-None-Match": before}).status_code == 200


def test_etag_from_before_another_secret_is_200_with_a_link_that_leads_on(
    app: Flask, alice: User, cursor: str, monkeypatch: pytest.MonkeyPatch
):
    etag = ask(alice, limit=1).headers["ETag"]
    monkeypatch.setitem(app.config, "CURSOR_KEY", b"another")
    response = alice.call("GET", f"{alice.tasks}?limit=1", headers={"If-None-Match": etag})
    assert response.status_code == 200
    link = next_link(response)
    assert link
    assert alice.call("GET", link).status_code == 200


def test_etag_names_the_version_of_the_api(alice: User):
    assert ask(alice).headers["ETag"].startswith(f'"{VERSION}-')


def test_bad_parameter_is_422_also_with_a_fresh_etag(alice: User):
    headers = {"If-None-Match": ask(alice).headers["ETag"]}
    response = alice.call("GET", f"{alice.tasks}?limit=0", headers=headers)
    assert_error(response, 422, "validation_error")
