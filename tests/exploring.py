"""schemathesis on the application, with what it does and finds in a report."""

import json
import re
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from traceback import format_exception
from typing import Any

import schemathesis
import werkzeug
from flask import Flask
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema
from support import User, cursor_at, token_for
from werkzeug.test import TestResponse

from blueprints.positions import START
from idempotency import KEY

SECURITY_CHECK = "object_level_authorization"
CHECKS = {
    "allow_header_conformance",
    "content_type_conformance",
    "ensure_resource_availability",
    "ignored_auth",
    "missing_required_header",
    "negative_data_rejection",
    "not_a_server_error",
    "positive_data_acceptance",
    "response_headers_conformance",
    "response_schema_conformance",
    "status_code_conformance",
    "unsupported_method",
    "use_after_free",
    SECURITY_CHECK,
}
GENERATION = {"mode": "all", "max-examples": 3, "deterministic": True, "database": "none"}
# An entity tag that is not the task's is not bad input: it is answered by 412.
ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "412", "429", "5xx"]
PHASES = {"examples", "coverage", "fuzzing", "stateful"}

# The schema of a file that is not JSON is a string, and few strings are such a file.
FILES = {
    "text/csv": ("title,tags\r\n", '"{} is what, to do",a\r\n', ""),
    "text/calendar": (
        "BEGIN:VCALENDAR\r\n",
        "BEGIN:VTODO\r\nSUMMARY:{}\r\nEND:VTODO\r\n",
        "END:VCALENDAR\r\n",
    ),
}
for name, (head, entry, tail) in FILES.items():
    entries = st.lists(st.integers().map(entry.format), max_size=3).map("".join)
    schemathesis.openapi.media_type(
        name, st.builds((head + "{}" + tail).format, entries).map(str.encode)
    )


class Client(werkzeug.Client):
    """Drops options for a network, which schemathesis gives to werkzeug as well.

    It replaces each valid Idempotency-Key by a new one: to use one for two requests is a 422. So is
    one task in two operations of a batch, which no schema can forbid.
    """

    numbers = count()

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        for name in ("max_redirects", "verify", "cert"):
            kwargs.pop(name, None)
        headers = kwargs.get("headers") or {}
        headers.pop("Accept-Encoding", None)  # only from a network does it decompress
        if KEY.fullmatch(headers.get("Idempotency-Key", "")):
            headers["Idempotency-Key"] = f'"{next(self.numbers)}"'
        match kwargs.get("json"):
            case {"operations": list(operations)}:
                name_each_task_once(operations)
        return super().open(*args, **kwargs)


def name_each_task_once(operations: list[Any]) -> None:
    ids: set[float] = set()
    for operation in operations:
        task_id = operation.get("id") if isinstance(operation, dict) else None
        if type(task_id) in {int, float}:
            operation["id"] = task_id if task_id not in ids else max(ids) + 1
            ids.add(operation["id"])


@dataclass
class Report:
    """What schemathesis did, and what it found."""

    phases: set[str] = field(default_factory=set)
    checks: set[str] = field(default_factory=set)
    responses_to_bob: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def add(self, event: events.EngineEvent) -> None:
        match event:
            case events.PhaseFinished(phase=phase, status=Status.SUCCESS):
                self.phases.add(phase.name.value)
            case events.NonFatalError(value=error, label=label):
                self.faults.append(f"{label}: {''.join(format_exception(error))}")
            case events.FatalError(exception=exception):
                raise exception
            case events.ScenarioFinished(recorder=recorder):
                for check in (check for checks in recorder.checks.values() for check in checks):
                    self.checks.add(check.name)
                    if found := check.failure_info:
                        self.faults.append(
                            f"{found.failure.title}: {found.failure.message}\n{found.code_sample}"
                        )
                for key, exchange in recorder.interactions.items():
                    if recorder.cases[key].value.auth_identity == "bob" and exchange.response:
                        self.responses_to_bob.add(exchange.response.status_code)


def description_for(user_id: str, app: Flask) -> Any:
    """The served description with one good user_id, the token's, and one good position.

    Any other is then bad input. A cursor of a list is valid only if it was handed out, which no
    schema can say.
    """
    description = app.test_client().get("/openapi.json").json
    assert description
    for path in description["paths"].values():
        for parameter in path.get("parameters", []):
            if parameter["name"] == "user_id":
                parameter["schema"] = {"type": "string", "enum": [user_id]}
        for parameter in path.get("get", {}).get("parameters", []):
            if parameter["name"] in {"since", "cursor"}:
                cursor = cursor_at(User(app.test_client(), user_id), *START)
                parameter |= {"schema": {"type": "string", "enum": [cursor]}, "example": cursor}
        # schemathesis takes no example where FILES generates some; tests/test_import.py tries it.
        content = path.get("post", {}).get("requestBody", {}).get("content", {})
        for name in FILES.keys() & content.keys():
            del content[name]["example"]
    # Clients must take fields they do not know; here, each field that is served is described.
    for schema in description["components"]["schemas"].values():
        schema.setdefault("additionalProperties", False)
    listed = description["paths"]["/api/{user_id}/tasks"]["get"]["parameters"]
    listed[:] = [parameter for parameter in listed if parameter["name"] != "cursor"]
    return description


def credentials(user_id: str) -> dict[str, Any]:
    header = {"name": "Authorization", "value": f"Bearer {token_for(user_id)}"}
    return {"name": user_id, "fixedHeaders": [header]}


def explore(app: Flask, folder: Path, paths: str = "", **settings: Any) -> Report:
    """Run schemathesis as alice, and with bob as the one who must not see what is hers.

    `paths` is a pattern of the paths to be tried; empty: all.
    """
    users = folder / "users.json"
    users.write_text(json.dumps({"auth": [credentials("alice"), credentials("bob")]}))
    config = {
        "seed": 1,
        "continue-on-failure": True,
        "auth": {"wfc": {"path": str(users), "user": "alice", "peers": ["alice", "bob"]}},
        "generation": GENERATION,
        "checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}},
    }
    description = description_for("alice", app)
    for path in [path for path in description["paths"] if not re.search(paths, path)]:
        del description["paths"][path]
    schema = schemathesis.openapi.from_dict(
        description, config=SchemathesisConfig.from_dict(config | settings)
    )
    schema.app = app
    report = Report()
    for event in from_schema(schema).execute():
        report.add(event)
    return report
