"""Cursors of changes and of the trash: a place in the order of a user's changes, not signed."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from flask import current_app

from converters import MAX_ID


class Position(NamedTuple):
    """The version and id of the task read last; MAX_ID: all of that version was read."""

    version: int
    task_id: int


START = Position(0, MAX_ID)  # before all changes: versions begin at 1
END = Position(MAX_ID, MAX_ID)  # after all changes: the trash is read backwards from here

# The first number is the version of this format, should there ever be another one.
WRITTEN = re.compile(rb"1\.(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})\.[0-9a-f]{8}")
CURSOR_PATTERN = "^[A-Za-z0-9_-]{19,67}$"


def write_position(user_id: str, position: Position) -> str:
    return cursor_of(current_app.config["CHANGES_EPOCH"], user_id, position)


@lru_cache(1024)  # a client that has missed nothing sends, and gets back, the same again and again
def cursor_of(epoch: str, user_id: str, position: Position) -> str:
    """Write a position, and which order it is in: the user's, until `epoch` begins another."""
    history = sha256(f"{epoch}\n{user_id}".encode()).hexdigest()[:8]
    written = f"1.{position.version}.{position.task_id}.{history}"
    return urlsafe_b64encode(written.encode()).rstrip(b"=").decode()


def read_position(user_id: str, cursor: str) -> Position:
    """Read what `write_position` wrote for this user.

    Raises:
        ValueError: it is something else, or from before CHANGES_EPOCH was changed.
    """
    found = WRITTEN.fullmatch(urlsafe_b64decode(f"{cursor}==="))
    position = found and Position(int(found[1]), int(found[2]))
    if not position or max(position) > MAX_ID or write_position(user_id, position) != cursor:
        raise ValueError("no position")
    return position
