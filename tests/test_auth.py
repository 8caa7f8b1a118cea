"""Whose path a token opens, and what the others are told."""

from typing import Any

import pytest
from flask import Flask
from issuer import get_me
from support import assert_error, bearer, token_for
from tokens import TOKEN

from database import DatabaseUnavailable

OPERATIONS = [
    ("GET", "/api/alice/tasks"),
    ("POST", "/api/alice/tasks"),
    ("GET", "/api/alice/tasks/1"),
    ("PUT", "/api/alice/tasks/1"),
    ("DELETE", "/api/alice/tasks/1"),
    ("PATCH", "/api/alice/tasks/1/complete"),
]

NO_TOKENS: dict[str, dict[str, str]] = {
    "no header": {},
    "an empty header": {"Authorization": ""},
    "the scheme alone": {"Authorization": "Bearer"},
    "the scheme and a space": {"Authorization": "Bearer "},
    "the scheme and spaces": {"Authorization": "Bearer    "},
    "a user and a password": {"Authorization": "Basic YTpi"},
    "another scheme": {"Authorization": f"Token {TOKEN}"},
    "no scheme": {"Authorization": TOKEN},
    "no space": {"Authorization": f"Bearer{TOKEN}"},
    "a tab": {"Authorization": f"Bearer\t{TOKEN}"},
    "an equals sign": {"Authorization": f"Bearer={TOKEN}"},
}


@pytest.mark.parametrize("headers", NO_TOKENS.values(), ids=NO_TOKENS)
def test_challenge_names_no_error_where_no_token_was_sent(
    whole_app: Flask, headers: dict[str, str]
):
    response = whole_app.test_client().get("/api/alice/me", headers=headers)
    assert_error(response, 401, "unauthorized", "Send a token in the header Authorization: Bearer.")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("start", ["Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer   "])
def test_scheme_is_taken_in_any_case_and_with_any_spaces(whole_app: Flask, start: str):
    response = whole_app.test_client().get(
        "/api/alice/me", headers={"Authorization": f"{start}{TOKEN}"}
    )
    assert response.status_code == 200


def test_token_in_a_cookie_or_query_is_ignored(whole_app: Flask):
    client = whole_app.test_client()
    client.set_cookie("Authorization", f"Bearer {TOKEN}")
    response = client.get("/api/alice/me", query_string={"access_token": TOKEN})
    assert_error(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"


class NoDatabase:
    """Answers 503 as soon as a request uses it."""

    def is_crowded(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        raise DatabaseUnavailable(name)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_refused_request_never_reaches_the_database(
    application: Flask, monkeypatch: pytest.MonkeyPatch, method: str, path: str
):
    monkeypatch.setitem(application.extensions, "database", NoDatabase())
    client = application.test_client()
    alice = bearer(TOKEN)
    assert_error(
        client.open(path, method=method, headers=alice, json={"title": "x"}), 503, "unavailable"
    )
    invalid = 'Bearer error="invalid_token"'
    others = {
        "no token": ({}, "Bearer"),
        "a bad token": ({"Authorization": "Bearer x"}, invalid),
        "an expired token": (bearer(token_for("alice", exp=1)), invalid),
        "another user's token": (bearer(token_for("bob")), "Bearer"),
    }
    for name, (headers, challenge) in others.items():
        for body in [{"json": {"title": "x"}}, {"data": b"no JSON"}, {}]:
            response = client.open(path, method=method, headers=headers, **body)
            assert_error(response, 401, "unauthorized")
            assert response.headers["WWW-Authenticate"] == challenge, name


def test_options_of_every_route_is_left_to_flask(application: Flask):
    for rule in application.url_map.iter_rules():
        assert rule.provide_automatic_options, rule


@pytest.mark.parametrize(
    "other", ["bob", "Alice", "alice ", "alic", "alicee", "alice%2Fme", "%61lice%00"]
)
def test_path_of_another_user_is_refused(whole_app: Flask, other: str):
    assert_error(
        get_me(whole_app, TOKEN, other), 401, "unauthorized", "This path belongs to another user."
    )


@pytest.mark.parametrize("headers", [{}, bearer(TOKEN)])
def test_404_405_and_options_are_the_same_with_and_without_a_token(
    whole_app: Flask, headers: dict[str, str]
):
    client = whole_app.test_client()
    for path in [
        "/",
        "/api",
        "/api/alice",
        "/api/alice/tasks/0",
        "/api/alice/tasks/x",
        "/api/alice/tasks/",
    ]:
        assert_error(client.get(path, headers=headers), 404, "not_found")
    for method, path in [
        ("PATCH", "/api/alice/tasks"),
        ("POST", "/api/alice/tasks/1"),
        ("GET", "/api/alice/tasks/1/complete"),
    ]:
        assert_error(client.open(path, method=method, headers=headers), 405, "method_not_allowed")
    for _, path in OPERATIONS:
        response = client.options(path, headers=headers)
        assert (response.status_code, response.data) == (200, b"")
    assert client.get("/health", headers=headers).status_code == 200


def test_head_needs_a_token_as_get_does(whole_app: Flask):
    client = whole_app.test_client()
    assert client.head("/api/alice/me").status_code == 401
    assert client.head("/api/alice/me", headers=bearer(TOKEN)).status_code == 200
