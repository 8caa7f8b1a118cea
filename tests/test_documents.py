"""What stands in more than one file: settings, commands, versions, numbers and names."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from support import MODULES, tables_with_users

from blueprints.batch import MAX_OPERATIONS
from blueprints.lists import ListArguments
from blueprints.paging import MAX_PAGE_SIZE
from blueprints.transfer import FORMATS, KEPT_IN_MEMORY
from capacity.rate_limits import KEPT_RESPONSES, TOMBSTONES
from capacity.transfer_limits import LARGE_BODY, LARGE_RESPONSE
from config import PROJECT, SETTINGS
from development import generated
from manage import commands
from observability.audit import MAX_WAITING
from schemas import MAX_TAGS, Task, TaskPatch
from statements import QUERIES

OPENAPI = json.loads(generated.openapi())
README = (PROJECT / "README.md").read_text()
CHANGELOG = (PROJECT / "CHANGELOG.md").read_text()
GUNICORN = (PROJECT / "gunicorn.conf.py").read_text()
[KEEPALIVE] = re.findall(r"^keepalive = (\d+)", GUNICORN, re.MULTILINE)


@pytest.mark.parametrize("path", generated.files(), ids=lambda path: path.name)
def test_generated_file_is_what_the_code_makes(path: Path):
    assert path.read_text() == generated.files()[path], "run: make docs"


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_stands_in_the_readme_and_the_example(name: str):
    assert f"| `{name.upper()}` |" in README
    assert f"\n#{name.upper()}=" in (PROJECT / ".env.example").read_text()


# Better Auth's are read in config.py alone, which makes the issuer, audience and key set of them.
@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"better_auth_url", "jwks_url"}))
def test_setting_is_read_outside_of_config(name: str):
    texts = [path.read_text() for path in MODULES if path.name != "config.py"]
    assert any(re.search(rf"""[."]{name}\b""", text) for text in texts), "nothing reads it"


def test_every_operation_of_users_stands_in_the_readme():
    for path, item in OPENAPI["paths"].items():
        for operation in (item[method] for method in item if method != "parameters"):
            if operation.get("security") == []:
                continue
            assert f"`{operation['operationId']}`" in README, "give it a row in the table"
            assert operation.get("summary"), f"the view of {path} needs a docstring"


def test_every_parameter_and_order_of_lists_stands_in_the_readme():
    [text] = re.findall(r"^\*\*Lists\*\* .*?\n\n", README, re.MULTILINE | re.DOTALL)
    parameters = ListArguments().fields
    names = [*parameters.keys() - {"cursor"}, *parameters["sort"].validate.choices]
    assert [name for name in names if not re.search(rf"`{name}\b", text)] == [], (
        "tell of it under Lists"
    )


def test_every_format_of_files_stands_in_the_readme():
    [row] = re.findall(r"^\| `exportTasks`.*$", README, re.MULTILINE)
    assert [each.NAME for each in FORMATS.values() if each.NAME not in row] == []


def test_every_field_of_a_task_stands_in_the_readme():
    [response] = re.findall(r'^{"id":.*}$', README, re.MULTILINE)
    assert json.loads(response).keys() == Task().fields.keys()
    [text] = re.findall(r"^\*\*A task\*\* .*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert [name for name in Task().fields if f"`{name}`" not in text] == [], "tell of it"
    [row] = re.findall(r"^\| `patchTask`.*$", README, re.MULTILINE)
    cleared = [name for name, field in TaskPatch().fields.items() if field.allow_none]
    assert [name for name in cleared if f"`{name}`" not in row] == [], "null clears it"


def test_environment_is_read_in_config_alone():
    # The others pass it on to programs that we start, or read what is gunicorn's or a library's.
    readers = {"config.py", "metrics_server.py", "plain_requests.py"}
    readers |= {"embedded.py", "migrate.py", "postgres_programs.py"}
    for path in MODULES:
        if path.name not in readers:
            assert "os.environ" not in path.read_text(), path
            assert "getenv" not in path.read_text(), path


def pinned(name: str) -> dict[str, str]:
    text = (PROJECT / name).read_text()
    assert text.count("--hash=sha256:") >= text.count("==")
    return dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    "name", ["requirements-embedded.txt", "requirements-dev.txt", "bench/requirements.txt"]
)
def test_requirement_files_agree_on_every_version(name: str):
    production, others = pinned("requirements.txt"), pinned(name)
    assert {package: others[package] for package in others.keys() & production} == {
        package: production[package] for package in others.keys() & production
    }


