"""JSON as RFC 8259 means it, for bodies and tokens alike: UTF-8, no name twice, finite numbers."""

import json
from math import isinf
from typing import Any


def parse_json(data: bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, has a name twice, nests too deep, or has an infinite number.
    """
    try:
        return DECODER.decode(data.decode())
    except RecursionError:
        raise ValueError("it nests too deep") from None


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a name twice")
    return found


def refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def parse_real(text: str) -> float:
    number = float(text)
    if isinf(number):  # 1e400
        raise ValueError("it has a number beyond reach")
    return number


DECODER = json.JSONDecoder(
    object_pairs_hook=refuse_duplicates, parse_constant=refuse_constant, parse_float=parse_real
)
