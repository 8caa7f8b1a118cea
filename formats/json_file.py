"""A user's tasks as one JSON array."""

import re
from codecs import BOM_UTF8, utf_8_decode
from collections.abc import Iterable, Iterator
from typing import Any

from marshmallow import ValidationError

from strict_json import DECODER, StrictError

NAME = "JSON"
FILE_NAME = "tasks.json"
CONTENT_TYPE = "application/json"

MARK = re.compile(rb"[ \t\n\r]*([\[,\]]?)[ \t\n\r]*")
# An element is parsed from a window of the body, the larger one if the smaller is not enough: a
# body of brackets, parsed as a whole, would become lists of twenty times its size.
WINDOWS = (4 * 1024, 256 * 1024)  # bytes
TEXT_OR_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
MAX_MARKS = 1000  # of a large element, texts included; 256 KiB of "[[],{}]," takes 60 ms


def write(pages: Iterable[bytes], _user_id: str) -> Iterator[bytes]:
    """Write the array: PostgreSQL's own text, in brackets."""
    yield b"["
    for number, page in enumerate(pages):
        yield b"," + page if number else page
    yield b"]"


def read(body: bytes) -> Iterator[Any]:
    """Yield the elements of the array, one at a time in memory.

    Raises:
        StrictError: it is JSON that is not accepted here: an element has more than 256 KiB (or is
            malformed, with as much behind it), nests too deep, or has more than 4 KiB and 1,000
            texts and marks.
        ValueError: it is not JSON.
        ValidationError: it is not an array.
    """
    mark, at = mark_at(body, len(BOM_UTF8) if body.startswith(BOM_UTF8) else 0)
    if mark != b"[":
        try:
            read_element(body, at)
        except StrictError:
            if not body.startswith(b"{", at):  # an object is no array, whatever else is wrong
                raise
        raise ValidationError({"tasks": ["Must be an array."]})
    mark, end = mark_at(body, at)
    if mark == b"]":
        at = end
    while mark != b"]":
        element, at = read_element(body, at)
        yield element
        mark, at = mark_at(body, at)
        if mark not in {b",", b"]"}:
            raise ValueError("an element ends with a comma or the array")
    if at < len(body):
        raise ValueError("something follows the array")


def fields_of(element: Any) -> Any:
    return element


def mark_at(body: bytes, at: int) -> tuple[bytes, int]:
    """Return the bracket or comma at `at` (b"" for none), and where the rest begins."""
    found = next(MARK.finditer(body, at))
    return found[1], found.end()


def has_many_marks(part: bytes) -> bool:
    """Tell whether the element that a part of the body begins with has more than MAX_MARKS."""
    depth = 0
    for number, found in enumerate(TEXT_OR_MARK.finditer(part)):
        depth += (found[0] in {b"[", b"{"}) - (found[0] in {b"]", b"}"})
        if depth <= 0 or number >= MAX_MARKS:
            return depth > 0
    return False


def read_element(body: bytes, at: int) -> tuple[Any, int]:
    """Return the element that begins at `at`, and where it ends."""
    for window in WINDOWS:
        part = body[at : at + window]
        if window > WINDOWS[0] and has_many_marks(part):
            raise StrictError("an element has too many values")
        try:
            text, _ = utf_8_decode(part, "strict", False)
        except UnicodeDecodeError as error:  # perhaps in a later element
            text = part[: error.start].decode()
        try:
            element, length = DECODER.raw_decode(text)
        except RecursionError:
            raise StrictError("an element nests too deep") from None
        except StrictError:
            raise
        except ValueError:
            continue
        return element, at + len(text[:length].encode())
    utf_8_decode(part, "strict", False)  # if it is not UTF-8, this says so
    if at + window < len(body):
        raise StrictError("an element is malformed, or longer than 256 KiB")
    raise ValueError("it is malformed")
