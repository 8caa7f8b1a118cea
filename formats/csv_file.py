"""A user's tasks as CSV (RFC 4180), for spreadsheets: no text of a task runs there as a formula."""

import csv
import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from functools import partial
from io import BytesIO, StringIO, TextIOWrapper
from typing import Any

from marshmallow import ValidationError

from capacity.turns import in_turns
from schemas import SERVER_FIELDS
from strict_json import StrictError

NAME = "CSV"
FILE_NAME = "tasks.csv"
CONTENT_TYPE = "text/csv; charset=utf-8; header=present"

WRITABLE = ("title", "description", "priority", "due_at", "tags", "completed")
COLUMNS = (*WRITABLE, "id", "created_at", "updated_at", "completed_at")
BOOLEANS = {"": False, "false": False, "0": False, "true": True, "1": True}
MAX_ROW_LENGTH = 64 * 1024  # characters

# What begins a formula, in ASCII, full-width and small forms, and the minus sign.
FORMULA = "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212"
BLANK = "[ \u00a0\ufeff]*"
# To a spreadsheet whose separator is not the comma, or that takes quotes for text, cells begin in
# the middle of a text: after each of these.
BEGINNING = '(?<=[,;\t\r\n"])'
DANGER = f"(?:^(?='*{BLANK}[{FORMULA}\t\r\n])|{BEGINNING}(?='*{BLANK}[{FORMULA}]))"
DANGEROUS = re.compile(DANGER)
DEFUSED = re.compile(DANGER.replace("(?='*", "'(?='*"))


Entry = tuple[list[str], list[str]]  # the header's names, the cells


def defuse(text: str) -> str:
    """Put an apostrophe before whatever a spreadsheet could take for a formula.

    An empty text becomes an apostrophe, as an empty cell stands for null.
    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return DANGEROUS.sub("'", text) if text.strip("'") else f"'{text}"


def undo_defusing(cell: str) -> str:
    return DEFUSED.sub("", cell) if cell.strip("'") else cell[1:]


def write(pages: Iterable[bytes], _user_id: str) -> Iterator[bytes]:
    """Write a header, then one row per task."""
    yield BOM_UTF8 + to_csv([COLUMNS])  # without a BOM, Excel guesses a local encoding
    for page in pages:
        yield to_csv(cells_of(task) for task in in_turns(json.loads(b"[%b]" % page)))


def to_csv(rows: Iterable[Iterable[str]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def cells_of(task: dict[str, Any]) -> Iterator[str]:
    # The tags are CSV in themselves: one row, in one cell.
    texts = task | {"tags": to_csv([task["tags"]]).decode().removesuffix("\r\n")}
    for name in COLUMNS:
        match texts[name]:
            case None:
                yield ""
            case bool(value):
                yield str(value).lower()
            case int(value):
                yield str(value)
            case text:
                yield defuse(text) if text or name != "tags" else ""


def read(body: bytes) -> Iterator[Entry]:
    """Yield the rows below the header.

    Raises:
        ValueError: it is not CSV.
        StrictError: it has a row of more than 64 Ki characters.
        ValidationError: the header has a wrong column.
    """
    lines = TextIOWrapper(BytesIO(body), "utf-8-sig", newline="")
    header = lines.readline(MAX_ROW_LENGTH)
    lines.seek(0)
    parts = iter(partial(lines.readline, MAX_ROW_LENGTH + 1), "")  # whole lines, unless too long
    size = 0

    def bounded() -> Iterator[str]:
        nonlocal size
        for part in in_turns(parts):
            size += len(part)
            if size > MAX_ROW_LENGTH:
                raise StrictError("a row is too long")
            yield part

    # Where the comma is the decimal mark, Excel writes semicolons; what is copied from it has tabs.
    delimiter = max(",;\t", key=header.count)
    rows = csv.reader(bounded(), strict=True, delimiter=delimiter)
    try:
        names = check_header([name.strip().lower() for name in next(rows, [])])
        size = 0
        for row in rows:
            size = 0
            if any(row) or len(row) == 1:  # a spreadsheet may write rows of nothing but commas
                yield names, row
    except csv.Error as error:
        raise ValueError(str(error)) from None


def check_header(names: list[str]) -> list[str]:
    """Refuse a wrong header; a column without a name is ignored, and its cells must be empty."""
    given = [name for name in names if name]
    wrong = sorted({*given} - {*WRITABLE, *SERVER_FIELDS})
    if wrong or "title" not in given or len({*given}) < len(given):
        rule = "Must have a title column, and no column twice."
        message = f"{wrong[0]}: unknown column; there are {', '.join(COLUMNS)}." if wrong else rule
        raise ValidationError({"header": [message]})
    return names


def fields_of(entry: Entry) -> dict[str, Any]:
    """Turn an entry into a task's fields, as JSON would have them; the schema checks them.

    Raises:
        ValidationError: a cell cannot be understood.
    """
    names, cells = entry
    if len(cells) > len(names):
        raise ValidationError({"row": ["Must not have more cells than the header."]})
    fields: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=False):
        match name:
            case "" if cell:
                raise ValidationError({"row": ["Must have no cell in a column without a name."]})
            case "title":
                fields[name] = undo_defusing(cell)
            case "description":
                fields[name] = undo_defusing(cell) if cell else None
            case "tags":
                fields[name] = tags_of(undo_defusing(cell))
            case "completed":
                fields[name] = BOOLEANS.get(cell.strip().lower(), cell)
            case "priority" | "due_at":
                fields[name] = cell.strip() or None
    return fields


def tags_of(cell: str) -> list[str]:
    try:
        [tags] = csv.reader([cell], strict=True, skipinitialspace=True)
    except csv.Error:
        message = "Must be tags separated by commas, quoted as in CSV."
        raise ValidationError({"tags": [message]}) from None
    return tags
