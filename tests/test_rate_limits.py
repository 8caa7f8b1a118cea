"""How much one caller may ask for: per user, and per address for failed authentication."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import pytest
from flask import Flask
from flask.testing import FlaskClient
from issuer import Issuer, gate_for, get_me
from support import User, app_for, assert_error, bearer, token_for
from werkzeug.test import TestResponse

from capacity import rate_limits
from capacity.rate_limits import HEADERS_KEY, Counts, Limit, LimitName, RateLimits, caller_at
from config import Settings
from errors import ApiError

OFF = {"rate_limit": "off", "auth_failure_limit": "off"}
RATE_LIMIT = re.compile(r'"([a-z-]+)";r=(\d+);t=(\d+)')
GUESS = "x.y.z"


@pytest.fixture
def limited(app: Flask) -> Callable[..., Flask]:
    """Make an application with limits, on this test's database."""

    def make(**settings: Any) -> Flask:
        made = app_for(**OFF | settings)
        made.extensions["database"] = app.extensions["database"]
        return made

    return make


def limited_gate(**settings: Any) -> Flask:
    """Make the hooks that run before a view, and /api/{user_id}/me, with these limits."""
    return gate_for(**OFF | settings)


def rest_of(response: TestResponse) -> tuple[str, int, int]:
    """Read RateLimit: the limit's name, the requests that are left, the seconds until its reset."""
    match = RATE_LIMIT.fullmatch(response.headers["RateLimit"])
    assert match
    return match[1], int(match[2]), int(match[3])


def guess(client: FlaskClient, address: str = "192.0.2.1", token: str = GUESS) -> TestResponse:
    headers = bearer(token) if token else {}
    environ = {"REMOTE_ADDR": address}
    return client.get("/api/alice/me", headers=headers, environ_base=environ)


def test_user_over_the_limit_is_429_and_the_others_are_not(limited: Callable[..., Flask]):
    client = limited(rate_limit="3/day").test_client()
    alice, bob = User(client, "alice"), User(client, "bob")
    assert [alice.call("GET").status_code for _ in range(3)] == [200] * 3
    response = alice.call("POST", json={"title": "One more"})
    assert_error(response, 429, "rate_limited")
    assert bob.call("GET").status_code == 200
    assert bob.all() == []


def test_every_response_tells_the_limit_and_what_is_left(limited: Callable[..., Flask]):
    alice = User(limited(rate_limit="4 per 2 days").test_client(), "alice")
    responses = [
        alice.call("GET"),
        alice.call("POST", json={}),
        alice.call("GET", "12"),
        alice.call("GET", "/api/bob/tasks"),
        alice.call("GET"),
    ]
    assert [response.status_code for response in responses] == [200, 422, 404, 401, 429]
    for response, left in zip(responses, [3, 2, 1, 0, 0], strict=True):
        assert response.headers["RateLimit-Policy"] == '"default";q=4;w=172800'
        name, rest, seconds = rest_of(response)
        assert (name, rest) == ("default", left)
        assert 0 < seconds <= 172800
    assert responses[-1].headers["Retry-After"] == str(rest_of(responses[-1])[2])
    assert "moment" not in responses[-1].json["message"]  # it may be two days


def test_limit_is_kept_by_many_at_once(limited: Callable[..., Flask]):
    app = limited(rate_limit="50/day")

    def call(_: int) -> int:
        return User(app.test_client(), "alice").call("GET").status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(call, range(80)))
    assert statuses.count(200) == 50
    assert statuses.count(429) == 30


def test_limit_that_is_off_is_not_announced():
    off, half = limited_gate(), limited_gate(auth_failure_limit="60/minute")
    users = [get_me(app, token_for("alice")) for app in (off, half)]
    assert [response.status_code for response in users] == [200, 200]
    for response in [*users, guess(off.test_client())]:
        assert not [name for name, _ in response.headers if name.startswith("RateLimit")]


def test_what_needs_no_token_is_not_limited():
    client = app_for(rate_limit="1/day", auth_failure_limit="1/day").test_client()
    for path in ["/health", "/livez", "/openapi.json", "/nope"]:
        for _ in range(3):
            response = client.get(path, environ_base={"REMOTE_ADDR": "192.0.2.1"})
            assert response.status_code == (404 if path == "/nope" else 200)
            assert "RateLimit" not in response.headers
    for _ in range(3):
        assert client.options("/api/alice/tasks").status_code == 200


@pytest.mark.parametrize("token", ["x.y.z", "", token_for("alice", sub=7, exp=1)])
def test_address_that_fails_too_often_is_429(token: str):
    client = limited_gate(auth_failure_limit="2/day").test_client()
    for left in [1, 0]:
        response = guess(client, token=token)
        assert_error(response, 401, "unauthorized")
        assert response.headers["RateLimit-Policy"] == '"auth-failures";q=2;w=86400'
        assert rest_of(response)[:2] == ("auth-failures", left)
    assert_error(guess(client, token=token), 429, "rate_limited")
    assert guess(client, "192.0.2.2", token).status_code == 401


