"""Imports: how large a file may be, and how many tasks it may bring."""

import json
import resource
from io import BytesIO

import pytest
from flask import Flask
from support import JSON, NewApp, User, assert_error
from transfers import EACH_FORMAT, bring, export, send

from blueprints.transfer import PART, load_entries
from formats import json_file


@pytest.fixture
def narrow(new_app: NewApp) -> User:
    """A user who may store 700 tasks, and send other bodies only if they are small."""
    app = new_app(max_tasks_per_user=700, max_import_length=100_000, max_content_length=100)
    return User(app.test_client(), "alice")


def test_long_import_is_done_in_statements_that_take_far_less_than_the_time_limit():
    body = json.dumps([{"title": "x"}] * 1001).encode()
    number, batches = load_entries(json_file, body, 1001)
    assert number == 1001
    assert [len(json.loads(batch)) for batch in batches] == [500, 500, 1]


LONGER = "malformed, or longer than 256 KiB, "


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (json.dumps({"title": "x", "description": "y" * 300_000}), LONGER),
        (json.dumps({"title": "x", "id": [12345.5] * 900 + ["y" * 300_000]}), LONGER),
        ('{"title":"x"' + " " * 300_000 + "}", LONGER),
        ('{"title":"x","id":' + "[" * 50_000 + "]" * 50_000 + "}", "taken: an element "),
        ('{"title":x}', "is not valid JSON, "),
    ],
)
def test_entry_of_json_that_is_too_large_is_not_called_invalid(alice: User, bad: str, told: str):
    body = f'[{{"title":"a"}},{bad},{{"title":"c"}}]'
    response = send(alice, body, "application/json")
    assert_error(response, 400, "bad_request")
    assert told in response.json["message"]
    assert response.json["message"].endswith("after entry 1.")
    assert alice.all() == []


@pytest.mark.parametrize("number", [1, 200, 20_000])
def test_array_in_an_object_is_422_however_long_it_is(alice: User, number: int):
    body = json.dumps({"tasks": [{"title": "x", "tags": ["a", "b"]}] * number})
    details = assert_error(send(alice, body, "application/json"), 422, "validation_error")
    assert details["tasks"] == ["Must be an array."]


def test_long_body_that_is_no_json_is_400(alice: User):
    response = send(alice, "<html>" * 60_000, "application/json")
    assert_error(response, 400, "bad_request")


def test_first_import_of_a_user_counts_each_task_once_and_brings_as_many_as_may_be(
    app: Flask, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(app.config, "MAX_TASKS_PER_USER", 3)
    bring(alice, [{"title": "x"}] * 2)
    alice.create()
    bring(bob, [{"title": "x"}] * 3)


def test_import_beyond_what_a_user_may_store_is_409_and_nothing_is_imported(narrow: User):
    bring(narrow, [{"title": "x"}] * 100)
    for more in (601, 650, 701):
        response = send(narrow, json.dumps([{"title": "y"}] * more), "application/json")
        assert_error(response, 409, "conflict")
        assert len(narrow.all()) == 100
    cut_off = json.dumps([{"title": "y"}] * 702)[:-1]  # whose end is not looked at
    assert_error(send(narrow, cut_off, "application/json"), 409, "conflict")
    bring(narrow, [{"title": "y"}] * 600)
    assert len(narrow.all()) == 700


@pytest.mark.no_cover
@EACH_FORMAT
def test_file_much_longer_than_any_of_its_entries_is_imported(alice: User, content_type: str):
    bring(alice, [{"title": "x", "description": "x" * 500}] * 600)
    file = export(alice, content_type)
    assert len(file) > 300_000
    response = send(alice, file, content_type)
    assert (response.status_code, response.json) == (201, {"imported": 600})


@pytest.mark.parametrize(("size", "status"), [(100_000, 201), (100_001, 413)])
def test_import_has_a_limit_of_its_own(narrow: User, size: int, status: int):
    assert send(narrow, b"[]".ljust(size), "application/json").status_code == status


def test_chunked_import_with_a_byte_too_many_is_413_and_not_cut_short(
    app: Flask, alice: User, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(app.config, "MAX_IMPORT_LENGTH", PART)  # as by default, whole parts
    for size, status in [(PART, 201), (PART + 1, 413)]:
        sent = {"wsgi.input": BytesIO(b"[]".ljust(size)), "wsgi.input_terminated": True}
        response = alice.call("POST", "import", headers=JSON, environ_overrides=sent)
        assert response.status_code == status


def test_entry_with_very_many_values_is_400_even_where_they_would_be_ignored(alice: User):
    task = {"title": "x", "description": "[{," * 1600, "tags": list(map(str, range(20)))}
    entries = [task | {"created_at": [[]] * count} for count in (0, 280, 400)]
    bring(alice, entries[:2])
    response = send(alice, json.dumps(entries), "application/json")
    message = "The request body cannot be taken: an element has too many values, after entry 2."
    assert_error(response, 400, "bad_request", message)


class Endless(BytesIO):
    """A body that never ends, up to what a disk holds."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    def read(self, size: int | None = -1) -> bytes:
        assert self.sent < 10_000_000
        self.sent += size or 0
        return b" " * (size or 0)


def test_file_that_never_ends_is_413_and_not_received(narrow: User):
    endless = Endless()
    sent = {"wsgi.input": endless, "wsgi.input_terminated": True}
    response = narrow.call("POST", "import", headers=JSON, environ_overrides=sent)
    assert_error(response, 413, "payload_too_large")
    assert endless.sent < 1_000_000


@pytest.mark.parametrize(
    ("header", "value", "status", "error"),
    [
        ("CONTENT_LENGTH", "100001", 413, "payload_too_large"),
        ("HTTP_CONTENT_ENCODING", "gzip", 415, "unsupported_media_type"),
    ],
)
def test_file_that_its_headers_rule_out_is_refused_before_it_is_received(
    narrow: User, header: str, value: str, status: int, error: str
):
    sent = {"wsgi.input": Endless(), "wsgi.input_terminated": True, header: value}
    response = narrow.call("POST", "import", headers=JSON, environ_overrides=sent)
    assert_error(response, status, error)
    assert sent["wsgi.input"].sent == 0


def test_file_whose_last_part_has_no_room_is_503_too(alice: User):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * PART + 100, hard))
    try:
        response = send(alice, b" " * (8 * PART + 4000), "application/json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_error(response, 503, "unavailable")


def test_file_for_which_the_disk_has_no_room_is_503_and_its_user_may_try_again(
    alice: User, monkeypatch: pytest.MonkeyPatch
):
    body = json.dumps([{"title": "x" * 200}] * 2000)
    with monkeypatch.context() as full:
        full.setattr("tempfile.tempdir", "/dev/full")
        assert_error(send(alice, body, "application/json"), 503, "unavailable")
    assert send(alice, body, "application/json").status_code == 201
