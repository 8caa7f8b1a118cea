"""create_app() wires the rooms, in the order in which a request meets them."""

from flask import Flask
from flask_smorest import Api
from werkzeug.routing import BaseConverter, ValidationError

from auth import require_owner
from blueprints import health, tasks
from config import Settings
from cors import allow_origins
from database import Database
from errors import ErrorSchema, register_error_handlers

LARGEST_ID = 2**63 - 1  # bigint


class UserIdConverter(BaseConverter):
    """Any text, also with a slash: the issuer decides what a user's id looks like."""

    regex = "(?s:.+?)"
    part_isolating = False


class TaskIdConverter(BaseConverter):
    """A positive int64 in its plain decimal form; everything else is no task's path."""

    regex = "[1-9][0-9]{0,18}"

    def to_python(self, value: str) -> int:
        task_id = int(value)
        if task_id > LARGEST_ID:
            raise ValidationError
        return task_id


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    settings = settings or Settings.load()
    app = Flask("tasks", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_content_length
    app.url_map.merge_slashes = False
    app.url_map.converters |= {"user_id": UserIdConverter, "task_id": TaskIdConverter}
    app.extensions["database"] = Database(settings)

    allow_origins(app, settings.cors_origins)
    require_owner(app, settings)
    api = Api(app, spec_kwargs={"title": "Tasks", "version": "1", "openapi_version": "3.1.0"})
    register_error_handlers(app)  # after Api, whose own handler loses the headers of errors
    for module in (tasks, health):
        api.register_blueprint(module.blueprint)
    return app
