"""The formats of exports and imports: each module is a `Format`."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol


class Format(Protocol):
    """What a module of this folder has."""

    NAME: str
    FILE_NAME: str
    CONTENT_TYPE: str

    def write(self, pages: Iterable[bytes], user_id: str, /) -> Iterator[bytes]:
        """Write a file of pages of tasks, each JSON objects separated by commas."""

    def read(self, body: bytes, /) -> Iterator[Any]:
        """Yield the entries of a file."""

    def fields_of(self, entry: Any, /) -> Any:
        """Turn an entry into a task's fields, as JSON would have them."""
