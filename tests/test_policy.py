"""What holds for every route, and for what OpenAPI says of it."""

import ast
import json
import re
from graphlib import TopologicalSorter

import pytest
from flask import Flask
from flask.testing import FlaskClient
from support import MODULES, User, app_for, assert_error
from werkzeug.routing import Rule

from auth import PUBLIC_ENDPOINTS
from blueprints import UserBlueprint
from config import PROJECT
from cors import EXPOSED_HEADERS
from development import generated
from openapi import describe_error
from trail import WRITES

OPERATIONS = {
    "listTasks": ("get", "/api/{user_id}/tasks", "200"),
    "createTask": ("post", "/api/{user_id}/tasks", "201"),
    "getTask": ("get", "/api/{user_id}/tasks/{task_id}", "200"),
    "updateTask": ("put", "/api/{user_id}/tasks/{task_id}", "200"),
    "deleteTask": ("delete", "/api/{user_id}/tasks/{task_id}", "204"),
    "toggleTaskCompletion": ("patch", "/api/{user_id}/tasks/{task_id}/complete", "200"),
}
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


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


def test_every_route_of_users_is_on_a_user_blueprint(
    application: Flask,
):
    for rule in application.url_map.iter_rules():
        blueprint = application.blueprints[rule.endpoint.partition(".")[0]]
        is_private = isinstance(blueprint, UserBlueprint)
        assert is_private == ("user_id" in rule.arguments), f"{rule} wants a UserBlueprint"


def test_every_blueprint_is_registered(application: Flask):
    text = "".join(path.read_text() for path in (PROJECT / "blueprints").glob("*.py"))
    made = re.findall(r"^blueprint = \w+\(\s*\"(\w+)\"", text, re.MULTILINE)
    assert set(made) == application.blueprints.keys(), "add it to app.py"


@pytest.mark.parametrize("condition", [("If-Match", '"1"'), ("If-None-Match", "*")])
def test_every_write_of_what_has_no_version_refuses_conditions(
    application: Flask, client: FlaskClient, condition: tuple[str, str]
):
    alice = User(client, "alice")
    for rule in application.url_map.iter_rules():
        heeded = getattr(application.view_functions[rule.endpoint], "heeds", ())
        for method in WRITES & rule.methods if "If-Match" not in heeded else ():
            response = alice.call(method, path_of(rule), headers=dict([condition]))
            assert_error(response, 412, "precondition_failed")


@pytest.mark.parametrize("condition", [("If-Match", '"99"'), ("If-None-Match", "*")])
def test_every_write_that_heeds_conditions_refuses_one_that_does_not_hold(
    application: Flask, alice: User, condition: tuple[str, str]
):
    for rule in application.url_map.iter_rules():
        heeded = getattr(application.view_functions[rule.endpoint], "heeds", ())
        for method in WRITES & rule.methods if "If-Match" in heeded else ():
            listed, trashed = alice.create(), alice.create()
            alice.call("DELETE", trashed["id"])
            options = {"json": {"title": "Mine"}} if "body" in heeded else {}
            options["headers"] = dict([condition])
            paths = [path_of(rule).replace("/1", f"/{each['id']}") for each in (listed, trashed)]
            statuses = {alice.call(method, path, **options).status_code for path in paths}
            assert statuses == {404, 412}, rule
            assert alice.call("GET", listed["id"]).json == listed, rule


def test_every_write_describes_how_its_body_is_refused():
    for path, item in openapi()["paths"].items():
        for operation in (item[method.lower()] for method in WRITES if method.lower() in item):
            assert operation["responses"].keys() >= {"400", "413", "415"}, path


def test_every_post_and_patch_describes_its_idempotency_key():
    for path, item in openapi()["paths"].items():
        for operation in (item[method] for method in ["post", "patch"] if method in item):
            assert "Idempotency-Key" in [each["name"] for each in operation["parameters"]], path
            assert operation["responses"].keys() >= {"400", "409", "422"}


