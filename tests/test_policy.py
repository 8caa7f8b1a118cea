"""What holds for the whole project: each route, each setting, each thing that is written twice."""

import json
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from support import User, app_for, assert_error
from werkzeug.routing import Rule

import generated
from auth import PUBLIC_ENDPOINTS
from blueprints import WRITES, UserBlueprint
from config import PROJECT, SETTINGS
from openapi import describe_error
from schemas import Task

OPERATIONS = {
    "listTasks": ("get", "/api/{user_id}/tasks", "200"),
    "createTask": ("post", "/api/{user_id}/tasks", "201"),
    "getTask": ("get", "/api/{user_id}/tasks/{task_id}", "200"),
    "updateTask": ("put", "/api/{user_id}/tasks/{task_id}", "200"),
    "deleteTask": ("delete", "/api/{user_id}/tasks/{task_id}", "204"),
    "toggleTaskCompletion": ("patch", "/api/{user_id}/tasks/{task_id}/complete", "200"),
}
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
README = (PROJECT / "README.md").read_text()


def openapi() -> dict:
    return json.loads(generated.openapi())


def path_of(rule: Rule) -> str:
    return re.sub(r"<\w+:\w+>", "1", rule.rule.replace("<user_id:user_id>", "alice"))


def test_every_route_is_public_by_name_or_belongs_to_its_user(
    application: Flask, client: FlaskClient
):
    bob = User(client, "bob")
    for rule in application.url_map.iter_rules():
        if rule.endpoint in PUBLIC_ENDPOINTS:
            assert "user_id" not in rule.arguments, rule
            continue
        assert "user_id" in rule.arguments, f"{rule} has no owner"
        for method in METHODS & rule.methods:
            assert_error(client.open(path_of(rule), method=method), 401, "unauthorized")
            assert_error(bob.call(method, path_of(rule)), 401, "unauthorized")


def test_every_post_and_patch_heeds_an_idempotency_key(application: Flask, client: FlaskClient):
    alice = User(client, "alice")
    for rule in application.url_map.iter_rules():
        for method in {"POST", "PATCH"} & rule.methods:
            response = alice.call(method, path_of(rule), headers={"Idempotency-Key": "not visible"})
            assert_error(response, 400, "bad_request")
            assert "Idempotency-Key" in response.json["message"], rule


def test_every_route_of_users_refuses_a_query_parameter_that_it_does_not_have(
    application: Flask, client: FlaskClient
):
    """Else two requests that differ only in it could share an Idempotency-Key."""
    alice = User(client, "alice")
    for rule in application.url_map.iter_rules():
        for method in METHODS & rule.methods if "user_id" in rule.arguments else ():
            body = {"title": "x"} if method in {"POST", "PUT", "PATCH"} else None
            response = alice.call(method, f"{path_of(rule)}?zz=1", json=body)
            assert assert_error(response, 422, "validation_error") == {"zz": ["Unknown parameter."]}


def test_every_route_of_users_is_on_a_blueprint_that_takes_nothing_it_does_not_heed(
    application: Flask,
):
    for rule in application.url_map.iter_rules():
        blueprint = application.blueprints[rule.endpoint.partition(".")[0]]
        assert isinstance(blueprint, UserBlueprint) == ("user_id" in rule.arguments), rule


def test_every_write_of_what_has_no_version_refuses_if_match(
    application: Flask, client: FlaskClient
):
    alice = User(client, "alice")
    for rule in application.url_map.iter_rules():
        heeded = getattr(application.view_functions[rule.endpoint], "heeds", ())
        for method in WRITES & rule.methods if "If-Match" not in heeded else ():
            response = alice.call(method, path_of(rule), headers={"If-Match": '"1"'})
            assert_error(response, 412, "precondition_failed")


def test_every_post_and_patch_describes_its_idempotency_key():
    for path, item in openapi()["paths"].items():
        for operation in (item[method] for method in ["post", "patch"] if method in item):
            assert "Idempotency-Key" in [each["name"] for each in operation["parameters"]], path
            assert operation["responses"].keys() >= {"400", "409", "422"}


def test_public_list_names_no_route_that_is_gone(application: Flask):
    assert application.view_functions.keys() >= PUBLIC_ENDPOINTS


def test_no_hook_is_of_a_kind_that_is_never_called(application: Flask):
    assert not application.url_value_preprocessors
    assert not application.teardown_request_funcs
    assert not application.teardown_appcontext_funcs
    assert application.after_request_funcs.keys() <= {None}


@pytest.mark.parametrize(("path", "names"), [("/livez", "ab"), ("/none", "a")])
def test_hook_is_called_once(path: str, names: str):
    app, called = app_for(), []
    app.before_request(lambda: called.append("a"))
    app.before_request_funcs["health"] = [lambda: called.append("b")]
    app.test_client().get(path)
    assert called == list(names)


