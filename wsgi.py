"""The WSGI application, for any server that ends `wsgi.input` where the request body ends."""

import sys

from app import create_app
from config import PROJECT, ConfigError, Settings
from migrate import require_migrated
from observability.logs import set_up_logging

if "gunicorn.arbiter" in sys.modules and "server.worker" not in sys.modules:
    # It looks for the file in the current folder, and without it would serve without our limits.
    raise ConfigError(
        f"gunicorn has not read gunicorn.conf.py: start it in {PROJECT}, without another --config"
    )

settings = Settings.load()
set_up_logging(settings)
require_migrated(settings)
application = create_app(settings)
