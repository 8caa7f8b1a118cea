"""Where a log has no room, its lines are lost and counted, and nobody waits."""

import fcntl
import logging
import os
import re
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from observability.logs import LineHandler

ROOM = 4 * select.PIPE_BUF


@pytest.fixture
def pipe() -> Iterator[tuple[LineHandler, int]]:
    """A handler that writes into a pipe, and the end to read it at."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, ROOM)
    with os.fdopen(reader, "rb") as output, os.fdopen(writer, "w") as stream:
        yield LineHandler(stream), output.fileno()


def test_log_that_nobody_reads_any_more_fails_no_request():
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        handler = LineHandler(stream)
        handler.write("one")
        assert os.read(reader, 10) == b"one\n"
        os.close(reader)
        handler.write("two")


def test_lines_that_do_not_fit_into_a_full_pipe_are_dropped_and_counted(
    pipe: tuple[LineHandler, int], caplog: pytest.LogCaptureFixture
):
    handler, reader = pipe
    for _ in range(100):
        handler.write("x" * 999)
        handler.emit(logging.LogRecord("", logging.INFO, "", 0, "y" * 9999, (), None))
    assert handler.lost > 0
    assert caplog.messages == []
    os.read(reader, 1_000_000)
    handler.write("z")
    assert os.read(reader, 10) == b"z\n"
    assert re.fullmatch("the log had no room for [0-9]+ lines", caplog.messages[0])
    assert handler.lost == 0


def test_lost_lines_are_told_of_later_where_the_line_that_tells_has_no_room_either(
    pipe: tuple[LineHandler, int], monkeypatch: pytest.MonkeyPatch
):
    handler, reader = pipe
    monkeypatch.setattr(logging.getLogger("observability.logs"), "handlers", [handler])
    full = "x" * (select.PIPE_BUF - 1)
    for _ in range(4 + 5):
        handler.write(full)
    os.read(reader, select.PIPE_BUF)
    handler.write(full)
    assert handler.lost == 5
    os.read(reader, 1_000_000)
    handler.write("one")
    assert os.read(reader, 100) == b"one\nthe log had no room for 5 lines\n"


def test_line_after_a_truncated_one_begins_on_a_line_of_its_own(pipe: tuple[LineHandler, int]):
    handler, reader = pipe
    handler.write("x" * (2 * select.PIPE_BUF))
    handler.write("y" * (3 * select.PIPE_BUF))
    handler.write("z")
    assert handler.lost == 2
    read = os.read(reader, 1_000_000)
    assert read.endswith(b"\n" + b"y" * select.PIPE_BUF)
    handler.write("one")
    assert os.read(reader, 10) == b"\none\n"
    handler.write("two")
    assert os.read(reader, 10) == b"two\n"


def test_lines_that_a_full_disk_refuses_are_counted():
    with Path("/dev/full").open("w") as stream:
        handler = LineHandler(stream)
        handler.write("one")
        handler.write("two")
    assert handler.lost == 2
