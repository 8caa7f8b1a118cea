"""Input that breaks a rule: the contract's response, and nothing stored."""

import gzip
import json
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from support import JSON, User, assert_error, trash_of

BROKEN_TITLES: list[Any] = ["", "   ", "\u2003\n", "x" * 201, "a\0b", "\ud800", "\udc00x"]
BROKEN_TITLES += [None, 5, 1.5, True, [], ["x"], {}, {"a": 1}]
BROKEN_DESCRIPTIONS: list[Any] = ["x" * 5001, "a\0b", "x\udfff", 5, False, [], {}]
BROKEN_BOOLEANS: list[Any] = ["yes", "true", "on", "t", "1", "", 1, 0, 1.0, None, [], {}]

OTHER_TYPES = ["text/plain", "application/x-www-form-urlencoded", "", "x", "application/xml"]
OTHER_TYPES += ["multipart/form-data; boundary=x", "application/json-patch+json", "text/json"]
OTHER_TYPES += ["application/json; " + "a=b; " * 200]


def send_both(user: User, body: dict[str, Any]) -> list[Any]:
    """Send a body, with JSON's escapes, to create and to update."""
    before = user.all() or [user.create("kept")]
    data = json.dumps(body)
    responses = [
        user.call("POST", data=data, headers=JSON),
        user.call("PUT", before[0]["id"], data=data, headers=JSON),
    ]
    assert user.all() == before, "nothing is stored"
    return responses


def assert_each_is_422(user: User, field: str, values: list[Any], *, create: bool = True) -> None:
    for value in values:
        body = {"title": "x", field: value}
        for response in send_both(user, body)[0 if create else 1 :]:
            assert assert_error(response, 422, "validation_error").keys() == {field}, value


def test_title_that_breaks_a_rule_is_422_by_name(alice: User):
    assert_each_is_422(alice, "title", BROKEN_TITLES)


def test_description_that_breaks_a_rule_is_422_by_name(alice: User):
    assert_each_is_422(alice, "description", BROKEN_DESCRIPTIONS)


def test_completed_that_is_no_boolean_is_422_by_name(alice: User):
    assert_each_is_422(alice, "completed", BROKEN_BOOLEANS, create=False)


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        ({"data": b"{", "environ_overrides": {"CONTENT_LENGTH": "9"}}, 400, "bad_request"),
        ({"data": b"{}", "headers": {"Content-Encoding": "gzip"}}, 415, "unsupported_media_type"),
        (
            {"headers": {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}},
            415,
            "unsupported_media_type",
        ),
    ],
    ids=["cut off", "encoded", "encoded and chunked"],
)
def test_broken_body_is_refused_also_where_no_body_is_expected(
    alice: User, sent: dict[str, Any], status: int, error: str
):
    task, gone = alice.create(), alice.create()["id"]
    alice.call("DELETE", gone)
    for method, path in [
        ("PATCH", f"{task['id']}/complete"),
        ("DELETE", task["id"]),
        ("POST", f"/api/alice/trash/{gone}/restore"),
        ("DELETE", f"/api/alice/trash/{gone}"),
        ("DELETE", "/api/alice/trash"),
    ]:
        assert_error(alice.call(method, path, **sent), status, error)
    assert alice.all() == [task]
    assert [each["id"] for each in trash_of(alice)] == [gone]


def test_completed_is_no_field_of_a_new_task(alice: User):
    response = alice.call("POST", json={"title": "x", "completed": True})
    assert_error(response, 422, "validation_error", "completed: Unknown field.")
    assert alice.all() == []


def test_missing_title_is_422_by_name(alice: User):
    for response in send_both(alice, {"description": "x"}):
        assert assert_error(response, 422, "validation_error").keys() == {"title"}


def test_every_broken_field_is_named_at_once(alice: User):
    for response in send_both(alice, {"title": "", "description": 5, "zz": 1}):
        details = assert_error(response, 422, "validation_error")
        assert details.keys() == {"title", "description", "zz"}


def test_empty_body_is_400(alice: User):
    for headers in [{}, JSON]:
        assert_error(alice.call("POST", headers=headers), 400, "bad_request")


def test_body_that_is_not_sent_as_json_is_415(alice: User):
    for content_type in OTHER_TYPES:
        headers = {"Content-Type": content_type} if content_type else {}
        response = alice.call("POST", data=b'{"title": "x"}', headers=headers)
        assert_error(response, 415, "unsupported_media_type")
    assert alice.all() == []


def test_unknown_query_parameter_is_422_by_name(alice: User):
    named = {"limit": "limit", "title=x": "title", "a=1&a=2": "a", "=": ""}
    for query, name in named.items():
        response = alice.call("POST", f"{alice.tasks}?{query}", json={"title": "y"})
        assert assert_error(response, 422, "validation_error").keys() == {name}
    assert alice.all() == []


