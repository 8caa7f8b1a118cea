"""When the issuer's keys are fetched, how often, and what holds while that fails."""

import json
import socket
import time

import pytest
from flask import Flask
from issuer import (
    BAD_SIGNATURE,
    FAILURES,
    JWKS_PATH,
    LACKS_KEY,
    SLOW_FAILURES,
    Behaviour,
    Issuer,
    answer_keys,
    answer_with,
    gate_of,
    get_me,
    hang,
    make_key,
    one_key,
    send_at_once,
)
from processes import wait_until
from support import NoThread, assert_error
from tokens import assert_refused

import jwks


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the issuer as often as there is a reason to."""
    monkeypatch.setattr(jwks, "FETCH_PAUSE", 0.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, eager: None) -> None:
    """Ask as often, and wait only briefly: at times, even a healthy issuer may take longer."""
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.3)


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat keys as old as soon as they are fetched."""
    monkeypatch.setattr(jwks, "REFRESH_AFTER", 0.0)


# What is fetched, and how often


def test_fetch_is_one_plain_request(issuer: Issuer):
    app = gate_of(issuer, jwks_url=f"http://127.0.0.1:{issuer.port}/a/jwks?tenant=1&x=%20y#top")
    assert get_me(app, issuer.token()).status_code == 200
    assert issuer.requests[0].split("\r\n") == [
        "GET /a/jwks?tenant=1&x=%20y HTTP/1.1",
        f"Host: 127.0.0.1:{issuer.port}",
        "Accept-Encoding: identity",
        "Accept: application/json",
        "User-Agent: tasks",
        "",
        "",
    ]
    assert len(issuer.requests) == 1


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_ipv6_address_needs_no_port(scheme: str, port: int, monkeypatch: pytest.MonkeyPatch):
    """Without one, http.client would take what stands behind its last colon."""
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *_: object) -> None:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ConnectionRefusedError):
        jwks.fetch(f"{scheme}://[::1]{JWKS_PATH}")
    assert asked == [("::1", port)]


def test_keys_are_fetched_once_for_many_requests(issuer: Issuer, gate: Flask):
    tokens = [issuer.token(jti=str(number)) for number in range(50)]
    responses, _ = send_at_once(gate, tokens)
    assert {response.status_code for response in responses} == {200}
    assert len(issuer.requests) == 1
    assert issuer.requests[0].startswith(f"GET {JWKS_PATH} HTTP/1.1\r\n")


def test_keys_are_logged_only_if_they_changed(issuer: Issuer, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "jwks")
    key_set = jwks.KeySet(f"{issuer.origin}{JWKS_PATH}")
    for keys in [issuer.keys, issuer.keys, [*issuer.keys, make_key()]]:
        issuer.keys = keys
        key_set._fetch()
    assert [line.partition(" has ")[2][0] for line in caplog.messages] == ["1", "2"]


def test_set_without_a_key_for_use_here_is_told_once(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
):
    """The fetch succeeds, and no later one would tell why every token is refused."""
    entry = one_key("RS256").entry() | {"use": "enc"}
    issuer.behave = answer_with(json.dumps({"keys": [entry]}).encode())
    key_set = jwks.KeySet(f"{issuer.origin}{JWKS_PATH}")
    for _ in range(2):
        key_set._fetch()
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", f"the issuer at {issuer.origin}{JWKS_PATH} has 0 keys for use here")
    ]


def test_50_unknown_kids_at_once_cost_one_fetch_at_most(
    issuer: Issuer, gate: Flask, monkeypatch: pytest.MonkeyPatch
):
    assert get_me(gate, issuer.token()).status_code == 200
    tokens = [issuer.token(make_key()) for _ in range(50)]

    def fetches() -> int:
        before = len(issuer.requests)
        for response in send_at_once(gate, tokens)[0]:
            assert_error(response, 401, "unauthorized", LACKS_KEY)
        return len(issuer.requests) - before

    monkeypatch.setattr(jwks, "FETCH_PAUSE", 60.0)
    assert fetches() == 0
    monkeypatch.setattr(jwks, "monotonic", lambda: time.monotonic() + 70)
    assert fetches() == 1
    assert fetches() == 0


