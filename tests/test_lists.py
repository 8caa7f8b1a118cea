"""Lists of tasks: every filter, what is refused, whose tasks they show, and their ETags."""

import psycopg
import pytest
from flask.testing import FlaskClient
from listing import SLOW_WORD, fill_with_long_texts, get_list, ids, listed, titles
from support import NewApp, User, assert_error

from schemas import PRIORITIES

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


def test_list_that_its_timeout_ends_is_503_where_no_words_are_to_blame(
    new_app: NewApp, postgresql: psycopg.Connection
):
    hasty = User(new_app(database_statement_timeout=50).test_client(), "alice")
    postgresql.execute("LOCK TABLE tasks")
    for asked in [{}, {"sort": "title"}, {"tag": "home"}]:
        assert_error(get_list(hasty, **asked), 503, "unavailable")


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
        assert get_list(alice, tag=f"tag {number}", count="exact").headers["X-Total-Count"] == "1"


def test_tag_sets_two_bits_unless_they_coincide(postgresql: psycopg.Connection):
    counts = postgresql.execute(
        "SELECT count(*) FILTER (WHERE ones = 2), count(*) FILTER (WHERE ones = 1)"
        " FROM (SELECT bit_count(bits_of_tags(ARRAY['tag ' || n])::bit(64)) AS ones"
        "     FROM generate_series(1, 6400) AS n) AS tags"
    ).fetchone()
    assert counts
    two, one = counts
    assert two + one == 6400
    assert one < 200  # one in 64 has the same bit twice


def test_task_from_before_the_bits_of_tags_is_found(alice: User, postgresql: psycopg.Connection):
    task = alice.create(tags=["home"])
    postgresql.execute("UPDATE tasks SET tag_bits = -1")
    postgresql.commit()
    assert ids(listed(alice, tag="home")) == [task["id"]]
    assert listed(alice, tag="other") == []
    for sort in ["created", "title", "due", "priority"]:
        assert listed(alice, tag=["home", "other"], sort=sort) == []
    alice.call("PATCH", f"{task['id']}/complete")
    bits = postgresql.execute("SELECT tag_bits = bits_of_tags(tags) FROM tasks").fetchall()
    assert bits == [(True,)]


@pytest.mark.parametrize("filters", [{"tag": "home"}, {"q": "home"}])
def test_page_is_full_however_many_tasks_are_passed_over(
    filters: dict[str, str], alice: User, postgresql: psycopg.Connection
):
    postgresql.execute(
        "INSERT INTO tasks (user_id, title, description, tags)"
        " SELECT 'alice', n::text, array_to_string(tags, ''), tags FROM ("
        "     SELECT n, CASE WHEN n % 3 = 0 THEN ARRAY['home'] ELSE '{}' END AS tags"
        "     FROM generate_series(100, 399) AS n"
        " ) AS numbered"
    )
    postgresql.execute("UPDATE tasks SET tag_bits = -1")  # any of them may have the tag
    postgresql.commit()
    for sort in ["created", "updated", "title", "due", "priority"]:
        page = listed(alice, **filters, sort=sort, order="asc", limit="40")
        assert [task["title"] for task in page] == [str(n) for n in range(102, 222, 3)], sort


def test_due_after_is_inclusive_and_due_before_is_exclusive(alice: User):
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
        # 2 May in Los Angeles, where 3 May UTC has begun: a whole day is its midnight UTC.
        (
            {"due_after": "2026-05-02T00:00:00-07:00", "due_before": "2026-05-03T00:00:00-07:00"},
            {"noon", "day 3"},
        ),
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


def test_q_and_tag_tell_the_ways_to_write_an_accent_apart(alice: User):
    one, two = "caf\u00e9", "cafe\u0301"
    for text in (one, two):
        alice.create(text, tags=[text])
        assert titles(alice, q=text) == titles(alice, tag=text) == {text}
    assert titles(alice, q=one.upper()) == {one}
    assert titles(alice, tag=one.upper()) == set()
    assert alice.create(tags=[one, two, one.upper()])["tags"] == [one, two, one.upper()]


@pytest.mark.parametrize("title", ["ΟΔΟΣ", "οδος", "οδοσ"])
def test_q_finds_a_sigma_in_any_of_its_forms(alice: User, title: str):
    alice.create(title)
    for q in ("ΟΔΟΣ", "οδος", "οδοσ", "Σ", "ς", "δΟσ", "οδο ς", "οδο Σ"):
        assert titles(alice, q=q) == {title}, q


# What is refused


def test_q_that_takes_too_long_is_422_and_named(new_app: NewApp, postgresql: psycopg.Connection):
    fill_with_long_texts(postgresql, "alice")
    hasty = User(new_app(database_statement_timeout=50).test_client(), "alice")
    assert "q" in assert_error(get_list(hasty, q=SLOW_WORD), 422, "validation_error")


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


def test_query_of_bytes_that_are_not_utf_8_is_422(client: FlaskClient):
    response = User(client, "alice").call("GET", environ_overrides={"QUERY_STRING": "q=\xff"})
    assert "q" in assert_error(response, 422, "validation_error")


def test_every_bad_parameter_is_named_at_once(client: FlaskClient):
    alice = User(client, "alice")
    response = alice.call("GET", f"{alice.tasks}?sort=x&limit=0&what=1")
    assert assert_error(response, 422, "validation_error").keys() == {"sort", "limit", "what"}


# Two users, the trash


@pytest.mark.parametrize("asked", [{}, {"sort": "due"}, {"tag": "home"}, {"q": "mine"}])
def test_no_list_shows_another_users_tasks(alice: User, bob: User, asked: dict[str, str]):
    alice.create("mine", tags=["home"])
    response = get_list(bob, count="exact", **asked)
    assert (response.json, response.headers["X-Total-Count"]) == ([], "0")
    assert_error(bob.call("GET", alice.tasks, query_string=asked), 401, "unauthorized")


@pytest.mark.parametrize("asked", [{}, {"sort": "due"}, {"tag": "home"}, {"q": "mine"}])
def test_no_list_shows_what_is_in_the_trash(alice: User, asked: dict[str, str]):
    kept, gone = (alice.create("mine", tags=["home"]) for _ in range(2))
    alice.call("DELETE", gone["id"])
    response = get_list(alice, count="exact", limit=1, **asked)
    assert ids(response.json) == [kept["id"]]
    assert response.headers["X-Total-Count"] == "1"
    assert "Link" not in response.headers
    assert "Link" not in get_list(alice, limit=1, **asked).headers