def test_public_list_names_no_route_that_is_gone(application: Flask):
    assert application.view_functions.keys() >= PUBLIC_ENDPOINTS


def test_no_hook_is_registered_that_lean_flask_would_not_call(application: Flask):
    assert not application.url_value_preprocessors
    assert not application.teardown_request_funcs
    assert not application.teardown_appcontext_funcs
    assert application.after_request_funcs.keys() <= {None}
    assert all("." not in name for name in application.blueprints), "of a blueprint's parent"


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


def test_modules_and_folders_have_no_circular_imports():
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        unit = path.relative_to(PROJECT).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                module = getattr(node, "module", None)
                names = [module] if module else [each.name for each in node.names]
                imported = {name.partition(".")[0] for name in names}
                graph.setdefault(unit, set()).update(imported - {unit})
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_only_these_modules_use_the_pool_outside_of_a_requests_transaction():
    """A write by `primary()` would be done again where an Idempotency-Key is sent again."""
    assert {path.name for path in MODULES if "primary()" in path.read_text()} == {
        "__init__.py",  # where a transaction begins
        "health.py",
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
                code = content["application/json"]["example"]["error"]
                assert content["application/json"]["schema"] == {
                    "allOf": [
                        {"$ref": "#/components/schemas/ErrorBody"},
                        {"type": "object", "properties": {"error": {"const": code}}},
                    ]
                }


def test_openapi_describes_the_headers_of_a_task():
    one_task = {"$ref": "#/components/schemas/Task"}
    for path, item in openapi()["paths"].items():
        for operation in (item[method] for method in item if method != "parameters"):
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/json", {})
                if content.get("schema") == one_task:
                    expected = {"ETag", "Location"} if status == "201" else {"ETag"}
                    assert expected <= response.get("headers", {}).keys(), path


def test_openapi_describes_the_request_id_of_an_error_as_text():
    details = openapi()["components"]["schemas"]["ErrorBody"]["properties"]["details"]
    assert details["properties"]["request_id"]["type"] == "string"


def test_openapi_declares_the_retry_after_of_every_503():
    description = openapi()
    assert description["components"]["responses"]["unavailable"]["headers"]["Retry-After"]
    for path, item in description["paths"].items():
        for operation in (item[method] for method in item if method != "parameters"):
            if response := operation["responses"].get("503"):
                assert response == {"$ref": "#/components/responses/unavailable"}, path


def test_pages_of_other_origins_can_read_every_header_that_openapi_describes():
    description = openapi()
    responses = list(description["components"]["responses"].values())
    for item in description["paths"].values():
        for operation in (item[method] for method in item if method != "parameters"):
            responses += operation["responses"].values()
    described = {name for response in responses for name in response.get("headers", ())}
    assert described | {"Allow", "Server-Timing"} == set(EXPOSED_HEADERS.split(", "))


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


def test_responses_may_gain_fields_and_bodies_of_requests_may_not():
    description = openapi()
    schemas, paths = description["components"]["schemas"], description["paths"]
    operations = [
        each for item in paths.values() for key, each in item.items() if key != "parameters"
    ]
    for part, expected in [("requestBody", False), ("responses", None)]:
        text = json.dumps([operation.get(part) for operation in operations])
        for name in set(re.findall("#/components/schemas/([A-Za-z]+)", text)):
            assert schemas[name].get("additionalProperties") is expected, name


def test_openapi_has_no_component_that_nothing_uses():
    text = json.dumps(openapi())
    for kind in ["schemas", "responses"]:
        for name in openapi()["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text


def test_openapi_gives_no_field_a_default():
    """Code that is made from it takes a field with a default for a required one."""
    assert '"default"' not in json.dumps(openapi()["components"]["schemas"])


def test_openapi_names_a_server_and_the_license():
    """Linters require both."""
    assert openapi()["servers"] == [{"url": "/"}]
    assert openapi()["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
