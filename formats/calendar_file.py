"""A user's tasks as an iCalendar of VTODOs (RFC 5545)."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from hashlib import sha256
from io import BytesIO, TextIOWrapper
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote

from icalendar import vDate, vDatetime, vText
from icalendar.parser import Contentline, Contentlines, Parameters, split_on_unescaped_comma
from marshmallow import ValidationError

from capacity.turns import in_turns
from formats.calendar_times import FLOATING_ZONE, MICROSECOND, Todo, due_of
from strict_json import StrictError

NAME = "iCalendar"
FILE_NAME = "tasks.ics"
CONTENT_TYPE = "text/calendar; charset=utf-8; component=VTODO"

PART = 50  # tasks; writing one takes a third of a millisecond
HEAD = b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Tasks//Tasks//EN\r\n"
TAIL = b"END:VCALENDAR\r\n"
DIGIT_OF_PRIORITY = {"none": "0", "low": "9", "medium": "5", "high": "1"}
PRIORITY_OF_DIGIT = (
    {"0": "none", "5": "medium"} | dict.fromkeys("1234", "high") | dict.fromkeys("6789", "low")
)

ESCAPES = str.maketrans({"\\": r"\\", ";": r"\;", ",": r"\,", "\n": r"\n"})  # section 3.3.11
# iCalendar's text has no control characters, and the library drops a leading byte order mark: a
# text with either is percent-encoded, and a parameter says so. But forms in browsers send every
# line break as CRLF: other programs shall show one. Another parameter holds DUE's microseconds.
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]")
ENCODED = re.compile(rf"%|{UNSAFE.pattern}")
ESCAPED = "X-TASKS-ESCAPED"

PROPERTY_NAME = re.compile(rb"[\w.-]+(?=[:;])")
TASK = ["VCALENDAR", "VTODO"]
MAX_DEPTH = 8  # nested components
MAX_TASK_SIZE = 128 * 1024  # bytes that are read of a task
MAX_DETAILS_SIZE = 16 * 1024  # all but a description's text; it takes 1 ms per KiB
PARAMETERS = re.compile(rb'(?:"[^"]*"|[^":]+)*')  # and the name before them
ALTREP = re.compile(rb';ALTREP="[^"]*"', re.IGNORECASE)


class Texts:
    """Texts separated by commas. The library's own class would write \\N as a line break."""

    def __init__(self, texts: list[str], params: dict[str, str]) -> None:
        self.texts = texts
        self.params = Parameters(params)

    def to_ical(self) -> bytes:
        return ",".join(text.translate(ESCAPES) for text in self.texts).encode()


def write(pages: Iterable[bytes], user_id: str) -> Iterator[bytes]:
    """Write one VTODO per task."""
    owner = sha256(user_id.encode()).hexdigest()[:16]
    yield HEAD
    for page in pages:
        tasks = in_turns(json.loads(b"[%b]" % page))
        while part := b"".join(to_vtodo(task, owner) for task in islice(tasks, PART)):
            yield part
    yield TAIL


def to_vtodo(task: dict[str, Any], owner: str) -> bytes:
    properties = {
        "BEGIN": vText("VTODO"),
        "UID": vText(f"{task['id']}-{owner}@tasks"),
        "DTSTAMP": to_moment(task["updated_at"]),
        "CREATED": to_moment(task["created_at"]),
        "LAST-MODIFIED": to_moment(task["updated_at"]),
        "SUMMARY": to_text([task["title"]]),
        "DESCRIPTION": to_text([task["description"]]),
        "PRIORITY": vText(DIGIT_OF_PRIORITY[task["priority"]]),
        "DUE": to_due(task["due_at"]),
        "CATEGORIES": to_text(task["tags"]),
        "STATUS": vText("COMPLETED" if task["completed"] else "NEEDS-ACTION"),
        "COMPLETED": to_moment(task["completed_at"]),
        "END": vText("VTODO"),
    }
    return bytes(
        Contentlines(
            Contentline.from_parts(name, value.params, value)
            for name, value in properties.items()
            if value is not None
        ).to_ical()
    )


def to_moment(text: str | None) -> vDatetime | None:
    """Write a moment in UTC; iCalendar has no fractions of a second."""
    return vDatetime(datetime.fromisoformat(text).astimezone(UTC)) if text else None


def to_due(text: str | None) -> vDate | vDatetime | None:
    if text and "T" not in text:
        return vDate(date.fromisoformat(text), params={"VALUE": "DATE"})
    due = to_moment(text)
    if due and due.dt.microsecond:
        due.params[MICROSECOND] = str(due.dt.microsecond)
    return due


def to_text(texts: list[str | None]) -> Texts | None:
    given = [text for text in texts if text is not None]
    if not any(map(UNSAFE.search, given)):
        return Texts(given, {}) if given else None
    plain = [text.replace("\r\n", "\n") for text in given]
    if not any(map(UNSAFE.search, plain)) and list(map(to_crlf, plain)) == given:
        return Texts(plain, {ESCAPED: "CRLF"})
    encoded = [ENCODED.sub(lambda found: quote(found[0], safe=""), text) for text in given]
    return Texts(encoded, {ESCAPED: "PERCENT"})


def to_crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


