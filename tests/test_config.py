"""Settings: read once, checked at the start, refused in one line."""

import re
from pathlib import Path
from typing import Any

import pytest
from support import SECRET

import config
import cores as own_cores
from config import ConfigError, Settings

DATABASE = {"DATABASE_URL": "postgresql://localhost/tasks"}
ENOUGH = DATABASE | {"BETTER_AUTH_SECRET": SECRET}


def test_defaults_serve_on_loopback_for_the_front_end_of_development():
    settings = Settings.load(ENOUGH)
    assert (settings.api_host, settings.api_port) == ("127.0.0.1", 8000)
    assert settings.cors_origins == ("http://localhost:3000",)
    assert settings.max_content_length == 1024 * 1024


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", 8), ("50000 100000", 1), ("150000 100000", 2), ("900000 100000", 8), ("", 8)],
)
def test_cores_are_counted_within_the_limit_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, cores: int
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(own_cores, "CPU_LIMIT", tmp_path / "cpu.max")
    assert own_cores.available_cores() == 8
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert own_cores.available_cores() == cores


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DATABASE_URL", "mysql://localhost/tasks"),
        ("DATABASE_URL", "localhost:5432"),
        ("DATABASE_URL", "postgresql://localhost/tasks?no_such_option=1"),
        ("DATABASE_URL", "postgresql://api:pass@word@localhost/tasks"),
        ("DATABASE_URL", "postgresql://api:pass/word@localhost/tasks"),
        ("DATABASE_URL", "postgresql://api:pass@wo/rd@localhost/tasks"),
        ("DATABASE_URL", "postgresql://api:password@@localhost/tasks"),
        ("DATABASE_POOL_SIZE", "-1"),
        ("DATABASE_STATEMENT_TIMEOUT", "5s"),
        ("DATABASE_PREPARE", "yes"),
        ("BETTER_AUTH_SECRET", "x" * 31),
        ("BETTER_AUTH_SECRET", "-----BEGIN PUBLIC KEY-----" * 2),
        ("BETTER_AUTH_SECRET", '{"kty":"oct","k":"a key of some thirty characters"}'),
        ("BETTER_AUTH_SECRET", "ssh-rsa " + "A" * 64),
        ("BETTER_AUTH_SECRET", "\udcff" * 32),
        ("BETTER_AUTH_SECRET_PREVIOUS", "x" * 31),
        ("BETTER_AUTH_URL", "localhost:3000"),
        ("BETTER_AUTH_URL", "http://localhost:x"),
        ("BETTER_AUTH_URL", "http://[abc"),
        ("BETTER_AUTH_URL", "https://ex\u00e4mple.com"),
        ("BETTER_AUTH_URL", "http://localhost:"),
        ("BETTER_AUTH_URL", "http://localhost/a b"),
        ("BETTER_AUTH_URL", "http:///path"),
        ("JWKS_URL", "file:///etc/passwd"),
        ("JWKS_URL", "ftp://localhost/jwks"),
        ("JWKS_URL", "https://me:password@localhost/jwks"),
        ("JWKS_URL", "https://localhost/jwks\u200e"),
        ("JWKS_URL", "https://auth..example.com/jwks"),
        ("API_PORT", "0"),
        ("API_PORT", "65536"),
        ("API_PORT", "8" * 5000),
        ("API_PORT", "٨٠٠٠"),
        ("CHANGES_EPOCH", "\udcff"),
        ("JWT_ISSUER", "http://issu\udce9r"),
        ("API_HOST", '"0.0.0.0"'),
        ("API_HOST", "\u200e127.0.0.1"),
        ("API_HOST", "127.0..1"),
        ("API_HOST", "localhost:8000"),
        ("API_HOST", "[::1]"),
        ("METRICS_HOST", "\u200e127.0.0.1"),
        ("BETTER_AUTH_SECRET", f"'{SECRET}'"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "http://localhost:3000/"),
        ("CORS_ORIGINS", "http://a, b"),
        ("CORS_ORIGINS", "https://*"),
        ("CORS_ORIGINS", "https://*.com"),
        ("CORS_ORIGINS", "https://app.*.com"),
        ("CORS_ORIGINS", "https://*.*.example.com"),
        ("CORS_ORIGINS", "https://**.example.com"),
        ("CORS_ORIGINS", "https://*.example.com/"),
        ("CORS_ORIGINS", "*://app.example.com"),
        ("CORS_ORIGINS", "https://APP.example.com"),
        ("CORS_ORIGINS", "https://app.example.com:443"),
        ("CORS_ORIGINS", "Capacitor://localhost"),
        ("CORS_ORIGINS", "capacitor://localhost/app"),
        ("CORS_ORIGINS", "://localhost"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONNECTIONS", "many"),
        ("GRACEFUL_TIMEOUT", "0"),
        ("MAX_CONTENT_LENGTH", "1MB"),
        ("RATE_LIMIT", "600"),
        ("RATE_LIMIT", "0/minute"),
        ("RATE_LIMIT", "600/fortnight"),
        ("RATE_LIMIT", "600/0minute"),
        ("RATE_LIMIT", "٦٠/minute"),
        ("RATE_LIMIT", "10/second;600/minute"),
        ("AUTH_FAILURE_LIMIT", "on"),
        ("REDIS_URL", "http://localhost:6379"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://localhost:x"),
        ("REDIS_URL", "redis://[abc"),
        ("REDIS_URL", "redis://localhost?no_such_option=1"),
        ("REDIS_URL", "redis://localhost?socket_timeout=long"),
        ("REDIS_URL", "redis://localhost?socket_timeout=-1"),
        ("REDIS_URL", "redis://localhost?socket_connect_timeout=inf"),
        ("REDIS_URL", "redis://localhost?cache_config=x"),
        ("REDIS_URL", "rediss://localhost?ssl_cert_reqs=x"),
        ("REDIS_URL", "unix://"),
        ("REDIS_URL", "redis://redis..example.com"),
        ("REDIS_URL", f"redis://{'x' * 64}"),
        ("REDIS_URL", "redis://\u200elocalhost"),
        ("TRUSTED_PROXIES", "10.0.0.1"),
        ("TRUSTED_PROXIES", "-1"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_wrong_value_is_refused_in_one_line_that_names_the_setting(name: str, text: str):
    with pytest.raises(ConfigError) as refused:
        Settings.load(ENOUGH | {name: text})
    assert re.match(
        f"{name} must be (a|an|on|off|json|debug|origins|[0-9]+ bytes)\\b", str(refused.value)
    )
    assert "\n" not in str(refused.value)
    assert name == "BETTER_AUTH_SECRET" or text not in str(refused.value).split()


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "DATABASE_URL"),
        ({"BETTER_AUTH_SECRET": SECRET}, "DATABASE_URL"),
        (DATABASE, "BETTER_AUTH_SECRET"),
        (DATABASE | {"BETTER_AUTH_SECRET": "  "}, "BETTER_AUTH_SECRET"),
        (DATABASE | {"JWT_ISSUER": "http://issuer"}, "BETTER_AUTH_SECRET"),
        (
            DATABASE | {"BETTER_AUTH_URL": "http://a", "BETTER_AUTH_SECRET_PREVIOUS": SECRET},
            "BETTER_AUTH_SECRET beside BETTER_AUTH_SECRET_PREVIOUS",
        ),
        (DATABASE | {"JWKS_URL": "http://issuer/jwks"}, "JWT_ISSUER"),
    ],
)
def test_missing_setting_is_refused_by_name(environ: dict[str, str], named: str):
    with pytest.raises(ConfigError, match=named):
        Settings.load(environ)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:3000",
        "http://localhost:3000/api/auth/",
        "HTTP://Localhost:3000/?x",
        "http://me:secret@localhost:3000",
    ],
)
def test_better_auth_url_alone_names_issuer_audience_and_keys(url: str):
    settings = Settings.load(DATABASE | {"BETTER_AUTH_URL": url})
    assert settings.issuer == settings.audience == "http://localhost:3000"
    assert settings.key_set_url == "http://localhost:3000/api/auth/jwks"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://App.example.com:443/", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("https://app.example.com:80", "https://app.example.com:80"),
    ],
)
def test_issuer_is_the_origin_as_browsers_write_it(url: str, origin: str):
    assert Settings.load(DATABASE | {"BETTER_AUTH_URL": url}).issuer == origin


