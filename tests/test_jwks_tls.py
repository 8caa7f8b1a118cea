"""Keys that are fetched over TLS."""

import re
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

import pytest
from issuer import SLOW_FAILURES, Issuer, drip, gate_of, get_me, make_key
from processes import PATIENCE
from support import assert_error

import jwks
from config import PROJECT


@pytest.fixture
def tls_issuer(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", PATIENCE)  # a slow machine's handshake takes long
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    issuer = Issuer(make_key(), tls=tls)
    yield issuer
    issuer.go_away()


def test_keys_come_over_tls(tls_issuer: Issuer, certificate: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get_me(gate_of(tls_issuer), tls_issuer.token()).status_code == 200


@pytest.mark.parametrize("failure", ["nothing", "a dripping body"])
def test_fetch_over_tls_ends_in_time(
    tls_issuer: Issuer, certificate: Path, monkeypatch: pytest.MonkeyPatch, failure: str
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 1.0)
    tls_issuer.behave = SLOW_FAILURES[failure]
    started = time.monotonic()
    with pytest.raises((OSError, HTTPException, ValueError)):
        jwks.parse_key_set(jwks.fetch(tls_issuer.origin))
    assert len(tls_issuer.requests) == 1
    assert time.monotonic() - started < 5


GREENLET = """
from gevent import monkey
monkey.patch_all()
import jwks
jwks.fetch("https://localhost:{port}")
"""


def test_fetch_whose_handshake_drips_ends_in_time(issuer: Issuer, monkeypatch: pytest.MonkeyPatch):
    """As in production: Python limits the time of the whole handshake, gevent of each read."""
    record = b"\x16\x03\x03\x40\x00"  # the head of a handshake record of 16 KiB
    monkeypatch.setattr(issuer, "serve", partial(drip(record), issuer))
    program = [sys.executable, "-c", GREENLET.format(port=issuer.port)]
    done = subprocess.run(
        program, check=False, cwd=PROJECT, timeout=60, capture_output=True, text=True
    )
    # A reset if one more byte arrives after the deadline cut it, but before its reader wakes.
    assert re.search("EOF|reset by peer", done.stderr.splitlines()[-1])


def test_fetch_that_is_cut_off_does_not_go_on_in_plain_text(tls_issuer: Issuer, certificate: Path):
    """Or whoever is in between could add what the issuer never sent."""
    tls_issuer.behave = lambda _, connection: socket.socket.sendall(connection, b"in plain text")
    context = ssl.create_default_context(cafile=certificate)
    with (
        socket.create_connection(("localhost", tls_issuer.port)) as plain,
        plain.dup() as twin,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        select.select([connection], [], [], 5)
        jwks.cut(twin)
        with suppress(OSError):
            assert connection.recv(100) == b""


def test_self_signed_certificate_is_refused(tls_issuer: Issuer, caplog: pytest.LogCaptureFixture):
    assert_error(get_me(gate_of(tls_issuer), tls_issuer.token()), 503, "unavailable")
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
    assert tls_issuer.requests == []


def test_certificate_of_another_host_is_refused(
    tls_issuer: Issuer, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(ssl.SSLCertVerificationError):
        jwks.fetch(f"https://127.0.0.1:{tls_issuer.port}")
    assert tls_issuer.requests == []
