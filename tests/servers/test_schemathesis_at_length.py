"""schemathesis with ten times as many examples as `make test` has time for."""

from pathlib import Path
from types import ModuleType

from flask import Flask
from support import EXPLORING

pytestmark = EXPLORING


def test_every_response_keeps_to_the_description_in_many_examples(
    app: Flask, exploring: ModuleType, tmp_path: Path
):
    many = exploring.GENERATION | {"max-examples": 30}
    report = exploring.explore(app, tmp_path, generation=many)
    assert not report.faults, "\n\n".join(report.faults)
    assert report.responses_to_bob == {401}
