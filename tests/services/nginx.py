"""nginx with ops/nginx.conf, in front of a server of its own."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from signal import SIGTERM
from typing import Any

from certificates import write_certificate
from processes import (
    Process,
    Response,
    copy_of_project,
    free_port,
    gunicorn,
    request_on,
    wait_until,
)
from support import token_for

from children import end_with_parent
from config import PROJECT

PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"
# One process, which keeps all of its files in the folder of the test.
MAIN = """
daemon off; master_process off; pid {folder}/pid;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {ours}
}}
"""


@dataclass
class Proxied:
    """The API, as its clients reach it."""

    api: Process
    port: int
    certificate: Path
    access_log: Path

    def connect(self) -> HTTPSConnection:
        context = ssl.create_default_context(cafile=self.certificate)
        return HTTPSConnection("localhost", self.port, timeout=10, context=context)

    def call(self, method: str, path: str, user: str = "alice", **options: Any) -> Response:
        connection = self.connect()
        try:
            return request_on(connection, method, path, **{"token": token_for(user)} | options)
        finally:
            connection.close()


@contextmanager
def proxied(
    folder: Path, database_url: str, location: str = "", others: str = "", **settings: str
) -> Iterator[Proxied]:
    """Run both, with `location` in the configuration's server and `others` in its upstream."""
    certificate, port = write_certificate(folder / "localhost.pem"), free_port()
    with gunicorn(copy_of_project(folder), database_url, TRUSTED_PROXIES=1, **settings) as api:
        ours = (PROJECT / "ops/nginx.conf").read_text()
        for theirs, here in {
            "listen 443 ": f"listen 127.0.0.1:{port} ",
            "server_name tasks.example.com;": "server_name localhost;",
            "server 127.0.0.1:8000 ": f"{others}server 127.0.0.1:{api.port} ",
            "/etc/nginx/tasks.crt": str(certificate),
            "/etc/nginx/tasks.key": str(certificate),
            "/var/log/nginx/tasks.log": str(folder / "access"),
            "    location / {": f"{location}    location / {{",
        }.items():
            assert ours.count(theirs) == 1
            ours = ours.replace(theirs, here)
        file, log = folder / "nginx.conf", folder / "log"
        file.write_text(MAIN.format(folder=folder, ours=ours))
        nginx = subprocess.Popen(
            [PROGRAM, "-c", file, "-e", log], preexec_fn=end_with_parent(SIGTERM)
        )
        try:
            proxied = Proxied(api, port, certificate, folder / "access")
            wait_until(lambda: is_open(proxied) or nginx.poll() is not None)
            assert nginx.poll() is None, log.read_text()
            yield proxied
        finally:
            nginx.terminate()
            nginx.wait()


def is_open(proxied: Proxied) -> bool:
    try:
        return proxied.call("GET", "/livez").status_code == 200
    except OSError:
        return False
