"""HTTPS by gunicorn itself, where no proxy in front brings it."""

import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import processes
import pytest
from certificates import write_certificate
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from issuer import make_key
from processes import Process, running, wait_until
from raw_http import head, read_to_end, statuses
from support import SECRET

from config import PROJECT

PATIENCE_WITH_CLIENTS = 1  # seconds; what worker.py grants is too long for a test
CHUNK = 8192  # bytes that gunicorn reads at once


@pytest.fixture(scope="module")
def api(url: str, certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = processes.copy_of_project(tmp_path_factory.mktemp("tls"))
    worker = folder / "server/worker.py"
    shorter = rf"\1_TIMEOUT = {PATIENCE_WITH_CLIENTS} "
    worker.write_text(re.sub(r"\b(CLIENT|BODY)_TIMEOUT = [\d.]+ ", shorter, worker.read_text()))
    with serving(folder, url, certificate, certificate) as process:
        yield process
        assert "Traceback" not in process.output()


@contextmanager
def serving(folder: Path, url: str, certificate: Path, key: Path) -> Iterator[Process]:
    port = processes.free_port()
    given = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET, "API_PORT": port}
    given |= {"GUNICORN_CMD_ARGS": f"--certfile {certificate} --keyfile {key}"}
    arguments = ["-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:application"]
    with running(arguments, folder, port, WEB_CONCURRENCY=1, **given) as process:
        wait_until(lambda: is_open(port))
        yield process


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def connect(api: Process) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", api.port), timeout=10))


@pytest.mark.parametrize("sent", [b"", b"\x16\x03", b"GET / HTTP/1.1\r\n\r\n"])
def test_handshake_that_stalls_or_fails_ends_in_its_time(api: Process, sent: bytes):
    with socket.create_connection(("127.0.0.1", api.port), timeout=5) as client:
        client.sendall(sent)
        with suppress(ConnectionResetError):
            read_to_end(client)
    with connect(api) as client:
        client.sendall(head("GET", "/livez", "Connection: close"))
        response = read_to_end(client)
    assert statuses(response) == [200]
    assert b"\r\nStrict-Transport-Security: " in response


def test_handshake_that_drips_ends_in_its_time(api: Process):
    began = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", api.port), timeout=5) as client,
        suppress(OSError),
    ):
        client.sendall(b"\x16\x03\x01\x20\x00\x01\x00\x1f\xfc\x03\x03")
        while time.monotonic() < began + 5 * PATIENCE_WITH_CLIENTS:
            client.sendall(b"\x00")
            time.sleep(0.1)
    assert time.monotonic() < began + 4 * PATIENCE_WITH_CLIENTS


def test_request_that_was_received_with_the_one_before_is_answered_too(api: Process):
    rest = CHUNK - len(head("GET", "/livez", "Padding-1: ", "Padding-2: "))
    first = head("GET", "/livez", f"Padding-1: {'x' * 4000}", f"Padding-2: {'x' * (rest - 4000)}")
    assert len(first) == CHUNK
    with connect(api) as client:
        client.sendall(first + head("GET", "/livez", "Connection: close"))
        assert statuses(read_to_end(client)) == [200, 200]


def test_connection_that_was_idle_for_long_takes_a_request_in_two_pieces(api: Process):
    """The patience with a body that stalls is no patience with a client that has none to send."""
    with connect(api) as client:
        client.sendall(head("GET", "/livez"))
        assert statuses(client.recv(CHUNK)) == [200]
        time.sleep(PATIENCE_WITH_CLIENTS + 0.5)
        client.sendall(b"GET /livez HT")
        time.sleep(0.2)
        client.sendall(head("GET", "/livez", "Connection: close").removeprefix(b"GET /livez HT"))
        assert statuses(read_to_end(client)) == [200]


def test_certificate_that_cannot_be_used_at_a_reload_leaves_the_old_one(url: str, tmp_path: Path):
    """As where the reload comes between the two files of a renewal."""
    own, key = write_certificate(tmp_path / "own.pem"), write_certificate(tmp_path / "key.pem")
    of_another = make_key("ES256").private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with serving(PROJECT, url, own, key) as api:
        first = shown_by(api)
        key.write_bytes(of_another)
        api.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: "Worker exiting" in api.output())
        assert shown_by(api) == first
        assert "the old certificate stays in use: [X509: KEY_VALUES_MISMATCH]" in api.output()
        write_certificate(own)
        write_certificate(key)
        api.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: shown_by(api) != first)
        assert "Traceback" not in api.output()


def shown_by(api: Process) -> bytes | None:
    with connect(api) as client:
        return client.getpeercert(binary_form=True)
