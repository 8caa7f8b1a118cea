"""The pages for people, the description for programs: complete, strict about what they load."""

import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from flask.testing import FlaskClient
from support import assert_error
from werkzeug.test import TestResponse

from blueprints.docs import FOLDER_OF_ASSET, STATIC
from blueprints.paging import MAX_PAGE_SIZE
from blueprints.transfer import MAX_FAULTS
from config import SETTINGS

METHODS = {"get", "post", "put", "patch", "delete"}


def get(client: FlaskClient, path: str, **options: Any) -> TestResponse:
    """Read the whole response, so that the file behind it is closed."""
    return client.get(path, buffered=True, **options)


def description(client: FlaskClient) -> Any:
    response = get(client, "/openapi.json")
    assert response.status_code == 200
    assert response.content_type == "application/json"
    return response.json


def elements_of(html: str) -> list[tuple[str, dict[str, str | None], str]]:
    """Return each element's name, attributes and the text that follows its start."""
    parser = Elements()
    parser.feed(html)
    return parser.found


def mappings_of(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a JSON document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from mappings_of(part)


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.found:
            tag, attributes, text = self.found[-1]
            self.found[-1] = (tag, attributes, text + data)


@pytest.fixture(params=["/docs", "/redoc"])
def path(request: pytest.FixtureRequest) -> str:
    page: str = request.param
    return page


def test_a_page_says_its_language_character_set_width_and_title(client: FlaskClient, path: str):
    response = get(client, path)
    assert response.status_code == 200
    assert response.content_type == "text/html; charset=utf-8"
    found = elements_of(response.text)
    assert ("html", "en") in [(tag, attributes.get("lang")) for tag, attributes, _ in found]
    metas = [attributes for tag, attributes, _ in found if tag == "meta"]
    assert {"charset": "utf-8"} in metas
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert next(text for tag, _, text in found if tag == "title").startswith("Tasks")


def test_a_page_has_no_inline_script_style_or_handler(client: FlaskClient, path: str):
    for tag, attributes, text in elements_of(get(client, path).text):
        assert tag != "style"
        assert not any(name == "style" or name.startswith("on") for name in attributes)
        if tag == "script":
            assert attributes["src"]
            assert not text.strip()


def test_a_page_loads_only_files_that_are_served_here(client: FlaskClient, path: str):
    found = elements_of(get(client, path).text)
    links = [attributes.get("src") or attributes.get("href") for _, attributes, _ in found]
    files = [link for link in links if link]
    assert len(files) > 3
    for file in files:
        response = get(client, f"/{file}")
        assert response.status_code == 200, file
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_is_bound_to_a_strict_policy(client: FlaskClient, path: str):
    headers = get(client, path).headers
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "http" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/openapi.json", "/docs/assets/swagger-ui.css"]
)
def test_what_the_browser_has_is_not_sent_again(client: FlaskClient, path: str):
    first = get(client, path)
    again = get(client, path, headers={"If-None-Match": first.headers["ETag"]})
    assert first.status_code == 200
    assert again.status_code == 304
    assert not again.data
    assert get(client, path, headers={"If-None-Match": "*"}).status_code == 304


@pytest.mark.parametrize("header", [("If-Match", '"x"'), ("Range", "bytes=0-1")])
@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/assets/swagger-ui.css"])
def test_condition_or_range_that_is_not_heeded_gets_the_whole(
    client: FlaskClient, path: str, header: tuple[str, str]
):
    whole, response = get(client, path), get(client, path, headers=dict([header]))
    assert (response.status_code, response.data) == (200, whole.data)


@pytest.mark.parametrize("name", FOLDER_OF_ASSET)
def test_every_asset_is_served_as_what_it_is(client: FlaskClient, name: str):
    response = get(client, f"/docs/assets/{name}")
    kinds = {
        "css": {"text/css"},
        "png": {"image/png"},
        "js": {"text/javascript", "application/javascript"},
    }
    assert response.status_code == 200
    assert response.mimetype in kinds[name.rpartition(".")[2]]


