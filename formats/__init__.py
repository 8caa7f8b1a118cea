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
        """Yield the entries of a file.

        Raises:
            ValueError: it is not of this format; a UnicodeDecodeError where it is not UTF-8.
            StrictError: it is, but something in it is not accepted here.
            ValidationError: its frame is wrong, such as a header; of an entry, fields_of tells.
        """

    def fields_of(self, entry: Any, /) -> Any:
        """Turn an entry into a task's fields, as JSON would have them; the schema checks them.

        Raises:
            ValidationError: a part of it cannot be understood.
        """
