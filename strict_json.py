"""JSON as RFC 8259 means it, for bodies and tokens: UTF-8, no duplicate names, finite numbers."""

import json
from math import isinf
from typing import Any

MAX_DIGITS = 1000


class StrictError(ValueError):
    """It is JSON, but not of the kind that is accepted here."""


def parse_json(data: bytes) -> Any:
    """Parse JSON.

    Raises:
        StrictError: it has a duplicate name, nests too deep, or has a number beyond reach.
        ValueError: it is not JSON.
    """
    try:
        return DECODER.decode(data.decode())
    except RecursionError:
        raise StrictError("it nests too deep") from None


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise StrictError("an object has a name twice")
    return found


def refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def parse_real(text: str) -> float:
    number = float(text)
    if isinf(number):  # 1e400
        raise StrictError("a number is beyond reach")
    return number


def parse_whole(text: str) -> int:
    if len(text) > MAX_DIGITS:  # int() refuses more than 4,300
        raise StrictError("a number is beyond reach")
    return int(text)


DECODER = json.JSONDecoder(
    object_pairs_hook=refuse_duplicates,
    parse_constant=refuse_constant,
    parse_float=parse_real,
    parse_int=parse_whole,
)
