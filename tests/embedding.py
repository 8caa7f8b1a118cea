"""The embedded PostgreSQL, as its tests look at it."""

import pytest

from embedded import EmbeddedError


def line_of(error: pytest.ExceptionInfo[EmbeddedError]) -> str:
    line = str(error.value)
    assert line.strip()
    assert "\n" not in line
    return line