def test_new_key_is_picked_up_at_its_first_token(issuer: Issuer, gate: Flask, eager: None):
    assert get_me(gate, issuer.token()).status_code == 200
    old, new = issuer.keys[0], make_key("ES256")
    issuer.keys.append(new)
    assert get_me(gate, issuer.token(new)).status_code == 200
    assert get_me(gate, issuer.token(old)).status_code == 200
    assert len(issuer.requests) == 2


def test_removed_key_is_refused_even_for_a_remembered_token(
    issuer: Issuer, gate: Flask, eager: None, stale: None
):
    token = issuer.token()
    assert get_me(gate, token).status_code == 200
    issuer.keys = [make_key()]
    wait_until(lambda: get_me(gate, token).status_code == 401)
    assert_refused(gate, token, LACKS_KEY)


def test_key_replaced_under_its_name_is_refused_even_for_a_remembered_token(
    issuer: Issuer, gate: Flask, eager: None, stale: None
):
    token, kid = issuer.token(), issuer.keys[0].kid
    assert get_me(gate, token).status_code == 200
    issuer.keys = [make_key(kid=kid)]
    wait_until(lambda: get_me(gate, token).status_code == 401)
    assert_refused(gate, token, BAD_SIGNATURE)
    assert get_me(gate, issuer.token()).status_code == 200


def test_old_keys_are_refreshed_without_waiting(
    issuer: Issuer, gate: Flask, monkeypatch: pytest.MonkeyPatch, stale: None
):
    assert get_me(gate, issuer.token()).status_code == 200
    monkeypatch.setattr(jwks, "FETCH_PAUSE", 0.0)
    issuer.behave = hang
    _, seconds = send_at_once(gate, [issuer.token(jti="1")])
    assert seconds[0] < jwks.FETCH_TIMEOUT / 2
    wait_until(lambda: len(issuer.requests) == 2)


def test_system_without_threads_fails_no_request_whose_key_is_known(
    issuer: Issuer, gate: Flask, monkeypatch: pytest.MonkeyPatch, eager: None, stale: None
):
    assert get_me(gate, issuer.token()).status_code == 200
    with monkeypatch.context() as no_more:
        no_more.setattr(jwks, "Thread", NoThread)
        assert get_me(gate, issuer.token(jti="1")).status_code == 200
        assert_refused(gate, issuer.token(make_key(kid="2")), LACKS_KEY)
    fetches = len(issuer.requests)
    assert get_me(gate, issuer.token(jti="3")).status_code == 200
    wait_until(lambda: len(issuer.requests) > fetches)


def test_broken_entry_is_told_again_only_if_the_set_has_changed(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
):
    """Anybody can cause a fetch every five seconds, by a token with an unknown kid."""
    key_set = jwks.KeySet(f"{issuer.origin}{JWKS_PATH}")
    entries = [issuer.keys[0].entry(), issuer.keys[0].entry() | {"kid": None}]
    for given, told in [(entries, 1), (entries, 1), (entries[::-1], 2)]:
        issuer.behave = answer_with(json.dumps({"keys": given}).encode())
        key_set._fetch()
        assert caplog.text.count("a key of the issuer is skipped") == told
        assert list(key_set._keys) == [(issuer.keys[0].kid, "EdDSA")]


# An issuer that fails


ALL_FAILURES = SLOW_FAILURES | FAILURES


