"""gunicorn as a child of `manage.py run`: started, announced, watched and stopped."""

import signal
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import click
import jwt

from children import end_with_parent
from config import PROJECT, CommandError, Settings

TOKEN_LIFETIME = 12 * 3600  # seconds
START_TIMEOUT = 30.0  # seconds
WATCH_INTERVAL = 0.2  # seconds


def on_stop(handler: Any) -> None:
    """Have `handler` called for Ctrl-C, for SIGTERM, and for a closed terminal without nohup."""
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


def serve(settings: Settings, environ: dict[str, str], embedded_on: Path | None = None) -> int:
    """Run gunicorn until it ends or this process is told to stop; return its exit code.

    Raises:
        CommandError: the embedded server has ended by itself.
    """
    gunicorn = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "wsgi:application"],
        cwd=PROJECT,
        env=environ,
        start_new_session=True,  # a Ctrl-C in the terminal would cut off requests in flight
        preexec_fn=end_with_parent(signal.SIGTERM),
    )
    on_stop(lambda *_: gunicorn.terminate())
    if wait_until_live(settings, gunicorn):
        click.echo(banner(settings))
    if embedded_on:
        from development import embedded  # only here: a given database needs none

        while gunicorn.poll() is None:
            if embedded.has_ended(embedded_on):
                gunicorn.terminate()
                gunicorn.wait()
                raise CommandError(f"PostgreSQL has ended by itself, see {embedded_on}.log.")
            time.sleep(WATCH_INTERVAL)
    code = gunicorn.wait()
    return 0 if code == -signal.SIGTERM else code  # it was told to stop before it listened


def wait_until_live(settings: Settings, gunicorn: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT
    while gunicorn.poll() is None and time.monotonic() < deadline:
        connection = HTTPConnection(reachable_host(settings), settings.api_port, timeout=2)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            time.sleep(0.05)
        finally:
            connection.close()
    return False


def reachable_host(settings: Settings) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)


def banner(settings: Settings) -> str:
    host = reachable_host(settings)
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}"
    lines = ["", f"  Swagger UI   {address}/docs", f"  OpenAPI      {address}/openapi.json", ""]
    if settings.better_auth_secret:
        curl = (
            f"curl -s {address}/api/demo/tasks -H 'Content-Type: application/json'"
            ' -d \'{"title": "Buy milk"}\''
            f" -H 'Authorization: Bearer {make_token(settings, 'demo')}'"
        )
        lines += ["  Create a task as the user demo:", "", curl, ""]
    return "\n".join(lines)


def make_token(settings: Settings, user: str) -> str:
    now = int(time.time())
    claims = {"sub": user, "iat": now, "exp": now + TOKEN_LIFETIME}
    if settings.issuer:
        claims |= {"iss": settings.issuer}
    if settings.audience:
        claims |= {"aud": settings.audience}
    return jwt.encode(claims, settings.better_auth_secret, algorithm="HS256")
