"""Large responses go out compressed, and what clients send back of them is understood."""

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import brotli
import flask_compress.flask_compress
import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from flask_compress.compat import compression as codecs
from support import User, app_for, bearer, token_for
from werkzeug.test import TestResponse

from blueprints.transfer import FORMATS
from content_encoding import ALGORITHMS, MIN_SIZE, PIECE, STREAMING_ALGORITHMS, TYPES

READ = {"br": brotli.decompress, "gzip": gzip.decompress, "zstd": codecs.zstd.decompress}
BROWSER = {"Accept-Encoding": "gzip, deflate, br, zstd"}
LONG = "Two litres, and not the sour one. " * 40


def accepting(*algorithms: str, **headers: str) -> dict[str, str]:
    return {"Accept-Encoding": ", ".join(algorithms)} | headers


@pytest.fixture
def task(alice: User) -> dict[str, Any]:
    return alice.create(description=LONG.strip())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_large_response_is_compressed_as_the_client_can_read_it(
    alice: User, task: dict, algorithm: str
):
    for path, expected in [("", [task]), (task["id"], task)]:
        response = alice.call("GET", path, headers=accepting(algorithm))
        assert response.headers["Content-Encoding"] == algorithm
        assert json.loads(READ[algorithm](response.data)) == expected
        assert int(response.headers["Content-Length"]) == len(response.data) < MIN_SIZE
        assert response.headers.getlist("Vary") == ["Origin, Accept-Encoding"]
        assert response.content_type == "application/json"


def test_every_format_of_files_is_compressed():
    assert FORMATS.keys() <= set(TYPES)


def test_the_clients_wish_decides_between_algorithms(alice: User, task: dict):
    for accepted, chosen in [
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "br"),
        ("zstd;q=0, br ; q=0.2, gzip;q=0.5", "gzip"),
        ("*", "zstd"),
        ("br;q=0, *", "zstd"),
        ("zstd;q=0, *", "br"),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity, gzip", "gzip"),
    ]:
        response = alice.call("GET", task["id"], headers={"Accept-Encoding": accepted})
        assert response.headers["Content-Encoding"] == chosen, accepted
        assert json.loads(READ[chosen](response.data)) == task


PLAIN = ["", "identity", "compress", "br;q=0", "deflate", "gzip;q=0, *;q=0", ";;q=,"]
PLAIN += ["identity, gzip;q=0.5", "identity;q=0.5, gzip;q=0.4, *;q=0.3"]
PLAIN += ["gzip," * 201]  # more than is read


def test_response_is_not_compressed_for_a_client_that_cannot_read_it_or_prefers_it_plain(
    alice: User, task: dict
):
    for accepted in PLAIN:
        response = alice.call("GET", task["id"], headers={"Accept-Encoding": accepted})
        assert "Content-Encoding" not in response.headers, accepted
        assert response.json == task
        assert response.headers["Vary"] == "Origin, Accept-Encoding"


def test_small_responses_and_errors_are_left_alone(alice: User):
    task = alice.create()
    responses = [
        alice.call("GET", headers=BROWSER),
        alice.call("GET", task["id"], headers=BROWSER),
        alice.call("GET", "/health", headers=BROWSER),
        alice.call("POST", json={"x" * 2000: 1}, headers=BROWSER),
        alice.call("DELETE", task["id"], headers=BROWSER),
    ]
    assert [response.status_code for response in responses] == [200, 200, 200, 422, 204]
    for response in responses:
        assert "Content-Encoding" not in response.headers


def test_head_tells_what_get_would(alice: User, task: dict):
    get, head = (
        alice.call(method, task["id"], headers=accepting("gzip")) for method in ("GET", "HEAD")
    )
    assert head.data == b""
    names = ["Content-Encoding", "Content-Length", "Content-Type", "ETag", "Vary"]
    assert [get.headers[name] for name in names] == [head.headers[name] for name in names]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_etag_of_a_compressed_task_has_a_suffix_and_is_taken_back(
    alice: User, task: dict, algorithm: str
):
    headers = accepting(algorithm)
    tag = alice.call("GET", task["id"], headers=headers).headers["ETag"]
    assert tag == f'"{task["version"]}:{algorithm}"'
    for sent in [tag, f"W/{tag}", f'"x", {tag}']:
        again = alice.call("GET", task["id"], headers=headers | {"If-None-Match": sent})
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == tag
        assert "Content-Encoding" not in again.headers
    response = alice.call("PATCH", task["id"], json={"title": "New"}, headers={"If-Match": tag})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/api/alice/tasks", "/docs", "/openapi.json"])