@pytest.mark.parametrize(
    "name", ["requirements", "requirements-embedded", "requirements-dev", "bench/requirements"]
)
def test_every_package_that_is_required_is_pinned(name: str):
    text = (PROJECT / f"{name}.in").read_text()
    required = set(re.findall(r"^[a-z][\w-]*", text, re.MULTILINE))
    assert required <= pinned(f"{name}.txt").keys(), "run: make requirements"


def test_packages_fixed_by_design_are_required():
    fixed = {"flask", "flask-smorest", "marshmallow", "psycopg"}
    fixed |= {"psycopg-pool", "pyjwt", "gunicorn"}
    assert fixed <= pinned("requirements.txt").keys()
    assert {"pytest", "pytest-postgresql"} <= pinned("requirements-dev.txt").keys()


def test_every_make_target_of_the_readme_exists():
    makefile = (PROJECT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z][\w-]*)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_file_that_the_readme_names_exists():
    for name in set(re.findall(r"\]\(([^)#:]+)\)", README)):
        assert (PROJECT / name).exists(), name
    folders = {path.parent for path in MODULES} | {PROJECT / "tests"}
    folders |= {PROJECT / "migrations", PROJECT / "queries"}
    for name in set(re.findall(r"[\w./-]+\.(?:py|sql)\b", README)):
        assert any((folder / name).exists() for folder in folders), name


DOCUMENTS = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(path: Path):
    named = re.findall(r"(?<![\w./-])(?:\w+/)+[\w-]+\.(?:py|sql|yml|conf)\b", path.read_text())
    assert [name for name in named if not (PROJECT / name).exists()] == []


# Variables of others that stand in the documents beside our settings.
OF_OTHERS = {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "RES_OPTIONS", "SSL_CERT_FILE"}
OF_OTHERS |= {"GUNICORN_CMD_ARGS", "OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER"}
OF_OTHERS |= {"OTEL_EXPORTER_OTLP_HEADERS", "MESSAGE_OF_REFUSAL", "CERTIFICATE_VERIFY_FAILED"}
OF_OTHERS |= {"POSTGRES_PASSWORD", "API_PASSWORD"}
OF_OTHERS |= {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"}
OF_OTHERS |= {"OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TIMEOUT"}
OF_OTHERS |= {"OTEL_PROPAGATORS", "OTEL_TRACES_EXPORTER"}


@pytest.mark.parametrize("name", ["docs/operations.md", "docs/database.md", "bench/features.py"])
def test_every_setting_that_a_document_names_exists(name: str):
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)\b", (PROJECT / name).read_text()))
    assert {each for each in named if each.lower() not in SETTINGS} <= OF_OTHERS


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_statement_that_a_document_names_exists(path: Path):
    named = re.findall(r"`((?:select|insert|update|delete|set|try)_[a-z_]+)`", path.read_text())
    assert [name for name in named if name not in QUERIES] == []


def test_files_stand_in_the_readme_under_their_folder():
    [tree] = re.findall(r"```text\n(gunicorn.*?)```", README, re.DOTALL)
    folder = PROJECT
    for line in tree.splitlines():
        if found := re.match(r" *([\w.]+/?)", line if line[:3] != "   " else ""):
            folder = PROJECT / found[1] if found[1].endswith("/") else PROJECT
        for name in re.findall(r"[\w./]+\.py\b", line):
            assert (folder / name).exists() or (PROJECT / name).exists(), name


@pytest.mark.parametrize(
    "text",
    [
        f"{MAX_PAGE_SIZE:,} at most on a page",
        f"up to {MAX_OPERATIONS} creations",
        f"`tags` (up to {MAX_TAGS})",
        f"once {KEPT_RESPONSES // 2**20} MiB",
        f"after {TOMBSTONES:,} that day",
    ],
)
def test_number_in_the_readme_is_that_of_the_code(text: str):
    assert text in README


@pytest.mark.parametrize(
    "text",
    [
        f"`DATABASE_POOL_SIZE` ({SETTINGS['database_pool_size'].default}) connections",
        f"responses above {LARGE_RESPONSE // 2**20} MiB",
        f"request bodies above {LARGE_BODY // 2**10} KiB",
        f"a file of more than {KEPT_IN_MEMORY // 2**10} KiB",
        f"may add {KEPT_RESPONSES // 2**20} MiB of them a day",
        f"more than {MAX_WAITING:,} entries waited",
        f"close idle connections before the API does (after {KEEPALIVE} s)",
    ],
)
def test_number_in_operations_is_that_of_the_code(text: str):
    assert text in (PROJECT / "docs/operations.md").read_text()


