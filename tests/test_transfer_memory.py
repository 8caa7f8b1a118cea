"""Files and exports, however large, take little memory."""

import gc
import json
import sys
import tracemalloc
from contextlib import suppress
from types import ModuleType

import pytest
from support import User
from transfers import store

from blueprints.transfer import load_entries
from errors import ApiError
from formats import calendar_file, csv_file, json_file


# tracemalloc makes Python ten times slower: a format written in Python gets fewer tasks.
@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("content_type", "count"), [("application/json", 20_000), ("text/csv", 6_000)]
)
def test_export_takes_no_memory_for_the_whole(
    alice: User, owner_url: str, content_type: str, count: int
):
    store(owner_url, count, 500)
    response = alice.call("GET", "export", buffered=False, headers={"Accept": content_type})
    parts = iter(response.response)
    tracemalloc.start()
    size = sum(map(len, parts))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 500 * count
    assert peak < 3_000_000


@pytest.mark.no_cover
def test_calendar_takes_no_memory_for_the_whole(alice: User):
    """Of small pages, as two of an export's take long to write, and as much memory as the whole."""
    task = json.dumps(alice.create(description="y" * 500)).encode()
    pages = (b",".join([task] * 10) for _ in range(20))
    tracemalloc.start()
    size = sum(map(len, calendar_file.write(pages, "alice")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 500 * 200
    assert peak < size / 2


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("file_format", "line"),
    [
        (csv_file, b"title,%s"),
        (csv_file, b"title\n%s"),
        (csv_file, b'title\n"%s'),
        (calendar_file, b"BEGIN:VCALENDAR\nBEGIN:VTODO\nSUMMARY:%s\nEND:VTODO"),
    ],
)
def test_line_that_never_ends_takes_no_memory(file_format: ModuleType, line: bytes):
    body = line % ("😀".encode() * 1_000_000)
    tracemalloc.start()
    with pytest.raises(ValueError, match="too long"):
        list(file_format.read(body))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.no_cover
def test_what_is_kept_of_an_import_is_no_larger_than_its_file():
    tasks = [{"title": "x", "description": "xxxx😀" * 1000} for _ in range(600)]
    body = json.dumps(tasks, ensure_ascii=False).encode()
    number, batches = load_entries(json_file, body, 1000)
    assert number == 600
    assert sum(map(sys.getsizeof, batches)) < 1.01 * len(body)


@pytest.mark.no_cover
@pytest.mark.parametrize("fault", [b'{"title":""}', b"x", b'{"title":"\xff"}'])
def test_nothing_of_a_refused_file_waits_for_the_garbage_collector(fault: bytes):
    tasks = [{"title": "x", "description": "y" * 5000}] * 600
    body = json.dumps(tasks).encode()[:-1] + b"," + fault + b" " * 10**6 + b"]"
    gc.disable()
    tracemalloc.start()
    try:
        with suppress(ApiError):
            load_entries(json_file, body, 1000)
            pytest.fail("it was not refused")
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert peak > len(body) / 2
    assert kept < 100_000
