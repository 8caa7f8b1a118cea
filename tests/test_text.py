"""Text of every kind: stored to the character, or refused; never a fault of the server."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import User, assert_error

from field_types import NOT_BLANK_PATTERN

pytestmark = pytest.mark.no_cover  # examples by the hundred, of code that other tests cover

# The database of a test serves all of its examples: each leaves it as it was.
examples = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

AWKWARD_TEXTS = [
    "\N{MAN}\u200d\N{ROCKET} \N{REGIONAL INDICATOR SYMBOL LETTER D}\ufe0f",
    "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \u0645\u0631\u062d\u0628\u0627",
    "e\u0301 \u00e9 \u0928\u093f Z\u0351\u036b",
    "one\u2028two\u2029three\u0085four\r\nfive\x0bsix",
    "\ufeffa\u200b\ufffe\U0010ffff",
    "\x01\x1b[31m\x7f",
    """'; DROP TABLE tasks; -- "' \\ \\' \\u0041 \\x00 \\""",
    "100% %s %d %% %(user_id)s $1 {title} {0} :title ?",
    "<script>alert(1)</script> &amp; </textarea>",
    "\u2003 trimmed at both ends \t\n\u3000",
]
SPACE_OF_ECMA = r"\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"  # its \s
UNSTORABLE = {"\0", *map(chr, range(0xD800, 0xE000))}
STORABLE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TITLES = st.text(STORABLE, min_size=1, max_size=200).filter(str.strip)
DESCRIPTIONS = st.none() | st.text(STORABLE, max_size=300)

ANY_TEXT = st.text(st.characters()) | st.builds(
    str.__mul__, st.text(st.characters(), min_size=1, max_size=2), st.integers(95, 205)
)
NAMES = st.sampled_from(["title", "description", "completed", "id", "user_id"]) | ANY_TEXT
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
ANY_BODY = ANY_JSON | st.dictionaries(NAMES, ANY_JSON) | st.fixed_dictionaries({"title": ANY_TEXT})
ANY_BYTES = st.binary() | st.builds(
    lambda whole, cut, junk: whole[:cut] + junk + whole[cut:],
    st.just(b'{"title": "caf\xc3\xa9 \\ud83d\\ude00", "description": null}'),
    st.integers(0, 55),
    st.binary(max_size=3),
)
ANY_USER_ID = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    | st.sampled_from("/%?#;.:@ +&="),
    min_size=1,
    max_size=255,
)


@examples
@given(title=TITLES, description=DESCRIPTIONS)
@example(title="\N{GRINNING FACE}" * 200, description="\N{GRINNING FACE}" * 5000)
@example(title=" " * 300 + "x" * 200 + " " * 300, description="")
def test_text_comes_back_as_it_was_sent(alice: User, title: str, description: str | None):
    assert_kept(alice, title, description)


def test_awkward_text_comes_back_as_it_was_sent(alice: User):
    for text in AWKWARD_TEXTS:
        assert_kept(alice, text, text)


def assert_kept(user: User, title: str, description: str | None) -> None:
    """Create a task with this text, write the text into another, and delete both."""
    created = user.create(title, description=description)
    assert (created["title"], created["description"]) == (title.strip(), description)
    assert user.call("GET", created["id"]).json == created
    other = user.create("other")
    body = {"title": title, "description": description}
    updated = user.call("PUT", other["id"], json=body).json
    assert (updated["title"], updated["description"]) == (title.strip(), description)
    assert user.call("GET", other["id"]).json == updated
    assert user.all() == [updated, created]
    for task in (created, updated):
        assert user.call("DELETE", task["id"]).status_code == 204


