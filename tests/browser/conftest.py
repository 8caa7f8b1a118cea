"""A real Chromium, the API in a real gunicorn, and a front end on an origin of its own."""

import os
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from processes import copy_of_project, gunicorn

import migrate
from development import embedded

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = "Chromium is missing: apt-get install chromium"
FRONT_END = b"<!doctype html><title>Front end</title><link rel=icon href='data:,'>"


def pytest_sessionstart() -> None:
    """Without Chromium, end in one line; pytest calls this only for a folder that it was given."""
    if not CHROMIUM:
        raise pytest.UsageError(MISSING)


expect.set_options(timeout=30_000)  # milliseconds; on a busy machine, ReDoc takes more than five


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.fail(MISSING, pytrace=False)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def front_end() -> Iterator[str]:
    """The origin of a page that the API allows to call it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), FrontEnd)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def api_url(front_end: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the API, on a database of its own."""
    folder = tmp_path_factory.mktemp("api")
    with embedded.running(folder / "postgres", ["fsync=off"]) as url:
        migrate.migrate(url)
        with gunicorn(copy_of_project(folder), url, CORS_ORIGINS=front_end) as process:
            yield f"http://127.0.0.1:{process.port}"


@pytest.fixture
def page(browser: Browser, api_url: str) -> Iterator[Page]:
    with browser.new_context(base_url=api_url) as context:
        yield context.new_page()


class FrontEnd(BaseHTTPRequestHandler):
    """Serves one empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(FRONT_END)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
