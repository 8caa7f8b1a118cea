"""Every environment variable once: its default, its check, and the text that the README shows."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from dotenv import dotenv_values
from psycopg.conninfo import conninfo_to_dict

from cores import available_cores
from setting_parsers import (
    host,
    integer,
    key_set_url,
    one_of,
    origin_of,
    origins,
    postgres_url,
    rate,
    redis_url,
    secret,
    switch,
    web_url,
)

PROJECT = Path(__file__).parent
VERSION = "1.0.0"  # of the API


class CommandError(RuntimeError):
    """Why a command or the server ends, in one line for the person who started it."""


class ConfigError(CommandError):
    """A setting that the process cannot start with; the text says what to set."""


def setting(default: Any, parse: Callable[[str], Any], text: str, derived: str = "") -> Any:
    """Declare a setting: its default or what that is derived from, its parser, its README text."""
    return field(default=default, metadata={"parse": parse, "text": text, "derived": derived})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the process runs with. A field's environment variable is its name in capitals."""

    database_url: str = setting(
        "",
        postgres_url,
        "PostgreSQL 15 to 18, as a libpq URL; a driver suffix (`postgresql+asyncpg://`) is"
        " dropped. Empty: `make run` starts its own server in `.data/`",
    )
    database_replica_url: str = setting(
        "",
        postgres_url,
        "URL of a streaming replica that then serves lists, changes, the trash and exports, always"
        " including the user's own latest writes",
    )
    migration_database_url: str = setting(
        "",
        postgres_url,
        "URL for migrations: as the tables' owner, not through a pooler. `make migrate` then grants"
        " the role of `DATABASE_URL` the rights it needs, and creates it if missing",
        "`DATABASE_URL`",
    )
    database_pool_size: int = setting(
        8,
        integer(1, 1000),
        "Connections of a worker process at most; one user gets half or the only one, one in four"
        " is kept for reads. A request waits up to a second for each share, then for one",
    )
    database_statement_timeout: int = setting(
        5000, integer(1, 600_000), "Milliseconds after which PostgreSQL cancels a statement"
    )
    database_prepare: bool = setting(
        True,
        switch,
        "Use server-side prepared statements; `off` for PgBouncer in transaction mode before 1.22,"
        " or with `max_prepared_statements` 0 (the default before 1.24)",
    )
    better_auth_secret: str = setting(
        "", secret, "Secret that HS256 tokens are signed with, at least 32 bytes"
    )
    better_auth_secret_previous: str = setting(
        "", secret, "Previous secret, during a rotation: tokens signed with it are still accepted"
    )
    better_auth_url: str = setting(
        "",
        web_url,
        "URL of Better Auth. Its origin is the tokens' issuer and audience; its `/api/auth/jwks`"
        " serves the public keys",
    )
    jwt_issuer: str = setting("", str, "`iss` that tokens must have", "origin of `BETTER_AUTH_URL`")
    jwt_audience: str = setting(
        "", str, "`aud` that tokens must have", "origin of `BETTER_AUTH_URL`"
    )
    jwks_url: str = setting(
        "",
        key_set_url,
        "URL of the issuer's public keys, if this process reaches the issuer at another address",
        "origin of `BETTER_AUTH_URL` + `/api/auth/jwks`",
    )
    api_host: str = setting(
        "127.0.0.1", host, "Address to listen on; `0.0.0.0` for all of IPv4, `::` for IPv6, too"
    )
    api_port: int = setting(8000, integer(1, 65535), "Port to listen on")
    cors_origins: tuple[str, ...] = setting(
        ("http://localhost:3000",),
        origins,
        "Origins whose pages may call the API, comma-separated: `https://app.example.com`,"
        " `https://preview-*.example.com` (for `*`, letters, digits and hyphens), or an app's:"
        " `capacitor://localhost`",
    )
    web_concurrency: int = setting(
        available_cores(),
        integer(1, 256),
        "Worker processes",
        "number of cores, within a container's CPU limit",
    )
    web_connections: int = setting(
        1000,
        integer(1, 100_000),
        "Client connections that a worker process serves at once, idle ones included",
    )
    graceful_timeout: int = setting(
        7, integer(1, 3600), "Seconds that requests in flight have to finish at shutdown"
    )
    max_content_length: int = setting(
        1024**2, integer(1, 1024**3), "Largest request body, in bytes; the longest batch has 8 MB"
    )
    max_import_length: int = setting(
        64 * 1024 * 1024, integer(1, 1024**3), "Largest body of an import, in bytes"
    )
    max_tasks_per_user: int = setting(
        100_000, integer(1, 10**9), "Tasks that a user may store, including those in the trash"
    )
    trash_days: int = setting(
        30, integer(1, 36_500), "Days after which `make purge` deletes tasks in the trash for good"
    )
    changes_epoch: str = setting(
        "",
        str,
        "Any text. Change it after restoring a backup: clients that keep a copy then start again",
    )
    audit_days: int = setting(
        365, integer(1, 36_500), "Days after which `make purge` deletes audit entries"
    )
    rate_limit: str = setting(
        "600/minute",
        rate,
        "Requests that a user may send per second, minute, hour or day; also `20 per 5 seconds`,"
        " or `off`. Without `REDIS_URL`, each worker process counts separately",
    )
    auth_failure_limit: str = setting(
        "60/minute",
        rate,
        "Requests without a valid token that a client address may send; any more get 429 instead"
        " of 401. Expired tokens count for their user instead",
    )
    redis_url: str = setting(
        "", redis_url, "Redis in which all processes and machines share their rate-limit counts"
    )
    trusted_proxies: int = setting(
        0,
        integer(0, 10),
        "Number of proxies in front that each append to `X-Forwarded-For`; with 1 or more, the last"
        " one's `X-Forwarded-Proto` is trusted too",
    )
    log_level: str = setting(
        "info", one_of("debug", "info", "warning", "error"), "`debug`, `info`, `warning` or `error`"
    )
    log_format: str = setting(
        "json",
        one_of("json", "text"),
        "`json` or `text`; `make run` in a terminal defaults to `text`",
    )
    server_timing: bool = setting(
        False, switch, "Tell clients in `Server-Timing` where a response's time went"
    )
    metrics_port: int = setting(
        0,
        integer(0, 65535),
        "Port for Prometheus' `/metrics`, other than `API_PORT`; 0: no metrics",
    )
    metrics_host: str = setting("127.0.0.1", host, "Address that `METRICS_PORT` listens on")
    otel_exporter_otlp_endpoint: str = setting(
        "",
        web_url,
        "URL of an OpenTelemetry collector that receives traces over OTLP/HTTP, such as"
        " `http://localhost:4318`; empty: no traces. The SDK reads its other variables itself",
    )

    @property
    def issuer(self) -> str:
        return self.jwt_issuer or origin_of(self.better_auth_url)

    @property
    def audience(self) -> str:
        return self.jwt_audience or origin_of(self.better_auth_url)

    @property
    def key_set_url(self) -> str:
        if self.jwks_url or not self.better_auth_url:
            return self.jwks_url
        return f"{origin_of(self.better_auth_url)}/api/auth/jwks"

    @property
    def cursor_key(self) -> bytes:
        """The key that signs cursors of lists: the same in all processes of one deployment.

        Derived from the secret, or else from the database's address without its role and password.
        """
        address = conninfo_to_dict(self.database_url)
        place = [address.get(name) for name in ("host", "port", "dbname")]
        return sha256(f"cursor {self.better_auth_secret or place}".encode()).digest()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read and check the settings, from `environ` or else from the process and `.env`.

        Raises:
            ConfigError: a value is wrong, or one that is needed is missing.
        """
        environ = read_environ() if environ is None else environ
        given = {name: environ.get(name.upper(), "") for name in SETTINGS}
        settings = cls(**{name: parse(name, text) for name, text in given.items() if text.strip()})
        require_complete(settings)
        return settings


SETTINGS = {each.name: each for each in fields(Settings)}


def parse(name: str, text: str) -> Any:
    """Check one setting's text and return its value; a ConfigError says what it must be."""
    text = text.strip()
    if text[0] == text[-1] in {"'", '"'}:  # docker's --env-file keeps them
        raise ConfigError(f"{name.upper()} must be a text without quotes around it.")
    try:
        text.encode()  # Python reads other bytes of the environment as lone surrogates
        return SETTINGS[name].metadata["parse"](text)
    except UnicodeEncodeError:
        raise ConfigError(f"{name.upper()} must be a text in UTF-8.") from None
    except ValueError as error:
        raise ConfigError(f"{name.upper()} must be {error}.") from None


