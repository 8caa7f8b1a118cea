"""Filters, orders and pages together: the API lists what Python finds among all tasks."""

import random
from collections.abc import Callable
from itertools import islice, product
from typing import Any

import psycopg
import pytest
from listing import flat, get_list, ids, listed, pages
from support import User

from blueprints.lists import ListArguments
from schemas import PRIORITIES

SORTS = ListArguments().fields["sort"].validate.choices
ORDERS = ["asc", "desc"]
TITLES = ["apple", "Apple", "banana", "Cherry", "date", "DATE"]
DUES = [None, None, "2026-05-01", "2026-05-01T00:00:00Z", "2026-05-01T02:00:00+02:00", "2026-06-01"]


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
        response = get_list(alice, count="exact", **asked)
        assert ids(response.json) == in_order(expected, *order), asked
        assert response.headers["X-Total-Count"] == str(len(expected)), asked
        met = flat(pages(alice, limit=7, **asked))
        assert ids(met) == in_order(expected, *order), asked
        found += len(expected)
    assert found > 200


PREFIX = "the same first words of many titles, " * 4


@pytest.fixture
def thousands(alice: User, postgresql: psycopg.Connection) -> list[dict[str, Any]]:
    """More tasks than a page or a sample has; some of the tags and words are common, some rare."""
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
def test_long_list_with_common_and_rare_filters_has_what_matches_in_order(
    alice: User, thousands: list[dict[str, Any]], sort: str
):
    asked: dict[str, Any]
    for asked in [
        {},
        {"status": "pending"},
        *({"tag": tags} for tags in [["common"], ["rare"], ["common", "rare"], ["missing"]]),
        *({"q": word} for word in ["OFTEN", "seldom", "words éclair", "nowhere"]),
        {"tag": ["common"], "priority": "high"},
        {"tag": ["common"], "q": "often"},
        {"tag": ["common"], "q": "often", "priority": "none"},
    ]:
        expected = [task for task in thousands if matches(task, with_lower_words(asked))]
        for order in ORDERS:
            met = in_order(expected, sort, order)
            response = get_list(alice, sort=sort, order=order, count="exact", **asked)
            assert ids(response.json) == met[:1000], asked
            assert response.headers["X-Total-Count"] == str(len(met)), asked
            some = islice(pages(alice, sort=sort, order=order, limit=60, **asked), 4)
            assert ids(flat(some)) == met[:240], asked


def with_lower_words(asked: dict[str, Any]) -> dict[str, Any]:
    return asked | ({"q": asked["q"].lower()} if "q" in asked else {})


@pytest.mark.no_cover
@pytest.mark.parametrize("filters", [{}, {"tag": "home"}, {"q": "a"}])
def test_pages_have_each_task_once_in_order(
    alice: User, many: list[dict[str, Any]], filters: dict[str, str]
):
    for sort, order in product(SORTS, ORDERS):
        expected = in_order(listed(alice, **filters), sort, order)
        for limit in [3, len(expected), len(expected) + 1]:
            met = list(pages(alice, sort=sort, order=order, limit=limit, **filters))
            assert ids(flat(met)) == expected
            assert all(len(page) == limit for page in met[:-1])
            assert 0 < len(met[-1]) <= limit


@pytest.mark.no_cover
@pytest.mark.parametrize("sort", SORTS)
def test_unchanged_tasks_are_on_the_pages_once_while_others_change(
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


@pytest.mark.parametrize("sort", SORTS)
def test_pages_that_are_counted_have_each_task_once_in_order(
    alice: User, many: list[dict[str, Any]], sort: str
):
    for order in ORDERS:
        met = flat(pages(alice, sort=sort, order=order, limit=7, count="exact"))
        assert ids(met) == in_order(many, sort, order)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("extra", [{}, {"tag": "home"}, {"q": "milk"}], ids=["", "tag", "q"])
def test_task_due_at_a_bound_is_after_it_and_not_before_it(
    alice: User, order: str, extra: dict[str, str]
):
    task = alice.create("Buy milk", due_at="2026-05-01T09:00:00Z", tags=["home"])
    for sort in SORTS:
        asked = {"sort": sort, "order": order} | extra
        assert listed(alice, due_after="2026-05-01T09:00:00Z", **asked) == [task]
        assert listed(alice, due_before="2026-05-01T09:00:00Z", **asked) == []


def test_tasks_of_one_version_are_listed_by_id(alice: User):
    assert alice.call("POST", "import", json=[{"title": "t"}] * 3).status_code == 201
    tasks = alice.all()
    for order in ORDERS:
        met = pages(alice, sort="updated", order=order, limit=1)
        assert ids(flat(met)) == in_order(tasks, "updated", order)


def test_ids_beyond_32_bits_are_listed_in_every_order(alice: User, postgresql: psycopg.Connection):
    postgresql.execute("ALTER TABLE tasks ALTER id RESTART WITH 5000000000")
    postgresql.commit()
    tasks = [alice.create() for _ in range(3)]
    for sort, order in product(SORTS, ORDERS):
        met = pages(alice, sort=sort, order=order, limit=2)
        assert ids(flat(met)) == in_order(tasks, sort, order)
