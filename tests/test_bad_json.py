"""Bodies that are no JSON, or not as it is taken here."""

import pytest
from batches import done
from support import JSON, User, assert_error

NO_JSON = {
    "text": b"title=x",
    "half an object": b'{"title": "x"',
    "two values": b'{"title": "x"} {}',
    "single quotes": b"{'title': 'x'}",
    "a trailing comma": b'{"title": "x",}',
    "a comment": b'{"title": "x"} // y',
    "19,000 brackets": b"[" * 19_000,  # nests too deep for Python up to 3.13
    "100,000 brackets": b"[" * 100_000,
    "100,000 nested objects": b'{"title":' * 100_000,
    "a number of 5,000 digits": b'{"title": ' + b"9" * 5000 + b"}",
    "NaN": b'{"title": NaN}',
    "Infinity": b'{"title": -Infinity}',
    "duplicate names": b'{"title": "x", "title": "y"}',
    "duplicate names inside": b'{"title": "x", "zz": {"a": 1, "a": 2}}',
    "a byte order mark": b'\xef\xbb\xbf{"title": "x"}',
    "invalid UTF-8": b'{"title": "\xff"}',
    "an overlong encoding": b'{"title": "\xc0\x80"}',
    "UTF-16": '{"title": "x"}'.encode("utf-16"),
    "UTF-32": '{"title": "x"}'.encode("utf-32"),
    "a raw control character": b'{"title": "a\nb"}',
    "nothing but space": b"  ",
}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"title": "x", "title": "y"}', "an object has a name twice"),
        (b'{"title": 1e999}', "a number is beyond reach"),
        (b'{"title": ' + b"9" * 5000 + b"}", "a number is beyond reach"),
        (b'{"title": [' + b"{}," * 10_000 + b"{}]}", "it has too many values"),
    ],
    ids=["twice", "infinite", "long", "many"],
)
def test_json_that_is_not_taken_is_told_why(alice: User, body: bytes, said: str):
    response = alice.call("POST", data=body, headers=JSON)
    assert_error(response, 400, "bad_request")
    assert response.json["message"] == f"The request body cannot be taken: {said}."


def test_texts_may_have_any_number_of_the_marks_that_separate_values(alice: User):
    text = ',[{"\\' * 1000
    create = {"op": "create", "task": {"title": "x", "description": text}}
    assert [task["description"] for task in done(alice, *[create] * 100)] == [text] * 100


def test_json_that_is_no_object_is_422_in_words_of_ours(alice: User):
    for body in ["[]", "null", "3", '"x"', "true", '[{"title": "x"}]']:
        response = alice.call("POST", data=body, headers=JSON)
        assert_error(response, 422, "validation_error", "Must be an object.")
    for path, body, message in [
        ("import", [{"title": "x"}, [1]], "entry 2: Must be an object."),
        ("batch", [], "Must be an object."),
        ("batch", {"operations": [5]}, "operation 0: Must be an object."),
        (
            "batch",
            {"operations": [{"op": "create", "task": 5}]},
            "operation 0: task: Must be an object.",
        ),
    ]:
        response = alice.call("POST", path, json=body)
        assert_error(response, 422, "validation_error", message)
    assert alice.all() == []


def test_body_that_is_no_json_is_400(alice: User):
    task = alice.create()
    for name, body in NO_JSON.items():
        for method, path in [("POST", ""), ("PUT", task["id"])]:
            response = alice.call(method, path, data=body, headers=JSON)
            assert response.status_code == 400, name
            assert_error(response, 400, "bad_request")
    assert alice.all() == [task]


def test_json_may_be_named_in_every_legal_way(alice: User):
    for content_type in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/json;",
    ]:
        headers = {"Content-Type": content_type}
        assert alice.call("POST", data=b'{"title": "x"}', headers=headers).status_code == 201