def read_environ() -> dict[str, str]:
    """Read the process's variables and `.env`; the former win, a blank one counts as unset."""
    try:
        written = dotenv_values(PROJECT / ".env")
    except (OSError, UnicodeDecodeError) as error:  # it is another user's alone, or no UTF-8
        raise ConfigError(f".env cannot be read: {error}.") from None
    if any("\0" in f"{name}{text}" for name, text in written.items()):  # perhaps it is UTF-16
        raise ConfigError(".env cannot be read: it must be a text in UTF-8, without NUL.")
    given = [*written.items(), *os.environ.items()]
    return {name: text for name, text in given if text and text.strip()}


def require_complete(settings: Settings) -> None:
    if not settings.database_url:
        raise ConfigError("Set DATABASE_URL, or start with `make run`, which brings a server.")
    if not settings.better_auth_secret and not settings.key_set_url:
        raise ConfigError(
            "Set BETTER_AUTH_SECRET (32 bytes or more) or BETTER_AUTH_URL:"
            " without either no token can be verified."
        )
    if settings.better_auth_secret_previous and not settings.better_auth_secret:
        raise ConfigError("Set BETTER_AUTH_SECRET beside BETTER_AUTH_SECRET_PREVIOUS.")
    if settings.metrics_port == settings.api_port:
        raise ConfigError("METRICS_PORT must be another port than API_PORT: it is not for clients.")
    if settings.key_set_url and not settings.issuer:
        raise ConfigError("Set JWT_ISSUER beside JWKS_URL: a key set alone names no issuer.")


def require_free_port(host: str, port: int, name: str) -> None:
    """Raise ConfigError where nothing can listen on `name`_HOST and `name`_PORT."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # Python adds the address in its own words
        place = f"{host} port {port}: {reason}"
        raise ConfigError(f"Cannot listen on {place}. Set {name}_PORT or {name}_HOST.") from None
