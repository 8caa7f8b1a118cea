"""All tasks in one file, out and in: nothing is lost, nothing is run, nothing is half done."""

import csv
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from itertools import count
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.pq.abc import PGresult
from support import User
from transfers import DEFAULTS, FORMATS, LONG, WRITABLE, bring, examples, export, send, written

from connection import Connection, rows_of

NUMBERS = count()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORMULA = set("=+-@\uff1d\uff0b\uff0d\uff20\ufe6b")

NASTY = st.sampled_from(
    "=+-@'\"`,;:|\\%&<>{}[]()# Nn\t\r\n\x01\x0b\x1b\x7f\x85\u2028\ufeff\uff1d\u202e\u0301\u200d😀"
)
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(NASTY | ANY, max_size=60)
LINE = st.text(NASTY | ANY, min_size=1, max_size=50).map(str.strip).filter(bool)
DUES = st.none() | st.dates(date(1970, 1, 1), date(2200, 12, 31)).map(str)
DUES |= st.integers(0, 7_000_000_000_000_000).map(
    lambda number: str((EPOCH + timedelta(microseconds=number)).isoformat())
)
FIELDS = {
    "title": LINE,
    "description": st.none() | TEXT,
    "priority": st.sampled_from(["none", "low", "medium", "high"]),
    "due_at": DUES,
    "tags": st.lists(LINE, max_size=5, unique=True),
    "completed": st.booleans(),
}
TASKS = st.fixed_dictionaries({name: FIELDS[name] for name in WRITABLE})
AWKWARD = [
    DEFAULTS | {"title": title, "description": title * 2, "tags": [title]}
    for title in [
        "'",
        "''",
        "'=",
        "=1",
        "@x",
        "\ufe6bx",
        "-",
        "x;=1;",
        'x\n"=1"',
        "a\r\nb",
        "a\r\n%0A\nb",
        "\\N\\n%0A",
        "%",
    ]
] + [DEFAULTS | {"title": title, "tags": [title, "x"]} for title in ["\ufeff", "\ufeff\ufeffabc"]]


def new_user(client: FlaskClient) -> User:
    return User(client, f"user {next(NUMBERS)}")


@pytest.mark.no_cover
@examples
@given(tasks=st.lists(TASKS, max_size=4))
@example(tasks=[*AWKWARD, DEFAULTS | LONG, DEFAULTS | {"title": "x", "description": ""}])
def test_what_is_exported_and_imported_again_is_the_same(alice: User, tasks: list[dict[str, Any]]):
    first = new_user(alice.client)
    bring(first, tasks)
    kept = written(first)
    assert [task | {"due_at": None} for task in kept] == [task | {"due_at": None} for task in tasks]
    assert all((task["completed_at"] is not None) == task["completed"] for task in first.all())
    for content_type in FORMATS:
        second = new_user(alice.client)
        response = send(second, export(first, content_type), content_type)
        assert (response.status_code, response.json) == (201, {"imported": len(tasks)})
        assert written(second) == kept, content_type


@pytest.mark.no_cover
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


def test_json_with_a_large_entry_is_imported(alice: User):
    body = f'[{{"title": "x",{" " * 100_000}"completed": true}}]'
    assert send(alice, body, "application/json").status_code == 201
    assert written(alice) == [DEFAULTS | {"title": "x", "completed": True}]


def test_database_does_not_send_back_what_is_imported(alice: User, monkeypatch: pytest.MonkeyPatch):
    """Over a narrow link, that takes several times as long as to send it there."""
    sent: list[bytes] = []
    run = Connection.run_together

    def listen(self: Connection, *args: Any) -> list[PGresult]:
        results = run(self, *args)
        sent.extend(value for result in results for row in rows_of(result) for value in row)
        return results

    monkeypatch.setattr(Connection, "run_together", listen)
    assert send(alice, "title\r\nBuy milk\r\nBuy bread\r\n", "text/csv").status_code == 201
    assert [version.isdigit() for version in sent] == [True]  # one for both
