"""schemathesis: every response conforms to the API's description, and users see only their own."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask import Flask, request
from support import EXPLORING, NewApp, settings_for

from auth import TokenVerifier, bearer_token

pytestmark = EXPLORING


def test_every_response_keeps_to_the_description(app: Flask, exploring: ModuleType, tmp_path: Path):
    report = exploring.explore(app, tmp_path)
    assert not report.faults, "\n\n".join(report.faults)
    assert report.phases >= exploring.PHASES
    assert report.checks >= exploring.CHECKS
    assert report.responses_to_bob == {401}


@pytest.fixture
def leaky_app(new_app: NewApp) -> Flask:
    """The application, except that any valid token may read any task."""
    app = new_app()
    check_owner = app.before_request_funcs[None].pop()
    verify = TokenVerifier(settings_for("postgresql://"))

    @app.before_request
    def check_owner_but_for_get() -> Any:
        if request.endpoint == "tasks.get_task":
            verify(bearer_token(request.headers.get("Authorization")))
            return None
        return check_owner()

    return app


def test_a_leak_from_user_to_user_is_found(leaky_app: Flask, exploring: ModuleType, tmp_path: Path):
    def is_found(seed: int) -> bool:
        report = exploring.explore(
            leaky_app,
            tmp_path,
            paths=r"/tasks(/\{task_id\})?$",
            seed=seed,
            generation=exploring.GENERATION | {"no-shrink": True, "max-examples": 10},
            checks={"enabled": False, exploring.SECURITY_CHECK: {"enabled": True}},
            phases={"enabled": False, "stateful": {"enabled": True}},
        )
        assert report.checks <= {exploring.SECURITY_CHECK}
        return any("`bob` received the `Task` that `alice` owns" in each for each in report.faults)

    # With ten examples, one time in five no task is created and then read.
    assert any(map(is_found, range(10)))
