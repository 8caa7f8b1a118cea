"""The WSGI application, for any server: gunicorn here, as gunicorn.conf.py sets it up."""

from app import create_app
from config import Settings
from migrate import require_migrated
from observability.logs import set_up_logging

settings = Settings.load()
set_up_logging(settings)
require_migrated(settings)
application = create_app(settings)