@pytest.mark.parametrize("behave", ALL_FAILURES.values(), ids=ALL_FAILURES)
def test_failing_issuer_is_503_in_time_and_then_forgiven(
    issuer: Issuer, gate: Flask, impatient: None, behave: Behaviour
):
    issuer.behave = behave
    responses, seconds = send_at_once(gate, [issuer.token(jti=str(number)) for number in range(4)])
    for response in responses:
        assert_error(response, 503, "unavailable")
    assert max(seconds) < 2.5
    assert not any("/elsewhere" in request for request in issuer.requests)
    issuer.behave = answer_keys
    wait_until(lambda: get_me(gate, issuer.token()).status_code == 200)


@pytest.mark.parametrize("failure", ["nothing", "500", "no keys", "half a response"])
def test_keys_stay_good_while_the_issuer_fails(
    issuer: Issuer, gate: Flask, impatient: None, stale: None, failure: str
):
    remembered = issuer.token()
    wait_until(lambda: get_me(gate, remembered).status_code == 200)
    issuer.behave = ALL_FAILURES[failure]
    fetches = len(issuer.requests)
    wait_until(
        lambda: get_me(gate, remembered).status_code == 200 and len(issuer.requests) > fetches
    )
    for token in [remembered, issuer.token(jti="new")]:
        assert get_me(gate, token).status_code == 200
    assert_refused(gate, issuer.token(make_key()), LACKS_KEY)


def test_issuer_that_is_gone_is_503_until_it_comes_back_and_told_once(
    issuer: Issuer, gate: Flask, eager: None, caplog: pytest.LogCaptureFixture
):
    issuer.go_away()
    message = "The keys of the token's issuer are not available right now."
    for _ in range(2):
        assert_error(get_me(gate, issuer.token()), 503, "unavailable", message)
    assert caplog.text.count(f"could not be fetched from {issuer.origin}{JWKS_PATH}") == 1
    issuer.come_back()
    assert get_me(gate, issuer.token()).status_code == 200
    assert "can be fetched again" in caplog.text


def test_failed_fetch_is_told_and_not_repeated_within_the_pause(
    issuer: Issuer, gate: Flask, heard: list[str]
):
    issuer.behave = answer_with(b"", "500 Internal Server Error")
    for _ in range(10):
        assert_error(get_me(gate, issuer.token()), 503, "unavailable")
    assert len(issuer.requests) == 1
    assert "jwks_failed" in heard  # beside what other tests' threads emit


def test_look_up_that_no_thread_can_make_is_a_failed_fetch(
    issuer: Issuer, gate: Flask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    assert_error(get_me(gate, issuer.token()), 503, "unavailable")
    assert "could not be fetched" in caplog.text


def test_keys_are_forgotten_after_a_day_without_the_issuer(
    issuer: Issuer, gate: Flask, eager: None, stale: None, monkeypatch: pytest.MonkeyPatch
):
    remembered = issuer.token()
    assert get_me(gate, remembered).status_code == 200
    issuer.go_away()
    assert get_me(gate, remembered).status_code == 200
    monkeypatch.setattr(jwks, "FORGET_AFTER", 0.0)
    for token in [remembered, issuer.token(jti="new")]:
        assert_error(get_me(gate, token), 503, "unavailable")
    issuer.come_back()
    monkeypatch.setattr(jwks, "FORGET_AFTER", 60.0)
    wait_until(lambda: get_me(gate, remembered).status_code == 200)


def test_after_a_failure_all_wait_for_the_next_fetch_again(
    issuer: Issuer, gate: Flask, eager: None
):
    issuer.behave = answer_with(b"", "500 Internal Server Error")
    assert get_me(gate, issuer.token()).status_code == 503
    issuer.behave = answer_keys
    assert get_me(gate, issuer.token()).status_code == 200

    def answer_late(issuer: Issuer, connection: socket.socket) -> None:
        time.sleep(0.3)
        answer_keys(issuer, connection)

    issuer.behave = answer_late
    issuer.keys.append(make_key())
    responses, _ = send_at_once(gate, [issuer.token(issuer.keys[1], jti=str(n)) for n in range(4)])
    assert [response.status_code for response in responses] == [200] * 4
