"""How long requests wait for an issuer that hangs, and how many of them."""

import socket
import subprocess
import sys
import threading
import time

import pytest
from flask import Flask
from issuer import Issuer, drip, gate_for, get_me, hang, send_at_once
from processes import wait_until
from support import assert_error, token_for

import jwks
from config import PROJECT


def test_secret_keeps_working_while_the_issuer_hangs(issuer: Issuer):
    issuer.behave = hang
    app = gate_for(better_auth_url=issuer.origin)
    assert get_me(app, token_for("alice")).status_code == 200
    assert issuer.requests == []


def test_hanging_issuer_holds_each_request_for_two_seconds_at_most(issuer: Issuer, gate: Flask):
    """With the real constants: four at once take as long as one, and then none waits."""
    issuer.behave = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
    started = time.monotonic()
    responses, seconds = send_at_once(gate, [issuer.token(jti=str(number)) for number in range(4)])
    for response in responses:
        assert_error(response, 503, "unavailable")
    assert time.monotonic() - started < 2 * jwks.FETCH_TIMEOUT
    assert min(seconds) > 1.5
    responses, seconds = send_at_once(gate, [issuer.token(jti=str(number)) for number in range(4)])
    assert max(seconds) < jwks.FETCH_TIMEOUT
    assert len(issuer.requests) == 1


def flood(issuer: Issuer, connection: socket.socket) -> None:
    connection.settimeout(1)  # the client leaves with its buffer full
    while not issuer.stopping.is_set():
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 3000)


def test_issuer_that_never_pauses_does_not_keep_the_deadline_from_running(issuer: Issuer):
    """Among greenlets, the deadline runs only while the fetch lets others run."""
    issuer.behave = flood
    script = f"""
from gevent import monkey
monkey.patch_all()
import jwks
try:
    jwks.fetch("{issuer.origin}/jwks")
except (OSError, jwks.HTTPException):
    print("ended")
"""
    command = [sys.executable, "-c", script]
    assert subprocess.check_output(command, cwd=PROJECT, timeout=20) == b"ended\n"


def test_fetch_beyond_its_time_holds_no_request(
    issuer: Issuer, gate: Flask, monkeypatch: pytest.MonkeyPatch
):
    """A DNS lookup, for one, has no timeout that we could set."""
    released = threading.Event()
    monkeypatch.setattr(jwks, "fetch", lambda _: str(released.wait(10)).encode())
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 1.0)
    for longest in [5.0, 1.0]:  # the first waits out its time, the second comes after it
        responses, seconds = send_at_once(gate, [issuer.token()])
        assert_error(responses[0], 503, "unavailable")
        assert seconds[0] < longest
    released.set()


def test_while_the_issuer_hangs_one_request_waits_for_it(
    issuer: Issuer, gate: Flask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.5)
    issuer.behave = hang
    get_me(gate, issuer.token())
    monkeypatch.setattr(jwks, "FETCH_PAUSE", 0.0)
    wait_until(lambda: all(thread.name != "jwks" for thread in threading.enumerate()))
    _, seconds = send_at_once(gate, [issuer.token(jti=str(number)) for number in range(8)])
    assert len([each for each in seconds if each > 0.4]) <= 4
