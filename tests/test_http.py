"""HTTP as plain_requests.py reads it, beside gunicorn's own reading, and responses.py writes it."""

import socket
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidResponseHeader, NoMoreData, ParseException
from gunicorn.http.message import Message
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server import plain_requests, reading, responses, worker
from server.plain_requests import PlainParser, PlainRequest

CONFIG = Config()
PEER, HERE = ("192.0.2.1", 54321), ("127.0.0.1", 8000)
BROWSER = (
    b"POST /api/auth0%7C1/tasks?limit=5&q=%C3%A4 HTTP/1.1\r\nHost: localhost:8000\r\n"
    b"Content-Type: application/json\r\nContent-Length: 20\r\nOrigin: http://localhost:3000\r\n"
    b'User-Agent: Mozilla/5.0 (X11; \xe4)\r\nAccept:*/*\r\nIf-Match:  \t"57" \r\n\r\n'
)
BODY = b'{"title":"Buy milk"}'
NEXT = b"GET /livez HTTP/1.1\r\n\r\n"


class Client:
    """A connection from which these packets come, then its end."""

    def __init__(self, *packets: bytes) -> None:
        self.packets = list(packets)

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, _size: int) -> bytes:
        return self.packets.pop(0) if self.packets else b""


def read_all(parser: Any) -> list[Any]:
    """Read every request that a parser finds: what the application sees of it, and its body."""
    found: list[Any] = []
    try:
        for request in parser:
            _, environ = plain_requests.create(request, Client(), PEER, HERE, CONFIG)
            body = environ.pop("wsgi.input").read()
            for name in ("gunicorn.socket", "wsgi.early_hints", "wsgi.errors"):
                environ.pop(name, None)
            seen = (environ, body, request.should_close(), request.uri, request.headers)
            found.append((*seen, request.method, request.path, request.query, request.version))
    except (ParseException, NoMoreData) as error:
        found.append(type(error))
    return found


def is_plain(data: bytes) -> bool:
    return isinstance(next(PlainParser(CONFIG, Client(data), PEER), None), PlainRequest)


def assert_read_alike(*packets: bytes) -> None:
    plain = read_all(PlainParser(CONFIG, Client(*packets), PEER))
    assert plain == read_all(RequestParser(CONFIG, Client(*packets), PEER))


# Requests


def usually(usual: list[str], *others: str) -> st.SearchStrategy[str]:
    """Draw what is plain nine times in ten: a head is plain only if all of it is."""
    return st.integers(0, 9).flatmap(lambda roll: st.sampled_from(usual if roll else others))


METHODS = usually(["GET", "POST", "PUT", "PATCH", "DELETE"], "get", "TRACE", "CONNECT", "G,T", "")
TARGETS = usually(
    ["/", "/a", "/a%2Fb", "/%00%ff", "/%zz", "/a?b?c", "/a//b?", "/a;b=c", "/[", '/"'],
    *("", "*", "//", "//a", "/a#b", "/a?b#c", "http://h/a?b", "h:80", "/a b", "/\xe4", "/\x7f"),
)
VERSIONS = usually(["HTTP/1.1"], "HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", "http/1.1")
FIELDS = usually(
    [
        *(
            "Host: a",
            "Connection: close",
            "Connection: Keep-Alive",
            "connection: x",
            "Cookie:a\tb ",
        ),
        *(
            "Content-Length: 3",
            "Content-Length:03",
            "content-type: \xe4",
            "Script-Name: /",
            "A-1: ",
        ),
    ],
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Expect: 100-continue", "Expect: x"),
    *("Content-Length: +3", "Content-Length: 3,3", "Content-Length: \u00b2", "Content-Length: -1"),
    *(
        "X_Request_Id: a",
        "Bad Name: a",
        ": a",
        "Host : a",
        "Upgrade: h2c",
        "a",
        "!: a",
        "A: b\nC: d",
    ),
    *("A: b\rC: d", "A: b\0", "A: \x7f", f"A: {'z' * 9000}", " A: b", "\xb5: a", "Host: b"),
)
ENDINGS = usually(["\r\n"], "\n", "\r", "\r\n ", "\r\n\r\n")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    line = " ".join([draw(METHODS), draw(TARGETS), draw(VERSIONS)])
    lines = [line, *draw(st.lists(FIELDS, max_size=4, unique=True))]
    head = "".join(line + draw(ENDINGS) for line in lines) + "\r\n"
    return head.encode("latin-1")


@settings(deadline=None)
@given(st.lists(requests(), min_size=1, max_size=2), st.sampled_from([b"", b"abc", b"abc" * 50]))
@example([BROWSER], BODY + NEXT)
@example([b"GET / HTTP/1.1\r\nA: b\r\nB: c\r\n\r\n"], b"")
def test_every_request_is_read_as_gunicorn_reads_it(heads: list[bytes], body: bytes):
    data = body.join(heads) + body
    assert_read_alike(data)
    assert_read_alike(data[:30], data[30:])


@pytest.mark.parametrize(
    "packets", [(BROWSER + BODY + NEXT,), (BROWSER, BODY[:3], BODY[3:] + NEXT)]
)
def test_request_of_a_browser_is_plain_however_its_body_arrives(packets: tuple[bytes]):
    assert is_plain(packets[0])
    assert_read_alike(*packets)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET //livez HTTP/1.1\r\n\r\n",
        b"GET http://localhost/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\nA: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nRemote_User: root\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nB: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: %s\r\n\r\n" % (b"z" * 9000),
        b"GET / HTTP/1.1\r\n%s: a\r\n\r\n" % (b"z" * 65),
        b"GET / HTTP/1.1\r\n%s\r\n" % b"".join(b"A%d: b\r\n" % number for number in range(101)),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    ],
)
def test_request_that_is_not_plain_is_left_to_gunicorns_parser(data: bytes):
    parser = PlainParser(CONFIG, Client(data), PEER)
    assert parser.read_plain(data) is None
    assert_read_alike(data)