@pytest.mark.parametrize(
    "name",
    [
        "unknown.js",
        "swagger-ui.html",
        "redoc/README.md",
        "oauth2-redirect.html",
        "../docs.py",
        "../../docs.py",
        "%2e%2e/docs.py",
        "redoc/../../docs.py",
        "..%5cdocs.py",
        "/etc/passwd",
        "page.css%00",
    ],
)
def test_any_other_asset_is_404(client: FlaskClient, name: str):
    assert_error(get(client, f"/docs/assets/{name}"), 404, "not_found")


def test_description_is_openapi_and_names_each_operation_once(client: FlaskClient):
    document = description(client)
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"].keys() >= {"title", "version"}
    operations = [
        operation
        for item in document["paths"].values()
        for method, operation in item.items()
        if method in METHODS
    ]
    names = [operation["operationId"] for operation in operations]
    assert names
    assert [name for name in names if names.count(name) > 1] == [], "name the views apart"
    assert all(operation["responses"] for operation in operations)


def test_every_reference_of_the_description_leads_somewhere(client: FlaskClient):
    document = description(client)
    references = [part["$ref"] for part in mappings_of(document) if "$ref" in part]
    assert references
    for reference in references:
        target = document
        for key in reference.removeprefix("#/").split("/"):
            target = target[key]


def test_every_parameter_of_a_path_is_described(client: FlaskClient):
    for path, item in description(client)["paths"].items():
        named = {parameter["name"] for parameter in item.get("parameters", ())}
        assert set(re.findall(r"{(\w+)}", path)) == named


def test_example_of_a_condition_is_an_etag_that_the_operation_returns(client: FlaskClient):
    for item in description(client)["paths"].values():
        for operation in (item[method] for method in METHODS & item.keys()):
            headers = operation["responses"].get("200", {}).get("headers", {})
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in {"If-Match", "If-None-Match"} and "ETag" in headers:
                    assert parameter["schema"]["examples"] == [headers["ETag"]["example"]]


def test_description_names_the_bearer_scheme_and_leaves_the_pages_out(client: FlaskClient):
    document = description(client)
    schemes = document["components"]["securitySchemes"]
    required = [name for requirement in document["security"] for name in requirement]
    assert [(schemes[name]["type"], schemes[name]["scheme"]) for name in required] == [
        ("http", "bearer")
    ]
    assert not document["paths"].keys() & {"/docs", "/redoc", "/openapi.json"}


def test_patterns_are_those_of_json_schema(client: FlaskClient):
    text = client.get("/openapi.json").text
    patterns = set(re.findall(r'"pattern": ?("(?:[^"\\]|\\.)*")', text))
    assert len(patterns) > 5
    assert not [each for each in patterns if re.search(r"\\\\[AZ]", each)]


def test_vendored_redoc_is_the_published_file():
    folder = STATIC / "redoc"
    readme = (folder / "README.md").read_text()
    bundle = (folder / "redoc.standalone.js").read_bytes()
    version = re.search(r"ReDoc (\S+),", readme)
    assert version
    assert f'"{version[1]}"'.encode() in bundle
    assert hashlib.sha256(bundle).hexdigest() in readme
    assert (folder / "LICENSE").is_file()


@pytest.mark.parametrize(
    ("operation", "number"),
    [
        ("listTasks", f"{MAX_PAGE_SIZE:,}"),
        ("listTrash", f"{SETTINGS['trash_days'].default} days"),
        ("importTasks", f"the first {MAX_FAULTS};"),
        ("importTasks", f"{SETTINGS['max_import_length'].default // 2**20} MiB"),
    ],
)
def test_number_in_a_description_is_that_of_the_code(
    client: FlaskClient, operation: str, number: str
):
    [text] = [
        each["description"]
        for item in description(client)["paths"].values()
        for each in item.values()
        if isinstance(each, dict) and each.get("operationId") == operation
    ]
    assert number in text
