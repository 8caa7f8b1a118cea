"""What we put in place of other packages' own is called: a new version may have renamed theirs.

Most of it only saves time, so no response would tell.
"""

import ast
import inspect
import logging
import re
from collections import Counter
from functools import wraps
from operator import attrgetter
from types import ModuleType, SimpleNamespace
from typing import Any

import gevent.socket
import gunicorn.http.message
import gunicorn.http.parser
import gunicorn.http.unreader
import gunicorn.http.wsgi
import gunicorn.util
import pytest
from gunicorn.config import Config
from support import app_for

import blueprints
import converters
import lean_flask
import openapi
from config import PROJECT
from server import plain_requests, reading, responses, worker

CONFIGURATION = ast.parse((PROJECT / "gunicorn.conf.py").read_text()).body
# What the end of gunicorn.conf.py puts in place of gunicorn's own, by name.
REPLACED: dict[str, Any] = {
    ast.unparse(node.targets[0]): attrgetter(ast.unparse(node.value))(
        SimpleNamespace(
            plain_requests=plain_requests, reading=reading, responses=responses, worker=worker
        )
    )
    for node in CONFIGURATION
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)
}
# Names in our classes that override nothing.
OUR_OWN = {
    *("must_close", "proxy_protocol_info", "version"),  # which gunicorn sets in each request
    *("answer", "end_idle_connections", "error_response", "head", "read_plain", "_find", "_send"),
}
HERE, PEER = ("127.0.0.1", 8000), ("192.0.2.1", 54321)
Calls = Counter[str]


def methods_of(ours: type) -> set[str]:
    names = {name for name, value in vars(ours).items() if inspect.isfunction(value)}
    return {name for name in names if not name.startswith("__")} - OUR_OWN


def watch(calls: Calls, place: str, owner: Any, watched: Any, patch: pytest.MonkeyPatch) -> None:
    """Put a function in this place of its owner, and count its calls."""

    @wraps(watched)
    def counting(*args: Any, **options: Any) -> Any:
        calls[place] += 1
        return watched(*args, **options)

    patch.setattr(owner, place.rpartition(".")[2], counting)


def watch_methods(calls: Calls, ours: type, patch: pytest.MonkeyPatch) -> set[str]:
    """Count the calls of what a class of ours overrides; return their names."""
    places = {f"{ours.__name__}.{name}": vars(ours)[name] for name in methods_of(ours)}
    for place, method in places.items():
        watch(calls, place, ours, method, patch)
    return places.keys()


@pytest.mark.parametrize(
    "module",
    [blueprints, converters, lean_flask, openapi, plain_requests, responses, worker],
    ids=lambda module: module.__name__,
)
def test_what_our_classes_override_is_there(module: ModuleType):
    for ours in vars(module).values():
        if isinstance(ours, type) and ours.__module__ == module.__name__:
            given = {name for name in vars(ours) if not name.startswith("__")} - OUR_OWN
            parents = ours.__mro__[1:]
            missing = [name for name in given if not any(name in vars(each) for each in parents)]
            assert not missing, f"{missing} of {ours} overrides nothing; if so meant: OUR_OWN"


def test_attributes_that_we_set_are_read():
    assert "_timer" in vars(worker.Server((HERE[0], 0), lambda *_: None))
    config = Config()
    vars(config)["keepalive"] = 7
    assert config.keepalive == 7


def test_every_name_in_gunicorn_conf_is_one_of_gunicorns_settings():
    """gunicorn ignores the others without a word."""
    names = {node.name for node in CONFIGURATION if isinstance(node, ast.FunctionDef)}
    for node in CONFIGURATION:
        for each in ast.walk(node) if not isinstance(node, ast.FunctionDef) else ():
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                names.add(each.id)
    ours = {"AUDIT_TIMEOUT", "UNREAD", "allowed", "error", "host", "settings", "write_error"}
    assert names - ours <= Config().settings.keys()


def test_flask_calls_what_lean_flask_overrides(monkeypatch: pytest.MonkeyPatch):
    calls: Calls = Counter()
    expected: set[str] = set()
    for ours in vars(lean_flask).values():
        if isinstance(ours, type) and ours.__module__ == "lean_flask":
            expected |= watch_methods(calls, ours, monkeypatch)
    assert app_for().test_client().get("/openapi.json").status_code == 200
    assert calls.keys() == expected


def test_gunicorn_calls_what_replaces_its_own(monkeypatch: pytest.MonkeyPatch):
    """For a plain request, and for one of a long address that its own parser reads."""
    calls: Calls = Counter()
    for place, ours in REPLACED.items():
        path, _, name = place.removeprefix("gunicorn.").rpartition(".")
        owner = attrgetter(path)(gunicorn)
        if inspect.isfunction(ours):
            watch(calls, place, owner, ours, monkeypatch)
        else:
            monkeypatch.setattr(owner, name, ours, raising=False)
    expected = {place for place, ours in REPLACED.items() if inspect.isfunction(ours)}
    expected |= watch_methods(calls, responses.Response, monkeypatch)
    expected |= watch_methods(calls, worker.Worker, monkeypatch)

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read() or b"none"]

    config = Config()
    config.set("limit_request_line", reading.MAX_REQUEST_LINE)
    serving = worker.Worker(0, 0, [], None, 0, config, logging.getLogger("gunicorn.error"))
    serving.tmp.close()
    serving.wsgi = application
    here, there = gevent.socket.socketpair()
    with here, there:
        there.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /%s HTTP/1.1\r\n" % (b"z" * 9000))
        there.sendall(b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
        there.shutdown(gevent.socket.SHUT_WR)
        serving.handle(SimpleNamespace(getsockname=lambda: HERE), here, PEER)
        received = b"".join(iter(lambda: there.recv(4096), b""))
    assert re.findall(b"200|none|body", received) == [b"200", b"none", b"200", b"body"]
    assert calls.keys() == expected - {"Worker.init_process", "Worker.run"}
    assert calls["Response.send_headers"] >= 4  # by `write` and by our `close`, for each response