@examples
@given(title=ANY_TEXT, description=ANY_TEXT)
@example(title="a\0b", description="")
@example(title="a", description="\0")
@example(title="\ud800", description="")
@example(title="a", description="\udfff\ud800")
@example(title="x" * 201, description="")
@example(title="x", description="x" * 5001)
def test_text_is_stored_or_refused_whole(alice: User, title: str, description: str):
    wrong = set()
    if UNSTORABLE & set(title) or not 1 <= len(title.strip()) <= 200:
        wrong.add("title")
    if UNSTORABLE & set(description) or len(description) > 5000:
        wrong.add("description")
    response = alice.call("POST", json={"title": title, "description": description})
    if wrong:
        assert assert_error(response, 422, "validation_error").keys() == wrong
    else:
        assert response.status_code == 201
        assert alice.call("DELETE", response.json["id"]).status_code == 204
    assert alice.all() == []


def test_text_is_blank_in_the_description_where_it_is_on_the_server():
    described = re.compile(NOT_BLANK_PATTERN.replace(r"\s", SPACE_OF_ECMA))
    for character in map(chr, [*range(1, 0xD800), *range(0xE000, 0x11000)]):
        assert bool(described.search(character)) == bool(character.strip()), ascii(character)


def test_lengths_count_characters(alice: User):
    for character in ("x", "\u00e9", "\u0301", "\u20ac", "\N{GRINNING FACE}"):
        task = alice.create(character * 200, description=character * 5000)
        assert (len(task["title"]), len(task["description"])) == (200, 5000)
        for fields in ({"title": character * 201}, {"title": "x", "description": character * 5001}):
            for method, path in (("POST", ""), ("PUT", task["id"])):
                response = alice.call(method, path, json=fields)
                assert len(assert_error(response, 422, "validation_error")) == 1
        assert alice.all()[0] == task


@examples
@given(body=ANY_BODY)
def test_any_json_is_taken_or_refused(alice: User, body: Any):
    assert_taken_or_refused(alice, json.dumps(body).encode())


@examples
@given(body=ANY_BYTES)
def test_any_bytes_are_taken_or_refused(alice: User, body: bytes):
    assert_taken_or_refused(alice, body)


def assert_taken_or_refused(user: User, body: bytes) -> None:
    """Send this body to both operations that take one; what is refused leaves the tasks alone."""
    task = user.create()
    for method, path, success in (("POST", "", 201), ("PUT", task["id"], 200)):
        before = user.all()
        response = user.call(method, path, data=body, content_type="application/json")
        assert response.status_code in {success, 400, 422}, response.text
        assert (user.all() == before) == (response.status_code != success)
    for left in user.all():
        user.call("DELETE", left["id"])


USER_IDS = ["auth0|12345", "kQ3v9TtYw1nXz5RbCf7HjLmP2sD4gA8e", "a.b+c@example.com", "0", "null"]
USER_IDS += ["a/b", "/", "//a//", "100%", "%2F", "%41", "a?b=c", "a#b", "a b", " ", "a;b=c"]
USER_IDS += ["../%2e%2e/%00?a=b#c", "tasks", "a/tasks/12", "x/tasks/1/complete", "tasks/tasks"]
USER_IDS += ["Jürgen", "ﬁ", "用户", "🦊", "…", "<b>'\"\\", "alice\n", "\r\n\x1b[31m\x7f\x85/\n"]
USER_IDS += ["a:b@c", "x" * 255, "🦊" * 255]


def each_user_id(test: Any) -> Any:
    for user_id in USER_IDS:
        test = example(user_id=user_id)(test)
    return test


@examples
@given(user_id=ANY_USER_ID)
@each_user_id
def test_any_user_id_finds_its_tasks(alice: User, user_id: str):
    user = User(alice.client, user_id)
    created = user.call("POST", json={"title": "x"})
    assert created.status_code == 201
    task, location = created.json, created.headers["Location"]
    assert task["user_id"] == user_id
    assert location.isascii()
    assert not urlsplit(location).query
    assert user.call("GET", location).json == user.call("GET", task["id"]).json == task
    assert user.call("PUT", location, json={"title": "y"}).json["title"] == "y"
    assert user.call("PATCH", f"{location}/complete").json["completed"] is True
    assert [each["id"] for each in user.all()] == [task["id"]]
    assert_error(alice.call("GET", location), 401, "unauthorized")
    assert user.call("DELETE", location).status_code == 204
    assert user.all() == []