@pytest.mark.parametrize("parser", [PlainParser, RequestParser])
def test_bytes_after_the_end_of_the_stream_are_not_read_as_a_request(
    monkeypatch: pytest.MonkeyPatch, parser: type[Any]
):
    monkeypatch.setattr(SocketUnreader, "chunk", reading.read_chunk_in_turn)
    [(_, body, *_)] = read_all(parser(CONFIG, Client(BROWSER + BODY[:3], b"", NEXT), PEER))
    assert body == BODY[:3]
    assert read_all(parser(CONFIG, Client(BROWSER, BODY, b"", NEXT), PEER))[1:] == []


def test_long_head_is_read_although_some_of_its_body_came_with_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Message, "max_buffer_headers", reading.longest_head, raising=False)
    cookies = b"Cookie: %s\r\n" % (b"z" * 8000) * 4
    data = b"POST / HTTP/1.1\r\n%sContent-Length: 9000\r\n\r\n" % cookies + b"x" * 9000
    packets = data[:25_000], data[25_000:33_000], data[33_000:]
    [(_, body, *_)] = read_all(PlainParser(CONFIG, Client(*packets), PEER))
    assert body == b"x" * 9000


def test_address_of_a_proxys_own_request_is_the_proxys():
    config, proxy = Config(), ("127.0.0.1", 54321)
    config.set("proxy_protocol", "v2")
    local = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
    request = next(plain_requests.get_parser(config, Client(local + NEXT), proxy))
    _, environ = plain_requests.create(request, Client(), proxy, HERE, config)
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


# Ends of connections


class Ending(worker.Worker):
    """A worker whose application keeps what it is asked."""

    def __init__(self) -> None:
        self.waiting_since: dict[Any, float] = {}
        self.asked: list[Any] = []

    def answer(self, _name: Any, req: Any, _sock: Any, _addr: Any) -> bool:
        self.asked.append(req)
        return True


@pytest.mark.parametrize(("arrived", "is_answered"), [(BODY[:3], False), (BODY, True)])
@pytest.mark.parametrize("parser", [PlainParser, RequestParser])
def test_request_on_an_ended_connection_is_the_last_and_answered_only_if_it_is_whole(
    parser: type[Any], arrived: bytes, is_answered: bool
):
    ending, (here, there) = Ending(), socket.socketpair()
    with here, there:
        there.sendall(BROWSER + arrived)
        ending.waiting_since[here] = 0.0
        ending.end_idle_connections(1)
        assert ending.waiting_since[here] == worker.ENDED
        request = next(parser(CONFIG, here, PEER))
        ending.cfg = SimpleNamespace(is_ssl=True)
        with suppress(StopIteration):
            ending.handle_request(HERE, request, here, PEER)
        assert ending.asked == [request] * is_answered
        assert not is_answered or request.should_close()


# Responses


@pytest.mark.parametrize(
    ("name", "value"), [("A", "b\r\nC: d"), ("A", "b\nC"), ("A\r\nB", "c"), ("", "a"), ("A:", "b")]
)
def test_response_header_that_would_begin_another_is_refused(name: str, value: str):
    request = next(PlainParser(CONFIG, Client(NEXT), PEER))
    response = responses.Response(request, None, CONFIG)
    response.start_response("200 OK", [("Content-Length", "0"), (name, value)])
    with pytest.raises(InvalidResponseHeader):
        response.close()
    assert not response.headers_sent


class Narrow(socket.socket):
    """A connection whose buffers have no room for more than some bytes at once."""

    received = b""

    def send(self, data: Any, *_: Any) -> int:
        self.received += data[:1000]
        return len(data[:1000])


@pytest.mark.parametrize("size", [0, 1, responses.PIECE, responses.PIECE + 1, 3 * responses.PIECE])
def test_response_is_sent_whole_however_little_room_there_is(size: int):
    body = b"x" * size
    for headers in ([("Content-Length", str(size))], []):
        with Narrow() as client:
            request = next(PlainParser(CONFIG, Client(NEXT), PEER))
            response = responses.Response(request, client, CONFIG)
            response.start_response("200 OK", headers)
            response.write(body)
            response.close()
        expected = body if headers else (b"%X\r\n%b\r\n" % (size, body)) * bool(size) + b"0\r\n\r\n"
        assert client.received.partition(b"\r\n\r\n")[2] == expected


class Full(socket.socket):
    def send(self, *_: Any) -> int:
        raise TimeoutError


def test_client_that_has_read_much_and_then_reads_no_more_is_left(monkeypatch: pytest.MonkeyPatch):
    more = 2 * responses.LEAST_READ
    unread = [more, 0, 0, 0]  # before and after each of two waits
    monkeypatch.setattr(responses, "count_unread", lambda _: unread.pop(0))
    with Full() as client, pytest.raises(TimeoutError):
        responses.send_piece(client, b"x")
    assert not unread


def test_date_of_a_response_is_now():
    assert abs(parsedate_to_datetime(responses.http_date()).timestamp() - time.time()) < 5
