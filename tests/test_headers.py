"""The headers of every response, of every route and of every error."""

import re
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from issuer import gate_for
from support import FRONT_END, User, app_for
from werkzeug.test import TestResponse

STRICT = "default-src 'none'; frame-ancestors 'none'"
COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Vary": "Origin, Accept-Encoding",
}
ONCE = {*COMMON, "Content-Security-Policy", "Cache-Control", "Strict-Transport-Security"}
HTTPS = "https://api.example.com"


def assert_safe(response: TestResponse, cache: str, policy: str = STRICT) -> None:
    """Require the headers that every response must have, each once."""
    headers = response.headers
    assert {name: headers.getlist(name)[-1] for name in COMMON} == COMMON
    assert headers["Cache-Control"] == cache
    assert headers["Content-Security-Policy"] == policy
    assert [name for name in ONCE - {"Vary"} if len(headers.getlist(name)) > 1] == []
    assert "Set-Cookie" not in headers


def urls_of(app: Flask) -> Iterator[tuple[str, str, set[str]]]:
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<user_id:\w+>", "alice", re.sub(r"<task_id:\w+>", "1", rule.rule))
        path = path.replace("<path:name>", "page.css")
        yield rule.endpoint, re.sub(r"<\w+:\w+>", "1", path), rule.methods or set()


def test_every_route_keeps_the_policy_whatever_it_answers(app: Flask, alice: User):
    for endpoint, path, methods in urls_of(app):
        for method in methods | {"TRACE"}:
            for headers in [{}, {"Authorization": ""} | FRONT_END]:
                response = alice.call(method, path, headers=headers)
                policy = response.headers["Content-Security-Policy"]
                assert policy == STRICT or (endpoint.startswith("docs.") and "'self'" in policy)
                may_be_kept = path.startswith("/api/") and response.status_code < 400
                may_be_kept = may_be_kept and "ETag" in response.headers
                cache = "private, no-cache" if may_be_kept else "no-store"
                if endpoint.startswith("docs.") and response.status_code < 400:
                    cache = response.headers["Cache-Control"]
                    assert cache == "no-cache" or method == "OPTIONS"
                assert_safe(response, cache, policy)


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nope", {}, 404),
        ("GET", "/docs/assets/nope", {}, 404),
        ("POST", "", {"data": b"x" * 2_000_000}, 413),
        ("POST", "", {"data": b"x", "content_type": "text/plain"}, 415),
        ("POST", "", {"json": {}}, 422),
    ],
)
def test_errors_keep_the_policy_and_are_never_cached(
    alice: User, method: str, path: str, options: dict, status: int
):
    response = alice.call(method, path, **options)
    assert response.status_code == status
    assert_safe(response, "no-store")


def test_faults_of_ours_keep_the_policy(app: Flask, alice: User, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app.extensions["database"], "fetch", None)
    response = alice.call("GET")
    assert response.status_code == 500
    assert_safe(response, "no-store")


def test_limited_responses_keep_the_policy():
    client = app_for(auth_failure_limit="1/day").test_client()
    client.get("/api/alice/tasks")
    response = client.get("/api/alice/tasks")
    assert response.status_code == 429
    assert_safe(response, "no-store")


def test_task_may_be_cached_by_its_users_browser_and_must_be_revalidated(alice: User):
    task = alice.create()
    first = alice.call("GET", task["id"])
    again = alice.call("GET", task["id"], headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code) == (200, 304)
    for response in [first, again]:
        assert_safe(response, "private, no-cache")


def test_hsts_is_sent_over_https_only(client: FlaskClient):
    secure = client.get("/health", base_url=HTTPS)
    assert_safe(secure, "no-store")
    assert secure.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in client.get("/health").headers
    assert client.get("/nope", base_url=HTTPS).headers["Strict-Transport-Security"]


@pytest.mark.parametrize(
    ("proxies", "forwarded", "is_secure"),
    [
        (0, "https", False),
        (1, "https", True),
        (1, "http", False),
        (1, "https, http", False),
        (1, "http, https", True),
        (2, "https", True),
        (1, None, False),
    ],
)
def test_scheme_is_what_the_last_trusted_proxy_says(
    proxies: int, forwarded: str | None, is_secure: bool
):
    client = gate_for(trusted_proxies=proxies).test_client()
    headers = {} if forwarded is None else {"X-Forwarded-Proto": forwarded}
    response = client.get("/api/alice/me", headers=headers)
    assert ("Strict-Transport-Security" in response.headers) is is_secure


def test_forwarded_host_and_prefix_do_not_appear_in_location(app: Flask):
    trusting = app_for(trusted_proxies=1)
    trusting.extensions["database"] = app.extensions["database"]
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil", "Host": "evil"}
    headers |= {"X-Forwarded-Proto": "https"}
    response = User(trusting.test_client(), "alice").call(
        "POST", json={"title": "x"}, headers=headers
    )
    assert re.fullmatch(r"/api/alice/tasks/\d+", response.headers["Location"])
    assert "Strict-Transport-Security" in response.headers  # the proxy is trusted, but for that
