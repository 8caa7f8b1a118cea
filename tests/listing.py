"""Lists and changes, asked for and followed from page to page."""

from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from support import User
from werkzeug.test import TestResponse


def get_list(user: User, **parameters: Any) -> TestResponse:
    return user.call("GET", query_string=parameters)


def listed(user: User, **parameters: Any) -> list[dict[str, Any]]:
    response = get_list(user, **parameters)
    assert response.status_code == 200, response.text
    return response.json


# Slow to search for in the texts of `fill_with_long_texts`: each letter could begin a match.
SLOW_WORD = "b" + "a" * 199


def fill_with_long_texts(connection: psycopg.Connection, user: str) -> None:
    connection.execute(
        "INSERT INTO tasks (user_id, title, description)"
        " SELECT %s, 'x', repeat('a', 5000) FROM generate_series(1, 1000)",
        [user],
    )
    connection.commit()


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
    response = get_list(user, **parameters)
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
    link = next_link(get_list(user, **parameters))
    assert link
    return link.rpartition("cursor=")[2]


def ids(tasks: list[dict[str, Any]]) -> list[int]:
    return [task["id"] for task in tasks]


class Copy:
    """A client's copy of a user's tasks, kept up to date by `changes` alone."""

    def __init__(self, user: User, limit: int = 1000) -> None:
        self.user = user
        self.limit = limit
        self.since: str | None = None
        self.tasks: dict[int, dict] = {}

    def page(self) -> dict[str, Any]:
        query = {"limit": self.limit} | ({"since": self.since} if self.since else {})
        response = self.user.call("GET", "changes", query_string=query)
        assert response.status_code == 200, response.text
        page: dict[str, Any] = response.json
        return page

    def follow(self) -> list[dict]:
        """Apply one page of changes; return them."""
        page = self.page()
        self.since = page["next"]
        for change in page["changes"]:
            if change["deleted"]:
                self.tasks.pop(change["id"], None)
            else:
                self.tasks[change["id"]] = change
        return page["changes"]

    def catch_up(self) -> list[dict]:
        changes: list[dict] = []
        while page := self.follow():
            changes += page
        return changes

    def all(self) -> list[dict]:
        """List the copy as the API lists the tasks."""
        tasks = [self.tasks[task_id] for task_id in sorted(self.tasks, reverse=True)]
        return [{name: task[name] for name in task if name != "deleted"} for task in tasks]