@pytest.mark.parametrize(
    ("name", "read"),
    [("JWT_ISSUER", "issuer"), ("JWT_AUDIENCE", "audience"), ("JWKS_URL", "key_set_url")],
)
def test_each_derived_setting_can_be_given_by_itself(name: str, read: str):
    environ = DATABASE | {"BETTER_AUTH_URL": "http://localhost:3000", name: "http://auth:3000/x"}
    settings: Any = Settings.load(environ)
    assert getattr(settings, read) == "http://auth:3000/x"
    others = {"issuer", "audience", "key_set_url"} - {read}
    assert all("localhost" in getattr(settings, other) for other in others)


def cursor_key(url: str, **environ: str) -> bytes:
    return Settings.load({"DATABASE_URL": url, "BETTER_AUTH_URL": "http://a"} | environ).cursor_key


def test_cursor_key_stays_with_another_role_and_password_of_the_database():
    urls = ["postgresql://a:one@db:5433/tasks", "postgresql://b:two@db:5433/tasks?sslmode=require"]
    for environ in [{}, {"BETTER_AUTH_SECRET": SECRET}]:
        assert len({cursor_key(url, **environ) for url in urls}) == 1


def test_cursor_key_is_another_with_another_secret_or_without_one_another_database():
    urls = ["postgresql://db/tasks", "postgresql://db:5433/tasks", "postgresql://db/others"]
    keys = {cursor_key(url) for url in urls}
    keys |= {cursor_key(urls[0], BETTER_AUTH_SECRET=secret) for secret in [SECRET, SECRET + "2"]}
    assert len(keys) == 5


def test_environment_outranks_the_env_file_and_a_blank_variable_counts_as_unset(
    tmp_path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / ".env").write_text("API_PORT=1\nLOG_LEVEL=debug\nAPI_HOST=::1\n")
    monkeypatch.setattr(config, "PROJECT", tmp_path)
    monkeypatch.setenv("API_PORT", "2")
    monkeypatch.setenv("LOG_LEVEL", " ")
    environ = config.read_environ()
    assert (environ["API_PORT"], environ["LOG_LEVEL"], environ["API_HOST"]) == ("2", "debug", "::1")