def read(body: bytes) -> Iterator[Todo]:
    """Yield each VTODO's properties that we use; other properties and components are skipped.

    So is VTIMEZONE: the library would keep the one in a user's file for all other users.

    Raises:
        ValueError: it is not an iCalendar, or nests too deep.
        StrictError: a VTODO has more than 128 KiB to read, or 16 without its description's text, or
            a calendar's time zone has more than 16.
    """
    open_components: list[str] = []
    of_calendar: Todo = {}
    todo: Todo = {}
    size = details_size = 0
    calendars = 0
    file = BytesIO(body)
    file.seek(len(BOM_UTF8) if body.startswith(BOM_UTF8) else 0)
    # Latin-1 maps bytes to characters one to one; reading bytes would not end lines at CR too.
    lines = TextIOWrapper(file, "latin-1", newline="")
    parts = iter(partial(lines.readline, MAX_TASK_SIZE), "")
    for name, content in content_lines(in_turns(parts)):
        line = content.decode()
        component = line.partition(":")[2].strip().upper()
        if name == "BEGIN":
            open_components.append(component)
            if open_components[0] != "VCALENDAR" or len(open_components) > MAX_DEPTH:
                raise ValueError("a component is at a wrong place")
            if open_components == TASK:
                todo, size, details_size = of_calendar.copy(), 0, 0
        elif name == "END":
            if open_components[-1:] != [component]:
                raise ValueError("an END has no BEGIN")
            if open_components == TASK:
                yield todo
            open_components.pop()
            calendars += not open_components
            of_calendar = of_calendar if open_components else {}
        elif name == FLOATING_ZONE and open_components == TASK[:1]:
            if len(content) > MAX_DETAILS_SIZE:
                raise StrictError("a time zone is too long")
            of_calendar = {name: [Contentline(line)]}
        elif open_components == TASK:
            details, text = split_description(content) if name == "DESCRIPTION" else (content, b"")
            size += len(content)
            details_size += len(details)
            if size > MAX_TASK_SIZE or details_size > MAX_DETAILS_SIZE:
                raise StrictError("a task is too long")
            todo.setdefault(name, []).append(Contentline((details + text).decode()))
    if open_components or not calendars:
        raise ValueError("it breaks off")


def split_description(content: bytes) -> tuple[bytes, bytes]:
    """Split off a description's text. Its parameters lose ALTREP, the same text again as HTML."""
    end = found.end() if (found := PARAMETERS.match(content)) else 0
    return ALTREP.sub(b"", content[:end]), content[end:]


def content_lines(lines: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the lines that we use, unfolded (RFC 5545, section 3.1), each after its name.

    A line may come in parts, of which only the last has a line end. A fold may split a character.
    Of a line that is too long, enough is kept to show that it is.
    """
    name, parts, size = "", [b""], 0
    has_begun = False  # the line, in a part before
    for part in lines:
        text = part.rstrip("\r\n").encode("latin-1")
        if has_begun or text[:1] in {b" ", b"\t"}:
            more = text if has_begun else text[1:]
            if more and name in READ and size <= MAX_TASK_SIZE:
                parts.append(more)
                size += len(more)
        elif text:
            if name in READ:
                yield name, b"".join(parts)
            found = PROPERTY_NAME.match(text)
            if not found:
                raise ValueError("a line has no name")
            name, parts, size = found[0].decode().upper(), [text], len(text)
        has_begun = part[-1] not in "\r\n"
    if name in READ:
        yield name, b"".join(parts)


def fields_of(todo: Todo) -> dict[str, Any]:
    """Turn a VTODO into a task's fields, as JSON would have them; the schema judges them.

    Raises:
        ValidationError: a property cannot be understood.
    """
    fields: dict[str, Any] = {}
    for name, (field, convert) in CONVERTER_OF.items():
        lines = todo.get(name, [])
        if len(lines) > 1 and name != "CATEGORIES":
            raise ValidationError({field: [f"{name} must not appear more than once."]})
        try:
            if lines:
                fields[field] = convert(lines)
        except (LookupError, ValueError, OverflowError):
            raise ValidationError({field: [f"{name} is malformed."]}) from None
    if due := due_of(todo):
        fields["due_at"] = due.isoformat()
    fields.setdefault("completed", "COMPLETED" in todo)
    return fields


def text_of(lines: list[Contentline]) -> str:
    _, params, text = lines[0].parts()
    return unescape(text, params)


def unescape(text: str, params: dict[str, Any]) -> str:
    if str(params.get("ENCODING")).upper() == "QUOTED-PRINTABLE":  # of vCalendar 1.0
        raise ValueError("an encoded text")
    if params.get(ESCAPED) == "CRLF":
        return to_crlf(text)
    return unquote(text, errors="strict") if params.get(ESCAPED) == "PERCENT" else text


def tags_of(lines: list[Contentline]) -> list[str]:
    """Take the categories of all lines, each once."""
    parts = [line.raw_parts() for line in lines]
    tags = [
        unescape(tag, params).strip()
        for _, params, value in parts
        for tag in split_on_unescaped_comma(value)
    ]
    return list(dict.fromkeys(filter(None, tags)))


def priority_of(lines: list[Contentline]) -> str:
    return PRIORITY_OF_DIGIT[lines[0].parts()[2].strip()]


def is_completed(lines: list[Contentline]) -> bool:
    return str(lines[0].parts()[2]).strip().upper() == "COMPLETED"


CONVERTER_OF: dict[str, tuple[str, Callable[[list[Contentline]], Any]]] = {
    "SUMMARY": ("title", text_of),
    "DESCRIPTION": ("description", text_of),
    "PRIORITY": ("priority", priority_of),
    "CATEGORIES": ("tags", tags_of),
    "STATUS": ("completed", is_completed),
}
READ = {"BEGIN", "END", "COMPLETED", "DUE", "DTSTART", "DURATION", FLOATING_ZONE, *CONVERTER_OF}