def test_grace_period_in_compose_is_longer_than_a_stop_takes():
    compose = (PROJECT / "compose.yaml").read_text()
    [seconds] = re.findall(r"stop_grace_period: (\d+)s", compose)
    assert int(seconds) >= SETTINGS["graceful_timeout"].default + 3


def test_compose_gives_the_api_no_secret_of_the_owner_and_publishes_it_on_this_machine_alone():
    services = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"]
    api = services["api"]["environment"]
    assert api["DATABASE_URL"].startswith("postgresql://tasks_api:${API_PASSWORD:")
    assert api["MIGRATION_DATABASE_URL"] == api["POSTGRES_PASSWORD"] == ""
    assert services["api"]["ports"] == ["127.0.0.1:8000:8000"]
    assert {name.lower() for name in api} <= SETTINGS.keys() | {"postgres_password"}
    for name in re.findall(r"python,? manage\.py,? (\w+)", str(services).replace("'", "")):
        assert name in commands.commands


def test_every_module_stands_in_the_readme():
    for path in MODULES:
        if path.parent.name != "blueprints":
            assert path.name in README, path


def test_no_module_shadows_the_standard_library():
    later = {"annotationlib", "compression", "profiling"}  # new in 3.14 and 3.15
    names = {path.relative_to(PROJECT).with_suffix("").parts[0] for path in MODULES}
    assert not names & (sys.stdlib_module_names | later)


def test_changelog_knows_the_newest_migration():
    newest = max(path.name[:4] for path in (PROJECT / "migrations").glob("*.sql"))
    told = re.search(r"Migrations? (?:\d{4} to )?(\d{4})", CHANGELOG)
    assert told[1] == newest, "name it at the top of CHANGELOG.md"


def test_every_document_that_the_code_names_exists():
    for path in MODULES:
        for name in re.findall(r"docs/decisions/[\w-]+(?:\.md)?", path.read_text()):
            assert (PROJECT / name).is_file(), (path, name)


def test_document_on_the_database_moves_every_table_of_a_user_and_every_sequence():
    text = (PROJECT / "docs/database.md").read_text()
    [move] = re.findall(r"^### One user, to another.*?(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert [table for table in tables_with_users() if not re.search(rf"\b{table}\b", move)] == []
    schema = (PROJECT / "schema.sql").read_text()
    sequences = re.findall(r"SEQUENCE NAME public\.(\w+)", schema)
    assert sequences
    assert [sequence for sequence in sequences if f"'{sequence}'" not in text] == []


def test_tables_that_supabase_serves_no_more_are_all():
    text = (PROJECT / "docs/operations.md").read_text()
    [tables] = re.findall(r"REVOKE ALL ON ([\w, ]+)\s+FROM anon", text)
    made = re.findall(
        r"^CREATE TABLE public\.(\w+)", (PROJECT / "schema.sql").read_text(), re.MULTILINE
    )
    assert sorted(tables.strip().split(", ")) == sorted(made)


def test_every_package_has_its_reason():
    reasons = (PROJECT / "docs/decisions/0009-dependencies.md").read_text()
    for path in PROJECT.glob("requirements*.in"):
        for name in re.findall(r"^[a-z][\w-]*", path.read_text(), re.MULTILINE):
            assert name in reasons or name == "opentelemetry-exporter-otlp-proto-http", name


@pytest.mark.parametrize(
    "path", sorted((PROJECT / "docs").rglob("*.md")), ids=lambda path: path.name
)
def test_links_between_the_documents_hold(path: Path):
    for name in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / name).exists(), name


def test_pythons_of_the_readme_are_those_that_make_takes_and_ruff_checks_for():
    dockerfile, makefile = ((PROJECT / name).read_text() for name in ("Dockerfile", "Makefile"))
    assert "Python 3.11 to 3.14" in README
    assert "(3, 11) <= sys.version_info < (3, 15)" in makefile
    assert "--python-version 3.11 " in makefile
    assert 'target-version = "py311"' in (PROJECT / "pyproject.toml").read_text()
    assert re.search(r"FROM python:3\.1[1-9]", dockerfile)


def test_newest_release_of_the_changelog_is_the_version_of_the_api():
    assert re.search(r"^## (\d\S*)", CHANGELOG, re.MULTILINE)[1] == OPENAPI["info"]["version"]


def test_image_has_every_folder_but_the_one_for_development():
    folders = {path.parent.name for path in MODULES} - {PROJECT.name} | {"migrations", "queries"}
    ignored = (PROJECT / ".dockerignore").read_text().split()
    assert {name for name in folders if f"!{name}" not in ignored} == {"development"}