def test_empty_query_is_no_parameter(alice: User):
    for path in ["", f"/{alice.create()['id']}"]:
        for query in ["?", "?&"]:
            assert alice.call("GET", f"{alice.tasks}{path}{query}").status_code == 200


def test_options_is_answered_whatever_its_query_is(alice: User):
    assert alice.call("OPTIONS", f"{alice.tasks}/1?zz=1").status_code == 200


@pytest.fixture
def small(app: Flask, alice: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user whose bodies must be small."""
    monkeypatch.setitem(app.config, "MAX_CONTENT_LENGTH", 100)
    return alice


def body_of(size: int) -> bytes:
    return b'{"title": "x"}'.ljust(size)


@pytest.mark.parametrize(("size", "status"), [(100, 201), (101, 413), (20_000_000, 413)])
@pytest.mark.parametrize("length", ["known", "chunked"])
def test_body_is_taken_up_to_the_limit_and_413_beyond(
    small: User, length: str, size: int, status: int
):
    chunked = {"wsgi.input": BytesIO(body_of(size)), "wsgi.input_terminated": True}
    sent = {"data": body_of(size)} if length == "known" else {"environ_overrides": chunked}
    response = small.call("POST", headers=JSON, **sent)
    assert response.status_code == status
    if status == 413:
        assert_error(response, 413, "payload_too_large")


@pytest.mark.parametrize(("method", "path"), [("PATCH", "1/complete"), ("DELETE", "1")])
def test_large_body_is_413_also_where_no_body_is_expected(small: User, method: str, path: str):
    assert_error(small.call(method, path, data=body_of(101)), 413, "payload_too_large")
    assert_error(small.call(method, path, data=body_of(100)), 404, "not_found")


def test_unknown_field_is_named_in_a_sentence_however_long_its_name_is(alice: User):
    response = alice.call("POST", json={"title": "x", "y" * 100_000: 1})
    assert_error(response, 422, "validation_error", f"{'y' * 100}: Unknown field.")


def test_one_of_very_many_unknown_parameters_is_named(alice: User):
    query = {f"x{number}": "1" for number in range(51)}
    response = alice.call("GET", query_string=query)
    assert assert_error(response, 422, "validation_error") == {"x0": ["Unknown parameter."]}


def test_error_about_a_name_that_is_not_unicode_is_unicode(alice: User):
    """Strict readers take no half of a surrogate pair, not even escaped (RFC 8259, section 8.2)."""
    asked = alice.call("GET", f"{alice.tasks}?%FF=1")
    sent = alice.call("POST", data=b'{"title": "x", "\\ud800": 1}', headers=JSON)
    for response in (asked, sent):
        assert list(assert_error(response, 422, "validation_error")) == ["?"]


class BrokenStream(BytesIO):
    def read(self, *_: object) -> bytes:
        raise OSError("the client is gone")


def test_body_that_breaks_off_is_400(alice: User):
    options = {"input_stream": BrokenStream(), "environ_overrides": {"CONTENT_LENGTH": "5"}}
    assert_error(alice.call("POST", headers=JSON, **options), 400, "bad_request")


def test_body_that_is_encoded_is_415(alice: User):
    headers = JSON | {"Content-Encoding": "gzip"}
    response = alice.call("POST", data=gzip.compress(b'{"title": "x"}'), headers=headers)
    assert_error(response, 415, "unsupported_media_type")
    for plain in ("", "Identity"):
        headers = {"Content-Encoding": plain}
        assert alice.call("POST", json={"title": "x"}, headers=headers).status_code == 201


def test_unknown_path_is_404_and_wrong_method_405(client: FlaskClient, alice: User):
    assert_error(client.get("/nope"), 404, "not_found", "There is nothing at this path.")
    long = "/".join(["/api", *"x" * 4000, "tasks"])
    for path in ["/api/", "//", "/api//tasks", long]:
        assert_error(alice.call("GET", path), 404, "not_found")
    assert_error(client.post("/health"), 405, "method_not_allowed")
    assert_error(alice.call("TRACE"), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["//health", "//api/alice/tasks", "///api/alice/tasks/import"])
def test_path_that_begins_with_more_slashes_is_404(alice: User, path: str):
    response = alice.call("GET", environ_overrides={"PATH_INFO": path})
    assert_error(response, 404, "not_found", "There is nothing at this path.")


def test_a_refused_body_takes_no_connection(app: Flask, alice: User):
    alice.all()
    pool = app.extensions["database"]._pool
    asked = pool.get_stats()["requests_num"]
    alice.call("POST", data=b"{", headers=JSON)
    alice.call("POST", json={"title": ""})
    alice.call("GET", f"{alice.tasks}?zz=1")
    assert pool.get_stats()["requests_num"] == asked
