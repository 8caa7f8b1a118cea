"""What people do in a browser: try the API in its pages, and call it from the front end's page."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Error, Locator, Page, expect
from support import token_for

CALL = """async ([method, url, token, body]) => {
    const headers = {"Content-Type": "application/json", Authorization: `Bearer ${token}`};
    const response = await fetch(url, {method, headers, body: body && JSON.stringify(body)});
    const text = await response.text();
    return {
        status: response.status,
        location: response.headers.get("Location"),
        body: text && JSON.parse(text),
    };
}"""


def watch(page: Page, origin: str) -> list[str]:
    """Return a list that grows with each error on the page and each request to elsewhere."""
    faults: list[str] = []

    def look_at(url: str) -> None:
        parts = urlsplit(url.removeprefix("blob:"))
        if parts.scheme != "data" and f"{parts.scheme}://{parts.netloc}" != origin:
            faults.append(f"request to {url}")

    # A violation of the policy is an error on the console as well.
    page.on("console", lambda entry: faults.append(entry.text) if entry.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: look_at(request.url))
    page.on("websocket", lambda socket: look_at(socket.url))
    return faults


def call(page: Page, method: str, url: str, user: str, body: Any = None) -> Any:
    return page.evaluate(CALL, [method, url, token_for(user), body])


def authorise(page: Page) -> None:
    page.goto("/docs")
    page.get_by_role("button", name="Authorize").click()
    page.locator(".auth-container input").fill(token_for("demo"))
    page.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
    page.locator(".auth-container").get_by_role("button", name="Close").click()


def execute(page: Page, name: str, body: dict[str, Any], **path: str) -> Locator:
    """Try an operation with what must be given, and nothing else; return where its response is."""
    operation = page.locator(f"[id$=-{name}]")
    if not operation.get_by_role("button", name="Execute").is_visible():
        operation.locator(".opblock-summary-control").click()
    for parameter, value in path.items():
        operation.get_by_placeholder(parameter, exact=True).fill(value)
    operation.locator("textarea").fill(json.dumps(body))
    operation.get_by_role("button", name="Execute").click()
    return operation.locator(".live-responses-table")


def test_a_person_authorises_in_swagger_ui_and_creates_and_updates_tasks(page: Page, api_url: str):
    faults = watch(page, api_url)
    authorise(page)
    for number, title in enumerate(("Buy milk", "Buy tea"), 1):
        response = execute(page, "createTask", {"title": title}, user_id="demo")
        expect(response).to_contain_text(f'"title": "{title}"')
        expect(response.locator(".response-col_status").last).to_contain_text("201")
        expect(response).to_contain_text(f"location: /api/demo/tasks/{number}")
    expect(page.locator(".opblock-summary-method").first).to_have_css("color", "rgb(255, 255, 255)")
    expect(page.locator("body")).to_have_css("margin", "0px")
    response = execute(page, "updateTask", {"title": "Buy bread"}, user_id="demo", task_id="1")
    expect(response).to_contain_text('"title": "Buy bread"')
    expect(response.locator(".response-col_status").last).to_contain_text("200")
    assert faults == []


def test_swagger_ui_remembers_the_token_over_a_reload(page: Page, api_url: str):
    faults = watch(page, api_url)
    page.goto("/docs")
    page.get_by_role("button", name="Authorize").click()
    page.locator(".auth-container input").fill(token_for("demo"))
    page.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
    page.reload()
    expect(page.locator(".auth-wrapper .authorize.locked")).to_be_visible()
    assert faults == []


def test_redoc_shows_and_finds_the_operations(page: Page, api_url: str):
    faults = watch(page, api_url)
    page.goto("/redoc")
    expect(page.get_by_role("heading", level=1).first).to_contain_text("Tasks")
    expect(page.get_by_role("heading", name="Create a task")).to_be_visible()
    page.get_by_placeholder("Search").fill("completion")
    found = page.locator("[data-role='search:results']")
    expect(found).to_contain_text("Toggle a task's completion")
    assert faults == []


def test_front_end_of_an_allowed_origin_works_with_tasks(page: Page, api_url: str, front_end: str):
    page.goto(front_end)
    tasks = f"{api_url}/api/carol/tasks"
    assert call(page, "GET", tasks, "carol") == {"status": 200, "location": None, "body": []}
    created = call(page, "POST", tasks, "carol", {"title": "Buy milk", "description": ""})
    task = created["body"]
    path = f"{tasks}/{task['id']}"
    assert created["status"] == 201
    assert created["location"] == urlsplit(path).path
    assert call(page, "GET", tasks, "carol")["body"] == [task]
    assert call(page, "PUT", path, "carol", {"title": "Buy tea"})["body"]["title"] == "Buy tea"
    assert call(page, "PATCH", f"{path}/complete", "carol")["body"]["completed"] is True
    assert call(page, "DELETE", path, "carol") == {"status": 204, "location": None, "body": ""}


def test_front_end_of_an_allowed_origin_reads_why_it_was_refused(
    page: Page, api_url: str, front_end: str
):
    page.goto(front_end)
    other = call(page, "GET", f"{api_url}/api/carol/tasks", "dave")
    assert (other["status"], other["body"]["error"]) == (401, "unauthorized")
    assert other["body"]["message"]
    missing = call(page, "DELETE", f"{api_url}/api/carol/tasks/999", "carol")
    assert missing["status"] == 404
    assert missing["body"]["message"] == "Resource not found: task 999"


def test_page_of_any_other_origin_reads_nothing(page: Page, api_url: str, front_end: str):
    page.goto(front_end.replace("localhost", "127.0.0.1"))
    with pytest.raises(Error, match="Failed to fetch"):
        call(page, "GET", f"{api_url}/api/carol/tasks", "carol")