def test_every_api_route_is_described_in_openapi(application: Flask):
    described = {
        (method.upper(), path)
        for path, item in openapi()["paths"].items()
        for method in item
        if method.upper() in METHODS
    }
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in application.url_map.iter_rules()
        if not rule.endpoint.startswith("docs.")
        for method in METHODS & rule.methods
    }
    assert described == routes


def test_only_what_is_no_part_of_a_users_request_goes_past_its_transaction():
    """A write by `pool()` would be done again where an Idempotency-Key is sent again."""
    files = [*PROJECT.glob("*.py"), *PROJECT.glob("blueprints/*.py")]
    assert {path.name for path in files if "pool()" in path.read_text()} == {
        "__init__.py",  # where a transaction begins
        "health.py",
        "idempotency.py",  # where a key's transaction begins
        "trash.py",  # DELETE has no key, and empties the trash in several transactions
    }


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_of_the_contract_is_where_clients_expect_it(name: str):
    method, path, status = OPERATIONS[name]
    operation = openapi()["paths"][path][method]
    assert operation["operationId"] == name
    assert status in operation["responses"]
    assert operation["summary"]


def test_openapi_describes_every_error_in_the_one_shape():
    components = openapi()["components"]
    for item in openapi()["paths"].values():
        for operation in (item[method] for method in item if method != "parameters"):
            for status, response in operation["responses"].items():
                if int(status) < 400:
                    continue
                name = response.get("$ref", "").rpartition("/")[2]
                content = (components["responses"][name] if name else response)["content"]
                schema = content["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Error"}


EXAMPLES = {
    400: ("POST", "", {"data": "{", "content_type": "application/json"}),
    404: ("GET", "12", {}),
    406: ("GET", "export", {"headers": {"Accept": "image/png"}}),
    413: ("POST", "", {"data": b" " * (2**20 + 1), "content_type": "application/json"}),
    415: ("POST", "", {"data": "title=x", "content_type": "text/plain"}),
    422: ("POST", "", {"json": {}}),
}


@pytest.mark.parametrize("status", EXAMPLES)
def test_example_of_an_error_is_what_the_api_says(alice: User, status: int):
    method, path, options = EXAMPLES[status]
    response = alice.call(method, path, **options)
    example = describe_error(status)["content"]["application/json"]["example"]
    assert response.status_code == status
    assert response.json["message"] == example["message"]


def test_openapi_has_no_component_that_nothing_uses():
    text = json.dumps(openapi())
    for kind in ["schemas", "responses"]:
        for name in openapi()["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text


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
    files = {*PROJECT.glob("*.py"), *PROJECT.glob("blueprints/*.py")} - {PROJECT / "config.py"}
    assert any(re.search(rf"""[."]{name}\b""", path.read_text()) for path in files)


def test_every_operation_of_users_stands_in_the_readme():
    for path, item in openapi()["paths"].items():
        for operation in (item[method] for method in item if method != "parameters"):
            if operation.get("security") == []:
                continue
            assert f"`{operation['operationId']}`" in README, path
            assert operation["summary"], path


def test_first_answer_in_the_readme_is_a_task():
    [answer] = re.findall(r'^{"id":.*}$', README, re.MULTILINE)
    assert json.loads(answer).keys() == Task().fields.keys()


def test_environment_is_read_in_config_alone():
    # The others pass it on to programs that we start, or read what is gunicorn's or a library's.
    readers = {"config.py", "metrics_server.py", "plain_requests.py"}
    readers |= {"migrate.py", "postgres_programs.py"}
    for path in [*PROJECT.glob("*.py"), *PROJECT.glob("blueprints/*.py")]:
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
    folders = ["", "blueprints", "migrations", "tests", "queries"]
    for name in set(re.findall(r"[\w./-]+\.(?:py|sql)\b", README)):
        assert any((PROJECT / folder / name).exists() for folder in folders), name


def test_every_module_stands_in_the_readme():
    for path in PROJECT.glob("*.py"):
        assert path.name in README or path.name == "wsgi.py", path.name


def test_every_document_that_the_code_names_exists():
    for path in [*PROJECT.glob("*.py"), *PROJECT.glob("blueprints/*.py")]:
        for name in re.findall(r"docs/decisions/[\w-]+(?:\.md)?", path.read_text()):
            assert (PROJECT / name).is_file(), (path, name)


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


def test_python_is_named_in_one_version():
    dockerfile = (PROJECT / "Dockerfile").read_text()
    assert "Python 3.11" in README
    assert 'target-version = "py311"' in (PROJECT / "pyproject.toml").read_text()
    assert re.search(r"FROM python:3\.1[1-9]", dockerfile)


def test_changelog_names_the_version_of_the_api():
    assert f"## {openapi()['info']['version']}" in (PROJECT / "CHANGELOG.md").read_text()