def test_none_is_sent_again_to_whom_a_proxy_compressed_it(alice: User, path: str):
    """Apache and lighttpd send the tag that they gave to a client on as it comes back."""
    tag = alice.call("GET", path).headers["ETag"][:-1] + '-gzip"'
    again = alice.call("GET", path, headers={"If-None-Match": tag})
    assert (again.status_code, again.headers["ETag"]) == (304, tag)


@pytest.mark.parametrize(
    ("path", "is_large"),
    [
        ("/openapi.json", True),
        ("/docs", False),
        ("/redoc", False),
        ("/docs/assets/swagger-ui.css", True),
    ],
)
def test_large_documents_are_compressed_and_none_is_sent_again(
    alice: User, path: str, is_large: bool
):
    plain = alice.call("GET", path)
    first = alice.call("GET", path, headers=accepting("gzip"))
    assert ("Content-Encoding" in first.headers) is is_large
    if is_large:
        assert gzip.decompress(first.data) == plain.data
        assert first.headers["ETag"] == plain.headers["ETag"][:-1] + ':gzip"'
    headers = accepting("gzip") | {"If-None-Match": first.headers["ETag"]}
    again = alice.call("GET", path, headers=headers)
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]


@pytest.mark.parametrize("path", ["/openapi.json", "/docs/assets/swagger-ui-bundle.js"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_everybody_gets_is_compressed_once(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, algorithm: str, path: str
):
    def fetch() -> TestResponse:
        return client.get(path, headers=accepting(algorithm), buffered=True)

    first = fetch()
    assert first.headers["Content-Encoding"] == algorithm
    for name in ["_compress_data", "_compress_chunks"]:
        monkeypatch.setattr(flask_compress.flask_compress, name, None)
    assert (fetch().data, fetch().headers["ETag"]) == (first.data, first.headers["ETag"])
    plain = client.get(path, buffered=True)
    assert READ[algorithm](first.data) == plain.data


def test_clients_of_an_asset_share_its_bytes_however_slowly_they_read(client: FlaskClient):
    path = "/docs/assets/swagger-ui-bundle.js"
    for headers in [{}, accepting("gzip")]:
        responses = [client.get(path, headers=headers) for _ in range(2)]
        first, second = (next(iter(response.response)) for response in responses)
        assert first is second


class Export:
    """A stream of rows, which notes how far it was read and whether it was closed."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for number in range(50_000):
            self.made += 1
            yield b"%d,Buy milk,%d\n" % (number, number * 7919 % 10_007)

    def close(self) -> None:
        self.closed = True


def streaming(export: Export) -> Flask:
    app = app_for()
    app.add_url_rule(
        "/api/<user_id:user_id>/export",
        "export",
        lambda user_id: Response(export, content_type="text/csv"),
    )
    return app


@pytest.mark.parametrize("algorithm", STREAMING_ALGORITHMS)
def test_stream_is_compressed_as_it_comes(algorithm: str):
    export = Export()
    headers = accepting(algorithm) | bearer(token_for("alice"))
    client = streaming(export).test_client()
    response: TestResponse = client.get("/api/alice/export", headers=headers)
    chunks = response.iter_encoded()
    first = next(chunks)
    assert 0 < export.made < 50_000
    assert response.headers["Content-Encoding"] == algorithm
    assert "Content-Length" not in response.headers
    text = READ[algorithm](first + b"".join(chunks))
    assert len(re.findall(rb"\n", text)) == 50_000
    response.close()
    assert export.closed


@pytest.mark.parametrize("path", ["", "export"])
@pytest.mark.parametrize("algorithm", STREAMING_ALGORITHMS)
def test_long_list_or_export_is_compressed_in_turns(
    alice: User, monkeypatch: pytest.MonkeyPatch, algorithm: str, path: str
):
    pauses: list[float] = []
    monkeypatch.setattr("capacity.turns.sleep", pauses.append)
    monkeypatch.setattr("capacity.turns.TURN", 0)
    for number in range(40):
        alice.create(description=chr(0x4E00 + number) * 5000)
    plain = alice.call("GET", path)
    pauses.clear()
    response = alice.call("GET", path, headers=accepting("br", algorithm))
    assert response.headers["Content-Encoding"] == algorithm
    assert "Content-Length" not in response.headers
    assert READ[algorithm](response.data) == plain.data
    if tag := plain.headers.get("ETag"):
        assert response.headers["ETag"] == f'{tag[:-1]}:{algorithm}"'
    assert len(pauses) >= len(plain.data) // PIECE


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_stream_that_nobody_reads_to_its_end_is_closed(method: str):
    export = Export()
    headers = BROWSER | bearer(token_for("alice"))
    client = streaming(export).test_client()
    response = client.open("/api/alice/export", method=method, headers=headers)
    response.close()
    assert export.made < 50_000
    assert export.closed
