"""schemathesis with ten times as many examples as `make test` has time for."""

from pathlib import Path

import pytest
from flask import Flask
from test_schemathesis import pytestmark  # noqa: F401 - what schemathesis needs of pytest


def test_every_answer_keeps_to_the_description_in_many_examples(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import exploring  # late, as in test_schemathesis

    monkeypatch.setattr("schemathesis.python.wsgi.get_client", exploring.Client)
    many = exploring.GENERATION | {"max-examples": 30}
    report = exploring.explore(app, tmp_path, generation=many)
    assert not report.faults, "\n\n".join(report.faults)
    assert report.answers_to_bob == {401}
