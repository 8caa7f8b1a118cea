"""All tasks in one file, out and in: what comes back is what there was, and nothing else happens."""

import csv
import json
from datetime import UTC, date, datetime
from io import StringIO
from itertools import count
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import User
from werkzeug.test import TestResponse

FORMATS = ["application/json", "text/csv", "text/calendar"]
EACH_FORMAT = pytest.mark.parametrize("content_type", FORMATS)
WRITABLE = ("title", "description", "priority", "due_at", "tags", "completed")
DEFAULTS = {"description": None, "priority": "none", "due_at": None, "tags": [], "completed": False}

# The database of a test serves all of its examples: each has a user of its own.
examples = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def export(user: User, content_type: str) -> bytes:
    response = user.call("GET", "export", headers={"Accept": content_type})
    assert response.status_code == 200, response.text
    return response.data


def send(user: User, body: bytes | str, content_type: str) -> TestResponse:
    return user.call("POST", "import", data=body, headers={"Content-Type": content_type})


def bring(user: User, tasks: list[dict[str, Any]]) -> None:
    response = send(user, json.dumps(tasks), "application/json")
    assert (response.status_code, response.json) == (201, {"imported": len(tasks)}), response.text


def written(user: User) -> list[dict[str, Any]]:
    """List what a client may write of a user's tasks, oldest first."""
    return [{name: task[name] for name in WRITABLE} for task in reversed(user.all())]


# Out and in again

NUMBERS = count()
FORMULA = set("=+-@\uff1d\uff0b\uff0d\uff20")

NASTY = st.sampled_from(
    "=+-@'\"`,;:|\\%&<>{}[]()# Nn\t\r\n\x01\x0b\x1b\x7f\x85\u2028\ufeff\uff1d\u202e\u0301\u200d😀"
)
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(NASTY | ANY, max_size=60)
LINE = st.text(NASTY | ANY, min_size=1, max_size=50).map(str.strip).filter(bool)
DUES = st.none() | st.dates(date(1970, 1, 1), date(2200, 12, 31)).map(str)
DUES |= st.datetimes(
    datetime(1970, 1, 1),
    datetime(2200, 12, 31),
    timezones=st.just(UTC),
).map(datetime.isoformat)
TASKS = st.fixed_dictionaries(
    {
        "title": LINE,
        "description": st.none() | TEXT,
        "priority": st.sampled_from(["none", "low", "medium", "high"]),
        "due_at": DUES,
        "tags": st.lists(LINE, max_size=5, unique=True),
        "completed": st.booleans(),
    }
)
LONG = {"title": "😀" * 200, "description": "\r😀=\\N" * 1000, "tags": [";\r" * 24 + ";"] * 1}
AWKWARD = [
    DEFAULTS | {"title": title, "description": title * 2, "tags": [title]}
    for title in ["'", "''", "'=", "=1", "@x", "-", "x;=1;", 'x\n"=1"', "a\r\nb", "\\N\\n%0A", "%"]
]


def new_user(client: FlaskClient) -> User:
    return User(client, f"user {next(NUMBERS)}")


@examples
@given(tasks=st.lists(TASKS, max_size=4))
@example(tasks=[*AWKWARD, DEFAULTS | LONG, DEFAULTS | {"title": "x", "description": ""}])
def test_what_is_exported_and_imported_again_is_the_same(alice: User, tasks: list[dict[str, Any]]):
    first = new_user(alice.client)
    bring(first, tasks)
    kept = written(first)
    assert [task | {"due_at": None} for task in kept] == [task | {"due_at": None} for task in tasks]
    for content_type in FORMATS:
        second = new_user(alice.client)
        response = send(second, export(first, content_type), content_type)
        assert (response.status_code, response.json) == (201, {"imported": len(tasks)})
        assert written(second) == kept, content_type


@examples
@given(tasks=st.lists(TASKS, min_size=1, max_size=3))
@example(tasks=AWKWARD)
def test_no_cell_of_the_csv_is_a_formula_whatever_the_separator(
    alice: User, tasks: list[dict[str, Any]]
):
    user = new_user(alice.client)
    bring(user, tasks)
    text = export(user, "text/csv").decode("utf-8-sig")
    for separator in ",;\t":
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            for line in csv.reader(
                StringIO(text, newline=""), delimiter=separator, quoting=quoting
            ):
                for cell in line:
                    assert cell.lstrip(' \u00a0\ufeff"')[:1] not in FORMULA, (separator, cell)
    for row in csv.reader(StringIO(text, newline="")):
        assert not any(cell.startswith(("\t", "\r")) for cell in row)


# Large ones


def test_statement_larger_than_the_buffers_of_a_socket_arrives(alice: User):
    tasks = [{"title": f"{number}", "description": "😀" * 5000} for number in range(400)]
    bring(alice, tasks)
    assert [task["title"] for task in written(alice)] == [task["title"] for task in tasks]
