"""Pages of the allowed origins may read every response, errors too; other pages none."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from support import FRONT_END, PREFLIGHT, User, app_for

from cors import EXPOSED_HEADERS


@pytest.mark.parametrize(
    "path",
    ["/api/alice/tasks", "/api/alice/tasks/12?zz=1", "/api/alice/tasks/abc", "/health", "/nope"],
)
def test_preflight_needs_no_token_and_allows_what_the_front_end_sends_even_to_a_404(
    client: FlaskClient, path: str
):
    response = client.options(path, headers=PREFLIGHT)
    assert (response.status_code, response.data) == (200, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert response.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
    assert response.headers["Access-Control-Max-Age"] == "7200"
    allowed = response.headers["Access-Control-Allow-Methods"].split(", ")
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= set(allowed)


def test_success_can_be_read_by_the_front_end(alice: User):
    response = alice.call("POST", json={"title": "x"}, headers=FRONT_END)
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert response.headers["Access-Control-Expose-Headers"] == EXPOSED_HEADERS
    assert "Origin" in response.vary
    assert {
        "Access-Control-Allow-Credentials",
        "Access-Control-Allow-Methods",
        "Access-Control-Max-Age",
    }.isdisjoint(response.headers.keys())


def test_errors_can_be_read_by_the_front_end(alice: User):
    for method, path, options, status in [
        ("POST", "/api/alice/tasks", {"data": b"{", "content_type": "application/json"}, 400),
        ("GET", "/api/bob/tasks", {}, 401),
        ("GET", "/api/alice/tasks/12", {}, 404),
        ("DELETE", "/api/alice/tasks", {}, 405),
        ("POST", "/api/alice/tasks", {"data": b"x" * 2_000_000}, 413),
        ("POST", "/api/alice/tasks", {"data": b"x", "content_type": "text/plain"}, 415),
        ("POST", "/api/alice/tasks", {"json": {}}, 422),
    ]:
        response = alice.call(method, path, headers=FRONT_END, **options)
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"


def test_faults_of_ours_can_be_read_by_the_front_end(
    app: Flask, alice: User, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(app.extensions["database"], "fetch", None)
    response = alice.call("GET", headers=FRONT_END)
    assert response.status_code == 500
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3001",
        "https://localhost:3000",
        "http://localhost:3000.evil.example",
        "null",
        "http://evil.example",
        "HTTP://LOCALHOST:3000",
        "",
    ],
)
def test_other_origins_are_told_nothing(client: FlaskClient, alice: User, origin: str):
    for response in [
        alice.call("GET", headers={"Origin": origin}),
        client.options("/api/alice/tasks", headers=PREFLIGHT | {"Origin": origin}),
        client.options("/nowhere", headers=PREFLIGHT | {"Origin": origin}),
    ]:
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
        assert "Origin" in response.vary
    assert response.status_code == 404


def test_several_origins_are_each_allowed_by_name():
    app = app_for(cors_origins=("http://a", "http://b"))
    for origin in ["http://a", "http://b"]:
        response = app.test_client().get("/health", headers={"Origin": origin})
        assert response.headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize(
    ("pattern", "origin", "is_allowed"),
    [
        ("https://*.example.com", "https://preview-1.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://.example.com", False),
        ("https://*.example.com", "https://a.b.example.com", False),
        ("https://*.example.com", "https://evil/.example.com", False),
        ("https://*.example.com", "https://a.example.com.evil.example", False),
        ("https://*.example.com", "https://aXexample.com", False),
        ("https://*.example.com", "https://*.example.com", False),
        ("https://*.example.com", "http://a.example.com", False),
        ("https://*.example.com:8443", "https://a.example.com:8443", True),
        ("https://*.example.com:8443", "https://a.example.com", False),
        ("https://tasks-*-team.example.com", "https://tasks-git-fix-team.example.com", True),
        ("https://tasks-*-team.example.com", "https://tasks-git-fix-other.example.com", False),
    ],
)
def test_star_stands_for_a_part_of_a_subdomain(pattern: str, origin: str, is_allowed: bool):
    client = app_for(cors_origins=("http://localhost:3000", pattern)).test_client()
    response = client.get("/health", headers={"Origin": origin})
    assert response.headers.get("Access-Control-Allow-Origin") == (origin if is_allowed else None)
