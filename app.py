"""create_app() puts the application together."""

from flask import Flask

from auth import require_owner
from blueprints import batch, changes, docs, health, tasks, transfer, trash
from capacity.overload import queue_requests
from capacity.rate_limits import RateLimits
from capacity.transfer_limits import bound_transfers
from config import VERSION, Settings
from content_encoding import compress_responses
from converters import TaskIdConverter, UserIdConverter, describe_task_id, describe_user_id
from database import Database
from errors import register_error_handlers
from headers import add_headers, trust_proxies
from idempotency import keep_responses
from lean_flask import LeanFlask
from observability.observe import observe
from openapi import DESCRIPTION, SharedDescription, TasksApi, describe_choice, describe_constant
from replicas import Reader


def create_app(settings: Settings) -> Flask:
    """Build the application. Nothing connects before the first request, so it may be forked."""
    app = LeanFlask("tasks", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_content_length
    app.config["MAX_IMPORT_LENGTH"] = settings.max_import_length
    app.config["CHANGES_EPOCH"] = settings.changes_epoch
    app.config["CURSOR_KEY"] = settings.cursor_key
    app.config["MAX_TASKS_PER_USER"] = settings.max_tasks_per_user
    app.extensions["database"] = primary = Database(settings)
    app.extensions["reader"] = Reader(settings, primary) if settings.database_replica_url else None
    app.extensions["rate_limits"] = RateLimits(settings)
    app.extensions["readiness"] = health.Readiness()

    # In front of Flask: a request meets the last of these five first.
    queue_requests(app)
    bound_transfers(app)
    add_headers(app, settings)
    trust_proxies(app, settings.trusted_proxies)
    observe(app, settings)
    # Within Flask, in the order in which a request meets them.
    require_owner(app, settings)
    keep_responses(app)
    compress_responses(app)
    api = TasksApi(
        app,
        spec_kwargs={
            "title": "Tasks",
            "version": VERSION,
            "openapi_version": "3.1.0",
            "info": {"description": DESCRIPTION, "license": {"name": "MIT", "identifier": "MIT"}},
            "servers": [{"url": "/"}],
            "security": [{"token": []}],
            "extra_plugins": [SharedDescription(app)],
        },
    )
    api.spec.components.security_scheme(
        "token",
        {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A JWT of the issuer. For `make run`, `make -s token` prints one.",
        },
    )
    api.ma_plugin.converter.add_attribute_function(describe_choice)
    api.ma_plugin.converter.add_attribute_function(describe_constant)
    api.register_converter(UserIdConverter, describe_user_id)
    api.register_converter(TaskIdConverter, describe_task_id)
    register_error_handlers(app)  # after Api, whose own handler loses the headers of errors
    for module in (tasks, batch, changes, transfer, trash, health):
        api.register_blueprint(module.blueprint)
    app.register_blueprint(docs.blueprint)
    app.extensions["description"] = api.spec
    return app