def test_expired_tokens_count_for_their_user_and_not_for_the_address():
    """Behind one address are many users, whose clients wait for a 401 to sign in again."""
    client = limited_gate(auth_failure_limit="1/day").test_client()
    for user in ["alice", "bob"]:
        token = token_for(user, exp=1)
        statuses = [guess(client, f"192.0.2.{place}", token).status_code for place in range(2)]
        assert statuses == [401, 429]
    assert guess(client, "192.0.2.1").status_code == 401


def test_token_that_has_expired_since_it_was_verified_counts_for_its_user(
    monkeypatch: pytest.MonkeyPatch,
):
    app = limited_gate(auth_failure_limit="1/day")
    token = token_for("alice")
    assert get_me(app, token).status_code == 200
    monkeypatch.setattr("auth.LEEWAY", -(10**6))
    assert guess(app.test_client(), token=token).status_code == 401
    assert guess(app.test_client()).status_code == 401
    assert guess(app.test_client(), token=token).status_code == 429


def test_good_token_stays_good_where_a_neighbour_fails():
    app = limited_gate(auth_failure_limit="1/day")
    for _ in range(3):
        guess(app.test_client(), "127.0.0.1")
    assert get_me(app, token_for("alice")).status_code == 200


def test_issuer_that_is_away_is_no_failure_of_the_client(issuer: Issuer):
    token = issuer.token()
    issuer.go_away()
    app = limited_gate(auth_failure_limit="1/day", better_auth_url=issuer.origin)
    for _ in range(3):
        assert_error(get_me(app, token), 503, "unavailable")


@pytest.mark.parametrize(
    ("proxies", "forwarded", "caller"),
    [
        (0, "198.51.100.1", "192.0.2.1"),
        (1, "198.51.100.1", "198.51.100.1"),
        (1, "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        (1, '"203.0.113.9, 198.51.100.1', "198.51.100.1"),
        (2, "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        (2, "203.0.113.9, 203.0.113.8, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        (2, "198.51.100.1", "192.0.2.1"),
        (1, "", "192.0.2.1"),
        (1, None, "192.0.2.1"),
    ],
)
def test_address_is_what_the_trusted_proxies_say_and_not_the_client(
    proxies: int, forwarded: str | None, caller: str
):
    """Writing addresses into X-Forwarded-For gains nobody more guesses."""
    app = limited_gate(auth_failure_limit="1/day", trusted_proxies=proxies)
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    client = app.test_client()
    environ = {"REMOTE_ADDR": "192.0.2.1"}
    client.get("/api/alice/me", headers=headers, environ_base=environ)
    [counted] = app.extensions["rate_limits"].auth_failures._own._used
    assert counted == caller


def test_forged_addresses_in_x_forwarded_for_share_one_limit():
    client = limited_gate(auth_failure_limit="1/day", trusted_proxies=1).test_client()
    statuses = [
        client.get(
            "/api/alice/me", headers={"X-Forwarded-For": f"203.0.113.{number}, 198.51.100.1"}
        ).status_code
        for number in range(3)
    ]
    assert statuses == [401, 429, 429]


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("192.0.2.1:54321", "192.0.2.1"),
        ("[2001:db8:1:2:3:4:5:6]:54321", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3:4:5:6]", "2001:db8:1:2::/64"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_callers_are_told_apart_by_address_or_network_and_never_by_port(address: str, caller: str):
    assert caller_at({"REMOTE_ADDR": address}) == caller


def test_every_limit_has_a_name_of_its_own():
    """In Redis, two of one name would share their counts."""
    limits = vars(RateLimits(Settings())).values()
    names = [limit.name for limit in limits if isinstance(limit, Limit)]
    assert sorted(names) == sorted(get_args(LimitName))


def test_counts_take_no_more_memory_than_stated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rate_limits, "MAX_COUNTED", 10)
    counts = Counts()
    for number in range(25):
        counts.add(1, f"192.0.2.{number}", 1)
        assert counts.note_refusal(1, f"203.0.113.{number}")
        assert len(counts._used) + len(counts._refused) <= 10
    counts.add(2, "192.0.2.1", 1)
    assert counts._used == {"192.0.2.1": 1}


def test_request_that_comes_late_from_the_window_before_ends_no_other_count():
    counts = Counts()
    assert counts.add(7, "bob", 50) == 50
    assert counts.add(6, "alice", 1) == 1
    assert counts.add(7, "bob", 1) == 51
    assert counts.add(8, "bob", 1) == 1


def test_refusal_tells_how_much_is_left_of_the_window_and_the_next_has_the_whole_quota(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("time.time", lambda: 130.9)
    limit, environ = Limit("default", (1, 60), None), {}
    limit.count("alice", environ=environ)
    with pytest.raises(ApiError) as refused:
        limit.count("alice", environ=environ)
    assert environ[HEADERS_KEY][1] == ("RateLimit", '"default";r=0;t=50')
    assert refused.value.headers == {"Retry-After": "50"}
    monkeypatch.setattr("time.time", lambda: 180.0)
    limit.count("alice", environ=environ)
    assert environ[HEADERS_KEY][1] == ("RateLimit", '"default";r=0;t=60')
