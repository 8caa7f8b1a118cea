"""A user's tasks as one JSON array."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from marshmallow import ValidationError

from strict_json import DECODER

NAME = "JSON"
FILE_NAME = "tasks.json"
CONTENT_TYPE = "application/json"

MARK = re.compile(r"[ \t\n\r]*([\[,\]]?)[ \t\n\r]*")
# An element is parsed from a window of the text, the larger where the smaller does not do: as a
# whole, a body of brackets would become lists of thirty times its size.
WINDOWS = (4 * 1024, 256 * 1024)  # characters


def write(pages: Iterable[bytes], _user_id: str) -> Iterator[bytes]:
    """Write the array: PostgreSQL's own text, in brackets."""
    yield b"["
    for number, page in enumerate(pages):
        yield b"," + page if number else page
    yield b"]"


def read(body: bytes) -> Iterator[Any]:
    """Yield the elements of the array, one at a time in memory.

    Raises:
        ValueError: it is no JSON, or has an element of more than 256 Ki characters.
        ValidationError: it is no array.
    """
    text = body.decode()
    mark, at = mark_at(text, 0)
    if mark != "[":
        read_element(text, at)
        raise ValidationError({"tasks": ["Must be an array."]})
    mark, end = mark_at(text, at)
    if mark == "]":
        at = end
    while mark != "]":
        element, at = read_element(text, at)
        yield element
        mark, at = mark_at(text, at)
        if mark not in {",", "]"}:
            raise ValueError("an element ends with a comma or the array")
    if at < len(text):
        raise ValueError("something follows the array")


def fields_of(element: Any) -> Any:
    return element


def mark_at(text: str, at: int) -> tuple[str, int]:
    """Return the bracket or comma there, '' for none, and where what follows it begins."""
    found = next(MARK.finditer(text, at))
    return found[1], found.end()


def read_element(text: str, at: int) -> tuple[Any, int]:
    """Return the element that begins there, and where it ends."""
    small, large = (text[at : at + size] for size in WINDOWS)
    try:
        element, length = DECODER.raw_decode(small)
    except ValueError:
        element, length = DECODER.raw_decode(large)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    return element, at + length
